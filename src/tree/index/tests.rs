use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn file(size: u64) -> Node {
    Node { kind: Kind::File { size, content: Some(ContentHash(size.into())) }, mode: 0o644, ..implicit_directory() }
}

fn seen(inode: u64) -> Option<Observed> {
    Some(Observed { device: 1, inode, ctime: Timestamp::from_seconds(5), links: 1 })
}

fn paths(index: &RootIndex) -> Vec<String> {
    index.subtree(index.root()).map(|id| index.path(id).to_string()).collect()
}

#[test]
fn insert_get_remove() {
    let mut index = RootIndex::new();
    let path = ImagePath::clean("/usr/lib/x");
    index.insert(&path, &file(3), seen(7), Standing::Image);
    assert_eq!(index.get(&path), Some(IndexEntry { node: file(3), observed: seen(7), standing: Standing::Image }));
    assert_eq!(paths(&index), ["/", "/usr", "/usr/lib", "/usr/lib/x"]);
    index.insert(&ImagePath::clean("/usr/a"), &file(1), seen(8), Standing::Foreign);
    assert_eq!(paths(&index), ["/", "/usr", "/usr/a", "/usr/lib", "/usr/lib/x"]);
    index.insert(&ImagePath::clean("/usr/lib"), &file(2), None, Standing::Image);
    assert_eq!(paths(&index), ["/", "/usr", "/usr/a", "/usr/lib"]);
    assert!(index.remove(&ImagePath::clean("/usr")));
    assert!(!index.remove(&ImagePath::clean("/usr")));
    assert!(index.is_empty());
    assert_eq!(index.len(), 1);
    assert!(index.names_of_inode(1, 8).is_empty());
}

#[test]
fn every_kind_comes_back() {
    let mut index = RootIndex::new();
    let kinds = [
        Kind::File { size: 9, content: None },
        Kind::Directory,
        Kind::Symlink { target: Box::from(*b"../t") },
        Kind::CharDevice { major: 1, minor: 3 },
        Kind::BlockDevice { major: 259, minor: 70000 },
        Kind::Fifo,
        Kind::Socket,
    ];
    for (number, kind) in kinds.into_iter().enumerate() {
        let node = Node {
            kind,
            mode: 0o4755,
            uid: 1,
            gid: 2,
            mtime: Timestamp { seconds: -1, nanoseconds: 5 },
            xattrs: vec![(Box::from(*b"user.a"), Box::from(*b"b"))],
        };
        let path = ImagePath::clean(format!("n{number}"));
        index.insert(&path, &node, None, Standing::Masked);
        assert_eq!(index.get(&path).map(|entry| entry.node), Some(node));
    }
}

#[test]
fn names_of_an_inode() {
    let mut index = RootIndex::new();
    for name in ["a", "b", "c"] {
        index.insert(&ImagePath::clean(name), &file(1), seen(42), Standing::Image);
    }
    let names = |index: &RootIndex| {
        let mut names: Vec<String> =
            index.names_of_inode(1, 42).into_iter().map(|id| index.path(id).to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&index), ["/a", "/b", "/c"]);
    index.remove(&ImagePath::clean("b"));
    assert_eq!(names(&index), ["/a", "/c"]);
    let id = index.lookup(&ImagePath::clean("a")).expect("it is there");
    index.observe(id, seen(43));
    assert_eq!(names(&index), ["/c"]);
    index.remove(&ImagePath::clean("c"));
    assert!(names(&index).is_empty());
}

#[test]
fn drift_and_ctime() {
    let mut index = RootIndex::new();
    assert_eq!(index.newest_ctime(), None);
    let at = |seconds| Observed { device: 1, inode: 5, ctime: Timestamp::from_seconds(seconds), links: 1 };
    let old = index.insert(&ImagePath::clean("old"), &file(1), Some(at(3)), Standing::Image);
    index.insert(&ImagePath::clean("new"), &file(1), Some(at(9)), Standing::Image);
    assert_eq!(index.newest_ctime(), Some(Timestamp::from_seconds(9)));
    assert!(index.is_as_observed(old, &Observed { links: 2, ..at(3) }));
    for other in [at(4), Observed { device: 2, ..at(3) }, Observed { inode: 6, ..at(3) }] {
        assert!(!index.is_as_observed(old, &other));
    }
    index.set_drifted(old, true);
    index.observe(old, Some(at(4)));
    let copy = index.clone();
    assert_eq!(copy.drifted().collect::<Vec<_>>(), [old]);
    index.insert(&ImagePath::clean("old"), &file(1), Some(at(4)), Standing::Image);
    assert!(!index.is_drifted(old) && copy.is_drifted(old), "a clone is a state of its own");
    index.remove(&ImagePath::clean("new"));
    assert_eq!(index.newest_ctime(), Some(Timestamp::from_seconds(9)), "what is gone was seen all the same");
    index.observe(old, None);
    assert!(!index.is_as_observed(old, &at(4)));
}

/// A tree as package managers make it: directories of some dozen files, names of which many recur, a symlink among fifty
/// paths, a second name for one file in a hundred.
fn package_tree(paths: u32) -> RootIndex {
    let mut index = RootIndex::new();
    let owner = Node { uid: 1000, gid: 1000, ..file(0) };
    for number in 0..paths {
        let (package, inside) = (number / 40, number % 40);
        let name = match inside {
            0 => "package.json".to_owned(),
            1 => "README.md".to_owned(),
            2..10 => format!("lib/{}-{number}.d.ts", ["index", "internal-utils", "parse"][number as usize % 3]),
            _ => format!(
                "dist/esm/{}.{number:x}.js",
                ["render-component", "create-context", "hooks"][number as usize % 3]
            ),
        };
        let path = ImagePath::clean(format!("app/node_modules/@scope/package-{package}/{name}"));
        let kind = match number % 50 {
            7 => Kind::Symlink { target: Box::from(*b"../../shared/index.js") },
            _ => Kind::File { size: number.into(), content: Some(ContentHash(number.into())) },
        };
        let inode = if number % 100 == 9 { number - 1 } else { number };
        index.insert(&path, &Node { kind, ..owner.clone() }, seen(inode.into()), Standing::Image);
    }
    index
}

#[test]
fn a_path_takes_at_most_170_bytes() {
    // the tables double: right after that they are emptiest, and these counts lie on both sides
    for paths in [14_000, 28_000, 50_000, 57_000, 58_000] {
        let index = package_tree(paths);
        let each = index.heap_bytes() as f64 / index.len() as f64;
        assert!(each <= 170.0, "{paths} paths: {each:.1} bytes each");
    }
}

#[test]
fn names_that_are_gone_take_no_memory() {
    let mut index = package_tree(1000);
    let mut after_round = |round: u32| {
        for number in 0..2000 {
            let path = ImagePath::clean(format!("tmp/{round}/a-rather-long-temporary-name-{round}-{number}"));
            index.insert(&path, &file(1), seen(u64::from(round * 2000 + number)), Standing::Image);
        }
        index.remove(&ImagePath::clean("tmp"));
        index.heap_bytes()
    };
    let first = after_round(0);
    let most = (1..100).map(&mut after_round).max().expect("there are rounds");
    assert!(most < 2 * first, "{most} bytes where {first} were enough");
    assert_eq!(paths(&index), paths(&package_tree(1000)));
}

/// An inode that is used again for a directory is one to note.
#[test]
fn directories_that_came() {
    let mut index = RootIndex::new();
    let directory = implicit_directory();
    index.insert(&ImagePath::clean("/a/f"), &file(1), seen(7), Standing::Image);
    let start = index.moment();
    let since = |index: &RootIndex, moment| {
        let ids = index.directories_since(moment).expect("lately");
        ids.map(|id| index.path(id).to_string()).collect::<Vec<_>>()
    };
    index.insert(&ImagePath::clean("/b"), &file(1), seen(8), Standing::Image);
    index.insert(&ImagePath::clean("/a/f"), &file(2), seen(9), Standing::Image);
    assert_eq!(since(&index, start), [""; 0]);
    index.insert(&ImagePath::clean("/a/f"), &directory, seen(9), Standing::Image);
    assert_eq!(since(&index, start), ["/a/f"]);
    let later = index.moment();
    let id = index.lookup(&ImagePath::clean("/a/f")).expect("it is there");
    index.observe(id, seen(9));
    assert_eq!(since(&index, later), [""; 0]);
    index.observe(id, seen(10));
    assert_eq!(since(&index, later), ["/a/f"]);
    index.remove(&ImagePath::clean("/a"));
    assert_eq!(since(&index, start), [""; 0]);
}

/// The same as a map of full paths, whatever happens to it: numbers that tell nothing choose what.
#[test]
fn it_is_a_map_of_paths() {
    let mut index = RootIndex::new();
    let mut model = BTreeMap::from([(ImagePath::root(), index.entry(index.root()))]);
    let mut state = 1_u64;
    let mut choose = |among: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % among
    };
    for step in 0..6000 {
        let depth = 1 + choose(4);
        let path = ImagePath::clean((0..depth).map(|_| format!("{}/", choose(5))).collect::<String>());
        let below = |other: &ImagePath| other.is_within(&path);
        match choose(4) {
            0 => {
                assert_eq!(index.remove(&path), model.contains_key(&path));
                model.retain(|other, _| !below(other));
            }
            1 => {
                let Some(id) = index.lookup(&path) else { continue };
                let observed = [None, seen(choose(9))][choose(2) as usize];
                index.observe(id, observed);
                model.get_mut(&path).expect("the index has it").observed = observed;
            }
            _ => {
                let kind = match choose(4) {
                    0 => Kind::File { size: step, content: [None, Some(ContentHash(step.into()))][choose(2) as usize] },
                    1 => Kind::Symlink { target: format!("{step}").into_bytes().into() },
                    _ => Kind::Directory,
                };
                let xattrs = vec![(Box::from(*b"user.step"), Box::from(step.to_le_bytes())); choose(2) as usize];
                let node = Node { kind, xattrs, mtime: Timestamp::from_seconds(step as i64), ..implicit_directory() };
                let observed = seen(choose(9)).map(|seen| Observed { device: choose(3), ..seen });
                index.insert(&path, &node, observed, Standing::Masked);
                remember(&mut model, &path, IndexEntry { node, observed, standing: Standing::Masked });
            }
        }
        if step % 100 == 0 {
            assert_same(&index, &model);
        }
    }
}

fn remember(model: &mut BTreeMap<ImagePath, IndexEntry>, path: &ImagePath, entry: IndexEntry) {
    let mut above = path.clone();
    while let Some(parent) = above.parent() {
        let known = model.get(&parent).map(|entry| (entry.node.is_directory(), entry.standing));
        if !matches!(known, Some((true, _))) {
            let standing = known.map_or(Standing::Image, |(_, standing)| standing);
            model.insert(parent.clone(), IndexEntry { node: implicit_directory(), observed: None, standing });
        }
        above = parent;
    }
    if !entry.node.is_directory() {
        model.retain(|other, _| !other.is_within(path));
    }
    model.insert(path.clone(), entry);
}

#[track_caller]
fn assert_same(index: &RootIndex, model: &BTreeMap<ImagePath, IndexEntry>) {
    assert_eq!(index.len(), model.len());
    let all: Vec<_> = index.subtree(index.root()).map(|id| (index.path(id), index.entry(id))).collect();
    assert!(all.iter().map(|(path, entry)| (path, entry)).eq(model), "{all:#?}\n{model:#?}");
    for (device, inode) in (0..3).flat_map(|device| (0..9).map(move |inode| (device, inode))) {
        let names: BTreeSet<ImagePath> =
            index.names_of_inode(device, inode).into_iter().map(|id| index.path(id)).collect();
        let is_name =
            |entry: &IndexEntry| entry.observed.is_some_and(|seen| (seen.device, seen.inode) == (device, inode));
        let wanted = model.iter().filter(|(_, entry)| is_name(entry)).map(|(path, _)| path.clone()).collect();
        assert_eq!(names, wanted);
    }
}
