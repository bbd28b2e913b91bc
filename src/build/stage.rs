//! One stage, built on a root.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tracing::Span;
use tracing::field::Empty;

use super::base::UnpackedImages;
use super::clock::Clock;
use super::copy;
use super::error::{Error, StepError};
use super::fetching::Arrivals;
use super::kept::Tree;
use super::named::NamedFiles;
use super::plan::{Action, Base, BaseImage, Plan, Stage, Step};
use super::request::{Isolation, Request};
use super::site::Site;
use crate::blobs::BlobStore;
use crate::context::{Context, IgnoreFile};
use crate::http;
use crate::image::{Format, History, Layered};
use crate::layer::{self, LayerBlob, WriteOptions};
use crate::registry::Client;
use crate::run::{KnownIds, Supervisor};
use crate::snapshot;
use crate::sys::Stop;
use crate::tree::{Changeset, ImagePath, RootIndex, Timestamp};

/// What the image of a finished stage has, but its config.
#[derive(Clone)]
pub(super) struct Finished {
    pub(super) layers: Vec<Layered>,
    pub(super) history: Vec<History>,
    pub(super) format: Format,
}

/// What the image of a stage begins with.
pub(super) enum Beginning {
    Scratch,
    Image(Arc<BaseImage>),
    Stage(Finished),
}

/// What a stage leaves.
pub(super) struct Done {
    pub(super) finished: Finished,
    /// Its files, as far as others copy them.
    pub(super) kept: Option<Tree>,
    pub(super) site: Site,
}

/// All that a build works with, and that its stages share.
#[derive(Clone, Copy)]
pub(super) struct World<'a> {
    pub(super) request: &'a Request,
    pub(super) plan: &'a Plan,
    pub(super) client: &'a Client,
    pub(super) http: &'a http::Client,
    pub(super) store: &'a BlobStore,
    pub(super) arrivals: &'a Arrivals<'a>,
    pub(super) context: &'a Context,
    pub(super) ignore_file: Option<&'a IgnoreFile>,
    /// By their place in the request.
    pub(super) named: &'a BTreeMap<usize, NamedFiles>,
    pub(super) supervisor: &'a Supervisor,
    /// Whom files can belong to, and whom commands can run as.
    pub(super) ids: &'a KnownIds,
    pub(super) stop: &'a Stop,
    /// A directory that goes when the build ends.
    pub(super) scratch: &'a Path,
    pub(super) unpacked: &'a UnpackedImages,
    pub(super) warnings: &'a Warnings,
    /// How many stages are at work.
    pub(super) at_work: &'a AtomicUsize,
}

/// What somebody has been warned of, once for all stages.
pub(super) struct Warnings {
    /// Files with credentials that a RUN might be able to read, until somebody has been warned of one.
    pub(super) credential_files: Mutex<Vec<PathBuf>>,
    /// Directories in which commands worked and of which no layer tells.
    pub(super) unrecorded: Mutex<BTreeSet<ImagePath>>,
}

impl Warnings {
    /// To be made before a base is unpacked: what comes later is the image's own.
    pub(super) fn new(request: &Request) -> Warnings {
        let credential_files = match request.isolation {
            Isolation::InPlace => request.docker_config_files.iter().filter(|file| file.exists()).cloned().collect(),
            // no command sees a file of the machine
            Isolation::Namespaces => Vec::new(),
        };
        Warnings { credential_files: Mutex::new(credential_files), unrecorded: Mutex::default() }
    }
}

impl World<'_> {
    /// Its share of the threads, for a stage that begins something now.
    pub(super) fn threads(&self) -> NonZeroUsize {
        let share = self.request.threads.get() / self.at_work.load(Ordering::Relaxed).max(1);
        NonZeroUsize::new(share).unwrap_or(NonZeroUsize::MIN)
    }

    pub(super) fn now(&self) -> Timestamp {
        Clock::of(self.request).now()
    }

    pub(super) fn now_text(&self) -> String {
        Clock::of(self.request).now_text()
    }
}

/// Builds one stage.
pub(super) struct Builder<'a> {
    pub(super) world: World<'a>,
    pub(super) site: Site,
    /// The files of the stages that it copies from.
    pub(super) sources: BTreeMap<usize, Arc<Tree>>,
    /// What the stage is called in the log, where others are at work at the same time.
    label: Option<String>,
    /// What stands in front of each line of a command.
    pub(super) prefix: String,
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
    /// Prepares to build a stage on `site`.
    pub(super) fn new(
        world: World<'a>,
        site: Site,
        sources: BTreeMap<usize, Arc<Tree>>,
        label: Option<String>,
    ) -> Builder<'a> {
        Builder { world, site, sources, label, prefix: String::new() }
    }

    /// Builds the stage.
    pub(super) fn build(self, stage: &Stage, beginning: Beginning) -> Result<Done, Error> {
        // an error, so that even who sees nothing but errors sees of which stage they are
        let span = self.label.as_ref().map(|label| tracing::error_span!("stage", stage = label, step = Empty));
        span.unwrap_or_else(Span::none).in_scope(|| self.build_all(stage, beginning))
    }

    fn build_all(mut self, stage: &Stage, beginning: Beginning) -> Result<Done, Error> {
        let base_number = match stage.base {
            Base::Stage(number) => number as i64,
            _ => -1,
        };
        tracing::info!("Building stage '{}' [idx: '{}', base-idx: '{base_number}']", stage.base_name, stage.number);
        let Finished { layers, history, format } = match beginning {
            Beginning::Scratch => Finished { layers: Vec::new(), history: Vec::new(), format: Format::Docker },
            Beginning::Image(image) => Finished {
                layers: image.layers.iter().map(layered).collect(),
                history: image.config.history_of_layers(),
                format: Format::of(&image.remote.manifest),
            },
            Beginning::Stage(base) => base,
        };
        let format = self.world.request.image_format.unwrap_or(format);
        self.prepare_root(stage, &layers)?;
        tracing::info!("Executing {} build triggers", stage.triggers);
        let single = self.world.request.snapshot.single && stage.number == self.world.plan.target;
        let before = single.then(|| self.site.index.clone());
        let wants_layers = self.world.plan.wants_layers(stage.number);
        let mut work = Progressing { layers, history, format, wants_layers, before };
        let last_on_files = stage.steps.iter().rposition(|step| !matches!(step.action, Action::ConfigOnly));
        for (number, step) in stage.steps.iter().enumerate() {
            if let Some(reason) = self.world.supervisor.was_stopped() {
                return Err(Error::Stopped(reason));
            }
            self.world.stop.check().map_err(|_| Error::GivenUp)?;
            let began = Instant::now();
            let at = format!("{}/{}", number + 1, stage.steps.len());
            self.enter_step(&at);
            self.tell(&at, &step.text);
            let is_last = last_on_files == Some(number);
            self.step(step, is_last, &mut work).map_err(|source| Error::of_step(step, source))?;
            if !matches!(step.action, Action::ConfigOnly) {
                self.tell(&at, &format!("took {:.1} s", began.elapsed().as_secs_f64()));
            }
        }
        let kept = if last_on_files.is_some() { self.keep(stage.number)? } else { None };
        let Progressing { layers, history, format, .. } = work;
        Ok(Done { finished: Finished { layers, history, format }, kept, site: self.site })
    }

    /// From here on, lines of the log are of the step `at`, such as `2/5`.
    fn enter_step(&mut self, at: &str) {
        if let Some(label) = &self.label {
            Span::current().record("step", at);
            self.prefix = format!("[{label} {at}] ");
        }
    }

    /// Tells something of a step. Where every line says of which step it is, it need not.
    fn tell(&self, at: &str, said: &str) {
        match &self.label {
            Some(_) => tracing::info!("{said}"),
            None => tracing::info!("[{at}] {said}"),
        }
    }

    fn step(&mut self, step: &Step, is_last: bool, work: &mut Progressing) -> Result<(), StepError> {
        let changeset = match &step.action {
            Action::ConfigOnly => None,
            Action::Workdir { directory, user } => {
                let owner = self.user(user)?;
                let (_, changeset) = copy::make_workdir(
                    directory,
                    (owner.uid, owner.gid),
                    self.world.now(),
                    &self.site.place.root,
                    &mut self.site.index,
                    &self.site.place.ignored,
                )?;
                Some(changeset)
            }
            Action::Copy(copy) => Some(self.copy(copy)?),
            Action::Run(run) => Some(self.run(run, work.wants_layers)?),
        };
        let changeset = match &work.before {
            None => changeset,
            Some(before) if is_last => Some(snapshot::difference(before, &self.site.index)),
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
                created: Some(self.world.now_text()),
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
            compression: self.world.request.compression,
            times: Clock::of(self.world.request).times(),
            threads: self.world.threads(),
        };
        let changes = changeset.changes(&self.site.index);
        let written = layer::write(changes, &self.site.place.root, self.world.store, &options)?;
        tracing::debug!(digest = %written.descriptor.digest, bytes = written.descriptor.size, "layer written");
        Ok(Layered { descriptor: written.descriptor, diff_id: written.diff_id })
    }
}

fn layered(layer: &LayerBlob) -> Layered {
    Layered { descriptor: layer.descriptor.clone(), diff_id: layer.diff_id }
}
