//! [`Request`]: what a user wants built, as meant. `cli` makes it of flags and variables; nothing in it contradicts itself.

use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::context::git::Repository;
use crate::http::{self, FilePlace};
use crate::image::Format;
use crate::layer::Compression;
use crate::oci::{Annotations, Destination, Platform, Reference};
use crate::registry::{self, LayoutPlace, Progress};
use crate::rootfs::container::Surroundings;
use crate::rootfs::pristine::InPlaceRequest;
use crate::run;
use crate::snapshot::{ChangeTracker, SnapshotMode};
use crate::tree::ImagePath;

/// All that a build depends on besides the files that it reads.
#[derive(Clone)]
pub struct Request {
    /// Where the build's files come from.
    pub context: ContextSource,
    /// The directory inside the context that is the context.
    pub context_sub_path: Option<PathBuf>,
    /// Files and images that take the place of images and stages; of two with one name, the later one does.
    pub named_contexts: Vec<NamedContext>,
    /// The Dockerfile.
    pub dockerfile: DockerfilePlace,
    /// Build arguments in the order given, so that a later one wins; without a value where the environment has none.
    pub build_args: Vec<(String, Option<String>)>,
    /// The stage that becomes the image; the last one if none is named.
    pub target: Option<String>,
    /// Labels of the image besides those of the Dockerfile, in the order given.
    pub labels: Vec<(String, String)>,
    /// Annotations of the manifest; those of a base are its own and never inherited.
    pub annotations: Annotations,
    /// The media types of the image; those of its base if none is given.
    pub image_format: Option<Format>,
    /// The platform of bases that name none; the machine's if none is given.
    pub platform: Option<Platform>,
    /// Where the image goes.
    pub output: Output,
    /// How changes become layers.
    pub snapshot: SnapshotSettings,
    /// How many threads copy, look at files, hash and compress. The image does not depend on it.
    pub threads: NonZeroUsize,
    /// How many stages are built at the same time at most, where each has a root of its own. The image does not depend on it.
    pub jobs: NonZeroUsize,
    /// How the layers that the build makes are compressed. With zstd, `image_format` is OCI.
    pub compression: Compression,
    /// Times of our making are zero, or [`Request::source_date_epoch`].
    pub reproducible: bool,
    /// The latest time that may show in a reproducible image, in seconds of Unix time.
    pub source_date_epoch: Option<i64>,
    /// Paths that are never part of the image, besides the usual ones.
    pub ignore_paths: Vec<ImagePath>,
    /// `/var/run` is never part of the image.
    pub ignore_var_run: bool,
    /// Empty the root when the build is done.
    pub cleanup: bool,
    /// Where the root is.
    pub isolation: Isolation,
    /// What was said about a root that is not ours or not pristine.
    pub in_place: InPlaceRequest,
    /// Whether this is a container.
    pub surroundings: Surroundings,
    /// Do not build stages that the target does not need.
    pub skip_unused_stages: bool,
    /// Do not ask before the build whether pushing is allowed.
    pub skip_push_permission_check: bool,
    /// The directory that is ours alone, `/kaniko`: blobs and saved stages are kept there.
    pub work_dir: PathBuf,
    /// The file of the program itself, which is never part of an image; nor is `/kaniko` if it lies there.
    pub program: PathBuf,
    /// How long the build may take, pushes included.
    pub time_limit: Option<Duration>,
    /// How long each RUN may take.
    pub run_time_limit: Option<Duration>,
    /// Tries to unpack a base image beyond the first.
    pub image_fs_extract_retry: u32,
    /// How servers are spoken to.
    pub http: http::Settings,
    /// What holds for registries besides.
    pub registry: registry::Settings,
    /// Files with credentials, the first that knows a registry deciding; they need not exist.
    pub docker_config_files: Vec<PathBuf>,
    /// The directories, in the form of `PATH`, where credential helpers are.
    pub credential_helper_path: OsString,
    /// Who hears how far the build is.
    pub listeners: Listeners,
}

/// The build argument that says what the host is called that commands see (Dockerfile reference: BuildKit built-in build
/// args).
pub(super) const HOST_NAME: &str = "BUILDKIT_SANDBOX_HOSTNAME";

impl Request {
    /// What commands are to find as the name of the host, if somebody says so.
    pub(super) fn host_name(&self) -> Option<&str> {
        let given = self.build_args.iter().rfind(|(name, _)| name == HOST_NAME)?.1.as_deref();
        given.filter(|name| !name.is_empty())
    }

    /// The directories of this machine that instructions copy from, and stages begin with.
    pub(super) fn context_directories(&self) -> impl Iterator<Item = &Path> {
        let context = match &self.context {
            ContextSource::Directory(place) => Some(place),
            ContextSource::Tar(_) | ContextSource::TarStdin | ContextSource::Repository(_) => None,
        };
        let named = self.named_contexts.iter().filter_map(|context| match &context.source {
            NamedSource::Files(FilePlace::Path(place)) => Some(place),
            NamedSource::Layout(layout) => Some(&layout.directory),
            NamedSource::Files(FilePlace::Address(_)) | NamedSource::Image(_) | NamedSource::Repository(_) => None,
        });
        context.into_iter().chain(named).map(PathBuf::as_path)
    }
}

/// Who hears how far blobs are, and what commands write.
#[derive(Clone)]
pub struct Listeners {
    /// On their way here.
    pub downloads: Arc<dyn Progress + Send + Sync>,
    /// On their way into the root, in bytes of the blob.
    pub unpacking: Arc<dyn Progress + Send + Sync>,
    /// On their way to a destination.
    pub pushes: Arc<dyn Progress + Send + Sync>,
    /// What isolated commands write.
    pub commands: Arc<dyn run::Listener>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("context", &self.context)
            .field("dockerfile", &self.dockerfile)
            .field("target", &self.target)
            .field("output", &self.output)
            .finish_non_exhaustive()
    }
}

/// Where the root of the image under construction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// On `/` of the container around us.
    InPlace,
    /// In a directory, which commands see as `/` from namespaces of their own.
    Namespaces,
}

/// Where the build's files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A directory.
    Directory(PathBuf),
    /// A tar file, compressed or not.
    Tar(PathBuf),
    /// A tar stream on standard input, compressed or not.
    TarStdin,
    /// A git repository.
    Repository(Box<Repository>),
}

/// Where the Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfilePlace {
    /// Nobody said: `Dockerfile`, or `Containerfile` in the context.
    Usual,
    /// A path is looked for in the current directory, then in the context.
    Named(FilePlace),
    /// Standard input.
    Stdin,
}

/// What FROM and `--from` mean by a name, whatever else has that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedContext {
    /// The name; without a tag it is that of `latest`.
    pub name: Reference,
    /// What it means.
    pub source: NamedSource,
}

/// What a name can mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedSource {
    /// A directory, or a tar on a server, compressed or not.
    Files(FilePlace),
    /// The files of a git repository.
    Repository(Box<Repository>),
    /// Another image.
    Image(Reference),
    /// An image of a layout on this machine.
    Layout(LayoutPlace),
}

/// Where the image goes. Without a push, a tarball or a layout, it is built and forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// The names that the image gets, in a push and in a tarball. Not empty if `push`.
    pub destinations: Vec<Destination>,
    /// Push to all destinations.
    pub push: bool,
    /// A docker-save tarball to write.
    pub tarball: Option<PathBuf>,
    /// A directory in which to write an OCI layout.
    pub oci_layout: Option<PathBuf>,
    /// Files that somebody else writes when the image is there.
    pub results: Vec<PathBuf>,
}

impl Output {
    /// Is this path one of the places on this machine where the image or its results go, within one, or on the way to one?
    pub fn is_at(&self, path: &ImagePath) -> bool {
        let places = [&self.tarball, &self.oci_layout].into_iter().flatten().chain(&self.results);
        places
            .map(|place| ImagePath::clean(place.as_os_str().as_bytes()))
            .any(|place| path.is_within(&place) || place.is_within(path))
    }
}

/// How changes become layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// What counts as a change.
    pub mode: SnapshotMode,
    /// One layer for all changes, taken at the end of the last stage.
    pub single: bool,
    /// How what changed is found.
    pub tracker: ChangeTracker,
    /// Judge each snapshot by a walk that reads every file.
    pub verify: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_outputs_are() {
        let output = Output {
            tarball: Some("/a/image.tar".into()),
            oci_layout: Some("/b/layout".into()),
            results: vec!["/d/digest".into()],
            ..Output::default()
        };
        for (path, is_at) in [
            ("/a", true),
            ("/a/image.tar", true),
            ("/a/image.tar.old", false),
            ("/a/other", false),
            ("/b/layout/blobs/sha256", true),
            ("/c", false),
            ("/d", true),
            ("/d/digest", true),
        ] {
            assert_eq!(output.is_at(&ImagePath::clean(path)), is_at, "{path}");
        }
        assert!(!Output::default().is_at(&ImagePath::clean("/a")));
    }
}
