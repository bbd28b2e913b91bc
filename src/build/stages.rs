//! All stages of a plan, one after another.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use super::error::Error;
use super::kept::Tree;
use super::plan::{Base, Stage};
use super::site::Site;
use super::stage::{Beginning, Builder, Done, Finished, World};
use crate::image::{Format, ImageConfig, Layered};

/// The target stage's result.
pub(super) struct TargetImage {
    pub(super) config: ImageConfig,
    pub(super) layers: Vec<Layered>,
    pub(super) format: Format,
}

/// Builds all stages, on `site`; the target's image is what is left.
pub(super) fn build(world: World<'_>, site: Site) -> Result<TargetImage, Error> {
    let mut stages = Stages { world, finished: BTreeMap::new(), kept: BTreeMap::new() };
    let mut site = site;
    for stage in world.plan.needed() {
        let builder = Builder::new(world, site, stages.sources(stage));
        let done = builder.build(stage, stages.beginning(stage))?;
        site = stages.note(stage.number, done);
        stages.forget();
    }
    let target = stages.finished.remove(&world.plan.target).expect("the target is among the needed stages");
    let stage = world.plan.stages[world.plan.target].as_ref().expect("the target is planned");
    let mut config = stage.config.clone();
    config.history = target.history;
    config.created = Some(world.now_text());
    let run = config.config.get_or_insert_default();
    run.labels.extend(world.request.labels.clone());
    Ok(TargetImage { config, layers: target.layers, format: target.format })
}

/// What finished stages left.
struct Stages<'a> {
    world: World<'a>,
    finished: BTreeMap<usize, Finished>,
    /// What others copy of them.
    kept: BTreeMap<usize, Arc<Tree>>,
}

impl Stages<'_> {
    /// What the image of a stage begins with.
    fn beginning(&self, stage: &Stage) -> Beginning {
        match &stage.base {
            Base::Scratch => Beginning::Scratch,
            Base::Image(image) => Beginning::Image(Arc::clone(image)),
            Base::Stage(number) => {
                Beginning::Stage(self.finished.get(number).expect("a base is built before the stages on it").clone())
            }
        }
    }

    /// The files that a stage copies from.
    fn sources(&self, stage: &Stage) -> BTreeMap<usize, Arc<Tree>> {
        let plan = self.world.plan;
        let copied_from = |number: &usize| plan.copies_from(*number).any(|(reader, _)| reader == stage.number);
        self.kept
            .iter()
            .filter(|(number, _)| copied_from(number))
            .map(|(number, tree)| (*number, Arc::clone(tree)))
            .collect()
    }

    /// Notes what a stage left; gives the site that it leaves.
    fn note(&mut self, number: usize, done: Done) -> Site {
        self.finished.insert(number, done.finished);
        self.kept.extend(done.kept.map(|tree| (number, Arc::new(tree))));
        done.site
    }

    /// Removes the files of stages from which all that copy are finished.
    fn forget(&mut self) {
        let (plan, finished) = (self.world.plan, &self.finished);
        let is_over = |kept: &usize| plan.copies_from(*kept).all(|(reader, _)| finished.contains_key(&reader));
        let over: Vec<usize> = self.kept.keys().copied().filter(is_over).collect();
        for stage in over {
            let place = self.kept.remove(&stage).map(|tree| tree.root.place().to_path_buf());
            if let Some(Err(error)) = place.map(fs::remove_dir_all) {
                tracing::debug!("the files of stage {stage} stay in the work directory: {error}");
            }
        }
    }
}
