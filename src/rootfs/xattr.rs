//! Which extended attributes belong into an image, and how they look there.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::{Errno, fs};
use crate::tree::Xattrs;

/// File capabilities: `struct vfs_cap_data` (revision 2) or `vfs_ns_cap_data` (revision 3, with a root uid).
const CAPABILITY: &[u8] = b"security.capability";
const CAPABILITY_REVISION_2: u32 = 0x0200_0000;
const CAPABILITY_REVISION_3: u32 = 0x0300_0000;
/// Bytes of revision 2; revision 3 appends four.
const CAPABILITY_2_BYTES: usize = 20;

/// May an image carry this attribute? `security.selinux`, `security.ima` and `trusted.*` belong to the machine;
/// `user.overlay.*` to overlayfs.
pub fn is_portable(name: &[u8]) -> bool {
    match name {
        CAPABILITY | b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        _ => name.starts_with(b"user.") && !name.starts_with(b"user.overlay."),
    }
}

/// The value as an image stores it: capabilities as revision 2, without the root uid of a user namespace.
pub fn portable_value(name: &[u8], value: Vec<u8>) -> Vec<u8> {
    if name != CAPABILITY || value.len() <= CAPABILITY_2_BYTES {
        return value;
    }
    let magic = u32::from_le_bytes([value[0], value[1], value[2], value[3]]);
    if magic & 0xff00_0000 != CAPABILITY_REVISION_3 {
        return value;
    }
    let mut portable = (magic & 0x00ff_ffff | CAPABILITY_REVISION_2).to_le_bytes().to_vec();
    portable.extend_from_slice(&value[4..CAPABILITY_2_BYTES]);
    portable
}

/// The path of `name` in `directory` that calls without an `*at` form can take.
pub(super) fn proc_path(directory: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// The portable attributes of `name` in `directory`, sorted by name; symlinks are not followed.
pub(super) fn read(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Xattrs, Errno> {
    let path = proc_path(directory, name);
    let mut names = Vec::with_capacity(256);
    loop {
        names.clear();
        match fs::llistxattr(&*path, rustix::buffer::spare_capacity(&mut names)) {
            Ok(0) => return Ok(Vec::new()),
            Ok(_) => break,
            Err(Errno::RANGE) => names.reserve(names.capacity() * 4),
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
    }
    let mut found: Xattrs = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|name| is_portable(name)) {
        let mut value = Vec::with_capacity(256);
        loop {
            value.clear();
            match fs::lgetxattr(&*path, name, rustix::buffer::spare_capacity(&mut value)) {
                Ok(_) => break,
                Err(Errno::RANGE) => value.reserve(value.capacity() * 4),
                Err(error) => return Err(error),
            }
        }
        found.push((name.into(), portable_value(name, value).into()));
    }
    found.sort();
    Ok(found)
}

/// Adds attributes. An error says what was tried.
pub(super) fn write(directory: BorrowedFd<'_>, name: &[u8], wanted: &Xattrs) -> Result<(), (&'static str, Errno)> {
    let path = proc_path(directory, name);
    for (key, value) in wanted {
        fs::lsetxattr(&*path, &**key, value, fs::XattrFlags::empty()).map_err(|errno| (action(key), errno))?;
    }
    Ok(())
}

/// As [`write()`], to an open file.
pub(super) fn write_to(file: BorrowedFd<'_>, wanted: &Xattrs) -> Result<(), (&'static str, Errno)> {
    for (key, value) in wanted {
        fs::fsetxattr(file, &**key, value, fs::XattrFlags::empty()).map_err(|errno| (action(key), errno))?;
    }
    Ok(())
}

/// File capabilities need a privilege that others do not, and so are named.
fn action(key: &[u8]) -> &'static str {
    if key == CAPABILITY { "set security.capability of" } else { "set xattrs of" }
}

/// Takes away one attribute.
pub(super) fn remove(directory: BorrowedFd<'_>, name: &[u8], key: &[u8]) -> Result<(), Errno> {
    fs::lremovexattr(&*proc_path(directory, name), key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portable_names() {
        for (name, portable) in [
            ("security.capability", true),
            ("user.note", true),
            ("system.posix_acl_access", true),
            ("security.selinux", false),
            ("security.ima", false),
            ("trusted.overlay.opaque", false),
            ("user.overlay.opaque", false),
            ("", false),
        ] {
            assert_eq!(is_portable(name.as_bytes()), portable, "{name}");
        }
    }

    #[test]
    fn capabilities_lose_their_namespace() {
        let mut version_3 = 0x0300_0001_u32.to_le_bytes().to_vec();
        version_3.extend_from_slice(&[0, 4, 0, 0]);
        version_3.extend_from_slice(&[0; 12]);
        version_3.extend_from_slice(&100_000_u32.to_le_bytes());
        let version_2 = portable_value(CAPABILITY, version_3);
        assert_eq!(hex::encode(&version_2), "0100000200040000000000000000000000000000");
        assert_eq!(portable_value(CAPABILITY, version_2.clone()), version_2);
    }
}
