//! [`Scratch`]: a directory of the work directory for what nobody needs when the build has ended, however it does.
//!
//! It goes with the build. What a build left that was killed, the next one removes: a lock on the directory, which the kernel
//! takes off with the process, says whether its build still lives.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tempfile::TempDir;

use super::error::Error;

/// What the names of these directories begin with. They are removed: nobody else may call a directory so.
const PREFIX: &str = "kanna-build-";

/// The directory, while its build lives.
pub(super) struct Scratch {
    directory: TempDir,
    /// Held as long as the directory is there.
    _lock: File,
}

impl Scratch {
    /// Makes the directory, and the work directory if that is not there; removes what dead builds left.
    pub(super) fn make(work_dir: &Path) -> Result<Scratch, Error> {
        let failed = |source| Error::WorkDirectory { path: work_dir.to_path_buf(), source };
        fs::create_dir_all(work_dir).and_then(|()| remove_dead(work_dir)).map_err(failed)?;
        loop {
            let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(work_dir).map_err(failed)?;
            if let Some(lock) = lock(directory.path()).map_err(failed)? {
                return Ok(Scratch { directory, _lock: lock });
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Locks a directory that was made a moment ago; `None` if another build took it for a dead one's before. Nobody waits for a
/// lock: what a user has locked, such as the work directory, does not concern us.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let opened = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    // on a file system without locks nobody gets one, and nothing passes for dead
    let is_taken = matches!(opened.try_lock(), Err(TryLockError::WouldBlock));
    let is_there = fs::symlink_metadata(path)
        .is_ok_and(|found| opened.metadata().is_ok_and(|own| identity(own) == identity(found)));
    Ok((is_there && !is_taken).then_some(opened))
}

fn remove_dead(work_dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(work_dir)? {
        let entry = entry?;
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_directory || !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let path = entry.path();
        // one that goes at this moment, or is another user's, is not ours to remove
        if let Ok(directory) = File::open(&path)
            && directory.try_lock().is_ok()
            && let Err(error) = fs::remove_dir_all(&path)
        {
            tracing::warn!("what an earlier build left in {} stays there: {error}", path.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dead_builds_left_goes_and_what_living_ones_have_stays() {
        let place = tempfile::tempdir().expect("a directory");
        let work_dir = place.path().join("work");
        let living = Scratch::make(&work_dir).expect("made");
        fs::write(living.path().join("file"), "mine").expect("written");
        for left in ["kanna-build-dead/root/etc", "build-output", "blobs"] {
            fs::create_dir_all(work_dir.join(left)).expect("made");
        }
        fs::write(work_dir.join("kanna-build-file"), "no directory").expect("written");
        let another = Scratch::make(&work_dir).expect("made");
        assert!(living.path().join("file").exists() && another.path().exists());
        assert!(!work_dir.join("kanna-build-dead").exists());
        for others in ["build-output", "blobs", "kanna-build-file"] {
            assert!(work_dir.join(others).exists(), "{others}");
        }
        let path = another.path().to_path_buf();
        drop(another);
        assert!(!path.exists());
    }

    #[test]
    fn builds_that_begin_together_have_each_their_own() {
        let work_dir = tempfile::tempdir().expect("a directory");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let scratch = Scratch::make(work_dir.path()).expect("made");
                        fs::write(scratch.path().join("file"), "").expect("it is there");
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(work_dir.path()).expect("listed").count(), 0);
    }
}
