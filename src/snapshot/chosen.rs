//! [`ChosenTracker`]: the best tracker that this machine allows, of those that the user allows.

use std::fmt;
use std::str::FromStr;

use super::fanotify::{FanotifyTracker, Fanotifying};
use super::file_system::{FileSystemTracker, FileSystemWatching};
use super::inotify::{InotifyTracker, Inotifying};
use super::tracker::{Candidates, Collected, LostTrack, Tracker, Walk, WalkTracker, Watching};
use crate::rootfs::{Ignored, Root};
#[cfg(test)]
use crate::sys::Errno;
use crate::tree::RootIndex;

/// Which tracker is to be used, `--change-tracker`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChangeTracker {
    /// The first that can be armed.
    #[default]
    Auto,
    /// fanotify, for the whole file system or else for each directory.
    Fanotify,
    /// inotify.
    Inotify,
    /// None: the root is walked.
    Walk,
}

/// A text that names no tracker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown change tracker {0:?} (auto, fanotify, inotify and walk are known)")]
pub struct UnknownTracker(pub String);

impl FromStr for ChangeTracker {
    type Err = UnknownTracker;

    fn from_str(text: &str) -> Result<ChangeTracker, UnknownTracker> {
        match text {
            "auto" => Ok(ChangeTracker::Auto),
            "fanotify" => Ok(ChangeTracker::Fanotify),
            "inotify" => Ok(ChangeTracker::Inotify),
            "walk" => Ok(ChangeTracker::Walk),
            other => Err(UnknownTracker(other.to_owned())),
        }
    }
}

/// The trackers there are, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    FileSystem,
    Fanotify,
    Inotify,
    Walk,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::FileSystem => "fanotify for the file system",
            Kind::Fanotify => "fanotify for each directory",
            Kind::Inotify => "inotify",
            Kind::Walk => "walk",
        })
    }
}

/// Tries the trackers that may be used, in order, before each command. One that the kernel refuses is not tried again;
/// one that has too much to watch is. Where none is left, the root is walked, as it is anyhow if a tracker loses track.
#[derive(Debug)]
pub struct ChosenTracker {
    wanted: Vec<Wanted>,
    told: Option<Kind>,
    file_system: FileSystemTracker,
    fanotify: FanotifyTracker,
    inotify: InotifyTracker,
    walk: WalkTracker,
}

/// A tracker that may be used.
#[derive(Debug)]
struct Wanted {
    kind: Kind,
    /// Why it cannot be, if it was tried and could not be armed.
    failed: Option<LostTrack>,
}

impl ChosenTracker {
    /// Trackers that have not been tried. What may be watched is shared by `roots` of them.
    pub fn new(asked: ChangeTracker, roots: usize) -> ChosenTracker {
        let wanted: &[Kind] = match asked {
            ChangeTracker::Auto => &[Kind::FileSystem, Kind::Fanotify, Kind::Inotify],
            ChangeTracker::Fanotify => &[Kind::FileSystem, Kind::Fanotify],
            ChangeTracker::Inotify => &[Kind::Inotify],
            ChangeTracker::Walk => &[],
        };
        ChosenTracker {
            wanted: wanted.iter().map(|&kind| Wanted { kind, failed: None }).collect(),
            told: None,
            file_system: FileSystemTracker::new(),
            fanotify: FanotifyTracker::new().shared_by(roots),
            inotify: InotifyTracker::new().shared_by(roots),
            walk: WalkTracker::new(),
        }
    }

    /// The same as if the kernel had refused one kind.
    #[cfg(test)]
    pub(super) fn refusing(mut self, kind: Kind) -> ChosenTracker {
        for wanted in self.wanted.iter_mut().filter(|wanted| wanted.kind == kind) {
            wanted.failed = Some(LostTrack::Refused(Errno::PERM));
        }
        self
    }

    /// Arms the first that can be.
    fn choose(&mut self, root: &Root, index: &RootIndex, ignored: &Ignored) -> Kind {
        for Wanted { kind, failed } in &mut self.wanted {
            if matches!(failed, Some(LostTrack::Refused(_) | LostTrack::Unproven)) {
                continue;
            }
            let armed = match kind {
                Kind::FileSystem => self.file_system.prepare(root, index, ignored),
                Kind::Fanotify => self.fanotify.prepare(root, index, ignored),
                Kind::Inotify => self.inotify.prepare(root, index, ignored),
                Kind::Walk => Ok(()),
            };
            *failed = armed.err();
            if failed.is_none() {
                return *kind;
            }
        }
        Kind::Walk
    }

    /// Says who watches, and why no better one does, where that is news.
    fn tell(&mut self, kind: Kind) {
        if self.told.replace(kind) == Some(kind) {
            return;
        }
        let failed = self.wanted.iter().filter_map(|wanted| Some((wanted.kind, wanted.failed?)));
        let failed: Vec<String> = failed.map(|(kind, lost)| format!("; not by {kind}: {lost}")).collect();
        tracing::info!("Changes are tracked by {kind}{}", failed.concat());
    }
}

impl Tracker for ChosenTracker {
    type Watching<'a> = ChosenWatching<'a>;

    fn arm(&mut self, root: &Root, index: &RootIndex, ignored: &Ignored) -> ChosenWatching<'_> {
        let kind = self.choose(root, index, ignored);
        self.tell(kind);
        match kind {
            Kind::FileSystem => ChosenWatching::FileSystem(self.file_system.begin(index)),
            Kind::Fanotify => ChosenWatching::Fanotify(self.fanotify.begin(index)),
            Kind::Inotify => ChosenWatching::Inotify(self.inotify.begin(index)),
            Kind::Walk => {
                let lost = self.wanted.last().and_then(|wanted| wanted.failed);
                ChosenWatching::Walk(self.walk.arm(root, index, ignored), lost.unwrap_or(LostTrack::NotWatched))
            }
        }
    }
}

/// A tracker at work.
#[derive(Debug)]
pub enum ChosenWatching<'a> {
    /// fanotify for the whole file system.
    FileSystem(FileSystemWatching<'a>),
    /// fanotify for each directory.
    Fanotify(Fanotifying<'a>),
    /// inotify.
    Inotify(Inotifying<'a>),
    /// Nobody watches, and why.
    Walk(Walk, LostTrack),
}

impl Watching for ChosenWatching<'_> {
    fn collect(self, index: &RootIndex, ignored: &Ignored) -> Collected {
        match self {
            ChosenWatching::FileSystem(watching) => watching.collect(index, ignored),
            ChosenWatching::Fanotify(watching) => watching.collect(index, ignored),
            ChosenWatching::Inotify(watching) => watching.collect(index, ignored),
            ChosenWatching::Walk(walk, lost) => {
                Collected { candidates: Candidates::Everything(lost), ..walk.collect(index, ignored) }
            }
        }
    }
}
