//! Calls on mounts that no library wraps.

#![expect(unsafe_code, reason = "mount_setattr has no safe wrapper")]

use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::io::Errno;

/// Makes the mount at `top` and all below it read-only, without devices, programs and setuid (Linux 5.12).
pub fn restrict_tree(top: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: all zero is a valid value: nothing is changed.
    let mut change: libc::mount_attr = unsafe { std::mem::zeroed() };
    change.attr_set =
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the path is NUL-terminated, `change` is as long as is said and outlives the call, which writes nothing.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, top.as_raw_fd(), c"".as_ptr(), flags, &change, size_of_val(&change))
    };
    if done == 0 { Ok(()) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)) }
}
