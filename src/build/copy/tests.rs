//! What a copy leaves behind: the right files, and a changeset and an index that say just that.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;
use crate::sys::fs::FileType;
use crate::tree::{Change, ContentHash, Kind, Node, Observed, Standing};

const NOW: Timestamp = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };

type Tree = BTreeMap<ImagePath, (Node, Observed)>;

/// A root and a context, in one temporary directory.
struct Fixture {
    place: tempfile::TempDir,
    root: Root,
    context: Root,
    index: RootIndex,
    ignored: Ignored,
}

impl Fixture {
    /// Makes both from paths: a slash at the end makes a directory, ` -> ` a symlink, and a file holds its own path.
    fn new(root: &[&str], context: &[&str]) -> Fixture {
        let place = tempfile::tempdir().expect("a directory");
        for (name, paths) in [("root", root), ("context", context)] {
            let top = place.path().join(name);
            fs::create_dir(&top).expect("made");
            for path in paths {
                make(&top, path);
            }
        }
        let root = Root::open(&place.path().join("root")).expect("opened");
        let context = Root::open(&place.path().join("context")).expect("opened");
        let mut index = RootIndex::new();
        for (path, (node, observed)) in survey(&root) {
            index.insert(&path, &node, Some(observed), Standing::Image);
        }
        Fixture { place, root, context, index, ignored: Ignored::new() }
    }

    fn context_place(&self, path: &str) -> PathBuf {
        self.place.path().join("context").join(path)
    }

    fn root_place(&self, path: &str) -> PathBuf {
        self.place.path().join("root").join(path)
    }

    /// Copies `sources` from the context, after `adjust`, and checks what every copy promises.
    fn copy_with(
        &mut self,
        sources: &[&str],
        destination: &str,
        adjust: impl FnOnce(&mut CopyRequest<'_>),
    ) -> Result<Changes, CopyError> {
        let workdir = ImagePath::clean("/work");
        let mut request = request(&self.context, sources, destination, &workdir);
        adjust(&mut request);
        let before = survey(&self.root);
        let changes = run(&request, &self.root, &mut self.index, &self.ignored)?;
        check(&before, &changes, &self.root, &self.index);
        Ok(changes)
    }

    fn copy(&mut self, sources: &[&str], destination: &str) -> Result<Changes, CopyError> {
        self.copy_with(sources, destination, |_| {})
    }
}

type Changes = BTreeMap<ImagePath, Change>;

/// What a copy says that it changed.
fn run(request: &CopyRequest<'_>, root: &Root, index: &mut RootIndex, ignored: &Ignored) -> Result<Changes, CopyError> {
    let changeset = copy(request, root, index, ignored)?;
    Ok(changeset.changes(index).collect())
}

/// A plain COPY; owners are ours, so that the tests need no privilege.
fn request<'a>(context: &'a Root, sources: &[&str], destination: &str, workdir: &'a ImagePath) -> CopyRequest<'a> {
    let own = fs::metadata(context.place()).expect("there");
    CopyRequest {
        origin: Origin::Context { root: context, ignore: None },
        sources: sources.iter().map(|text| SourceItem::Path(text.as_bytes().to_vec())).collect(),
        destination: destination.as_bytes().to_vec(),
        workdir,
        owner: Some((own.uid(), own.gid())),
        mode: None,
        unpack: Unpack::Never,
        link: false,
        parents: false,
        excludes: PatternList::default(),
        now: NOW,
    }
}

fn make(top: &Path, path: &str) {
    let (name, target) = path.split_once(" -> ").map_or((path, None), |(name, target)| (name, Some(target)));
    let place = top.join(name);
    let directory = if name.ends_with('/') { &*place } else { place.parent().expect("inside") };
    fs::create_dir_all(directory).expect("made");
    match target {
        Some(target) => symlink(target, place).expect("linked"),
        None if !name.ends_with('/') => fs::write(place, name).expect("written"),
        None => {}
    }
}

/// All that is below a root.
fn survey(root: &Root) -> Tree {
    let mut found = Tree::new();
    let mut waiting = vec![ImagePath::root()];
    while let Some(path) = waiting.pop() {
        let directory = root.directory(&path).expect("opened");
        for (name, file_type) in directory.entries().expect("listed") {
            let path = path.join(&name);
            let (mut node, observed) = directory.node(&name).expect("looked").expect("there");
            if let Kind::File { content, .. } = &mut node.kind {
                let bytes = fs::read(path.below(root.place())).expect("read");
                *content = Some(ContentHash(xxhash_rust::xxh3::xxh3_128(&bytes)));
            }
            if file_type == FileType::Directory {
                waiting.push(path.clone());
            }
            found.insert(path, (node, observed));
        }
    }
    found
}

/// The changeset applied to what was there gives what is there, every entry has its parents, and the index knows all.
fn check(before: &Tree, changes: &Changes, root: &Root, index: &RootIndex) {
    let after = survey(root);
    let mut model: BTreeMap<&ImagePath, &Node> = before.iter().map(|(path, (node, _))| (path, node)).collect();
    for (path, change) in changes.iter() {
        let parent = path.parent().filter(|parent| !parent.is_root());
        assert!(parent.is_none_or(|parent| changes.get(&parent).is_some()), "{path} has no parent");
        match change {
            Change::Removed => model.retain(|at, _| !at.is_within(path)),
            Change::Parent(node) => assert_eq!(model.get(path), Some(&node), "{path} is unchanged"),
            Change::Added(node) => assert_eq!(model.insert(path, node), None, "{path} is new"),
            Change::Modified(node) => {
                if !node.is_directory() {
                    model.retain(|at, _| !at.is_within(path));
                }
                assert!(before.contains_key(path), "{path} was there");
                model.insert(path, node);
            }
            Change::Link { first, node } => {
                assert!(matches!(changes.get(first), Some(Change::Added(_) | Change::Modified(_))), "{path}");
                assert_eq!(after[first].1.inode, after[path].1.inode, "{path} is {first}");
                model.insert(path, node);
            }
        }
    }
    let disk: BTreeMap<&ImagePath, &Node> = after.iter().map(|(path, (node, _))| (path, node)).collect();
    assert_eq!(model, disk);
    assert_eq!(index.len(), after.len() + 1);
    for (path, (node, observed)) in &after {
        let entry = index.get(path).expect("the index knows what is there");
        assert_eq!((&entry.node, entry.observed), (node, Some(*observed)), "{path}");
    }
}

fn kinds(changes: &Changes) -> Vec<String> {
    let letter = |change: &Change| match change {
        Change::Added(_) => "A",
        Change::Modified(_) => "M",
        Change::Link { .. } => "L",
        Change::Parent(_) => "P",
        Change::Removed => "R",
    };
    changes.iter().map(|(path, change)| format!("{} {path}", letter(change))).collect()
}

#[test]
fn destinations() {
    let root = [
        "etc/motd",
        "srv/real/keep",
        "opt/dir -> /srv/real",
        "opt/file -> ../etc/motd",
        "opt/bad -> /no/such",
        "work/",
    ];
    let context = ["a", "b", "d/x", "d/sub/y"];
    let d_in = |at: &str| vec![format!("A {at}"), format!("A {at}/sub"), format!("A {at}/sub/y"), format!("A {at}/x")];
    let list = |rows: &[&str]| rows.iter().map(|row| row.to_string()).collect::<Vec<_>>();
    for (sources, destination, changes) in [
        (&["a"][..], "/f", Some(list(&["A /f"]))),
        (&["a"], "/n/", Some(list(&["A /n", "A /n/a"]))),
        (&["a"], "/n/.", Some(list(&["A /n", "A /n/a"]))),
        (&["a"], "n/m", Some(list(&["P /work", "A /work/n", "A /work/n/m"]))),
        (&["a"], ".", Some(list(&["P /work", "A /work/a"]))),
        (&["a"], "../../up", Some(list(&["A /up"]))),
        (&["a"], "/srv", Some(list(&["P /srv", "A /srv/a"]))),
        (&["a"], "/opt/dir", Some(list(&["P /srv", "P /srv/real", "A /srv/real/a"]))),
        (&["a"], "/opt/dir/f", Some(list(&["P /srv", "P /srv/real", "A /srv/real/f"]))),
        (&["a"], "/opt/file", Some(list(&["P /etc", "M /etc/motd"]))),
        (&["a"], "/opt/bad", Some(list(&["A /no", "A /no/such"]))),
        (&["a"], "/opt/bad/", Some(list(&["A /no", "A /no/such", "A /no/such/a"]))),
        (&["a", "b"], "/f", Some(list(&["A /f"]))),
        (&["a", "b"], "/n/", Some(list(&["A /n", "A /n/a", "A /n/b"]))),
        (&["d"], "/n", Some(d_in("/n"))),
        (&["d/"], "/n/", Some(d_in("/n"))),
        (&["*"], "/n/", Some(list(&["A /n", "A /n/a", "A /n/b", "A /n/sub", "A /n/sub/y", "A /n/x"]))),
        (&["none*"], "/n/", Some(vec![])),
        (&["a"], "/etc/motd/f", None),
        (&["a"], "/etc/motd/", None),
        (&["d"], "/etc/motd", None),
        (&["none"], "/n", None),
    ] {
        let mut fixture = Fixture::new(&root, &context);
        let found = fixture.copy(sources, destination).map(|changeset| kinds(&changeset)).ok();
        assert_eq!(found, changes, "{sources:?} to {destination}");
    }
}

#[test]
fn kinds_that_cannot_replace_each_other() {
    let context = ["d/real", "e/motd/x"];
    let root = ["srv/real/keep", "etc/motd", "opt/motd -> /srv"];
    let mut fixture = Fixture::new(&root, &context);
    assert!(matches!(fixture.copy(&["d"], "/srv"), Err(CopyError::IsADirectory { .. })));
    assert!(matches!(fixture.copy(&["e"], "/etc"), Err(CopyError::NotADirectory { .. })));
    assert!(matches!(fixture.copy(&["e"], "/opt"), Err(CopyError::NotADirectory { .. })));
    let mut fixture = Fixture::new(&root, &context);
    let linked = fixture.copy_with(&["d"], "/srv", |request| request.link = true).expect("copied");
    assert!(matches!(linked.get(&ImagePath::clean("/srv/real")), Some(Change::Modified(_))));
    let linked = fixture.copy_with(&["e/motd/x"], "/opt/motd/x", |request| request.link = true).expect("copied");
    assert_eq!(kinds(&linked), ["P /opt", "M /opt/motd", "A /opt/motd/x"]);
}

#[test]
fn what_stays_the_same_is_no_change() {
    let mut fixture = Fixture::new(&["etc/motd", "etc/two"], &["d/motd", "d/sub/x", "d/link -> x"]);
    assert!(!fixture.copy(&["d"], "/etc/").expect("copied").is_empty());
    assert_eq!(kinds(&fixture.copy(&["d"], "/etc/").expect("copied")), Vec::<String>::new());
    fs::write(fixture.context_place("d/sub/x"), "other").expect("written");
    let changes = kinds(&fixture.copy(&["d"], "/etc/").expect("copied"));
    assert_eq!(changes, ["P /etc", "P /etc/sub", "M /etc/sub/x"]);
}

#[test]
fn existing_directories() {
    let mut fixture = Fixture::new(&["p/sub/keep"], &["d/sub/x"]);
    let mode = |place: PathBuf, mode| fs::set_permissions(place, fs::Permissions::from_mode(mode)).expect("changed");
    mode(fixture.context_place("d"), 0o711);
    mode(fixture.context_place("d/sub"), 0o2750);
    mode(fixture.root_place("p"), 0o700);
    // as the fixture's index does not know of the new mode
    let (node, observed) = survey(&fixture.root).remove(&ImagePath::clean("p")).expect("there");
    fixture.index.insert(&ImagePath::clean("p"), &node, Some(observed), Standing::Image);
    fixture.copy(&["d"], "/p").expect("copied");
    let found = |path: &str| fs::metadata(fixture.root_place(path)).expect("there").mode() & 0o7777;
    assert_eq!((found("p"), found("p/sub")), (0o700, 0o2750));
}

#[test]
fn hard_links_of_the_source() {
    let mut fixture = Fixture::new(&[], &["d/b", "d/x"]);
    for name in ["d/a", "d/c"] {
        fs::hard_link(fixture.context_place("d/b"), fixture.context_place(name)).expect("linked");
    }
    let changes = kinds(&fixture.copy(&["d"], "/n").expect("copied"));
    assert_eq!(changes, ["A /n", "A /n/a", "L /n/b", "L /n/c", "A /n/x"]);
    // the first name leaves the group while it is being made
    let mut fixture = Fixture::new(&[], &["d/b", "x/a"]);
    for name in ["d/a", "d/c"] {
        fs::hard_link(fixture.context_place("d/b"), fixture.context_place(name)).expect("linked");
    }
    let changes = kinds(&fixture.copy(&["d", "x"], "/n").expect("copied"));
    assert_eq!(changes, ["A /n", "A /n/a", "A /n/b", "L /n/c"]);
}

#[test]
fn a_name_of_a_hard_link_becomes_a_file_of_its_own() {
    let mut fixture = Fixture::new(&["u/a"], &["a"]);
    fs::hard_link(fixture.root_place("u/a"), fixture.root_place("u/b")).expect("linked");
    for (path, (node, observed)) in survey(&fixture.root) {
        fixture.index.insert(&path, &node, Some(observed), Standing::Image);
    }
    let changes = kinds(&fixture.copy(&["a"], "/u/b").expect("copied"));
    assert_eq!(changes, ["P /u", "M /u/b"]);
    assert_eq!(fs::metadata(fixture.root_place("u/a")).expect("there").nlink(), 1);
}

#[test]
fn parents_are_kept_from_the_pivot_on() {
    let context = ["src/sub/three", "src/one", "src/skip.md"];
    for (source, excluded, changes) in [
        ("src/sub", None, Some(vec!["A /n", "A /n/src", "A /n/src/sub", "A /n/src/sub/three"])),
        ("src/./sub/three", None, Some(vec!["A /n", "A /n/sub", "A /n/sub/three"])),
        ("**/o*", None, Some(vec!["A /n", "A /n/src", "A /n/src/one"])),
        ("src", Some("**/*.md"), Some(vec!["A /n", "A /n/src", "A /n/src/one", "A /n/src/sub", "A /n/src/sub/three"])),
        ("src/no", None, None),
    ] {
        let mut fixture = Fixture::new(&[], &context);
        let found = fixture.copy_with(&[source], "/n/", |request| {
            request.parents = true;
            request.excludes = PatternList::new(excluded).expect("a good pattern");
        });
        let found = found.map(|changeset| kinds(&changeset)).ok();
        assert_eq!(found, changes.map(|rows| rows.into_iter().map(str::to_owned).collect()), "{source}");
    }
}

/// What is copied to a mount is in the image; what is mounted stays as it is.
#[test]
fn what_belongs_to_the_machine_is_left_alone() {
    let context = ["etc/hosts", "etc/motd", "proc/1/stat", "usr/x"];
    let mut fixture = Fixture::new(&["etc/hosts", "proc/"], &context);
    for path in ["/etc/hosts", "/proc"].map(ImagePath::clean) {
        fixture.index.remove(&path);
        fixture.ignored.add_untouchable(path);
    }
    let refused = |result: Result<Changes, CopyError>| matches!(result, Err(CopyError::Untouchable { .. }));
    assert!(refused(fixture.copy(&["usr/x"], "/etc/hosts")), "a root that has nowhere to put it");
    assert!(refused(fixture.copy(&["usr/x"], "/proc/")));

    let beside = fixture.place.path().join("beside");
    fs::create_dir(&beside).expect("made");
    fixture.root = fixture.root.with_masked(fixture.ignored.clone(), &beside).expect("opened");
    let before = survey(&Root::open(fixture.root.place()).expect("opened"));
    let workdir = ImagePath::root();
    for (source, destination, changes) in [
        ("usr/x", "/etc/hosts", vec!["P /etc", "A /etc/hosts"]),
        ("usr/x", "/etc/hosts", vec![]),
        ("usr/x", "/proc/", vec!["A /proc", "A /proc/x"]),
        (
            ".",
            "/",
            vec![
                "M /etc",
                "M /etc/hosts",
                "A /etc/motd",
                "M /proc",
                "A /proc/1",
                "A /proc/1/stat",
                "A /usr",
                "A /usr/x",
            ],
        ),
    ] {
        let request = request(&fixture.context, &[source], destination, &workdir);
        let found = run(&request, &fixture.root, &mut fixture.index, &fixture.ignored).expect("copied");
        assert_eq!(kinds(&found), changes, "{source} {destination}");
    }
    let mut after = survey(&Root::open(fixture.root.place()).expect("opened"));
    assert!(after.remove(&ImagePath::clean("/etc/motd")).is_some());
    for path in ["/etc/hosts", "/proc"].map(ImagePath::clean) {
        assert_eq!(before[&path], after[&path], "{path}");
    }
    assert!(!after.contains_key(&ImagePath::clean("/proc/1")));
    for (path, text) in [("etc/hosts", "etc/hosts"), ("proc/x", "usr/x"), ("proc/1/stat", "proc/1/stat")] {
        assert_eq!(fs::read_to_string(beside.join(path)).expect("read"), text);
        let entry = fixture.index.get(&ImagePath::clean(path)).expect("known");
        assert_eq!(entry.standing, Standing::Masked);
        let (node, observed) = fixture.root.node(&ImagePath::clean(path)).expect("looked").expect("there");
        assert_eq!((entry.node.mode, entry.observed), (node.mode, Some(observed)), "{path}");
    }
}

/// A device that could not be made is in the origin's index alone: what that says of it is copied.
#[test]
fn devices_that_are_not_on_disk() {
    let mut origin = RootIndex::new();
    let device = Node {
        kind: Kind::BlockDevice { major: 7, minor: 300 },
        mode: 0o660,
        uid: 3,
        gid: 4,
        mtime: Timestamp::from_seconds(1_500_000_000),
        xattrs: Vec::new(),
    };
    let at = ImagePath::clean("box/disk");
    let workdir = ImagePath::root();
    for (source, parents, destination, becomes) in [
        ("box", false, "/all/", "/all/disk"),
        ("box/disk", false, "/one", "/one"),
        ("b?x/d*", false, "/wild/", "/wild/disk"),
        ("link", false, "/linked/", "/linked/link"),
        ("box/./disk", true, "/parents/", "/parents/disk"),
    ] {
        let mut fixture = Fixture::new(&[], &["box/", "box/file", "link -> box/disk"]);
        for (path, (node, observed)) in survey(&fixture.context) {
            origin.insert(&path, &node, Some(observed), Standing::Image);
        }
        origin.insert(&at, &device, None, Standing::Masked);
        let mut request = request(&fixture.context, &[source], destination, &workdir);
        request.origin = Origin::Tree { root: &fixture.context, index: Some(&origin) };
        (request.owner, request.parents) = (None, parents);
        let changes = run(&request, &fixture.root, &mut fixture.index, &fixture.ignored).expect("copied");
        let becomes = ImagePath::clean(becomes);
        assert_eq!(changes.get(&becomes), Some(&Change::Added(device.clone())), "{source}");
        assert_eq!(fixture.index.get(&becomes).expect("known").node, device, "{source}");

        request.owner = Some((5, 6));
        request.mode = Some(ModeSpec::parse("600").expect("a mode"));
        let changes = run(&request, &fixture.root, &mut fixture.index, &fixture.ignored).expect("copied again");
        let changed = Node { mode: 0o600, uid: 5, gid: 6, ..device.clone() };
        assert_eq!(changes.get(&becomes), Some(&Change::Modified(changed)), "{source}");
    }
    let fixture = Fixture::new(&[], &["box/"]);
    let none = find_sources(&Origin::Tree { root: &fixture.context, index: Some(&origin) }, b"box/other");
    assert!(matches!(none, Err(CopyError::SourceNotFound { .. })));
}

#[test]
fn directories_that_only_the_machine_had_become_the_image_s() {
    let mut fixture = Fixture::new(&["etc/", "etc/hosts"], &["a"]);
    for path in ["/etc", "/etc/hosts"] {
        let id = fixture.index.lookup(&ImagePath::clean(path)).expect("known");
        fixture.index.set_standing(id, Standing::Foreign);
    }
    let workdir = ImagePath::root();
    let request = request(&fixture.context, &["a"], "/etc/a", &workdir);
    let changes = run(&request, &fixture.root, &mut fixture.index, &fixture.ignored).expect("copied");
    assert_eq!(kinds(&changes), ["A /etc", "A /etc/a"]);
    let standing = |path: &str| fixture.index.get(&ImagePath::clean(path)).map(|entry| entry.standing);
    assert_eq!((standing("/etc"), standing("/etc/hosts")), (Some(Standing::Image), Some(Standing::Foreign)));
}

#[test]
fn heredocs_and_downloads() {
    let mut fixture = Fixture::new(&["work/"], &["a"]);
    let place = fixture.context_place("a");
    let mtime = Timestamp::from_seconds(1_000_000_000);
    let workdir = ImagePath::clean("/work");
    let mut request = request(&fixture.context, &[], "sub/", &workdir);
    request.sources = vec![
        SourceItem::Heredoc { name: b"EOF".to_vec(), bytes: b"text\n" },
        SourceItem::Download { name: b"f".to_vec(), place: &place, mtime },
    ];
    request.mode = Some(ModeSpec::parse("u+x").expect("a good mode"));
    let changes = run(&request, &fixture.root, &mut fixture.index, &fixture.ignored).expect("copied");
    let node = |path: &str| changes.get(&ImagePath::clean(path)).and_then(Change::node).expect("copied");
    assert_eq!((node("/work/sub/EOF").mode, node("/work/sub/EOF").mtime), (0o744, NOW));
    assert_eq!((node("/work/sub/f").mode, node("/work/sub/f").mtime), (0o700, mtime));
    assert_eq!(fs::read(fixture.root_place("work/sub/EOF")).expect("there"), b"text\n");
}

/// In a file, in an archive and in a download alike.
#[test]
fn long_runs_of_zeros_become_holes() {
    let mut fixture = Fixture::new(&["work/"], &["file"]);
    let text = format!("{}text{}", "\0".repeat(600_000), "\0".repeat(700_000));
    let file = fs::File::create(fixture.context_place("file")).expect("created");
    file.set_len(1_300_004).expect("grown");
    file.write_all_at(b"text", 600_000).expect("written");
    fs::write(fixture.context_place("full"), &text).expect("written");
    let archive = tar_of(&[("before", tar::EntryType::Regular, "b"), ("member", tar::EntryType::Regular, &text)]);
    fs::write(fixture.context_place("archive"), archive).expect("written");
    fixture.copy(&["file", "full"], "/").expect("copied");
    fixture.copy_with(&["archive"], "/", |request| request.unpack = Unpack::Local).expect("unpacked");
    let place = fixture.context_place("full");
    let workdir = ImagePath::root();
    let mut request = request(&fixture.context, &[], "/", &workdir);
    request.sources = vec![SourceItem::Download { name: b"load".to_vec(), place: &place, mtime: NOW }];
    copy(&request, &fixture.root, &mut fixture.index, &fixture.ignored).expect("copied");
    for name in ["file", "full", "member", "load"] {
        let place = fixture.root_place(name);
        assert!(fs::read(&place).expect("read") == text.as_bytes(), "{name}");
        let on_disk = fs::metadata(&place).expect("there").blocks() * 512;
        assert!(on_disk < 200_000, "{name}: {on_disk} bytes on disk");
    }
}

#[test]
fn the_same_with_any_number_of_threads() {
    let names: Vec<String> = (0..600).map(|number| format!("d/{}/{number}", number % 7)).collect();
    let context: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut fixture = Fixture::new(&[], &context);
    let run = |threads: usize, fixture: &mut Fixture, destination: &str| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| fixture.copy(&["d"], destination)).expect("copied")
    };
    let one = run(1, &mut fixture, "/x");
    let eight = run(8, &mut fixture, "/y");
    let nodes =
        |changes: &Changes| -> Vec<Option<Node>> { changes.values().map(|change| change.node().cloned()).collect() };
    assert_eq!(one.len(), 1 + 7 + 600);
    assert_eq!(nodes(&one), nodes(&eight));
}

/// A tar of (name, kind, content or target).
fn tar_of(members: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for &(name, entry_type, text) in members {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(entry_type);
        header.set_mode(0o750);
        header.set_mtime(1_500_000_000);
        // past the checks of `Builder`, which refuses what a hostile archive holds
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        let is_link = matches!(entry_type, tar::EntryType::Link | tar::EntryType::Symlink);
        if is_link {
            header.set_link_name_literal(text).expect("short");
        }
        let content = if is_link { &[] } else { text.as_bytes() };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).expect("appended");
    }
    builder.into_inner().expect("a tar")
}

#[test]
fn archives() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let root = ["dst/old/keep", "dst/gone", "dst/here/x", "dst/out -> /else", "else/"];
    for (members, changes) in [
        (&[("./", Directory, ""), ("f", Regular, "text")][..], Some(vec!["P /dst", "A /dst/f"])),
        (&[("a/b/c", Regular, "x")], Some(vec!["P /dst", "A /dst/a", "A /dst/a/b", "A /dst/a/b/c"])),
        (&[("/abs", Regular, "x")], Some(vec!["P /dst", "A /dst/abs"])),
        (&[("b", Regular, "x"), ("a", Link, "b")], Some(vec!["P /dst", "A /dst/a", "L /dst/b"])),
        (&[("old", Directory, "")], Some(vec!["P /dst", "M /dst/old"])),
        (&[("here", Regular, "now a file")], Some(vec!["P /dst", "M /dst/here"])),
        (&[("out", Directory, ""), ("out/f", Regular, "x")], Some(vec!["P /dst", "M /dst/out", "A /dst/out/f"])),
        (&[("out/f", Regular, "x")], Some(vec!["P /else", "A /else/f"])),
        (&[("l", Symlink, "/etc"), ("l/f", Regular, "x")], Some(vec!["P /dst", "A /dst/l", "A /etc", "A /etc/f"])),
        (&[(".wh.gone", Regular, "")], Some(vec!["P /dst", "R /dst/gone"])),
        (
            &[("new/a", Regular, "x"), (".wh.new", Regular, ""), ("new/b", Regular, "x")],
            Some(vec!["P /dst", "A /dst/new", "A /dst/new/b"]),
        ),
        (
            &[(".wh.old", Regular, ""), ("old/new", Regular, "x")],
            Some(vec!["P /dst", "M /dst/old", "R /dst/old/keep", "A /dst/old/new"]),
        ),
        (&[(".wh.old", Regular, ""), ("old", Regular, "x")], Some(vec!["P /dst", "M /dst/old"])),
        (&[("../x", Regular, "x")], None),
        (&[("l", Link, "../../etc/passwd")], None),
        (&[("l", Link, "missing")], None),
    ] {
        let mut fixture = Fixture::new(&root, &["arc"]);
        fs::write(fixture.context_place("arc"), tar_of(members)).expect("written");
        let found = fixture.copy_with(&["arc"], "/dst", |request| request.unpack = Unpack::Local);
        let found = found.map(|changeset| kinds(&changeset)).ok();
        assert_eq!(found, changes.map(|rows| rows.into_iter().map(str::to_owned).collect()), "{members:?}");
    }
}

/// What a header may make us keep in memory has a limit.
#[test]
fn archives_with_endless_names() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(8 << 30);
    header.set_cksum();
    let mut archive = tar_of(&[("f", tar::EntryType::Regular, "text")]);
    archive.truncate(archive.len() - 1024);
    archive.extend(header.as_bytes());
    let mut fixture = Fixture::new(&[], &["arc"]);
    fs::write(fixture.context_place("arc"), archive).expect("written");
    let error = fixture.copy_with(&["arc"], "/dst", |request| request.unpack = Unpack::Local).expect_err("refused");
    let CopyError::Archive { source, .. } = error else { panic!("{error:?}") };
    assert!(source.to_string().contains("more than 1 MiB of extensions"), "{source}");
}

/// The tar of a whole root, as `FROM scratch` and `ADD rootfs.tar /` begin most bases.
#[test]
fn archives_leave_alone_what_belongs_to_the_machine() {
    use tar::EntryType::{Directory, Regular, Symlink};
    let mut fixture = Fixture::new(&["etc/hosts", "dev/"], &["arc"]);
    for path in ["/etc/hosts", "/dev"].map(ImagePath::clean) {
        fixture.index.remove(&path);
        fixture.ignored.add_untouchable(path);
    }
    let beside = fixture.place.path().join("beside");
    fs::create_dir(&beside).expect("made");
    fixture.root = fixture.root.with_masked(fixture.ignored.clone(), &beside).expect("opened");
    let members = [
        ("./", Directory, ""),
        ("dev/", Directory, ""),
        ("dev/fd", Symlink, "/proc/self/fd"),
        ("dev/shm/x", Regular, "x"),
        ("etc/", Directory, ""),
        ("etc/hosts", Regular, "127.0.0.1 localhost"),
        ("etc/motd", Regular, "hello"),
    ];
    fs::write(fixture.context_place("arc"), tar_of(&members)).expect("written");
    let workdir = ImagePath::root();
    let mut request = request(&fixture.context, &["arc"], "/", &workdir);
    request.unpack = Unpack::Local;
    let found = run(&request, &fixture.root, &mut fixture.index, &fixture.ignored).expect("unpacked");
    let expected = ["A /dev", "A /dev/fd", "A /dev/shm", "A /dev/shm/x", "M /etc", "A /etc/hosts", "A /etc/motd"];
    assert_eq!(kinds(&found), expected, "they are in the image all the same");
    assert_eq!(fs::read_to_string(beside.join("dev/shm/x")).expect("read"), "x");
    assert_eq!(fs::read_to_string(fixture.root_place("etc/hosts")).expect("read"), "etc/hosts");
    assert_eq!(fs::read_dir(fixture.root_place("dev")).expect("listed").count(), 0);
}

#[test]
fn what_is_no_archive_is_copied() {
    let mut cut = tar_of(&[("f", tar::EntryType::Regular, "text")]);
    cut.truncate(100);
    for bytes in [b"text".to_vec(), vec![0; 1024], vec![b'x'; 2000], cut, vec![0x1f, 0x8b, 8, 0]] {
        let mut fixture = Fixture::new(&[], &["arc"]);
        fs::write(fixture.context_place("arc"), &bytes).expect("written");
        let changes = fixture.copy_with(&["arc"], "/dst/", |request| request.unpack = Unpack::Local).expect("copied");
        assert_eq!(kinds(&changes), ["A /dst", "A /dst/arc"], "{} bytes", bytes.len());
    }
    let mut torn = tar_of(&[("f", tar::EntryType::Regular, &"text".repeat(500))]);
    torn.truncate(1000);
    let mut fixture = Fixture::new(&[], &["arc"]);
    fs::write(fixture.context_place("arc"), torn).expect("written");
    let torn = fixture.copy_with(&["arc"], "/dst/", |request| request.unpack = Unpack::Local);
    assert!(matches!(torn, Err(CopyError::Archive { .. })));
}

#[test]
fn workdirs() {
    for (path, resolved, changes) in [
        ("/a/b", "/a/b", Some(vec!["A /a", "A /a/b"])),
        ("/srv", "/srv", Some(vec![])),
        ("/opt/dir/x", "/srv/x", Some(vec!["P /srv", "A /srv/x"])),
        ("/opt/bad", "/no/such", Some(vec!["A /no", "A /no/such"])),
        ("/etc/motd", "", None),
        ("/etc/motd/x", "", None),
        ("/", "/", Some(vec![])),
    ] {
        let mut fixture = Fixture::new(&["srv/", "opt/dir -> /srv", "opt/bad -> /no/such", "etc/motd"], &[]);
        let own = fs::metadata(fixture.place.path()).expect("there");
        let (root, ignored) = (&fixture.root, &fixture.ignored);
        let before = survey(root);
        let path = ImagePath::clean(path);
        let made = make_workdir(&path, (own.uid(), own.gid()), NOW, root, &mut fixture.index, ignored).ok();
        let made = made.map(|(resolved, changeset)| (resolved, changeset.changes(&fixture.index).collect()));
        if let Some((_, changes)) = &made {
            check(&before, changes, root, &fixture.index);
        }
        let found = made.map(|(resolved, changeset)| (resolved.to_string(), kinds(&changeset)));
        let expected = changes.map(|rows| (resolved.to_owned(), rows.into_iter().map(str::to_owned).collect()));
        assert_eq!(found, expected, "{path}");
    }
}
