//! COPY, ADD and WORKDIR, executed on a root: what do they write, and what changed by it?
//!
//! [`copy`] finds the sources ([`find_sources`]), decides where each goes, writes it beneath the root and returns the
//! [`Changeset`]; the index is up to date when it returns. Nobody needs to look at the root afterwards: paths that
//! came out as they were give no entry. The rules are BuildKit's, as the conformance cases show them.
//!
//! Not here: expanding variables, looking up `--chown` names, downloading, what a line looked like (`build`).

mod archive;
mod copier;
mod filter;
mod mode;
mod needed;
mod origin;
mod record;
mod settings;
mod sources;
mod transfer;
mod write;

use std::io;
use std::path::Path;

use copier::{Copier, Destination, make_directories, resolve};
use filter::Filter;
pub use mode::{BadMode, ModeSpec};
pub use needed::needed_paths;
use origin::Files;
use record::Recorder;
use settings::Settings;
pub use sources::{Found, find_sources, split_pivot};
use write::Bytes;

use crate::context::pattern::BadPattern;
use crate::context::{IgnoreFile, PatternList};
use crate::rootfs::{self, Ignored, Root};
use crate::tree::{Changeset, ImagePath, RootIndex, Timestamp};

/// Mode of a heredoc.
const HEREDOC_MODE: u32 = 0o644;

/// Where plain sources are looked for.
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    /// A build context: owners do not count, nor do xattrs.
    Context {
        /// The context directory.
        root: &'a Root,
        /// What no instruction may see.
        ignore: Option<&'a IgnoreFile>,
    },
    /// The files of a stage or an image: owners and xattrs are kept.
    Tree {
        /// Where they are.
        root: &'a Root,
        /// What is known of them; content hashes found here are not computed again, so it must be up to date. Devices
        /// that could not be made here are in it alone.
        index: Option<&'a RootIndex>,
    },
    /// There are only heredocs and downloads.
    None,
}

/// One source of COPY or ADD.
#[derive(Debug, Clone)]
pub enum SourceItem<'a> {
    /// A path or wildcard in the origin, variables expanded.
    Path(Vec<u8>),
    /// A heredoc.
    Heredoc {
        /// Its delimiter: the file's name inside a directory.
        name: Vec<u8>,
        /// Its text, variables expanded.
        bytes: &'a [u8],
    },
    /// A file that ADD fetched from a URL.
    Download {
        /// Name inside a directory; the last part of the URL.
        name: Vec<u8>,
        /// Where its bytes are.
        place: &'a Path,
        /// Last-Modified, or what stands for it.
        mtime: Timestamp,
    },
    /// What is in a directory that ADD fetched.
    Tree {
        /// The directory.
        root: &'a Root,
    },
}

/// Which files are archives to unpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpack {
    /// None: COPY, and ADD with `--unpack=false`.
    Never,
    /// Those of the context, not downloads: ADD.
    Local,
    /// Those and downloads: ADD with `--unpack=true`.
    Always,
}

/// A COPY or ADD, ready to run.
pub struct CopyRequest<'a> {
    /// Where plain sources are looked for.
    pub origin: Origin<'a>,
    /// In the order written.
    pub sources: Vec<SourceItem<'a>>,
    /// Variables expanded; a slash at the end says that it is a directory.
    pub destination: Vec<u8>,
    /// What a relative destination counts from.
    pub workdir: &'a ImagePath,
    /// `--chown`, as uid and gid.
    pub owner: Option<(u32, u32)>,
    /// `--chmod`.
    pub mode: Option<ModeSpec>,
    /// Are archives unpacked?
    pub unpack: Unpack,
    /// `--link`: as if copied into an empty directory that is then laid over the root. Symlinks of the root are not
    /// followed but replaced, and the directories on the way get default owner and mode.
    pub link: bool,
    /// `--parents`: the path of each source is kept, from `/./` on.
    pub parents: bool,
    /// `--exclude`.
    pub excludes: PatternList,
    /// Modification time of what has none of its own: heredocs and directories made on the way.
    pub now: Timestamp,
}

/// Why a COPY, ADD or WORKDIR could not be done.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// No such file in the origin, or the ignore file hides it.
    #[error("source {named:?} not found (or left out by .dockerignore)")]
    SourceNotFound {
        /// As it was written.
        named: String,
    },
    /// A wildcard that cannot be read.
    #[error("read the wildcard of a source")]
    Pattern {
        /// Which.
        #[source]
        source: BadPattern,
    },
    /// A directory is to be merged into something that is none.
    #[error("cannot copy a directory to {path}: there is a file of that name")]
    NotADirectory {
        /// Where.
        path: ImagePath,
    },
    /// A file is to take the place of a directory.
    #[error("cannot replace the directory {path} with a file")]
    IsADirectory {
        /// Where.
        path: ImagePath,
    },
    /// The destination is not ours to write.
    #[error("cannot write {path}: it is a mount point or belongs to the builder")]
    Untouchable {
        /// Where.
        path: ImagePath,
    },
    /// A file went away while it was being written.
    #[error("{path} vanished while it was being copied")]
    Vanished {
        /// Where.
        path: ImagePath,
    },
    /// A source cannot be read.
    #[error("read the files to copy")]
    Source {
        /// Why not.
        #[source]
        source: rootfs::Error,
    },
    /// The bytes of a file could not be copied.
    #[error("copy to {path}")]
    Write {
        /// Where to.
        path: ImagePath,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An archive could not be unpacked.
    #[error("unpack the archive {named}")]
    Archive {
        /// Which.
        named: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The root could not be changed.
    #[error("write the copied files")]
    Root {
        /// Why not.
        #[from]
        source: rootfs::Error,
    },
}

impl CopyError {
    fn source(source: rootfs::Error) -> CopyError {
        CopyError::Source { source }
    }
}

/// Runs a COPY or ADD.
pub fn copy(
    request: &CopyRequest<'_>,
    root: &Root,
    index: &mut RootIndex,
    ignored: &Ignored,
) -> Result<Changeset, CopyError> {
    let settings = Settings {
        owner: request.owner,
        mode: request.mode.as_ref(),
        link: request.link,
        now: request.now,
        keep_attributes: matches!(request.origin, Origin::Tree { .. }),
    };
    let destination = Destination::new(request);
    let filter = Filter::new(&request.origin, &request.excludes);
    let mut copier = Copier { recorder: Recorder::new(root, index, ignored), settings, destination };
    for source in &request.sources {
        match source {
            SourceItem::Path(text) if request.parents => copier.copy_with_parents(request, text, &filter)?,
            SourceItem::Path(text) => {
                let found = find_sources(&request.origin, text)?;
                if found.is_empty() {
                    tracing::warn!(source = %String::from_utf8_lossy(text), "the wildcard matches nothing");
                }
                for found in found {
                    copier.copy_found(request, &found, &filter)?;
                }
            }
            SourceItem::Heredoc { name, bytes } => {
                let node = copier.settings.made_file(HEREDOC_MODE, request.now);
                copier.copy_made_file(name, Bytes::Inline(bytes), node)?;
            }
            SourceItem::Download { name, place, mtime } => copier.copy_download(request, name, place, *mtime)?,
            SourceItem::Tree { root } => {
                let origin = Origin::Context { root, ignore: None };
                copier.copy_directory(&origin, &ImagePath::root(), &Filter::new(&origin, &request.excludes))?;
            }
        }
    }
    copier.recorder.finish()
}

/// Makes the directory of a WORKDIR, with the parents that are missing, all owned by `owner`. `path` is absolute; where
/// it leads to, symlinks followed, is returned.
pub fn make_workdir(
    path: &ImagePath,
    owner: (u32, u32),
    now: Timestamp,
    root: &Root,
    index: &mut RootIndex,
    ignored: &Ignored,
) -> Result<(ImagePath, Changeset), CopyError> {
    let settings = Settings { owner: Some(owner), mode: None, link: false, now, keep_attributes: false };
    let mut recorder = Recorder::new(root, index, ignored);
    let resolved = resolve(root, path)?;
    make_directories(&mut recorder, &settings, &resolved)?;
    Ok((resolved, recorder.finish()?))
}

impl<'a> Origin<'a> {
    fn files(&self) -> Option<Files<'a>> {
        match *self {
            Origin::Context { root, .. } => Some(Files { root, index: None }),
            Origin::Tree { root, index } => Some(Files { root, index }),
            Origin::None => None,
        }
    }
}

#[cfg(test)]
mod tests;
