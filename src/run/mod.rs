//! One RUN: a command as the image's user, in its directory and environment, and nothing left of it afterwards.
//!
//! Promise: the command gets exactly what [`Command`] says: no variable, descriptor, signal disposition, limit or
//! umask of ours. When [`run`] returns, all that the command started has ended, daemons too, and nothing else has:
//! a helper that another thread of ours runs meanwhile, or a shell beside us in the container, is left alone. Isolated
//! commands may run beside each other, and each has nothing but its own ended.
//! A signal that is to end us ends the commands first, and so does the end of the time that all may take;
//! [`Supervisor::was_stopped`] tells it afterwards. A command can have less time than that.
//!
//! What we hold in memory is out of the command's reach: [`Supervisor::start`] makes us not dumpable, so that
//! `/proc/<us>/{environ,mem,fd}` needs CAP_SYS_PTRACE, which ordinary containers lack. Mounted credential files are
//! another matter: [`can_read`] says whether a warning is due.
//!
//! [`run`] runs a command on our own `/`, with our own standard output and error; [`run_isolated`] makes a world around
//! another directory first, runs it there in the same way, and has a [`Listener`] hear what it writes. [`become_root`] lets a plain user do so.
//!
//! Not here: what the environment holds and who the user is (`build`, `rootfs::users`); what the command changed
//! (`snapshot`).

mod command;
mod exposure;
mod isolated;
mod output;
mod processes;
mod supervisor;
mod user_namespace;

use std::io;
use std::time::Duration;

pub use command::{Command, Exit, Stdin, run};
pub use exposure::can_read;
pub use isolated::{BadHostName, Ended, HostName, MovedMount, Program, World, helper, is_helper, run_isolated};
pub use output::{Listener, Output, Stream};
pub use supervisor::{StopReason, Supervisor};
pub use user_namespace::{Ids, KnownIds, become_root};

use serde::{Deserialize, Serialize};

use crate::rootfs;
use crate::sys::Errno;
use crate::tree::ImagePath;

/// Exit code of shells and container runtimes for a program that is there and cannot be executed.
const CODE_NOT_EXECUTABLE: u8 = 126;
/// Exit code of shells and container runtimes for a program that is missing.
const CODE_NOT_FOUND: u8 = 127;
/// Exit code of timeout(1) for a command that took too long.
const CODE_OUT_OF_TIME: u8 = 124;
/// What is added to a signal's number to make an exit code of it.
const CODE_OF_SIGNALS: i32 = 128;

/// Why a command could not be run, or could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The supervisor could not be set up.
    #[error("{action} to supervise commands")]
    Supervise {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A command can only run where its root is our own.
    #[error("run a command in {place}: only / can be run in")]
    NotInPlace {
        /// Where the root is.
        place: std::path::PathBuf,
    },
    /// The world of an isolated command could not be prepared.
    #[error("{action} to isolate commands")]
    Isolate {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The world of an isolated command could not be made.
    #[error("make the world of an isolated command")]
    World(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An isolated command could not be run; said inside, where it was tried.
    #[error("{message}")]
    Inside {
        /// What the program ends with.
        exit_code: u8,
        /// Why, with all causes.
        message: String,
        /// What stood in the way, if that is known.
        obstacle: Option<Obstacle>,
        /// What the kernel said, which the message ends with.
        #[source]
        source: Option<io::Error>,
    },
    /// A user or a group that has no number here.
    #[error("use {kind} {id}: this user namespace has none but {known}")]
    UnknownId {
        /// `user` or `group`.
        kind: &'static str,
        /// The number in the image.
        id: u32,
        /// Those that there are.
        known: String,
    },
    /// A plain user could not become root of a namespace of his own.
    #[error("{action}, which building outside a container needs for all but root")]
    UserNamespace {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Linux ends arguments and variables at a NUL byte.
    #[error("run a command with a NUL byte in {text:?}")]
    Nul {
        /// The argument or variable.
        text: String,
    },
    /// The working directory cannot be entered.
    #[error("enter working directory {path}")]
    Directory {
        /// The directory.
        path: ImagePath,
        /// What stopped us.
        #[source]
        source: rootfs::Error,
    },
    /// The program is nowhere on the command's PATH.
    #[error("exec: {program:?}: executable file not found in $PATH")]
    NotOnPath {
        /// The program's name.
        program: String,
    },
    /// The program, or the interpreter that it names, does not exist.
    #[error("exec: {program:?}")]
    NotFound {
        /// The program's path.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The program exists, but the user may not execute it, or the kernel does not know its format.
    #[error("exec: {program:?}")]
    NotExecutable {
        /// The program's name or path.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The process could not be made what it was to be.
    #[error("{action} for {program:?}")]
    Start {
        /// What was tried.
        action: &'static str,
        /// The program's name or path.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Waiting for the command went wrong.
    #[error("wait for {program:?}")]
    Wait {
        /// The program's name or path.
        program: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// We had been told to end before the command started.
    #[error("not started, because of {0}")]
    Stopped(StopReason),
    /// The command took too long, and was ended.
    #[error("the command was ended after {limit:?}, which is all that it may take")]
    OutOfTime {
        /// What it may take.
        limit: Duration,
    },
    /// The processes of the container could not be listed.
    #[error("read {path} to find what the command left running")]
    Processes {
        /// The file of the proc file system.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Processes of the command survived SIGKILL, as those do that wait for a device or a network file system.
    #[error("end what the command left running: {processes} did not die")]
    StillRunning {
        /// Ids and names.
        processes: String,
    },
}

/// What a user can do something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Obstacle {
    /// Namespaces, or what is done in them, are not allowed here.
    Namespaces,
    /// A user or a group has no number in this user namespace.
    UnknownId,
}

impl Error {
    /// The exit code that a shell or a container runtime gives for it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::NotOnPath { .. } | Error::NotFound { .. } => CODE_NOT_FOUND,
            Error::NotExecutable { .. } => CODE_NOT_EXECUTABLE,
            Error::Stopped(reason) => reason.exit_code(),
            Error::OutOfTime { .. } => CODE_OUT_OF_TIME,
            Error::Inside { exit_code, .. } => *exit_code,
            Error::Isolate { .. }
            | Error::UserNamespace { .. }
            | Error::World(_)
            | Error::Supervise { .. }
            | Error::NotInPlace { .. }
            | Error::Nul { .. }
            | Error::UnknownId { .. }
            | Error::Directory { .. }
            | Error::Start { .. }
            | Error::Wait { .. }
            | Error::Processes { .. }
            | Error::StillRunning { .. } => 1,
        }
    }

    /// What stood in the way, if it is something that a user can do something about.
    pub fn obstacle(&self) -> Option<Obstacle> {
        match self {
            Error::Isolate { .. } | Error::UserNamespace { .. } => Some(Obstacle::Namespaces),
            Error::World(_) if matches!(self.errno(), Some(Errno::PERM | Errno::ACCESS)) => Some(Obstacle::Namespaces),
            Error::UnknownId { .. } => Some(Obstacle::UnknownId),
            Error::Inside { obstacle, .. } => *obstacle,
            _ => None,
        }
    }

    /// What the kernel said in the end.
    fn errno(&self) -> Option<Errno> {
        let chain = std::iter::successors(Some(self as &dyn std::error::Error), |error| error.source());
        chain.last()?.downcast_ref().and_then(Errno::from_io_error)
    }
}
