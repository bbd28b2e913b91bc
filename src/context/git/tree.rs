//! A working tree whose modes and times say nothing of the machine and the moment it was made.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

/// git's own directory.
pub(super) const GIT_DIRECTORY: &str = ".git";

/// Gives all that is in `directory`, and itself, the modes that git knows and the time `seconds`. What a submodule has keeps
/// the time of its own commit if `is_submodule` says so of its directory.
pub(super) fn level(directory: &Path, seconds: i64, is_submodule: &impl Fn(&Path) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let file_type = entry.file_type()?;
        if file_type.is_dir() {
            if !is_submodule(&path) {
                level(&path, seconds, is_submodule)?;
            }
            continue;
        }
        if file_type.is_file() {
            let is_executable = entry.metadata()?.permissions().mode() & 0o111 != 0;
            fs::set_permissions(&path, Permissions::from_mode(if is_executable { 0o755 } else { 0o644 }))?;
        }
        set_time(&path, seconds)?;
    }
    fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    set_time(directory, seconds)
}

fn set_time(path: &Path, seconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
