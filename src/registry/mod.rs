//! Images come from a registry, or from an OCI layout of this machine, and go to a registry.
//!
//! Promise: what arrives is what its digest says, checked as it passes; what is already there does not travel; a
//! fault that may pass is tried again, from where it stopped if the server allows, and one that will not is
//! reported at once. Credentials go to the registry and to the token server that it names, and nowhere else.
//!
//! Inside, everything awaits on the runtime of `http::Client`; outside, everything is a plain blocking call
//! (never call it from async code).
//!
//! Not here: HTTP itself, trust and pauses (`http`); who we are (`credentials`); what layers and configs mean (`layer`, `image`); `config.json`, flags and
//! variables (`cli`).

mod challenge;
mod client;
mod download;
mod endpoint;
mod error;
mod layout;
mod progress;
mod pull;
mod push;
mod settings;
mod token;
mod transport;

pub use client::Client;
pub use endpoint::canonical;
pub use error::{Error, Fault};
pub use layout::LayoutPlace;
pub use progress::{Progress, Silent};
pub use pull::{ImagePlace, RemoteImage};
pub use push::PushImage;
pub use settings::Settings;
