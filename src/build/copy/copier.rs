//! [`Copier`]: where does each source go? BuildKit's rules for destinations.

use std::path::Path;

use super::filter::Filter;
use super::origin::Source;
use super::record::Recorder;
use super::settings::Settings;
use super::sources::{find_sources, not_found, split_pivot};
use super::transfer::Transfer;
use super::write::{Bytes, FileTask};
use super::{CopyError, CopyRequest, Found, Origin, Unpack};
use crate::context::pattern::has_wildcard;
use crate::rootfs::Root;
use crate::sys::Errno;
use crate::sys::fs::FileType;
use crate::tree::{ImagePath, Node, Timestamp};

/// Mode of a download.
const DOWNLOAD_MODE: u32 = 0o600;

/// The destination as written.
pub(super) struct Destination {
    pub(super) path: ImagePath,
    /// Does the text say that it is a directory?
    is_directory: bool,
}

impl Destination {
    pub(super) fn new(request: &CopyRequest<'_>) -> Destination {
        let text = &request.destination[..];
        let is_directory = text == b"." || text.ends_with(b"/") || text.ends_with(b"/.");
        Destination { path: request.workdir.resolve(text), is_directory }
    }

    /// The directory that has to be there before anything is copied.
    fn directory(&self) -> ImagePath {
        if self.is_directory { self.path.clone() } else { self.path.parent().unwrap_or_else(ImagePath::root) }
    }
}

/// A request at work.
pub(super) struct Copier<'a, 's> {
    pub(super) recorder: Recorder<'a>,
    pub(super) settings: Settings<'s>,
    pub(super) destination: Destination,
}

impl Copier<'_, '_> {
    /// Where `path` of the root is meant to be: with `--link`, the root's symlinks do not count.
    pub(super) fn resolve(&self, path: &ImagePath) -> Result<ImagePath, CopyError> {
        if self.settings.link { Ok(path.clone()) } else { resolve(self.recorder.root, path) }
    }

    /// Makes the directory that the destination's text asks for; gives the destination, symlinks followed.
    fn prepare(&mut self) -> Result<ImagePath, CopyError> {
        let directory = self.resolve(&self.destination.directory())?;
        make_directories(&mut self.recorder, &self.settings, &directory)?;
        self.resolve(&self.destination.path)
    }

    /// Copies one file or directory that a source names.
    pub(super) fn copy_found(
        &mut self,
        request: &CopyRequest<'_>,
        found: &Found,
        filter: &Filter<'_>,
    ) -> Result<(), CopyError> {
        let Some(from) = request.origin.files() else { return Ok(()) };
        let stat = match from.look(&found.at)? {
            None => return Err(not_found(found.named.as_bytes())),
            Some(source) if source.is_directory() => {
                return self.copy_directory(&request.origin, &found.at, filter).map(drop);
            }
            Some(Source::OnDisk(stat)) => stat,
            Some(Source::Device(node)) => {
                let node = self.settings.device(node);
                return self.copy_made_file(found.named.file_name(), Bytes::Inline(b""), node);
            }
        };
        if request.unpack != Unpack::Never && stat.file_type == FileType::RegularFile {
            let file = from.root.open_file(&found.at).map_err(CopyError::source)?;
            if self.unpack(file, &found.named)? {
                return Ok(());
            }
        }
        let path = self.file_path(found.named.file_name())?;
        let directory = from.root.parent_directory(&found.at).map_err(CopyError::source)?;
        let known = from.index.and_then(|index| index.content(index.lookup(&found.at)?));
        let bytes = Bytes::File { directory: directory.into(), name: found.at.file_name().to_vec(), known };
        let target = self.recorder.open_for(&path)?;
        let mut transfer = Transfer::new(&mut self.recorder, &self.settings);
        let replaces = transfer.must_replace(&target, &path)?;
        transfer.queue_file(bytes, &stat, target, path, replaces)?;
        transfer.finish().map(drop)
    }

    /// Copies what is in a directory into the destination. Tells how much there was.
    pub(super) fn copy_directory(
        &mut self,
        origin: &Origin<'_>,
        source: &ImagePath,
        filter: &Filter<'_>,
    ) -> Result<usize, CopyError> {
        let Some(from) = origin.files() else { return Ok(0) };
        let target = self.prepare()?;
        make_directories(&mut self.recorder, &self.settings, &target)?;
        self.recorder.open(&target)?;
        let top = from.root.stat(source).map_err(CopyError::source)?;
        if let Some(top) = top {
            self.recorder.amend(&target, |node| node.mtime = top.mtime);
        }
        let transfer = Transfer::new(&mut self.recorder, &self.settings);
        transfer.copy_directory(from, source, &target, filter)
    }

    /// Copies a source of `--parents`: what matches the pattern below the pivot, under the path it has there.
    pub(super) fn copy_with_parents(
        &mut self,
        request: &CopyRequest<'_>,
        text: &[u8],
        filter: &Filter<'_>,
    ) -> Result<(), CopyError> {
        let (pivot, pattern) = split_pivot(text);
        for found in find_sources(&request.origin, pivot.as_bytes())? {
            let copied = self.copy_directory(&request.origin, &found.at, &filter.including(&pattern)?)?;
            if copied == 0 && !pattern.is_empty() && !has_wildcard(&pattern) {
                return Err(not_found(text));
            }
        }
        Ok(())
    }

    pub(super) fn copy_download(
        &mut self,
        request: &CopyRequest<'_>,
        name: &[u8],
        place: &Path,
        mtime: Timestamp,
    ) -> Result<(), CopyError> {
        if request.unpack == Unpack::Always {
            let named = ImagePath::root().join(name);
            let failed = |source| CopyError::Write { path: named.clone(), source };
            let file = std::fs::File::open(place).map_err(failed)?;
            if self.unpack(file, &named)? {
                return Ok(());
            }
        }
        let node = self.settings.made_file(DOWNLOAD_MODE, mtime);
        self.copy_made_file(name, Bytes::Downloaded(place), node)
    }

    /// Writes a file that is not from the origin.
    pub(super) fn copy_made_file(&mut self, name: &[u8], bytes: Bytes<'_>, node: Node) -> Result<(), CopyError> {
        let path = self.file_path(name)?;
        let directory = self.recorder.open_for(&path)?;
        let mut transfer = Transfer::new(&mut self.recorder, &self.settings);
        let replaces = transfer.must_replace(&directory, &path)?;
        transfer.queue(FileTask::made(bytes, node, directory, path, replaces))?;
        transfer.finish().map(drop)
    }

    /// Where a file called `name` goes: into the destination if that is a directory, else there. Its directory is made.
    fn file_path(&mut self, name: &[u8]) -> Result<ImagePath, CopyError> {
        let target = self.prepare()?;
        // with `--link` a directory of the root does not count, only one that this copy needed
        let is_directory = match self.settings.link {
            true => target.is_root() || self.recorder.directory_node(&target).is_some(),
            false => {
                let there = self.recorder.root.stat(&target)?;
                there.is_some_and(|stat| stat.file_type == FileType::Directory)
            }
        };
        let path = if is_directory { target.join(name) } else { target };
        let directory = path.parent().unwrap_or_else(ImagePath::root);
        make_directories(&mut self.recorder, &self.settings, &directory)?;
        Ok(path)
    }
}

/// Follows the symlinks of `path` in the root.
pub(super) fn resolve(root: &Root, path: &ImagePath) -> Result<ImagePath, CopyError> {
    match root.resolve(path, true) {
        Err(error) if error.errno() == Some(Errno::NOTDIR) => Err(CopyError::NotADirectory { path: path.clone() }),
        other => Ok(other?),
    }
}

/// Makes `path` with the parents that are missing. `path` is resolved, or nothing of it may be a symlink (`--link`).
pub(super) fn make_directories(
    recorder: &mut Recorder<'_>,
    settings: &Settings<'_>,
    path: &ImagePath,
) -> Result<(), CopyError> {
    let all = path.ancestors().into_iter().skip(1).chain((!path.is_root()).then(|| path.clone()));
    for directory in all {
        let there = recorder.root.stat(&directory)?;
        match there {
            Some(stat) if stat.file_type == FileType::Directory => {
                if settings.link {
                    let default = settings.implicit_directory(None);
                    recorder.open(&directory)?;
                    recorder.amend(&directory, |node| {
                        (node.mode, node.uid, node.gid) = (default.mode, default.uid, default.gid);
                    });
                }
                continue;
            }
            Some(_) if !settings.link => return Err(CopyError::NotADirectory { path: directory }),
            _ => {}
        }
        let parent_path = directory.parent().unwrap_or_else(ImagePath::root);
        let parent = recorder.open_for(&directory)?;
        if there.is_some() {
            recorder.clear(&parent, &directory)?;
        }
        let inherits = recorder.directory_node(&parent_path).filter(|_| !settings.link).cloned();
        recorder.create(&parent, &directory, settings.implicit_directory(inherits.as_ref()))?;
    }
    Ok(())
}
