//! Whatever comes from outside is read without a panic and comes to an end: real input, and thousands of variations of it.
//! Errors are fine; that the right ones come is the rooms' own to test. The variations are the same in every run.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use kanna::context::IgnoreFile;
use kanna::credentials::Keychain;
use kanna::image::ImageConfig;
use kanna::layer::{self, LayerBlob};
use kanna::oci::{Descriptor, DiffId, Digest, Index, Manifest, Platform, parse_reference};
use kanna::rootfs::{Ignored, Root};
use kanna::tree::RootIndex;
use kanna::{context, dockerfile};
use tar::EntryType::{Char, Directory, Fifo, GNULongName, Link, Regular, Symlink, XHeader};

use crate::support::folder;
use crate::support::handmade::{Image, tar_of};

/// No variation grows beyond this, so that what is read in time that grows with the square is not waited for.
const MOST_BYTES: usize = 32 * 1024;

/// A fixed sequence of numbers that look random (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    /// Some bytes of `seed` changed, lost, doubled, or mixed with a piece of `other` or of `words`.
    fn vary(&mut self, seed: &[u8], other: &[u8], words: &[&[u8]]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let end = (at + self.below(64)).min(bytes.len());
            match self.below(7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = [0, b'0', b'7', b'\n', b' ', b'"', 0x7f, 0xff][self.below(8)],
                2 => drop(bytes.drain(at..end)),
                3 => bytes.extend_from_within(at..end),
                4 => {
                    let from = self.below(other.len() + 1);
                    let to = (from + self.below(512)).min(other.len());
                    drop(bytes.splice(at..end, other[from..to].iter().copied()));
                }
                5 => bytes.truncate(at),
                _ => drop(bytes.splice(at..at, words[self.below(words.len())].iter().copied())),
            }
            bytes.truncate(MOST_BYTES);
        }
        bytes
    }
}

/// Reads every seed as it is, and in all so many variations.
fn try_all(seeds: &[Vec<u8>], words: &[&[u8]], variations: usize, mut read: impl FnMut(&[u8])) {
    assert!(!seeds.is_empty(), "there is real input");
    seeds.iter().for_each(|seed| read(seed));
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..variations {
        let (one, other) = (dice.below(seeds.len()), dice.below(seeds.len()));
        read(&dice.vary(&seeds[one], &seeds[other], words));
    }
}

/// The files of this name in the conformance cases.
fn of_the_cases(is_one: impl Fn(&Path) -> bool) -> Vec<Vec<u8>> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/cases")];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the cases are there") {
            let entry = entry.expect("an entry");
            match entry.file_type().expect("a type") {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() && is_one(&entry.path()) => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    files.iter().map(|file| fs::read(file).expect("read")).collect()
}

fn has_name(path: &Path, part: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains(part))
}

#[test]
fn dockerfiles() {
    let words: [&[u8]; 16] = [
        b"FROM ",
        b"RUN ",
        b"COPY --from=",
        b"<<EOF\n",
        b"<<-'X'\n",
        b"\nEOF\n",
        b"${A:-",
        b"}",
        b"\\\n",
        b"# escape=`\n",
        b"[\"",
        b"--mount=type=",
        b"ONBUILD ",
        b"HEALTHCHECK --interval=",
        b"$",
        b"'",
    ];
    try_all(&of_the_cases(|path| has_name(path, "Dockerfile")), &words, 6000, |text| drop(dockerfile::parse(text)));
}

#[test]
fn ignore_files() {
    let words: [&[u8]; 8] = [b"!", b"**/", b"*", b"[a-", b"]", b"\\", b"../", b"\n#"];
    try_all(&of_the_cases(|path| has_name(path, ".dockerignore")), &words, 3000, |text| {
        let Ok(file) = IgnoreFile::parse(text) else { return };
        for path in [&b"a"[..], b"a/b/c.txt", b"node_modules/x/y/z", b".git", b"\xff/\xfe"] {
            let _ = file.matches(path);
        }
    });
}

#[test]
fn references_and_platforms() {
    let seeds = ["debian", "r.example:5000/a/b:tag", "a@sha256:", "linux/arm/v7", "[::1]:5000/x", "localhost/UPPER:x"];
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|text| text.as_bytes().to_vec()).collect();
    let words: [&[u8]; 5] = [b"/", b":", b"@sha256:", b"..", b"0123456789abcdef0123456789abcdef"];
    try_all(&seeds, &words, 5000, |text| {
        let text = String::from_utf8_lossy(text);
        let _ = parse_reference(&text);
        let _ = text.parse::<Platform>();
        let _ = text.parse::<Digest>();
    });
}

#[test]
fn manifests_and_configs() {
    let image = Image::of(tar_of(&[(Regular, "file", "", b"content")]));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/base");
    let config = |name: &str| fs::read(folder.join(name)).expect("the base is there");
    let seeds = [image.manifest, image.config, config("base-full.json"), config("base-onbuild.json")];
    let words: [&[u8]; 8] =
        [b"null", b"[[[[[[[[", b"{}", b"-1", b"1e999", b"\"\\ud800\"", b"18446744073709551616", b"\"config\":"];
    try_all(&seeds, &words, 5000, |text| {
        let _ = serde_json::from_slice::<Manifest>(text);
        let _ = serde_json::from_slice::<Index>(text);
        if let Ok(config) = ImageConfig::parse(text, "an image", 1) {
            let _ = config.run_config();
        }
    });
}

#[test]
fn docker_configs() {
    let scratch = tempfile::tempdir_in(folder("foreign_bytes")).expect("a directory");
    let file = scratch.path().join("config.json");
    let seeds = [
        &br#"{"auths": {"https://index.docker.io/v1/": {"auth": "bWU6c2VjcmV0"}, "r.example": {"username": "a", "password": "b"}}}"#[..],
        br#"{"auths": {"r.example/team": {"identitytoken": "x"}}, "credHelpers": {}, "credsStore": ""}"#,
    ];
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|text| text.to_vec()).collect();
    let words: [&[u8]; 5] = [b"\"auth\": \"====\"", b"null", b"{}", b"\"r.example\": ", b"[]"];
    try_all(&seeds, &words, 2000, |text| {
        fs::write(&file, text).expect("written");
        let keychain = Keychain::new(vec![file.clone()]);
        if keychain.load().is_ok() {
            let _ = keychain.for_registry("r.example", "team/app");
        }
    });
}

/// Tars are unpacked for real, each into a new root. Outside of it nothing may change.
#[test]
fn layers() {
    let scratch = tempfile::tempdir_in(folder("foreign_bytes")).expect("a directory");
    let sentinel = scratch.path().join("sentinel");
    fs::write(&sentinel, "untouched").expect("written");
    let seeds = [
        tar_of(&[
            (Directory, "d/", "", b""),
            (Regular, "d/file", "", b"content"),
            (Link, "hard", "d/file", b""),
            (Symlink, "link", "d", b""),
            (Symlink, "up", "../../../..", b""),
            (Regular, "link/through", "", b"x"),
            (Fifo, "pipe", "", b""),
        ]),
        tar_of(&[
            (GNULongName, "././@LongLink", "", b"a/rather/long/name"),
            (Regular, "short", "", b"x"),
            (Regular, "d/.wh.file", "", b""),
            (Regular, ".wh..wh..opq", "", b""),
            (Char, "null", "", b""),
        ]),
        tar_of(&[
            (XHeader, "pax", "", b"14 path=p/long\n22 mtime=1600000000.5\n26 SCHILY.xattr.user.x=y\n"),
            (Regular, "x", "", b"content"),
            (XHeader, "pax", "", b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n27 GNU.sparse.realsize=100\n"),
            (Regular, "sparse", "", &[&b"1\n50\n4\n"[..], &[0; 505], b"data"].concat()),
        ]),
    ];
    let words: [&[u8]; 6] = [b"../", b"\0", b"0000777", b"ustar\0", b"/", b"\x80\0\0\0\0\0\0\0\0\0\x40\0"];
    let mut number = 0;
    try_all(&seeds, &words, 3000, |tar| {
        number += 1;
        let place = scratch.path().join(number.to_string());
        fs::create_dir(&place).expect("created");
        let root = Root::open(&place).expect("opened");
        let blob = Descriptor::new("x", Digest::of(tar), tar.len() as u64);
        let layer = LayerBlob { descriptor: blob, diff_id: DiffId::of(tar) };
        let mut open = |_: &LayerBlob| -> Result<Box<dyn Read + Send>, Box<dyn std::error::Error + Send + Sync>> {
            Ok(Box::new(std::io::Cursor::new(tar.to_vec())))
        };
        let _ = layer::apply(&[layer], &mut open, &root, &mut RootIndex::new(), &Ignored::new());
        fs::remove_dir_all(&place).expect("removed");
    });
    assert_eq!(fs::read_to_string(&sentinel).expect("read"), "untouched");
    assert_eq!(fs::read_dir(scratch.path()).expect("listed").count(), 1, "something was written beside the roots");
}

/// The contexts that travel as tars, which another library unpacks.
#[test]
fn compressed_streams() {
    let tar = tar_of(&[(Regular, "file", "", b"content")]);
    let seeds = [
        zstd::encode_all(&*tar, 1).expect("a Vec takes all"),
        b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b\x4c\x4a\x06\0\xc2\x41\x24\x35\x03\0\0\0".to_vec(),
        b"BZh91AY&SY".to_vec(),
        b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46".to_vec(),
        tar,
    ];
    try_all(&seeds, &[b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh"], 3000, |bytes| {
        if let Ok(plain) = context::decompress(bytes) {
            let _ = std::io::copy(&mut plain.take(1 << 20), &mut std::io::sink());
        }
    });
}
