//! Files that are the same every time: names and bytes that look like those of a source tree, written into a tar or a
//! folder, and an OCI layout around a tar.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use tar::EntryType;

use super::Error;
use crate::oci::{Digest, Sha256Stream, media_type};

/// All files have this time: what a comparison writes must not depend on when.
const MTIME_SECONDS: u64 = 1_600_000_000;

const PACKAGES: [&str; 8] = ["core", "http-client", "ui-table", "i18n", "parser", "test-utils", "legacy-api", "theme"];
const FOLDERS: [&str; 4] = ["lib", "src", "test", "types"];
const STEMS: [&str; 10] = [
    "index",
    "render-table",
    "use-context",
    "parse-options",
    "constants",
    "internal-cache",
    "errors",
    "format-date",
    "README",
    "package",
];
const ENDINGS: [&str; 5] = [".js", ".d.ts", ".js.map", ".md", ".json"];

/// Files of one folder, folders of one package.
const FILES_EACH: u32 = 25;
const FOLDERS_EACH: u32 = FOLDERS.len() as u32;

/// The path of file `number` below the top of a tree.
pub(super) fn path(number: u32) -> String {
    let (folder, inside) = (number / FILES_EACH, number % FILES_EACH);
    let stem = STEMS[(inside + folder) as usize % STEMS.len()];
    let ending = ENDINGS[(inside / 3) as usize % ENDINGS.len()];
    format!("{}/{stem}-{inside}{ending}", folder_path(folder))
}

fn folder_path(folder: u32) -> String {
    let package = folder / FOLDERS_EACH;
    let name = PACKAGES[package as usize % PACKAGES.len()];
    format!("{name}-{package}/{}", FOLDERS[(folder % FOLDERS_EACH) as usize])
}

/// The folders of a tree of `files`, parents first.
fn folders(files: u32) -> impl Iterator<Item = String> {
    (0..files.div_ceil(FILES_EACH)).flat_map(|folder| {
        let path = folder_path(folder);
        let package = path.split('/').next().map(str::to_owned);
        package.filter(|_| folder % FOLDERS_EACH == 0).into_iter().chain([path])
    })
}

/// Bytes that mean nothing; half of them compresses away, as in real trees.
pub(super) fn text(seed: u64, bytes: usize) -> Vec<u8> {
    let mut text = hex::encode(noise(seed, bytes.div_ceil(2))).into_bytes();
    text.truncate(bytes);
    text
}

/// Bytes that do not compress (SplitMix64).
pub(super) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95);
    let words = std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    });
    let mut noise: Vec<u8> = words.take(bytes.div_ceil(8)).flat_map(u64::to_le_bytes).collect();
    noise.truncate(bytes);
    noise
}

/// Appends one member. Directories have no slash at their end.
pub(super) fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    kind: EntryType,
    path: &str,
    mode: u32,
    data: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME_SECONDS);
    if kind.is_symlink() {
        header.set_size(0);
        header.set_link_name_literal(data)?;
        header.set_path(path)?;
        header.set_cksum();
        return tar.append(&header, io::empty());
    }
    header.set_size(data.len() as u64);
    tar.append_data(&mut header, path, data)
}

/// Appends a tree of `files` below `top`. The content of file `number` is `content(number)`.
pub(super) fn append_tree<W: Write>(
    tar: &mut tar::Builder<W>,
    top: &str,
    files: u32,
    content: impl Fn(u32) -> Vec<u8>,
) -> io::Result<()> {
    append(tar, EntryType::Directory, top, 0o755, b"")?;
    for folder in folders(files) {
        append(tar, EntryType::Directory, &format!("{top}/{folder}"), 0o755, b"")?;
    }
    for number in 0..files {
        append(tar, EntryType::Regular, &format!("{top}/{}", path(number)), 0o644, &content(number))?;
    }
    Ok(())
}

/// Writes a tree of `files` into the folder `top`.
pub(super) fn write_tree(top: &Path, files: u32, content: impl Fn(u32) -> Vec<u8>) -> Result<(), Error> {
    for folder in folders(files) {
        let folder = top.join(folder);
        fs::create_dir_all(&folder).map_err(|source| Error::file("make", &folder, source))?;
    }
    for number in 0..files {
        let file = top.join(path(number));
        fs::write(&file, content(number)).map_err(|source| Error::file("write", &file, source))?;
    }
    Ok(())
}

/// Writes an OCI layout with an image of one layer, which `fill` writes.
pub(super) fn write_layout(
    layout: &Path,
    fill: impl FnOnce(&mut tar::Builder<Both>) -> io::Result<()>,
) -> Result<(), Error> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|source| Error::file("make", &blobs, source))?;
    let filling = blobs.join("filling");
    let fault = |source| Error::file("write", &filling, source);
    let file = io::BufWriter::new(File::create(&filling).map_err(fault)?);
    let mut tar = tar::Builder::new(Both { file, hash: Sha256Stream::new() });
    fill(&mut tar).map_err(fault)?;
    let Both { mut file, hash } = tar.into_inner().map_err(fault)?;
    file.flush().map_err(fault)?;
    let size = hash.size_bytes();
    let digest = Digest::from(hash.finish());
    fs::rename(&filling, blobs.join(digest.hex())).map_err(fault)?;
    let write = |bytes: &[u8]| {
        let path = blobs.join(Digest::of(bytes).hex());
        fs::write(&path, bytes).map_err(|source| Error::file("write", &path, source))
    };
    let config = json!({
        "architecture": crate::oci::Platform::host().architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest.to_string()]},
        "history": [{"created_by": "files of the harness"}],
    })
    .to_string();
    write(config.as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, Digest::of(config.as_bytes()), config.len() as u64),
        "layers": [descriptor(media_type::OCI_LAYER, digest, size)],
    })
    .to_string();
    write(manifest.as_bytes())?;
    let manifest = descriptor(media_type::OCI_MANIFEST, Digest::of(manifest.as_bytes()), manifest.len() as u64);
    let index = json!({"schemaVersion": 2, "manifests": [manifest]}).to_string();
    for (name, text) in [("index.json", index.as_str()), ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)] {
        let path = layout.join(name);
        fs::write(&path, text).map_err(|source| Error::file("write", &path, source))?;
    }
    Ok(())
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

/// A file and the hash of what is written to it.
pub(super) struct Both {
    file: io::BufWriter<File>,
    hash: Sha256Stream,
}

impl Write for Both {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_different_and_below_their_folders() {
        let files: Vec<String> = (0..1010).map(path).collect();
        assert_eq!(files.iter().collect::<BTreeSet<_>>().len(), 1010);
        let folders: Vec<String> = folders(1010).collect();
        let seen: BTreeSet<_> = folders.iter().map(String::as_str).collect();
        assert_eq!(seen.len(), folders.len());
        assert_eq!(folders[..3], ["core-0", "core-0/lib", "core-0/src"]);
        for path in files {
            assert!(seen.contains(path.rsplit_once('/').expect("it is in a folder").0), "{path}");
        }
    }

    #[test]
    fn bytes_are_the_same_every_time() {
        assert_eq!(text(1, 5), text(1, 5));
        assert_ne!(text(1, 64), text(2, 64));
        assert_eq!(noise(3, 9)[..8], noise(3, 8));
        assert_eq!(text(7, 3).len(), 3);
    }

    #[test]
    fn a_tar_has_the_whole_tree() {
        let mut tar = tar::Builder::new(Vec::new());
        append_tree(&mut tar, "top", 30, |number| text(number.into(), 3)).expect("a Vec takes all");
        append(&mut tar, EntryType::Symlink, "ln", 0o777, b"top").expect("a Vec takes all");
        let tar = tar.into_inner().expect("a Vec takes all");
        let mut archive = tar::Archive::new(&tar[..]);
        let entries = archive.entries().expect("a tar");
        let names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").path().expect("a path").display().to_string()).collect();
        assert_eq!(names.len(), 1 + 3 + 30 + 1);
        assert_eq!(names[..3], ["top", "top/core-0", "top/core-0/lib"]);
    }
}
