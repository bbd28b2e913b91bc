//! Compares one path on disk with what the index holds of it; reads a file only where metadata cannot tell.

use super::look::{Evidence, Look, Outcome, Unchanged};
use super::sightings::Sighting;
use super::{Error, SnapshotMode, Verdict, Work, hash_file};
use crate::rootfs::{Directory, Stat};
use crate::sys::fs::FileType;
use crate::tree::{ContentHash, Kind, Node, NodeId, Observed};

impl Look<'_> {
    /// Compares what is on disk with what the index holds as `id`.
    pub(super) fn compare(
        &self,
        directory: &Directory,
        name: &[u8],
        id: Option<NodeId>,
        stat: &Stat,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        if let Some(id) = id
            && self.evidence == Evidence::Ctime
            && self.index.is_as_observed(id, &stat.observed)
            && !(self.mode == SnapshotMode::Full && self.index.is_drifted(id))
        {
            return Ok(());
        }
        let path = if name == b"." { directory.path().clone() } else { directory.path().join(name) };
        let observed = stat.observed;
        self.follow_links(id, Some(&observed), outcome);
        if stat.file_type == FileType::Socket {
            match id {
                Some(id) if self.index.node(id).kind == Kind::Socket => {}
                Some(_) => {
                    outcome.findings.sockets.push(path.clone());
                    outcome.findings.gone.push(path);
                }
                None => outcome.findings.sockets.push(path),
            }
            return Ok(());
        }
        outcome.findings.work.metadata_read += 1;
        let mut node = directory.complete(name, stat)?;
        let verdict = match id {
            None => Verdict::Changed,
            Some(id) => self.verdict(directory, name, id, &mut node, &observed, &mut outcome.findings.work)?,
        };
        if verdict != Verdict::Changed {
            let Some(id) = id else { return Ok(()) };
            let old = self.index.node(id);
            let is_drifted =
                self.mode != SnapshotMode::Full && SnapshotMode::Full.verdict(&old, &node) != Verdict::Same;
            if self.index.observed(id) == Some(observed) && self.index.is_drifted(id) == is_drifted {
                return Ok(());
            }
            let has_others = || observed.links > 1 || self.had_others(id);
            let node = (is_drifted && has_others()).then(|| Box::new(node));
            outcome.findings.unchanged.push(Unchanged { id, observed, is_drifted, node });
            return Ok(());
        }
        if self.mode == SnapshotMode::Full && matches!(node.kind, Kind::File { content: None, .. }) {
            read_content(directory, name, &mut node, &mut outcome.findings.work)?;
        }
        outcome.findings.changed.push(&path, &Sighting { node, observed });
        Ok(())
    }

    /// Did the inode of `id` have other names when it was looked at last?
    fn had_others(&self, id: NodeId) -> bool {
        let known = self.index.observed(id);
        known.is_some_and(|known| self.index.names_of_inode(known.device, known.inode).len() > 1)
    }

    /// Same or changed; asks the content where metadata cannot tell.
    fn verdict(
        &self,
        directory: &Directory,
        name: &[u8],
        id: NodeId,
        node: &mut Node,
        observed: &Observed,
        work: &mut Work,
    ) -> Result<Verdict, Error> {
        let old = self.index.node(id);
        if id == self.index.root() {
            // The mtime of `/` tells of mount points and of our own directory, and no tool records it.
            node.mtime = old.mtime;
        }
        let verdict = self.mode.verdict(&old, node);
        if verdict != Verdict::AskContent {
            return Ok(verdict);
        }
        let known = self.index.content(id);
        if known.is_none() && self.index.is_as_observed(id, observed) && !self.index.is_drifted(id) {
            // Nobody ever read it, so reading it now would tell nothing.
            return Ok(Verdict::Same);
        }
        let content = read_content(directory, name, node, work)?;
        Ok(if known == Some(content) { Verdict::Same } else { Verdict::Changed })
    }
}

/// Hashes the file `name` and notes that in its node.
fn read_content(directory: &Directory, name: &[u8], node: &mut Node, work: &mut Work) -> Result<ContentHash, Error> {
    let size = match node.kind {
        Kind::File { size, .. } => size,
        _ => 0,
    };
    let file = directory.open_file(name)?;
    let read = |source| Error::Read { path: directory.path().join(name), source };
    let (content, bytes) = hash_file(&file, size).map_err(read)?;
    work.files_hashed += 1;
    work.bytes_hashed += bytes;
    node.kind = Kind::File { size, content: Some(content) };
    Ok(content)
}
