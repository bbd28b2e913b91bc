//! Another protocol's questions and answers over HTTP. An [`Answer`] is read as it comes.

use std::io::{self, BufRead, Read};
use std::str::FromStr;

use bytes::{Buf, Bytes};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response};

use super::answer::within;
use super::files::Ask;
use super::{Address, Client, Error};

/// What is asked of a server.
#[derive(Debug, Clone)]
pub struct Question {
    /// Whom.
    pub address: Address,
    /// The query of the address.
    pub query: Option<String>,
    /// Name and value of each header.
    pub headers: Vec<(String, String)>,
    /// What is sent: a POST. Without it, a GET.
    pub body: Option<Bytes>,
    /// Whoever answers for the host of the address is believed.
    pub skips_verify: bool,
}

/// What a server answers, as it comes.
pub struct Answer<'a> {
    client: &'a Client,
    what: String,
    response: Response,
    chunk: Bytes,
}

impl Client {
    /// Asks, again and again while there is hope, until the answer begins.
    pub fn ask(&self, question: &Question) -> Result<Answer<'_>, Error> {
        let address = question.address.with_query(question.query.as_deref());
        let method = if question.body.is_some() { Method::POST } else { Method::GET };
        let ask = Ask {
            what: format!("{} {address}", method.as_str().to_lowercase()),
            method,
            address: &address,
            headers: headers(&question.headers),
            body: question.body.clone(),
            skips_verify: question.skips_verify,
        };
        let response = self.block_on(async {
            let mut pauses = self.pauses(0);
            loop {
                match self.send(&ask).await {
                    Err(error) => pauses.after(error).await?,
                    answered => return answered,
                }
            }
        })?;
        Ok(Answer { client: self, what: ask.what, response, chunk: Bytes::new() })
    }
}

/// Those that HTTP can carry.
fn headers(pairs: &[(String, String)]) -> HeaderMap {
    let parsed = pairs
        .iter()
        .filter_map(|(name, value)| Some((HeaderName::from_str(name).ok()?, HeaderValue::from_str(value).ok()?)));
    parsed.collect()
}

impl Answer<'_> {
    /// The value of a header, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The path that answered, when all redirects were followed, on the host that did.
    pub fn address(&self) -> Option<Address> {
        self.response.url().as_str().parse().ok()
    }
}

impl BufRead for Answer<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.chunk.is_empty() {
            let next = within(self.client.patience(), &self.what, self.response.chunk());
            self.chunk = self.client.block_on(next).map_err(io::Error::other)?.unwrap_or_default();
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, bytes: usize) {
        self.chunk.advance(bytes);
    }
}

impl Read for Answer<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let ready = self.fill_buf()?;
        let bytes = ready.len().min(into.len());
        into[..bytes].copy_from_slice(&ready[..bytes]);
        self.consume(bytes);
        Ok(bytes)
    }
}
