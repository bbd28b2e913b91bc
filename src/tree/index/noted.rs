//! [`Noted`]: which directories the index got to know lately, so that nobody has to look through all of it for them.

use super::NodeId;

/// Fewer than this are always remembered.
const LEAST: usize = 4096;
/// Beyond that, one for so many paths of the index.
const SHARE: usize = 8;

/// A moment in the life of an index, for [`RootIndex::directories_since`](super::RootIndex::directories_since).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// The last directories that were noted, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Noted {
    /// Number of those that are forgotten.
    forgotten: u64,
    ids: Vec<NodeId>,
}

impl Noted {
    /// Notes a directory of an index with `paths` paths.
    pub(super) fn push(&mut self, id: NodeId, paths: usize) {
        if self.ids.len() >= LEAST.max(paths / SHARE) {
            self.forgotten += self.ids.len() as u64;
            self.ids = Vec::new();
        }
        self.ids.push(id);
    }

    pub(super) fn now(&self) -> Moment {
        Moment(self.forgotten + self.ids.len() as u64)
    }

    /// What was noted since; `None` if some of it is forgotten.
    pub(super) fn since(&self, moment: Moment) -> Option<&[NodeId]> {
        let skipped = usize::try_from(moment.0.checked_sub(self.forgotten)?).ok()?;
        self.ids.get(skipped..)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.ids.capacity() * size_of::<NodeId>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_when() {
        let mut noted = Noted::default();
        let start = noted.now();
        assert_eq!(noted.since(start), Some([].as_slice()));
        for number in [1, 2] {
            noted.push(NodeId(number), 10);
        }
        let later = noted.now();
        noted.push(NodeId(1), 10);
        assert_eq!(noted.since(start), Some([NodeId(1), NodeId(2), NodeId(1)].as_slice()));
        assert_eq!(noted.since(later), Some([NodeId(1)].as_slice()));
        for number in 0..LEAST as u32 {
            noted.push(NodeId(number), 10);
        }
        assert_eq!((noted.since(start), noted.since(later)), (None, None));
        assert_eq!(noted.since(noted.now()), Some([].as_slice()));
        assert_eq!(Noted::default().since(later), None, "another index");
    }
}
