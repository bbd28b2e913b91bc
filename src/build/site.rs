//! [`Site`]: a root with what is known of it.

use super::error::Error;
use super::place::Place;
use super::request::Request;
use crate::snapshot::{self, ChosenTracker, Distrust};
use crate::tree::RootIndex;

/// A root at work, or between two stages.
pub(super) struct Site {
    pub(super) place: Place,
    /// What is in the root.
    pub(super) index: RootIndex,
    pub(super) tracker: ChosenTracker,
    /// Could ctime be trusted to tell what commands touched?
    pub(super) ctime: Result<(), Distrust>,
    /// The stage whose files, as its image has them, are in the root for a stage that is built on it.
    pub(super) holds: Option<usize>,
}

impl Site {
    /// Looks at what is in a root in which nothing was built so far, and of which there are `sites` at most.
    pub(super) fn survey(place: Place, request: &Request, sites: usize) -> Result<Site, Error> {
        let mut index = RootIndex::new();
        snapshot::survey(&place.mounted_root, &mut index, &place.ignored)?;
        let tracker = ChosenTracker::new(request.snapshot.tracker, sites);
        Ok(Site { place, index, tracker, ctime: Ok(()), holds: None })
    }
}
