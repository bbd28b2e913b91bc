//! [`SnapshotMode`]: what counts as a change of a path that exists on both sides.

use std::str::FromStr;

use crate::tree::{Kind, Node};

/// How files are compared, `--snapshot-mode`. Whatever the mode, what was added, removed, changed its kind or its hard
/// link group counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SnapshotMode {
    /// Every image field, and the content.
    #[default]
    Full,
    /// Size, mtime, mode, owner and group.
    Redo,
    /// The mtime alone.
    Time,
}

/// What metadata alone can tell about a path that exists on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing that the mode compares differs.
    Same,
    /// Something differs.
    Changed,
    /// All metadata agree; only the bytes of the file can tell.
    AskContent,
}

/// A text that names no snapshot mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown snapshot mode {0:?} (full, redo and time are known)")]
pub struct UnknownMode(pub String);

impl FromStr for SnapshotMode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<SnapshotMode, UnknownMode> {
        match text {
            "full" => Ok(SnapshotMode::Full),
            "redo" => Ok(SnapshotMode::Redo),
            "time" => Ok(SnapshotMode::Time),
            other => Err(UnknownMode(other.to_owned())),
        }
    }
}

impl SnapshotMode {
    /// Compares what the index says of a path with what is there. Pure: contents are compared only where both nodes
    /// know theirs.
    pub fn verdict(self, old: &Node, new: &Node) -> Verdict {
        let differs = !old.same_kind(new)
            || old.mtime != new.mtime
            || match self {
                SnapshotMode::Full => {
                    permissions(old) != permissions(new) || old.xattrs != new.xattrs || special(old) != special(new)
                }
                SnapshotMode::Redo => permissions(old) != permissions(new) || size(old) != size(new),
                SnapshotMode::Time => false,
            };
        match (&old.kind, &new.kind) {
            _ if differs => Verdict::Changed,
            (Kind::File { size: old_size, content: old }, Kind::File { size: new_size, content: new })
                if self == SnapshotMode::Full =>
            {
                match (old, new) {
                    _ if old_size != new_size => Verdict::Changed,
                    (Some(old), Some(new)) if old == new => Verdict::Same,
                    (Some(_), Some(_)) => Verdict::Changed,
                    _ => Verdict::AskContent,
                }
            }
            _ => Verdict::Same,
        }
    }
}

fn permissions(node: &Node) -> (u32, u32, u32) {
    (node.mode, node.uid, node.gid)
}

/// The kind with what only that kind has, for all but regular files, whose bytes are compared apart.
fn special(node: &Node) -> Option<&Kind> {
    Some(&node.kind).filter(|_| !node.is_file())
}

/// The size as `lstat` gives it, where it says something of the content.
fn size(node: &Node) -> u64 {
    match &node.kind {
        Kind::File { size, .. } => *size,
        Kind::Symlink { target } => target.len() as u64,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{ContentHash, Timestamp};

    fn node(kind: Kind) -> Node {
        Node { kind, mode: 0o644, uid: 1, gid: 2, mtime: Timestamp { seconds: 5, nanoseconds: 6 }, xattrs: Vec::new() }
    }

    fn file(size: u64, content: Option<u128>) -> Node {
        node(Kind::File { size, content: content.map(ContentHash) })
    }

    fn link(target: &str) -> Node {
        node(Kind::Symlink { target: target.as_bytes().into() })
    }

    #[test]
    fn verdicts() {
        use Verdict::{AskContent, Changed, Same};
        let with = |change: fn(&mut Node)| {
            let mut node = file(3, Some(7));
            change(&mut node);
            node
        };
        let directory = |seconds| Node { mtime: Timestamp::from_seconds(seconds), ..node(Kind::Directory) };
        let device = |major| node(Kind::CharDevice { major, minor: 3 });
        let known = || file(3, Some(7));
        // (what, old, new, full, redo, time)
        let rows: Vec<(&str, Node, Node, Verdict, Verdict, Verdict)> = vec![
            ("equal", known(), known(), Same, Same, Same),
            ("content not read", known(), file(3, None), AskContent, Same, Same),
            ("content never known", file(3, None), known(), AskContent, Same, Same),
            ("other content", known(), file(3, Some(8)), Changed, Same, Same),
            ("other size", known(), file(4, None), Changed, Changed, Same),
            ("mode", known(), with(|node| node.mode = 0o600), Changed, Changed, Same),
            ("setuid", known(), with(|node| node.mode |= 0o4000), Changed, Changed, Same),
            ("owner", known(), with(|node| node.uid = 0), Changed, Changed, Same),
            ("group", known(), with(|node| node.gid = 0), Changed, Changed, Same),
            ("mtime, seconds", known(), with(|node| node.mtime.seconds = 4), Changed, Changed, Changed),
            ("mtime, nanoseconds", known(), with(|node| node.mtime.nanoseconds = 7), Changed, Changed, Changed),
            ("xattr", known(), with(|node| node.xattrs.push((Box::default(), Box::default()))), Changed, Same, Same),
            ("target", link("ab"), link("cd"), Changed, Same, Same),
            ("target's length", link("ab"), link("abc"), Changed, Changed, Same),
            ("device number", device(1), device(2), Changed, Same, Same),
            ("kind", known(), link("ab"), Changed, Changed, Changed),
            ("kind of device", device(1), node(Kind::BlockDevice { major: 1, minor: 3 }), Changed, Changed, Changed),
            ("directory", directory(1), directory(1), Same, Same, Same),
            ("directory's mtime", directory(1), directory(2), Changed, Changed, Changed),
            ("fifo", node(Kind::Fifo), node(Kind::Fifo), Same, Same, Same),
        ];
        for (what, old, new, full, redo, time) in rows {
            assert_eq!(SnapshotMode::Full.verdict(&old, &new), full, "full: {what}");
            assert_eq!(SnapshotMode::Redo.verdict(&old, &new), redo, "redo: {what}");
            assert_eq!(SnapshotMode::Time.verdict(&old, &new), time, "time: {what}");
        }
    }

    #[test]
    fn names() {
        for (text, mode) in [("full", SnapshotMode::Full), ("redo", SnapshotMode::Redo), ("time", SnapshotMode::Time)] {
            assert_eq!(text.parse(), Ok(mode));
        }
        assert_eq!("Full".parse::<SnapshotMode>(), Err(UnknownMode("Full".into())));
    }
}
