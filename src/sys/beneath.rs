//! Opening a path beneath a directory, so that no symlink and no `..` leads out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat, statat};
use rustix::io::Errno;

/// Symlinks followed before the kernel, too, would say ELOOP.
const MOST_SYMLINKS: usize = 40;

/// What a symlink on the way means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symlinks {
    /// It is followed, as if `root` were `/` (RESOLVE_IN_ROOT).
    FollowInRoot,
    /// It is an error (ELOOP), in the last component too unless `O_PATH | O_NOFOLLOW` asks for the link itself.
    Refuse,
}

/// Set once `openat2` turned out to be missing (before 5.6) or refused (an old seccomp profile).
static OPENAT2_MISSING: AtomicBool = AtomicBool::new(false);

/// Opens `path`, taken as relative to `root`, without leaving `root`.
pub fn open(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
    symlinks: Symlinks,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC;
    if !OPENAT2_MISSING.load(Ordering::Relaxed) {
        let resolve = match symlinks {
            Symlinks::FollowInRoot => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            Symlinks::Refuse => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        };
        let relative = match symlinks {
            Symlinks::FollowInRoot => path,
            Symlinks::Refuse => trim_slashes(path),
        };
        let relative: &[u8] = if relative.is_empty() { b"." } else { relative };
        loop {
            match openat2(root, relative, flags, mode, resolve) {
                // the kernel saw a rename somewhere while it resolved `..`
                Err(Errno::AGAIN) => continue,
                Err(Errno::NOSYS | Errno::PERM) if openat2_is_missing(root) => {
                    OPENAT2_MISSING.store(true, Ordering::Relaxed);
                    break;
                }
                other => return other,
            }
        }
    }
    open_by_components(root, path, flags, mode, symlinks)
}

fn trim_slashes(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|&byte| byte != b'/').unwrap_or(path.len());
    &path[start..]
}

/// Tells a missing call from a file that may not be opened: the directory itself can always be.
fn openat2_is_missing(root: BorrowedFd<'_>) -> bool {
    openat2(root, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty()).is_err()
}

/// The same by hand, a component at a time. Never follows a link without reading it itself.
pub(crate) fn open_by_components(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
    symlinks: Symlinks,
) -> Result<OwnedFd, Errno> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut way: Vec<OwnedFd> = Vec::new();
    let mut rest: Vec<Vec<u8>> = components(path);
    let mut followed = 0;
    while let Some(name) = rest.pop() {
        let here = way.last().map_or(root, |fd| fd.as_fd());
        if name == b".." {
            if symlinks == Symlinks::Refuse && way.is_empty() {
                return Err(Errno::XDEV);
            }
            way.pop();
            continue;
        }
        let is_last = rest.is_empty();
        let found = statat(here, &*name, AtFlags::SYMLINK_NOFOLLOW);
        let is_symlink = matches!(&found, Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
        if is_symlink && !(is_last && flags.contains(OFlags::NOFOLLOW)) {
            followed += 1;
            if symlinks == Symlinks::Refuse || followed > MOST_SYMLINKS {
                return Err(Errno::LOOP);
            }
            let target = readlinkat(here, &*name, Vec::new())?.into_bytes();
            if target.starts_with(b"/") {
                way.clear();
            }
            rest.extend(components(&target));
            continue;
        }
        if is_last {
            return openat(here, &*name, flags | OFlags::NOFOLLOW, mode);
        }
        way.push(openat(here, &*name, directory, Mode::empty())?);
    }
    openat(way.last().map_or(root, |fd| fd.as_fd()), ".", flags, mode)
}

/// The components in reverse, so that the next is popped from the end.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> =
        path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    type Opener = fn(BorrowedFd<'_>, &[u8], OFlags, Mode, Symlinks) -> Result<OwnedFd, Errno>;

    /// Both ways of resolving must agree on every row.
    #[test]
    fn nothing_leaves_the_root() {
        let outside = tempfile::tempdir().expect("a directory");
        fs::write(outside.path().join("secret"), "outside").expect("written");
        let root = outside.path().join("root");
        fs::create_dir_all(root.join("a/b")).expect("made");
        fs::write(root.join("a/b/file"), "inside").expect("written");
        fs::write(root.join("secret"), "inside").expect("written");
        symlink("/a", root.join("absolute")).expect("linked");
        symlink("../../secret", root.join("a/up")).expect("linked");
        symlink("loop", root.join("loop")).expect("linked");
        symlink("b/file", root.join("a/last")).expect("linked");
        let fd = fs::File::open(&root).expect("opened");
        let openers: [Opener; 2] = [open, open_by_components];
        for opener in openers {
            let read = |path: &str, symlinks| {
                opener(fd.as_fd(), path.as_bytes(), OFlags::RDONLY, Mode::empty(), symlinks)
                    .map(|file| std::io::read_to_string(fs::File::from(file)).expect("read"))
            };
            for path in ["a/b/file", "/a/b/file", "absolute/b/file", "a/up", "a/last", "a/b/../b/file", "../secret"] {
                assert_eq!(read(path, Symlinks::FollowInRoot).as_deref(), Ok("inside"), "{path}");
            }
            assert_eq!(read("loop", Symlinks::FollowInRoot), Err(Errno::LOOP));
            assert_eq!(read("a/b/file", Symlinks::Refuse).as_deref(), Ok("inside"));
            for path in ["absolute/b/file", "a/up", "a/last"] {
                assert_eq!(read(path, Symlinks::Refuse), Err(Errno::LOOP), "{path}");
            }
            assert_eq!(read("../secret", Symlinks::Refuse), Err(Errno::XDEV));
            let root_itself = OFlags::PATH | OFlags::DIRECTORY;
            assert!(opener(fd.as_fd(), b"/", root_itself, Mode::empty(), Symlinks::Refuse).is_ok());
        }
    }
}
