//! [`State`]: which commands are running, and what they are told.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{GRACE, StopReason, ourselves, reap};
use crate::run::processes::{self, Kin, Leader, Process};
use crate::sys::process;

/// What stands for a signal where time has run out; no signal has this number.
const OUT_OF_TIME: i32 = -1;

#[derive(Debug, Default)]
pub(super) struct State {
    /// The signal that asked us to end first, [`OUT_OF_TIME`], or 0.
    stopped_by: AtomicI32,
    /// Commands are to be killed as soon as they begin.
    is_given_up: AtomicBool,
    running: Mutex<Vec<Running>>,
}

/// A command that is running.
#[derive(Debug)]
struct Running {
    leader: Leader,
    /// When it is to be told to end, and then when it is to be killed.
    deadline: Option<Instant>,
    /// It was told to end, since it took too long.
    is_overdue: bool,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Vec<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why all is to end, if it is.
    pub(super) fn stopped_by(&self) -> Option<StopReason> {
        match self.stopped_by.load(Ordering::SeqCst) {
            0 => None,
            OUT_OF_TIME => Some(StopReason::OutOfTime),
            signal => Some(StopReason::Signal(signal)),
        }
    }

    /// All is to end, for this reason, and commands are told. Tells whether nobody has said so before.
    pub(super) fn stop(&self, reason: StopReason) -> bool {
        let number = match reason {
            StopReason::Signal(signal) => signal,
            StopReason::OutOfTime => OUT_OF_TIME,
        };
        let is_first = self.stopped_by.compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        // whoever asks a second time has no patience left
        self.forward(if is_first { reason.signal() } else { process::Signal::KILL });
        is_first
    }

    /// Kills the commands that are running, and those that begin later.
    pub(super) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::SeqCst);
        self.forward(process::Signal::KILL);
    }

    /// A command has begun: it is told what came while it was being started.
    pub(super) fn attach(&self, leader: Leader, limit: Option<Duration>) {
        self.lock().push(Running { leader, deadline: after(limit), is_overdue: false });
        if let Some(reason) = self.stopped_by() {
            self.forward(reason.signal());
        }
        if self.is_given_up.load(Ordering::SeqCst) {
            self.forward(process::Signal::KILL);
        }
    }

    /// A command has ended. Tells whether it had been told to, since it took too long.
    pub(super) fn detach(&self, leader: Leader) -> bool {
        let mut running = self.lock();
        let found = running.iter().position(|running| running.leader == leader);
        found.is_some_and(|found| running.swap_remove(found).is_overdue)
    }

    /// Sends `signal` to the process groups of the running commands.
    fn forward(&self, signal: process::Signal) {
        self.lock().iter().for_each(|running| running.send(signal));
    }

    /// Tells commands whose time is over to end, and kills those that did not.
    pub(super) fn end_overdue(&self) {
        let now = Instant::now();
        for running in self.lock().iter_mut().filter(|running| running.deadline.is_some_and(|deadline| deadline <= now))
        {
            let (signal, next) = match running.is_overdue {
                false => (process::Signal::TERM, Some(now + GRACE)),
                true => (process::Signal::KILL, None),
            };
            running.is_overdue = true;
            running.deadline = next;
            running.send(signal);
        }
    }

    /// When a command has to be told something next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.lock().iter().filter_map(|running| running.deadline).min()
    }

    /// Reaps orphans that have ended: those of a running command, which leaves none where it has a PID namespace of its own,
    /// and those of programs that we ask for credentials.
    pub(super) fn reap_orphans(&self) {
        if !has_ended_child() {
            return;
        }
        // in this order: what a command left that began after this list is not in it
        let Ok(all) = processes::all() else { return };
        let leader = self.lock().iter().map(|running| running.leader).find(|leader| leader.kin == Kin::AllOfOurs);
        let mut orphans = processes::adopted(&all, ourselves());
        orphans.extend(leader.iter().flat_map(|leader| processes::of_command(&all, ourselves(), *leader)));
        let is_of_leader = |process: &Process| leader.is_some_and(|leader| leader.pid == process.pid);
        orphans.retain(|process| process.is_zombie && process.parent == ourselves() && !is_of_leader(process));
        orphans.iter().for_each(|orphan| reap(orphan.pid));
    }
}

impl Running {
    /// Sends `signal` to the process group, for which [`State::running`] is locked: while it is, nobody else can have its id, since
    /// the leader is not reaped.
    fn send(&self, signal: process::Signal) {
        let Some(group) = process::Pid::from_raw(self.leader.pid) else { return };
        if let Err(error) = process::kill_process_group(group, signal) {
            tracing::debug!(%error, "pass a signal to the command");
        }
    }
}

/// When `limit` from now is over; never, if that is too far away for a clock.
pub(super) fn after(limit: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(limit?)
}

/// Is there a child that has ended and that nobody has waited for? It stays so. To ask is far cheaper than to read `/proc`.
fn has_ended_child() -> bool {
    let how = process::WaitIdOptions::EXITED | process::WaitIdOptions::NOHANG | process::WaitIdOptions::NOWAIT;
    matches!(process::waitid(process::WaitId::All, how), Ok(Some(_)))
}
