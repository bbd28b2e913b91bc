//! Layers as a whole: written, applied, hostile, reset.

#![expect(clippy::print_stdout, reason = "a test that cannot run here says why")]

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io::Read;

use super::*;
use crate::oci::Descriptor;
use crate::rootfs::{Ignored, Root};
use crate::sys::nix::unistd::geteuid;
use crate::tree::{ContentHash, Observed, RootIndex, Standing};

use crate::blobs::BlobStore;
use crate::tree::{Change, ImagePath, Kind, Node, Timestamp};
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// An entry of a tar made by hand: kind, name, link target, content.
type Row<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

fn tar_of(rows: &[Row<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, link, content) in rows {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(if *kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_mtime(1_600_000_000);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, *content).expect("appended");
    }
    builder.into_inner().expect("a tar")
}

struct Place {
    directory: tempfile::TempDir,
    root: Root,
    index: RootIndex,
    ignored: Ignored,
    /// The layers that were asked for.
    opened: Vec<usize>,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("root")).expect("made");
        let root = Root::open(&directory.path().join("root")).expect("opened");
        Place { directory, root, index: RootIndex::new(), ignored: Ignored::new(), opened: Vec::new() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join("root").join(name)
    }

    /// Makes the place hold what the layers say, whatever it holds; gives the number of paths that had to go.
    fn apply(&mut self, tars: &[Vec<u8>]) -> Result<usize, Error> {
        let layers: Vec<LayerBlob> = tars
            .iter()
            .map(|tar| LayerBlob {
                descriptor: Descriptor::new("x", Digest::of(tar), tar.len() as u64),
                diff_id: DiffId::of(tar),
            })
            .collect();
        let Place { root, index, ignored, opened, .. } = self;
        let mut open = |layer: &LayerBlob| -> Result<Box<dyn Read + Send>, Box<dyn StdError + Send + Sync>> {
            let number = layers.iter().position(|other| other == layer).expect("a layer of the list");
            opened.push(number);
            Ok(Box::new(io::Cursor::new(tars[number].clone())))
        };
        if index.subtree(index.root()).all(|id| index.standing(id) == Standing::Foreign) {
            return apply(&layers, &mut open, root, index, ignored).map(|()| 0);
        }
        describe(&layers, &mut open, root, ignored)?.realize(&mut open, root, index, ignored)
    }

    fn names(&self) -> Vec<String> {
        self.index.subtree(self.index.root()).map(|id| self.index.path(id).to_string()).collect()
    }
}

/// Members belong to root unless they say otherwise, and only root can give files away.
fn is_plain_user() -> bool {
    let plain = !geteuid().is_root();
    if plain {
        println!("skipped: needs root");
    }
    plain
}

const FILE: EntryType = EntryType::Regular;
const DIR: EntryType = EntryType::Directory;

#[test]
fn whiteouts_and_opaque_directories() {
    if is_plain_user() {
        return;
    }
    let mut place = Place::new();
    let lower = tar_of(&[
        (DIR, "a/", "", b""),
        (FILE, "a/one", "", b"1"),
        (FILE, "a/two", "", b"2"),
        (DIR, "b/", "", b""),
        (FILE, "b/old", "", b"old"),
        (DIR, "c/d/", "", b""),
        (FILE, "c/d/deep", "", b"deep"),
    ]);
    let upper = tar_of(&[
        (FILE, "a/.wh.one", "", b""),
        (FILE, "b/new", "", b"new"),
        (FILE, "b/.wh..wh..opq", "", b""),
        (FILE, ".wh.c", "", b""),
    ]);
    place.apply(&[lower, upper]).expect("applied");
    assert_eq!(place.names(), ["/", "/a", "/a/two", "/b", "/b/new"]);
    assert!(!place.path("a/one").exists() && !place.path("b/old").exists() && !place.path("c").exists());
    assert_eq!(fs::metadata(place.path("a")).expect("there").mtime(), 1_600_000_000, "a directory keeps its mtime");
}

#[test]
fn nothing_leaves_the_root() {
    if is_plain_user() {
        return;
    }
    let outside = tempfile::tempdir().expect("a directory");
    fs::write(outside.path().join("victim"), "safe").expect("written");
    let target = outside.path().to_string_lossy().into_owned();
    let through_link = tar_of(&[(EntryType::Symlink, "link", &target, b""), (FILE, "link/victim", "", b"hit")]);
    let mut place = Place::new();
    place.apply(&[through_link]).expect("stays inside the root");
    let hard = tar_of(&[(EntryType::Link, "hard", &format!("{target}/victim"), b"")]);
    assert!(matches!(Place::new().apply(&[hard]), Err(Error::Entry { .. })));
    for name in ["../x", "a/../../x", "../../../../../../etc/x"] {
        let climbing = tar_of(&[(FILE, name, "", b"x")]);
        assert!(matches!(Place::new().apply(&[climbing]), Err(Error::Path { .. })), "{name}");
    }
    assert_eq!(fs::read_to_string(outside.path().join("victim")).expect("read"), "safe");
    assert_eq!(fs::read_dir(outside.path()).expect("listed").count(), 1);
}

#[test]
fn broken_layers_are_errors() {
    if is_plain_user() {
        return;
    }
    let good = tar_of(&[(FILE, "a", "", &[7; 3000])]);
    let cut = good[..1500].to_vec();
    assert!(matches!(Place::new().apply(&[cut]), Err(Error::Content { .. })));
    let mut lying = good.clone();
    let mut header = Header::new_gnu();
    header.set_size(10 * 1024 * 1024 * 1024);
    header.as_old_mut().name[0] = b'a';
    header.set_cksum();
    lying[..512].copy_from_slice(header.as_bytes());
    assert!(matches!(Place::new().apply(&[lying]), Err(Error::Content { .. })));
    let mut other = Place::new();
    let layer = LayerBlob { descriptor: Descriptor::new("x", Digest::of(&good), 1), diff_id: DiffId::of(b"another") };
    let mut open = |_: &LayerBlob| -> Result<Box<dyn Read + Send>, Box<dyn StdError + Send + Sync>> {
        Ok(Box::new(io::Cursor::new(good.clone())))
    };
    let wrong = apply(&[layer], &mut open, &other.root, &mut other.index, &Ignored::new());
    assert!(matches!(wrong, Err(Error::WrongDiffId { .. })));
}

#[test]
fn one_kind_replaces_another() {
    if is_plain_user() {
        return;
    }
    let mut place = Place::new();
    let lower = tar_of(&[
        (DIR, "a/", "", b""),
        (FILE, "a/x", "", b"x"),
        (FILE, "b", "", b"b"),
        (EntryType::Symlink, "c", "a", b""),
    ]);
    let upper =
        tar_of(&[(FILE, "a", "", b"now a file"), (DIR, "b/", "", b""), (FILE, "b/y", "", b"y"), (DIR, "c/", "", b"")]);
    place.apply(&[lower, upper]).expect("applied");
    assert_eq!(place.names(), ["/", "/a", "/b", "/b/y", "/c"]);
    assert!(place.path("a").is_file() && fs::symlink_metadata(place.path("c")).expect("there").is_dir());
}

#[test]
fn an_earlier_stage_leaves_nothing() {
    if is_plain_user() {
        return;
    }
    let mut place = Place::new();
    place.apply(&[tar_of(&[(DIR, "a/", "", b""), (FILE, "a/x", "", b"1"), (FILE, "y", "", b"2")])]).expect("applied");
    let applied = place.apply(&[tar_of(&[(FILE, "y", "", b"3")])]).expect("applied");
    assert_eq!(applied, 3);
    assert_eq!(place.names(), ["/", "/y"]);
    assert_eq!(fs::read_to_string(place.path("y")).expect("read"), "3");
}

/// What is written from a root and applied to another gives the same tree.
#[test]
fn written_and_applied() {
    if is_plain_user() {
        return;
    }
    let source = tempfile::tempdir().expect("a directory");
    let at = |name: &str| source.path().join(name);
    fs::create_dir_all(at("d/e")).expect("made");
    fs::write(at("d/file"), vec![b'z'; 3_000_000]).expect("written");
    fs::hard_link(at("d/file"), at("d/same")).expect("linked");
    symlink("../d/file", at("d/e/link")).expect("linked");
    let long = "n".repeat(200);
    fs::write(at(&long), "long name").expect("written");
    let root = Root::open(source.path()).expect("opened");
    let mut changeset = BTreeMap::new();
    let mut add = |name: &str| {
        let path = ImagePath::clean(name);
        let (node, _) = root.node(&path).expect("looked").expect("there");
        let node = Node { mtime: Timestamp { seconds: 5, nanoseconds: 7 }, ..node };
        let change = match name {
            "d/same" => Change::Link { first: ImagePath::clean("d/file"), node },
            _ => Change::Added(node),
        };
        changeset.insert(path, change);
    };
    ["d", "d/e", "d/e/link", "d/file", "d/same", &long].into_iter().for_each(&mut add);
    changeset.insert(ImagePath::clean("gone/away"), Change::Removed);

    let store = BlobStore::open(&source.path().join("store")).expect("opened");
    let layer = |method: Method, threads| {
        let threads = NonZeroUsize::new(threads).expect("not zero");
        let compression = method.at_level(-1).expect("the default");
        let options = WriteOptions { format: Format::Oci, compression, times: Times::AsTheyAre, threads };
        write(changeset.clone().into_iter(), &root, &store, &options).expect("written")
    };
    let layers = [Method::None, Method::Gzip, Method::Zstd].map(|method| {
        let written = layer(method, 1);
        assert_eq!(written, layer(method, 8), "{method}: the number of threads does not change the bytes");
        written
    });
    assert_eq!(layers[0].descriptor.digest.hex(), layers[0].diff_id.hex());
    for written in layers {
        assert_eq!(written.diff_id.hex(), layer(Method::None, 2).descriptor.digest.hex());
        let mut place = Place::new();
        let blob = LayerBlob { descriptor: written.descriptor.clone(), diff_id: written.diff_id };
        let mut open = |layer: &LayerBlob| -> Result<Box<dyn Read + Send>, Box<dyn StdError + Send + Sync>> {
            Ok(Box::new(store.read(&layer.descriptor.digest)?))
        };
        apply(&[blob], &mut open, &place.root, &mut place.index, &Ignored::new()).expect("applied");
        assert_eq!(place.names(), ["/", "/d", "/d/e", "/d/e/link", "/d/file", "/d/same", format!("/{long}").as_str()]);
        for (path, change) in changeset.iter().filter(|(_, change)| !matches!(change, Change::Removed)) {
            let (found, _) = place.root.node(path).expect("looked").expect("there");
            assert_eq!(Some(&found), change.node(), "{path}");
        }
        let inode = |name: &str| fs::metadata(place.path(name)).expect("there").ino();
        assert_eq!(inode("d/file"), inode("d/same"));
        let read = fs::read(place.path("d/file")).expect("read");
        assert!(read == vec![b'z'; 3_000_000] && Path::new(&place.path(&long)).exists());
        let indexed = place.index.get(&ImagePath::clean("d/file")).expect("known").node;
        assert!(matches!(indexed.kind, Kind::File { content: Some(_), .. }), "the content was hashed on the way");
    }
}

/// The tar of a file with holes is that of the same file written out, and whoever applies it makes holes again.
#[test]
fn holes_are_zeros_in_a_layer() {
    if is_plain_user() {
        return;
    }
    let source = tempfile::tempdir().expect("a directory");
    let [sparse, full] = ["sparse", "full"].map(|name| source.path().join(name));
    let mut bytes = vec![0; 9_000_001];
    bytes[2_500_000..2_600_000].fill(b'x');
    bytes[5_000_000] = b'y';
    let mut changeset = BTreeMap::new();
    for place in [&sparse, &full] {
        fs::create_dir(place).expect("made");
        // so that no block of the tar is a block of the file
        fs::write(place.join("before"), [b'b'; 700]).expect("written");
    }
    fs::write(full.join("file"), &bytes).expect("written");
    let file = fs::File::create(sparse.join("file")).expect("created");
    file.set_len(bytes.len() as u64).expect("grown");
    file.write_all_at(&bytes[2_500_000..2_600_000], 2_500_000).expect("written");
    file.write_all_at(b"y", 5_000_000).expect("written");
    for (name, size) in [("before", 700), ("file", bytes.len() as u64)] {
        let kind = Kind::File { size, content: None };
        let node = Node { kind, mode: 0o644, uid: 0, gid: 0, mtime: Timestamp::EPOCH, xattrs: Vec::new() };
        changeset.insert(ImagePath::clean(name), Change::Added(node));
    }
    let store = BlobStore::open(&source.path().join("store")).expect("opened");
    for method in [Method::None, Method::Gzip, Method::Zstd] {
        let layer = |place: &Path, threads| {
            let threads = NonZeroUsize::new(threads).expect("not zero");
            let compression = method.at_level(-1).expect("the default");
            let options = WriteOptions { format: Format::Oci, compression, times: Times::AsTheyAre, threads };
            let changes = changeset.clone().into_iter();
            write(changes, &Root::open(place).expect("opened"), &store, &options).expect("written")
        };
        let written = layer(&full, 1);
        assert_eq!([layer(&sparse, 1), layer(&sparse, 4)], [written.clone(), written.clone()], "{method}");
        let mut place = Place::new();
        let blob = LayerBlob { descriptor: written.descriptor, diff_id: written.diff_id };
        let mut open = |layer: &LayerBlob| -> Result<Box<dyn Read + Send>, Box<dyn StdError + Send + Sync>> {
            Ok(Box::new(store.read(&layer.descriptor.digest)?))
        };
        apply(&[blob], &mut open, &place.root, &mut place.index, &Ignored::new()).expect("applied");
        assert_index_is_true(&place);
        assert!(fs::read(place.path("file")).expect("read") == bytes, "{method}");
        let on_disk = fs::metadata(place.path("file")).expect("there").blocks() * 512;
        assert!(on_disk < 500_000, "{method}: {on_disk} bytes on disk");
    }
}

/// Everything an image says of the tree on disk, with contents; hard links by the first of their names.
fn on_disk(place: &Place) -> BTreeMap<String, (Node, Option<ContentHash>, String)> {
    let mut firsts: BTreeMap<u64, String> = BTreeMap::new();
    let mut found = BTreeMap::new();
    let mut left = vec![ImagePath::root()];
    while let Some(directory) = left.pop() {
        let open = place.root.directory(&directory).expect("opened");
        let mut names = open.entries().expect("listed");
        names.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, _) in names {
            let path = directory.join(&name);
            let (node, Observed { inode, .. }) = open.node(&name).expect("looked").expect("there");
            let content = node.is_file().then(|| {
                let bytes = fs::read(place.root.place().join(path.relative_path())).expect("read");
                ContentHash(xxhash_rust::xxh3::xxh3_128(&bytes))
            });
            if node.is_directory() {
                left.push(path.clone());
            }
            let first = firsts.entry(inode).or_insert_with(|| path.to_string()).clone();
            found.insert(path.to_string(), (node, content, first));
        }
    }
    found
}

/// The index must say what is on disk, down to inode and ctime.
fn assert_index_is_true(place: &Place) {
    let disk = on_disk(place);
    let index = &place.index;
    let known: Vec<ImagePath> =
        index.subtree(index.root()).map(|id| index.path(id)).filter(|path| !path.is_root()).collect();
    assert_eq!(known.len(), disk.len(), "{known:?}");
    for path in known {
        let entry = index.get(&path).expect("listed");
        let (mut node, content, _) = disk[&path.to_string()].clone();
        if let (Kind::File { content: slot, .. }, Some(hash)) = (&mut node.kind, content) {
            *slot = Some(hash);
        }
        assert_eq!(entry.node, node, "{path}");
        let (_, observed) = place.root.node(&path).expect("looked").expect("there");
        assert_eq!(entry.observed, Some(observed), "{path}");
    }
}

const LINK: EntryType = EntryType::Link;
const SYMLINK: EntryType = EntryType::Symlink;

/// Bases that differ in every way that a reset must see.
fn bases() -> [Vec<Vec<u8>>; 3] {
    [
        vec![
            tar_of(&[
                (DIR, "same/", "", b""),
                (FILE, "same/file", "", b"stays"),
                (FILE, "content", "", b"one"),
                (FILE, "kind", "", b"file"),
                (DIR, "gone/deep/er/", "", b""),
                (FILE, "gone/deep/er/file", "", b"x"),
                (FILE, "linked", "", b"l"),
                (LINK, "same/link", "linked", b""),
                (SYMLINK, "symlink", "same", b""),
            ]),
            tar_of(&[(FILE, "upper", "", b"u"), (FILE, ".wh.gone", "", b"")]),
        ],
        vec![
            tar_of(&[
                (DIR, "same/", "", b""),
                (FILE, "same/file", "", b"stays"),
                (FILE, "content", "", b"two"),
                (DIR, "kind/", "", b""),
                (FILE, "kind/inside", "", b"i"),
                (FILE, "linked", "", b"l"),
                (FILE, "same/link", "", b"l"),
                (SYMLINK, "symlink", "elsewhere", b""),
            ]),
            tar_of(&[(FILE, "empty", "", b""), (EntryType::Fifo, "pipe", "", b"")]),
        ],
        vec![tar_of(&[(FILE, "a", "", b"a"), (LINK, "b", "a", b""), (LINK, "c", "a", b"")])],
    ]
}

#[test]
fn a_reset_is_as_good_as_a_fresh_root() {
    if is_plain_user() {
        return;
    }
    for first in bases() {
        for second in bases() {
            let mut used = Place::new();
            used.apply(&first).expect("applied");
            assert_index_is_true(&used);
            used.apply(&second).expect("applied");
            let mut fresh = Place::new();
            fresh.apply(&second).expect("applied");
            assert_eq!(on_disk(&used), on_disk(&fresh));
            assert_index_is_true(&used);
            assert_index_is_true(&fresh);
        }
    }
}

#[test]
fn a_reset_to_the_same_base_touches_nothing() {
    if is_plain_user() {
        return;
    }
    let [base, ..] = bases();
    let mut place = Place::new();
    place.apply(&base).expect("applied");
    let before: Vec<_> = place.index.subtree(place.index.root()).map(|id| place.index.entry(id)).collect();
    place.opened.clear();
    assert_eq!(place.apply(&base).expect("applied"), 0);
    assert_eq!(place.opened, [0, 1], "every layer is read once, to learn what it says");
    let after: Vec<_> = place.index.subtree(place.index.root()).map(|id| place.index.entry(id)).collect();
    assert_eq!(before, after, "the same inodes with the same ctimes");
    assert_index_is_true(&place);
}

/// What RUN did between two stages is undone; what was there before the first stays.
#[test]
fn a_reset_undoes_changes_and_keeps_what_is_foreign() {
    if is_plain_user() {
        return;
    }
    let [base, ..] = bases();
    let mut place = Place::new();
    fs::create_dir(place.path("same")).expect("made");
    fs::write(place.path("same/foreign"), "f").expect("written");
    for path in ["same", "same/foreign"].map(ImagePath::clean) {
        let (node, observed) = place.root.node(&path).expect("looked").expect("there");
        place.index.insert(&path, &node, Some(observed), Standing::Foreign);
    }
    place.apply(&base).expect("applied");
    fs::write(place.path("content"), "changed").expect("written");
    fs::remove_file(place.path("upper")).expect("removed");
    fs::write(place.path("new"), "new").expect("written");
    for path in ["content", "new"].map(ImagePath::clean) {
        let (node, observed) = place.root.node(&path).expect("looked").expect("there");
        place.index.insert(&path, &node, Some(observed), Standing::Image);
    }
    place.index.remove(&ImagePath::clean("upper"));
    place.apply(&base).expect("applied");
    assert_eq!(fs::read_to_string(place.path("content")).expect("read"), "one");
    assert_eq!(fs::read_to_string(place.path("upper")).expect("read"), "u");
    assert!(!place.path("new").exists());
    place.apply(&bases()[2]).expect("applied");
    assert_eq!(place.names(), ["/", "/a", "/b", "/c", "/same", "/same/foreign"]);
    assert_eq!(fs::read_to_string(place.path("same/foreign")).expect("read"), "f");
    let same = place.index.get(&ImagePath::clean("same")).expect("known");
    assert_eq!(same.standing, Standing::Foreign, "no layer speaks of it any more");
}

/// Nothing a base says may remove or replace what must not be touched.
#[test]
fn untouchable_paths_are_masked() {
    if is_plain_user() {
        return;
    }
    for upper in [
        tar_of(&[(FILE, "work/store", "", b"hit")]),
        tar_of(&[(FILE, "work", "", b"a file in place of its parent")]),
        tar_of(&[(SYMLINK, "work", "elsewhere", b"")]),
        tar_of(&[(FILE, ".wh.work", "", b"")]),
        tar_of(&[(FILE, "work/.wh..wh..opq", "", b"")]),
        tar_of(&[(FILE, "file", "", b"f"), (LINK, "work/store/link", "file", b"")]),
    ] {
        let mut place = Place::new();
        fs::create_dir_all(place.path("work/store")).expect("made");
        fs::write(place.path("work/store/blob"), "safe").expect("written");
        place.ignored.add_untouchable(ImagePath::clean("work/store"));
        for _ in 0..2 {
            place.apply(std::slice::from_ref(&upper)).expect("applied");
            assert_eq!(fs::read_to_string(place.path("work/store/blob")).expect("read"), "safe");
            assert_eq!(fs::read_dir(place.path("work/store")).expect("listed").count(), 1);
        }
    }
}

/// A symlink that a mount hides still leads where the image says.
#[test]
fn the_index_decides_where_names_lead() {
    if is_plain_user() {
        return;
    }
    let mut place = Place::new();
    fs::create_dir_all(place.path("var/run/secrets")).expect("made");
    place.ignored.add_untouchable(ImagePath::clean("var/run/secrets"));
    let base = tar_of(&[
        (DIR, "run/", "", b""),
        (DIR, "var/", "", b""),
        (SYMLINK, "var/run", "/run", b""),
        (FILE, "var/run/pid", "", b"1"),
    ]);
    place.apply(&[base]).expect("applied");
    assert_eq!(place.names(), ["/", "/run", "/run/pid", "/var", "/var/run"]);
    assert_eq!(place.index.get(&ImagePath::clean("var/run")).expect("known").standing, Standing::Masked);
    assert!(place.path("run/pid").exists() && place.path("var/run/secrets").exists());
}

#[test]
fn hostile_layers_are_errors() {
    if is_plain_user() {
        return;
    }
    let long = "n".repeat(300);
    let deep = "d/".repeat(3000);
    let with_long_name = |name: &str| {
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(0);
        builder.append_data(&mut header, name, &b""[..]).expect("appended");
        builder.into_inner().expect("a tar")
    };
    let huge_extension = {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        let mut tar = header.as_bytes().to_vec();
        tar.resize(1 << 16, b'x');
        tar
    };
    let mut bad_checksum = tar_of(&[(FILE, "a", "", b"x")]);
    bad_checksum[0] ^= 1;
    for (what, tar) in [
        ("long component", with_long_name(&long)),
        ("long path", with_long_name(&deep)),
        ("long name that is no name", huge_extension),
        ("checksum", bad_checksum),
        ("hard link to nothing", tar_of(&[(LINK, "a", "missing", b"")])),
        ("hard link to itself", tar_of(&[(FILE, "a", "", b""), (LINK, "a", "a", b"")])),
        ("hard link to a directory", tar_of(&[(DIR, "d/", "", b""), (LINK, "a", "d", b"")])),
        ("hard link out", tar_of(&[(LINK, "a", "../../etc/passwd", b"")])),
        ("root as a file", tar_of(&[(FILE, "./", "", b""), (SYMLINK, ".", "/", b"")])),
        ("whiteout of nothing", tar_of(&[(FILE, ".wh.", "", b"")])),
        ("whiteout of the parent", tar_of(&[(FILE, "a/.wh...", "", b"")])),
        ("symlink loop", tar_of(&[(SYMLINK, "a", "b", b""), (SYMLINK, "b", "a", b""), (FILE, "a/x", "", b"")])),
        ("unknown kind", tar_of(&[(EntryType::new(b'V'), "a", "", b"")])),
    ] {
        let mut place = Place::new();
        let error = place.apply(&[tar]).expect_err(what);
        assert!(matches!(error, Error::Entry { .. } | Error::Path { .. } | Error::Read { .. }), "{what}: {error}");
    }
}

/// Truncated, with rubbish behind it, with a broken checksum: whatever the compression, never a layer.
#[test]
fn broken_compression_is_an_error() {
    if is_plain_user() {
        return;
    }
    let tar = tar_of(&[(FILE, "a", "", &[7; 100_000])]);
    let gzip = |tar: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut encoder, tar).expect("compressed");
        encoder.finish().expect("finished")
    };
    let zstd = zstd::encode_all(&tar[..], 1).expect("compressed");
    let halves = [gzip(&tar[..50_000]), gzip(&tar[50_000..])].concat();
    let whole = gzip(&tar);
    let mut flipped = whole.clone();
    let checksum = flipped.len() - 8;
    flipped[checksum] ^= 1;
    for (what, blob, fine) in [
        ("gzip", whole.clone(), true),
        ("gzip of two members", halves.clone(), true),
        ("zstd", zstd.clone(), true),
        ("no compression", tar.clone(), true),
        ("cut gzip", whole[..whole.len() - 9].to_vec(), false),
        ("gzip without its last bytes", whole[..whole.len() - 1].to_vec(), false),
        ("half of the members", halves[..gzip(&tar[..50_000]).len()].to_vec(), false),
        ("gzip with rubbish behind it", [&whole[..], b"rubbish"].concat(), false),
        ("gzip with a wrong checksum", flipped, false),
        ("cut zstd", zstd[..zstd.len() - 3].to_vec(), false),
        ("cut tar", tar[..60_000].to_vec(), false),
        ("nothing", Vec::new(), false),
    ] {
        let mut place = Place::new();
        let descriptor = Descriptor::new("x", Digest::of(&blob), blob.len() as u64);
        let layer = LayerBlob { descriptor, diff_id: DiffId::of(&tar) };
        let mut open = |_: &LayerBlob| -> Result<Box<dyn Read + Send>, Box<dyn StdError + Send + Sync>> {
            Ok(Box::new(io::Cursor::new(blob.clone())))
        };
        let applied = apply(&[layer], &mut open, &place.root, &mut place.index, &place.ignored);
        assert_eq!(applied.is_ok(), fine, "{what}: {applied:?}");
    }
}

/// Whiteouts speak of the layers below, wherever in the tar they stand.
#[test]
fn whiteouts_do_not_depend_on_order() {
    if is_plain_user() {
        return;
    }
    let lower = tar_of(&[(DIR, "a/", "", b""), (FILE, "a/old", "", b""), (FILE, "b", "", b"old")]);
    let rows =
        [(FILE, ".wh.a", "", &b""[..]), (FILE, "a/new", "", b"n"), (FILE, ".wh.b", "", b""), (FILE, "b", "", b"new")];
    let mut trees = Vec::new();
    for order in [[0, 1, 2, 3], [1, 0, 3, 2], [3, 1, 0, 2]] {
        let mut place = Place::new();
        place.apply(&[lower.clone(), tar_of(&order.map(|row| rows[row]))]).expect("applied");
        assert_eq!(place.names(), ["/", "/a", "/a/new", "/b"]);
        trees.push(on_disk(&place));
    }
    assert!(trees.windows(2).all(|pair| pair[0] == pair[1]));
}

/// Everything that only root may set, from one root to another.
#[test]
fn devices_owners_and_capabilities_come_back() {
    if is_plain_user() {
        return;
    }
    let source = tempfile::tempdir().expect("a directory");
    let root = Root::open(source.path()).expect("opened");
    let capability = hex::decode("0100000200040000000000000000000000000000").expect("hex");
    let mut changeset = BTreeMap::new();
    let node = |kind, xattrs| Node {
        kind,
        mode: 0o4711,
        uid: 70_000,
        gid: 3_000_000,
        mtime: Timestamp { seconds: -7, nanoseconds: 1 },
        xattrs,
    };
    let file = Kind::File { size: 3, content: None };
    fs::write(source.path().join("tool"), "abc").expect("written");
    let xattrs = vec![
        (Box::from(*b"security.capability"), capability.into_boxed_slice()),
        (Box::from(*b"user.note"), Box::from(*b"\0\n=x")),
    ];
    for (name, node) in [
        (&b"\xff\xfe"[..], node(Kind::Symlink { target: vec![b't'; 200].into() }, Vec::new())),
        (b"char", node(Kind::CharDevice { major: 1, minor: 3 }, Vec::new())),
        (b"block", node(Kind::BlockDevice { major: 259, minor: 70_000 }, Vec::new())),
        (b"fifo", node(Kind::Fifo, Vec::new())),
        (b"tool", node(file, xattrs)),
    ] {
        let mode = if matches!(node.kind, Kind::Symlink { .. }) { 0o777 } else { node.mode };
        changeset.insert(ImagePath::clean(name), Change::Added(Node { mode, ..node }));
    }
    let store = BlobStore::open(&source.path().join("store")).expect("opened");
    let threads = NonZeroUsize::MIN;
    let options =
        WriteOptions { format: Format::Docker, compression: Compression::default(), times: Times::AsTheyAre, threads };
    let written = write(changeset.clone().into_iter(), &root, &store, &options).expect("written");
    let mut tar = Vec::new();
    let blob = store.read(&written.descriptor.digest).expect("opened");
    flate2::read::MultiGzDecoder::new(blob).read_to_end(&mut tar).expect("gzip");
    let mut place = Place::new();
    match place.apply(&[tar]) {
        Err(Error::Root(error)) if error.errno() == Some(crate::sys::Errno::PERM) => {
            println!("skipped: {error}: not allowed here");
            return;
        }
        other => drop(other.expect("applied")),
    }
    for (path, change) in changeset.iter() {
        let entry = place.index.get(path).expect("known");
        if entry.standing == Standing::Masked {
            println!("skipped for {path}: mknod is not allowed here");
            continue;
        }
        let (found, _) = place.root.node(path).expect("looked").expect("there");
        assert_eq!(Some(&found), change.node(), "{path}");
    }
}

#[test]
fn a_file_that_changes_meanwhile_is_an_error() {
    let source = tempfile::tempdir().expect("a directory");
    let root = Root::open(source.path()).expect("opened");
    let store = BlobStore::open(&source.path().join("store")).expect("opened");
    let threads = NonZeroUsize::new(2).expect("not zero");
    let options =
        WriteOptions { format: Format::Oci, compression: Compression::default(), times: Times::AsTheyAre, threads };
    for (data, size, said) in [
        (10, 10, 11),
        (10, 10, 9),
        (300_000, 300_000, 300_001),
        (300_000, 300_000, 299_999),
        (0, 0, 5),
        (0, 0, 300_000),
        // with a hole at the end
        (0, 300_000, 300_001),
        (0, 300_000, 299_999),
        (150_000, 300_000, 900_000),
        (150_000, 300_000, 140_000),
    ] {
        fs::write(source.path().join("f"), vec![b'x'; data]).expect("written");
        fs::File::options().write(true).open(source.path().join("f")).expect("opened").set_len(size).expect("grown");
        let kind = Kind::File { size: said, content: None };
        let node = Node { kind, mode: 0o644, uid: 0, gid: 0, mtime: Timestamp::EPOCH, xattrs: Vec::new() };
        let mut changeset = BTreeMap::new();
        changeset.insert(ImagePath::clean("f"), Change::Added(node.clone()));
        let error = write(changeset.clone().into_iter(), &root, &store, &options).expect_err("it changed");
        assert!(matches!(error, Error::FileChanged { .. }), "{error}");
        changeset.insert(ImagePath::clean("e/missing"), Change::Added(node));
        let error = write(changeset.clone().into_iter(), &root, &store, &options).expect_err("it vanished");
        assert!(matches!(error, Error::Root(_)), "{error}");
    }
    let blobs = fs::read_dir(source.path().join("store/blobs/sha256")).expect("listed").count();
    assert_eq!(blobs, 0, "nothing half-written stays");
}

/// Names of few parts, so that entries meet; kinds that replace each other; whiteouts.
fn any_row() -> impl proptest::strategy::Strategy<Value = (u8, String, String, u8)> {
    use proptest::prelude::*;
    let name =
        || prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|parts| parts.join("/"));
    (0..8_u8, name(), name(), any::<u8>())
}

fn layer_of(rows: &[(u8, String, String, u8)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, link, value) in rows {
        let mut header = Header::new_gnu();
        let content = vec![*value; usize::from(*value % 3) * 700];
        let (parent, last) = name.rsplit_once('/').map_or(("", &**name), |(parent, last)| (parent, last));
        let (entry_type, name, link) = match kind {
            0 | 1 => (FILE, name.clone(), ""),
            2 | 3 => (DIR, format!("{name}/"), ""),
            4 => (SYMLINK, name.clone(), &**link),
            5 => (LINK, name.clone(), &**link),
            6 => (FILE, format!("{parent}/.wh.{last}"), ""),
            _ => (FILE, format!("{parent}/.wh..wh..opq"), ""),
        };
        let content = if matches!(kind, 0 | 1) { &content[..] } else { b"" };
        header.set_entry_type(entry_type);
        header.set_mode(0o700 | u32::from(*value & 0o77));
        header.set_mtime(1_600_000_000 + u64::from(*value % 4));
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, content).expect("appended");
    }
    builder.into_inner().expect("a tar")
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, cases: 300, ..Default::default() })]

    /// Whatever was there before: after `apply` the disk is as if nothing had been, and the index says what the disk says.
    #[test]
    fn any_base_after_any_other(
        first in proptest::collection::vec(proptest::collection::vec(any_row(), 0..8), 1..3),
        second in proptest::collection::vec(proptest::collection::vec(any_row(), 0..8), 1..3),
    ) {
        if is_plain_user() {
            return Ok(());
        }
        let [first, second] = [first, second].map(|layers| layers.iter().map(|rows| layer_of(rows)).collect::<Vec<_>>());
        let mut fresh = Place::new();
        let mut used = Place::new();
        if fresh.apply(&second).is_ok() {
            assert_index_is_true(&fresh);
            // a base that fails half-way leaves something too
            let _ = used.apply(&first);
            used.apply(&second).expect("applied as on the fresh root");
            assert_index_is_true(&used);
            proptest::prop_assert_eq!(on_disk(&used), on_disk(&fresh));
        }
    }
}
