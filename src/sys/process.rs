//! Starting a process with everything about it decided beforehand, from a process that has threads.
//!
//! Between fork and exec only async-signal-safe calls are made, on memory that was prepared before the fork.

#![expect(unsafe_code, reason = "pre_exec, execve and signal dispositions have no safe wrapper")]

use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
pub use std::process::Child;
use std::process::{Command, Stdio};
use std::{io, ptr};

use rustix::fs::Mode;
use rustix::io::{Errno, FdFlags};
pub use rustix::process::*;
use rustix::thread::{Timespec, nanosleep, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Highest signal number of Linux.
const LAST_SIGNAL: i32 = 64;
/// More than any architecture's `struct sigaction` of the kernel needs.
const SIGACTION_WORDS: usize = 8;
/// First descriptor that is not a standard stream.
const FIRST_OTHER_FD: u32 = 3;
/// How often, and after which pauses, a program is tried that somebody may still write to: two seconds in all.
const BUSY_TRIES: u32 = 100;
const BUSY_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// Where the stage is kept beside the error number while std carries both from the child to us as one.
const STAGE_SHIFT: i32 = 16;

/// A process to be started.
#[derive(Debug)]
pub struct Spawn {
    /// Paths of the program in the order in which they are tried.
    pub programs: Vec<CString>,
    /// Arguments, the program's name first.
    pub arguments: Vec<CString>,
    /// `NAME=value`, all of them.
    pub environment: Vec<CString>,
    /// The working directory.
    pub directory: OwnedFd,
    /// What to become; `None` stays what the caller is.
    pub identity: Option<Identity>,
    /// Bits that new files do not get.
    pub umask: Mode,
    /// Limit of open files.
    pub open_files: Rlimit,
    /// Standard input.
    pub stdin: Stdio,
    /// Standard output.
    pub stdout: Stdio,
    /// Standard error.
    pub stderr: Stdio,
    /// A further descriptor that the process gets, under the same number.
    pub inherited: Option<OwnedFd>,
}

/// User and groups of a process.
#[derive(Debug, Clone)]
pub struct Identity {
    /// User.
    pub uid: Uid,
    /// Group.
    pub gid: Gid,
    /// Supplementary groups.
    pub groups: Vec<Gid>,
}

/// What the child was doing when it could not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing yet: there is no child.
    Fork,
    /// Making its session.
    Session,
    /// Setting its limits.
    Limits,
    /// Passing a descriptor on.
    Descriptors,
    /// Entering the working directory.
    Directory,
    /// Becoming the user.
    Identity,
    /// Executing the program.
    Execute,
}

const STAGES: [Stage; 7] =
    [Stage::Fork, Stage::Session, Stage::Limits, Stage::Descriptors, Stage::Directory, Stage::Identity, Stage::Execute];

/// Starts the process in a session of its own, with default signal dispositions, an empty signal mask and no
/// descriptors but the standard streams. Returns once it executes, or with what stopped it.
pub fn spawn(spawn: Spawn) -> Result<Child, (Stage, io::Error)> {
    let Spawn { programs, arguments, environment, directory, identity, umask, open_files, .. } = spawn;
    let Spawn { stdin, stdout, stderr, inherited, .. } = spawn;
    // The name is only for std's own exec, which is never reached.
    let mut command = Command::new("/proc/self/exe");
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    let image = ProcessImage::new(programs, arguments, environment);
    let failed = |stage: Stage| move |errno: Errno| encode(stage, errno);
    let become_the_process = move || -> io::Result<()> {
        setsid().map_err(failed(Stage::Session))?;
        reset_signals();
        rustix::process::umask(umask);
        setrlimit(Resource::Nofile, open_files).map_err(failed(Stage::Limits))?;
        close_other_descriptors_on_exec();
        if let Some(inherited) = &inherited {
            rustix::io::fcntl_setfd(inherited, FdFlags::empty()).map_err(failed(Stage::Descriptors))?;
        }
        fchdir(&directory).map_err(failed(Stage::Directory))?;
        if let Some(identity) = &identity {
            // The raw calls of this thread: libc's would signal all threads of the parent, which are not here.
            set_thread_groups(&identity.groups).map_err(failed(Stage::Identity))?;
            set_thread_res_gid(identity.gid, identity.gid, identity.gid).map_err(failed(Stage::Identity))?;
            set_thread_res_uid(identity.uid, identity.uid, identity.uid).map_err(failed(Stage::Identity))?;
        }
        Err(encode(Stage::Execute, image.execute()))
    };
    // SAFETY: the closure makes system calls on memory that it owns; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(become_the_process) };
    command.spawn().map_err(decode)
}

/// Takes over a descriptor that this process was started with, and that nothing in it knows otherwise; `None` if there is
/// none of this number. Programs that are started in any other way than by [`spawn`] get it, too.
pub fn inherited(number: RawFd) -> Option<File> {
    if number < FIRST_OTHER_FD as RawFd {
        return None;
    }
    // SAFETY: asking about a number that is no descriptor is an error and nothing else.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, and the caller is the only one who knows of it.
    Some(File::from(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Leaves the keys of whoever started us: this process has a session keyring of its own from now on.
pub fn join_new_session_keyring() -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: without a name the call reads no memory.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, ptr::null::<c_char>()) };
    let error = || Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL);
    if joined < 0 { Err(error()) } else { Ok(()) }
}

fn encode(stage: Stage, errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(((stage as i32) << STAGE_SHIFT) | errno.raw_os_error())
}

fn decode(error: io::Error) -> (Stage, io::Error) {
    let Some(code) = error.raw_os_error() else { return (Stage::Fork, error) };
    let stage = usize::try_from(code >> STAGE_SHIFT).ok().and_then(|at| STAGES.get(at)).unwrap_or(&Stage::Fork);
    (*stage, io::Error::from_raw_os_error(code & ((1 << STAGE_SHIFT) - 1)))
}

fn reset_signals() {
    // All zero is the default disposition in every architecture's `struct sigaction` of the kernel, and no mask. The
    // raw calls, because libc's leave out the signals that it keeps for itself, which can have been ignored all the same.
    let default = [0_u64; SIGACTION_WORDS];
    let nothing_blocked = 0_u64;
    // SAFETY: the kernel reads less than `default` and exactly `nothing_blocked`; it writes nothing.
    unsafe {
        for signal in 1..=LAST_SIGNAL {
            // refused for SIGKILL and SIGSTOP
            libc::syscall(libc::SYS_rt_sigaction, signal, &default, ptr::null::<u64>(), size_of::<u64>());
        }
        let nowhere = ptr::null::<u64>();
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &nothing_blocked, nowhere, size_of::<u64>());
    }
}

fn close_other_descriptors_on_exec() {
    // SAFETY: the calls take numbers only; marking a descriptor that is not open has no effect.
    unsafe {
        let marked = libc::syscall(libc::SYS_close_range, FIRST_OTHER_FD, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        if marked == 0 {
            return;
        }
        // before Linux 5.11, or refused by an old seccomp profile
        let end = getrlimit(Resource::Nofile).current.unwrap_or(u64::from(u16::MAX)).min(u64::from(u16::MAX));
        for fd in i64::from(FIRST_OTHER_FD)..end as i64 {
            libc::fcntl(fd as libc::c_int, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

/// Programs, arguments and environment as `execve` takes them.
struct ProcessImage {
    programs: Vec<CString>,
    arguments: Pointers,
    environment: Pointers,
}

/// A NULL-terminated array of pointers to the strings that it owns.
struct Pointers {
    _strings: Vec<CString>,
    array: Vec<*const c_char>,
}

impl Pointers {
    fn new(strings: Vec<CString>) -> Pointers {
        let array = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Pointers { _strings: strings, array }
    }
}

// SAFETY: the pointers lead into `_strings`, which moves with them and is never changed.
unsafe impl Send for Pointers {}
// SAFETY: as above; nothing is changed through a shared reference.
unsafe impl Sync for Pointers {}

impl ProcessImage {
    fn new(programs: Vec<CString>, arguments: Vec<CString>, environment: Vec<CString>) -> ProcessImage {
        ProcessImage { programs, arguments: Pointers::new(arguments), environment: Pointers::new(environment) }
    }

    /// Becomes the first of the programs that can be executed; returns only if none can. As in `execvp`, one that is
    /// missing or forbidden makes way for the next.
    fn execute(&self) -> Errno {
        let mut result = Errno::NOENT;
        for program in &self.programs {
            match self.execute_one(program) {
                Errno::ACCESS => result = Errno::ACCESS,
                Errno::NOENT | Errno::NOTDIR => {}
                other => return other,
            }
        }
        result
    }

    /// Becomes `program`; returns only if it cannot be executed.
    ///
    /// Whoever unpacked it has closed it, but the child of another thread may have a descriptor of it, from that thread's
    /// fork until its exec: that is waited for.
    fn execute_one(&self, program: &CStr) -> Errno {
        let mut tries = BUSY_TRIES;
        loop {
            // SAFETY: all three are NUL-terminated, the arrays NULL-terminated, and they outlive the call.
            unsafe {
                libc::execve(program.as_ptr(), self.arguments.array.as_ptr(), self.environment.array.as_ptr());
            }
            match Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL) {
                Errno::TXTBSY if tries > 0 => tries -= 1,
                other => return other,
            }
            let _ = nanosleep(&BUSY_PAUSE);
        }
    }
}
