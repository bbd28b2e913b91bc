//! [`Image`]: what an image means, read from an OCI layout. It shares no code with the rooms that write layers: a reader
//! that made their mistakes would see none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use tar::EntryType;
use xxhash_rust::xxh3::Xxh3Default;

use super::Error;
use crate::oci::{Descriptor, Digest, Index, Manifest};

/// Files that engines make for themselves in a running container, and leave in the image or not.
const OF_THE_ENGINE: [&str; 4] = ["etc/hosts", "etc/resolv.conf", "etc/hostname", "etc/mtab"];
/// Folders of the same kind, with all that is in them.
const FOLDERS_OF_THE_ENGINE: [&str; 4] = ["run", "proc", "sys", "dev"];

/// Bytes read at once.
const READ_BYTES: usize = 128 * 1024;

/// What is at a path. Times are left out: they tell when it was built.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    kind: EntryType,
    mode: u32,
    uid: u64,
    gid: u64,
    target: Vec<u8>,
    device: Option<(u32, u32)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    size: u64,
    content: u128,
}

/// An image read whole.
pub(super) struct Image {
    files: Vec<Entry>,
    /// Names of files; several may be of one.
    names: BTreeMap<Vec<u8>, usize>,
    /// Blobs of the image, with their sizes: the config first, then the layers.
    pub(super) blobs: Vec<(Digest, u64)>,
}

impl Image {
    /// Reads the image of a layout.
    pub(super) fn read(layout: &Path) -> Result<Image, Error> {
        let blob = |descriptor: &Descriptor| layout.join("blobs/sha256").join(descriptor.digest.hex());
        let bad = |fault: String| Error::Image { image: layout.display().to_string(), fault };
        let index: Index = read_json(&layout.join("index.json"))?;
        let first = index.manifests.first().ok_or_else(|| bad("its layout is empty".to_owned()))?;
        let manifest: Manifest = read_json(&blob(first))?;
        let all = std::iter::once(&manifest.config).chain(&manifest.layers);
        let blobs = all.map(|descriptor| (descriptor.digest, descriptor.size)).collect();
        let mut image = Image { files: Vec::new(), names: BTreeMap::new(), blobs };
        for layer in &manifest.layers {
            let path = blob(layer);
            let file = File::open(&path).map_err(|source| Error::file("open", &path, source))?;
            let file = io::BufReader::with_capacity(READ_BYTES, file);
            let applied = if layer.media_type.ends_with("gzip") {
                image.apply(MultiGzDecoder::new(file))
            } else {
                image.apply(file)
            };
            applied.map_err(|source| Error::file("read layer", &path, source))?;
        }
        Ok(image)
    }

    fn apply(&mut self, layer: impl Read) -> io::Result<()> {
        // a layer's whiteouts are about the layers below it, wherever in the layer they stand
        let mut written = BTreeSet::new();
        let mut archive = tar::Archive::new(layer);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = relative(&entry.path_bytes());
            let (folder, base) = split(&name);
            if base == b".wh..wh..opq" {
                self.remove(folder, &written, Whole::OnlyBelow);
            } else if let Some(hidden) = base.strip_prefix(b".wh.") {
                self.remove(&join(folder, hidden), &written, Whole::WithItself);
            } else {
                let file = self.file(&mut entry)?;
                if !self.files[file].kind.is_dir() {
                    self.remove(&name, &BTreeSet::new(), Whole::OnlyBelow);
                }
                self.names.insert(name.clone(), file);
                written.insert(name);
            }
        }
        Ok(())
    }

    /// The number of an entry's file: a new one, or for a hard link the one that it names.
    fn file<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> io::Result<usize> {
        let kind = entry.header().entry_type();
        let target = entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default();
        if kind.is_hard_link() {
            let first = self.names.get(&relative(&target)).copied();
            return first.ok_or_else(|| io::Error::other("a hard link to a file that is not there"));
        }
        let mut xattrs = BTreeMap::new();
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            if let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") {
                xattrs.insert(name.to_vec(), extension.value_bytes().to_vec());
            }
        }
        let header = entry.header();
        let is_device = kind.is_block_special() || kind.is_character_special();
        // others may leave these fields empty
        let device = if is_device { header.device_major()?.zip(header.device_minor()?) } else { None };
        let (mode, uid, gid) = (header.mode()? & 0o7777, header.uid()?, header.gid()?);
        let (size, content) = hash(entry)?;
        self.files.push(Entry { kind, mode, uid, gid, target, device, xattrs, size, content });
        Ok(self.files.len() - 1)
    }

    /// Forgets a path and what is below it, but for what this layer has written.
    fn remove(&mut self, path: &[u8], written: &BTreeSet<Vec<u8>>, whole: Whole) {
        let prefix = join(path, b"");
        let below = self.names.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix));
        let mut gone: Vec<Vec<u8>> = below.map(|(name, _)| name.clone()).collect();
        if whole == Whole::WithItself {
            gone.push(path.to_vec());
        }
        for name in gone.iter().filter(|name| !written.contains(*name)) {
            self.names.remove(name);
        }
    }

    /// What the image says of each path: the file, and the first of its names.
    fn meaning(&self) -> BTreeMap<&[u8], (&Entry, &[u8])> {
        let mut first = BTreeMap::new();
        let ours = |name: &&Vec<u8>| !is_of_the_engine(name);
        self.names.iter().filter(|(name, _)| ours(name)).for_each(|(name, file)| {
            first.entry(file).or_insert(name.as_slice());
        });
        let kept = self.names.iter().filter(|(name, _)| ours(name));
        kept.map(|(name, file)| (name.as_slice(), (&self.files[*file], first[file]))).collect()
    }

    /// The paths in which two images differ, with what each has there.
    pub(super) fn differences(&self, other: &Image) -> Vec<String> {
        let (one, other) = (self.meaning(), other.meaning());
        let paths: BTreeSet<&[u8]> = one.keys().chain(other.keys()).copied().collect();
        let differing = paths.into_iter().filter(|path| one.get(path) != other.get(path));
        let tell =
            |path: &[u8]| format!("  /{}: {:?}, {:?}", String::from_utf8_lossy(path), one.get(path), other.get(path));
        differing.map(tell).collect()
    }

    /// Number of paths that are compared.
    pub(super) fn paths(&self) -> usize {
        self.meaning().len()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    WithItself,
    OnlyBelow,
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let bytes = fs::read(path).map_err(|source| Error::file("read", path, source))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::file("read", path, source.into()))
}

fn hash(mut content: impl Read) -> io::Result<(u64, u128)> {
    let mut hash = Xxh3Default::new();
    let mut size = 0;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let filled = content.read(&mut buffer)?;
        if filled == 0 {
            return Ok((size, hash.digest128()));
        }
        size += filled as u64;
        hash.update(&buffer[..filled]);
    }
}

fn is_of_the_engine(name: &[u8]) -> bool {
    let inside = |folder: &str| name == folder.as_bytes() || name.starts_with(&join(folder.as_bytes(), b""));
    name.is_empty()
        || OF_THE_ENGINE.iter().any(|file| name == file.as_bytes())
        || FOLDERS_OF_THE_ENGINE.iter().any(|folder| inside(folder))
}

/// `./a/b/` and `/a/b` are `a/b`.
fn relative(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    parts.join(&b'/')
}

fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&name[..slash], &name[slash + 1..]),
        None => (b"", name),
    }
}

fn join(folder: &[u8], base: &[u8]) -> Vec<u8> {
    if folder.is_empty() { base.to_vec() } else { [folder, base].join(&b'/') }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::written::append;

    /// Members by path: a directory ends with `/`, a hard link's content begins with `=`.
    fn image(layers: &[&[(&str, &str)]]) -> Image {
        let mut image = Image { files: Vec::new(), names: BTreeMap::new(), blobs: Vec::new() };
        for members in layers {
            let mut tar = tar::Builder::new(Vec::new());
            for (path, content) in *members {
                if let Some(target) = content.strip_prefix('=') {
                    let mut header = tar::Header::new_ustar();
                    header.set_entry_type(EntryType::Link);
                    header.set_size(0);
                    tar.append_link(&mut header, path, target).expect("a Vec takes all");
                    continue;
                }
                let directory = path.strip_suffix('/');
                let kind = if directory.is_some() { EntryType::Directory } else { EntryType::Regular };
                append(&mut tar, kind, directory.unwrap_or(path), 0o755, content.as_bytes()).expect("a Vec takes all");
            }
            image.apply(&tar.into_inner().expect("a Vec takes all")[..]).expect("a good layer");
        }
        image
    }

    fn paths(layers: &[&[(&str, &str)]]) -> Vec<String> {
        image(layers).meaning().keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
    }

    const BASE: &[(&str, &str)] = &[("d/", ""), ("d/a", "1"), ("d/b", "2"), ("d!", ""), ("e/", ""), ("e/f", "3")];

    #[test]
    fn layers_mean_what_the_image_spec_says() {
        assert_eq!(paths(&[BASE]), ["d", "d!", "d/a", "d/b", "e", "e/f"]);
        assert_eq!(paths(&[BASE, &[("d/.wh.a", "")]]), ["d", "d!", "d/b", "e", "e/f"]);
        assert_eq!(paths(&[BASE, &[(".wh.d", "")]]), ["d!", "e", "e/f"]);
        assert_eq!(paths(&[BASE, &[("d/", ""), ("d/n", ""), ("d/.wh..wh..opq", "")]]), ["d", "d!", "d/n", "e", "e/f"]);
        assert_eq!(paths(&[BASE, &[("e", "file")]]), ["d", "d!", "d/a", "d/b", "e"]);
        assert_eq!(paths(&[&[("proc/", ""), ("proc/1", ""), ("process", ""), ("etc/hosts", "")]]), ["process"]);
    }

    #[test]
    fn differences_are_named() {
        let one = image(&[BASE]);
        assert_eq!(one.differences(&image(&[BASE, &[("d/a", "1")]])), [] as [String; 0], "history is no difference");
        let found = one.differences(&image(&[BASE, &[("d/a", "9"), (".wh.e", ""), ("new", "")]]));
        let names: Vec<&str> = found.iter().map(|text| text.split(':').next().expect("a path")).collect();
        assert_eq!(names, ["  /d/a", "  /e", "  /e/f", "  /new"]);
        let linked = image(&[&[("a", "x"), ("b", "=a")]]);
        assert_eq!(linked.differences(&image(&[&[("a", "x"), ("b", "x")]])).len(), 1, "one file or two");
    }
}
