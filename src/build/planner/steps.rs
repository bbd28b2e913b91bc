//! Instruction -> [`Step`].

use super::super::metadata::{BadValue, StageConfig};
use super::super::plan::{Action, Image, Step};
use super::super::variables::StageScope;
use super::{PlanFault, Planner};
use crate::dockerfile::{self, Fault, Instruction, Located, ShellOrExec, expand};
use crate::image;
use crate::oci::Platform;
use crate::tree::ImagePath;

/// The stage whose steps are being planned.
pub(super) struct StageWork<'p, 'a, 'f, I> {
    pub(super) planner: &'p mut Planner<'a, 'f, I>,
    pub(super) number: usize,
    pub(super) config: StageConfig,
    pub(super) scope: StageScope,
    pub(super) platform: Platform,
}

impl<I: Image> StageWork<'_, '_, '_, I> {
    /// `None` where the step cannot be made of what is known of the base image.
    pub(super) fn step(&mut self, instruction: &Located<Instruction>) -> Result<Option<Step<I>>, PlanFault> {
        self.scope.take_guess();
        let (created_by, action) = match self.action(&instruction.value) {
            Ok(planned) => planned,
            Err(_) if self.scope.take_guess() => return Ok(None),
            Err(fault) => return Err(fault),
        };
        let created_by = (!matches!(instruction.value, Instruction::OnBuild(_))).then_some(created_by);
        Ok(Some(Step { line: instruction.line, text: instruction.text.clone(), created_by, action }))
    }

    pub(super) fn word(&self, text: &str) -> Result<String, Fault> {
        expand::word(text, &|name| self.scope.value(name), self.planner.file.escape)
    }

    pub(super) fn words(&self, texts: &[String]) -> Result<Vec<String>, Fault> {
        texts.iter().map(|text| self.word(text)).collect()
    }

    fn pairs(&self, pairs: &[(String, String)]) -> Result<Vec<(String, String)>, Fault> {
        pairs.iter().map(|(name, value)| Ok((self.word(name)?, self.word(value)?))).collect()
    }

    /// Applies an instruction to the config; what is left to do with files comes back, with the history's text.
    fn action(&mut self, instruction: &Instruction) -> Result<(String, Action<I>), PlanFault> {
        let text = match instruction {
            Instruction::Run(run) => return self.run(run),
            Instruction::Copy(copy) => return self.copy("COPY", copy),
            Instruction::Add(copy) => return self.copy("ADD", copy),
            Instruction::Workdir(text) => return self.workdir(text),
            Instruction::Env(pairs) => {
                let pairs = self.pairs(pairs)?;
                for (name, value) in &pairs {
                    self.scope.set(name, value.clone());
                }
                self.config.env(&pairs)
            }
            Instruction::Label(pairs) => {
                let pairs = self.pairs(pairs)?;
                self.config.label(&pairs)
            }
            Instruction::Arg(args) => {
                let mut texts = Vec::new();
                for arg in args {
                    let default = arg.default.as_ref().map(|text| self.word(text)).transpose()?;
                    texts.push(self.scope.declare(&arg.name, default, &mut self.planner.global));
                }
                format!("ARG {}", texts.join(" "))
            }
            Instruction::Cmd(command) => {
                let words = self.command(command);
                self.config.cmd(words)
            }
            Instruction::Entrypoint(command) => {
                let words = self.command(command);
                self.config.entrypoint(words)
            }
            Instruction::Shell(words) => self.config.set_shell(words.clone()),
            Instruction::User(text) => {
                let user = self.word(text)?;
                self.config.user(user)?
            }
            Instruction::Expose(texts) => {
                let mut words = Vec::new();
                for text in texts {
                    words.extend(expand::words(text, &|name| self.scope.value(name), self.planner.file.escape)?);
                }
                self.config.expose(&words)?
            }
            Instruction::Volume(texts) => {
                let places = self.words(texts)?;
                self.config.volume(places)?
            }
            Instruction::StopSignal(text) => {
                let signal = self.word(text)?;
                self.config.stop_signal(signal)?
            }
            Instruction::Healthcheck(check) => self.config.healthcheck(healthcheck(check)),
            Instruction::OnBuild(trigger) => self.config.on_build(trigger.clone()),
            Instruction::Maintainer(name) => self.config.maintainer(name.clone()),
        };
        Ok((text, Action::ConfigOnly))
    }

    pub(super) fn command(&self, command: &ShellOrExec) -> Vec<String> {
        match command {
            ShellOrExec::Exec(words) => words.clone(),
            ShellOrExec::Shell(text) => {
                let mut words = self.config.shell();
                words.push(text.clone());
                words
            }
        }
    }

    fn workdir(&mut self, text: &str) -> Result<(String, Action<I>), PlanFault> {
        let text = self.word(text)?;
        if text.is_empty() {
            return Err(BadValue::Empty("WORKDIR").into());
        }
        let directory = ImagePath::clean(self.config.working_directory()).resolve(&text);
        // BuildKit keeps an absolute path as it is written
        let kept = match text.starts_with('/') {
            true => text,
            false => String::from_utf8_lossy(directory.as_bytes()).into_owned(),
        };
        let created_by = self.config.workdir(kept);
        let user = self.config.run().user.clone();
        Ok((created_by, Action::Workdir { directory, user }))
    }
}

fn healthcheck(check: &dockerfile::Healthcheck) -> image::Healthcheck {
    match check {
        dockerfile::Healthcheck::None => {
            image::Healthcheck { test: vec!["NONE".into()], ..image::Healthcheck::default() }
        }
        dockerfile::Healthcheck::Cmd { command, flags } => {
            let test = match command {
                ShellOrExec::Shell(text) => vec!["CMD-SHELL".into(), text.clone()],
                ShellOrExec::Exec(words) => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
            };
            image::Healthcheck {
                test,
                interval: flags.interval,
                timeout: flags.timeout,
                start_period: flags.start_period,
                start_interval: flags.start_interval,
                retries: flags.retries,
                ..image::Healthcheck::default()
            }
        }
    }
}
