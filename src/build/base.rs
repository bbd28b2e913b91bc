//! What a stage begins with, and what is kept of it in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use super::copy::needed_paths;
use super::error::{Error, StepError};
use super::fetching::{Order, while_fetching};
use super::kept::{Tree, keep};
use super::plan::{Base, BaseImage, CopyStep, Plan, Stage};
use super::site::Site;
use super::stage::{Builder, World};
use super::unpacking::open_layer;
use crate::image::Layered;
use crate::layer::{self, LayerBlob};
use crate::registry::{self, RemoteImage};
use crate::rootfs::{Ignored, Root};
use crate::snapshot::{self, Candidates, Collected, LostTrack, SnapshotMode};
use crate::tree::{Changeset, ImagePath, RootIndex, Standing};

/// The files of images that COPY takes any of, unpacked once for all stages.
#[derive(Default)]
pub(super) struct UnpackedImages(Mutex<BTreeMap<String, Unpacked>>);

/// The files of one image, once somebody has unpacked it.
type Unpacked = Arc<Mutex<Option<Arc<Tree>>>>;

impl Builder<'_> {
    /// Brings the root to what the stage begins with, if any of its steps works on files.
    pub(super) fn prepare_root(&mut self, stage: &Stage, layers: &[Layered]) -> Result<(), Error> {
        let Some(step) = stage.first_step_on_files() else {
            tracing::info!("Skipping unpacking as no commands require it.");
            return Ok(());
        };
        if let Some(held) = self.site.holds.take()
            && Some(held) == self.world.plan.stage_below(stage)
        {
            tracing::info!("The root filesystem is that of stage {held} already.");
            return Ok(());
        }
        tracing::info!("Unpacking rootfs as cmd {} requires it.", step.text);
        let blobs: Vec<LayerBlob> = layers.iter().map(blob).collect();
        let world = self.world;
        let image = image_below(world.plan, &stage.base);
        let mut more_tries = world.request.image_fs_extract_retry;
        loop {
            let tried = while_fetching(&world, image, |order| self.unpack(&blobs, order));
            let failure = match tried {
                Ok(()) => return Ok(self.site.restore_surveyed()?),
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
                Failure::Fetch(error) => Error::Registry(error),
            });
        }
    }

    /// Makes the root hold what `layers` say.
    fn unpack(&mut self, layers: &[LayerBlob], order: &Order<'_>) -> Result<(), Failure> {
        let World { store, request, .. } = self.world;
        let mut open = |layer: &LayerBlob| open_layer(store, order, layer, &request.listeners.unpacking);
        let Site { place, index, .. } = &mut self.site;
        let is_used = index.subtree(index.root()).any(|id| index.standing(id) != Standing::Foreign);
        if !is_used {
            return Ok(layer::apply(layers, &mut open, &place.root, index, &place.ignored)?);
        }
        let next = layer::describe(layers, &mut open, &place.root, &place.ignored)?;
        next.realize(&mut open, &place.root, index, &place.ignored)?;
        Ok(())
    }

    /// Makes the index say what is on disk, also where the snapshots did not look: their mode may compare little, and some
    /// paths are never part of an image. Says whether all of it is as the image of the stage says.
    fn learn_all(&mut self) -> Result<bool, Error> {
        let places: BTreeSet<ImagePath> = self.site.place.ignored.places_overlooked().collect();
        let candidates = Candidates::Listed { paths: places.clone(), subtrees: places };
        Ok(self.look(candidates)?.is_empty())
    }

    /// Makes the index say what is on disk after something went wrong half-way.
    fn look_everywhere(&mut self) -> Result<(), Error> {
        self.look(Candidates::Everything(LostTrack::NotWatched)).map(drop)
    }

    fn look(&mut self, candidates: Candidates) -> Result<Changeset, Error> {
        let threads = self.world.threads().get();
        let Site { place, index, ctime, sockets, .. } = &mut self.site;
        let collected = Collected { candidates, ctime: *ctime, events: 0, handles_opened: 0 };
        let all = place.ignored.untouchable_only();
        let taken = snapshot::take(collected, SnapshotMode::Full, &place.root, index, &all, threads)?;
        sockets.extend(taken.sockets);
        Ok(taken.changeset)
    }

    /// The files of an image that COPY takes any of, unpacked into a directory of their own.
    pub(super) fn unpack_image(&self, image: &BaseImage) -> Result<Arc<Tree>, StepError> {
        let key = image.remote.manifest_digest.hex();
        let World { store, request, plan, scratch, unpacked, .. } = self.world;
        let unpacked = Arc::clone(lock(&unpacked.0).entry(key.clone()).or_default());
        // another stage that wants the same waits here
        let mut unpacked = lock(&unpacked);
        if let Some(tree) = &*unpacked {
            return Ok(Arc::clone(tree));
        }
        let place = scratch.join("images").join(&key);
        let tree = while_fetching(&self.world, Some(&image.remote), |order| {
            let root = self.new_root(place)?;
            let mut index = RootIndex::new();
            let mut open = |layer: &LayerBlob| open_layer(store, order, layer, &request.listeners.unpacking);
            let mut described = layer::describe(&image.layers, &mut open, &root, &Ignored::new())?;
            described.retain(&needed_by(plan.copies_from_image(image), described.index()));
            described.realize(&mut open, &root, &mut index, &Ignored::new())?;
            Ok::<Tree, Box<dyn StdError + Send + Sync>>(Tree { root, index })
        });
        let name = || image.remote.reference.to_string();
        let tree = Arc::new(tree.map_err(|source| StepError::Image { image: name(), source })?);
        *unpacked = Some(Arc::clone(&tree));
        Ok(tree)
    }

    /// Keeps what later stages copy of the stage `number`, which ends in the root.
    pub(super) fn keep(&mut self, number: usize) -> Result<Option<Tree>, Error> {
        let plan = self.world.plan;
        if number == plan.target {
            return Ok(None);
        }
        let is_as_its_image = self.learn_all()?;
        self.site.remove_sockets()?;
        // whoever is built on it wants all of it, and otherwise nothing need be copied
        let stays = is_as_its_image && plan.is_built_on(number);
        self.site.holds = stays.then_some(number);
        if plan.copies_from(number).next().is_none() {
            return Ok(None);
        }
        let needed = needed_by(plan.copies_from(number).map(|(_, copy)| copy), &self.site.index);
        for path in &needed {
            tracing::info!("Saving file {path} for later use");
        }
        let kept = self.new_root(self.world.scratch.join("stages").join(number.to_string()))?;
        let Site { place, index, .. } = &mut self.site;
        Ok(Some(keep(&needed, stays, &place.root, index, &place.ignored, kept)?))
    }

    /// An empty root at `place`.
    fn new_root(&self, place: PathBuf) -> Result<Root, Error> {
        let cleared = match fs::remove_dir_all(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir_all(&place),
        };
        cleared.map_err(|source| Error::WorkDirectory { path: place.clone(), source })?;
        Ok(Root::open(&place)?.until(self.world.stop.clone()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a root could not be prepared.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
enum Failure {
    /// Its layers could not be put into it.
    Layer(layer::Error),
    /// Its layers could not be fetched.
    Fetch(registry::Error),
}

impl Failure {
    /// May another try help?
    fn may_pass(&self) -> bool {
        match self {
            Failure::Layer(_) => true,
            Failure::Fetch(error) => error.is_temporary(),
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
        Failure::Fetch(error)
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

fn blob(layer: &Layered) -> LayerBlob {
    LayerBlob { descriptor: layer.descriptor.clone(), diff_id: layer.diff_id }
}
