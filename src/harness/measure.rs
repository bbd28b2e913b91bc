//! One build, measured.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Error;
use super::cgroup::{Cgroup, Cpu};
use super::command::{command_line, end_of};
use super::interrupt::Interrupts;

/// How often the memory is looked at. The kernel keeps the peak, so only what a process does in its last moment is
/// missed.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long an engine may take to clear away a container that was ended.
const ENGINE_PATIENCE: Duration = Duration::from_secs(20);

/// What one build cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    pub(super) wall_seconds: f64,
    pub(super) cpu: Cpu,
    /// The highest VmHWM of the builder's processes.
    pub(super) peak_bytes: u64,
}

/// Runs `command` until it ends, in the cgroup or starting something in it. Its output goes to a file in `state`.
pub(super) fn measure(
    mut command: Command,
    cgroup: &Cgroup,
    process: &str,
    state: &Path,
    limit: Duration,
    interrupts: &Interrupts,
) -> Result<Cost, Error> {
    let path = state.join("output");
    let output = File::create(&path).map_err(|source| Error::file("create", &path, source))?;
    let second = output.try_clone().map_err(|source| Error::file("share", &path, source))?;
    command.stdin(Stdio::null()).stdout(output).stderr(second);
    let line = command_line(&command);
    let started = Instant::now();
    let child = command.spawn();
    let mut child = child.map_err(|source| Error::Start { program: line.clone(), source })?;
    let mut peak_bytes = 0;
    let mut interrupted = Ok(());
    let mut given_up = None;
    let status = loop {
        peak_bytes = peak_bytes.max(cgroup.peak_of(process));
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) => {}
            Err(source) => break Err(Error::Start { program: line.clone(), source }),
        }
        interrupted = interrupted.and_then(|()| interrupts.check());
        if started.elapsed() > limit || interrupted.is_err() {
            let since = given_up.get_or_insert_with(Instant::now);
            cgroup.kill();
            // an engine outside the cgroup sees its container end, and clears it away
            if since.elapsed() > ENGINE_PATIENCE {
                // it may have ended meanwhile
                drop(child.kill());
            }
        }
        thread::sleep(LOOK_EVERY);
    }?;
    interrupted?;
    let wall_seconds = started.elapsed().as_secs_f64();
    let is_late = given_up.is_some();
    if !status.success() || is_late {
        let output = fs::read(&path).map_err(|source| Error::file("read", &path, source))?;
        let output = end_of(&String::from_utf8_lossy(&output));
        return Err(Error::Command { command: line, ending: ending(status, is_late, limit), output });
    }
    if peak_bytes == 0 {
        return Err(Error::Needs { what: format!("{line}: no process was called {process:?}, so none was measured") });
    }
    Ok(Cost { wall_seconds, cpu: cgroup.cpu()?, peak_bytes })
}

fn ending(status: ExitStatus, is_late: bool, limit: Duration) -> String {
    if is_late { format!("ended after {} seconds", limit.as_secs()) } else { status.to_string() }
}
