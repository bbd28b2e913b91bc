//! [`Site`]: a root with what is known of it.

use std::collections::BTreeSet;
use std::mem;

use super::error::Error;
use super::mount_points::change_unnoticed;
use super::place::Place;
use super::request::Request;
use crate::rootfs::{self, Root};
use crate::snapshot::{self, ChosenTracker, Distrust};
use crate::sys::fs::FileType;
use crate::tree::{ImagePath, Node, RootIndex, Standing};

/// A root at work, or between two stages.
pub(super) struct Site {
    pub(super) place: Place,
    /// What is in the root.
    pub(super) index: RootIndex,
    pub(super) tracker: ChosenTracker,
    /// Could ctime be trusted to tell what commands touched?
    pub(super) ctime: Result<(), Distrust>,
    /// Sockets that commands of the stage at work have made.
    pub(super) sockets: BTreeSet<ImagePath>,
    /// The directories of a root that is ours, as they were before anything was built.
    surveyed: Vec<(ImagePath, Node)>,
    /// The stage whose files, as its image has them, are in the root for a stage that is built on it.
    pub(super) holds: Option<usize>,
}

impl Site {
    /// Looks at what is in a root in which nothing was built so far, and of which there are `sites` at most.
    pub(super) fn survey(place: Place, request: &Request, sites: usize) -> Result<Site, Error> {
        let mut index = RootIndex::new();
        snapshot::survey(&place.mounted_root, &mut index, &place.ignored)?;
        let tracker = ChosenTracker::new(request.snapshot.tracker, sites);
        let surveyed = match place.world {
            Some(_) => index.subtree(index.root()).map(|id| (index.path(id), index.node(id))).collect(),
            // what a container holds is its engine's
            None => Vec::new(),
        };
        Ok(Site { place, index, tracker, ctime: Ok(()), sockets: BTreeSet::new(), surveyed, holds: None })
    }

    /// Makes what belongs to no image, and what earlier stages may have changed, as it is in a fresh root.
    pub(super) fn restore_surveyed(&mut self) -> Result<(), rootfs::Error> {
        let Site { place, index, surveyed, .. } = self;
        for (path, node) in surveyed.iter().filter(|(path, _)| !path.is_root()) {
            if index.lookup(path).is_some_and(|id| index.standing(id) == Standing::Foreign) {
                place.root.parent_directory(path)?.set_attributes(path.file_name(), node)?;
                index.insert(path, node, place.root.node(path)?.map(|(_, observed)| observed), Standing::Foreign);
            }
        }
        Ok(())
    }

    /// Removes the sockets that a stage leaves: no layer has them, so that nobody who is built on it may find any.
    pub(super) fn remove_sockets(&mut self) -> Result<(), rootfs::Error> {
        remove_sockets(mem::take(&mut self.sockets), &self.place.root, &mut self.index)
    }
}

fn remove_sockets(sockets: BTreeSet<ImagePath>, root: &Root, index: &mut RootIndex) -> Result<(), rootfs::Error> {
    for path in sockets {
        let is_socket = root.stat(&path)?.is_some_and(|stat| stat.file_type == FileType::Socket);
        let Some(above) = path.parent().filter(|_| is_socket) else { continue };
        let directory = root.directory(&above)?;
        change_unnoticed(&directory, index, || directory.remove(path.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::rootfs::Ignored;
    use crate::snapshot::{Candidates, Collected, LostTrack, SnapshotMode};

    #[test]
    fn sockets_go_and_leave_no_trace() {
        let place = tempfile::tempdir().expect("a directory");
        fs::create_dir(place.path().join("run")).expect("made");
        fs::write(place.path().join("run/was"), "a file").expect("written");
        let (root, mut index, ignored) = (Root::open(place.path()).expect("opened"), RootIndex::new(), Ignored::new());
        snapshot::survey(&root, &mut index, &ignored).expect("looked");
        fs::remove_file(place.path().join("run/was")).expect("removed");
        for name in ["run/was", "run/new"] {
            drop(UnixListener::bind(place.path().join(name)).expect("bound"));
        }
        let look = |index: &mut RootIndex| {
            let candidates = Candidates::Everything(LostTrack::NotWatched);
            let collected = Collected { candidates, ctime: Ok(()), events: 0, handles_opened: 0 };
            snapshot::take(collected, SnapshotMode::Full, &root, index, &ignored, 1).expect("looked")
        };
        let taken = look(&mut index);
        let mtime = fs::metadata(place.path().join("run")).expect("there").mtime_nsec();
        remove_sockets(taken.sockets.into_iter().collect(), &root, &mut index).expect("removed");
        assert_eq!(fs::read_dir(place.path().join("run")).expect("listed").count(), 0);
        assert_eq!(fs::metadata(place.path().join("run")).expect("there").mtime_nsec(), mtime);
        let again = look(&mut index);
        assert!(again.changeset.is_empty() && again.sockets.is_empty(), "{again:?}");
        assert_eq!(again.work.metadata_read, 0, "all is as observed");
    }
}
