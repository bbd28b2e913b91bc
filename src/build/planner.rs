//! Dockerfile -> [`Plan`].

mod copy;
mod error;
mod names;
mod run;
mod steps;

pub use error::{PlanError, PlanFault};

use std::mem;

use error::{at, in_trigger};
use names::Names;
use steps::StageWork;

use super::metadata::StageConfig;
use super::plan::{Base, Image, Plan, Stage, Step};
use super::request::NamedContext;
use super::variables::{GlobalScope, StageScope};
use crate::dockerfile::expand::{self, Expander, Expansion};
use crate::dockerfile::{self, Dockerfile, ExpandError, Fault, Instruction, Located, nearest};
use crate::image::ImageConfig;
use crate::oci::{BadPlatform, Platform, parse_reference};
use crate::registry::ImagePlace;

/// Finds an image.
pub type Find<'a, I> = dyn FnMut(&ImagePlace, &Platform) -> Result<I, BoxError> + 'a;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the command line says.
pub struct Wishes<'a> {
    /// Build arguments; a later one wins.
    pub build_args: &'a [(String, String)],
    /// The stage that becomes the image; the last one if none is named.
    pub target: Option<&'a str>,
    /// The platform of bases that name none.
    pub platform: &'a Platform,
    /// Contexts that stand for images and stages of their name.
    pub contexts: &'a [NamedContext],
}

/// Plans the stages that the target needs; images of others are not even looked for.
pub fn plan<I: Image>(file: &Dockerfile, wishes: &Wishes<'_>, find: &mut Find<'_, I>) -> Result<Plan<I>, PlanError> {
    let names = Names::new(file, wishes.contexts);
    let target = names.target(wishes.target)?;
    let target_name = file.stages[target].from.value.name.clone().unwrap_or_else(|| "default".to_owned());
    let mut global = GlobalScope::new(wishes.build_args, wishes.platform, &target_name);
    for args in &file.global_args {
        for arg in &args.value {
            let lookup = |name: &str| global.value(name);
            let default = arg.default.as_ref().map(|text| expand::word(text, &lookup, file.escape)).transpose();
            let default = default.map_err(|fault| at(args, fault.into()))?;
            global.declare(&arg.name, default);
        }
    }
    let stages = file.stages.iter().map(|_| Progress::Untouched).collect();
    let mut planner = Planner { file, wishes, names, find, global, stages };
    planner.plan_for(target)?;
    let unused_args = planner.global.unused().into_iter().map(String::from).collect();
    let stages = planner.stages.into_iter().map(|stage| match stage {
        Progress::Planned(stage, _) => Some(*stage),
        _ => None,
    });
    Ok(Plan { stages: stages.collect(), target, unused_args })
}

struct Planner<'a, 'f, I> {
    file: &'a Dockerfile,
    wishes: &'a Wishes<'a>,
    names: Names<'a>,
    find: &'a mut Find<'f, I>,
    global: GlobalScope,
    stages: Vec<Progress<I>>,
}

/// How far a stage is.
enum Progress<I> {
    /// Nothing needed it so far.
    Untouched,
    /// It waits for other stages.
    Begun(Begun<I>),
    /// It is planned; the variables in force at its end are those that a stage on it begins with.
    Planned(Box<Stage<I>>, StageScope),
}

/// A stage whose base is known.
struct Begun<I> {
    base_name: String,
    base: Base<I>,
    /// The named context whose files it begins with.
    files: Option<usize>,
    platform: Platform,
    /// The ONBUILD triggers of its base.
    triggers: Vec<(String, Located<Instruction>)>,
}

impl<I: Image> Planner<'_, '_, I> {
    /// Plans a stage, those it is made of first. Which they are shows only once its base image is found: the triggers of
    /// that may copy from stages too.
    fn plan_for(&mut self, target: usize) -> Result<(), PlanError> {
        let mut open = vec![target];
        while let Some(&number) = open.last() {
            match mem::replace(&mut self.stages[number], Progress::Untouched) {
                Progress::Untouched => {
                    let begun = self.begin(number)?;
                    open.extend(self.made_of(number, &begun)?.into_iter().rev());
                    self.stages[number] = Progress::Begun(begun);
                }
                Progress::Begun(begun) => {
                    let (stage, scope) = self.stage(number, begun)?;
                    self.stages[number] = Progress::Planned(Box::new(stage), scope);
                    open.pop();
                }
                planned @ Progress::Planned(..) => {
                    self.stages[number] = planned;
                    open.pop();
                }
            }
        }
        Ok(())
    }

    /// The stages, all of them earlier ones, that a stage begins with or copies from.
    fn made_of(&self, number: usize, begun: &Begun<I>) -> Result<Vec<usize>, PlanError> {
        let source = &self.file.stages[number];
        let mut found = Vec::new();
        if let Base::Stage(base) = begun.base {
            found.push(base);
        }
        let copied_from = |instruction: &Instruction| match instruction {
            Instruction::Copy(copy) => copy.flags.from.as_ref().map(|from| self.names.stage_to_copy_from(from, number)),
            _ => None,
        };
        for (text, trigger) in &begun.triggers {
            let failed = |fault| at(&source.from, in_trigger(&begun.base_name, text, fault));
            found.extend(copied_from(&trigger.value).transpose().map_err(failed)?.flatten());
        }
        for instruction in &source.instructions {
            let failed = |fault| at(instruction, fault);
            found.extend(copied_from(&instruction.value).transpose().map_err(failed)?.flatten());
        }
        Ok(found)
    }

    fn expand_global(&self, text: &str) -> Result<Expansion, ExpandError> {
        Expander::new(&|name| self.global.value(name), self.file.escape).expand(text)
    }

    /// What is left of a FROM is wrong since a variable has no value.
    fn unset(&self, name: &str, left: &str) -> PlanFault {
        let nearest = nearest(name, self.global.names()).map(str::to_owned);
        PlanFault::Unset { name: name.to_owned(), left: left.to_owned(), nearest }
    }

    /// Finds out what a stage begins with.
    fn begin(&mut self, number: usize) -> Result<Begun<I>, PlanError> {
        let source = &self.file.stages[number];
        let failed = |fault| at(&source.from, fault);
        let text = &source.from.value.image;
        let expand = |text: &str| self.expand_global(text).map_err(|error| failed(Fault::from(error).into()));
        let Expansion { text: base_name, unset, .. } = expand(text)?;
        if base_name.is_empty() {
            return Err(failed(PlanFault::BlankBase(text.clone())));
        }
        if let (Some(name), Err(_)) = (unset.first(), parse_reference(&base_name)) {
            return Err(failed(self.unset(name, &base_name)));
        }
        let platform = match &source.from.value.platform {
            None => self.wishes.platform.clone(),
            Some(text) => {
                let Expansion { text, unset, .. } = expand(text)?;
                text.parse().map_err(|error: BadPlatform| match unset.first() {
                    Some(name) => failed(self.unset(name, &text)),
                    None => failed(error.into()),
                })?
            }
        };
        let files = self.names.files(&base_name);
        let base = match self.names.earlier_stage(&base_name, number) {
            Some(stage) => Base::Stage(stage),
            None if base_name == "scratch" || files.is_some() => Base::Scratch,
            None => Base::Image(self.image(&base_name, &platform, number).map_err(failed)?),
        };
        let triggers = match &base {
            Base::Scratch => Vec::new(),
            Base::Image(image) => image.config().map(|config| config.run_config().on_build).unwrap_or_default(),
            Base::Stage(stage) => self.file.stages[*stage].triggers().map(str::to_owned).collect(),
        };
        let parsed = |text: String| match dockerfile::parse_trigger(&text) {
            Ok(trigger) => Ok((text, trigger)),
            Err(error) => Err(failed(in_trigger(&base_name, &text, (*error.fault).into()))),
        };
        let triggers = triggers.into_iter().map(parsed).collect::<Result<_, _>>()?;
        Ok(Begun { base_name, base, files, platform, triggers })
    }

    /// Plans a stage whose base is known, and that is made of planned ones.
    fn stage(&mut self, number: usize, begun: Begun<I>) -> Result<(Stage<I>, StageScope), PlanError> {
        let source = &self.file.stages[number];
        let Begun { base_name, base, files, platform, triggers } = begun;
        let (base_config, inherited) = match &base {
            Base::Scratch => (ImageConfig::scratch(&platform), None),
            Base::Image(image) => match image.config() {
                Some(config) => (config.clone(), None),
                None => (ImageConfig::scratch(&platform), Some(StageScope::unseen())),
            },
            Base::Stage(base) => {
                let (base, scope) = self.planned(*base);
                (base.config.clone(), Some(scope.clone()))
            }
        };
        let config = StageConfig::new(base_config, &platform);
        let scope = inherited.unwrap_or_else(|| StageScope::from_environment(&config.image.run_config().env));
        let mut work = StageWork { planner: self, number, config, scope, platform };
        let mut steps: Vec<Step<I>> = files.map(|files| copy::all_of(files, &source.from)).into_iter().collect();
        for (text, trigger) in &triggers {
            let failed = |fault| at(&source.from, in_trigger(&base_name, text, fault));
            let step = work.step(trigger).map_err(failed)?;
            let text = format!("ONBUILD {}", trigger.text);
            steps.extend(step.map(|step| Step { line: source.from.line, text, ..step }));
        }
        for instruction in &source.instructions {
            steps.extend(work.step(instruction).map_err(|fault| at(instruction, fault))?);
        }
        let StageWork { config, scope, platform, .. } = work;
        let config = config.image;
        let name = source.from.value.name.clone();
        Ok((Stage { number, name, base_name, base, steps, triggers: triggers.len(), config, platform }, scope))
    }

    fn planned(&self, number: usize) -> (&Stage<I>, &StageScope) {
        match &self.stages[number] {
            Progress::Planned(stage, scope) => (stage, scope),
            _ => unreachable!("a stage is planned after those that it is made of"),
        }
    }
}

#[cfg(test)]
mod tests;
