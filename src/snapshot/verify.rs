//! `--verify-snapshots`: every snapshot is judged by a walk that reads every file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::tracker::{Candidates, Collected};
use super::{Error, Snapshot, SnapshotMode, judge, take};
use crate::rootfs::{Ignored, Root};
use crate::tree::{Change, ImagePath, RootIndex};

/// Differences that are told one by one; of more, only the number.
const MOST_TOLD: usize = 20;

/// As [`take`], after a [`judge`] who must find the same; else the error names the paths.
pub fn take_verified(
    collected: Collected,
    mode: SnapshotMode,
    root: &Root,
    index: &mut RootIndex,
    ignored: &Ignored,
    threads: usize,
) -> Result<Snapshot, Error> {
    let (judged, judged_index) = judge(mode, root, index, ignored, threads)?;
    let told = judged.changeset.changes(&judged_index).collect();
    drop(judged_index);
    let seen = collected.candidates.clone();
    let snapshot = take(collected, mode, root, index, ignored, threads)?;
    let differences = Differences::between(&snapshot.changeset.changes(index).collect(), &told, &seen);
    tracing::debug!(work = ?judged.work, differences = differences.0.len(), "snapshot judged");
    if differences.0.is_empty() { Ok(snapshot) } else { Err(Error::Differs(differences)) }
}

type Changes = BTreeMap<ImagePath, Change>;

/// Where a snapshot and its judge do not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differences(Vec<Difference>);

/// A path about which a snapshot and its judge say different things.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Difference {
    path: ImagePath,
    snapshot: &'static str,
    judge: &'static str,
    seen: Seen,
}

/// What the tracker had said of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Itself,
    Above,
    Nothing,
    Everything,
}

impl Differences {
    fn between(snapshot: &Changes, judged: &Changes, candidates: &Candidates) -> Differences {
        let paths: BTreeSet<&ImagePath> = snapshot.keys().chain(judged.keys()).collect();
        let differing = paths.into_iter().filter(|path| snapshot.get(*path) != judged.get(*path));
        let difference = |path: &ImagePath| {
            let (ours, theirs) = (snapshot.get(path), judged.get(path));
            let (snapshot, judge) = match (word(ours), word(theirs)) {
                (one, other) if one == other => (one, "the same with other metadata or content"),
                both => both,
            };
            Difference { path: path.clone(), snapshot, judge, seen: seen(path, candidates) }
        };
        Differences(differing.map(difference).collect())
    }
}

fn word(change: Option<&Change>) -> &'static str {
    match change {
        None => "nothing",
        Some(Change::Added(_)) => "added",
        Some(Change::Modified(_)) => "modified",
        Some(Change::Link { .. }) => "a hard link",
        Some(Change::Parent(_)) => "a parent",
        Some(Change::Removed) => "removed",
    }
}

fn seen(path: &ImagePath, candidates: &Candidates) -> Seen {
    match candidates {
        Candidates::Everything(_) => Seen::Everything,
        Candidates::Listed { paths, subtrees } | Candidates::Swept { paths, subtrees, .. } => {
            if paths.contains(path) {
                Seen::Itself
            } else if path.ancestors().iter().any(|above| paths.contains(above) || subtrees.contains(above)) {
                Seen::Above
            } else {
                Seen::Nothing
            }
        }
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Difference { path, snapshot, judge, seen }) in self.0.iter().take(MOST_TOLD).enumerate() {
            let seen = match seen {
                Seen::Itself => "the tracker named it",
                Seen::Above => "the tracker named a directory above it",
                Seen::Nothing => "the tracker did not name it",
                Seen::Everything => "every path was looked at",
            };
            let comma = if number > 0 { "; " } else { "" };
            write!(f, "{comma}{path}: {snapshot}, but the walk says {judge} ({seen})")?;
        }
        match self.0.len().saturating_sub(MOST_TOLD) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Kind, Node, Timestamp};

    fn node(size: u64) -> Node {
        let kind = Kind::File { size, content: None };
        Node { kind, mode: 0o644, uid: 0, gid: 0, mtime: Timestamp::EPOCH, xattrs: Vec::new() }
    }

    #[test]
    fn told() {
        let (mut ours, mut theirs) = (Changes::new(), Changes::new());
        let path = |text: &str| ImagePath::clean(text);
        for changeset in [&mut ours, &mut theirs] {
            changeset.insert(path("/same"), Change::Added(node(1)));
        }
        theirs.insert(path("/d/missed"), Change::Modified(node(1)));
        ours.insert(path("/e/more"), Change::Removed);
        ours.insert(path("/other"), Change::Added(node(1)));
        theirs.insert(path("/other"), Change::Added(node(2)));
        let listed = Candidates::Listed { paths: [path("/other")].into(), subtrees: [path("/e")].into() };
        let told = Differences::between(&ours, &theirs, &listed).to_string();
        let wanted = "/d/missed: nothing, but the walk says modified (the tracker did not name it); \
            /e/more: removed, but the walk says nothing (the tracker named a directory above it); \
            /other: added, but the walk says the same with other metadata or content (the tracker named it)";
        assert_eq!(told, wanted);
        assert_eq!(Differences::between(&ours, &ours, &listed), Differences(Vec::new()));
        for number in 0..MOST_TOLD {
            theirs.insert(ImagePath::clean(format!("/many/{number}")), Change::Removed);
        }
        assert!(Differences::between(&ours, &theirs, &listed).to_string().ends_with("; and 3 more"));
    }
}
