//! Requests over HTTP: whom do we trust, when do we try again, and what is a whole answer?
//!
//! Promise: a fault that may pass is tried again, and one that will not is reported at once; nobody waits for ever for
//! a server that fell silent; of a file that does not arrive whole nothing stays; what is secret in an address is in no
//! message. Proxies are taken from the usual environment variables by the HTTP library.
//!
//! Inside, everything awaits on a runtime of the [`Client`]'s own. `registry` builds its protocol on the parts that
//! await; whoever calls from outside blocks (never call it from async code).
//!
//! Not here: the protocol of registries and who we are for them (`registry`).

mod address;
mod answer;
mod client;
mod conversation;
mod date;
mod error;
mod files;
mod names;
mod pauses;
mod settings;
mod tls;
mod verifier;

pub use address::{Address, BadAddress, FilePlace};
pub use answer::{expect_success, is_followed, location, read_limited, refusal, within};
pub use client::{Client, host_and_port, host_without_port, is_loopback};
pub use conversation::{Answer, Question};
pub use error::{Error, TlsFault};
pub use files::Download;
pub use pauses::{Pauses, chain};
pub use settings::Settings;
pub use tls::Trust;

/// Redirects that are followed: what Go's and curl's defaults allow at least.
pub const REDIRECTS: u32 = 10;
