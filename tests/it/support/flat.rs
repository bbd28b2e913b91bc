//! The file system that an image means: its layers, read from a docker-save tarball, applied in memory. It shares no code
//! with the library on purpose: a reader that made the writer's mistakes would see none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use kanna::oci::Digest;
use serde_json::Value;

/// A path in an image: absolute, bytes.
pub type Name = Vec<u8>;

/// What a path is, with everything that a layer can say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// `file`, `dir`, `symlink`, `fifo`, `char`, `block`.
    pub kind: &'static str,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub content: Option<Content>,
    /// Target of a symlink.
    pub link: Option<Vec<u8>>,
    pub device: Option<(u32, u32)>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Seconds.
    pub mtime: i64,
    /// All names of the file, itself included, if there are several.
    pub hardlinks: BTreeSet<Name>,
}

/// Size and `sha256:…` of a file's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub size: u64,
    pub digest: String,
}

pub type Tree = BTreeMap<Name, File>;

/// An image read whole.
pub struct FlatImage {
    pub config: Value,
    pub tags: Vec<String>,
    pub diff_ids: Vec<String>,
    pub tree: Tree,
}

impl FlatImage {
    /// What is at a path.
    #[track_caller]
    pub fn file(&self, path: &str) -> &File {
        self.tree.get(path.as_bytes()).unwrap_or_else(|| panic!("the image has no {path}"))
    }

    /// Is there anything at a path?
    pub fn has(&self, path: &str) -> bool {
        self.tree.contains_key(path.as_bytes())
    }

    /// The file at a path holds just this.
    #[track_caller]
    pub fn assert_text(&self, path: &str, text: &str) {
        let content = self.file(path).content.as_ref().unwrap_or_else(|| panic!("{path} is no file"));
        let expected = Content { size: text.len() as u64, digest: Digest::of(text.as_bytes()).to_string() };
        assert_eq!(*content, expected, "{path} is not {text:?}");
    }
}

/// Reads a docker-save tarball and applies its layers.
pub fn read_tarball(path: &Path) -> Result<FlatImage, String> {
    let text = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(std::fs::File::open(path).map_err(text)?);
    for entry in archive.entries().map_err(text)? {
        let mut entry = entry.map_err(text)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(text)?;
        files.insert(name, bytes);
    }
    let file = |name: &str| files.get(name).ok_or_else(|| format!("the tarball has no {name}"));
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).map_err(|error| error.to_string());
    let manifest = json(file("manifest.json")?)?;
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let config = json(file(manifest[0]["Config"].as_str().unwrap_or_default())?)?;
    let diff_ids = strings(&config["rootfs"]["diff_ids"]);
    let mut layers = Vec::new();
    for name in strings(&manifest[0]["Layers"]) {
        layers.push(uncompressed(file(&name)?)?);
    }
    let found: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    if found != diff_ids {
        return Err(format!("the config promises the layers {diff_ids:?}, the tarball holds {found:?}"));
    }
    let tree = flatten(&layers)?;
    Ok(FlatImage { config, tags: strings(&manifest[0]["RepoTags"]), diff_ids, tree })
}

/// Applies layers (plain tars) in order.
pub fn flatten<T: AsRef<[u8]>>(layers: &[T]) -> Result<Tree, String> {
    let mut flat = Flat::default();
    for layer in layers {
        flat.apply(parse(layer.as_ref())?)?;
    }
    Ok(flat.into_tree())
}

fn uncompressed(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut tar = Vec::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut tar).map_err(|error| error.to_string())?;
    } else if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        tar = zstd::decode_all(bytes).map_err(|error| error.to_string())?;
    } else {
        tar.extend_from_slice(bytes);
    }
    Ok(tar)
}

enum Entry {
    File(File),
    /// The target, as a path in the image.
    HardLink(Name),
}

fn parse(layer: &[u8]) -> Result<Vec<(Name, Entry)>, String> {
    let mut entries = Vec::new();
    let mut archive = tar::Archive::new(layer);
    for entry in archive.entries().map_err(|error| error.to_string())? {
        let mut entry = entry.map_err(|error| error.to_string())?;
        let name = absolute(&entry.path_bytes())?;
        entries.push((name.clone(), parse_entry(&mut entry).map_err(|error| format!("{}: {error}", show(&name)))?));
    }
    Ok(entries)
}

fn parse_entry<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Entry, String> {
    use tar::EntryType as Type;
    let text = |error: std::io::Error| error.to_string();
    let kind = match entry.header().entry_type() {
        Type::Regular => "file",
        Type::Directory => "dir",
        Type::Symlink => "symlink",
        Type::Char => "char",
        Type::Block => "block",
        Type::Fifo => "fifo",
        Type::Link => {
            let target = entry.link_name_bytes().ok_or("a hard link without target")?;
            return Ok(Entry::HardLink(absolute(&target)?));
        }
        other => return Err(format!("entry type {other:?}")),
    };
    let mut xattrs = BTreeMap::new();
    let mut mtime = entry.header().mtime().map_err(text)?.cast_signed();
    let extensions = entry.pax_extensions().map_err(text)?;
    for extension in extensions.into_iter().flatten() {
        let extension = extension.map_err(text)?;
        let key = String::from_utf8_lossy(extension.key_bytes()).into_owned();
        if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
            xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
        } else if key == "mtime" {
            let value = extension.value().map_err(|error| error.to_string())?;
            let seconds: f64 = value.parse().map_err(|_| format!("mtime {value:?}"))?;
            #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970 fit")]
            let seconds = seconds.floor() as i64;
            mtime = seconds;
        }
    }
    let header = entry.header();
    let device = match kind {
        "char" | "block" => {
            let number = |part: std::io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
            Some((number(header.device_major()), number(header.device_minor())))
        }
        _ => None,
    };
    let mut file = File {
        kind,
        mode: header.mode().map_err(text)? & 0o7777,
        uid: header.uid().map_err(text)?,
        gid: header.gid().map_err(text)?,
        content: None,
        link: None,
        device,
        xattrs,
        mtime,
        hardlinks: BTreeSet::new(),
    };
    match kind {
        "symlink" => file.link = Some(entry.link_name_bytes().ok_or("a symlink without target")?.into_owned()),
        "file" => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(text)?;
            file.content = Some(Content { size: bytes.len() as u64, digest: Digest::of(&bytes).to_string() });
        }
        _ => {}
    }
    Ok(Entry::File(file))
}

/// Files by inode, inodes by name.
#[derive(Default)]
struct Flat {
    names: BTreeMap<Name, usize>,
    files: Vec<File>,
}

impl Flat {
    fn apply(&mut self, entries: Vec<(Name, Entry)>) -> Result<(), String> {
        // a layer's whiteouts are about the layers below it, wherever in the layer they stand
        for (name, _) in &entries {
            let (parent, base) = split(name);
            if base == b".wh..wh..opq" {
                self.remove_below(parent);
            } else if let Some(hidden) = base.strip_prefix(b".wh.".as_slice()) {
                let hidden = join(parent, hidden);
                self.names.remove(&hidden);
                self.remove_below(&hidden);
            }
        }
        for (name, entry) in entries {
            if split(&name).1.starts_with(b".wh.") {
                continue;
            }
            self.check_parent(&name)?;
            let inode = match entry {
                Entry::File(file) => {
                    if file.kind != "dir" {
                        self.remove_below(&name);
                    }
                    self.files.push(file);
                    self.files.len() - 1
                }
                Entry::HardLink(target) => *self
                    .names
                    .get(&target)
                    .ok_or_else(|| format!("{}: hard link to {}, which is not there", show(&name), show(&target)))?,
            };
            self.names.insert(name, inode);
        }
        Ok(())
    }

    /// An entry below something that is no directory would land elsewhere, or nowhere.
    fn check_parent(&self, name: &[u8]) -> Result<(), String> {
        let parent = split(name).0;
        match self.names.get(parent).map(|inode| self.files[*inode].kind) {
            None | Some("dir") => Ok(()),
            Some(kind) => Err(format!("{}: its parent is a {kind}", show(name))),
        }
    }

    fn remove_below(&mut self, directory: &[u8]) {
        let prefix = join(directory, b"");
        self.names.retain(|name, _| !name.starts_with(&prefix) || name.as_slice() == b"/");
    }

    fn into_tree(self) -> Tree {
        let mut groups: BTreeMap<usize, BTreeSet<Name>> = BTreeMap::new();
        for (name, inode) in &self.names {
            groups.entry(*inode).or_default().insert(name.clone());
        }
        let file = |(name, inode): (Name, usize)| {
            let mut file = self.files[inode].clone();
            if groups[&inode].len() > 1 {
                file.hardlinks.clone_from(&groups[&inode]);
            }
            (name, file)
        };
        self.names.into_iter().map(file).collect()
    }
}

/// `./a/b/` and `a/b` are `/a/b`; what climbs is refused.
fn absolute(path: &[u8]) -> Result<Name, String> {
    let mut name = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(format!("the path {} climbs", show(path))),
            part => {
                name.push(b'/');
                name.extend_from_slice(part);
            }
        }
    }
    Ok(if name.is_empty() { b"/".to_vec() } else { name })
}

fn split(name: &[u8]) -> (&[u8], &[u8]) {
    let slash = name.iter().rposition(|byte| *byte == b'/').expect("names are absolute");
    (if slash == 0 { b"/" } else { &name[..slash] }, &name[slash + 1..])
}

fn join(directory: &[u8], base: &[u8]) -> Name {
    let mut name = directory.to_vec();
    if name != b"/" {
        name.push(b'/');
    }
    name.extend_from_slice(base);
    name
}

/// A name for a reader.
pub fn show(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Layers as someone might write them, and what they mean.
#[test]
fn layers_mean_what_the_image_spec_says() {
    let base = layer(&[("d/", ""), ("d/a", "1"), ("d/b", "2"), ("e/", ""), ("e/f", "3"), ("ln", "=d/a")]);
    let names = |layers: &[&Vec<u8>]| -> Vec<String> {
        flatten(layers).expect("they apply").keys().map(|name| show(name)).collect()
    };
    assert_eq!(names(&[&base]), ["/d", "/d/a", "/d/b", "/e", "/e/f", "/ln"]);
    assert_eq!(flatten(&[&base]).expect("applies")[b"/ln".as_slice()].hardlinks.len(), 2);
    assert_eq!(names(&[&base, &layer(&[("d/.wh.a", "")])]), ["/d", "/d/b", "/e", "/e/f", "/ln"]);
    assert_eq!(names(&[&base, &layer(&[(".wh.d", "")])]), ["/e", "/e/f", "/ln"]);
    let opaque = layer(&[("d/", ""), ("d/new", "4"), ("d/.wh..wh..opq", "")]);
    assert_eq!(names(&[&base, &opaque]), ["/d", "/d/new", "/e", "/e/f", "/ln"]);
    assert_eq!(names(&[&base, &layer(&[("e", "file")])]), ["/d", "/d/a", "/d/b", "/e", "/ln"]);
    assert!(flatten(&[&base, &layer(&[("d/a/x", "5")])]).is_err(), "a file is no parent");
    assert!(flatten(&[&layer(&[("x", "=nothing")])]).is_err(), "a link needs its target");
}

fn layer(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        if let Some(target) = content.strip_prefix('=') {
            header.set_entry_type(tar::EntryType::Link);
            header.set_size(0);
            tar.append_link(&mut header, path, target).expect("appended");
            continue;
        }
        let directory = path.ends_with('/');
        header.set_entry_type(if directory { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes()).expect("appended");
    }
    tar.into_inner().expect("a Vec takes all")
}
