//! [`Aside`]: the directories on the root's file system that snapshots overlook. A link that is kept in one of them
//! changes a file of the image, so that they are watched as well.

use std::collections::{BTreeSet, HashMap};

use super::changes::{Inode, inode};
use crate::rootfs::{Error, Ignored, Root, Stat};
use crate::sys::fs::FileType;
use crate::tree::ImagePath;

/// More of them (saved stages can be large) are not worth their watches; then snapshots sweep.
const MOST_DIRECTORIES: usize = 4096;

/// Directories that exist now and are overlooked, mounts left out: no link leads into these.
#[derive(Debug, Default)]
pub(super) struct Aside {
    pub(super) directories: HashMap<Inode, ImagePath>,
    /// Are these all?
    pub(super) is_whole: bool,
}

/// Looks for them on disk, since the index does not know what a RUN makes there.
pub(super) fn find(root: &Root, ignored: &Ignored) -> Result<Aside, Error> {
    let mut aside = Aside { directories: HashMap::new(), is_whole: true };
    let parents: BTreeSet<ImagePath> = ignored.overlooked().filter_map(|path| path.parent()).collect();
    let mut left = Vec::new();
    for parent in parents.iter().filter(|parent| !ignored.is_overlooked(parent)) {
        left.extend(directories_in(root, parent)?.into_iter().filter(|path| ignored.is_overlooked(path)));
    }
    while let Some(path) = left.pop() {
        let is_ours = |stat: &Stat| stat.file_type == FileType::Directory && !stat.is_mount_point;
        let Some(stat) = root.stat(&path)?.filter(is_ours) else { continue };
        if aside.directories.len() == MOST_DIRECTORIES {
            return Ok(Aside::default());
        }
        left.extend(directories_in(root, &path)?);
        aside.directories.insert(inode(stat.observed), path);
    }
    Ok(aside)
}

/// Directories in the directory `path`; none if it is not there.
fn directories_in(root: &Root, path: &ImagePath) -> Result<Vec<ImagePath>, Error> {
    let directory = match root.directory(path) {
        Ok(directory) => directory,
        Err(error) if error.is_way_gone() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let entries = directory.entries()?.into_iter();
    let directories = entries.filter(|(_, file_type)| *file_type == FileType::Directory);
    Ok(directories.map(|(name, _)| path.join(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_overlooked_is_found_on_disk() {
        let place = tempfile::tempdir().expect("a directory");
        for path in ["kaniko/a/b", "var/run/x", "var/lib", "tmp/apt-key-gpghome.Ab/c", "tmp/other"] {
            std::fs::create_dir_all(place.path().join(path)).expect("made");
        }
        std::os::unix::fs::symlink("var/run", place.path().join("linked")).expect("linked");
        let mut ignored = Ignored::new();
        ignored.add_untouchable(ImagePath::clean("/kaniko"));
        ignored.add_overlooked(ImagePath::clean("/var/run"));
        for missing in ["/linked", "/missing/below", "/kaniko/a"] {
            ignored.add_overlooked(ImagePath::clean(missing));
        }
        let aside = find(&Root::open(place.path()).expect("opened"), &ignored).expect("found");
        let mut paths: Vec<String> = aside.directories.values().map(ImagePath::to_string).collect();
        paths.sort();
        let wanted = [
            "/kaniko",
            "/kaniko/a",
            "/kaniko/a/b",
            "/tmp/apt-key-gpghome.Ab",
            "/tmp/apt-key-gpghome.Ab/c",
            "/var/run",
            "/var/run/x",
        ];
        assert_eq!(paths, wanted);
        assert!(aside.is_whole);
    }
}
