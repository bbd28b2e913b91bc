//! Layers: whatever a tar says, nothing is written beside the root, and root and index say the same.
#![no_main]

use std::collections::BTreeSet;
use std::fs;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kanna::layer::{LayerBlob, apply};
use kanna::oci::{Descriptor, DiffId, Digest, media_type};
use kanna::rootfs::{Ignored, Root};
use kanna::tree::{ImagePath, RootIndex};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|tar: &[u8]| {
    let place = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let (at, beside) = (place.path().join("root"), place.path().join("beside"));
    fs::create_dir(&at).expect("made");
    fs::write(&beside, "untouched").expect("written");
    let root = Root::open(&at).expect("opened");
    let (mut index, ignored) = (RootIndex::new(), Ignored::new());
    let descriptor = Descriptor::new(media_type::OCI_LAYER, Digest::of(tar), tar.len() as u64);
    let layer = LayerBlob { descriptor, diff_id: DiffId::of(tar) };
    let mut open = |_: &LayerBlob| Ok(Box::new(Cursor::new(tar.to_vec())) as Box<_>);
    let applied = apply(&[layer], &mut open, &root, &mut index, &ignored);
    let names: BTreeSet<_> =
        fs::read_dir(place.path()).expect("read").map(|one| one.expect("read").file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(fs::read(&beside).expect("there"), b"untouched");
    if applied.is_ok() {
        let known: BTreeSet<Vec<u8>> =
            index.subtree(index.root()).map(|id| index.path(id).relative().to_vec()).collect();
        let mut there = BTreeSet::from([Vec::new()]);
        walk(&at, &at, &mut there);
        assert_eq!(known, there);
        for path in &there {
            let (node, _) = root.node(&ImagePath::clean(path)).expect("read").expect("there");
            let known = index.get(&ImagePath::clean(path)).expect("known").node;
            assert_eq!((node.mode, node.uid, node.gid), (known.mode, known.uid, known.gid), "{path:?}");
        }
    }
});

fn walk(top: &Path, directory: &Path, there: &mut BTreeSet<Vec<u8>>) {
    for entry in fs::read_dir(directory).expect("read") {
        let path = entry.expect("read").path();
        there.insert(path.strip_prefix(top).expect("below").as_os_str().as_bytes().to_vec());
        if fs::symlink_metadata(&path).expect("there").is_dir() {
            walk(top, &path, there);
        }
    }
}
