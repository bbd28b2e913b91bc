//! [`run`]: from a [`Command`] to its [`Exit`].

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::processes::Kin;
use super::{Error, Supervisor, user_namespace};
use crate::rootfs::{self, Root, User};
use crate::sys::process::{self, Identity, Spawn, Stage};
use crate::sys::{Errno, fs};
use crate::tree::ImagePath;

/// What RUN gets, whatever umask we have (as container runtimes do).
pub(super) const UMASK: u32 = 0o022;
/// How long a killed process may take to be gone. Longer means that it hangs in the kernel.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// A command, with everything that it may depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments. A program without a slash is searched on the PATH of `environment`.
    pub arguments: Vec<Vec<u8>>,
    /// All variables: name and value.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where it starts.
    pub directory: ImagePath,
    /// As whom it runs.
    pub user: User,
    /// What it reads.
    pub stdin: Stdin,
    /// How long it may take. Then it is told to end, as by a signal to us, and that is an error.
    pub time_limit: Option<Duration>,
}

/// Standard input of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stdin {
    /// Nothing: `/dev/null`.
    Empty,
    /// These bytes.
    Bytes(Vec<u8>),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with this code.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

/// Runs `command` to its end, and ends what it left running. Its output goes where ours goes.
pub fn run(command: &Command, root: &Root, supervisor: &Supervisor) -> Result<Exit, Error> {
    if !root.is_in_place() {
        return Err(Error::NotInPlace { place: root.place().to_path_buf() });
    }
    if let Some(reason) = supervisor.was_stopped() {
        return Err(Error::Stopped(reason));
    }
    let spawn = prepare(command, root, supervisor)?;
    let name = String::from_utf8_lossy(command.program());
    supervise(spawn, &name, command.time_limit, Kin::AllOfOurs, supervisor)
}

/// Starts a process, sees it to its end, during which signals go to it, and ends what it left running of its `kin`.
pub(super) fn supervise(
    spawn: Spawn,
    name: &str,
    time_limit: Option<Duration>,
    kin: Kin,
    supervisor: &Supervisor,
) -> Result<Exit, Error> {
    let name = name.to_owned();
    let child = process::spawn(spawn).map_err(|(stage, source)| not_started(name.clone(), stage, source))?;
    let mut child = Unreaped(child);
    let leader = supervisor.attach(child.id(), kin, time_limit)?;
    child.await_end();
    let is_overdue = supervisor.detach(leader);
    let killed = supervisor.end_rest(leader, END_DEADLINE)?;
    if killed > 0 {
        tracing::debug!(processes = killed, program = name, "killed what the command left running");
    }
    let status = child.0.wait().map_err(|source| Error::Wait { program: name, source })?;
    match time_limit {
        Some(limit) if is_overdue => Err(Error::OutOfTime { limit }),
        _ => Ok(exit_of(status)),
    }
}

/// A child whose number is nobody else's, since it is not reaped before this is dropped. It does not outlive it.
struct Unreaped(Child);

impl Unreaped {
    fn id(&self) -> i32 {
        i32::try_from(self.0.id()).expect("the kernel's numbers of processes are an i32")
    }

    /// Its end is seen first and it is reaped later, so that no signal goes to a stranger of the same id.
    fn await_end(&self) {
        let Some(pid) = process::Pid::from_raw(self.id()) else { return };
        let end = process::WaitIdOptions::EXITED | process::WaitIdOptions::NOWAIT;
        while let Err(Errno::INTR) = process::waitid(process::WaitId::Pid(pid), end) {}
    }
}

impl Drop for Unreaped {
    fn drop(&mut self) {
        // of one that is reaped, nothing is left to be killed
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

impl Command {
    fn program(&self) -> &[u8] {
        self.arguments.first().map_or(b"", Vec::as_slice)
    }

    /// The paths at which the program may be. An empty component of PATH means the working directory (POSIX).
    fn candidates(&self) -> Vec<Vec<u8>> {
        let program = self.program();
        if program.is_empty() {
            return Vec::new();
        }
        if program.contains(&b'/') {
            return vec![program.to_vec()];
        }
        let path = self.environment.iter().rfind(|(name, _)| name == b"PATH").map(|(_, value)| value.as_slice());
        let directories = path.filter(|path| !path.is_empty()).into_iter().flat_map(|path| path.split(|&b| b == b':'));
        directories
            .map(|directory| if directory.is_empty() { &b"."[..] } else { directory })
            .map(|directory| [directory, b"/", program].concat())
            .collect()
    }
}

fn prepare(command: &Command, root: &Root, supervisor: &Supervisor) -> Result<Spawn, Error> {
    let candidates = command.candidates();
    if candidates.is_empty() {
        return Err(Error::NotOnPath { program: String::from_utf8_lossy(command.program()).into_owned() });
    }
    let variables = command.environment.iter().map(|(name, value)| [name, &b"="[..], value].concat());
    let directory = open_directory(root, &command.directory)
        .map_err(|source| Error::Directory { path: command.directory.clone(), source })?;
    let stdin = stdin(&command.stdin).map_err(|errno| Error::Start {
        action: "prepare standard input",
        program: String::from_utf8_lossy(command.program()).into_owned(),
        source: errno,
    })?;
    Ok(Spawn {
        programs: c_strings(candidates)?,
        arguments: c_strings(command.arguments.iter().cloned())?,
        environment: c_strings(variables)?,
        directory,
        identity: identity(&command.user),
        umask: fs::Mode::from_raw_mode(UMASK),
        open_files: supervisor.open_files(),
        stdin,
        stdout: Stdio::inherit(),
        stderr: Stdio::inherit(),
        inherited: None,
    })
}

fn c_strings(texts: impl IntoIterator<Item = Vec<u8>>) -> Result<Vec<CString>, Error> {
    let nul = |error: std::ffi::NulError| Error::Nul { text: String::from_utf8_lossy(&error.into_vec()).into_owned() };
    texts.into_iter().map(|text| CString::new(text).map_err(nul)).collect()
}

/// Opened by us and not by the command: as with container runtimes, its user need not have access to it.
fn open_directory(root: &Root, path: &ImagePath) -> Result<OwnedFd, rootfs::Error> {
    let directory = root.directory(&root.resolve(path, true)?)?;
    let failed = |source| rootfs::Error { action: "open directory", path: path.clone(), source };
    std::os::fd::AsFd::as_fd(&directory).try_clone_to_owned().map_err(failed)
}

/// What to become; `None` if that is what we are. Without privileges nobody can become what he is, either.
fn identity(user: &User) -> Option<Identity> {
    let mut own_groups: Vec<u32> = process::getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw()).collect();
    // without privileges the list cannot be set, and it need not name the primary group
    if !process::geteuid().is_root() {
        own_groups.push(process::getegid().as_raw());
    }
    own_groups.sort_unstable();
    own_groups.dedup();
    let own_ids = [process::getuid().as_raw(), process::geteuid().as_raw()];
    let is_group = own_groups == user.groups || user_namespace::groups_are_fixed();
    let is_user = own_ids == [user.uid; 2] && process::getgid().as_raw() == user.gid && is_group;
    (!is_user).then(|| Identity {
        uid: process::Uid::from_raw(user.uid),
        gid: process::Gid::from_raw(user.gid),
        groups: user.groups.iter().map(|&gid| process::Gid::from_raw(gid)).collect(),
    })
}

/// Bytes are given as a file in memory: nobody has to feed it, and no command can be blocked by it.
fn stdin(stdin: &Stdin) -> io::Result<Stdio> {
    let Stdin::Bytes(bytes) = stdin else { return Ok(Stdio::null()) };
    let mut file = File::from(fs::memfd_create("stdin", fs::MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

fn not_started(program: String, stage: Stage, source: io::Error) -> Error {
    let start = |action, source| Error::Start { action, program: program.clone(), source };
    match stage {
        Stage::Fork => start("start a process", source),
        Stage::Session => start("make a session", source),
        Stage::Limits => start("set the limit of open files", source),
        Stage::Descriptors => start("pass a descriptor on", source),
        Stage::Directory => start("enter the working directory", source),
        Stage::Identity => start("become the user", source),
        Stage::Execute => match Errno::from_io_error(&source) {
            Some(Errno::NOENT | Errno::NOTDIR) if !program.contains('/') => Error::NotOnPath { program },
            Some(Errno::NOENT | Errno::NOTDIR) => Error::NotFound { program, source },
            _ => Error::NotExecutable { program, source },
        },
    }
}

pub(super) fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => unreachable!("waited for its end: a process ends with a code or by a signal"),
    }
}

#[cfg(test)]
mod tests;
