//! Less usual ways to change a file, each by its path.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FallocateFlags, Timespec, Timestamps, UTIME_OMIT};

use crate::sys::mapping::MappedByte;

/// A way to change the file at a path.
pub type Call = fn(&Path) -> io::Result<()>;

const MOMENT: Timespec = Timespec { tv_sec: 77, tv_nsec: 7 };
const AS_IT_IS: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };

fn writable(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

/// A file with a few bytes in it, read from the start.
fn source() -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(b"from elsewhere")?;
    file.rewind()?;
    Ok(file)
}

pub fn mtime_alone(path: &Path) -> io::Result<()> {
    let times = Timestamps { last_access: AS_IT_IS, last_modification: MOMENT };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::empty())?)
}

pub fn atime_alone(path: &Path) -> io::Result<()> {
    let times = Timestamps { last_access: MOMENT, last_modification: AS_IT_IS };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::empty())?)
}

pub fn grow(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::fallocate(writable(path)?, FallocateFlags::empty(), 0, 8192)?)
}

pub fn punch(path: &Path) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(writable(path)?, flags, 0, 2)?)
}

pub fn copy_range(path: &Path) -> io::Result<()> {
    // Both in one place, since not all kernels copy from one file system to another.
    let file = writable(path)?;
    let (mut from, mut to) = (0, 2);
    rustix::fs::copy_file_range(File::open(path)?, Some(&mut from), &file, Some(&mut to), 2)?;
    Ok(())
}

pub fn send(path: &Path) -> io::Result<()> {
    rustix::fs::sendfile(writable(path)?, source()?, None, 4)?;
    Ok(())
}

pub fn splice(path: &Path) -> io::Result<()> {
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(b"pipe")?;
    drop(writer);
    // From a pipe into a file, that is what the standard library calls.
    io::copy(&mut File::from(OwnedFd::from(reader)), &mut writable(path)?).map(drop)
}

pub fn append(path: &Path) -> io::Result<()> {
    let mut file = File::options().append(true).open(path)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(b"more")
}

/// The descriptor goes first, as the loader and databases do it.
pub fn late_store(path: &Path) -> io::Result<()> {
    let file = writable(path)?;
    let byte = MappedByte::new(file.as_fd())?;
    let seen = byte.load();
    drop(file);
    byte.store(seen.wrapping_add(1));
    drop(byte);
    // The same mtime, so that only the content tells.
    File::open(path)?.read_at(&mut [0], 0).map(drop)
}

fn shell(path: &Path, script: &str) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let status = Command::new("sh").current_dir(directory).args(["-c", script, "sh"]).arg(name).status()?;
    if status.success() { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
}

/// Two processes at a time, one of which outlives the first.
pub fn by_a_shell(path: &Path) -> io::Result<()> {
    shell(path, "(echo one >>\"$1\"; chmod 640 \"$1\") & echo two >>\"$1\"; wait")
}

/// By a relative path through the directory's own descriptor.
pub fn from_below(path: &Path) -> io::Result<()> {
    shell(path, "exec 3<. && echo more >>/proc/self/fd/3/\"$1\"")
}
