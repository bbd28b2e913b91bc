//! The mounts of an isolated root: what containers have, and nothing of the machine besides.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use super::MOUNTED_FILES;
use super::order::{Order, path};
use crate::rootfs::{self, Root};
use crate::sys::Errno;
use crate::sys::beneath::{self, Symlinks};
use crate::sys::fs::{FileType, Mode, OFlags, StatVfsMountFlags, fstatvfs};
use crate::sys::mounts::restrict_tree;
use crate::sys::nix::mount::{MntFlags, MsFlags, mount, umount2};
use crate::sys::nix::unistd::{chdir, pivot_root};
use crate::tree::{ImagePath, Kind};

/// What could not be mounted.
#[derive(Debug, thiserror::Error)]
#[error("{action} {what} in the isolated root")]
pub(super) struct Error {
    action: &'static str,
    what: String,
    #[source]
    source: io::Error,
}

fn failed<E: Into<io::Error>>(action: &'static str, what: impl ToString) -> impl FnOnce(E) -> Error {
    let what = what.to_string();
    move |source| Error { action, what, source: source.into() }
}

/// A file system that is made for the command.
struct Fresh {
    at: &'static str,
    kind: &'static str,
    flags: MsFlags,
    options: &'static str,
}

const NOTHING: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

const DEV: &str = "mode=755,size=65536k";
/// In this order.
const FRESH: [Fresh; 3] = [
    Fresh { at: "/proc", kind: "proc", flags: NOTHING, options: "" },
    Fresh { at: "/dev", kind: "tmpfs", flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV), options: DEV },
    Fresh { at: "/dev/shm", kind: "tmpfs", flags: NOTHING, options: "mode=1777,size=65536k" },
];
/// Terminals of the command's own, of the group that has them in Debian and elsewhere.
const TERMINALS_OF_A_GROUP: &str = "newinstance,ptmxmode=0666,mode=0620,gid=5";
/// The same where the group has no number here.
const TERMINALS: &str = "newinstance,ptmxmode=0666,mode=0620";
/// Devices that every container has, with their major and minor numbers.
const DEVICES: [(&str, u32, u32); 6] =
    [("full", 1, 7), ("null", 1, 3), ("random", 1, 8), ("tty", 5, 0), ("urandom", 1, 9), ("zero", 1, 5)];
const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];
/// Nothing of these is for a container (the lists of the OCI runtimes); not all kernels have them.
const HIDDEN: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Makes a directory, or an empty file, with all that leads to it, unless something is there.
pub(super) fn make_mount_point(root: &Root, path: &ImagePath, is_file: bool) -> Result<(), rootfs::Error> {
    let make = |path: &ImagePath, is_file| match root.stat(path)? {
        Some(_) => Ok(()),
        None => root.parent_directory(path)?.create_mount_point(path.file_name(), is_file),
    };
    path.ancestors().iter().filter(|above| !above.is_root()).try_for_each(|above| make(above, false))?;
    make(path, is_file)
}

/// Makes the root of `order` the root of this process, which is alone in fresh mount and PID namespaces, and mounts the
/// command's world in it.
pub(super) fn enter(order: &Order) -> Result<(), Error> {
    let place = path(&order.root);
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(failed("separate", "the mounts"))?;
    mount(Some(&place), &place, none, MsFlags::MS_BIND, none).map_err(failed("mount", place.display()))?;
    let root = Root::open(&place).map_err(|error| failed("open", place.display())(error.source))?;
    // with CAP_MKNOD and no user namespace, a node of an image would open the machine's disks
    restrict(&root, "/", MsFlags::MS_NODEV)?;
    let devices = devices(&root)?;
    for Fresh { at, kind, flags, options } in FRESH {
        let target = target(&root, at, false)?;
        mount(Some(kind), &target.path(), Some(kind), flags, Some(options)).map_err(failed("mount", at))?;
    }
    mount_terminals(&root)?;
    mount_sys(&root)?;
    for (name, device) in &devices {
        bind(&root, device.path(), &format!("/dev/{name}"), MsFlags::empty())?;
    }
    let dev = root.directory(&ImagePath::clean("/dev")).map_err(|error| failed("open", "/dev")(error.source))?;
    for (at, to) in LINKS {
        let name = ImagePath::clean(at);
        dev.create_symlink(name.file_name(), to.as_bytes()).map_err(|error| failed("make", at)(error.source))?;
    }
    for at in MOUNTED_FILES {
        let name = ImagePath::clean(at);
        let file = path(&order.files).join(name.relative_path().file_name().expect("a file"));
        bind(&root, &file, at, MsFlags::empty())?;
    }
    for (at, file) in &order.scripts {
        bind(&root, path(file), &String::from_utf8_lossy(at), MsFlags::MS_RDONLY)?;
    }
    for at in HIDDEN {
        hide(&root, at, &devices)?;
    }
    for at in READ_ONLY {
        if let Some(target) = existing(&root, at)? {
            bind(&root, target.path(), at, MsFlags::MS_RDONLY)?;
        }
    }
    pivot(&place)
}

/// A device that commands may open.
enum Device {
    /// One of our own: its mode and owner are nobody else's.
    Own(Target),
    /// The machine's, where we may not make any, and a command may not change it.
    Machine(PathBuf),
}

impl Device {
    fn path(&self) -> PathBuf {
        match self {
            Device::Own(target) => target.path(),
            Device::Machine(path) => path.clone(),
        }
    }
}

/// Makes devices on a file system that will be covered by that of `/dev`, on which none can be opened.
fn devices(root: &Root) -> Result<Vec<(&'static str, Device)>, Error> {
    let dev = target(root, "/dev", false)?;
    let options = Some(DEV);
    mount(Some("tmpfs"), &dev.path(), Some("tmpfs"), MsFlags::MS_NOSUID, options).map_err(failed("mount", "/dev"))?;
    let made = |error: rootfs::Error| failed("make a device of", "/dev")(error.source);
    let dev = root.directory(&ImagePath::clean("/dev")).map_err(made)?;
    let device = |&(name, major, minor): &(&'static str, u32, u32)| {
        let at = format!("/dev/{name}");
        match dev.create_special(name.as_bytes(), &Kind::CharDevice { major, minor }) {
            Err(error) if error.errno() == Some(Errno::PERM) => Ok((name, Device::Machine(PathBuf::from(at)))),
            other => {
                other.and_then(|()| dev.set_mode(name.as_bytes(), 0o666)).map_err(made)?;
                Ok((name, Device::Own(existing(root, &at)?.expect("it was made"))))
            }
        }
    };
    DEVICES.iter().map(device).collect()
}

fn mount_terminals(root: &Root) -> Result<(), Error> {
    let target = target(root, "/dev/pts", false)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let mount = |options: &str| mount(Some("devpts"), &target.path(), Some("devpts"), flags, Some(options));
    mount(TERMINALS_OF_A_GROUP).or_else(|_| mount(TERMINALS)).map_err(failed("mount", "/dev/pts"))
}

/// The kernel's own view for whoever may make one; with the machine's network in a user namespace nobody may, and gets
/// the machine's.
fn mount_sys(root: &Root) -> Result<(), Error> {
    let target = target(root, "/sys", false)?;
    let flags = NOTHING | MsFlags::MS_RDONLY;
    match mount(Some("sysfs"), &target.path(), Some("sysfs"), flags, None::<&str>).map_err(io::Error::from) {
        Ok(()) => Ok(()),
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::PERM | Errno::ACCESS)) => {
            let bound = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some("/sys"), &target.path(), None::<&str>, bound, None::<&str>).map_err(failed("mount", "/sys"))?;
            let seen = existing(root, "/sys")?.expect("it was mounted");
            if restrict_tree(&seen.fd).is_err() {
                // before Linux 5.12: nothing is better than what a command could write to
                return empty(&seen, "/sys");
            }
            match existing(root, "/sys/fs/cgroup")? {
                Some(cgroup) => empty(&cgroup, "/sys/fs/cgroup"),
                None => Ok(()),
            }
        }
        Err(error) => Err(failed("mount", "/sys")(error)),
    }
}

/// Hides a file behind nothing, and a directory behind an empty one.
fn hide(root: &Root, at: &str, devices: &[(&str, Device)]) -> Result<(), Error> {
    let Some(target) = existing(root, at)? else { return Ok(()) };
    if target.is_directory {
        return empty(&target, at);
    }
    let null = devices.iter().find(|(name, _)| *name == "null").map(|(_, device)| device.path());
    bind(root, null.expect("it is one of the devices"), at, MsFlags::empty())
}

fn empty(target: &Target, at: &str) -> Result<(), Error> {
    let flags = NOTHING | MsFlags::MS_RDONLY;
    mount(Some("tmpfs"), &target.path(), Some("tmpfs"), flags, Some("size=0k")).map_err(failed("hide", at))
}

/// An open place of the root on which something can be mounted.
struct Target {
    fd: OwnedFd,
    is_directory: bool,
}

impl Target {
    /// A path that leads to it whatever is on the way.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }
}

/// Opens `at`, which is made where it is missing; no symlink leads out of the root.
fn target(root: &Root, at: &str, is_file: bool) -> Result<Target, Error> {
    let resolved = resolve(root, at)?;
    make_mount_point(root, &resolved, is_file).map_err(|error| failed("make", at)(error.source))?;
    let is_missing = || failed("open", at)(io::Error::from(io::ErrorKind::NotFound));
    open(root, at, &resolved)?.ok_or_else(is_missing)
}

fn existing(root: &Root, at: &str) -> Result<Option<Target>, Error> {
    open(root, at, &resolve(root, at)?)
}

fn resolve(root: &Root, at: &str) -> Result<ImagePath, Error> {
    root.resolve(&ImagePath::clean(at), true).map_err(|error| failed("find", at)(error.source))
}

/// Opens what `at` has been resolved to.
fn open(root: &Root, at: &str, resolved: &ImagePath) -> Result<Option<Target>, Error> {
    let failed_at = |error: rootfs::Error| failed("find", at)(error.source);
    let Some(stat) = root.stat(resolved).map_err(failed_at)? else { return Ok(None) };
    let top = root.top().as_fd();
    let fd = beneath::open(top, resolved.relative(), OFlags::PATH, Mode::empty(), Symlinks::Refuse)
        .map_err(failed("open", at))?;
    Ok(Some(Target { fd, is_directory: stat.file_type == FileType::Directory }))
}

/// Mounts the machine's file or directory `from` at `at`, with `flags` besides those that it has.
fn bind(root: &Root, from: impl AsRef<Path>, at: &str, flags: MsFlags) -> Result<(), Error> {
    let from = from.as_ref();
    let is_file = !from.is_dir();
    let target = target(root, at, is_file)?;
    let none = None::<&str>;
    mount(Some(from), &target.path(), none, MsFlags::MS_BIND, none).map_err(failed("mount", at))?;
    if flags.is_empty() { Ok(()) } else { restrict(root, at, flags) }
}

/// Adds `flags` to a mount. Those that it has stay: a user namespace may not take away what its maker's mounts have.
fn restrict(root: &Root, at: &str, flags: MsFlags) -> Result<(), Error> {
    let Some(target) = existing(root, at)? else { return Ok(()) };
    let has = fstatvfs(&target.fd).map_err(failed("look at", at))?.f_flag;
    let kept = [
        (StatVfsMountFlags::NOSUID, MsFlags::MS_NOSUID),
        (StatVfsMountFlags::NODEV, MsFlags::MS_NODEV),
        (StatVfsMountFlags::NOEXEC, MsFlags::MS_NOEXEC),
        (StatVfsMountFlags::NOATIME, MsFlags::MS_NOATIME),
        (StatVfsMountFlags::NODIRATIME, MsFlags::MS_NODIRATIME),
        (StatVfsMountFlags::RELATIME, MsFlags::MS_RELATIME),
        (StatVfsMountFlags::RDONLY, MsFlags::MS_RDONLY),
    ];
    let kept = kept.into_iter().filter(|(flag, _)| has.contains(*flag)).map(|(_, flag)| flag);
    let flags = kept.fold(MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags, |all, flag| all | flag);
    mount(None::<&str>, &target.path(), None::<&str>, flags, None::<&str>).map_err(failed("restrict", at))
}

/// The old root lies over the new one for a moment, and is let go.
fn pivot(place: &Path) -> Result<(), Error> {
    chdir(place).map_err(failed("enter", place.display()))?;
    pivot_root(".", ".").map_err(failed("change the root to", place.display()))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(failed("let go of", "the machine's root"))?;
    chdir("/").map_err(failed("enter", "/"))
}
