//! [`Scratch`]: a directory of the work directory for what nobody needs when the build has ended, however it does.
//!
//! It goes with the build. What a build left that was killed, the next one removes: a lock on the directory, which the kernel
//! takes off with the process, says whether its build still lives.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::error::Error;

const PREFIX: &str = "build-";

/// The directory, while its build lives.
pub(super) struct Scratch {
    directory: TempDir,
    /// Held as long as the directory is there.
    _lock: File,
}

impl Scratch {
    /// Makes the directory, and the work directory if that is not there; removes what dead builds left.
    pub(super) fn make(work_dir: &Path) -> Result<Scratch, Error> {
        let (scratch, dead) =
            make(work_dir).map_err(|source| Error::WorkDirectory { path: work_dir.to_path_buf(), source })?;
        for (path, lock) in dead {
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!("what an earlier build left in {} stays there: {error}", path.display());
            }
            drop(lock);
        }
        Ok(scratch)
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// The directory, and those that are nobody's any longer, which are locked now.
fn make(work_dir: &Path) -> io::Result<(Scratch, Vec<(PathBuf, File)>)> {
    fs::create_dir_all(work_dir)?;
    // one at a time: a directory that is about to be locked must not pass for one that nobody has
    let gate = File::open(work_dir)?;
    let dead = match gate.lock() {
        Ok(()) => find_dead(work_dir)?,
        // a file system without locks says of nothing whose it is
        Err(_) => Vec::new(),
    };
    let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(work_dir)?;
    let lock = File::open(directory.path())?;
    // where there are no locks, nobody looks for them
    let _ = lock.lock();
    Ok((Scratch { directory, _lock: lock }, dead))
}

fn find_dead(work_dir: &Path) -> io::Result<Vec<(PathBuf, File)>> {
    let mut dead = Vec::new();
    for entry in fs::read_dir(work_dir)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) || !entry.file_type()?.is_dir() {
            continue;
        }
        let path = entry.path();
        // one that goes at this moment, or is another user's, is not ours to remove
        if let Ok(directory) = File::open(&path)
            && directory.try_lock().is_ok()
        {
            dead.push((path, directory));
        }
    }
    Ok(dead)
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
        for left in ["build-dead/root/etc", "blobs"] {
            fs::create_dir_all(work_dir.join(left)).expect("made");
        }
        fs::write(work_dir.join("build-file"), "no directory").expect("written");
        let another = Scratch::make(&work_dir).expect("made");
        assert!(living.path().join("file").exists() && another.path().exists());
        assert!(!work_dir.join("build-dead").exists());
        assert!(work_dir.join("blobs").exists() && work_dir.join("build-file").exists());
        let path = another.path().to_path_buf();
        drop(another);
        assert!(!path.exists());
    }
}
