//! Why a build failed.

use std::error::Error as StdError;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::copy::CopyError;
use super::plan::Step;
use super::planner::PlanError;
use crate::dockerfile;
use crate::oci::Reference;
use crate::rootfs;
use crate::rootfs::pristine::Refusal;
use crate::rootfs::users::UnknownAccount;
use crate::run::{Exit, StopReason};
use crate::tree::ImagePath;
use crate::{blobs, context, http, image, layer, registry, run, snapshot};

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `--dockerfile` is a URL that gives none.
    #[error("fetch the Dockerfile")]
    FetchDockerfile {
        /// Why not.
        source: http::Error,
    },
    /// The Dockerfile is there and cannot be read.
    #[error("read the Dockerfile {path}", path = path.display())]
    ReadDockerfile {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There is no Dockerfile.
    #[error(
        "the Dockerfile {path} is neither on this machine nor in the build context: give its path with --dockerfile",
        path = path.display()
    )]
    NoDockerfile {
        /// As it was asked for.
        path: PathBuf,
    },
    /// A line of the Dockerfile is no instruction.
    #[error(transparent)]
    Parse(#[from] dockerfile::Error),
    /// The instructions cannot be carried out, whatever the files are.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The root must not be replaced.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The work directory, or a place in it, cannot be used.
    #[error("prepare the work directory {path}", path = path.display())]
    WorkDirectory {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The root would be copied into itself.
    #[error(
        "the work directory {} is in the build context {}: give another with --kaniko-dir",
        work.display(),
        context.display()
    )]
    WorkInContext {
        /// Where the root would be.
        work: PathBuf,
        /// What is copied from.
        context: PathBuf,
    },
    /// The kernel does not say where we are.
    #[error("look at the mounts and the container around this process")]
    Surroundings(#[source] std::io::Error),
    /// The host of a build in place is the container.
    #[error(
        "--build-arg=BUILDKIT_SANDBOX_HOSTNAME: in place, commands see what the container is called: leave it out, or give \
         --isolation=namespaces"
    )]
    HostNameInPlace,
    /// A name that no host can have.
    #[error("--build-arg=BUILDKIT_SANDBOX_HOSTNAME")]
    HostName(#[from] run::BadHostName),
    /// The build context cannot be used.
    #[error(transparent)]
    Context(#[from] context::Error),
    /// A repository is not here.
    #[error(transparent)]
    Repository(#[from] context::git::Error),
    /// A named context cannot be used.
    #[error("open the named context {name}")]
    NamedContext {
        /// Its name.
        name: String,
        /// Why not.
        source: Box<Error>,
    },
    /// Before the build: the registry would not take the image.
    #[error("checking push permissions for {destination}")]
    PushCheck {
        /// From where.
        destination: Reference,
        /// Why not.
        source: registry::Error,
    },
    /// After the build: the registry did not take the image.
    #[error("pushing image to {destination}")]
    Push {
        /// Where to.
        destination: Reference,
        /// Why not.
        source: registry::Error,
    },
    /// A server cannot be asked.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// A base image cannot be fetched.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// Blobs cannot be kept or read again.
    #[error(transparent)]
    Blobs(#[from] blobs::Error),
    /// Config, manifest, tarball or layout cannot be made.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// The root could not be brought to the state of a base.
    #[error("unpack the base {base}")]
    Unpack {
        /// Image or stage.
        base: String,
        /// Why not.
        source: layer::Error,
    },
    /// A finished stage's file could not be kept for a later stage.
    #[error("keep {path} for COPY --from")]
    Keep {
        /// Which.
        path: ImagePath,
        /// Why not.
        source: std::io::Error,
    },
    /// A file of the root cannot be used.
    #[error(transparent)]
    Root(#[from] rootfs::Error),
    /// Commands cannot be run.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// What changed cannot be found out.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// An instruction failed.
    #[error("dockerfile line {line}: {text}")]
    Step {
        /// Where it begins, from 1.
        line: u32,
        /// The instruction, shortened.
        text: String,
        /// Why.
        source: StepError,
    },
    /// No thread for a stage could be started.
    #[error("start a thread to build a stage")]
    StageThread {
        /// Why not.
        source: std::io::Error,
    },
    /// Another stage failed, so that nobody wants this one.
    #[error("given up, since another stage failed")]
    GivenUp,
    /// We were asked to end.
    #[error("stopped by {0}")]
    Stopped(StopReason),
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The command failed, and says so by this code.
    #[error("the command ended with exit code {0}")]
    ExitCode(u8),
    /// This signal ended the command.
    #[error("the command was ended by signal {0}")]
    Signal(i32),
    /// Commands cannot be run.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// COPY, ADD or WORKDIR could not be done.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The image has no such user or group.
    #[error(transparent)]
    User(#[from] UnknownAccount),
    /// A file of the root cannot be used.
    #[error(transparent)]
    Root(#[from] rootfs::Error),
    /// What changed cannot be found out.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// The layer could not be written, or an image's not unpacked.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// There is no place for what is mounted for each command.
    #[error(
        "{point} cannot be mounted for the command, since an earlier one has moved the directory above it and put something \
         else there: make one command of both, or leave a directory there"
    )]
    NoMountPoint {
        /// Where it would be mounted.
        point: ImagePath,
    },
    /// The kernel does not say what is mounted.
    #[error("read the mounts before the command")]
    Mounts(#[source] std::io::Error),
    /// The machine gives us no threads.
    #[error("start {count} threads to copy files")]
    Threads {
        /// How many were wanted.
        count: usize,
        /// Why not.
        source: rayon::ThreadPoolBuildError,
    },
    /// A here-document could not be written for its command.
    #[error("keep the here-document for the command")]
    Script(#[source] std::io::Error),
    /// A server cannot be asked.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// A repository is not here.
    #[error(transparent)]
    Repository(#[from] context::git::Error),
    /// There is no place for what is fetched.
    #[error("make a directory in {path}", path = path.display())]
    Directory {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// An image that is copied from could not be fetched or unpacked.
    #[error("unpack the image {image} for --from")]
    Image {
        /// Which.
        image: String,
        /// Why not.
        source: Box<dyn StdError + Send + Sync>,
    },
}

/// Instructions are told up to this length.
const TOLD_CHARS: usize = 200;

impl Error {
    pub(super) fn of_step(step: &Step, source: StepError) -> Error {
        Error::Step { line: step.line, text: step.text.chars().take(TOLD_CHARS).collect(), source }
    }

    /// What the process exits with: RUN's own code, 128 and the signal that ended RUN or us, 124 for what took too long, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Step { source: StepError::ExitCode(code), .. } => *code,
            Error::Step { source: StepError::Run(error), .. } => error.exit_code(),
            Error::Step { source: StepError::Signal(number), .. } => Exit::Signal(*number).code(),
            Error::Stopped(reason) => reason.exit_code(),
            _ => 1,
        }
    }

    /// The lines of the Dockerfile that are to blame, from 1.
    pub fn lines(&self) -> Option<RangeInclusive<u32>> {
        let lines = match self {
            Error::Parse(error) => error.line..=error.end_line,
            Error::Plan(error) => error.line..=error.line,
            Error::Step { line, .. } => *line..=*line,
            _ => return None,
        };
        (*lines.start() > 0).then_some(lines)
    }
}
