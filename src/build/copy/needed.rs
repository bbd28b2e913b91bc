//! Which files of a finished stage does a later COPY need? Told by the index alone: it knows the image's files also where
//! the disk cannot hold them.

use super::split_pivot;
use crate::context::pattern::{Pattern, has_wildcard};
use crate::tree::{ImagePath, Kind, NodeId, RootIndex};

/// Symlinks followed while resolving one path, as in the kernel.
const MOST_SYMLINKS: usize = 40;

/// What must be kept of what `index` knows so that a later `COPY --from` with the source `text` finds the same: the files
/// and directories that it names, and the symlinks on the way to them. A directory stands for all below it. What does
/// not exist is not needed: COPY itself will say so.
pub fn needed_paths(index: &RootIndex, text: &[u8], parents: bool) -> Vec<ImagePath> {
    let mut needed = Needed { index, paths: Vec::new(), links_left: MOST_SYMLINKS };
    if parents {
        let (pivot, pattern) = split_pivot(text);
        let plain: Vec<&[u8]> =
            pattern.split(|&byte| byte == b'/').take_while(|component| !has_wildcard(component)).collect();
        let top = needed.follow(&pivot).resolve(plain.join(&b'/'));
        // of a path that leads through a symlink, or nowhere, what there is of it
        let there = std::iter::successors(Some(top), ImagePath::parent).find(|path| index.lookup(path).is_some());
        needed.paths.extend(there);
    } else {
        needed.source(&ImagePath::clean(text));
    }
    let Needed { mut paths, .. } = needed;
    paths.sort();
    paths.dedup();
    paths.retain(|path| index.lookup(path).is_some());
    paths
}

/// What was found so far.
struct Needed<'a> {
    index: &'a RootIndex,
    paths: Vec<ImagePath>,
    links_left: usize,
}

impl Needed<'_> {
    fn source(&mut self, path: &ImagePath) {
        let components: Vec<&[u8]> = path.components().collect();
        let Some(first) = components.iter().position(|component| has_wildcard(component)) else {
            return self.keep(path);
        };
        let base = self.follow(&ImagePath::clean(components[..first].join(&b'/')));
        let patterns: Result<Vec<Pattern>, _> = components[first..].iter().map(|part| Pattern::go(part)).collect();
        // a wildcard that cannot be read needs nothing: COPY will refuse it
        if let Ok(patterns) = patterns {
            self.matching(&base, &patterns);
        }
    }

    /// As COPY searches: symlinks on the way are not entered.
    fn matching(&mut self, base: &ImagePath, patterns: &[Pattern]) {
        let Some(((pattern, deeper), id)) = patterns.split_first().zip(self.index.lookup(base)) else { return };
        let matching = |child: &NodeId| pattern.matches(self.index.name(*child));
        let found: Vec<NodeId> = self.index.children(id).filter(matching).collect();
        for child in found {
            let path = self.index.path(child);
            if deeper.is_empty() {
                self.keep(&path);
            } else if self.index.is_directory(child) {
                self.matching(&path, deeper);
            }
        }
    }

    /// Keeps what `path` leads to, with the symlinks on the way.
    fn keep(&mut self, path: &ImagePath) {
        self.links_left = MOST_SYMLINKS;
        let at = self.follow(path);
        self.paths.push(at);
    }

    /// Resolves `path` and keeps every symlink that was followed.
    fn follow(&mut self, path: &ImagePath) -> ImagePath {
        let mut so_far = ImagePath::root();
        for component in path.components() {
            so_far = so_far.join(component);
            // one link at a time: each may lead to the next
            while let Some(Kind::Symlink { target }) = self.index.get(&so_far).map(|entry| entry.node.kind) {
                let Some(left) = self.links_left.checked_sub(1) else { return so_far };
                self.links_left = left;
                let parent = so_far.parent().unwrap_or_else(ImagePath::root);
                self.paths.push(so_far);
                so_far = self.follow_target(&parent, &target);
            }
        }
        so_far
    }

    /// Resolves the target of a symlink in `parent`, which is resolved: `..` counts from where a link before it led.
    fn follow_target(&mut self, parent: &ImagePath, target: &[u8]) -> ImagePath {
        let mut so_far = if target.starts_with(b"/") { ImagePath::root() } else { parent.clone() };
        for part in target.split(|&byte| byte == b'/') {
            so_far = match part {
                b"" | b"." => so_far,
                b".." => so_far.parent().unwrap_or_else(ImagePath::root),
                name => self.follow(&so_far.join(name)),
            };
        }
        so_far
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Node, Standing, Timestamp};

    fn index() -> RootIndex {
        let mut index = RootIndex::new();
        let mut put = |path: &str, kind: Kind| {
            let node = Node { kind, mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::EPOCH, xattrs: Vec::new() };
            index.insert(&ImagePath::clean(path), &node, None, Standing::Image);
        };
        for file in ["a.txt", "b.txt", "d/x", "d/sub/y", "e/x", "arr[0]"] {
            put(file, Kind::File { size: 0, content: None });
        }
        for (link, target) in [
            ("dl", "d"),
            ("al", "/a.txt"),
            ("bad", "nowhere"),
            ("dll", "dl"),
            ("loop", "loop"),
            ("e/up", "../dl/sub/../x"),
            ("e/sub", "../d/sub"),
            ("back", "e/sub/../x"),
        ] {
            put(link, Kind::Symlink { target: link_target(target) });
        }
        index
    }

    fn link_target(text: &str) -> Box<[u8]> {
        text.as_bytes().into()
    }

    #[test]
    fn what_a_later_stage_needs() {
        let index = index();
        for (text, parents, needed) in [
            ("a.txt", false, vec!["/a.txt"]),
            ("../../a.txt", false, vec!["/a.txt"]),
            ("al", false, vec!["/a.txt", "/al"]),
            ("dll/x", false, vec!["/d/x", "/dl", "/dll"]),
            ("?.txt", false, vec!["/a.txt", "/b.txt"]),
            ("*/x", false, vec!["/d/x", "/e/x"]),
            ("dl/s*", false, vec!["/d/sub", "/dl"]),
            ("a[l]", false, vec!["/a.txt", "/al"]),
            ("arr[[]0]", false, vec!["/arr[0]"]),
            ("[a", false, vec![]),
            ("e/up", false, vec!["/d/x", "/dl", "/e/up"]),
            ("back", false, vec!["/back", "/d/x", "/e/sub"]),
            ("bad", false, vec!["/bad"]),
            ("loop", false, vec!["/loop"]),
            ("nowhere/at/all", false, vec![]),
            ("/", false, vec!["/"]),
            ("dl/./sub/y", true, vec!["/d/sub/y", "/dl"]),
            ("d/s*/y", true, vec!["/d"]),
            ("**/y", true, vec!["/"]),
            ("dl/sub/y", true, vec!["/dl"]),
        ] {
            let found: Vec<String> =
                needed_paths(&index, text.as_bytes(), parents).iter().map(ImagePath::to_string).collect();
            assert_eq!(found, needed, "{text}");
        }
    }
}
