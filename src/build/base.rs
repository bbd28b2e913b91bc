//! What a stage begins with, and what stays of the one before.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use super::copy::needed_paths;
use super::error::{Error, StepError};
use super::fetching::{Arrivals, while_fetching};
use super::kept::{Tree, keep};
use super::plan::{Base, BaseImage, CopyStep, Files, Plan, Stage};
use super::stage::{Builder, World};
use super::unpacking::open_layer;
use crate::image::Layered;
use crate::layer::{self, LayerBlob};
use crate::registry::{self, RemoteImage};
use crate::rootfs::{Ignored, Root};
use crate::snapshot::{self, Candidates, Collected, LostTrack, SnapshotMode};
use crate::tree::{Changeset, ImagePath, NodeId, RootIndex, Standing};

impl Builder<'_> {
    /// Brings the root to what the stage begins with, if any of its steps works on files; keeps what later stages copy of the
    /// stage that is in the root.
    pub(super) fn prepare_root(&mut self, stage: &Stage, layers: &[Layered]) -> Result<(), Error> {
        let Some(step) = stage.first_step_on_files() else {
            tracing::info!("Skipping unpacking as no commands require it.");
            return Ok(());
        };
        let mut left = self.in_root.take();
        if let Some(left) = left {
            let is_as_its_image = self.learn_all()?;
            let is_base = match &stage.base {
                Base::Stage(base) => matches!(self.world.plan.files_of(*base), Files::OfStage(of) if of == left),
                Base::Scratch | Base::Image(_) => false,
            };
            if is_base && is_as_its_image {
                tracing::info!("The root filesystem is that of stage {left} already.");
                return self.keep(left, &|_, _| true);
            }
        }
        tracing::info!("Unpacking rootfs as cmd {} requires it.", step.text);
        let blobs: Vec<LayerBlob> = layers.iter().map(blob).collect();
        let world = self.world;
        let image = image_below(world.plan, &stage.base);
        let mut more_tries = world.request.image_fs_extract_retry;
        loop {
            let tried = while_fetching(&world, image, |arrivals| self.unpack(&blobs, arrivals, &mut left));
            let failure = match tried {
                Ok(()) => return Ok(()),
                Err(failure) if more_tries == 0 || !failure.may_pass() => failure,
                Err(failure) => {
                    more_tries -= 1;
                    tracing::warn!("unpacking {} failed, trying again: {failure}", stage.base_name);
                    self.look_everywhere()?;
                    continue;
                }
            };
            return Err(match failure {
                Failure::Layer(source) => Error::Unpack { base: stage.base_name.clone(), source },
                Failure::Other(error) => *error,
            });
        }
    }

    /// Makes the root hold what `layers` say, once what is needed of the stage `left` in it has been kept.
    fn unpack(
        &mut self,
        layers: &[LayerBlob],
        arrivals: &Arrivals<'_>,
        left: &mut Option<usize>,
    ) -> Result<(), Failure> {
        let World { store, request, .. } = self.world;
        let mut open = |layer: &LayerBlob| open_layer(store, arrivals, layer, &request.listeners.unpacking);
        let is_used = self.index.subtree(self.index.root()).any(|id| self.index.standing(id) != Standing::Foreign);
        if !is_used {
            if let Some(left) = left.take() {
                self.keep(left, &|_, _| false)?;
            }
            return Ok(layer::apply(layers, &mut open, self.world.root, &mut self.index, self.world.ignored)?);
        }
        let next = layer::describe(layers, &mut open, self.world.root, self.world.ignored)?;
        if let Some(left) = left.take() {
            self.keep(left, &|index, id| next.keeps(index, id))?;
        }
        next.realize(&mut open, self.world.root, &mut self.index, self.world.ignored)?;
        Ok(())
    }

    /// Makes the index say what is on disk, also where the snapshots did not look: their mode may compare little, and some
    /// paths are never part of an image. Says whether all of it is as the image of the stage says.
    fn learn_all(&mut self) -> Result<bool, Error> {
        let places: BTreeSet<ImagePath> = self.world.ignored.places_overlooked().collect();
        let candidates = Candidates::Listed { paths: places.clone(), subtrees: places };
        Ok(self.look(candidates)?.is_empty())
    }

    /// Makes the index say what is on disk after something went wrong half-way.
    fn look_everywhere(&mut self) -> Result<(), Error> {
        self.look(Candidates::Everything(LostTrack::NotWatched)).map(drop)
    }

    fn look(&mut self, candidates: Candidates) -> Result<Changeset, Error> {
        let collected = Collected { candidates, ctime: self.ctime, events: 0, handles_opened: 0 };
        let all = self.world.ignored.untouchable_only();
        let (root, threads) = (self.world.root, self.world.request.threads.get());
        let taken = snapshot::take(collected, SnapshotMode::Full, root, &mut self.index, &all, threads)?;
        Ok(taken.changeset)
    }

    /// The files of an image that COPY takes any of, unpacked into a directory of their own.
    pub(super) fn unpack_image(&mut self, image: &BaseImage) -> Result<Rc<Tree>, StepError> {
        let key = image.remote.manifest_digest.hex();
        if let Some(tree) = self.unpacked.get(&key) {
            return Ok(Rc::clone(tree));
        }
        let World { store, request, plan, scratch, .. } = self.world;
        let place = scratch.join("images").join(&key);
        let unpacked = while_fetching(&self.world, Some(&image.remote), |arrivals| {
            let root = new_root(place)?;
            let mut index = RootIndex::new();
            let mut open = |layer: &LayerBlob| open_layer(store, arrivals, layer, &request.listeners.unpacking);
            let mut described = layer::describe(&image.layers, &mut open, &root, &Ignored::new())?;
            described.retain(&needed_by(plan.copies_from_image(image), described.index()));
            described.realize(&mut open, &root, &mut index, &Ignored::new())?;
            Ok::<Tree, Box<dyn StdError + Send + Sync>>(Tree { root, index })
        });
        let name = || image.remote.reference.to_string();
        let tree = Rc::new(unpacked.map_err(|source| StepError::Image { image: name(), source })?);
        self.unpacked.insert(key, Rc::clone(&tree));
        Ok(tree)
    }

    /// Keeps what later stages copy from stage `number`, whose files are in the root; `stays` knows what the next stage wants.
    fn keep(&mut self, number: usize, stays: &dyn Fn(&RootIndex, NodeId) -> bool) -> Result<(), Error> {
        if self.world.plan.copies_from(number).next().is_none() {
            return Ok(());
        }
        let needed = needed_by(self.world.plan.copies_from(number).map(|(_, copy)| copy), &self.index);
        for path in &needed {
            tracing::info!("Saving file {path} for later use");
        }
        let place = new_root(self.world.scratch.join("stages").join(number.to_string()))?;
        let tree = keep(&needed, stays, self.world.root, &mut self.index, self.world.ignored, place)?;
        self.kept.insert(number, tree);
        Ok(())
    }

    /// Removes the files of stages that no stage after `number` copies from.
    pub(super) fn forget_after(&mut self, number: usize) {
        let plan = self.world.plan;
        let is_over = |kept: &usize| plan.copies_from(*kept).all(|(reader, _)| reader <= number);
        let over: Vec<usize> = self.kept.keys().copied().filter(is_over).collect();
        for stage in over {
            let place = self.kept.remove(&stage).map(|tree| tree.root.place().to_path_buf());
            if let Some(Err(error)) = place.map(fs::remove_dir_all) {
                tracing::debug!("the files of stage {stage} stay in the work directory: {error}");
            }
        }
    }
}

/// Why a root could not be prepared.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
enum Failure {
    /// Its layers could not be put into it.
    Layer(layer::Error),
    /// Its layers could not be fetched, or what is there could not be kept.
    Other(Box<Error>),
}

impl Failure {
    /// May another try help?
    fn may_pass(&self) -> bool {
        match self {
            Failure::Layer(_) => true,
            Failure::Other(error) => matches!(&**error, Error::Registry(error) if error.is_temporary()),
        }
    }
}

impl From<layer::Error> for Failure {
    fn from(error: layer::Error) -> Failure {
        Failure::Layer(error)
    }
}

impl From<registry::Error> for Failure {
    fn from(error: registry::Error) -> Failure {
        Error::from(error).into()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Other(Box::new(error))
    }
}

/// The image that a base comes from, perhaps by way of stages.
fn image_below<'p>(plan: &'p Plan, base: &'p Base) -> Option<&'p RemoteImage> {
    match base {
        Base::Image(image) => Some(&image.remote),
        Base::Stage(number) => image_below(plan, &plan.stages[*number].as_ref()?.base),
        Base::Scratch => None,
    }
}

/// What the copies take of the files that `index` knows.
fn needed_by<'a>(copies: impl Iterator<Item = &'a CopyStep>, index: &RootIndex) -> Vec<ImagePath> {
    let paths = copies.flat_map(|copy| copy.paths().map(move |path| needed_paths(index, path, copy.parents)));
    let needed: BTreeSet<ImagePath> = paths.flatten().collect();
    needed.into_iter().collect()
}

/// An empty root at `place`.
fn new_root(place: PathBuf) -> Result<Root, Error> {
    let cleared = match fs::remove_dir_all(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(&place),
    };
    cleared.map_err(|source| Error::WorkDirectory { path: place.clone(), source })?;
    Ok(Root::open(&place)?)
}

fn blob(layer: &Layered) -> LayerBlob {
    LayerBlob { descriptor: layer.descriptor.clone(), diff_id: layer.diff_id }
}
