//! What can go wrong between a server and us, and whether it may pass.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::oci::Digest;
use crate::sys::Stopped;

/// Why there is no answer, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate file cannot be read.
    #[error("read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A certificate file holds no certificate, or no key.
    #[error("{path} is not a PEM file of the certificates or the key that it should hold", path = path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What the TLS library said, where it spoke.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The runtime, or the HTTP library, does not start.
    #[error("start the HTTP client")]
    Start {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer came, or it broke off.
    #[error("{what}")]
    Request {
        /// What was asked of whom.
        what: String,
        /// What the HTTP library said.
        #[source]
        source: reqwest::Error,
    },
    /// The process was asked to end meanwhile.
    #[error("the server is not waited for")]
    Stopped(#[source] Stopped),
    /// The server fell silent.
    #[error("{what}: nothing came for {} seconds", patience.as_secs_f32())]
    Stalled {
        /// What was asked of whom.
        what: String,
        /// How long we waited.
        patience: Duration,
    },
    /// The server said no.
    #[error("{what}: the server answered {status}{detail}")]
    Refused {
        /// What was asked of whom.
        what: String,
        /// The HTTP status.
        status: u16,
        /// `: ` and its own words, where there are any.
        detail: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// More than is reasonable.
    #[error("{what}: the answer has more than {limit_bytes} bytes")]
    TooLarge {
        /// What was asked of whom.
        what: String,
        /// The most that is read.
        limit_bytes: u64,
    },
    /// The body ended early.
    #[error("{what}: {found} bytes instead of {expected}")]
    Short {
        /// What was asked of whom.
        what: String,
        /// Bytes that were announced.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// The bytes are not those that were expected.
    #[error("{what}: digest {found} instead of {expected}")]
    WrongDigest {
        /// What was asked of whom.
        what: String,
        /// The digest that was asked for.
        expected: Digest,
        /// That of the bytes that came.
        found: Digest,
    },
    /// What came cannot be kept, or not be decompressed.
    #[error("{what}: write the file")]
    Store {
        /// What was asked of whom.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No `Location` where there must be one, or one that is no address.
    #[error("{what}: no usable Location header")]
    NoLocation {
        /// What was asked of whom.
        what: String,
    },
    /// Sent from one address to the next without end.
    #[error("{what}: more than {} redirects", super::REDIRECTS)]
    Redirects {
        /// What was asked of whom.
        what: String,
    },
}

impl Error {
    /// What the HTTP library said of a request; addresses are left out, as signed ones hold secrets.
    pub fn request(what: &str, source: reqwest::Error) -> Error {
        Error::Request { what: what.to_owned(), source: source.without_url() }
    }

    /// May the same attempt succeed a little later?
    pub fn is_temporary(&self) -> bool {
        match self {
            Error::Request { source, .. } => !source.is_builder() && !source.is_redirect() && !is_about_trust(source),
            Error::Stalled { .. } | Error::Short { .. } => true,
            Error::Refused { status, .. } => matches!(status, 408 | 429 | 500 | 502..=504 | 520..=527),
            _ => false,
        }
    }

    /// Why TLS failed, if it did.
    pub fn tls_fault(&self) -> Option<TlsFault> {
        let Error::Request { source, .. } = self else { return None };
        Some(match tls_error(source)? {
            rustls::Error::InvalidCertificate(_) => TlsFault::Certificate,
            rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => TlsFault::NotSpoken,
            _ => TlsFault::Other,
        })
    }

    /// The HTTP status, if the server answered with a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What stands between a server and us, as far as somebody can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFault {
    /// The server's certificate is not to be believed.
    Certificate,
    /// The server speaks something else; plain HTTP, most likely.
    NotSpoken,
    /// Anything else.
    Other,
}

/// Did TLS fail over a certificate or a version? That is so again next time.
fn is_about_trust(error: &(dyn std::error::Error + 'static)) -> bool {
    tls_error(error).is_some()
}

fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    // an io::Error passes over the error that it holds when it is asked for its source
    let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error
        .downcast_ref()
        .or_else(|| held.and_then(|held| tls_error(held)))
        .or_else(|| error.source().and_then(tls_error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_found_however_deep() {
        let trust = || rustls::Error::General("unknown issuer".to_owned());
        let once = io::Error::new(io::ErrorKind::InvalidData, trust());
        let twice = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, trust()));
        assert!(is_about_trust(&trust()) && is_about_trust(&once) && is_about_trust(&twice));
        assert!(!is_about_trust(&io::Error::from(io::ErrorKind::ConnectionReset)));
        assert!(!is_about_trust(&io::Error::other("anything")));
    }
}
