//! [`Partial`]: a file that appears whole or not at all.
//!
//! Until then it has a name of its own, and is locked. What a process leaves that is killed is not, and goes when somebody
//! [sweeps](sweep) the directory.

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::sys::fs::OFlags;

/// What the names of files begin with that are not whole yet: no others may be swept away.
const PREFIX: &str = ".kanna-partial-";
/// Temporary files are private; what others read is not.
const MODE: u32 = 0o644;

/// A file that is being written. It goes with this, unless it was finished.
#[derive(Debug)]
pub struct Partial(NamedTempFile);

impl Partial {
    /// Begins a file of `directory`.
    pub fn begin(directory: &Path) -> io::Result<Partial> {
        loop {
            let file = NamedTempFile::with_prefix_in(PREFIX, directory)?;
            // on a file system without locks nobody gets one, and nothing is swept
            let is_swept = matches!(file.as_file().try_lock(), Err(TryLockError::WouldBlock));
            if !is_swept && file.as_file().metadata()?.nlink() > 0 {
                return Ok(Partial(file));
            }
        }
    }

    /// Where it is for now.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Gives it its name in the same directory; what had that name goes.
    pub fn finish(self, path: &Path) -> io::Result<()> {
        self.0.as_file().set_permissions(fs::Permissions::from_mode(MODE))?;
        self.0.persist(path).map(drop).map_err(|error| error.error)
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // the file itself: the wrapper's errors repeat the path
        self.0.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.as_file_mut().flush()
    }
}

/// Removes what processes began in `directory` that were killed.
pub fn sweep(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())) {
        match remove_dead(&entry.path()) {
            Ok(()) => tracing::debug!("{} was left by a process that is no more: removed", entry.path().display()),
            Err(error) => tracing::debug!("{} is not removed: {error}", entry.path().display()),
        }
    }
}

fn remove_dead(path: &Path) -> io::Result<()> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    file.try_lock()?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("listed");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_what_is_dead_is_swept() {
        let place = tempfile::tempdir().expect("a directory");
        let dead = format!("{PREFIX}dead");
        for name in [&*dead, ".partial-of-somebody", "whole"] {
            fs::write(place.path().join(name), "").expect("written");
        }
        let mut living = Partial::begin(place.path()).expect("begun");
        sweep(place.path());
        let left = names(place.path());
        assert!(left.len() == 3 && !left.contains(&dead), "{left:?}");
        living.write_all(b"new").expect("written");
        living.finish(&place.path().join("whole")).expect("finished");
        assert_eq!(names(place.path()), [".partial-of-somebody", "whole"]);
        assert_eq!(fs::read(place.path().join("whole")).expect("read"), b"new");
        drop(Partial::begin(place.path()).expect("begun"));
        assert_eq!(names(place.path()).len(), 2, "given up");
    }

    #[test]
    fn whoever_begins_while_others_sweep_has_a_file() {
        let place = tempfile::tempdir().expect("a directory");
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    sweep(place.path());
                }
            });
            for number in 0..500 {
                let path = place.path().join(number.to_string());
                let mut file = Partial::begin(place.path()).expect("begun");
                let finished = file.write_all(b"whole").and_then(|()| file.finish(&path));
                assert!(finished.is_ok() && path.exists(), "{number}: {finished:?}");
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
