//! [`Supervisor`]: what we are to the commands that we run: their reaper, and who passes signals on.

mod state;
mod watch;

use std::fmt;
use std::fs::File;
use std::io::{self, PipeWriter, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::processes::{self, Kin, Leader, Process};
use super::{Error, Exit};
use crate::sys::signals::{self, Caught};
use crate::sys::{Errno, process};
use state::{State, after};
use watch::Watch;

/// Signals that ask us to end.
pub(super) const STOP_SIGNALS: [u8; 4] = [1, 2, 3, 15];
/// Byte that ends the thread which reads the signals; no signal has this number.
const HANG_UP: u8 = 0;
/// How long a command may take to end after it was told to. Kubernetes gives 30 seconds to all of us.
const GRACE: Duration = Duration::from_secs(10);
/// First and longest pause between two looks at what is still there after SIGKILL.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Made once, at the start of the program, before it reads credentials. While it lives, signals that ask us to end go
/// to the running commands, and orphans of commands are ours.
#[derive(Debug)]
pub struct Supervisor {
    state: Arc<State>,
    open_files: process::Rlimit,
    caught: Option<Caught>,
    hang_up: PipeWriter,
    thread: Option<JoinHandle<()>>,
}

/// Why all that we do is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// This signal asked us to.
    Signal(i32),
    /// The time that all may take is over.
    OutOfTime,
}

impl Supervisor {
    /// Makes this process not dumpable and a subreaper, and catches SIGHUP, SIGINT, SIGQUIT and SIGTERM. `on_stop` is
    /// called on another thread with the first of them, or because `limit` from now is over, once the running commands have been
    /// told: for a caller that may be waiting for something else. It must not wait itself. Signals are caught once in a process: a
    /// second supervisor beside the first is an error.
    pub fn start(
        limit: Option<Duration>,
        on_stop: impl FnOnce(StopReason) + Send + 'static,
    ) -> Result<Supervisor, Error> {
        let failed = |action| move |source: io::Error| Error::Supervise { action, source };
        process::set_dumpable_behavior(process::DumpableBehavior::NotDumpable)
            .map_err(|errno| failed("hide the memory")(errno.into()))?;
        process::set_child_subreaper(Some(process::getpid()))
            .map_err(|errno| failed("become subreaper")(errno.into()))?;
        let (reader, writer) = io::pipe().map_err(failed("make a pipe"))?;
        let hang_up = writer.try_clone().map_err(failed("make a pipe"))?;
        let caught = signals::catch(&STOP_SIGNALS, OwnedFd::from(writer)).map_err(failed("catch signals"))?;
        let state = Arc::new(State::default());
        let watch =
            Watch { reader, state: Arc::clone(&state), on_stop: Some(on_stop), stop_at: after(limit), kill_at: None };
        let thread = thread::Builder::new()
            .name("signals".to_owned())
            .spawn(|| watch.run())
            .map_err(failed("start a thread"))?;
        let open_files = process::getrlimit(process::Resource::Nofile);
        Ok(Supervisor { state, open_files, caught: Some(caught), hang_up, thread: Some(thread) })
    }

    /// What asked us to end, if something did.
    pub fn was_stopped(&self) -> Option<StopReason> {
        self.state.stopped_by()
    }

    /// Kills the commands that are running, and those that begin later: nobody wants what they do any longer.
    pub fn give_up(&self) {
        self.state.give_up();
    }

    /// Kills what a command that has ended, and is not reaped yet, left running, until nothing of it is there. What is still
    /// there at the deadline is an error. Gives the number of processes that were killed.
    pub(super) fn end_rest(&self, leader: Leader, deadline: Duration) -> Result<usize, Error> {
        let begun = Instant::now();
        let mut killed = std::collections::BTreeSet::new();
        let mut pause = SHORTEST_PAUSE;
        loop {
            let all = processes::all()?;
            let mut left = processes::of_command(&all, ourselves(), leader);
            // as long as it is there, its number is nobody else's
            left.retain(|process| process.pid != leader.pid);
            if left.is_empty() {
                return Ok(killed.len());
            }
            if begun.elapsed() > deadline {
                let named: Vec<String> =
                    left.iter().map(|left| format!("{} ({})", left.pid, left.name.escape_debug())).collect();
                return Err(Error::StillRunning { processes: named.join(", ") });
            }
            for process in left {
                // a zombie can be the first thread of a process whose other threads run on
                if kill(process)? && !process.is_zombie {
                    killed.insert((process.pid, process.started));
                }
                reap(process.pid);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The limit of open files as it was when we started: what commands get.
    pub(super) fn open_files(&self) -> process::Rlimit {
        self.open_files
    }

    /// Makes signals go to the command `pid`, which is our child, and later what it leaves behind findable. It is told to end
    /// when it has run for `limit`, at most a second late.
    pub(super) fn attach(&self, pid: i32, kin: Kin, limit: Option<Duration>) -> Result<Leader, Error> {
        let started = processes::one(pid)?.map_or(0, |process| process.started);
        let leader = Leader { pid, started, kin };
        self.state.attach(leader, limit);
        Ok(leader)
    }

    /// To be called when the command has ended and before it is reaped, while its id cannot be another's. Tells whether it
    /// had been told to end, since it took too long.
    pub(super) fn detach(&self, leader: Leader) -> bool {
        self.state.detach(leader)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.caught.take());
        let told = self.hang_up.write_all(&[HANG_UP]);
        if let (Ok(()), Some(thread)) = (told, self.thread.take()) {
            drop(thread.join());
        }
    }
}

impl StopReason {
    /// What tells commands to end.
    fn signal(self) -> process::Signal {
        match self {
            StopReason::Signal(signal) => process::Signal::from_named_raw(signal).unwrap_or(process::Signal::TERM),
            StopReason::OutOfTime => process::Signal::TERM,
        }
    }

    /// What the program ends with: 128 and the number of the signal, or what timeout(1) says.
    pub fn exit_code(self) -> u8 {
        match self {
            StopReason::Signal(signal) => Exit::Signal(signal).code(),
            StopReason::OutOfTime => super::CODE_OUT_OF_TIME,
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::Signal(signal) => write!(f, "signal {signal}"),
            StopReason::OutOfTime => f.write_str("the time limit of the build"),
        }
    }
}

fn ourselves() -> i32 {
    process::getpid().as_raw_pid()
}

/// Sends SIGKILL to `process` if it is still the same; tells whether it was there.
fn kill(process: &Process) -> Result<bool, Error> {
    let Some(pid) = process::Pid::from_raw(process.pid) else { return Ok(false) };
    let same = |now: Option<Process>| now.is_some_and(|now| now.started == process.started);
    let sent = match process::pidfd_open(pid, process::PidfdFlags::empty()) {
        // the descriptor means one process for ever; was it ours when it was opened?
        Ok(fd) if same(processes::one(process.pid)?) => {
            process::pidfd_send_signal(File::from(fd), process::Signal::KILL)
        }
        Ok(_) => Err(Errno::SRCH),
        Err(Errno::NOSYS | Errno::PERM) if same(processes::one(process.pid)?) => {
            process::kill_process(pid, process::Signal::KILL)
        }
        Err(error) => Err(error),
    };
    Ok(sent.is_ok())
}

/// Reaps `pid` if it is a child of ours that has ended.
fn reap(pid: i32) {
    if let Some(pid) = process::Pid::from_raw(pid)
        && let Err(error) = process::waitpid(Some(pid), process::WaitOptions::NOHANG)
        && error != Errno::CHILD
    {
        tracing::debug!(%error, pid = pid.as_raw_pid(), "reap");
    }
}

impl Exit {
    /// The exit code that stands for it: 128 and the number for a signal.
    pub fn code(self) -> u8 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => u8::try_from(super::CODE_OF_SIGNALS + signal).unwrap_or(u8::MAX),
        }
    }
}
