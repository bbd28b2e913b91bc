//! A command in a world of its own: a directory as its root, entered with namespaces and `pivot_root`.
//!
//! The command's world is made by this very program, started again: first [`helper()`] outside ([`OUTSIDE`]) makes the
//! namespaces, then it starts the helper inside ([`INSIDE`]), process 1 of the new PID namespace, which mounts what a
//! container has, gives up all capabilities but Docker's, and runs the command as it is run in place. Nothing of this
//! happens between fork and exec of a program with threads, and all of it is gone once process 1 is.
//!
//! Not here: which files of the world the image must not see ([`World::mount_points`] tells them to whoever builds).

mod capabilities;
mod helper;
mod host_name;
mod mounts;
mod order;
mod points;

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;

use super::command::{UMASK, supervise};
use super::output::{Ends, Output, pipes};
use super::processes::Kin;
use super::{CODE_OF_SIGNALS, Command, Error, Exit, Supervisor, user_namespace};
use crate::rootfs::Root;
use crate::sys::process::Spawn;
use crate::sys::{Errno, fs as sys_fs};
use crate::tree::ImagePath;
use order::{Order, Report};

pub use helper::helper;
pub use host_name::{BadHostName, HostName};
pub use points::MovedMount;

/// The name by which the program knows that it is the helper which makes the namespaces.
const OUTSIDE: &str = "kanna: RUN";
/// The name by which the program knows that it is the helper in the namespaces.
const INSIDE: &str = "kanna: init";
/// Directories on which something is mounted in an isolated root.
const MOUNTED_DIRECTORIES: [&str; 3] = ["/dev", "/proc", "/sys"];
/// Files on which one of ours is mounted in an isolated root.
const MOUNTED_FILES: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// What isolated commands find besides the files of the image.
#[derive(Debug)]
pub struct World {
    /// The root, an absolute path on this machine.
    root: PathBuf,
    /// Where the files are that are mounted on [`MOUNTED_FILES`], by their names.
    files: PathBuf,
    program: Program,
    host_name: HostName,
}

/// How an isolated command ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// By itself or by a signal.
    pub exit: Exit,
    /// What of the world is no longer where it was.
    pub moved: Vec<MovedMount>,
}

/// This program, which nothing can change; one copy for all worlds.
#[derive(Debug, Clone, Default)]
pub struct Program(Arc<OnceLock<File>>);

impl Program {
    /// Copied for the first command: many a build runs none.
    fn open(&self) -> io::Result<&File> {
        match self.0.get() {
            Some(program) => Ok(program),
            None => {
                let copy = sealed_copy(Path::new("/proc/self/exe"))?;
                Ok(self.0.get_or_init(|| copy))
            }
        }
    }
}

impl World {
    /// Makes a world around the empty directory `root`; `files`, another empty directory, holds the files that are ours.
    pub fn prepare(root: &Path, files: &Path, program: &Program, host_name: &HostName) -> Result<World, Error> {
        let failed = |action: &'static str| move |source: io::Error| Error::Isolate { action, source };
        for (name, content) in our_files(host_name).map_err(failed("read the machine's network settings"))? {
            let file = files.join(name);
            fs::write(&file, content)
                .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o644)))
                .map_err(failed("write the files of the isolated root"))?;
        }
        // whatever our umask is: commands of other users see it
        fs::set_permissions(root, fs::Permissions::from_mode(0o755))
            .map_err(failed("open the isolated root to all users"))?;
        let opened = Root::open(root).map_err(|error| failed("open the isolated root")(error.source))?;
        let world = World {
            root: root.to_path_buf(),
            files: files.to_path_buf(),
            program: program.clone(),
            host_name: host_name.clone(),
        };
        for (path, is_file) in world.mount_points() {
            mounts::make_mount_point(&opened, &path, is_file)
                .map_err(|error| failed("make a mount point in the isolated root")(error.source))?;
        }
        Ok(world)
    }

    /// The paths of the root that belong to the world and never to an image, and whether each is a file.
    pub fn mount_points(&self) -> impl Iterator<Item = (ImagePath, bool)> + use<> {
        let directories = MOUNTED_DIRECTORIES.map(|path| (ImagePath::clean(path), false));
        directories.into_iter().chain(MOUNTED_FILES.map(|path| (ImagePath::clean(path), true)))
    }
}

/// Names and contents of the files that containers get from the machine.
fn our_files(host_name: &HostName) -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    let machine = |path: &str| match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    };
    let mut hosts = machine("/etc/hosts")?;
    if hosts.is_empty() {
        hosts.extend_from_slice(b"127.0.0.1\tlocalhost\n::1\tlocalhost\n");
    }
    if !hosts.ends_with(b"\n") {
        hosts.push(b'\n');
    }
    hosts.extend_from_slice(format!("127.0.0.1\t{host_name}\n").as_bytes());
    Ok(vec![
        ("hostname", format!("{host_name}\n").into_bytes()),
        ("hosts", hosts),
        ("resolv.conf", machine("/etc/resolv.conf")?),
    ])
}

/// A copy in memory that nobody can change any more: a command that reached the program through `/proc` could otherwise
/// write to the file on the machine (CVE-2019-5736 of another runtime).
fn sealed_copy(program: &Path) -> io::Result<File> {
    use sys_fs::{MemfdFlags, SealFlags};
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // before Linux 6.3 nobody had to say that it is a program
    let made = match sys_fs::memfd_create("kanna", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => sys_fs::memfd_create("kanna", flags),
        other => other,
    };
    let mut copy = File::from(made?);
    io::copy(&mut File::open(program)?, &mut copy)?;
    sys_fs::fcntl_add_seals(&copy, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(copy)
}

/// Runs `command` to its end in `world`, with `scripts` (paths in the world, files on this machine) mounted read-only.
/// All that it writes has been heard when this returns; nothing of it is left.
pub fn run_isolated(
    command: &Command,
    world: &World,
    scripts: &[(ImagePath, PathBuf)],
    output: Output<'_>,
    supervisor: &Supervisor,
) -> Result<Ended, Error> {
    if let Some(reason) = supervisor.was_stopped() {
        return Err(Error::Stopped(reason));
    }
    let failed = |action: &'static str| move |source: io::Error| Error::Isolate { action, source };
    let order = Order::new(command, world, scripts);
    let mut spec = File::from(
        sys_fs::memfd_create("order", sys_fs::MemfdFlags::CLOEXEC)
            .map_err(|errno| failed("prepare an isolated command")(errno.into()))?,
    );
    spec.write_all(&order.to_bytes()).and_then(|()| spec.rewind()).map_err(failed("prepare an isolated command"))?;
    let (mut reader, writer) = io::pipe().map_err(failed("make a pipe"))?;
    let writer = OwnedFd::from(writer);
    let program = world.program.open().map_err(failed("copy the program into memory"))?;
    let program = format!("/proc/self/fd/{}", program.as_raw_fd());
    let arguments = [OUTSIDE.to_owned(), writer.as_raw_fd().to_string()];
    let (pipes, Ends { stdout, stderr }, hang_up) =
        pipes(output.listener, command.user.uid).map_err(failed("make a pipe"))?;
    let spawn = Spawn {
        programs: vec![c_string(program)],
        arguments: arguments.into_iter().map(c_string).collect(),
        environment: Vec::new(),
        directory: File::open("/").map_err(failed("open the machine's root"))?.into(),
        identity: None,
        umask: sys_fs::Mode::from_raw_mode(UMASK),
        open_files: supervisor.open_files(),
        stdin: spec.into(),
        stdout,
        stderr,
        inherited: Some(writer),
    };
    let status = thread::scope(|scope| {
        let passing = thread::Builder::new().name("output".to_owned()).spawn_scoped(scope, || pipes.pass_on(output));
        let passing = passing.map_err(failed("start a thread"))?;
        let status = supervise(spawn, "helper", command.time_limit, Kin::ItsSession, supervisor);
        drop(hang_up);
        let passed = passing.join().expect("no panic while passing output on");
        passed.map_err(failed("read what a command writes")).and(status)
    })?;
    let mut said = Vec::new();
    reader.read_to_end(&mut said).map_err(failed("hear of an isolated command"))?;
    // a build goes on only after a command that ended well, and that one has told
    let without_report = |exit| Ended { exit, moved: Vec::new() };
    match Report::parse(&said) {
        Some(Report::Ended { exit, moved }) => {
            let moved =
                moved.iter().map(|(from, to)| MovedMount { from: ImagePath::clean(from), to: ImagePath::clean(to) });
            Ok(Ended { exit, moved: moved.collect() })
        }
        Some(Report::Failed { exit_code, message, obstacle, errno }) => {
            let source = errno.map(io::Error::from_raw_os_error);
            Err(Error::Inside { exit_code, message, obstacle, source })
        }
        // killed before it could tell, as by us or for lack of memory
        None => match status {
            Exit::Signal(_) => Ok(without_report(status)),
            Exit::Code(code) if i32::from(code) > CODE_OF_SIGNALS => {
                Ok(without_report(Exit::Signal(i32::from(code) - CODE_OF_SIGNALS)))
            }
            Exit::Code(_) => Err(failed("hear of an isolated command")(io::ErrorKind::UnexpectedEof.into())),
        },
    }
}

fn c_string(text: String) -> CString {
    CString::new(text).expect("names and numbers of ours hold no NUL")
}

/// Is this program, started under the name `name`, to be a helper?
pub fn is_helper(name: &OsStr) -> bool {
    name == OUTSIDE || name == INSIDE || name == user_namespace::MAPPER
}
