//! [`Transfer`]: copies one source, file or directory, to one place of the root.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use rayon::prelude::*;

use super::CopyError;
use super::filter::{Fate, Filter, State};
use super::origin::{Files, Source};
use super::record::Recorder;
use super::settings::Settings;
use super::write::{Bytes, FileTask, write_file};
use crate::rootfs::{Directory, Root, Stat};
use crate::sys::fs::FileType;
use crate::tree::{ImagePath, Node};

/// Files that are copied at once. Each may keep two directories open.
const FILES_AT_ONCE: usize = 128;

/// A directory on the way through the source.
struct Level {
    source: ImagePath,
    target: ImagePath,
    /// Path from the source's top, for patterns.
    relative: Vec<u8>,
    state: State,
    made: Cell<Made>,
    parent: Option<Rc<Level>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    /// By this walk: nothing can be in it yet.
    Fresh,
    /// It was there.
    Merged,
    /// Not yet; something below must want it first.
    Waiting { as_parent: bool },
}

/// The copying of one source.
pub(super) struct Transfer<'r, 'a> {
    pub(super) recorder: &'r mut Recorder<'a>,
    pub(super) settings: &'r Settings<'r>,
    tasks: Vec<FileTask<'r>>,
    /// First name of each inode of the source that has several.
    seen: HashMap<(u64, u64), ImagePath>,
    /// Further names: path and first name.
    links: Vec<(ImagePath, ImagePath)>,
    /// Number of files and directories that passed the filter.
    pub(super) copied: usize,
}

impl<'r, 'a> Transfer<'r, 'a> {
    pub(super) fn new(recorder: &'r mut Recorder<'a>, settings: &'r Settings<'r>) -> Transfer<'r, 'a> {
        let (tasks, seen, links) = (Vec::with_capacity(FILES_AT_ONCE), HashMap::new(), Vec::new());
        Transfer { recorder, settings, tasks, seen, links, copied: 0 }
    }

    /// Copies what is in the directory `source` of `from` into the directory `target`, which exists.
    pub(super) fn copy_directory(
        mut self,
        from: Files<'_>,
        source: &ImagePath,
        target: &ImagePath,
        filter: &Filter<'_>,
    ) -> Result<usize, CopyError> {
        let top = Level {
            source: source.clone(),
            target: target.clone(),
            relative: Vec::new(),
            state: filter.at(source),
            made: Cell::new(Made::Merged),
            parent: None,
        };
        let mut waiting = vec![Rc::new(top)];
        while let Some(level) = waiting.pop() {
            let first_child = waiting.len();
            self.copy_level(from, &level, filter, &mut waiting)?;
            waiting[first_child..].reverse();
        }
        self.finish()
    }

    fn copy_level(
        &mut self,
        from: Files<'_>,
        level: &Rc<Level>,
        filter: &Filter<'_>,
        waiting: &mut Vec<Rc<Level>>,
    ) -> Result<(), CopyError> {
        let directory = Arc::new(from.root.directory(&level.source).map_err(CopyError::source)?);
        let index_directory = from.index.and_then(|index| index.lookup(&level.source).map(|id| (index, id)));
        let mut target = None;
        for (name, file_type) in from.entries(&directory)? {
            let source = level.source.join(&name);
            let relative =
                if level.relative.is_empty() { name.clone() } else { [&level.relative[..], b"/", &name[..]].concat() };
            let (fate, state) = filter.judge(&source, &relative, &level.state);
            if fate == Fate::Dropped || (file_type != FileType::Directory && fate != Fate::Copied) {
                continue;
            }
            if file_type == FileType::Directory {
                let made = Cell::new(Made::Waiting { as_parent: fate == (Fate::Entered { as_parent: true }) });
                let target = level.target.join(&name);
                let child = Rc::new(Level { source, target, relative, state, made, parent: Some(level.clone()) });
                if fate == Fate::Copied {
                    self.copied += 1;
                    self.make(from.root, &child)?;
                }
                waiting.push(child);
                continue;
            }
            self.copied += 1;
            self.make(from.root, level)?;
            let path = level.target.join(&name);
            let target = match &target {
                _ if self.recorder.ignored.is_untouchable(&path) => self.recorder.open_for(&path)?,
                Some(target) => Arc::clone(target),
                None => Arc::clone(target.insert(self.recorder.open(&level.target)?)),
            };
            let Some(found) = from.look_in(&directory, &name)? else { continue };
            let replaces = level.made.get() != Made::Fresh && self.must_replace(&target, &path)?;
            let stat = match found {
                Source::OnDisk(stat) => stat,
                Source::Device(node) => {
                    self.queue(FileTask::made(Bytes::Inline(b""), self.settings.device(node), target, path, replaces))?;
                    continue;
                }
            };
            let known = index_directory
                .and_then(|(index, id)| index.child(id, &name).and_then(|child| index.content(child)))
                .filter(|_| stat.file_type == FileType::RegularFile);
            let bytes = Bytes::File { directory: Arc::clone(&directory), name, known };
            self.queue_file(bytes, &stat, target, path, replaces)?;
        }
        Ok(())
    }

    /// Is something at `path` that a file can take the place of? A directory is not, unless `--link` says so.
    pub(super) fn must_replace(&mut self, parent: &Directory, path: &ImagePath) -> Result<bool, CopyError> {
        match parent.stat(path.file_name())? {
            None => Ok(false),
            Some(stat) if stat.file_type != FileType::Directory => Ok(true),
            Some(_) if self.settings.link => self.recorder.clear(parent, path).map(|()| false),
            Some(_) => Err(CopyError::IsADirectory { path: path.clone() }),
        }
    }

    /// Queues a file of the origin, or notes it as another name of one that came before.
    pub(super) fn queue_file(
        &mut self,
        bytes: Bytes<'r>,
        stat: &Stat,
        directory: Arc<Directory>,
        path: ImagePath,
        replaces: bool,
    ) -> Result<(), CopyError> {
        if stat.file_type == FileType::Socket {
            return Ok(());
        }
        if stat.file_type == FileType::RegularFile && stat.observed.links > 1 {
            let inode = (stat.observed.device, stat.observed.inode);
            if let Some(first) = self.seen.get(&inode) {
                self.links.push((path, first.clone()));
                return Ok(());
            }
            self.seen.insert(inode, path.clone());
        }
        let node = self.settings.node(stat);
        let task = FileTask {
            bytes,
            node,
            complete_from: Some(*stat),
            keep_xattrs: self.settings.keep_attributes,
            directory,
            path,
            replaces,
        };
        self.queue(task)
    }

    pub(super) fn queue(&mut self, task: FileTask<'r>) -> Result<(), CopyError> {
        self.tasks.push(task);
        if self.tasks.len() < FILES_AT_ONCE { Ok(()) } else { self.flush() }
    }

    /// Writes what is queued, in parallel, and records it in order.
    fn flush(&mut self) -> Result<(), CopyError> {
        let tasks = std::mem::take(&mut self.tasks);
        let written: Vec<_> = match tasks.len() {
            0 => return Ok(()),
            1 => tasks.into_iter().map(write_file).collect(),
            _ => tasks.into_par_iter().with_min_len(8).map(write_file).collect(),
        };
        for result in written {
            let (path, node, (observed, standing)) = result?;
            self.recorder.record(&path, &node, observed, standing);
        }
        Ok(())
    }

    /// Writes the rest and makes the hard links. Tells how much passed the filter.
    pub(super) fn finish(mut self) -> Result<usize, CopyError> {
        self.flush()?;
        for (path, first) in std::mem::take(&mut self.links) {
            let target = self.recorder.open_for(&path)?;
            let from = self.recorder.root.parent_directory(&first)?;
            if self.must_replace(&target, &path)? {
                target.remove(path.file_name())?;
            }
            target.create_hard_link(path.file_name(), &from, first.file_name())?;
            self.recorder.record_link(&first, &path)?;
        }
        Ok(self.copied)
    }

    /// Makes the directory of `level`, after those above it.
    fn make(&mut self, from: &Root, level: &Level) -> Result<(), CopyError> {
        let Made::Waiting { as_parent } = level.made.get() else { return Ok(()) };
        let Some(above) = &level.parent else { return Ok(()) };
        self.make(from, above)?;
        let source = from.directory(&level.source).map_err(CopyError::source)?;
        let Some(stat) = source.stat(b".").map_err(CopyError::source)? else { return Ok(()) };
        let mut node = self.settings.node(&stat);
        if self.settings.keep_attributes {
            node.xattrs = source.xattrs(b".").map_err(CopyError::source)?;
            self.settings.drop_overridden(&mut node);
        }
        let parent = self.recorder.open_for(&level.target)?;
        let there = match above.made.get() {
            Made::Fresh => None,
            _ => parent.stat(level.target.file_name())?,
        };
        match there {
            Some(stat) if stat.file_type == FileType::Directory => {
                self.recorder.open(&level.target)?;
                self.recorder.amend(&level.target, |there| {
                    if as_parent {
                        there.mode = node.mode;
                    } else {
                        merge(there, node);
                    }
                });
                level.made.set(Made::Merged);
                return Ok(());
            }
            Some(_) if self.settings.link => self.recorder.clear(&parent, &level.target)?,
            Some(_) => return Err(CopyError::NotADirectory { path: level.target.clone() }),
            None => {}
        }
        self.recorder.create(&parent, &level.target, node)?;
        level.made.set(Made::Fresh);
        Ok(())
    }
}

/// An existing directory takes all that the copied one has; xattrs that only it has stay.
fn merge(there: &mut Node, copied: Node) {
    let kept: Vec<_> = there.xattrs.drain(..).filter(|old| !copied.xattrs.iter().any(|new| new.0 == old.0)).collect();
    *there = copied;
    there.xattrs.extend(kept);
    there.xattrs.sort();
}
