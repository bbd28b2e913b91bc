//! Puts nodes into a root and into its index in one go, so that both say the same.
//!
//! Paths come here resolved: none of their parents is a symlink. What is untouchable, or cannot be on disk (a file
//! where a mount is in the way, a device where `mknod` is refused), is known to the index alone, as masked.

mod masked;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};

use xxhash_rust::xxh3::Xxh3;

use super::Error;
use crate::rootfs::sparse::{self, HOLE_BYTES, SparseWriter};
use crate::rootfs::{self, Directory, Ignored, NewFile, Removal, Root};
use crate::sys::Errno;
use crate::sys::fs::FileType;
use crate::sys::nix::unistd::{getegid, geteuid};
use crate::tree::{ContentHash, ImagePath, Kind, Node, NodeId, Observed, RootIndex, Standing, Timestamp};

/// Bytes per write of file contents.
const COPY_BYTES: usize = 2 * HOLE_BYTES;
const SETGID: u32 = 0o2000;

/// A directory that a tar leaves out.
pub(super) fn implied_directory() -> Node {
    Node { kind: Kind::Directory, mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::EPOCH, xattrs: Vec::new() }
}

/// The bytes of a file that is put somewhere, and what to call their source in errors.
pub(super) struct Content<'a> {
    pub(super) bytes: &'a mut dyn Read,
    pub(super) source: &'a str,
}

impl Content<'_> {
    /// Fills `buffer`; `left` bytes must still come.
    fn fill(&mut self, buffer: &mut [u8], left: u64) -> io::Result<()> {
        let filled = sparse::fill(self.bytes, buffer)?;
        if filled < buffer.len() {
            let reason = format!("it ends {} bytes early", left - filled as u64);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
        }
        Ok(())
    }
}

/// The root on disk.
pub(super) struct Disk<'a> {
    root: &'a Root,
    ignored: &'a Ignored,
    /// The directory of the last path: the next is most often beside it.
    open: Option<Directory>,
    /// Inodes that won or lost a name, so that what is observed of the others is old.
    loose: BTreeSet<(u64, u64)>,
    /// Who owns what this process makes.
    owner: (u32, u32),
    buffer: Vec<u8>,
}

impl<'a> Disk<'a> {
    pub(super) fn new(root: &'a Root, ignored: &'a Ignored) -> Disk<'a> {
        let owner = (geteuid().as_raw(), getegid().as_raw());
        Disk { root, ignored, open: None, loose: BTreeSet::new(), owner, buffer: vec![0; COPY_BYTES] }
    }

    pub(super) fn ignored(&self) -> &'a Ignored {
        self.ignored
    }

    /// Makes `path` what `node` says. A directory stays what it holds; anything else is replaced.
    pub(super) fn put(
        &mut self,
        index: &mut RootIndex,
        path: &ImagePath,
        mut node: Node,
        content: &mut Content<'_>,
    ) -> Result<NodeId, Error> {
        if self.is_out_of_reach(index, path) {
            return self.mask(index, path, node, content);
        }
        self.unmask(index, path)?;
        if path.is_root() {
            self.set_attributes(index, self.root.top(), b".", path, &node)?;
            return Ok(index.insert(path, &node, None, Standing::Image));
        }
        let directory = self.parent(index, path)?;
        let made = if node.is_directory() {
            // what is observed of a directory moves while it is filled: `settle` looks at it
            self.make_directory(index, &directory, path, &node)?.then_some(None)
        } else {
            self.make_other(index, &directory, path, &mut node, content)?.map(Some)
        };
        let id = match made {
            Some(observed) => index.insert(path, &node, observed, Standing::Image),
            None => self.mask(index, path, node, content)?,
        };
        self.open = Some(directory);
        Ok(id)
    }

    /// Gives the file at `target` the name `path` too.
    pub(super) fn link(
        &mut self,
        index: &mut RootIndex,
        path: &ImagePath,
        target: &ImagePath,
    ) -> Result<NodeId, Error> {
        let id = index.lookup(target).ok_or_else(|| missing(target))?;
        let node = index.node(id);
        if index.standing(id) == Standing::Masked || self.is_out_of_reach(index, path) {
            return self.link_masked(index, path, target, node);
        }
        self.unmask(index, path)?;
        let from = self.root.parent_directory(target)?;
        let directory = self.parent(index, path)?;
        let id = if self.clear(index, &directory, path)? {
            directory.create_hard_link(path.file_name(), &from, target.file_name())?;
            let observed = self.observe_loose(&directory, path)?;
            index.insert(path, &node, observed, Standing::Image)
        } else {
            index.insert(path, &node, None, Standing::Masked)
        };
        self.open = Some(directory);
        Ok(id)
    }

    /// Takes `path` away with all below it. Says whether the place is free: a mount or an untouchable path is not removed.
    pub(super) fn remove(&mut self, index: &mut RootIndex, path: &ImagePath) -> Result<bool, Error> {
        if self.ignored.is_untouchable(path)
            || index.lookup(path).is_some_and(|id| index.standing(id) == Standing::Masked)
        {
            self.remove_masked(path)?;
            return Ok(index.remove(path));
        }
        let directory = self.parent(index, path)?;
        let free = self.clear(index, &directory, path)?;
        self.open = Some(directory);
        Ok(free)
    }

    /// Gives what is at `path`, and stays, the attributes of `node`, which has the same kind and content.
    pub(super) fn dress(&mut self, index: &mut RootIndex, path: &ImagePath, node: &Node) -> Result<(), Error> {
        let directory = self.parent(index, path)?;
        self.set_attributes(index, &directory, path.file_name(), path, node)?;
        let observed = self.observe_loose(&directory, path)?;
        self.open = Some(directory);
        index.insert(path, node, observed.filter(|_| !node.is_directory()), Standing::Image);
        Ok(())
    }

    /// What is observed at `path`, whose inode's other names are to be looked at again.
    fn observe_loose(&mut self, directory: &Directory, path: &ImagePath) -> Result<Option<Observed>, Error> {
        let observed = observe(directory, path)?;
        self.loose.extend(observed.map(|seen| (seen.device, seen.inode)));
        Ok(observed)
    }

    /// Sets the mtimes of directories, which moved while they were filled, and looks again at all whose observation is old.
    pub(super) fn settle(self, index: &mut RootIndex) -> Result<(), Error> {
        let unseen: Vec<NodeId> =
            index.subtree(index.root()).filter(|&id| index.is_directory(id) && index.observed(id).is_none()).collect();
        for id in unseen {
            let path = index.path(id);
            if (self.ignored.is_untouchable(&path) || index.standing(id) == Standing::Masked)
                && !self.root.masks(&path)?
            {
                continue;
            }
            let directory = self.root.directory(&path)?;
            match index.standing(id) {
                Standing::Image | Standing::Masked => directory.set_mtime(b".", index.node(id).mtime)?,
                // nobody's to set: the index takes what is there
                Standing::Foreign => {
                    if let Some((node, _)) = directory.node(b".")? {
                        index.insert(&path, &node, None, Standing::Foreign);
                    }
                }
            }
            index.observe(id, directory.stat(b".")?.map(|stat| stat.observed));
        }
        for (device, inode) in self.loose {
            let names = index.names_of_inode(device, inode);
            let Some(&first) = names.first() else { continue };
            let observed = self.root.stat(&index.path(first))?.map(|stat| stat.observed);
            for name in names {
                if !index.is_directory(name) {
                    index.observe(name, observed);
                }
            }
        }
        Ok(())
    }

    /// Opens the directory that holds `path` and makes a note that it changes.
    pub(super) fn parent(&mut self, index: &mut RootIndex, path: &ImagePath) -> Result<Directory, Error> {
        let parent = path.parent().unwrap_or_else(ImagePath::root);
        if let Some(open) = self.open.take_if(|open| *open.path() == parent) {
            return Ok(open);
        }
        if let Some(id) = index.lookup(&parent) {
            index.observe(id, None);
        }
        Ok(self.root.directory(&parent)?)
    }

    fn make_directory(
        &mut self,
        index: &mut RootIndex,
        directory: &Directory,
        path: &ImagePath,
        node: &Node,
    ) -> Result<bool, Error> {
        let name = path.file_name();
        if let Err(error) = directory.create_directory(name) {
            if error.errno() != Some(Errno::EXIST) {
                return Err(error.into());
            }
            if directory.stat(name)?.is_none_or(|stat| stat.file_type != FileType::Directory) {
                if !self.clear(index, directory, path)? {
                    return Ok(false);
                }
                directory.create_directory(name)?;
            }
        }
        self.set_attributes(index, directory, name, path, node)?;
        Ok(true)
    }

    /// Makes what is not a directory, and looks at it; `None` if it cannot be on disk.
    fn make_other(
        &mut self,
        index: &mut RootIndex,
        directory: &Directory,
        path: &ImagePath,
        node: &mut Node,
        content: &mut Content<'_>,
    ) -> Result<Option<Observed>, Error> {
        if index.lookup(path).is_some() && !self.clear(index, directory, path)? {
            return Ok(None);
        }
        let name = path.file_name();
        let mut created = create(directory, name, node);
        if created.as_ref().is_err_and(|error| error.errno() == Some(Errno::EXIST)) {
            if !self.clear(index, directory, path)? {
                return Ok(None);
            }
            created = create(directory, name, node);
        }
        match created {
            Err(error) if error.errno() == Some(Errno::PERM) && is_device(node) => {
                tracing::info!("{path} stays out of the build's file system: making device nodes is not allowed here");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
            Ok(Some(file)) => return self.fill(file, path, node, content).map(Some),
            Ok(None) => {}
        }
        let parent_mode = index.lookup(directory.path()).map_or(SETGID, |id| index.node(id).mode);
        if (node.uid, node.gid) != self.owner || parent_mode & SETGID != 0 {
            directory.set_owner(name, node.uid, node.gid)?;
        }
        directory.set_rest(name, node)?;
        observe(directory, path)?.map(Some).ok_or_else(|| Error::File {
            action: "look at",
            path: path.clone(),
            source: Errno::NOENT.into(),
        })
    }

    /// Writes the content of a file that was just made, and makes it what `node` says; notes the hash there.
    fn fill(
        &mut self,
        file: NewFile<'_>,
        path: &ImagePath,
        node: &mut Node,
        content: &mut Content<'_>,
    ) -> Result<Observed, Error> {
        if let Kind::File { size, content: hash } = &mut node.kind {
            *hash = Some(copy(&mut self.buffer, content, Some(file.file()), path, *size)?);
        }
        Ok(file.finish(node)?)
    }

    /// Sets all attributes, and takes away the xattrs that the node before had and `node` has not.
    fn set_attributes(
        &self,
        index: &RootIndex,
        directory: &Directory,
        name: &[u8],
        path: &ImagePath,
        node: &Node,
    ) -> Result<(), Error> {
        if let Some(id) = index.lookup(path) {
            for (key, _) in index.node(id).xattrs {
                if node.xattrs.iter().any(|(wanted, _)| *wanted == key) {
                    continue;
                }
                match directory.remove_xattr(name, &key) {
                    // taken away through another name of the file
                    Err(error) if error.errno() == Some(Errno::NODATA) => {}
                    other => other?,
                }
            }
        }
        Ok(directory.set_attributes(name, node)?)
    }

    /// As [`Disk::remove`], with the parent at hand.
    fn clear(&mut self, index: &mut RootIndex, directory: &Directory, path: &ImagePath) -> Result<bool, Error> {
        if self.ignored.leads_to_untouchable(path) {
            return Ok(false);
        }
        if let Some(id) = index.lookup(path) {
            let observed = index.subtree(id).filter(|&id| !index.is_directory(id)).filter_map(|id| index.observed(id));
            self.loose.extend(observed.filter(|seen| seen.links > 1).map(|seen| (seen.device, seen.inode)));
        }
        if self.open.as_ref().is_some_and(|open| open.path().is_within(path)) {
            self.open = None;
        }
        if directory.remove_tree(path.file_name())? == Removal::MountKept {
            return Ok(false);
        }
        index.remove(path);
        Ok(true)
    }
}

/// Makes what is no directory; gives a regular file, still empty.
fn create<'d>(directory: &'d Directory, name: &'d [u8], node: &Node) -> Result<Option<NewFile<'d>>, rootfs::Error> {
    match &node.kind {
        Kind::File { .. } => directory.create_file_as(name, node).map(Some),
        Kind::Symlink { target } => directory.create_symlink(name, target).map(|()| None),
        special => directory.create_special(name, special).map(|()| None),
    }
}

/// Hashes the bytes of a file that is put nowhere.
pub(super) fn hash(content: &mut Content<'_>, path: &ImagePath, size: u64) -> Result<ContentHash, Error> {
    let most = usize::try_from(size).unwrap_or(usize::MAX).min(COPY_BYTES);
    copy(&mut vec![0; most], content, None, path, size)
}

/// Copies a file's bytes and hashes them; long runs of zeros become holes.
fn copy(
    buffer: &mut [u8],
    content: &mut Content<'_>,
    file: Option<&File>,
    path: &ImagePath,
    size: u64,
) -> Result<ContentHash, Error> {
    let mut hasher = Xxh3::new();
    let mut to = file.map(SparseWriter::new);
    let write = |source| Error::File { action: "write", path: path.clone(), source };
    let mut left = size;
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let part = &mut buffer[..wanted];
        content.fill(part, left).map_err(|source| {
            let (path, name) = (path.clone(), content.source.to_owned());
            Error::Content { path, name, source }
        })?;
        hasher.update(part);
        if let Some(to) = &mut to {
            to.write(part).map_err(write)?;
        }
        left -= wanted as u64;
    }
    to.map_or(Ok(()), SparseWriter::finish).map_err(write)?;
    Ok(ContentHash(hasher.digest128()))
}

fn is_device(node: &Node) -> bool {
    matches!(node.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. })
}

fn observe(directory: &Directory, path: &ImagePath) -> Result<Option<Observed>, Error> {
    Ok(directory.stat(path.file_name())?.map(|stat| stat.observed))
}

fn missing(path: &ImagePath) -> Error {
    Error::File { action: "link to", path: path.clone(), source: Errno::NOENT.into() }
}
