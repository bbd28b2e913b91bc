//! [`Ignored`]: which paths kanna leaves alone.

use std::collections::BTreeSet;

use crate::tree::ImagePath;

/// Paths that are never part of an image (COMPAT: "Never part of an image"). Two kinds: those that must not be touched
/// on disk either, and those that only snapshots overlook.
#[derive(Debug, Clone, Default)]
pub struct Ignored {
    untouchable: BTreeSet<ImagePath>,
    overlooked: BTreeSet<ImagePath>,
    /// Is [`APT_KEY_PREFIX`] not overlooked?
    keeps_debris: bool,
}

/// A debris of Debian's apt-key that kaniko, too, keeps out of images: `/tmp/apt-key-gpghome.XXXX`.
const APT_KEY_PREFIX: &[u8] = b"/tmp/apt-key-gpghome";

impl Ignored {
    /// Ignores nothing but what is always ignored.
    pub fn new() -> Ignored {
        Ignored::default()
    }

    /// Adds a path that is neither written, removed nor recorded, with all below it: a mount point, the work directory.
    pub fn add_untouchable(&mut self, path: ImagePath) {
        self.untouchable.insert(path);
    }

    /// Adds a path that no snapshot records, with all below it; bases and COPY may still write it.
    pub fn add_overlooked(&mut self, path: ImagePath) {
        self.overlooked.insert(path);
    }

    /// Must `path` be left as it is on disk?
    pub fn is_untouchable(&self, path: &ImagePath) -> bool {
        holds(&self.untouchable, path)
    }

    /// Does no snapshot record `path`?
    pub fn is_overlooked(&self, path: &ImagePath) -> bool {
        self.is_untouchable(path) || holds(&self.overlooked, path) || self.is_debris(path)
    }

    fn is_debris(&self, path: &ImagePath) -> bool {
        !self.keeps_debris && path.as_bytes().starts_with(APT_KEY_PREFIX)
    }

    /// The same, with nothing that only snapshots overlook: for whoever must know all that is on disk.
    pub fn untouchable_only(&self) -> Ignored {
        Ignored { untouchable: self.untouchable.clone(), overlooked: BTreeSet::new(), keeps_debris: true }
    }

    /// Directories and files in which something may be that only snapshots overlook.
    pub fn places_overlooked(&self) -> impl Iterator<Item = ImagePath> {
        let debris = ImagePath::clean(APT_KEY_PREFIX).parent();
        self.overlooked.iter().cloned().chain(debris)
    }

    /// Can an entry of `directory` itself be ignored, while `directory` is not? Asked once per directory, it spares
    /// a walk the question for every entry.
    pub fn names_entries_of(&self, directory: &ImagePath) -> bool {
        let is_parent = |path: &ImagePath| path.parent().as_ref() == Some(directory);
        self.untouchable.iter().any(is_parent)
            || self.overlooked.iter().any(is_parent)
            || APT_KEY_PREFIX.starts_with(directory.as_bytes())
    }

    /// Is something below `path` untouchable, so that `path` itself cannot be removed or replaced?
    pub fn leads_to_untouchable(&self, path: &ImagePath) -> bool {
        self.untouchable
            .range::<ImagePath, _>(path..)
            .take_while(|at| at.as_bytes().starts_with(path.as_bytes()))
            .any(|at| at != path && at.is_within(path))
    }

    /// What no snapshot records, without what is below it. One path stands for many: names that only begin like it are
    /// overlooked as well.
    pub fn overlooked(&self) -> impl Iterator<Item = ImagePath> {
        self.untouchable.iter().chain(&self.overlooked).cloned().chain([ImagePath::clean(APT_KEY_PREFIX)])
    }

    /// All untouchable paths.
    pub fn untouchable(&self) -> impl Iterator<Item = &ImagePath> {
        self.untouchable.iter()
    }
}

/// Is `path` or one of its parents in `set`?
fn holds(set: &BTreeSet<ImagePath>, path: &ImagePath) -> bool {
    if set.is_empty() {
        return false;
    }
    let bytes = path.as_bytes();
    set.contains(bytes)
        || bytes.iter().enumerate().skip(1).any(|(at, &byte)| byte == b'/' && set.contains(&bytes[..at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        let mut ignored = Ignored::new();
        ignored.add_untouchable(ImagePath::clean("/kaniko"));
        ignored.add_untouchable(ImagePath::clean("/etc/hosts"));
        ignored.add_overlooked(ImagePath::clean("/var/run"));
        for (path, untouchable, overlooked, leads) in [
            ("/", false, false, true),
            ("/kaniko", true, true, false),
            ("/kaniko/a/b", true, true, false),
            ("/kaniko2", false, false, false),
            ("/etc", false, false, true),
            ("/etc/hosts", true, true, false),
            ("/etc/hosts.allow", false, false, false),
            ("/var/run", false, true, false),
            ("/var/run/x", false, true, false),
            ("/var", false, false, false),
            ("/tmp/apt-key-gpghome.Ab12/x", false, true, false),
        ] {
            let path = ImagePath::clean(path);
            let found =
                (ignored.is_untouchable(&path), ignored.is_overlooked(&path), ignored.leads_to_untouchable(&path));
            assert_eq!(found, (untouchable, overlooked, leads), "{path}");
        }
        for (directory, names) in [("/", true), ("/etc", true), ("/var", true), ("/tmp", true), ("/usr", false)] {
            assert_eq!(ignored.names_entries_of(&ImagePath::clean(directory)), names, "{directory}");
        }
    }
}
