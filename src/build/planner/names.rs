//! What does a name mean: a named context, a stage, or an image?

use std::collections::HashMap;

use super::super::plan::Image;
use super::super::request::{NamedContext, NamedSource};
use super::{PlanError, PlanFault, Planner};
use crate::dockerfile::{Dockerfile, nearest};
use crate::oci::{Platform, parse_reference};
use crate::registry::ImagePlace;

/// So many stages before the one at hand are looked at for a name that may have been meant: comparing costs far more than
/// planning, and nobody remembers further back.
const STAGES_COMPARED: usize = 100;

/// What names mean in a Dockerfile, looked up in a time that does not grow with the stages.
pub(super) struct Names<'a> {
    file: &'a Dockerfile,
    contexts: &'a [NamedContext],
    /// The stages of each name, the first one first.
    stages: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Names<'a> {
    pub(super) fn new(file: &'a Dockerfile, contexts: &'a [NamedContext]) -> Names<'a> {
        let mut stages: HashMap<&str, Vec<usize>> = HashMap::new();
        for (number, stage) in file.stages.iter().enumerate() {
            if let Some(name) = &stage.from.value.name {
                stages.entry(name).or_default().push(number);
            }
        }
        Names { file, contexts, stages }
    }

    /// The names of all stages that have one.
    pub(super) fn of_stages(&self) -> Vec<String> {
        self.file.stages.iter().filter_map(|stage| stage.from.value.name.clone()).collect()
    }

    /// The stage that becomes the image; the last one if none is named.
    pub(super) fn target(&self, target: Option<&str>) -> Result<usize, PlanError> {
        let Some(target) = target else { return Ok(self.file.stages.len() - 1) };
        let by_name = self.stages.get(&*target.to_lowercase()).and_then(|numbers| numbers.last());
        by_name.copied().ok_or_else(|| {
            let known = self.of_stages();
            let nearest = nearest(target, known.iter().map(String::as_str)).map(String::from);
            let source = PlanFault::UnknownStage { name: target.into(), known, nearest };
            PlanError { line: 0, text: format!("--target={target}"), source }
        })
    }

    /// The named context that stands for `name`, whatever else has that name.
    fn context(&self, name: &str) -> Option<(usize, &'a NamedSource)> {
        if self.contexts.is_empty() || name == "scratch" {
            return None;
        }
        let reference = parse_reference(name).ok()?;
        let mut contexts = self.contexts.iter().enumerate();
        contexts.rfind(|(_, context)| context.name == reference).map(|(number, context)| (number, &context.source))
    }

    /// The same, if it has files.
    pub(super) fn files(&self, name: &str) -> Option<usize> {
        self.context(name)
            .filter(|(_, source)| matches!(source, NamedSource::Files(_) | NamedSource::Repository(_)))
            .map(|(number, _)| number)
    }

    /// The stage before `number` that is called `name`; the last one, if several are.
    pub(super) fn earlier_stage(&self, name: &str, number: usize) -> Option<usize> {
        if self.context(name).is_some() {
            return None;
        }
        let numbers = self.stages.get(&*name.to_lowercase())?;
        let earlier = numbers.partition_point(|one| *one < number);
        earlier.checked_sub(1).map(|last| numbers[last])
    }

    /// The stage that `--from=` in stage `number` means, if it means one.
    pub(super) fn stage_to_copy_from(&self, from: &str, number: usize) -> Result<Option<usize>, PlanFault> {
        if from.contains('$') {
            return Err(PlanFault::VariableInFrom(from.into()));
        }
        if self.context(from).is_some() {
            return Ok(None);
        }
        if let Some(stage) = self.earlier_stage(from, number) {
            return Ok(Some(stage));
        }
        if let Ok(index) = from.parse::<usize>() {
            return if index < number { Ok(Some(index)) } else { Err(PlanFault::LaterStage(from.into())) };
        }
        // of its stages, none comes before
        if self.stages.contains_key(&*from.to_lowercase()) {
            return Err(PlanFault::LaterStage(from.into()));
        }
        Ok(None)
    }

    /// The stage before `number` whose name is most like `name`, and is not that.
    fn nearest_stage(&self, name: &str, number: usize) -> Option<String> {
        let stages = &self.file.stages[number.saturating_sub(STAGES_COMPARED)..number];
        let names = stages.iter().filter_map(|stage| stage.from.value.name.as_deref());
        nearest(name, names).filter(|stage| *stage != name).map(str::to_owned)
    }
}

impl<I: Image> Planner<'_, '_, I> {
    /// The image that stage `number` names.
    pub(super) fn image(&mut self, name: &str, platform: &Platform, number: usize) -> Result<I, PlanFault> {
        if I::IS_SOUGHT {
            tracing::info!("Retrieving image manifest {name}");
        }
        let reference = || parse_reference(name).map_err(|source| PlanFault::Reference { name: name.into(), source });
        let place = match self.names.context(name) {
            Some((_, NamedSource::Image(image))) => ImagePlace::Registry(image.clone()),
            Some((_, NamedSource::Layout(place))) => ImagePlace::Layout { place: place.clone(), name: reference()? },
            _ => ImagePlace::Registry(reference()?),
        };
        let image = match (self.find)(&place, platform) {
            Ok(image) => image,
            Err(source) => {
                let nearest = self.names.nearest_stage(name, number);
                return Err(PlanFault::Base { name: name.into(), nearest, source });
            }
        };
        if image.config().is_none()
            && let Some(stage) = self.names.nearest_stage(name, number)
        {
            tracing::warn!("no stage before is called {name:?}, so that it is an image: did you mean {stage}?");
        }
        Ok(image)
    }
}
