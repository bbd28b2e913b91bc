//! Files from git repositories: which are meant, and how do they get here?
//!
//! A [`Repository`] is an address with all that it says of branch, commit and directory, in BuildKit's forms or in kaniko's.
//! [`clone()`] fetches what is needed of it and makes the working tree, with submodules, in a directory of its own. Files get
//! the modes that git knows and the time of their commit, so that the same commit is the same tree.
//!
//! Promise: no program is run and no configuration of this machine is read; a commit that was named is the commit that is
//! there; user and password go to the server that they are for; what fails leaves nothing.
//!
//! Not here: repositories that are reached by ssh or by git's own protocol.

mod clone;
mod location;
mod submodules;
mod transport;
mod tree;

use std::io;
use std::path::PathBuf;

pub use clone::clone;
pub use location::{BadRepository, CommitId, History, Kaniko, Repository, Revision, is_git};

use crate::http;
use crate::sys::Stopped;

/// Why the files of a repository are not here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server does not give it.
    #[error("fetch {repository}")]
    Http {
        /// Which.
        repository: String,
        /// Why not.
        source: http::Error,
    },
    /// The server speaks, but not so that it could be understood, or it says no.
    #[error("fetch {repository}: {what}")]
    Git {
        /// Which.
        repository: String,
        /// What was being done.
        what: &'static str,
        /// What git's side says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No such branch, tag or reference.
    #[error("fetch {repository}: there is no branch, tag or reference {name:?}")]
    NoReference {
        /// The repository.
        repository: String,
        /// As it was asked for.
        name: String,
    },
    /// There are no commits.
    #[error("fetch {repository}: it is empty")]
    Empty {
        /// The repository.
        repository: String,
    },
    /// A commit was named, and another one is there.
    #[error("fetch {repository}: it is at commit {found}, and not at {expected}")]
    WrongCommit {
        /// The repository.
        repository: String,
        /// The commit that was asked for.
        expected: CommitId,
        /// The commit that is there.
        found: String,
    },
    /// What was asked for is no commit.
    #[error("fetch {repository}: {name} is no commit")]
    NoCommit {
        /// The repository.
        repository: String,
        /// What was asked for.
        name: String,
    },
    /// A file of the working tree cannot be written.
    #[error("write {place:?}")]
    Write {
        /// Which.
        place: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A submodule is not here.
    #[error("the submodule {path}", path = path.escape_debug())]
    Submodule {
        /// Where in the repository.
        path: String,
        /// Why not.
        source: Box<Error>,
    },
    /// A submodule of which `.gitmodules` does not tell.
    #[error(".gitmodules does not say where it is")]
    Unlisted,
    /// A submodule's address is none that can be fetched from.
    #[error("{address:?} cannot be fetched: only https:// and http:// can")]
    SubmoduleAddress {
        /// As it is written.
        address: String,
    },
    /// Submodules within submodules without end.
    #[error("there are more than {most} submodules within each other")]
    TooDeep {
        /// How many there may be.
        most: usize,
    },
    /// The process was asked to end meanwhile.
    #[error("the repository is not waited for")]
    Stopped(#[from] Stopped),
}
