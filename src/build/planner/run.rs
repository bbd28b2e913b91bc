//! RUN -> [`RunStep`].

use super::super::plan::{Action, Image, RunStep};
use super::PlanFault;
use super::steps::StageWork;
use crate::dockerfile::{self, Script, ShellOrExec};
use crate::tree::ImagePath;

impl<I: Image> StageWork<'_, '_, '_, I> {
    pub(super) fn run(&mut self, run: &dockerfile::Run) -> Result<(String, Action<I>), PlanFault> {
        let flags = &run.flags;
        if !flags.mounts.is_empty() {
            return Err(PlanFault::NotSupported(
                "RUN --mount",
                "copy what is needed with COPY, and remove it in the same RUN",
            ));
        }
        if !matches!(flags.network, None | Some(dockerfile::Network::Default)) {
            return Err(PlanFault::NotSupported("RUN --network", "only the default network is there"));
        }
        if !matches!(flags.security, None | Some(dockerfile::Security::Sandbox)) {
            return Err(PlanFault::NotSupported("RUN --security=insecure", "RUN has the rights of this container"));
        }
        if !flags.devices.is_empty() {
            return Err(PlanFault::NotSupported("RUN --device", "RUN sees the devices of this container"));
        }
        let in_shell = |text: String| self.command(&ShellOrExec::Shell(text));
        let (words, script) = match run.script() {
            Script::Exec(words) => (words, None),
            Script::Shell(text) => (in_shell(text), None),
            Script::Program(heredoc) => (in_shell(format!("/dev/pipes/{}", heredoc.name)), Some(heredoc)),
        };
        let created_by = format!("RUN {}{} # buildkit", self.scope.history_prefix(), words.join(" "));
        let mut environment: Vec<(String, String)> = self.scope.in_force().to_vec();
        for (name, value) in self.planner.global.proxies(&self.scope) {
            environment.push((name.into(), value.into()));
        }
        let step = RunStep {
            words,
            environment,
            directory: ImagePath::clean(self.config.working_directory()),
            user: self.config.run().user.clone(),
            script,
        };
        Ok((created_by, Action::Run(Box::new(step))))
    }
}
