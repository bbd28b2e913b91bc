//! Plain files: fetched into a file or into memory, and sent.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, LAST_MODIFIED};
use reqwest::{Method, Response};
use tempfile::{NamedTempFile, TempPath};

use super::answer::{expect_success, is_followed, location, read_limited, within};
use super::{Address, Client, Error, REDIRECTS, Trust, date, host_and_port};
use crate::oci::{Digest, Sha256Stream};
use crate::tree::Timestamp;

/// A file that was fetched; it is removed when this goes away.
#[derive(Debug)]
pub struct Download {
    place: TempPath,
    /// When the server says that it was changed last.
    pub last_modified: Option<Timestamp>,
}

impl Download {
    /// Where its bytes are.
    pub fn place(&self) -> &Path {
        &self.place
    }
}

/// A request for, or with, a plain file.
pub(super) struct Ask<'a> {
    pub(super) what: String,
    pub(super) method: Method,
    pub(super) address: &'a Address,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    /// Whoever answers for the address's own host is believed.
    pub(super) skips_verify: bool,
}

impl Client {
    /// Fetches a file into a new file of `directory`. `expected` is the digest that its bytes must have.
    pub fn download(&self, address: &Address, expected: Option<Digest>, directory: &Path) -> Result<Download, Error> {
        let ask = Ask::get(address);
        self.block_on(async {
            let mut pauses = self.pauses(0);
            loop {
                match self.download_once(&ask, expected, directory).await {
                    Err(error) => pauses.after(error).await?,
                    downloaded => return downloaded,
                }
            }
        })
    }

    /// Fetches a small file.
    pub fn fetch(&self, address: &Address, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        let ask = Ask::get(address);
        self.block_on(async {
            let mut pauses = self.pauses(0);
            loop {
                let tried = async {
                    let response = self.send(&ask).await?;
                    let body = tokio::time::timeout(self.patience(), read_limited(response, limit_bytes, &ask.what));
                    body.await.map_err(|_| Error::Stalled { what: ask.what.clone(), patience: self.patience() })?
                };
                match tried.await {
                    Err(error) => pauses.after(error).await?,
                    fetched => return fetched,
                }
            }
        })
    }

    /// Sends a text to where it shall be kept (PUT).
    pub fn put(&self, address: &Address, text: &str) -> Result<(), Error> {
        let ask = Ask {
            what: format!("send to {address}"),
            method: Method::PUT,
            address,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain"))]),
            body: Some(Bytes::copy_from_slice(text.as_bytes())),
            skips_verify: false,
        };
        self.block_on(async {
            let mut pauses = self.pauses(0);
            while let Err(error) = self.send(&ask).await {
                pauses.after(error).await?;
            }
            Ok(())
        })
    }

    /// One try; redirects are followed. What the address says of user and password goes to its own host only.
    pub(super) async fn send(&self, ask: &Ask<'_>) -> Result<Response, Error> {
        let mut url = ask.address.url().clone();
        for _ in 0..=REDIRECTS {
            let host = host_and_port(&url);
            let skips_verify = ask.skips_verify && ask.address.is_on_host_of(&url);
            let client = self.trusting(Trust { authorities_of: host.clone(), host, skips_verify })?;
            let mut request = client.request(ask.method.clone(), url).headers(ask.headers.clone());
            if let Some(body) = &ask.body {
                request = request.body(body.clone());
            }
            let response = within(self.patience(), &ask.what, request.send()).await?;
            if !is_followed(response.status(), &ask.method) {
                return expect_success(response, &ask.what).await;
            }
            url = ask.address.introduce(location(&response, &ask.what)?);
        }
        Err(Error::Redirects { what: ask.what.clone() })
    }

    async fn download_once(
        &self,
        ask: &Ask<'_>,
        expected: Option<Digest>,
        directory: &Path,
    ) -> Result<Download, Error> {
        let failed = |source| Error::Store { what: ask.what.clone(), source };
        let mut response = self.send(ask).await?;
        let file = NamedTempFile::with_prefix_in(".download-", directory).map_err(failed)?;
        let (file, place) = file.into_parts();
        let mut body = Body::of(&response, Stored { file, passed: Sha256Stream::new() });
        while let Some(chunk) = within(self.patience(), &ask.what, response.chunk()).await? {
            body.write(&chunk).map_err(failed)?;
        }
        let found = Digest::from(body.finish().map_err(failed)?.finish());
        match expected {
            Some(expected) if expected != found => Err(Error::WrongDigest { what: ask.what.clone(), expected, found }),
            _ => Ok(Download { place, last_modified: last_modified(&response) }),
        }
    }
}

impl Ask<'_> {
    fn get(address: &Address) -> Ask<'_> {
        let what = format!("get {address}");
        Ask { what, method: Method::GET, address, headers: HeaderMap::new(), body: None, skips_verify: false }
    }
}

fn last_modified(response: &Response) -> Option<Timestamp> {
    let text = response.headers().get(LAST_MODIFIED)?.to_str().ok()?;
    date::parse(text).map(|time| Timestamp::from_seconds(time.unix_timestamp()))
}

/// A file and the digest of what is in it.
struct Stored {
    file: File,
    passed: Sha256Stream,
}

impl Write for Stored {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.passed.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A body on its way into a file. As with Go's library, and so with BuildKit and kaniko, a file that travels in gzip as
/// its *content encoding* is what comes out of it; we do not ask for that, but some stores send nothing else.
enum Body {
    Plain(Stored),
    Gzip(Box<MultiGzDecoder<Stored>>),
}

impl Body {
    fn of(response: &Response, stored: Stored) -> Body {
        match response.headers().get(CONTENT_ENCODING) {
            Some(encoding) if encoding.as_bytes().eq_ignore_ascii_case(b"gzip") => {
                Body::Gzip(Box::new(MultiGzDecoder::new(stored)))
            }
            _ => Body::Plain(stored),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Body::Plain(stored) => stored.write_all(bytes),
            Body::Gzip(decoder) => decoder.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<Sha256Stream> {
        Ok(match self {
            Body::Plain(stored) => stored.passed,
            Body::Gzip(decoder) => decoder.finish()?.passed,
        })
    }
}
