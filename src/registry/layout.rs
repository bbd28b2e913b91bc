//! Images of an OCI image layout (image spec, "Image Layout"): a directory of this machine, read as if it were a registry.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::error::{Error, Fault};
use super::progress::Progress;
use super::pull::{self, Content, Home, RemoteImage};
use crate::blobs::{self, BlobStore};
use crate::oci::{BadDigest, Descriptor, Digest, Index, Platform, Reference, parse_object};
use crate::sys::{open_regular, read_regular};

/// Image spec, "Pre-Defined Annotation Keys": what an image is called in a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What is meant where no name is given, and several images are there.
const LATEST: &str = "latest";
/// A piece of a blob on its way.
const PIECE_BYTES: usize = 128 * 1024;

/// An image in a layout: `DIRECTORY[:NAME][@DIGEST]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutPlace {
    /// The layout.
    pub directory: PathBuf,
    /// What the image is called there.
    pub name: Option<String>,
    /// The digest that it must have.
    pub digest: Option<Digest>,
}

impl FromStr for LayoutPlace {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<LayoutPlace, BadDigest> {
        let (text, digest) = match text.rsplit_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (directory, name) = match text.rsplit_once(':') {
            Some((directory, name)) if !name.contains('/') && !name.is_empty() => (directory, Some(name.to_owned())),
            _ => (text, None),
        };
        Ok(LayoutPlace { directory: directory.into(), name, digest })
    }
}

impl fmt::Display for LayoutPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.directory.display())?;
        if let Some(name) = &self.name {
            write!(f, ":{name}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// Finds an image, which is called `reference` here.
pub(super) fn image(place: &LayoutPlace, reference: &Reference, platform: &Platform) -> Result<RemoteImage, Error> {
    let image = place.to_string();
    let mut descriptor = match place.digest {
        Some(digest) => size_of(place, digest)?,
        None => named(place, platform)?,
    };
    let resolved_digest = descriptor.digest;
    for _ in 0..pull::NESTING {
        let bytes = read(place, &descriptor, pull::MANIFEST_BYTES)?;
        let fault = |fault| Error::Answer { what: format!("read {image}"), fault };
        let (media_type, content) = pull::parse(&bytes, &descriptor.media_type).map_err(fault)?;
        let index = match content {
            Content::Index(index) => index,
            Content::Image(manifest) => {
                let config = read(place, &manifest.config, pull::CONFIG_BYTES)?;
                return Ok(RemoteImage {
                    reference: reference.clone(),
                    manifest: *manifest,
                    manifest_bytes: bytes,
                    media_type,
                    manifest_digest: descriptor.digest,
                    resolved_digest,
                    config,
                    home: Home::Layout(place.directory.clone()),
                });
            }
        };
        descriptor = chosen(&index, platform, &image)?;
    }
    Err(Error::Answer { what: format!("read {image}"), fault: Fault::Nested(pull::NESTING) })
}

fn chosen(index: &Index, platform: &Platform, image: &str) -> Result<Descriptor, Error> {
    pull::choose(index, platform).cloned().map_err(|offered| Error::NoPlatform {
        image: image.to_owned(),
        wanted: Box::new(platform.clone()),
        offered,
    })
}

/// Looks for the name in `index.json`.
fn named(place: &LayoutPlace, platform: &Platform) -> Result<Descriptor, Error> {
    let path = place.directory.join("index.json");
    let bytes = limited(&path, pull::MANIFEST_BYTES)?;
    let index: Index = parse_object(&bytes).map_err(|source| Error::Answer {
        what: format!("read {}", path.display()),
        fault: Fault::BadManifest(source),
    })?;
    let name_of = |entry: &Descriptor| entry.annotations.get(REF_NAME).cloned();
    let called = |wanted: &str| -> Vec<Descriptor> {
        index.manifests.iter().filter(|entry| name_of(entry).as_deref() == Some(wanted)).cloned().collect()
    };
    let manifests = match &place.name {
        Some(name) => called(name),
        None => match called(LATEST) {
            latest if latest.is_empty() => index.manifests.clone(),
            latest => latest,
        },
    };
    match &manifests[..] {
        [] => {}
        [one] => return Ok(one.clone()),
        several if several.iter().all(|entry| name_of(entry) == name_of(&several[0])) => {
            return chosen(&Index { manifests, ..index }, platform, &place.to_string());
        }
        _ => {}
    }
    Err(Error::NoSuchName { layout: place.to_string(), names: index.manifests.iter().filter_map(name_of).collect() })
}

/// What is asked for by its digest alone is as long as it is.
fn size_of(place: &LayoutPlace, digest: Digest) -> Result<Descriptor, Error> {
    let path = blob_path(&place.directory, &digest);
    let size = fs::metadata(&path).map_err(|source| Error::Layout { path, source })?.len();
    Ok(Descriptor::new("", digest, size))
}

fn blob_path(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join("blobs/sha256").join(digest.hex())
}

/// A small file, whole.
fn limited(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, Error> {
    read_regular(path, limit_bytes).map_err(|source| Error::Layout { path: path.to_path_buf(), source })
}

/// A small blob, checked.
fn read(place: &LayoutPlace, descriptor: &Descriptor, limit_bytes: u64) -> Result<Vec<u8>, Error> {
    let path = blob_path(&place.directory, &descriptor.digest);
    let bytes = limited(&path, limit_bytes)?;
    let (expected, found) = (descriptor.digest, Digest::of(&bytes));
    let (announced, size) = (descriptor.size, bytes.len() as u64);
    let wrong = if announced != size {
        blobs::Error::WrongSize { digest: expected, expected: announced, found: size }
    } else if expected != found {
        blobs::Error::WrongDigest { expected, found }
    } else {
        return Ok(bytes);
    };
    Err(Error::Answer { what: format!("read {}", path.display()), fault: Fault::WrongBlob(wrong) })
}

/// Copies a blob into the store, checked as it passes.
pub(super) async fn blob(
    directory: &Path,
    blob: &Descriptor,
    store: &BlobStore,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let path = blob_path(directory, &blob.digest);
    let unreadable = |source| Error::Layout { path: path.clone(), source };
    let mut file = open_regular(&path).map_err(unreadable)?;
    let mut writer = store.writer()?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let bytes = file.read(&mut piece).map_err(unreadable)?;
        if bytes == 0 {
            break;
        }
        writer.write_all(&piece[..bytes]).map_err(|source| writer.error("write blob", source))?;
        progress.advanced(blob, writer.size_bytes());
        // who waits for something else, or wants this to end, has a turn
        tokio::task::yield_now().await;
    }
    writer.finish_as(blob.digest, blob.size).map_err(|error| match error {
        blobs::Error::Io { .. } => Error::Blobs(error),
        wrong => Error::Answer { what: format!("read {}", path.display()), fault: Fault::WrongBlob(wrong) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type::{OCI_CONFIG, OCI_MANIFEST};

    #[test]
    fn places() {
        let digest = Digest::of(b"");
        for (text, directory, name, has_digest) in [
            ("/a/b", "/a/b", None, false),
            ("/a/b:v1", "/a/b", Some("v1"), false),
            ("/a:1/b", "/a:1/b", None, false),
            ("/a:", "/a:", None, false),
            (&format!("/a/b@{digest}"), "/a/b", None, true),
            (&format!("/a/b:v1@{digest}"), "/a/b", Some("v1"), true),
        ] {
            let place: LayoutPlace = text.parse().expect(text);
            assert_eq!((place.directory.as_path(), place.name.as_deref()), (Path::new(directory), name), "{text}");
            assert_eq!(place.digest, has_digest.then_some(digest), "{text}");
            assert_eq!(place.to_string(), text);
        }
        assert!("/a@v1".parse::<LayoutPlace>().is_err());
    }

    #[test]
    fn images_by_name_and_digest() {
        let place = tempfile::tempdir().expect("a directory");
        let blobs = BlobStore::open(place.path()).expect("opened");
        let config = blobs.write(b"{}").expect("written");
        let descriptor = |text: &str, name: Option<&str>, platform: Option<&str>| {
            let mut entry =
                Descriptor::new(OCI_MANIFEST, blobs.write(text.as_bytes()).expect("written"), text.len() as u64);
            entry.annotations.extend(name.map(|name| (REF_NAME.to_owned(), name.to_owned())));
            entry.platform = platform.map(|platform| platform.parse().expect("a platform"));
            entry
        };
        let manifest = |annotation: &str| {
            format!(
                "{{\"schemaVersion\":2,\"config\":{{\"mediaType\":\"{OCI_CONFIG}\",\"digest\":\"{config}\",\"size\":2}},\
                 \"layers\":[],\"annotations\":{{\"is\":\"{annotation}\"}}}}"
            )
        };
        let [amd, arm, old, bare] = ["amd", "arm", "old", "bare"].map(manifest);
        let write = |manifests: Vec<Descriptor>| {
            let index = Index { schema_version: 2, media_type: None, manifests, annotations: Default::default() };
            fs::write(place.path().join("index.json"), serde_json::to_vec(&index).expect("JSON")).expect("written");
        };
        let reference: Reference = "r.example/a:1".parse().expect("a reference");
        let found = |name: &str| {
            let asked: LayoutPlace = format!("{}{name}", place.path().display()).parse().expect(name);
            let image = image(&asked, &reference, &"linux/amd64".parse().expect("a platform"));
            image.map(|image| image.manifest.annotations["is"].clone()).map_err(|error| error.to_string())
        };
        write(vec![
            descriptor(&amd, Some("v2"), Some("linux/amd64")),
            descriptor(&arm, Some("v2"), Some("linux/arm64")),
            descriptor(&old, Some("v1"), None),
        ]);
        assert_eq!(found(":v2").as_deref(), Ok("amd"));
        assert_eq!(found(":v1").as_deref(), Ok("old"));
        assert_eq!(found(&format!("@{}", Digest::of(arm.as_bytes()))).as_deref(), Ok("arm"));
        for name in ["", ":v3"] {
            let told = found(name).expect_err("none is meant");
            assert!(told.ends_with("it has v2, v2, v1"), "{told}");
        }
        write(vec![descriptor(&old, Some("v1\u{1b}[2J\nv2"), None)]);
        let told = found(":v1").expect_err("none is meant");
        assert!(told.ends_with("it has v1\\u{1b}[2J\\nv2"), "{told}");
        write(vec![descriptor(&bare, None, None)]);
        assert_eq!(found("").as_deref(), Ok("bare"));
        write(vec![descriptor(&old, Some("v1"), None), descriptor(&amd, Some(LATEST), None)]);
        assert_eq!(found("").as_deref(), Ok("amd"));
        fs::write(place.path().join("index.json"), "[2,null,[]]").expect("written");
        assert!(found("").is_err_and(|told| told.ends_with("index.json")));
        write(vec![descriptor(&amd, None, None)]);
        fs::write(blob_path(place.path(), &Digest::of(amd.as_bytes())), amd.replace("amd", "arm")).expect("written");
        assert!(found("").is_err_and(|told| told.starts_with("read ")));
        assert!(found(&format!("@{}", Digest::of(b"gone"))).is_err());
    }
}
