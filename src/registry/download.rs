//! Blobs into the store: streamed, checked, several at once, resumed where they broke off.

use std::collections::HashSet;
use std::io::Write;

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode, Url};

use super::endpoint::{Access, Place};
use super::error::{Error, Fault};
use super::layout;
use super::progress::Progress;
use super::pull::{Home, RemoteImage};
use super::transport::{Ask, Body, Session, Transport, pause};
use crate::blobs::{self, BlobStore, BlobWriter};
use crate::http::{self, chain, within};
use crate::oci::Descriptor;

/// Transfers at once: three are docker's and containerd's default, and one more hides the pauses between blobs.
pub(super) const TRANSFERS_AT_ONCE: usize = 4;

pub(super) async fn blobs(
    transport: &Transport,
    image: &RemoteImage,
    wanted: &[Descriptor],
    store: &BlobStore,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let mut seen = HashSet::new();
    let distinct = wanted.iter().filter(|blob| seen.insert(blob.digest));
    let transfers = distinct.map(|blob| one(transport, image, blob, store, progress));
    stream::iter(transfers).buffer_unordered(TRANSFERS_AT_ONCE).try_collect::<()>().await
}

/// From where the manifest came, then from the other places that may have it.
pub(super) async fn one(
    transport: &Transport,
    image: &RemoteImage,
    blob: &Descriptor,
    store: &BlobStore,
    progress: &dyn Progress,
) -> Result<(), Error> {
    if !store.contains(&blob.digest) {
        progress.started(blob);
        let home = match &image.home {
            Home::Registry(place) => place,
            Home::Layout(directory) => {
                layout::blob(directory, blob, store, progress).await?;
                progress.finished(blob);
                return Ok(());
            }
        };
        let others = Place::candidates(&image.reference, &transport.settings)?;
        let others = others.into_iter().filter(|place| place != home);
        let mut places = std::iter::once(home.clone()).chain(others).peekable();
        loop {
            let place = places.next().expect("the last place returns");
            let last = places.peek().is_none();
            let tried = async {
                let session = transport.session(&place, Access::Pull, last).await?;
                from(&session, blob, store, progress).await
            };
            match tried.await {
                Ok(()) => break,
                Err(error @ Error::Blobs(_)) => return Err(error),
                Err(error) if last => return Err(error),
                Err(error) => tracing::warn!("{}; trying the next registry", chain(&error)),
            }
        }
    }
    progress.finished(blob);
    Ok(())
}

async fn from(
    session: &Session<'_>,
    blob: &Descriptor,
    store: &BlobStore,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let url = session.url(&format!("blobs/{}", blob.digest))?;
    match from_url(session, url, blob, store, progress).await {
        // image spec, "Non-Distributable Layers": the registry need not have them
        Err(error) if error.status() == Some(404) && !blob.urls.is_empty() => {
            let mut failure = error;
            for address in &blob.urls {
                let Ok(url) = Url::parse(address) else { continue };
                match from_url(session, url, blob, store, progress).await {
                    Ok(()) => return Ok(()),
                    Err(error) => failure = error,
                }
            }
            Err(failure)
        }
        answer => answer,
    }
}

async fn from_url(
    session: &Session<'_>,
    url: Url,
    blob: &Descriptor,
    store: &BlobStore,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let mut ask = Ask {
        what: format!("get blob {}@{}", session.place.name(), blob.digest),
        method: Method::GET,
        url,
        headers: HeaderMap::new(),
        body: Body::None,
        mount_from: None,
    };
    let mut pauses = session.transport.pauses(Access::Pull);
    let mut writer = store.writer()?;
    loop {
        match attempt(session, &mut ask, blob, store, &mut writer, progress).await {
            Ok(()) => return writer.finish_as(blob.digest, blob.size).map_err(|error| trouble(&ask, error)),
            Err(error) => pause(&mut pauses, error).await?,
        }
    }
}

/// Takes up where the writer is.
async fn attempt(
    session: &Session<'_>,
    ask: &mut Ask<'_>,
    blob: &Descriptor,
    store: &BlobStore,
    writer: &mut BlobWriter,
    progress: &dyn Progress,
) -> Result<(), Error> {
    ask.headers.remove(RANGE);
    let have = writer.size_bytes();
    if have > 0 && have < blob.size {
        let range = HeaderValue::try_from(format!("bytes={have}-")).expect("digits are a header value");
        ask.headers.insert(RANGE, range);
    }
    let mut response = session.send_once(ask).await?;
    if have > 0 && !continues_at(&response, have) {
        *writer = store.writer()?;
    }
    let patience = session.transport.http.patience();
    while let Some(chunk) = within(patience, &ask.what, response.chunk()).await? {
        let found = writer.size_bytes() + chunk.len() as u64;
        if found > blob.size {
            return Err(trouble(ask, blobs::Error::WrongSize { digest: blob.digest, expected: blob.size, found }));
        }
        writer.write_all(&chunk).map_err(|source| writer.error("write blob", source))?;
        progress.advanced(blob, writer.size_bytes());
    }
    let found = writer.size_bytes();
    if found < blob.size {
        return Err(http::Error::Short { what: ask.what.clone(), expected: blob.size, found }.into());
    }
    Ok(())
}

/// The store's own trouble, or that of who gave the bytes.
fn trouble(ask: &Ask<'_>, error: blobs::Error) -> Error {
    match error {
        blobs::Error::Io { .. } => Error::Blobs(error),
        wrong => Error::Answer { what: ask.what.clone(), fault: Fault::WrongBlob(wrong) },
    }
}

/// RFC 9110, section 14.4. A server that does not know ranges answers 200 and begins anew.
fn continues_at(response: &Response, offset: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.trim_start().starts_with(&format!("bytes {offset}-")))
}
