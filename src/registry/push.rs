//! From the store to a registry: what it lacks, then the manifest.

use std::collections::HashSet;
use std::io;

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use super::download::{self, TRANSFERS_AT_ONCE};
use super::endpoint::{Access, Place};
use super::error::{Error, Fault};
use super::progress::Progress;
use super::pull::{RemoteImage, bytes_body, digest_header, fetch_manifest};
use super::transport::{Ask, Body, Session, Transport, pause};
use crate::blobs::BlobStore;
use crate::http::{self, chain};
use crate::oci::{Descriptor, Digest, Manifest, Reference, media_type};

/// Bytes per read of an upload: several TLS records, and few enough that progress is smooth.
const UPLOAD_READ_BYTES: usize = 128 * 1024;

/// An image that is to be pushed.
pub struct PushImage<'a> {
    /// The manifest, as its digest counts it.
    pub manifest: &'a [u8],
    /// What the manifest is.
    pub media_type: &'a str,
    /// The same manifest, parsed.
    pub manifest_struct: &'a Manifest,
    /// The bases: where layers that are not in the store can be mounted or fetched from.
    pub sources: &'a [RemoteImage],
}

pub(super) async fn check(transport: &Transport, destination: &Reference) -> Result<(), Error> {
    let session = transport.session(&Place::of(destination), Access::Push, true).await?;
    let Begun::Upload(upload) = begin(&session, None).await? else { return Ok(()) };
    let cancel = ask(&session, "cancel an upload to", Method::DELETE, upload);
    if let Err(error) = session.send_once(&cancel).await {
        // the registry forgets it by itself, in time
        tracing::debug!("{}", chain(&error));
    }
    Ok(())
}

pub(super) async fn image(
    transport: &Transport,
    destination: &Reference,
    image: &PushImage<'_>,
    store: &BlobStore,
    progress: &dyn Progress,
) -> Result<Digest, Error> {
    let place = Place::of(destination);
    tracing::info!("Pushing image to {}", shown(destination, &place));
    let session = transport.session(&place, Access::Push, true).await?;
    let push = Push { session: &session, sources: image.sources, store, progress };
    let mut seen = HashSet::new();
    let distributable = |blob: &&Descriptor| !is_foreign(&blob.media_type);
    let layers = image.manifest_struct.layers.iter().filter(distributable).filter(|blob| seen.insert(blob.digest));
    stream::iter(layers.map(|blob| push.blob(blob))).buffer_unordered(TRANSFERS_AT_ONCE).try_collect::<()>().await?;
    push.blob(&image.manifest_struct.config).await?;
    let digest = Digest::of(image.manifest);
    manifest(&session, destination, image, digest).await?;
    tracing::info!("Pushed {}@{digest}", place.name());
    Ok(digest)
}

fn shown(destination: &Reference, place: &Place) -> String {
    match destination.tag() {
        Some(tag) => format!("{}:{tag}", place.name()),
        None => place.name(),
    }
}

/// Image spec, "Non-Distributable Layers".
fn is_foreign(kind: &str) -> bool {
    kind == media_type::DOCKER_LAYER_FOREIGN || kind.starts_with("application/vnd.oci.image.layer.nondistributable.")
}

struct Push<'a> {
    session: &'a Session<'a>,
    sources: &'a [RemoteImage],
    store: &'a BlobStore,
    progress: &'a dyn Progress,
}

/// What a registry makes of the wish to upload.
enum Begun {
    Upload(Url),
    /// It had the blob in the other repository.
    Mounted,
}

impl Push<'_> {
    async fn blob(&self, blob: &Descriptor) -> Result<(), Error> {
        if !self.is_there(blob).await? && !self.mount(blob).await? {
            if !self.store.contains(&blob.digest) {
                self.fetch(blob).await?;
            }
            self.progress.started(blob);
            let mut pauses = self.session.transport.pauses(Access::Push);
            while let Err(error) = self.upload(blob).await {
                pause(&mut pauses, error).await?;
            }
        }
        self.progress.finished(blob);
        Ok(())
    }

    async fn is_there(&self, blob: &Descriptor) -> Result<bool, Error> {
        let url = self.session.url(&format!("blobs/{}", blob.digest))?;
        match self.session.send(&ask(self.session, "look for a blob in", Method::HEAD, url)).await {
            Ok(_) => Ok(true),
            Err(error) if error.status() == Some(404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn source_of(&self, blob: &Descriptor) -> impl Iterator<Item = &RemoteImage> {
        let digest = blob.digest;
        self.sources.iter().filter(move |image| image.manifest.layers.iter().any(|layer| layer.digest == digest))
    }

    /// Takes the blob from another repository of the same registry. Not being allowed to is no failure.
    async fn mount(&self, blob: &Descriptor) -> Result<bool, Error> {
        let here = &self.session.place;
        let neighbour = |place: &&Place| place.registry == here.registry && place.repository != here.repository;
        let places = self.source_of(blob).filter_map(RemoteImage::place);
        let Some(source) = { places }.find(neighbour) else { return Ok(false) };
        match begin(self.session, Some((blob.digest, &source.repository))).await {
            Ok(Begun::Mounted) => Ok(true),
            // the upload that was begun instead is left to the registry: the blob may have to be fetched first
            Ok(Begun::Upload(_)) => Ok(false),
            Err(error) if error.is_temporary() => Err(error),
            Err(error) => {
                tracing::debug!("mount from {}: {}", source.name(), chain(&error));
                Ok(false)
            }
        }
    }

    async fn fetch(&self, blob: &Descriptor) -> Result<(), Error> {
        let source = self
            .source_of(blob)
            .next()
            .ok_or_else(|| Error::NoSource { digest: blob.digest, destination: self.session.place.name() })?;
        download::one(self.session.transport, source, blob, self.store, self.progress).await
    }

    /// Distribution spec, "POST then PUT". A try begins a new upload: registries differ in how they resume.
    async fn upload(&self, blob: &Descriptor) -> Result<(), Error> {
        let Begun::Upload(mut url) = begin(self.session, None).await? else { return Ok(()) };
        url.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let (sent, mut received) = mpsc::unbounded_channel::<u64>();
        let path = self.store.path(&blob.digest);
        // fails early, and names the file
        drop(self.store.read(&blob.digest)?);
        let make = move || {
            let sent = sent.clone();
            let path = path.clone();
            let chunks = stream::once(tokio::fs::File::open(path))
                .map_ok(|file| ReaderStream::with_capacity(file, UPLOAD_READ_BYTES))
                .try_flatten()
                .scan(0, move |total, chunk: io::Result<bytes::Bytes>| {
                    *total += chunk.as_ref().map_or(0, |bytes| bytes.len() as u64);
                    // nobody listens any more when the request was given up
                    let _ = sent.send(*total);
                    std::future::ready(Some(chunk))
                });
            Ok(reqwest::Body::wrap_stream(chunks))
        };
        let mut put = ask(self.session, "upload to", Method::PUT, url);
        put.what = format!("upload blob {} to {}", blob.digest, self.session.place.name());
        put.headers.insert(CONTENT_LENGTH, HeaderValue::from(blob.size));
        put.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let what = put.what.clone();
        put.body = Body::Streamed(&make);
        let patience = self.session.transport.http.patience();
        let request = std::pin::pin!(self.session.send_once(&put));
        let mut request = Some(request);
        while let Some(pending) = request.take() {
            let news = std::pin::pin!(tokio::time::timeout(patience, received.recv()));
            match futures_util::future::select(pending, news).await {
                futures_util::future::Either::Left((answer, _)) => return answer.map(drop),
                futures_util::future::Either::Right((Ok(bytes), pending)) => {
                    self.progress.advanced(blob, bytes.unwrap_or_default());
                    request = Some(pending);
                }
                futures_util::future::Either::Right((Err(_), _)) => break,
            }
        }
        Err(http::Error::Stalled { what, patience }.into())
    }
}

/// Begins an upload, or has a blob mounted.
async fn begin(session: &Session<'_>, mount: Option<(Digest, &str)>) -> Result<Begun, Error> {
    let mut url = session.url("blobs/uploads/")?;
    if let Some((digest, from)) = mount {
        url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from);
    }
    let mut post = ask(session, "begin an upload to", Method::POST, url);
    post.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    post.mount_from = mount.map(|(_, from)| from);
    let response = session.send(&post).await?;
    if response.status() == StatusCode::CREATED {
        return Ok(Begun::Mounted);
    }
    Ok(Begun::Upload(http::location(&response, &post.what)?))
}

async fn manifest(
    session: &Session<'_>,
    destination: &Reference,
    image: &PushImage<'_>,
    digest: Digest,
) -> Result<(), Error> {
    let name = match (destination.tag(), destination.digest()) {
        (Some(tag), _) => tag.to_owned(),
        (None, _) => digest.to_string(),
    };
    let mut put = ask(session, "put manifest to", Method::PUT, session.url(&format!("manifests/{name}"))?);
    put.what = format!("put manifest {}:{name}", session.place.name());
    if let Ok(kind) = HeaderValue::from_str(image.media_type) {
        put.headers.insert(CONTENT_TYPE, kind);
    }
    put.body = bytes_body(image.manifest);
    match session.send(&put).await {
        Ok(response) => match digest_header(&response) {
            Some(found) if found != digest => {
                Err(Error::Answer { what: put.what, fault: Fault::WrongDigest { expected: digest, found } })
            }
            // distribution spec, "Pushing Manifests"; others say yes to everything
            None if response.status() != StatusCode::CREATED => {
                fetch_manifest(session, &digest.to_string(), Some(digest)).await.map(drop)
            }
            _ => Ok(()),
        },
        Err(error) if session.transport.settings.ignore_immutable_tag_errors && is_immutable_tag(&error) => {
            tracing::info!("{}; the tag stays as it is", chain(&error));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// ECR, ACR, Harbor, Artifact Registry and Quay all use the word.
fn is_immutable_tag(error: &Error) -> bool {
    let Error::Http(http::Error::Refused { status: 400..=499, detail, .. }) = error else { return false };
    detail.to_lowercase().contains("immutable")
}

fn ask<'a>(session: &Session<'_>, what: &str, method: Method, url: Url) -> Ask<'a> {
    let what = format!("{what} {}", session.place.name());
    Ask { what, method, url, headers: HeaderMap::new(), body: Body::None, mount_from: None }
}
