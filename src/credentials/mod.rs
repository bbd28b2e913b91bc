//! Who are we for this registry?
//!
//! Promise: the answer of `docker login`'s files, read as docker, podman and kaniko read them, with the entry that
//! names the most of the repository winning; no secret is ever printed, nor kept anywhere but in memory.
//!
//! Not here: what is done with a credential (`registry`); which files there are (`cli` hands them in).

mod config;
mod helper;
mod keychain;

use std::fmt;
use std::io;
use std::path::PathBuf;

pub use keychain::Keychain;

/// Why it cannot be said who we are.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A configuration file is there but cannot be read.
    #[error("read registry credentials from {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A configuration file is not what docker writes. The parser's own words are left out: they may quote a secret.
    #[error("{path} is not a docker config.json: line {line}, column {column}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong, from 1.
        line: usize,
        /// Where in the line, from 1.
        column: usize,
    },
    /// An entry's `auth` is not base64 of `username:password`.
    #[error("entry {entry:?} in {path}: \"auth\" is not the base64 of username:password", path = path.display())]
    BadAuth {
        /// The file.
        path: PathBuf,
        /// Its key under `auths`.
        entry: String,
    },
    /// A helper's name would lead out of the directories where helpers are.
    #[error("{name:?} in {path} is not the name of a credential helper", path = path.display())]
    BadHelperName {
        /// The file.
        path: PathBuf,
        /// What it asks for.
        name: String,
    },
    /// A configuration names a helper that is not installed.
    #[error("credential helper {program} for {server} is in no directory of PATH")]
    NoHelper {
        /// The program.
        program: String,
        /// The registry it was to be asked about.
        server: String,
    },
    /// A helper could not be run.
    #[error("run credential helper {program} for {server}")]
    RunHelper {
        /// The program.
        program: String,
        /// The registry it was asked about.
        server: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A helper gave up, or its answer is not what helpers answer.
    #[error("credential helper {program} for {server}: {reason}")]
    Helper {
        /// The program.
        program: String,
        /// The registry it was asked about.
        server: String,
        /// Its words, or what is wrong with its answer.
        reason: String,
    },
}

/// What we show to a registry, or to its token server.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// Nothing.
    Anonymous,
    /// A name and a password.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// An OAuth2 refresh token: the token server gives an access token for it.
    IdentityToken(String),
    /// A bearer token, sent to the registry as it is.
    RegistryToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credential::Anonymous => "Anonymous",
            Credential::Basic { .. } => "Basic(…)",
            Credential::IdentityToken(_) => "IdentityToken(…)",
            Credential::RegistryToken(_) => "RegistryToken(…)",
        })
    }
}
