//! Files whose names others have chosen: opened at once or not at all.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat, makedev, open};

/// Opens a regular file for reading, or `/dev/null`, by which people say that there is none. All else is an error: nobody
/// waits for who may write into a fifo, and a device may have no end.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(file.into()),
        FileType::CharacterDevice if stat.st_rdev == makedev(1, 3) => Ok(file.into()),
        _ => Err(io::Error::other("it is no regular file")),
    }
}

/// All of such a file, which may have `limit_bytes` and no more.
pub fn read_regular(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    read_at_most(open_regular(path)?, limit_bytes)
}

/// All that comes, which may be `limit_bytes` and no more.
pub fn read_at_most(from: impl Read, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit_bytes + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit_bytes {
        true => Err(io::Error::other(format!("it has more than {limit_bytes} bytes"))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read() {
        let place = tempfile::tempdir().expect("a directory");
        let at = |name: &str| place.path().join(name);
        std::fs::write(at("file"), "four").expect("written");
        std::os::unix::fs::symlink("file", at("link")).expect("linked");
        std::os::unix::fs::symlink("fifo", at("link to a fifo")).expect("linked");
        rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), Mode::RWXU).expect("created");
        let other = Err("it is no regular file".to_owned());
        for (name, read) in [
            ("file", Ok("four")),
            ("link", Ok("four")),
            ("/dev/null", Ok("")),
            ("fifo", other.clone()),
            ("link to a fifo", other.clone()),
            (".", other.clone()),
            ("/dev/zero", other.clone()),
        ] {
            let found = read_regular(&at(name), 4).map_err(|error| error.to_string());
            assert_eq!(found.as_deref(), read.as_ref().map(|text| text.as_bytes()), "{name}");
        }
        let error = read_regular(&at("file"), 3).expect_err("it is longer");
        assert_eq!(error.to_string(), "it has more than 3 bytes");
        assert_eq!(read_regular(&at("none"), 4).expect_err("there is none").kind(), io::ErrorKind::NotFound);
    }
}
