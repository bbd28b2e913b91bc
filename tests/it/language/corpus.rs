//! Small Dockerfiles, each planned as the executor plans it, with images that say nothing or what the case says.

use std::error::Error;
use std::fmt::Write;

use kanna::build::{self, Action, Base, CopyFrom, CopySource, Image, Plan, Stage, Step, Wishes};
use kanna::context::git::Revision;
use kanna::dockerfile;
use kanna::image::ImageConfig;
use kanna::oci::Platform;

use super::cases::{self, Case, Outcome};

/// An image of the case.
#[derive(Clone)]
pub struct Known {
    name: String,
    config: ImageConfig,
}

impl Image for Known {
    fn config(&self) -> Option<&ImageConfig> {
        Some(&self.config)
    }
}

#[test]
fn dockerfiles_mean_what_the_reference_says() {
    let mut count = 0;
    for file in cases::files("corpus") {
        let judged: Vec<_> = cases::read(&file).into_iter().map(|case| (outcome(&case), case)).collect();
        count += judged.len();
        let judged: Vec<_> = judged.into_iter().map(|(outcome, case)| (case, outcome)).collect();
        cases::judge(&file, &judged);
    }
    assert!(count >= 150, "{count} cases");
}

/// What comes of a case.
pub fn outcome(case: &Case) -> Outcome {
    match planned(case) {
        Ok(plan) => Outcome { verdict: "planned".into(), text: shown(&plan).trim_end().to_owned() },
        Err(error) => Outcome { verdict: "refused".into(), text: chain(&*error) },
    }
}

fn planned(case: &Case) -> Result<Plan<Known>, Box<dyn Error>> {
    let file = dockerfile::parse(case.dockerfile.as_bytes())?;
    let platform: Platform = "linux/amd64".parse()?;
    let mut build_args = Vec::new();
    let mut target = None;
    for argument in &case.arguments {
        match argument.split_once('=') {
            Some(("--target", name)) => target = Some(name),
            Some((name, value)) => build_args.push((name.to_owned(), value.to_owned())),
            None => return Err(format!("{argument} is no argument of a case").into()),
        }
    }
    let wishes = Wishes { build_args: &build_args, target, platform: &platform, contexts: &[] };
    let plan = build::plan(&file, &wishes, &mut |reference, platform| {
        let name = reference.to_string();
        let short = name.trim_start_matches("docker.io/library/");
        let config = match case.images.iter().find(|(image, _)| short == image || short == format!("{image}:latest")) {
            Some((_, json)) => ImageConfig::parse(json.as_bytes(), short, 0)?,
            None if short.starts_with("missing") => return Err("not found".into()),
            None => ImageConfig::scratch(platform),
        };
        Ok(Known { name: short.to_owned(), config })
    });
    Ok(plan?)
}

/// An error and its causes, as the executor tells them.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.ends_with(&told) {
            text = format!("{text}: {told}");
        }
        cause = error.source();
    }
    text
}

fn shown(plan: &Plan<Known>) -> String {
    let mut text = String::new();
    for stage in plan.needed() {
        show_stage(stage, &mut text).expect("a string takes it");
    }
    if !plan.unused_args.is_empty() {
        text.push_str(&format!("unused {}\n", plan.unused_args.join(" ")));
    }
    text
}

fn show_stage(stage: &Stage<Known>, text: &mut String) -> std::fmt::Result {
    let base = match &stage.base {
        Base::Scratch => "scratch".to_owned(),
        Base::Image(image) => image.name.clone(),
        Base::Stage(number) => format!("stage {number}"),
    };
    writeln!(text, "stage {} on {base} for {}", stage.number, stage.platform)?;
    for step in &stage.steps {
        show_step(step, text)?;
    }
    let mut config = serde_json::to_value(&stage.config).expect("a config is JSON");
    let object = config.as_object_mut().expect("a config is an object");
    for constant in ["architecture", "os", "rootfs", "history"] {
        object.remove(constant);
    }
    writeln!(text, "  {config}")
}

fn show_step(step: &Step<Known>, text: &mut String) -> std::fmt::Result {
    writeln!(text, "  {}", step.created_by.as_deref().unwrap_or("(no history)").replace('\n', "\\n"))?;
    match &step.action {
        Action::ConfigOnly => Ok(()),
        Action::Workdir { directory, user } => writeln!(text, "    directory {directory} of {user:?}"),
        Action::Run(run) => {
            writeln!(text, "    run {:?} in {} as {:?}", run.words, run.directory, run.user)?;
            for (name, value) in run.environment.iter().filter(|(name, _)| name != "PATH") {
                writeln!(text, "      {name}={value}")?;
            }
            match &run.script {
                Some(script) => writeln!(text, "      {:?} is {:?}", script.name, script.content),
                None => Ok(()),
            }
        }
        Action::Copy(copy) => {
            let from = match &copy.from {
                CopyFrom::Context => "the context".to_owned(),
                CopyFrom::Named(number) => format!("named context {number}"),
                CopyFrom::Stage(number) => format!("stage {number}"),
                CopyFrom::Image(image) => image.name.clone(),
            };
            write!(text, "    copy from {from}")?;
            for source in &copy.sources {
                match source {
                    CopySource::Path(path) => write!(text, " {path:?}")?,
                    CopySource::Url { address, .. } => write!(text, " {address}")?,
                    CopySource::Repository(repository) => {
                        write!(text, " repository {}", repository.address)?;
                        if repository.revision != Revision::Default {
                            write!(text, " at {:?}", repository.revision)?;
                        }
                        if let Some(directory) = &repository.directory {
                            write!(text, " its {directory:?}")?;
                        }
                    }
                    CopySource::Inline { name, content } => write!(text, " {name:?}={content:?}")?,
                }
            }
            write!(text, " to {:?} in {}", copy.destination, copy.working_directory)?;
            for (flag, is_set) in [("link", copy.link), ("parents", copy.parents)] {
                if is_set {
                    write!(text, " {flag}")?;
                }
            }
            match &copy.owner {
                Some(owner) => writeln!(text, " owner {owner:?}"),
                None => writeln!(text),
            }
        }
    }
}
