//! Can a command read a file of ours?

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::{fs, io};

use crate::rootfs::User;

const READ: u32 = 0o4;
const SEARCH: u32 = 0o1;

/// Can a command of `user` read `file`, by the permission bits of the file and of all directories above it? Root reads
/// everything. A missing file nobody reads. For the warning about a mounted `config.json`; what ACLs or a security
/// module say is not asked.
pub fn can_read(user: &User, file: &Path) -> io::Result<bool> {
    let file = match file.canonicalize() {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if !allows(user, &fs::metadata(&file)?, READ) {
        return Ok(false);
    }
    for directory in file.ancestors().skip(1) {
        if !allows(user, &fs::metadata(directory)?, SEARCH) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The one of the three sets of bits that is for `user` decides, even if another would allow more.
fn allows(user: &User, metadata: &Metadata, wanted: u32) -> bool {
    let shift = if metadata.uid() == user.uid {
        6
    } else if user.groups.contains(&metadata.gid()) {
        3
    } else {
        0
    };
    user.uid == 0 || metadata.mode() >> shift & wanted == wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn permission_bits_decide() {
        let place = tempfile::tempdir().expect("a directory");
        let (directory, file) = (place.path().join("d"), place.path().join("d/config.json"));
        fs::create_dir(&directory).expect("made");
        fs::write(&file, "{}").expect("written");
        symlink("d/config.json", place.path().join("link")).expect("linked");
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
        set(place.path(), 0o755);
        let own = fs::metadata(&file).expect("there");
        let user = |uid, gid| User { uid, gid, groups: vec![gid], home: Vec::new(), name: None };
        let (stranger_uid, stranger_gid) = (own.uid() + 1, own.gid() + 1);
        let stranger = user(stranger_uid, stranger_gid);
        let colleague = user(stranger_uid, own.gid());
        for (directory_mode, file_mode, who, readable) in [
            (0o755, 0o644, &stranger, true),
            (0o755, 0o640, &stranger, false),
            (0o755, 0o640, &colleague, true),
            (0o755, 0o604, &colleague, false),
            (0o750, 0o644, &stranger, false),
            (0o750, 0o644, &colleague, true),
            (0o700, 0o600, &user(0, 0), true),
        ] {
            set(&directory, directory_mode);
            set(&file, file_mode);
            let found = can_read(who, &place.path().join("link")).expect("looked");
            assert_eq!(found, readable, "{directory_mode:o} {file_mode:o} {who:?}");
        }
        assert!(!can_read(&user(0, 0), &place.path().join("missing")).expect("looked"));
    }
}
