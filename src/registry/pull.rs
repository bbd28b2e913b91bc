//! From a name to a manifest and a config.

use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::endpoint::{Access, Place};
use super::error::{Error, Fault};
use super::layout::LayoutPlace;
use super::transport::{Ask, Body, Session, Transport, pause};
use crate::blobs;
use crate::http::{self, chain, read_limited};
use crate::oci::{Descriptor, Digest, Index, Manifest, Platform, Reference, media_type, parse_object};

/// What registries accept at most (distribution spec, "Pushing Manifests").
pub(super) const MANIFEST_BYTES: u64 = 4 * 1024 * 1024;
/// Configs of real images have kilobytes; one with 127 layers and long histories stays far below this.
pub(super) const CONFIG_BYTES: u64 = 16 * 1024 * 1024;
/// An index of indexes is allowed; nobody nests deeper.
pub(super) const NESTING: u32 = 3;
/// docker and BuildKit file attestations in an index under this annotation.
const ATTESTATION: &str = "vnd.docker.reference.type";

const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Where an image is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImagePlace {
    /// In a registry.
    Registry(Reference),
    /// In a layout.
    Layout {
        /// Which, and which image in it.
        place: LayoutPlace,
        /// What it is called in this build.
        name: Reference,
    },
}

impl fmt::Display for ImagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImagePlace::Registry(reference) => reference.fmt(f),
            ImagePlace::Layout { place, .. } => place.fmt(f),
        }
    }
}

/// Where an image was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Home {
    Registry(Place),
    Layout(PathBuf),
}

/// An image that a registry or a layout has.
#[derive(Debug, Clone)]
pub struct RemoteImage {
    /// The name that it was asked for by.
    pub reference: Reference,
    /// The manifest.
    pub manifest: Manifest,
    /// The manifest as it came.
    pub manifest_bytes: Vec<u8>,
    /// What the manifest is.
    pub media_type: String,
    /// Digest of the image's manifest.
    pub manifest_digest: Digest,
    /// Digest of what the name stands for: the index's, where it is one.
    pub resolved_digest: Digest,
    /// The config, JSON.
    pub config: Vec<u8>,
    pub(super) home: Home,
}

impl RemoteImage {
    /// The registry that had the image, a mirror perhaps, and the repository there.
    pub fn registry_and_repository(&self) -> Option<(&str, &str)> {
        self.place().map(|place| (&*place.registry, &*place.repository))
    }

    pub(super) fn place(&self) -> Option<&Place> {
        match &self.home {
            Home::Registry(place) => Some(place),
            Home::Layout(_) => None,
        }
    }
}

pub(super) async fn image(
    transport: &Transport,
    reference: &Reference,
    platform: &Platform,
) -> Result<RemoteImage, Error> {
    let mut places = Place::candidates(reference, &transport.settings)?.into_iter().peekable();
    loop {
        let place = places.next().expect("candidates are never empty, and the last one returns");
        let last = places.peek().is_none();
        tracing::info!("Retrieving image {reference} from registry {}", place.registry);
        let tried = async {
            let session = transport.session(&place, Access::Pull, last).await?;
            image_from(&session, reference, platform).await
        };
        match tried.await {
            Err(error) if !last => {
                tracing::warn!("{}; trying the next registry", chain(&error));
            }
            answer => return answer,
        }
    }
}

async fn image_from(session: &Session<'_>, reference: &Reference, platform: &Platform) -> Result<RemoteImage, Error> {
    let image = reference.to_string();
    let asked = (reference.digest().map(str::parse::<Digest>).transpose())
        .map_err(|source| Error::Digest { image: image.clone(), source })?;
    let name = asked.map_or_else(|| reference.tag().unwrap_or("latest").to_owned(), |digest| digest.to_string());
    let mut got = fetch_manifest(session, &name, asked).await?;
    let resolved_digest = got.digest;
    for _ in 0..NESTING {
        let index = match got.content {
            Content::Image(manifest) => {
                let manifest = *manifest;
                let config = fetch_config(session, &manifest.config).await?;
                let media_type = got.media_type;
                return Ok(RemoteImage {
                    reference: reference.clone(),
                    manifest,
                    manifest_bytes: got.bytes,
                    media_type,
                    manifest_digest: got.digest,
                    resolved_digest,
                    config,
                    home: Home::Registry(session.place.clone()),
                });
            }
            Content::Index(index) => index,
        };
        let chosen = choose(&index, platform).map_err(|offered| Error::NoPlatform {
            image: image.clone(),
            wanted: Box::new(platform.clone()),
            offered,
        })?;
        got = fetch_manifest(session, &chosen.digest.to_string(), Some(chosen.digest)).await?;
        let (digest, expected, found) = (chosen.digest, chosen.size, got.bytes.len() as u64);
        if found != expected {
            let fault = Fault::WrongBlob(blobs::Error::WrongSize { digest, expected, found });
            return Err(Error::Answer { what: format!("pull {image}"), fault });
        }
    }
    Err(Error::Answer { what: format!("pull {image}"), fault: Fault::Nested(NESTING) })
}

pub(super) struct Got {
    bytes: Vec<u8>,
    digest: Digest,
    media_type: String,
    content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Image(Box<Manifest>),
    Index(Index),
}

pub(super) async fn fetch_manifest(session: &Session<'_>, name: &str, asked: Option<Digest>) -> Result<Got, Error> {
    let separator = if asked.is_some() { '@' } else { ':' };
    let what = format!("get manifest {}{separator}{name}", session.place.name());
    let ask = Ask {
        what: what.clone(),
        method: Method::GET,
        url: session.url(&format!("manifests/{name}"))?,
        headers: HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(ACCEPTED))]),
        body: Body::None,
        mount_from: None,
    };
    let ((response_type, said), bytes) = session
        .read(&ask, MANIFEST_BYTES, |response| {
            let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            (kind.unwrap_or_default().to_owned(), digest_header(response))
        })
        .await?;
    let fault = |fault| Error::Answer { what: what.clone(), fault };
    let digest = Digest::of(&bytes);
    let wrong = |expected: Digest, found: Digest| {
        if found == expected { Ok(()) } else { Err(fault(Fault::WrongDigest { expected, found })) }
    };
    if let Some(expected) = asked {
        wrong(expected, digest)?;
        wrong(expected, said.unwrap_or(expected))?;
    }
    let (media_type, content) = parse(&bytes, &response_type).map_err(fault)?;
    // a tag promises nothing, but a server that says of what it speaks must speak of that
    wrong(said.unwrap_or(digest), digest)?;
    Ok(Got { bytes, digest, media_type, content })
}

/// What a registry says that the digest of a manifest is (distribution spec, `Docker-Content-Digest`), if we know the algorithm.
pub(super) fn digest_header(response: &Response) -> Option<Digest> {
    response.headers().get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

async fn fetch_config(session: &Session<'_>, config: &Descriptor) -> Result<Vec<u8>, Error> {
    let what = format!("get config {}@{}", session.place.name(), config.digest);
    if config.size > CONFIG_BYTES {
        return Err(http::Error::TooLarge { what, limit_bytes: CONFIG_BYTES }.into());
    }
    let ask = Ask {
        what,
        method: Method::GET,
        url: session.url(&format!("blobs/{}", config.digest))?,
        headers: HeaderMap::new(),
        body: Body::None,
        mount_from: None,
    };
    let ((), bytes) = session.read(&ask, CONFIG_BYTES, |_| ()).await?;
    let (size, digest) = (bytes.len() as u64, Digest::of(&bytes));
    let wrong = if size != config.size {
        blobs::Error::WrongSize { digest: config.digest, expected: config.size, found: size }
    } else if digest != config.digest {
        blobs::Error::WrongDigest { expected: config.digest, found: digest }
    } else {
        return Ok(bytes);
    };
    Err(Error::Answer { what: ask.what, fault: Fault::WrongBlob(wrong) })
}

impl Session<'_> {
    /// Sends, and reads a small answer whole; a body that breaks off is asked for again.
    async fn read<T>(
        &self,
        ask: &Ask<'_>,
        limit_bytes: u64,
        heading: impl Fn(&Response) -> T,
    ) -> Result<(T, Vec<u8>), Error> {
        let patience = self.transport.http.patience();
        let mut pauses = self.transport.pauses(Access::Pull);
        loop {
            let tried = async {
                let response = self.send_once(ask).await?;
                let head = heading(&response);
                let body = tokio::time::timeout(patience, read_limited(response, limit_bytes, &ask.what)).await;
                Ok((head, body.map_err(|_| http::Error::Stalled { what: ask.what.clone(), patience })??))
            };
            match tried.await {
                Err(error) => pause(&mut pauses, error).await?,
                answer => return answer,
            }
        }
    }
}

/// What a manifest is, by its own word, else by the server's, else by its shape.
pub(super) fn parse(bytes: &[u8], response_type: &str) -> Result<(String, Content), Fault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        schema_version: Option<u32>,
        media_type: Option<String>,
        config: Option<IgnoredAny>,
        manifests: Option<IgnoredAny>,
    }
    let shape: Shape = parse_object(bytes).map_err(Fault::BadManifest)?;
    match shape.schema_version {
        Some(1) => return Err(Fault::SchemaOne),
        Some(2) | None => {}
        Some(other) => return Err(Fault::NotAnImage { found: format!("a manifest of schema version {other}") }),
    }
    let response_type = response_type.split(';').next().unwrap_or_default().trim();
    let known = |name: &&str| IMAGES.contains(name) || INDEXES.contains(name);
    let by_shape = match (&shape.config, &shape.manifests) {
        (Some(_), None) => Some(media_type::OCI_MANIFEST),
        (None, Some(_)) => Some(media_type::OCI_INDEX),
        _ => None,
    };
    let named = shape.media_type.as_deref();
    let media_type = named.or(Some(response_type).filter(known)).or(by_shape);
    let media_type = media_type.ok_or_else(|| Fault::NotAnImage { found: "JSON of an unknown kind".into() })?;
    let content = match media_type {
        name if IMAGES.contains(&name) => {
            let manifest: Manifest = serde_json::from_slice(bytes).map_err(Fault::BadManifest)?;
            see_that_it_holds_files(&manifest)?;
            Content::Image(Box::new(manifest))
        }
        name if INDEXES.contains(&name) => Content::Index(serde_json::from_slice(bytes).map_err(Fault::BadManifest)?),
        name => return Err(Fault::NotAnImage { found: name.escape_debug().take(200).collect() }),
    };
    Ok((media_type.to_owned(), content))
}

/// An artifact (image spec, "Guidelines for Artifact Usage") looks like an image; its layers are no files, or not to be read.
fn see_that_it_holds_files(manifest: &Manifest) -> Result<(), Fault> {
    let short = |name: &str| name.chars().take(200).collect();
    let config = manifest.config.media_type.as_str();
    if !CONFIGS.contains(&config) {
        return Err(Fault::Artifact { found: short(config) });
    }
    let is_layer = |name: &str| {
        name.is_empty() || LAYERS.iter().any(|family| name.starts_with(family)) && !name.ends_with(ENCRYPTED)
    };
    match manifest.layers.iter().find(|layer| !is_layer(&layer.media_type)) {
        Some(other) => Err(Fault::NotALayer { found: short(&other.media_type) }),
        None => Ok(()),
    }
}

/// What docker takes for configs of images (moby, `ImageTypes`): old registries had other names for them.
const CONFIGS: [&str; 6] = [
    media_type::OCI_CONFIG,
    media_type::DOCKER_CONFIG,
    "application/octet-stream",
    "application/json",
    "text/html",
    "",
];
/// What the types of layers begin with. The compression that they end with is not relied on.
const LAYERS: [&str; 4] = [
    media_type::OCI_LAYER,
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.",
    "application/octet-stream",
];
/// What ocicrypt appends to the type of a layer.
const ENCRYPTED: &str = "+encrypted";

const IMAGES: [&str; 2] = [media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST];
const INDEXES: [&str; 2] = [media_type::OCI_INDEX, media_type::DOCKER_INDEX];

/// The image that suits a platform best, the first of equals; else an index within that says nothing of platforms,
/// or the only image there is if that says nothing either. The error is what is offered.
pub(super) fn choose<'a>(index: &'a Index, platform: &Platform) -> Result<&'a Descriptor, Vec<Platform>> {
    let images = || {
        index.manifests.iter().filter(|entry| {
            let unknown = entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
            let kind = entry.media_type.as_str();
            !unknown
                && !entry.annotations.contains_key(ATTESTATION)
                && (IMAGES.contains(&kind) || INDEXES.contains(&kind))
        })
    };
    let ranked = images().filter_map(|entry| Some((platform.rank(entry.platform.as_ref()?)?, entry)));
    // max_by_key takes the last of equals
    if let Some((_, best)) = ranked.rev().max_by_key(|(rank, _)| *rank) {
        return Ok(best);
    }
    let silent = || images().filter(|entry| entry.platform.is_none());
    let nested = silent().find(|entry| INDEXES.contains(&entry.media_type.as_str()));
    let only = silent().next().filter(|_| images().count() == 1);
    nested.or(only).ok_or_else(|| images().filter_map(|entry| entry.platform.clone()).collect())
}

/// A body that is at hand.
pub(super) fn bytes_body(bytes: &[u8]) -> Body<'static> {
    Body::Bytes(Bytes::copy_from_slice(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().expect("a platform")
    }

    fn entry(media_type: &str, content: &str, platform: Option<Platform>) -> Descriptor {
        Descriptor { platform, ..Descriptor::new(media_type, Digest::of(content.as_bytes()), 1) }
    }

    fn index(manifests: Vec<Descriptor>) -> Index {
        Index { schema_version: 2, media_type: None, manifests, annotations: Default::default() }
    }

    #[test]
    fn the_best_image_is_chosen() {
        let image = |content, for_platform| entry(media_type::OCI_MANIFEST, content, Some(platform(for_platform)));
        let unknown = Platform { os: "unknown".into(), architecture: "unknown".into(), ..platform("linux/amd64") };
        let mut attested = image("attested", "linux/amd64");
        attested.annotations.insert(ATTESTATION.into(), "attestation-manifest".into());
        let index = index(vec![
            entry(media_type::OCI_MANIFEST, "attestation", Some(unknown)),
            attested,
            image("first", "linux/amd64"),
            image("second", "linux/amd64"),
            image("v6", "linux/arm/v6"),
            image("v7", "linux/arm/v7"),
        ]);
        for (wanted, expected) in [("linux/amd64", "first"), ("linux/arm/v7", "v7"), ("linux/arm/v6", "v6")] {
            assert_eq!(choose(&index, &platform(wanted)).expect("one").digest, Digest::of(expected.as_bytes()));
        }
        let offered = choose(&index, &platform("linux/s390x")).expect_err("none");
        let offered: Vec<_> = offered.iter().map(Platform::to_string).collect();
        assert_eq!(offered, ["linux/amd64", "linux/amd64", "linux/arm/v6", "linux/arm/v7"]);
    }

    #[test]
    fn indexes_that_say_nothing_of_platforms() {
        let amd64 = platform("linux/amd64");
        let lone = index(vec![entry(media_type::DOCKER_MANIFEST, "lone", None)]);
        assert_eq!(choose(&lone, &amd64).expect("one").digest, Digest::of(b"lone"));
        let other = entry(media_type::OCI_MANIFEST, "arm", Some(platform("linux/arm64")));
        let nested = index(vec![other, entry(media_type::OCI_INDEX, "nested", None)]);
        assert_eq!(choose(&nested, &amd64).expect("one").digest, Digest::of(b"nested"));
        let blob = index(vec![entry("text/plain", "blob", None)]);
        assert!(choose(&blob, &amd64).is_err());
    }

    #[test]
    fn what_a_manifest_is() {
        let (digest, config) = (Digest::of(b""), media_type::OCI_CONFIG);
        let image = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{config}","digest":"{digest}","size":1}},"layers":[]}}"#
        );
        let kind = |json: &str, response_type: &str| match parse(json.as_bytes(), response_type) {
            Ok((media_type, _)) => media_type,
            Err(fault) => format!("{fault:?}").split(['(', ' ']).next().unwrap_or_default().to_owned(),
        };
        assert_eq!(kind(&image, ""), media_type::OCI_MANIFEST);
        assert_eq!(kind(&image, "application/json"), media_type::OCI_MANIFEST);
        assert_eq!(kind(&image, media_type::DOCKER_MANIFEST), media_type::DOCKER_MANIFEST);
        assert_eq!(kind(r#"{"schemaVersion":2,"manifests":[]}"#, ""), media_type::OCI_INDEX);
        assert_eq!(kind(r#"{"schemaVersion":1,"fsLayers":[]}"#, ""), "SchemaOne");
        assert_eq!(kind(r#"{"schemaVersion":2,"mediaType":"text/plain"}"#, media_type::OCI_INDEX), "NotAnImage");
        assert_eq!(kind(&image.replace("\"schemaVersion\":2", "\"schemaVersion\":3"), ""), "NotAnImage");
        assert_eq!(kind("{}", "text/html"), "NotAnImage");
        assert_eq!(kind("<html>", media_type::OCI_INDEX), "BadManifest");
        assert_eq!(kind("[1]", ""), "BadManifest");
        assert_eq!(kind("[2,null,{},[]]", ""), "BadManifest");
        assert_eq!(kind(&image.replace("\"size\":1", "\"size\":-1"), ""), "BadManifest");
        assert_eq!(kind(&image.replace("sha256:", "md5:"), ""), "BadManifest");
        assert_eq!(kind(&image.replace(config, "application/vnd.cncf.helm.config.v1+json"), ""), "Artifact");
        for (layer, expected) in [
            (media_type::OCI_LAYER_ZSTD, media_type::OCI_MANIFEST),
            (media_type::OCI_LAYER_FOREIGN, media_type::OCI_MANIFEST),
            (media_type::DOCKER_LAYER_FOREIGN, media_type::OCI_MANIFEST),
            ("application/vnd.in-toto+json", "NotALayer"),
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "NotALayer"),
        ] {
            let layer = format!(r#"[{{"mediaType":"{layer}","digest":"{digest}","size":1}}]"#);
            assert_eq!(kind(&image.replace("[]", &layer), ""), expected, "{layer}");
        }
    }
}
