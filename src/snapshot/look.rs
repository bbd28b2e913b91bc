//! Looks at paths and says how each differs from the index. Changes neither the root nor the index.

use std::collections::{BTreeSet, HashSet};

use rayon::prelude::*;

use super::sightings::Sightings;
use super::{Candidates, Error, SnapshotMode, Work};
use crate::rootfs::{Directory, Ignored, Root, Stat};
use crate::sys::fs::FileType;
use crate::tree::{ImagePath, Node, NodeId, Observed, RootIndex, Standing};

/// Entries of one directory, or tasks, that one thread looks at before another may take the next ones.
const ENTRIES_PER_TURN: usize = 512;
const TASKS_PER_TURN: usize = 64;
/// Few tasks are dealt out so that every thread gets some, and who is quick gets more.
const TURNS_PER_THREAD: usize = 8;

/// What proves that a path did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// Device, inode and ctime are as observed.
    Ctime,
    /// All metadata, and the content of every file.
    Content,
}

/// A path of the index of which the mode says that it is the same.
#[derive(Debug)]
pub(super) struct Unchanged {
    pub(super) id: NodeId,
    pub(super) observed: Observed,
    /// Does it differ in what the mode leaves out?
    pub(super) is_drifted: bool,
    /// What is on disk, where that differs from the index and the inode has or had several names: an entry may be needed.
    pub(super) node: Option<Box<Node>>,
}

/// What looking found. Sorted, and each path once, when [`Look::at`] returns it.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// New or different paths.
    pub(super) changed: Sightings,
    /// Paths that are the same, but not as observed.
    pub(super) unchanged: Vec<Unchanged>,
    /// Paths of the index of which nothing is left; what was below them is not listed.
    pub(super) gone: Vec<ImagePath>,
    /// Sockets that the index does not know; they are in no layer.
    pub(super) sockets: Vec<ImagePath>,
    pub(super) work: Work,
}

impl Findings {
    fn merge(&mut self, mut other: Findings) {
        self.changed.append(other.changed);
        self.unchanged.append(&mut other.unchanged);
        self.gone.append(&mut other.gone);
        self.sockets.append(&mut other.sockets);
        self.work += other.work;
    }

    /// A path that was named and that is in a directory that was read was looked at twice, and is the same.
    fn sorted(mut self) -> Findings {
        self.changed.sort();
        self.gone.sort_unstable();
        self.gone.dedup();
        self
    }

    /// Is nothing at `path` any more, because it or a directory above it is gone or was replaced?
    pub(super) fn is_gone(&self, path: &ImagePath) -> bool {
        let is_gone = |path: &ImagePath| self.gone.binary_search(path).is_ok();
        is_gone(path)
            || std::iter::successors(path.parent(), ImagePath::parent)
                .any(|parent| is_gone(&parent) || self.is_replaced(&parent))
    }

    /// Is something at `path` now that is no directory?
    pub(super) fn is_replaced(&self, path: &ImagePath) -> bool {
        self.changed.get(path).is_some_and(|now| !now.node.is_directory())
    }
}

/// One thing to look at.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    Path(ImagePath),
    /// All entries of a directory, and of those below it. `id` is the same directory in the index.
    Below {
        path: ImagePath,
        id: Option<NodeId>,
    },
    /// All that the index knows in a directory and is no directory.
    Files(NodeId),
}

/// The outcome of one task: findings, and what is to be looked at because of them.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) findings: Findings,
    next: Vec<Task>,
    /// Children in the index that have an entry on disk.
    present: Vec<NodeId>,
}

impl Outcome {
    /// A path is to be looked at. Many files of one directory ask for it one after another.
    fn look_at(&mut self, path: ImagePath) {
        let next = Task::Path(path);
        if self.next.last() != Some(&next) {
            self.next.push(next);
        }
    }

    fn merge(mut self, mut other: Outcome) -> Outcome {
        self.findings.merge(other.findings);
        self.next.append(&mut other.next);
        self.present.append(&mut other.present);
        self
    }
}

/// Looks at candidates.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) root: &'a Root,
    pub(super) index: &'a RootIndex,
    pub(super) ignored: &'a Ignored,
    pub(super) mode: SnapshotMode,
    pub(super) evidence: Evidence,
    /// Are there paths that will not be looked at by themselves, so that what a path implies has to be followed?
    is_partial: bool,
}

impl<'a> Look<'a> {
    /// Prepares to look at everything, trusting nothing but `evidence`.
    pub(super) fn new(
        root: &'a Root,
        index: &'a RootIndex,
        ignored: &'a Ignored,
        mode: SnapshotMode,
        evidence: Evidence,
    ) -> Look<'a> {
        Look { root, index, ignored, mode, evidence, is_partial: false }
    }

    /// Looks at `candidates` and at all that follows from them, on the current rayon pool.
    pub(super) fn at(mut self, candidates: Candidates) -> Result<Findings, Error> {
        let tasks = match candidates {
            Candidates::Everything(_) => {
                vec![
                    Task::Path(ImagePath::root()),
                    Task::Below { path: ImagePath::root(), id: Some(self.index.root()) },
                ]
            }
            Candidates::Listed { paths, subtrees } => {
                self.is_partial = true;
                self.listed(paths, subtrees)
            }
            Candidates::Swept { paths, subtrees, because: _ } => {
                self.is_partial = true;
                let mut tasks = self.listed(paths, subtrees);
                let walked = tasks.iter().filter_map(|task| match task {
                    Task::Below { id, .. } => *id,
                    Task::Path(_) | Task::Files(_) => None,
                });
                let walked = walked.collect();
                tasks.extend(self.directories_with_files(walked).map(Task::Files));
                tasks
            }
        };
        self.rounds(tasks)
    }

    /// What is walked anyway is not looked at by itself, or files would be read twice; but what is overlooked is, since the
    /// walk does not follow its links.
    fn listed(&self, mut paths: BTreeSet<ImagePath>, subtrees: BTreeSet<ImagePath>) -> Vec<Task> {
        if self.mode == SnapshotMode::Full {
            paths.extend(self.index.drifted().map(|id| self.index.path(id)));
        }
        let seen = |path: &ImagePath| !self.ignored.is_overlooked(path);
        let walked: BTreeSet<ImagePath> = subtrees.iter().filter(|path| seen(path)).cloned().collect();
        if !walked.is_empty() {
            let is_walked = |path: &ImagePath| path.ancestors().iter().any(|above| walked.contains(above));
            paths.retain(|path| !(is_walked(path) && seen(path)));
        }
        paths.extend(subtrees);
        let below = walked.into_iter().map(|path| Task::Below { id: self.index.lookup(&path), path });
        paths.into_iter().map(Task::Path).chain(below).collect()
    }

    /// The directories of the index that hold something else than directories, but for those in what is `walked`.
    fn directories_with_files(&self, walked: HashSet<NodeId>) -> impl Iterator<Item = NodeId> {
        let mut left = vec![self.index.root()];
        std::iter::from_fn(move || {
            loop {
                let id = left.pop()?;
                if walked.contains(&id) {
                    continue;
                }
                let mut has_files = false;
                for child in self.index.children(id) {
                    match self.index.is_directory(child) {
                        true => left.push(child),
                        false => has_files = true,
                    }
                }
                if has_files {
                    return Some(id);
                }
            }
        })
    }

    /// Round by round, so that neither the stack nor the number of open directories grows with the depth of the tree.
    fn rounds(self, mut tasks: Vec<Task>) -> Result<Findings, Error> {
        let mut findings = Findings::default();
        let mut done: Vec<Vec<Task>> = Vec::new();
        while !tasks.is_empty() {
            if self.is_partial {
                // in order, so that paths of one directory follow each other
                tasks.sort_unstable();
                tasks.dedup();
                tasks.retain(|task| done.iter().all(|round| round.binary_search(task).is_err()));
            }
            let each = tasks.len().div_ceil(TURNS_PER_THREAD * rayon::current_num_threads()).clamp(1, TASKS_PER_TURN);
            let turns = tasks.par_chunks(each).map(|turn| self.turn(turn));
            let turns: Vec<Outcome> = turns.collect::<Result<_, Error>>()?;
            let mut next = Vec::new();
            for mut turn in turns {
                findings.merge(turn.findings);
                next.append(&mut turn.next);
            }
            if self.is_partial {
                done.push(tasks);
            }
            tasks = next;
        }
        Ok(findings.sorted())
    }

    /// Works off some tasks.
    fn turn(&self, tasks: &[Task]) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        let mut open = None;
        for task in tasks {
            match task {
                Task::Path(path) => self.path(path, &mut open, &mut outcome)?,
                Task::Below { path, id } => outcome = outcome.merge(self.below(path, *id)?),
                Task::Files(id) => self.files(*id, &mut outcome)?,
            }
        }
        Ok(outcome)
    }

    /// Looks at one path. `open` is the directory of the path before it, and then that of this one.
    fn path(&self, path: &ImagePath, open: &mut Option<Directory>, outcome: &mut Outcome) -> Result<(), Error> {
        if self.ignored.is_overlooked(path) {
            return self.overlooked(path, outcome);
        }
        let Some(parent) = path.parent() else {
            if let Some(stat) = self.root.top().stat(b".")? {
                outcome.findings.work.entries_looked_at += 1;
                self.compare(self.root.top(), b".", Some(self.index.root()), &stat, outcome)?;
            }
            return Ok(());
        };
        let directory = match open.take_if(|open| *open.path() == parent) {
            Some(directory) => Ok(directory),
            None => self.root.directory(&parent),
        };
        let directory = match directory {
            Ok(directory) => open.insert(directory),
            // A symlink on the way (LOOP) is a directory that was replaced.
            Err(error) if error.is_way_gone() => {
                outcome.look_at(parent);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        outcome.findings.work.entries_looked_at += 1;
        let id = self.index.lookup(path);
        let stat = directory.stat(path.file_name())?;
        match &stat {
            None => self.note_gone(path, id, outcome),
            Some(stat) if stat.is_mount_point || self.is_in_the_way(path, id) => return Ok(()),
            Some(stat) => {
                self.compare(directory, path.file_name(), id, stat, outcome)?;
                if stat.file_type == FileType::Directory && !self.is_the_known_directory(id, stat) {
                    outcome.next.push(Task::Below { path: path.clone(), id });
                }
            }
        }
        let is_touched = match (id, &stat) {
            (Some(id), Some(stat)) => !self.index.is_as_observed(id, &stat.observed),
            _ => true,
        };
        if is_touched {
            // It may have come, gone or been replaced, which moves the mtime of its directory without an event.
            outcome.look_at(parent);
        }
        Ok(())
    }

    /// What is overlooked can be a link to what is not.
    fn overlooked(&self, path: &ImagePath, outcome: &mut Outcome) -> Result<(), Error> {
        if !self.is_partial {
            return Ok(());
        }
        outcome.findings.work.entries_looked_at += 1;
        let known = self.index.lookup(path);
        let now = match self.root.stat(path) {
            Ok(stat) => stat.filter(|stat| stat.file_type != FileType::Directory),
            Err(error) if error.is_way_gone() => None,
            Err(error) => return Err(error.into()),
        };
        self.follow_links(known, now.map(|stat| stat.observed).as_ref(), outcome);
        Ok(())
    }

    /// Asks for the ctimes of what the index knows in a directory and is no directory.
    fn files(&self, id: NodeId, outcome: &mut Outcome) -> Result<(), Error> {
        let path = self.index.path(id);
        if self.ignored.is_overlooked(&path) {
            return Ok(());
        }
        let directory = match self.root.directory(&path) {
            Ok(directory) => directory,
            Err(error) if error.is_way_gone() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for child in self.index.children(id).filter(|&child| !self.index.is_directory(child)) {
            let name = self.index.name(child);
            outcome.findings.work.entries_swept += 1;
            let is_same = directory.stat(name)?.is_some_and(|stat| self.index.is_as_observed(child, &stat.observed));
            if !is_same {
                outcome.next.push(Task::Path(path.join(name)));
            }
        }
        Ok(())
    }

    /// Is what is on disk at `path` not the image's, but what leads to a mount in the place of the image's file?
    fn is_in_the_way(&self, path: &ImagePath, id: Option<NodeId>) -> bool {
        id.is_some_and(|id| self.index.standing(id) == Standing::Masked) && self.ignored.leads_to_untouchable(path)
    }

    /// Is the directory that `stat` describes the very one that the index holds as `id`?
    fn is_the_known_directory(&self, id: Option<NodeId>, stat: &Stat) -> bool {
        let known = id.filter(|&id| self.index.is_directory(id)).and_then(|id| self.index.observed(id));
        known.is_some_and(|known| (known.device, known.inode) == (stat.observed.device, stat.observed.inode))
    }

    /// Looks at all entries of a directory.
    fn below(&self, path: &ImagePath, id: Option<NodeId>) -> Result<Outcome, Error> {
        let directory = match self.root.directory(path) {
            Ok(directory) => directory,
            // A subtree that a tracker named and that is gone again: the path by itself tells.
            Err(error) if self.is_partial && error.is_way_gone() => return Ok(Outcome::default()),
            Err(error) => return Err(error.into()),
        };
        let entries = directory.entries()?;
        let may_be_ignored = self.ignored.names_entries_of(path);
        let turns = entries.par_chunks(ENTRIES_PER_TURN).map(|turn| {
            let mut outcome = Outcome::default();
            for (name, _) in turn {
                self.entry(&directory, name, id, may_be_ignored, &mut outcome)?;
            }
            Ok::<Outcome, Error>(outcome)
        });
        let mut outcome = turns.try_reduce(Outcome::default, |one, other| Ok(one.merge(other)))?;
        outcome.findings.work.directories_walked += 1;
        let mut present = std::mem::take(&mut outcome.present);
        present.sort_unstable();
        for child in id.into_iter().flat_map(|id| self.index.children(id)) {
            if present.binary_search(&child).is_err() {
                let path = path.join(self.index.name(child));
                if !(may_be_ignored && self.ignored.is_overlooked(&path)) {
                    self.note_gone(&path, Some(child), &mut outcome);
                }
            }
        }
        Ok(outcome)
    }

    /// Looks at one entry of a directory that is walked.
    fn entry(
        &self,
        directory: &Directory,
        name: &[u8],
        parent: Option<NodeId>,
        may_be_ignored: bool,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let id = parent.and_then(|parent| self.index.child(parent, name));
        outcome.present.extend(id);
        if may_be_ignored && self.ignored.is_overlooked(&directory.path().join(name)) {
            return Ok(());
        }
        let Some(stat) = directory.stat(name)?.filter(|stat| !stat.is_mount_point) else { return Ok(()) };
        let is_masked = id.is_some_and(|id| self.index.standing(id) == Standing::Masked);
        if is_masked && self.is_in_the_way(&directory.path().join(name), id) {
            return Ok(());
        }
        outcome.findings.work.entries_looked_at += 1;
        self.compare(directory, name, id, &stat, outcome)?;
        if stat.file_type == FileType::Directory {
            outcome.next.push(Task::Below { path: directory.path().join(name), id });
        }
        Ok(())
    }

    fn note_gone(&self, path: &ImagePath, id: Option<NodeId>, outcome: &mut Outcome) {
        let Some(id) = id.filter(|&id| self.index.standing(id) != Standing::Masked) else { return };
        if self.is_partial {
            // What was written through a name before that went shows under the names that are left.
            self.index.subtree(id).for_each(|id| self.follow_links(Some(id), None, outcome));
        }
        outcome.findings.gone.push(path.clone());
    }

    /// Other names of the inode that `id` was or `now` is may have changed with it, which no event says.
    pub(super) fn follow_links(&self, id: Option<NodeId>, now: Option<&Observed>, outcome: &mut Outcome) {
        if !self.is_partial {
            return;
        }
        for inode in id.and_then(|id| self.index.observed(id)).iter().chain(now) {
            let names = self.index.names_of_inode(inode.device, inode.inode);
            let others = names.into_iter().filter(|&other| Some(other) != id);
            outcome.next.extend(others.map(|other| Task::Path(self.index.path(other))));
        }
    }
}
