//! [`Cgroup`]: counts the CPU time of all that ever ran in it, or its memory, with version 1 and version 2.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use rustix::process::{Pid, Signal, kill_process};

use super::Error;

/// Where cgroups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// How long we wait for processes that were killed.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// What a group is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// It counts CPU time.
    Cpu,
    /// It counts memory, and limits it.
    Memory,
}

impl Controller {
    /// The hierarchy of version 1, which has one for each controller.
    fn hierarchy(self) -> &'static str {
        match self {
            Controller::Cpu => "cpuacct",
            Controller::Memory => "memory",
        }
    }
}

/// CPU time in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cpu {
    /// Outside the kernel.
    pub(super) user: f64,
    /// In the kernel.
    pub(super) system: f64,
}

/// A cgroup of our own; gone when it is dropped.
pub struct Cgroup {
    /// Its path below the mount of its hierarchy, without `/` in front.
    pub name: String,
    pub(super) folder: PathBuf,
    pub(super) is_v1: bool,
    mount: PathBuf,
}

impl Cgroup {
    /// An empty group; `label` tells it from the others of this process.
    pub fn create(controller: Controller, label: &str) -> Result<Cgroup, Error> {
        Cgroup::create_below(Path::new(MOUNT), controller, label)
    }

    pub(super) fn create_below(mount: &Path, controller: Controller, label: &str) -> Result<Cgroup, Error> {
        let name = format!("kanna-harness-{}-{label}", process::id());
        let v1 = mount.join(controller.hierarchy());
        let is_v1 = v1.is_dir();
        if !is_v1 && controller == Controller::Memory {
            // CPU time is counted in every group
            let path = mount.join("cgroup.subtree_control");
            fs::write(&path, "+memory").map_err(|source| Error::file("ask for memory in", &path, source))?;
        }
        let folder = if is_v1 { v1.join(&name) } else { mount.join(&name) };
        fs::create_dir(&folder).map_err(|source| Error::file("create cgroup", &folder, source))?;
        Ok(Cgroup { name, folder, is_v1, mount: mount.to_owned() })
    }

    /// The words of a command that puts itself into the group and becomes `command`.
    pub fn entered_by(&self, command: Vec<String>) -> Vec<String> {
        let enter = "echo $$ >\"$0\" && exec \"$@\"";
        let procs = self.folder.join("cgroup.procs").display().to_string();
        ["sh", "-c", enter].map(str::to_owned).into_iter().chain([procs]).chain(command).collect()
    }

    /// What everything in the group, and in groups below it that are gone by now, has used.
    pub(super) fn cpu(&self) -> Result<Cpu, Error> {
        let read = |name: &str| {
            let path = self.folder.join(name);
            fs::read_to_string(&path).map_err(|source| Error::file("read", &path, source))
        };
        let cpu = if self.is_v1 {
            v1_cpu(&read("cpuacct.usage_user")?, &read("cpuacct.usage_sys")?)
        } else {
            v2_cpu(&read("cpu.stat")?)
        };
        cpu.ok_or_else(|| Error::Needs { what: format!("{} does not tell the CPU time", self.folder.display()) })
    }

    /// What is running in the group and below.
    pub(super) fn processes(&self) -> Vec<Pid> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            // a group may go away while we look; then nothing runs in it
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)));
            folders.extend(folders_in(&folder));
        }
        found
    }

    /// Ends everything in the group.
    pub(super) fn kill(&self) {
        for process in self.processes() {
            // one that is gone already is what we want
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

impl Drop for Cgroup {
    /// Ends what is left in the group and removes it, in all hierarchies: with version 1, the engine made one for each
    /// controller.
    fn drop(&mut self) {
        let deadline = Instant::now() + END_PATIENCE;
        while !self.processes().is_empty() && Instant::now() < deadline {
            self.kill();
            thread::sleep(Duration::from_millis(5));
        }
        let mut tops: Vec<PathBuf> = folders_in(&self.mount).into_iter().map(|top| top.join(&self.name)).collect();
        tops.push(self.mount.join(&self.name));
        tops.iter().filter(|top| top.is_dir()).for_each(|top| remove(top));
    }
}

fn remove(folder: &Path) {
    folders_in(folder).iter().for_each(|below| remove(below));
    // one that stays costs nothing, and has a name that nobody takes again
    if let Err(error) = fs::remove_dir(folder) {
        tracing::debug!("remove cgroup {}: {error}", folder.display());
    }
}

/// The folders in a folder, symlinks not followed; none where it cannot be read.
fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn v1_cpu(user: &str, system: &str) -> Option<Cpu> {
    let seconds = |nanoseconds: &str| Some(nanoseconds.trim().parse::<u64>().ok()? as f64 / 1e9);
    Some(Cpu { user: seconds(user)?, system: seconds(system)? })
}

fn v2_cpu(stat: &str) -> Option<Cpu> {
    let seconds = |name: &str| {
        let microseconds = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        Some(microseconds.parse::<u64>().ok()? as f64 / 1e6)
    };
    Some(Cpu { user: seconds("user_usec")?, system: seconds("system_usec")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_tell_the_time() {
        assert_eq!(v1_cpu("1500000000\n", "250000000\n"), Some(Cpu { user: 1.5, system: 0.25 }));
        assert_eq!(v1_cpu("", "1"), None);
        let stat = "usage_usec 1750000\nuser_usec 1500000\nsystem_usec 250000\nnice_usec 0\n";
        assert_eq!(v2_cpu(stat), Some(Cpu { user: 1.5, system: 0.25 }));
        assert_eq!(v2_cpu("usage_usec 5\n"), None);
    }
}
