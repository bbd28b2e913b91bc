//! Members of a tar -> files of the root and nodes of its index.
//!
//! Where a name leads is decided by the index, which knows all symlinks of the image, also those that a mount hides; the
//! disk is then touched without following any.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::Read;

use super::Error;
use super::disk::{Content, Disk, implied_directory};
use super::header::WHITEOUT_PREFIX;
use super::members::{Broken, Member, Members};
use crate::rootfs::{Capacity, Ignored};
use crate::tree::{ImagePath, Kind, Node, NodeId, Observed, RootIndex, Standing, Timestamp};

/// Image spec: layer, opaque whiteout.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// aufs' own files (`.wh..wh.plnk` and its like) are not part of the image.
const AUFS: &[u8] = b".wh..wh.";
/// Symlinks followed while resolving one name, as in the kernel.
const MOST_SYMLINKS: usize = 40;
/// Bytes of a name that a message tells.
const MOST_SHOWN: usize = 200;
/// Longest component of a path, and longest path with its NUL (`NAME_MAX`, `PATH_MAX`).
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4096;

/// Where nodes go.
pub(super) enum Target<'a, 'd> {
    /// To disk and index.
    Disk(&'d mut Disk<'a>),
    /// To the index alone, to learn what the layers would make. What is "observed" there is [`origin`].
    Memory {
        /// Number of the layer.
        layer: u32,
        /// What the disk will not have.
        ignored: &'a Ignored,
    },
}

/// Stands for the device of files that are only in memory.
const NO_DEVICE: u64 = u64::MAX;

/// Tells, in an index that was filled in memory, from which member of which layer a file comes: names of one file
/// share it as they share an inode on disk.
pub(super) fn origin(observed: Observed) -> (u32, u32) {
    ((observed.inode >> 32) as u32, observed.inode as u32)
}

/// Puts the members of one tar into a root.
pub(super) struct Extractor<'a, 'd> {
    target: Target<'a, 'd>,
    index: &'d mut RootIndex,
    /// Of the layer, for messages.
    name: String,
    /// Members so far.
    count: u32,
    /// What files hold so far, holes included.
    bytes: u64,
    most: Capacity,
    /// What this layer made, which its own whiteouts do not remove.
    of_this_layer: HashSet<NodeId>,
}

impl<'a, 'd> Extractor<'a, 'd> {
    /// A layer that `most` cannot hold is an error: its names would fill the memory, its files the disk.
    pub(super) fn new(target: Target<'a, 'd>, index: &'d mut RootIndex, name: String, most: Capacity) -> Self {
        Extractor { target, index, name, count: 0, bytes: 0, most, of_this_layer: HashSet::new() }
    }

    /// Takes in all members of a tar.
    pub(super) fn extract(mut self, tar: &mut dyn Read) -> Result<(), Error> {
        let mut members = Members::new(tar);
        while let Some(member) = members.next().map_err(|broken| broken_layer(&self.name, broken))? {
            self.check_size(&member)?;
            self.member(member, &mut members)?;
            self.count = self.count.checked_add(1).ok_or_else(|| self.bad(b"", "is one of too many"))?;
        }
        Ok(())
    }

    fn check_size(&mut self, member: &Member) -> Result<(), Error> {
        let Capacity { bytes, files } = self.most;
        if u64::from(self.count) >= files {
            let reason = format!("is one too many: the disk has room for {files} files when it is empty");
            return Err(self.bad(&member.name, reason));
        }
        if let (Kind::File { size, .. }, None) = (&member.node.kind, &member.hard_link) {
            self.bytes = self.bytes.saturating_add(*size);
        }
        if self.bytes > bytes {
            let reason = format!("is too large: the disk has room for {bytes} bytes when it is empty");
            return Err(self.bad(&member.name, reason));
        }
        Ok(())
    }

    fn member(&mut self, member: Member, content: &mut dyn Read) -> Result<(), Error> {
        let Member { name: raw, node, hard_link } = member;
        let path = self.place(&raw)?;
        if path.file_name().starts_with(WHITEOUT_PREFIX) {
            return self.whiteout(&path, &raw);
        }
        if path.is_root() && !node.is_directory() {
            return Err(self.bad(&raw, "would replace the root directory"));
        }
        self.make_parents(&path)?;
        let id = match hard_link {
            Some(link) => self.hard_link(&path, &link, &raw)?,
            None => self.put(&path, node, content)?,
        };
        self.of_this_layer.insert(id);
        Ok(())
    }

    fn put(&mut self, path: &ImagePath, mut node: Node, bytes: &mut dyn Read) -> Result<NodeId, Error> {
        match &mut self.target {
            Target::Disk(disk) => disk.put(self.index, path, node, &mut Content { bytes, source: &self.name }),
            Target::Memory { layer, .. } => {
                if let Kind::File { size, content } = &mut node.kind {
                    *content = Some(super::disk::hash(&mut Content { bytes, source: &self.name }, path, *size)?);
                }
                let inode = u64::from(*layer) << 32 | u64::from(self.count);
                let observed = Observed { device: NO_DEVICE, inode, ctime: Timestamp::EPOCH, links: 1 };
                let observed = (!node.is_directory()).then_some(observed);
                Ok(self.index.insert(path, &node, observed, Standing::Image))
            }
        }
    }

    fn hard_link(&mut self, path: &ImagePath, link: &[u8], raw: &[u8]) -> Result<NodeId, Error> {
        let shown = String::from_utf8_lossy(link);
        let target = self.place(link).map_err(|error| match error {
            Error::Path { .. } => self.bad(raw, format!("is a hard link to {shown:?}, which is outside of the root")),
            other => other,
        })?;
        let known = self.index.lookup(&target);
        // what is foreign is not in the image, so a layer cannot link to it
        let known = known.filter(|&id| self.index.standing(id) != Standing::Foreign);
        let Some(id) = known else {
            return Err(self.bad(raw, format!("is a hard link to {shown:?}, which the image does not have")));
        };
        if self.index.is_directory(id) {
            return Err(self.bad(raw, format!("is a hard link to the directory {shown:?}")));
        }
        if target == *path {
            return Err(self.bad(raw, "is a hard link to itself"));
        }
        match &mut self.target {
            Target::Disk(disk) => disk.link(self.index, path, &target),
            Target::Memory { .. } => {
                Ok(self.index.insert(path, &self.index.node(id), self.index.observed(id), Standing::Image))
            }
        }
    }

    /// Makes the directories that lead to `path` and that the tar left out.
    fn make_parents(&mut self, path: &ImagePath) -> Result<(), Error> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if self.index.lookup(&parent).is_some_and(|id| self.index.is_directory(id)) {
            return Ok(());
        }
        for at in path.ancestors() {
            if self.index.lookup(&at).is_none_or(|id| !self.index.is_directory(id)) {
                let id = self.put(&at, implied_directory(), &mut std::io::empty())?;
                self.of_this_layer.insert(id);
            }
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &ImagePath, raw: &[u8]) -> Result<(), Error> {
        let parent = path.parent().unwrap_or_else(ImagePath::root);
        if path.file_name() == OPAQUE {
            return self.remove_older_below(&parent);
        }
        if path.file_name().starts_with(AUFS) {
            return Ok(());
        }
        match &path.file_name()[WHITEOUT_PREFIX.len()..] {
            b"" | b"." | b".." => Err(self.bad(raw, "is a whiteout of no file")),
            name => self.remove_older(&parent.join(name)),
        }
    }

    fn remove_older_below(&mut self, directory: &ImagePath) -> Result<(), Error> {
        let Some(id) = self.index.lookup(directory) else { return Ok(()) };
        let children: Vec<ImagePath> = self.index.children(id).map(|child| self.index.path(child)).collect();
        children.iter().try_for_each(|child| self.remove_older(child))
    }

    /// Removes `path` as lower layers left it. What this layer put there stays, and so does what is foreign.
    fn remove_older(&mut self, path: &ImagePath) -> Result<(), Error> {
        let Some(id) = self.index.lookup(path) else { return Ok(()) };
        let newer = self.index.subtree(id).any(|below| self.of_this_layer.contains(&below));
        let foreign = self.index.subtree(id).any(|below| self.index.standing(below) == Standing::Foreign);
        let reached = match &self.target {
            Target::Disk(disk) => disk.ignored().leads_to_untouchable(path),
            Target::Memory { .. } => false,
        };
        if newer || foreign || reached {
            self.remove_older_below(path)?;
            let own = self.of_this_layer.contains(&id) || self.index.standing(id) != Standing::Image;
            match own {
                true => {}
                // only what leads to this layer's own files is left of it, which the layer does not describe
                false if newer => drop(self.put(path, implied_directory(), &mut std::io::empty())?),
                false => self.index.set_standing(id, Standing::Foreign),
            }
            return Ok(());
        }
        match &mut self.target {
            Target::Disk(disk) => disk.remove(self.index, path).map(drop),
            Target::Memory { .. } => {
                self.index.remove(path);
                Ok(())
            }
        }
    }

    /// Where a member goes: its name below the root, with symlinks among its parents followed inside the root, as a process
    /// in the image would.
    fn place(&self, raw: &[u8]) -> Result<ImagePath, Error> {
        let path = ImagePath::parse_untrusted(raw).map_err(|source| Error::Path { name: self.name.clone(), source })?;
        let too_long = |path: &ImagePath| {
            path.as_bytes().len() >= PATH_MAX || path.components().any(|component| component.len() > NAME_MAX)
        };
        if too_long(&path) {
            return Err(self.bad(raw, "has a name that is longer than Linux allows"));
        }
        let Some(parent) = path.parent() else { return Ok(path) };
        let followed = follow(self.index, &parent).ok_or_else(|| self.bad(raw, "leads through too many symlinks"))?;
        if followed == parent {
            return Ok(path);
        }
        let place = followed.join(path.file_name());
        if too_long(&place) {
            return Err(self.bad(raw, "leads to a name that is longer than Linux allows"));
        }
        if self.ignored().is_untouchable(&place) && !self.ignored().is_untouchable(&path) {
            return Err(self.bad(raw, format!("leads through a symlink to {place}, which is not the image's")));
        }
        Ok(place)
    }

    fn ignored(&self) -> &'a Ignored {
        match &self.target {
            Target::Disk(disk) => disk.ignored(),
            Target::Memory { ignored, .. } => ignored,
        }
    }

    fn bad(&self, raw: &[u8], reason: impl Into<Cow<'static, str>>) -> Error {
        bad_entry(&self.name, raw, reason)
    }
}

pub(super) fn broken_layer(name: &str, broken: Broken) -> Error {
    let name = name.to_owned();
    match broken {
        Broken::Stream(source) => Error::Read { name, source },
        Broken::Member(entry, reason) => bad_entry(&name, &entry, reason),
    }
}

fn bad_entry(name: &str, raw: &[u8], reason: impl Into<Cow<'static, str>>) -> Error {
    let mut entry = String::from_utf8_lossy(&raw[..raw.len().min(MOST_SHOWN)]).into_owned();
    if raw.len() > MOST_SHOWN {
        entry.push('…');
    }
    Error::Entry { name: name.to_owned(), entry, reason: reason.into() }
}

/// Resolves all symlinks of `path` as the index knows them; `None` where they are too many. What does not exist is
/// kept as written.
fn follow(index: &RootIndex, path: &ImagePath) -> Option<ImagePath> {
    let is_plain = |id| index.is_directory(id) || !is_symlink(index, id);
    let plain =
        path.components().try_fold(index.root(), |id, name| index.child(id, name).filter(|&child| is_plain(child)));
    if plain.is_some() {
        return Some(path.clone());
    }
    let mut done = ImagePath::root();
    let mut rest: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
    let mut followed = 0;
    while let Some(name) = rest.pop() {
        if name == b".." {
            done = done.parent().unwrap_or_else(ImagePath::root);
            continue;
        }
        let next = done.join(&name);
        let link = index.lookup(&next).filter(|&id| is_symlink(index, id)).map(|id| index.node(id).kind);
        let Some(Kind::Symlink { target }) = link else {
            done = next;
            continue;
        };
        followed += 1;
        if followed > MOST_SYMLINKS {
            return None;
        }
        if target.starts_with(b"/") {
            done = ImagePath::root();
        }
        let parts = target.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
        rest.extend(parts.rev().map(<[u8]>::to_vec));
    }
    Some(done)
}

fn is_symlink(index: &RootIndex, id: NodeId) -> bool {
    !index.is_directory(id) && matches!(index.node(id).kind, Kind::Symlink { .. })
}
