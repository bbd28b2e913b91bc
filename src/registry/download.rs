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
/// In so many steps, each with the usual tries, a blob may arrive over connections that break again and again.
const STRETCHES: u64 = 100;

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
    let mut goes_on = true;
    loop {
        let writer = store.writer()?;
        let mut transfer = Transfer { session, ask: &mut ask, blob, store, progress, writer, goes_on, joins: 0 };
        transfer.tries().await?;
        let Transfer { writer, joins, .. } = transfer;
        match writer.finish_as(blob.digest, blob.size) {
            // the pieces may not belong together; what came in one piece would only be wrong again
            Err(error @ blobs::Error::WrongDigest { .. }) if joins > 0 => {
                tracing::warn!("{}: {error}; all of it is fetched again", ask.what);
                goes_on = false;
            }
            finished => return finished.map_err(|error| trouble(&ask, error)),
        }
    }
}

/// A blob on its way into the store.
struct Transfer<'a> {
    session: &'a Session<'a>,
    ask: &'a mut Ask<'static>,
    blob: &'a Descriptor,
    store: &'a BlobStore,
    progress: &'a dyn Progress,
    writer: BlobWriter,
    /// May an answer go on where the one before broke off?
    goes_on: bool,
    /// How many of those in the writer did.
    joins: u32,
}

impl Transfer<'_> {
    /// Tries until all of the blob has come, or there is no hope. Whoever gets on deserves patience: with every
    /// [`STRETCHES`]th of the blob that is new, tries and pauses begin anew.
    async fn tries(&mut self) -> Result<(), Error> {
        let new_pauses = || self.session.transport.pauses(Access::Pull);
        let mut pauses = new_pauses();
        let stretch = (self.blob.size / STRETCHES).max(1);
        let mut due = stretch;
        while let Err(error) = self.once().await {
            let have = self.writer.size_bytes();
            if have > 0 && have == self.blob.size && error.is_temporary() {
                // the connection broke after the last byte
                break;
            }
            if have >= due {
                due = have + stretch;
                pauses = new_pauses();
            }
            pause(&mut pauses, error).await?;
        }
        Ok(())
    }

    async fn once(&mut self) -> Result<(), Error> {
        let mut response = self.send().await?;
        let patience = self.session.transport.http.patience();
        while let Some(chunk) = within(patience, &self.ask.what, response.chunk()).await? {
            let found = self.writer.size_bytes() + chunk.len() as u64;
            let Descriptor { digest, size: expected, .. } = *self.blob;
            if found > expected {
                return Err(trouble(self.ask, blobs::Error::WrongSize { digest, expected, found }));
            }
            self.writer.write_all(&chunk).map_err(|source| self.writer.error("write blob", source))?;
            self.progress.advanced(self.blob, self.writer.size_bytes());
        }
        let (found, expected) = (self.writer.size_bytes(), self.blob.size);
        if found < expected {
            return Err(http::Error::Short { what: self.ask.what.clone(), expected, found }.into());
        }
        Ok(())
    }

    /// The answer whose body comes next in the writer, which begins anew where the server does.
    async fn send(&mut self) -> Result<Response, Error> {
        self.ask.headers.remove(RANGE);
        let have = self.writer.size_bytes();
        if self.goes_on && have > 0 {
            let range = HeaderValue::try_from(format!("bytes={have}-")).expect("digits are a header value");
            self.ask.headers.insert(RANGE, range);
            let answer = self.session.send_once(self.ask).await;
            let begins = answer.as_ref().ok().and_then(|response| beginning(response, self.blob.size));
            if begins == Some(have) {
                self.joins += 1;
                return answer;
            }
            // whoever cannot go on from there can perhaps begin; other refusals are no matter of ranges
            let cannot = answer.as_ref().err().is_some_and(|error| error.status() == Some(416));
            if begins == Some(0) || !(answer.is_ok() || cannot) {
                let response = answer?;
                self.begin_anew()?;
                return Ok(response);
            }
            self.ask.headers.remove(RANGE);
        }
        let response = self.session.send_once(self.ask).await?;
        if have > 0 {
            self.begin_anew()?;
        }
        Ok(response)
    }

    fn begin_anew(&mut self) -> Result<(), Error> {
        (self.writer, self.joins) = (self.store.writer()?, 0);
        Ok(())
    }
}

/// The store's own trouble, or that of who gave the bytes.
fn trouble(ask: &Ask<'_>, error: blobs::Error) -> Error {
    match error {
        blobs::Error::Io { .. } => Error::Blobs(error),
        wrong => Error::Answer { what: ask.what.clone(), fault: Fault::WrongBlob(wrong) },
    }
}

/// Where the body of a success begins in a blob of `size` bytes, if that can be said (RFC 9110, section 14.4). A server
/// that does not know ranges answers 200 with all of it. `If-Range` is of no use here: a blob never changes under its
/// digest, while the same blob has another tag at every server of a network.
fn beginning(response: &Response, size: u64) -> Option<u64> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Some(0);
    }
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (positions, total) = range.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = positions.split_once('-')?;
    let ends = total == "*" || total.parse() == Ok(size);
    (ends && last.parse::<u64>().ok()? < size).then(|| first.parse().ok()).flatten()
}
