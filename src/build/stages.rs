//! All stages of a plan: each when those that it needs are done, several at the same time where there is room.
//!
//! Nothing of the image depends on how many, or on who is first. When one cannot be built, the others are stopped, and the
//! error is the one that came first: what follows from being stopped is nobody's error.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::resume_unwind;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::{self, Scope, ScopedJoinHandle};

use super::error::Error;
use super::kept::Tree;
use super::place::Places;
use super::plan::{Base, Stage};
use super::schedule::{Needs, Schedule, may_overlap};
use super::site::Site;
use super::stage::{Beginning, Builder, Done, Finished, World};
use crate::image::{Format, ImageConfig, Layered};

/// What the main thread has: trees can be deep.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// The target stage's result.
pub(super) struct TargetImage {
    pub(super) config: ImageConfig,
    pub(super) layers: Vec<Layered>,
    pub(super) format: Format,
}

/// Builds all stages, beginning on `first` and on more sites as they are needed; the target's image is what is left.
pub(super) fn build(world: World<'_>, places: &Places, first: Site) -> Result<TargetImage, Error> {
    let needs: Needs = world.plan.needed().map(|stage| (stage.number, world.plan.needs(stage))).collect();
    let most = places.most_at_once(world.request.jobs);
    let mut stages = Stages {
        world,
        places,
        most,
        has_labels: most > 1 && may_overlap(&needs),
        sites: 1,
        idle: vec![first],
        finished: BTreeMap::new(),
        kept: BTreeMap::new(),
    };
    stages.build_all(Schedule::new(&needs, most))?;
    let target = stages.finished.remove(&world.plan.target).expect("the target is among the needed stages");
    let mut config = stages.stage(world.plan.target).config.clone();
    config.history = target.history;
    config.created = Some(world.now_text());
    let run = config.config.get_or_insert_default();
    run.labels.extend(world.request.labels.clone());
    Ok(TargetImage { config, layers: target.layers, format: target.format })
}

/// The stages of a plan, while they are built.
struct Stages<'a> {
    world: World<'a>,
    places: &'a Places,
    /// How many are at work at most.
    most: usize,
    /// Do lines of the log say of which stage they are?
    has_labels: bool,
    /// How many sites there are.
    sites: usize,
    /// Those on which nothing is being built.
    idle: Vec<Site>,
    finished: BTreeMap<usize, Finished>,
    /// What others copy of finished stages.
    kept: BTreeMap<usize, Arc<Tree>>,
}

/// Tells that a stage is over, however it ended.
struct Over {
    stage: usize,
    tell: mpsc::Sender<usize>,
}

impl Drop for Over {
    fn drop(&mut self) {
        // whoever does not listen has ended with a panic
        let _ = self.tell.send(self.stage);
    }
}

impl<'a> Stages<'a> {
    fn build_all(&mut self, mut schedule: Schedule) -> Result<(), Error> {
        thread::scope(|scope| {
            let (tell, over) = mpsc::channel();
            let mut at_work = BTreeMap::new();
            let mut failure = None;
            loop {
                while let Some(stage) = schedule.begin() {
                    match self.begin(stage, scope, &tell) {
                        Ok(handle) => drop(at_work.insert(stage, handle)),
                        Err(error) => {
                            schedule.failed();
                            self.stop();
                            failure.get_or_insert(error);
                        }
                    }
                }
                self.forget();
                if at_work.is_empty() {
                    return failure.map_or(Ok(()), Err);
                }
                let stage = over.recv().expect("whoever is at work tells when it is over");
                let handle = at_work.remove(&stage).expect("it was begun");
                let ended = handle.join().unwrap_or_else(|panic| {
                    self.stop();
                    resume_unwind(panic)
                });
                self.world.at_work.fetch_sub(1, Ordering::Relaxed);
                match ended {
                    Ok(done) => {
                        self.note(stage, done);
                        schedule.done(stage);
                    }
                    Err(error) => {
                        schedule.failed();
                        self.stop();
                        failure.get_or_insert(error);
                    }
                }
            }
        })
    }

    /// Begins to build a stage, on a thread of its own.
    fn begin<'scope>(
        &mut self,
        stage: usize,
        scope: &'scope Scope<'scope, '_>,
        tell: &mpsc::Sender<usize>,
    ) -> Result<ScopedJoinHandle<'scope, Result<Done, Error>>, Error>
    where
        'a: 'scope,
    {
        let stage = self.stage(stage);
        let site = self.site_for(stage)?;
        let label = self.has_labels.then(|| self.world.plan.label(stage));
        let builder = Builder::new(self.world, site, self.sources(stage), label);
        let beginning = self.beginning(stage);
        let over = Over { stage: stage.number, tell: tell.clone() };
        let build = move || {
            let _over = over;
            builder.build(stage, beginning)
        };
        let thread = thread::Builder::new().name(format!("stage-{}", stage.number)).stack_size(STACK_BYTES);
        let handle = thread.spawn_scoped(scope, build).map_err(|source| Error::StageThread { source })?;
        self.world.at_work.fetch_add(1, Ordering::Relaxed);
        Ok(handle)
    }

    /// Ends what is being built: nobody wants it any longer.
    fn stop(&self) {
        self.world.stop.ask();
        // where a signal asked us to end, the commands have heard of it, and have a while to end by themselves
        if self.world.supervisor.was_stopped().is_none() {
            self.world.supervisor.give_up();
        }
    }

    fn stage(&self, number: usize) -> &'a Stage {
        self.world.plan.stages[number].as_ref().expect("only needed stages are spoken of")
    }

    /// A site for a stage, best the one that holds what it is built on.
    fn site_for(&mut self, stage: &Stage) -> Result<Site, Error> {
        let below = self.world.plan.stage_below(stage);
        let that_holds = |held| self.idle.iter().position(|site| site.holds == held);
        let found = below.and_then(|below| that_holds(Some(below))).or_else(|| that_holds(None));
        if let Some(found) = found {
            return Ok(self.idle.remove(found));
        }
        if self.sites < self.most {
            let site = Site::survey(self.places.prepare(self.sites)?, self.world.request, self.most)?;
            self.sites += 1;
            return Ok(site);
        }
        // what it holds is made again for whoever is built on it
        Ok(self.idle.pop().expect("as many sites as stages at work"))
    }

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
        let copied_from = |kept: usize| self.world.plan.copies_from(kept).any(|(reader, _)| reader == stage.number);
        let kept = self.kept.iter().filter(|(number, _)| copied_from(**number));
        kept.map(|(number, tree)| (*number, Arc::clone(tree))).collect()
    }

    /// Notes what a stage left.
    fn note(&mut self, stage: usize, done: Done) {
        self.finished.insert(stage, done.finished);
        self.kept.extend(done.kept.map(|tree| (stage, Arc::new(tree))));
        self.idle.push(done.site);
    }

    /// Removes the files of stages from which all that copy are finished.
    fn forget(&mut self) {
        let (plan, finished) = (self.world.plan, &self.finished);
        let is_over = |kept: &usize| plan.copies_from(*kept).all(|(reader, _)| finished.contains_key(&reader));
        let over: BTreeSet<usize> = self.kept.keys().copied().filter(is_over).collect();
        for stage in over {
            let place = self.kept.remove(&stage).map(|tree| tree.root.place().to_path_buf());
            if let Some(Err(error)) = place.map(fs::remove_dir_all) {
                tracing::debug!("the files of stage {stage} stay in the work directory: {error}");
            }
        }
    }
}
