//! One stage after another on one root.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use super::clock::Clock;
use super::copy;
use super::error::{Error, StepError};
use super::kept::Tree;
use super::named::NamedFiles;
use super::plan::{Action, Base, Plan, Stage, Step};
use super::request::Request;
use crate::blobs::BlobStore;
use crate::context::{Context, IgnoreFile};
use crate::http;
use crate::image::{Format, History, ImageConfig, Layered};
use crate::layer::{self, LayerBlob, WriteOptions};
use crate::registry::Client;
use crate::rootfs::{Ignored, Root};
use crate::run::{self, Supervisor};
use crate::snapshot::{self, ChosenTracker, Distrust};
use crate::sys::Stop;
use crate::tree::{Changeset, ImagePath, RootIndex, Timestamp};

/// What a finished stage leaves to later ones.
struct Finished {
    layers: Vec<Layered>,
    history: Vec<History>,
    format: Format,
}

/// The target stage's result.
pub(super) struct TargetImage {
    pub(super) config: ImageConfig,
    pub(super) layers: Vec<Layered>,
    pub(super) format: Format,
}

/// All that a build works with and does not change.
#[derive(Clone, Copy)]
pub(super) struct World<'a> {
    pub(super) request: &'a Request,
    pub(super) plan: &'a Plan,
    pub(super) client: &'a Client,
    pub(super) http: &'a http::Client,
    pub(super) store: &'a BlobStore,
    pub(super) context: &'a Context,
    pub(super) ignore_file: Option<&'a IgnoreFile>,
    /// By their place in the request.
    pub(super) named: &'a BTreeMap<usize, NamedFiles>,
    /// The root as the image sees it.
    pub(super) root: &'a Root,
    /// The same root as commands see it, with what is mounted there.
    pub(super) mounted_root: &'a Root,
    pub(super) ignored: &'a Ignored,
    /// What commands see besides, where they run isolated.
    pub(super) isolated: Option<&'a run::World>,
    pub(super) supervisor: &'a Supervisor,
    pub(super) stop: &'a Stop,
    /// A directory that goes when the build ends.
    pub(super) scratch: &'a Path,
}

/// Builds the stages of a plan.
pub(super) struct Builder<'a> {
    pub(super) world: World<'a>,
    /// What is in the root.
    pub(super) index: RootIndex,
    pub(super) tracker: ChosenTracker,
    /// Could ctime be trusted to tell what commands touched?
    pub(super) ctime: Result<(), Distrust>,
    finished: BTreeMap<usize, Finished>,
    /// The stage whose files, as it ended, are in the root.
    pub(super) in_root: Option<usize>,
    /// What later stages copy of finished ones.
    pub(super) kept: BTreeMap<usize, Tree>,
    /// What is copied of images, by the digest of their manifest.
    pub(super) unpacked: BTreeMap<String, Rc<Tree>>,
    /// Files with credentials that a RUN might be able to read, until somebody has been warned of one.
    pub(super) credential_files: Vec<PathBuf>,
    /// Directories in which commands worked and of which no layer tells, as somebody has been warned.
    pub(super) unrecorded: BTreeSet<ImagePath>,
}

/// A stage at work.
struct Progressing {
    layers: Vec<Layered>,
    history: Vec<History>,
    format: Format,
    /// Does anybody want its changes as layers? Files alone are copied from its root.
    wants_layers: bool,
    /// What the root held when the stage began: only with `--single-snapshot`.
    before: Option<RootIndex>,
}

impl<'a> Builder<'a> {
    /// Prepares to build in a root that holds what `index` says.
    pub(super) fn new(world: World<'a>, index: RootIndex) -> Builder<'a> {
        let tracker = world.request.snapshot.tracker;
        Builder {
            index,
            tracker: ChosenTracker::new(tracker),
            ctime: Ok(()),
            finished: BTreeMap::new(),
            in_root: None,
            kept: BTreeMap::new(),
            unpacked: BTreeMap::new(),
            // what comes later is the image's own
            credential_files: match world.isolated {
                None => world.request.docker_config_files.iter().filter(|file| file.exists()).cloned().collect(),
                // no command sees a file of the machine
                Some(_) => Vec::new(),
            },
            unrecorded: BTreeSet::new(),
            world,
        }
    }

    /// Builds all stages; the target's image is what is left.
    pub(super) fn build(&mut self) -> Result<TargetImage, Error> {
        for stage in self.world.plan.needed() {
            self.stage(stage)?;
            self.forget_after(stage.number);
        }
        let target = self.finished.remove(&self.world.plan.target).expect("the target is among the needed stages");
        let stage = self.world.plan.stages[self.world.plan.target].as_ref().expect("the target is planned");
        let mut config = stage.config.clone();
        config.history = target.history;
        config.created = Some(self.now_text());
        let run = config.config.get_or_insert_default();
        run.labels.extend(self.world.request.labels.clone());
        Ok(TargetImage { config, layers: target.layers, format: target.format })
    }

    fn stage(&mut self, stage: &Stage) -> Result<(), Error> {
        let base_number = match stage.base {
            Base::Stage(number) => number as i64,
            _ => -1,
        };
        tracing::info!("Building stage '{}' [idx: '{}', base-idx: '{base_number}']", stage.base_name, stage.number);
        let (layers, history, format) = match &stage.base {
            Base::Scratch => (Vec::new(), Vec::new(), Format::Docker),
            Base::Image(image) => {
                let layers = image.layers.iter().map(layered).collect();
                (layers, image.config.history.clone(), Format::of(&image.remote.manifest))
            }
            Base::Stage(number) => {
                let base = self.finished.get(number).expect("a base is built before the stages on it");
                (base.layers.clone(), base.history.clone(), base.format)
            }
        };
        let format = self.world.request.image_format.unwrap_or(format);
        self.prepare_root(stage, &layers)?;
        tracing::info!("Executing {} build triggers", stage.triggers);
        let single = self.world.request.snapshot.single && stage.number == self.world.plan.target;
        let before = single.then(|| self.index.clone());
        let wants_layers = self.world.plan.wants_layers(stage.number);
        let mut work = Progressing { layers, history, format, wants_layers, before };
        let last_on_files = stage.steps.iter().rposition(|step| !matches!(step.action, Action::ConfigOnly));
        for (number, step) in stage.steps.iter().enumerate() {
            if let Some(signal) = self.world.supervisor.was_stopped() {
                return Err(Error::Stopped(signal));
            }
            let began = Instant::now();
            tracing::info!("[{}/{}] {}", number + 1, stage.steps.len(), step.text);
            let is_last = last_on_files == Some(number);
            self.step(step, is_last, &mut work).map_err(|source| Error::Step {
                line: step.line,
                text: step.text.chars().take(200).collect(),
                source,
            })?;
            if !matches!(step.action, Action::ConfigOnly) {
                tracing::info!("[{}/{}] took {:.1} s", number + 1, stage.steps.len(), began.elapsed().as_secs_f64());
            }
        }
        if last_on_files.is_some() {
            self.in_root = Some(stage.number);
        }
        let Progressing { layers, history, format, .. } = work;
        self.finished.insert(stage.number, Finished { layers, history, format });
        Ok(())
    }

    fn step(&mut self, step: &Step, is_last: bool, work: &mut Progressing) -> Result<(), StepError> {
        let changeset = match &step.action {
            Action::ConfigOnly => None,
            Action::Workdir { directory, user } => {
                let owner = self.user(user)?;
                let (_, changeset) = copy::make_workdir(
                    directory,
                    (owner.uid, owner.gid),
                    self.now(),
                    self.world.root,
                    &mut self.index,
                    self.world.ignored,
                )?;
                Some(changeset)
            }
            Action::Copy(copy) => Some(self.copy(copy)?),
            Action::Run(run) => Some(self.run(run, work.wants_layers)?),
        };
        let changeset = match &work.before {
            None => changeset,
            Some(before) if is_last => Some(snapshot::difference(before, &self.index)),
            Some(_) => None,
        };
        let layer = match changeset {
            Some(_) if !work.wants_layers => None,
            Some(changeset) if !changeset.is_empty() => Some(self.write_layer(&changeset, work.format)?),
            Some(_) if matches!(step.action, Action::Run(_)) => {
                tracing::info!("No files were changed, appending empty layer to config. No layer added to image.");
                None
            }
            _ => None,
        };
        if let Some(created_by) = &step.created_by {
            work.history.push(History {
                created: Some(self.now_text()),
                created_by: Some(created_by.clone()),
                comment: Some("buildkit.dockerfile.v0".into()),
                empty_layer: layer.is_none(),
                author: None,
            });
        }
        work.layers.extend(layer);
        Ok(())
    }

    fn write_layer(&self, changeset: &Changeset, format: Format) -> Result<Layered, StepError> {
        let options = WriteOptions {
            format: match format {
                Format::Docker => layer::Format::Docker,
                Format::Oci => layer::Format::Oci,
            },
            level: self.world.request.compression_level,
            times: Clock::of(self.world.request).times(),
            threads: self.world.request.threads,
        };
        let written = layer::write(changeset, self.world.root, self.world.store, &options)?;
        tracing::debug!(digest = %written.descriptor.digest, bytes = written.descriptor.size, "layer written");
        Ok(Layered { descriptor: written.descriptor, diff_id: written.diff_id })
    }

    pub(super) fn now(&self) -> Timestamp {
        Clock::of(self.world.request).now()
    }

    fn now_text(&self) -> String {
        Clock::of(self.world.request).now_text()
    }
}

fn layered(layer: &LayerBlob) -> Layered {
    Layered { descriptor: layer.descriptor.clone(), diff_id: layer.diff_id }
}
