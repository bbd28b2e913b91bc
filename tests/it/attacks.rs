//! Layers that attack whoever unpacks them. `docs/attacks.md` lists them with what happens: this test makes the table, and holds
//! the file to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Cursor, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use kanna::layer::{self, LayerBlob};
use kanna::oci::{Descriptor, DiffId, Digest};
use kanna::rootfs::{Ignored, Root};
use kanna::tree::RootIndex;
use regex::Regex;
use tar::EntryType;
use tar::EntryType::{
    Block, Char, Continuous, Directory, Fifo, GNULongLink, GNULongName, GNUSparse, Link, Regular, Symlink,
    XGlobalHeader, XHeader,
};

use crate::support::handmade::{Row, header, tar_of};
use crate::support::{assert_page_has, folder, skip};

/// An attack: what it tries, and its layers, lowest first. `OUTSIDE` stands for a directory beside the root.
type Attack = (&'static str, Vec<Vec<u8>>);

/// As long as the path that takes its place, which has to be known when the tars are made.
const OUTSIDE: &str = "/OUTSIDE";

const MEBIBYTE: u64 = 1024 * 1024;

fn one(rows: &[Row<'_>]) -> Vec<Vec<u8>> {
    vec![tar_of(rows)]
}

/// A member whose header a test changes; its checksum is right.
fn changed(kind: EntryType, name: &str, change: impl FnOnce(&mut [u8; 512]), content: &[u8]) -> Vec<u8> {
    let mut header = header(kind, name, "", content.len() as u64);
    change(header.as_mut_bytes());
    header.set_cksum();
    let mut tar = header.as_bytes().to_vec();
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

/// A PAX record with its length.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length.to_string().len() + rest.len() != length {
        length += 1;
    }
    format!("{length}{rest}").into_bytes()
}

fn with_pax(records: &[Vec<u8>], name: &str, content: &[u8]) -> Vec<Vec<u8>> {
    one(&[(XHeader, "pax", "", &records.concat()), (Regular, name, "", content)])
}

fn names(outside: &str) -> Vec<Attack> {
    let deep = format!("{}f", "d/".repeat(2000));
    let deeper = format!("{}f", "d/".repeat(2100));
    let long = "n".repeat(256);
    let name = |name: &str| one(&[(GNULongName, "././@LongLink", "", name.as_bytes()), (Regular, "short", "", b"x")]);
    vec![
        ("a name above the root", one(&[(Regular, "../x", "", b"x")])),
        ("a name that climbs later", one(&[(Regular, "a/../../x", "", b"x")])),
        ("an absolute name", one(&[(Regular, &format!("{outside}/victim"), "", b"hit")])),
        ("a name of dots and slashes", one(&[(Regular, ".//./a//b", "", b"x")])),
        ("an empty name", one(&[(Regular, "", "", b"x")])),
        ("the root as a file", one(&[(Regular, ".", "", b"x")])),
        ("the root as a symlink", one(&[(Symlink, "./", outside, b"")])),
        ("a name of control characters", one(&[(Regular, "a\n\x1b[31mb", "", b"x")])),
        ("a name that is no UTF-8", vec![changed(Regular, "a", |header| header[1] = 0xff, b"x")]),
        ("names that differ in case", one(&[(Regular, "Name", "", b"1"), (Regular, "name", "", b"2")])),
        ("names that Unicode makes equal", one(&[(Regular, "\u{e9}", "", b"1"), (Regular, "e\u{301}", "", b"2")])),
        ("a name of 256 bytes", name(&long)),
        ("2,000 directories within each other", name(&deep)),
        ("a path of more than 4,096 bytes", name(&deeper)),
        ("a file's name with a slash at the end", one(&[(Regular, "a/", "", b"")])),
        ("a file below a file", one(&[(Regular, "a", "", b"x"), (Regular, "a/b", "", b"y")])),
        (
            "the same name again and again",
            one(&[(Regular, "a", "", b"1"), (Directory, "a", "", b""), (Regular, "a", "", b"2")]),
        ),
    ]
}

fn links(outside: &str) -> Vec<Attack> {
    let victim = format!("{outside}/victim");
    vec![
        ("a file through an absolute symlink", one(&[(Symlink, "l", outside, b""), (Regular, "l/victim", "", b"hit")])),
        (
            "a file through a symlink that climbs",
            one(&[(Symlink, "l", &format!("../../../../../..{outside}"), b""), (Regular, "l/victim", "", b"hit")]),
        ),
        (
            "a file through a chain of symlinks",
            one(&[(Symlink, "a", "b", b""), (Symlink, "b", outside, b""), (Regular, "a/victim", "", b"hit")]),
        ),
        ("a file through a symlink to itself", one(&[(Symlink, "l", "l", b""), (Regular, "l/x", "", b"x")])),
        ("a file in place of a symlink", one(&[(Symlink, "l", &victim, b""), (Regular, "l", "", b"own")])),
        (
            "a directory that the next layer makes a symlink",
            vec![
                tar_of(&[(Directory, "d", "", b""), (Regular, "d/f", "", b"1")]),
                tar_of(&[(Symlink, "d", outside, b"")]),
                tar_of(&[(Regular, "d/victim", "", b"hit")]),
            ],
        ),
        ("a hard link to an absolute path", one(&[(Link, "h", &victim, b"")])),
        ("a hard link to a path that climbs", one(&[(Link, "h", &format!("../../..{victim}"), b"")])),
        (
            "a hard link to a symlink, then written through",
            one(&[(Symlink, "l", &victim, b""), (Link, "h", "l", b""), (Regular, "h", "", b"own")]),
        ),
        ("a hard link through a symlink", one(&[(Symlink, "l", outside, b""), (Link, "h", "l/victim", b"")])),
        ("a hard link to what comes later", one(&[(Link, "h", "later", b""), (Regular, "later", "", b"x")])),
        ("a hard link to itself", one(&[(Link, "h", "h", b"")])),
        ("a hard link to a directory", one(&[(Directory, "d", "", b""), (Link, "h", "d", b"")])),
        (
            "a file over one name of two",
            one(&[(Regular, "a", "", b"old"), (Link, "b", "a", b""), (Regular, "b", "", b"new")]),
        ),
    ]
}

fn whiteouts(outside: &str) -> Vec<Attack> {
    vec![
        ("a whiteout of ..", one(&[(Regular, "a/.wh...", "", b"")])),
        ("a whiteout of .", one(&[(Regular, "a/.wh..", "", b"")])),
        ("a whiteout of nothing", one(&[(Regular, "a/.wh.", "", b"")])),
        ("a whiteout through a symlink", one(&[(Symlink, "l", outside, b""), (Regular, "l/.wh.victim", "", b"")])),
        (
            "an opaque whiteout through a symlink",
            one(&[(Symlink, "l", outside, b""), (Regular, "l/.wh..wh..opq", "", b"")]),
        ),
        ("a whiteout above the root", one(&[(Regular, "../.wh.root", "", b"")])),
        (
            "an opaque whiteout of the root",
            vec![tar_of(&[(Regular, "a", "", b"x")]), tar_of(&[(Regular, ".wh..wh..opq", "", b"")])],
        ),
        ("a whiteout with content", one(&[(Regular, "a", "", b"x"), (Regular, ".wh.a", "", b"content")])),
        ("a whiteout that is a directory", one(&[(Directory, ".wh.a", "", b""), (Regular, ".wh.a/b", "", b"x")])),
        ("a hard link to a whiteout", one(&[(Regular, ".wh.a", "", b""), (Link, "h", ".wh.a", b"")])),
    ]
}

fn kinds() -> Vec<Attack> {
    let mode = |kind, name, mode: &'static [u8]| {
        vec![changed(kind, name, move |header| header[100..108].copy_from_slice(mode), b"")]
    };
    vec![
        ("a character device", one(&[(Char, "null", "", b"")])),
        ("a block device, then a file", one(&[(Block, "sda", "", b""), (Regular, "sda", "", b"x")])),
        ("a fifo, then a file", one(&[(Fifo, "p", "", b""), (Regular, "p", "", b"x")])),
        ("a file below a fifo", one(&[(Fifo, "p", "", b""), (Regular, "p/x", "", b"x")])),
        ("a set-user-id program", mode(Regular, "s", b"0104755\0")),
        ("modes of more bits than there are", mode(Regular, "m", b"7777777\0")),
        ("a kind that nobody knows", one(&[(EntryType::new(b'Z'), "z", "", b"x")])),
        ("a contiguous file", one(&[(Continuous, "c", "", b"x")])),
    ]
}

fn sizes() -> Vec<Attack> {
    let base_256 =
        |size: [u8; 12]| vec![changed(Regular, "f", move |header| header[124..136].copy_from_slice(&size), b"x")];
    let text = |size: &'static [u8; 12]| {
        vec![changed(Regular, "f", move |header| header[124..136].copy_from_slice(size), b"x")]
    };
    let claims = |kind, size: u64| vec![[header(kind, "x", "", size).as_bytes().to_vec(), vec![b'a'; 1024]].concat()];
    vec![
        ("a size of 2^63 bytes", base_256([0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0])),
        ("a size below zero", base_256([0xff; 12])),
        ("a size that is no number", text(b"12345678x90\0")),
        ("a content that is not there", claims(Regular, 8 * 1024 * MEBIBYTE)),
        ("a long name of a gibibyte", claims(GNULongName, 1024 * MEBIBYTE)),
        ("a long link of a gibibyte", claims(GNULongLink, 1024 * MEBIBYTE)),
        ("PAX records of a gibibyte", claims(XHeader, 1024 * MEBIBYTE)),
        ("global PAX records of a gibibyte", claims(XGlobalHeader, 1024 * MEBIBYTE)),
        ("a PAX size of a pebibyte", with_pax(&[record("size", "1125899906842624")], "f", b"x")),
        ("a PAX size below zero", with_pax(&[record("size", "-1")], "f", b"x")),
    ]
}

fn extensions(outside: &str) -> Vec<Attack> {
    vec![
        ("a PAX path above the root", with_pax(&[record("path", "../x")], "f", b"x")),
        ("a PAX path with a NUL", with_pax(&[record("path", "a\0b")], "f", b"x")),
        ("an empty PAX path", with_pax(&[record("path", "")], "f", b"x")),
        (
            "a PAX link above the root",
            one(&[(XHeader, "pax", "", &record("linkpath", &format!("../..{outside}/victim"))), (Link, "h", "a", b"")]),
        ),
        ("a PAX record longer than all of them", with_pax(&[b"999999999 path=x\n".to_vec()], "f", b"x")),
        ("a PAX record of no length", with_pax(&[b"0 path=x\n".to_vec()], "f", b"x")),
        ("PAX records that are none", with_pax(&[b"hello\n".to_vec()], "f", b"x")),
        ("a PAX owner below zero", with_pax(&[record("uid", "-5")], "f", b"x")),
        ("a PAX time of no age of the world", with_pax(&[record("mtime", "99999999999999999999")], "f", b"x")),
        ("a global PAX path", one(&[(XGlobalHeader, "pax", "", &record("path", "../x")), (Regular, "f", "", b"x")])),
        ("PAX records and nothing behind them", one(&[(XHeader, "pax", "", &record("path", "x"))])),
        ("an attribute of the security module", with_pax(&[record("SCHILY.xattr.security.selinux", "x")], "f", b"x")),
        ("an attribute without a name", with_pax(&[record("SCHILY.xattr.", "x")], "f", b"x")),
        (
            "a sparse map that goes backwards",
            with_pax(
                &[
                    record("GNU.sparse.major", "1"),
                    record("GNU.sparse.minor", "0"),
                    record("GNU.sparse.realsize", "100"),
                ],
                "f",
                &[&b"2\n50\n4\n10\n4\n"[..], &[0; 500], b"datadata"].concat(),
            ),
        ),
        (
            "a sparse file of an exbibyte",
            with_pax(
                &[
                    record("GNU.sparse.major", "1"),
                    record("GNU.sparse.minor", "0"),
                    record("GNU.sparse.realsize", "1152921504606846976"),
                ],
                "f",
                &[&b"0\n"[..], &[0; 510]].concat(),
            ),
        ),
        (
            "a sparse file of the old form without a map",
            vec![changed(GNUSparse, "f", |header| header[386..398].fill(b'7'), b"x")],
        ),
    ]
}

fn streams() -> Vec<Attack> {
    let tar = tar_of(&[(Regular, "f", "", b"x")]);
    let window = {
        // a frame that wants a window of two gibibytes
        let mut frame = b"\x28\xb5\x2f\xfd\x00\xa8".to_vec();
        frame.extend([0x01, 0x00, 0x00]);
        frame
    };
    // what Python's lzma makes of a kibibyte of zeros with a dictionary of one and a half gibibytes
    let dictionary = b"\xfd7zXZ\0\0\x01\x69\x22\xde\x36\x02\0\x21\x01\x25\0\0\0\x3b\x78\x7b\x41\xe0\x03\xff\0\x0b\x5d\0\0\x6f\xfd\
        \xff\xff\xa3\xb7\x7f\x46\x32\0\0\0\x2e\xaf\xb5\xef\0\x01\x23\x80\x08\0\0\0\x38\x3b\x3f\x36\x3e\x30\x0d\x8b\x02\0\0\0\0\x01\
        \x59\x5a";
    vec![
        ("a tar that ends within a header", vec![tar[..300].to_vec()]),
        ("a tar without an end", vec![tar[..1024].to_vec()]),
        ("nothing at all", vec![Vec::new()]),
        ("a zstd frame that wants two gibibytes", vec![window]),
        ("an xz block that wants a gibibyte and a half", vec![dictionary.to_vec()]),
        ("a gzip member within a gzip member's end", vec![[gzip(&tar), b"\x1f\x8b\x08\0rest".to_vec()].concat()]),
    ]
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::fast());
    let mut gzip = Vec::new();
    encoder.read_to_end(&mut gzip).expect("a Vec takes all");
    gzip
}

/// What the root holds, or why it holds not all of it.
fn unpack(layers: &[Vec<u8>], at: &Path) -> Result<String, String> {
    let root = Root::open(at).expect("opened");
    let blobs: Vec<LayerBlob> = layers
        .iter()
        .map(|tar| LayerBlob {
            descriptor: Descriptor::new("x", Digest::of(tar), tar.len() as u64),
            // of a compressed one, nobody gets so far as to compare
            diff_id: DiffId::of(tar),
        })
        .collect();
    let mut open = |layer: &LayerBlob| {
        let number = blobs.iter().position(|other| other == layer).expect("a layer of the list");
        Ok(Box::new(Cursor::new(layers[number].clone())) as Box<_>)
    };
    let mut index = RootIndex::new();
    layer::apply(&blobs, &mut open, &root, &mut index, &Ignored::new()).map_err(|error| kanna::http::chain(&error))?;
    let mut there = BTreeMap::new();
    walk(at, at, &mut there);
    let known = index.subtree(index.root()).count() - 1;
    assert_eq!(there.len(), known, "root and index say the same");
    let shown: Vec<String> = there.iter().map(|(path, what)| format!("`{path}`{what}")).collect();
    Ok(match shown.len() {
        0 => "unpacked: nothing is there".to_owned(),
        1..=7 => format!("unpacked: {}", shown.join(", ")),
        many => format!("unpacked: {many} paths"),
    })
}

fn walk(top: &Path, directory: &Path, there: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).expect("read") {
        let path = entry.expect("read").path();
        let metadata = fs::symlink_metadata(&path).expect("there");
        let kind = metadata.file_type();
        let what = if kind.is_dir() {
            "/".to_owned()
        } else if kind.is_symlink() {
            format!(" → `{}`", fs::read_link(&path).expect("a link").display())
        } else if kind.is_file() {
            let mode = metadata.permissions().mode() & 0o7777;
            let mode = if mode == 0o644 { String::new() } else { format!(", {mode:04o}") };
            let names = if metadata.nlink() > 1 { ", of several names" } else { "" };
            format!(" ({} bytes{mode}{names})", metadata.len())
        } else if kind.is_fifo() {
            " (a fifo)".to_owned()
        } else {
            " (a device)".to_owned()
        };
        let name = path.strip_prefix(top).expect("below").as_os_str().as_bytes().escape_ascii().to_string();
        there.insert(name, what);
        if kind.is_dir() {
            walk(top, &path, there);
        }
    }
}

#[test]
fn attacks_end_as_the_table_says() {
    if !rustix::process::geteuid().is_root() {
        return skip("root", "only root can make files of root");
    }
    let place = tempfile::tempdir_in(folder("attacks")).expect("a directory");
    let outside = place.path().join("outside");
    fs::create_dir(&outside).expect("created");
    fs::write(outside.join("victim"), "untouched").expect("written");
    // short enough for the field of a header
    let short = tempfile::Builder::new().prefix("k").tempdir_in("/tmp").expect("a directory");
    let link = short.path().join("o");
    std::os::unix::fs::symlink(&outside, &link).expect("linked");
    let outside_text = link.to_str().expect("UTF-8");
    let chapters = [
        ("Names", names(outside_text)),
        ("Links", links(outside_text)),
        ("Whiteouts", whiteouts(outside_text)),
        ("Kinds of files", kinds()),
        ("Sizes", sizes()),
        ("Extensions of tar", extensions(outside_text)),
        ("Streams", streams()),
    ];
    // what depends on the machine and the moment
    let without = [("for [0-9]+ bytes", "for N bytes"), ("`tmp`/, `tmp/k[A-Za-z0-9]+`/, ", "")]
        .map(|(part, stands)| (Regex::new(part).expect("a pattern"), stands));
    let mut table = String::new();
    for (number, (chapter, attacks)) in chapters.iter().enumerate() {
        writeln!(table, "\n## {chapter}\n\n| the layer has | what happens |\n|---|---|").expect("a String takes all");
        for (attack, (what, layers)) in attacks.iter().enumerate() {
            let at = place.path().join(format!("{number}-{attack}"));
            fs::create_dir(&at).expect("created");
            let ended = unpack(layers, &at).unwrap_or_else(|error| format!("refused: {error}"));
            let ended = ended.replace(outside_text, OUTSIDE).replace(&outside_text[1..], &OUTSIDE[1..]);
            let ended = layers.iter().fold(ended, |text, layer| text.replace(&Digest::of(layer).to_string(), "…"));
            let ended =
                without.iter().fold(ended, |text, (part, stands)| part.replace_all(&text, *stands).into_owned());
            let ended = ended.replace('|', "\\|").replace('\n', "\\n");
            writeln!(table, "| {what} | {ended} |").expect("a String takes all");
            fs::remove_dir_all(&at).expect("removed");
            assert_eq!(fs::read_to_string(outside.join("victim")).ok().as_deref(), Some("untouched"), "{what}");
            assert_eq!(
                fs::read_dir(&outside).expect("read").count(),
                1,
                "{what}: something was written beside the root"
            );
        }
    }
    assert_page_has("docs/attacks.md", "the table", &table);
}
