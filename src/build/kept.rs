//! A finished stage's files, as far as later stages copy them.

use std::collections::{HashMap, HashSet};
use std::io;

use super::error::Error;
use crate::rootfs::{Directory, Ignored, Root, sparse};
use crate::sys::Errno;
use crate::tree::{ImagePath, Kind, Node, NodeId, RootIndex, Standing};

/// Files that a COPY takes, and what is known of them.
pub(super) struct Tree {
    pub(super) root: Root,
    /// Says the same as `root`, and knows what the disk could not hold.
    pub(super) index: RootIndex,
}

/// Keeps `needed` (sorted; a directory stands for all below it) of what the image has in `root`, in the empty root `kept`,
/// which has the same layout. A directory or file moves there by rename, which costs nothing, and is forgotten in `index`;
/// where all of it `stays`, and where it shares its inode with a path that is not kept, it is copied.
pub(super) fn keep(
    needed: &[ImagePath],
    stays: bool,
    root: &Root,
    index: &mut RootIndex,
    ignored: &Ignored,
    kept: Root,
) -> Result<Tree, Error> {
    let needed = topmost(needed);
    let (shared, split) = divide(&needed, stays, index, ignored);
    let mut keeper = Keeper {
        root,
        index,
        kept: Tree { root: kept, index: RootIndex::new() },
        shared,
        split,
        copied: HashMap::new(),
        made: Vec::new(),
    };
    for path in &needed {
        if let Some(id) = keeper.index.lookup(path)
            && keeper.is_in_image(id)
        {
            let directory = keeper.make_parents(path)?;
            keeper.take(id, &directory)?;
        }
    }
    keeper.finish()
}

/// The paths that are not below another of them.
fn topmost(paths: &[ImagePath]) -> Vec<ImagePath> {
    let all: HashSet<&ImagePath> = paths.iter().collect();
    paths.iter().filter(|path| !path.ancestors().iter().any(|above| all.contains(above))).cloned().collect()
}

/// Which needed files must be copied, and which directories cannot be moved whole.
fn divide(
    needed: &[ImagePath],
    stays: bool,
    index: &RootIndex,
    ignored: &Ignored,
) -> (HashSet<NodeId>, HashSet<NodeId>) {
    let ids: Vec<NodeId> =
        needed.iter().filter_map(|path| index.lookup(path)).flat_map(|top| index.subtree(top)).collect();
    let mut shared: HashSet<NodeId> = ids.iter().copied().filter(|&id| stays && !index.is_directory(id)).collect();
    let all: HashSet<NodeId> = ids.iter().copied().collect();
    for &id in &ids {
        let Some(seen) = index.observed(id).filter(|seen| seen.links > 1 && !index.is_directory(id)) else { continue };
        let names = index.names_of_inode(seen.device, seen.inode);
        let moves_whole = names.len() == seen.links as usize
            && names
                .iter()
                .all(|name| all.contains(name) && !shared.contains(name) && index.standing(*name) == Standing::Image);
        if !moves_whole {
            shared.extend(names.into_iter().filter(|name| all.contains(name)));
        }
    }
    let is_fixed = |id: &NodeId| stays || shared.contains(id) || index.standing(*id) != Standing::Image;
    let fixed = ids.iter().copied().filter(is_fixed);
    let in_the_way = ignored.untouchable().flat_map(ImagePath::ancestors).filter_map(|path| index.lookup(&path));
    let mut split = HashSet::new();
    for id in fixed.chain(in_the_way) {
        for above in std::iter::successors(Some(id), |&id| index.parent(id)) {
            if !split.insert(above) {
                break;
            }
        }
    }
    (shared, split)
}

/// At work.
struct Keeper<'a> {
    root: &'a Root,
    index: &'a mut RootIndex,
    kept: Tree,
    /// Files that are copied.
    shared: HashSet<NodeId>,
    /// What cannot be moved with all that is below it.
    split: HashSet<NodeId>,
    /// Where a file with several names was copied to first.
    copied: HashMap<(u64, u64), ImagePath>,
    /// Directories that were made, whose attributes are set when they are full.
    made: Vec<(ImagePath, Node)>,
}

impl Keeper<'_> {
    fn is_in_image(&self, id: NodeId) -> bool {
        self.index.subtree(id).any(|below| self.index.standing(below) != Standing::Foreign)
    }

    /// Makes the directories above `path` in the kept tree; gives the last.
    fn make_parents(&mut self, path: &ImagePath) -> Result<Directory, Error> {
        for directory in path.ancestors() {
            if !directory.is_root() && self.kept.root.stat(&directory)?.is_none() {
                let node = self.index.get(&directory).map(|entry| entry.node);
                self.make(&directory, node.expect("what is above a path of the index is in it"))?;
            }
        }
        Ok(self.kept.root.directory(&path.parent().unwrap_or_else(ImagePath::root))?)
    }

    fn make(&mut self, path: &ImagePath, node: Node) -> Result<Directory, Error> {
        let made = self.kept.root.parent_directory(path)?.create_directory(path.file_name())?;
        self.kept.index.insert(path, &node, None, Standing::Image);
        self.made.push((path.clone(), node));
        Ok(made)
    }

    /// Keeps `id` with all below it in `target`.
    fn take(&mut self, id: NodeId, target: &Directory) -> Result<(), Error> {
        let path = self.index.path(id);
        if !path.is_root() && !self.split.contains(&id) && self.rename(&path, target)? {
            for below in self.index.subtree(id) {
                let at = self.index.path(below);
                self.kept.index.insert(&at, &self.index.node(below), None, Standing::Image);
            }
            self.forget(&path);
            return Ok(());
        }
        if !self.index.is_directory(id) {
            return self.take_file(id, &path, target);
        }
        let node = self.index.node(id);
        let made = if path.is_root() {
            self.made.push((path, node));
            self.kept.root.directory(&ImagePath::root())?
        } else {
            self.make(&path, node)?
        };
        let children: Vec<NodeId> = self.index.children(id).collect();
        for child in children {
            if self.is_in_image(child) {
                self.take(child, &made)?;
            }
        }
        Ok(())
    }

    fn take_file(&mut self, id: NodeId, path: &ImagePath, target: &Directory) -> Result<(), Error> {
        let node = self.index.node(id);
        let standing = self.index.standing(id);
        if standing == Standing::Foreign {
            return Ok(());
        }
        let is_nowhere = standing == Standing::Masked && self.index.observed(id).is_none();
        if is_nowhere {
            // a device that nobody may make here; of anything else the bytes would be missing
            if let Kind::File { .. } = node.kind {
                return Err(Error::Keep { path: path.clone(), source: io::ErrorKind::NotFound.into() });
            }
            self.kept.index.insert(path, &node, None, Standing::Masked);
        } else if !self.shared.contains(&id) && self.rename(path, target)? {
            self.kept.index.insert(path, &node, None, Standing::Image);
            self.forget(path);
        } else {
            let inode = self.index.observed(id).filter(|seen| seen.links > 1).map(|seen| (seen.device, seen.inode));
            let standing = self.copy(path, &node, inode, target)?;
            self.kept.index.insert(path, &node, None, standing);
        }
        Ok(())
    }

    fn forget(&mut self, path: &ImagePath) {
        self.index.remove(path);
        // its times moved; whoever brings the root to its next state looks again
        if let Some(parent) = path.parent().and_then(|parent| self.index.lookup(&parent)) {
            self.index.observe(parent, None);
        }
    }

    /// Says whether it could be done: on overlayfs, a directory that the container's own image holds too cannot be renamed.
    fn rename(&self, path: &ImagePath, target: &Directory) -> Result<bool, Error> {
        let name = path.file_name();
        match self.root.parent_directory(path)?.rename(name, target, name) {
            Err(error) if matches!(error.errno(), Some(Errno::XDEV | Errno::BUSY)) => Ok(false),
            other => Ok(other.map(|()| true)?),
        }
    }

    fn copy(
        &mut self,
        path: &ImagePath,
        node: &Node,
        inode: Option<(u64, u64)>,
        target: &Directory,
    ) -> Result<Standing, Error> {
        let name = path.file_name();
        if let Some(first) = inode.and_then(|inode| self.copied.get(&inode)) {
            let from = self.kept.root.parent_directory(first)?;
            target.create_hard_link(name, &from, first.file_name())?;
            return Ok(Standing::Image);
        }
        match &node.kind {
            Kind::File { size, .. } => {
                let from = self.root.open_file(path)?;
                let copied = sparse::copy(&from, *size, &target.create_file(name)?);
                copied.map_err(|source| Error::Keep { path: path.clone(), source })?;
            }
            Kind::Symlink { target: link } => target.create_symlink(name, link)?,
            special => match target.create_special(name, special) {
                Err(error) if error.errno() == Some(Errno::PERM) => return Ok(Standing::Masked),
                other => other?,
            },
        }
        target.set_attributes(name, node)?;
        self.copied.extend(inode.map(|inode| (inode, path.clone())));
        Ok(Standing::Image)
    }

    fn finish(self) -> Result<Tree, Error> {
        for (path, node) in self.made.iter().rev() {
            self.kept.root.directory(path)?.set_attributes(b".", node)?;
        }
        Ok(self.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    /// A root with an index that knows it.
    fn stage(place: &Path) -> (Root, RootIndex) {
        for directory in ["out/deep", "etc", "srv/only"] {
            fs::create_dir_all(place.join(directory)).expect("made");
        }
        for file in ["out/a", "out/deep/b", "etc/kept", "etc/base", "srv/only/x", "cross", "pair", "out/pair"] {
            let _ = fs::remove_file(place.join(file));
            fs::write(place.join(file), file).expect("written");
        }
        for (link, to) in [("out/cross", "cross"), ("out/deep/a", "out/a"), ("etc/pair", "pair")] {
            fs::hard_link(place.join(to), place.join(link)).expect("linked");
        }
        symlink("deep/b", place.join("out/link")).expect("linked");
        let root = Root::open(place).expect("opened");
        let mut index = RootIndex::new();
        let mut directories = vec![ImagePath::root()];
        while let Some(directory) = directories.pop() {
            for (name, _) in root.directory(&directory).expect("opened").entries().expect("listed") {
                let path = directory.join(name);
                let (node, observed) = root.node(&path).expect("looked").expect("there");
                index.insert(&path, &node, Some(observed), Standing::Image);
                if node.is_directory() {
                    directories.push(path);
                }
            }
        }
        (root, index)
    }

    fn listed(place: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut left = vec![place.to_path_buf()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).expect("listed") {
                let path = entry.expect("read").path();
                found.push(path.strip_prefix(place).expect("below").to_string_lossy().into_owned());
                if path.is_dir() && !path.is_symlink() {
                    left.push(path);
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn what_is_kept_is_whole_and_nobody_else_s() {
        let place = tempfile::tempdir().expect("a directory");
        let (at, kept_at) = (place.path().join("root"), place.path().join("kept"));
        fs::create_dir(&at).expect("made");
        fs::create_dir(&kept_at).expect("made");
        let (root, mut index) = stage(&at);
        let inode = |path: &str| fs::metadata(at.join(path)).expect("there").ino();
        let [deep, only] = ["out/deep/b", "srv/only"].map(inode);
        let needed = ["/etc/base", "/etc/pair", "/out", "/out/deep", "/pair", "/srv/only"].map(ImagePath::clean);
        let target = Root::open(&kept_at).expect("opened");
        let kept = keep(&needed, false, &root, &mut index, &Ignored::new(), target).expect("kept");

        let expected = [
            "etc",
            "etc/base",
            "etc/pair",
            "out",
            "out/a",
            "out/cross",
            "out/deep",
            "out/deep/a",
            "out/deep/b",
            "out/link",
            "out/pair",
            "pair",
            "srv",
            "srv/only",
            "srv/only/x",
        ];
        assert_eq!(listed(&kept_at), expected);
        for path in expected.map(ImagePath::clean) {
            let (mut node, _) = kept.root.node(&path).expect("looked").expect("there");
            let known = kept.index.get(&path).unwrap_or_else(|| panic!("{path} is not in the index")).node;
            if path.file_name() == b"out" || path.file_name() == b"deep" {
                node.mtime = known.mtime;
            }
            assert_eq!(node, known, "{path}");
        }
        // what others share is in the root all the same
        assert_eq!(listed(&at), ["cross", "etc", "etc/kept", "out", "out/cross", "srv"]);
        for path in ["/out/a", "/srv/only", "/pair", "/etc/pair", "/etc/base"] {
            assert!(index.lookup(&ImagePath::clean(path)).is_none(), "{path} is not in the root any more");
        }
        fs::write(at.join("cross"), "changed later").expect("written");
        let read = |path: &str| fs::read_to_string(kept_at.join(path)).expect("read");
        assert_eq!(read("out/cross"), "cross");
        let inode = |path: &str| fs::metadata(kept_at.join(path)).expect("there").ino();
        assert_eq!(inode("out/a"), inode("out/deep/a"), "names that are all kept stay one file");
        assert_eq!(inode("pair"), inode("etc/pair"));
        assert_eq!([inode("out/deep/b"), inode("srv/only")], [deep, only], "renamed");
    }

    #[test]
    fn what_stays_is_in_the_root_as_it_was() {
        let place = tempfile::tempdir().expect("a directory");
        let (at, kept_at) = (place.path().join("root"), place.path().join("kept"));
        fs::create_dir_all(at.join("out/empty")).expect("made");
        fs::create_dir(&kept_at).expect("made");
        let (root, mut index) = stage(&at);
        let observed = |index: &RootIndex| -> Vec<_> {
            index.subtree(index.root()).map(|id| (index.path(id), index.observed(id))).collect()
        };
        let (before, known) = (listed(&at), observed(&index));
        let needed = ["/out", "/etc/base"].map(ImagePath::clean);
        let target = Root::open(&kept_at).expect("opened");
        let kept = keep(&needed, true, &root, &mut index, &Ignored::new(), target).expect("kept");
        assert_eq!((listed(&at), observed(&index)), (before, known));
        for path in ["/out/empty", "/out/deep/b", "/etc/base"].map(ImagePath::clean) {
            assert!(kept.index.lookup(&path).is_some() && kept.root.stat(&path).expect("looked").is_some(), "{path}");
        }
        fs::write(at.join("etc/base"), "changed later").expect("written");
        assert_eq!(fs::read_to_string(kept_at.join("etc/base")).expect("read"), "etc/base");
    }
}
