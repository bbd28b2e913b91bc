//! [`Plan`]: every stage that the target needs, every variable resolved, every step's effect known before any work.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::copy::{ModeSpec, Unpack};
use crate::context::PatternList;
use crate::context::git::Repository;
use crate::dockerfile::Heredoc;
use crate::http::Address;
use crate::image::ImageConfig;
use crate::layer::LayerBlob;
use crate::oci::{Digest, Platform};
use crate::registry::RemoteImage;
use crate::tree::ImagePath;

/// A base image as far as it is known before its layers are fetched.
#[derive(Debug)]
pub struct BaseImage {
    /// Where it is.
    pub remote: RemoteImage,
    /// Its config.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<LayerBlob>,
}

/// What planning must know of an image.
pub trait Image: Clone {
    /// Is it looked for where a plan names it?
    const IS_SOUGHT: bool = true;

    /// Its config; `None` for an image that is only named.
    fn config(&self) -> Option<&ImageConfig>;
}

impl Image for Arc<BaseImage> {
    fn config(&self) -> Option<&ImageConfig> {
        Some(&self.config)
    }
}

/// An image that nobody looked for: a plan with it can be checked, but not built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unseen;

impl Image for Unseen {
    const IS_SOUGHT: bool = false;

    fn config(&self) -> Option<&ImageConfig> {
        None
    }
}

/// What a stage begins with.
#[derive(Debug, Clone)]
pub enum Base<I = Arc<BaseImage>> {
    /// Nothing.
    Scratch,
    /// An image of a registry.
    Image(I),
    /// What an earlier stage ended with.
    Stage(usize),
}

/// What the build will do.
#[derive(Debug)]
pub struct Plan<I = Arc<BaseImage>> {
    /// By their place in the Dockerfile; `None` for stages that the target does not need.
    pub stages: Vec<Option<Stage<I>>>,
    /// The stage that becomes the image.
    pub target: usize,
    /// `--build-arg` names that no ARG took.
    pub unused_args: Vec<String>,
}

/// One stage.
#[derive(Debug)]
pub struct Stage<I = Arc<BaseImage>> {
    /// Its place in the Dockerfile.
    pub number: usize,
    /// What it is called by those that are built on it or copy from it.
    pub name: Option<String>,
    /// The base as the FROM line names it, variables replaced.
    pub base_name: String,
    /// What it begins with.
    pub base: Base<I>,
    /// What is done, ONBUILD triggers first.
    pub steps: Vec<Step<I>>,
    /// How many of the steps are ONBUILD triggers.
    pub triggers: usize,
    /// The config it ends with, without layers and without this build's history.
    pub config: ImageConfig,
    /// What it is for.
    pub platform: Platform,
}

/// One instruction, ready to run in its stage.
#[derive(Debug)]
pub struct Step<I = Arc<BaseImage>> {
    /// First line in the Dockerfile; that of FROM for a trigger of its base.
    pub line: u32,
    /// The instruction as written, for logs and errors; a trigger begins with ONBUILD.
    pub text: String,
    /// The instruction as docker's history prints it; ONBUILD is not in the history.
    pub created_by: Option<String>,
    /// What is to be done.
    pub action: Action<I>,
}

/// What a step does to the files.
#[derive(Debug)]
pub enum Action<I = Arc<BaseImage>> {
    /// Touches only the image config: no snapshot, no layer.
    ConfigOnly,
    /// Makes a directory, owned by the user in force.
    Workdir {
        /// Which.
        directory: ImagePath,
        /// `USER` in force, empty for root.
        user: String,
    },
    /// Writes only what it copies.
    Copy(Box<CopyStep<I>>),
    /// May do anything.
    Run(Box<RunStep>),
}

/// Where a COPY takes its files from.
#[derive(Debug, Clone)]
pub enum CopyFrom<I = Arc<BaseImage>> {
    /// The build context.
    Context,
    /// A named context with files, by its place in the request.
    Named(usize),
    /// An earlier stage.
    Stage(usize),
    /// An image of a registry.
    Image(I),
}

/// A source, variables replaced.
#[derive(Debug, Clone)]
pub enum CopySource {
    /// A path or pattern.
    Path(String),
    /// A file to fetch.
    Url {
        /// Where it is.
        address: Address,
        /// `--checksum`.
        checksum: Option<Digest>,
    },
    /// The files of a git repository.
    Repository(Box<Repository>),
    /// A file that stands in the Dockerfile.
    Inline {
        /// Its name, if the destination is a directory.
        name: String,
        /// Its content.
        content: String,
    },
}

/// Where the files are that a stage ends with.
#[derive(Debug, Clone, Copy)]
pub enum Files<'a> {
    /// In the root when that stage ends.
    OfStage(usize),
    /// In an image.
    OfImage(&'a Arc<BaseImage>),
    /// There are none.
    None,
}

/// COPY or ADD, variables replaced.
#[derive(Debug)]
pub struct CopyStep<I = Arc<BaseImage>> {
    /// Where from.
    pub from: CopyFrom<I>,
    /// What.
    pub sources: Vec<CopySource>,
    /// Where to; a slash at the end says that it is a directory.
    pub destination: String,
    /// WORKDIR in force.
    pub working_directory: ImagePath,
    /// `--chown`.
    pub owner: Option<String>,
    /// `--chmod`.
    pub mode: Option<ModeSpec>,
    /// Which archives are unpacked (ADD).
    pub unpack: Unpack,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: PatternList,
}

/// RUN, ready to be executed.
#[derive(Debug)]
pub struct RunStep {
    /// Program and arguments.
    pub words: Vec<String>,
    /// The whole environment but HOME, which depends on the user.
    pub environment: Vec<(String, String)>,
    /// WORKDIR in force.
    pub directory: ImagePath,
    /// USER in force, empty for root.
    pub user: String,
    /// A here-document that is a program of its own (`#!`): written to a file, whose path takes the place of the last word.
    pub script: Option<Heredoc>,
}

impl<I> CopyStep<I> {
    /// The paths and patterns among its sources.
    pub fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.sources.iter().filter_map(|source| match source {
            CopySource::Path(path) => Some(path.as_bytes()),
            CopySource::Url { .. } | CopySource::Repository(_) | CopySource::Inline { .. } => None,
        })
    }
}

impl<I> Stage<I> {
    /// Does any step need the base's files?
    pub fn first_step_on_files(&self) -> Option<&Step<I>> {
        self.steps.iter().find(|step| !matches!(step.action, Action::ConfigOnly))
    }
}

impl<I> Plan<I> {
    /// The stages that are built, in order.
    pub fn needed(&self) -> impl Iterator<Item = &Stage<I>> {
        self.stages.iter().flatten()
    }

    /// The named contexts that files are taken from.
    pub fn named_contexts(&self) -> BTreeSet<usize> {
        let named = |step: &Step<I>| match &step.action {
            Action::Copy(copy) => match copy.from {
                CopyFrom::Named(number) => Some(number),
                _ => None,
            },
            _ => None,
        };
        self.needed().flat_map(|stage| &stage.steps).filter_map(named).collect()
    }

    /// Must this stage's changes become layers? Only if it is the target or a base; files alone are copied from its root.
    pub fn wants_layers(&self, number: usize) -> bool {
        number == self.target || self.needed().any(|stage| matches!(stage.base, Base::Stage(base) if base == number))
    }
}

impl Plan {
    /// Which files a stage ends with, if none of its own steps does anything to files.
    pub fn files_of(&self, number: usize) -> Files<'_> {
        let stage = self.stages[number].as_ref().expect("only needed stages are spoken of");
        match &stage.base {
            _ if stage.first_step_on_files().is_some() => Files::OfStage(number),
            Base::Stage(below) => self.files_of(*below),
            Base::Image(image) => Files::OfImage(image),
            Base::Scratch => Files::None,
        }
    }

    /// The stages that must be built before `stage`.
    pub fn needs(&self, stage: &Stage) -> BTreeSet<usize> {
        let base = match stage.base {
            Base::Stage(base) => Some(base),
            Base::Scratch | Base::Image(_) => None,
        };
        let copied_from = stage.steps.iter().filter_map(|step| match &step.action {
            Action::Copy(copy) => match copy.from {
                CopyFrom::Stage(from) => Some(from),
                CopyFrom::Context | CopyFrom::Named(_) | CopyFrom::Image(_) => None,
            },
            Action::ConfigOnly | Action::Workdir { .. } | Action::Run(_) => None,
        });
        base.into_iter().chain(copied_from).collect()
    }

    /// What tells a stage from the others: its name if no other has it, else its number.
    pub fn label(&self, stage: &Stage) -> String {
        let is_its_own = |name: &&String| {
            let others = self.needed().filter(|other| other.number != stage.number);
            others.into_iter().all(|other| other.name.as_ref() != Some(name))
        };
        stage.name.as_ref().filter(is_its_own).cloned().unwrap_or_else(|| format!("stage-{}", stage.number))
    }

    /// Is another stage built on the files that stage `number` ends with?
    pub fn is_built_on(&self, number: usize) -> bool {
        self.needed().any(|stage| self.stage_below(stage) == Some(number))
    }

    /// The stage on whose files `stage` is built, if it does anything to files.
    pub fn stage_below(&self, stage: &Stage) -> Option<usize> {
        match stage.base {
            Base::Stage(base) if stage.first_step_on_files().is_some() => match self.files_of(base) {
                Files::OfStage(of) => Some(of),
                Files::OfImage(_) | Files::None => None,
            },
            Base::Stage(_) | Base::Scratch | Base::Image(_) => None,
        }
    }

    /// The copies that are taken from the files of stage `number`, with the stages that take them.
    pub fn copies_from(&self, number: usize) -> impl Iterator<Item = (usize, &CopyStep)> {
        self.copies().filter(move |(_, copy)| match copy.from {
            CopyFrom::Stage(from) => matches!(self.files_of(from), Files::OfStage(of) if of == number),
            CopyFrom::Context | CopyFrom::Named(_) | CopyFrom::Image(_) => false,
        })
    }

    /// The copies that are taken from an image, by name or as a stage that changes none of its files.
    pub fn copies_from_image(&self, image: &BaseImage) -> impl Iterator<Item = &CopyStep> {
        let digest = image.remote.manifest_digest;
        self.copies().map(|(_, copy)| copy).filter(move |copy| {
            let from = match &copy.from {
                CopyFrom::Image(image) => Some(image),
                CopyFrom::Stage(from) => match self.files_of(*from) {
                    Files::OfImage(image) => Some(image),
                    Files::OfStage(_) | Files::None => None,
                },
                CopyFrom::Context | CopyFrom::Named(_) => None,
            };
            from.is_some_and(|from| from.remote.manifest_digest == digest)
        })
    }

    fn copies(&self) -> impl Iterator<Item = (usize, &CopyStep)> {
        self.needed().flat_map(|stage| {
            stage.steps.iter().filter_map(|step| match &step.action {
                Action::Copy(copy) => Some((stage.number, &**copy)),
                Action::ConfigOnly | Action::Workdir { .. } | Action::Run(_) => None,
            })
        })
    }
}
