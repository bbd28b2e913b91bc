//! The memory of a [`Cgroup`]: limited and counted, with version 1 and version 2.

use std::fs;
use std::path::Path;

use rustix::process::Pid;

use super::Error;
use super::cgroup::Cgroup;

/// What the kernel says of the memory of a group and of all below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The most that was in use at a time, page cache included: whatever reads and writes more than the limit gets there,
    /// since the kernel gives up cached pages only when there is no room for new ones.
    pub peak_bytes: u64,
    /// What is in use now without page cache.
    pub anonymous_bytes: u64,
    /// Processes that were killed because there was no room and nothing to give up.
    pub kills: u64,
}

impl Cgroup {
    /// Lets the group have so many bytes of memory at most, page cache included.
    pub fn limit_memory(&self, bytes: u64) -> Result<(), Error> {
        let path = self.folder.join(if self.is_v1 { "memory.limit_in_bytes" } else { "memory.max" });
        fs::write(&path, bytes.to_string()).map_err(|source| Error::file("write", &path, source))
    }

    /// What the group has used so far; it must be one for [`Controller::Memory`](super::cgroup::Controller).
    pub fn memory(&self) -> Result<Memory, Error> {
        let read = |name: &str| {
            let path = self.folder.join(name);
            fs::read_to_string(&path).map_err(|source| Error::file("read", &path, source))
        };
        let [peak, anonymous, kills] = if self.is_v1 {
            [("memory.max_usage_in_bytes", ""), ("memory.stat", "total_rss"), ("memory.oom_control", "oom_kill")]
        } else {
            [("memory.peak", ""), ("memory.stat", "anon"), ("memory.events", "oom_kill")]
        };
        let count = |(file, name): (&str, &str)| {
            let missing =
                || Error::Needs { what: format!("{} does not tell {name}", self.folder.join(file).display()) };
            count_in(&read(file)?, name).ok_or_else(missing)
        };
        Ok(Memory { peak_bytes: count(peak)?, anonymous_bytes: count(anonymous)?, kills: count(kills)? })
    }

    /// The highest VmHWM in bytes of those processes in the group that have the name: the most that one of them had in
    /// memory at a time, its program included. 0 if there is none.
    pub fn peak_of(&self, process: &str) -> u64 {
        let status = |id: &Pid| fs::read_to_string(Path::new("/proc").join(id.to_string()).join("status")).ok();
        let peaks = self.processes().iter().filter_map(|id| peak_in(&status(id)?, process)).max();
        peaks.unwrap_or(0) * 1024
    }
}

/// The number in a line that begins with `name`, or the only one.
fn count_in(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let value = if name.is_empty() { line } else { line.strip_prefix(name)?.strip_prefix(' ')? };
        value.trim().parse().ok()
    })
}

/// VmHWM in KiB.
fn peak_in(status: &str, name: &str) -> Option<u64> {
    let field = |field: &str| status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    if field("Name")?.trim() != name {
        return None;
    }
    field("VmHWM")?.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::cgroup::Controller;
    use super::*;

    #[test]
    fn the_peak_is_that_of_the_named_process() {
        let status = "Name:\texecutor\nUmask:\t0022\nVmPeak:\t  200 kB\nVmHWM:\t  123 kB\n";
        assert_eq!(peak_in(status, "executor"), Some(123));
        assert_eq!(peak_in(status, "exec"), None);
        assert_eq!(peak_in("Name:\texecutor\nState:\tZ (zombie)\n", "executor"), None);
    }

    const V1: [(&str, &str); 3] = [
        ("memory.max_usage_in_bytes", "5000\n"),
        ("memory.stat", "cache 7\nrss 1\ntotal_cache 8\ntotal_rss 2000\ntotal_rss_huge 0\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
    ];
    const V2: [(&str, &str); 3] = [
        ("memory.peak", "5000\n"),
        ("memory.stat", "anon 2000\nfile 8\nanon_thp 0\n"),
        ("memory.events", "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\noom_group_kill 0\n"),
    ];

    /// In a tree of files that look like those of either version.
    #[test]
    fn both_versions_limit_and_tell() {
        for (is_v1, hierarchy, limit, files) in
            [(true, "memory", "memory.limit_in_bytes", V1), (false, "", "memory.max", V2)]
        {
            let mount = tempfile::tempdir().expect("a directory");
            let top = mount.path().join(hierarchy);
            fs::create_dir_all(&top).expect("made");
            let group = Cgroup::create_below(mount.path(), Controller::Memory, "test").expect("created");
            assert_eq!((group.is_v1, group.folder.parent()), (is_v1, Some(&*top)));
            // version 2 has to be asked for the controller
            let enabled = fs::read_to_string(mount.path().join("cgroup.subtree_control"));
            assert_eq!(enabled.ok().as_deref(), (!is_v1).then_some("+memory"));
            group.limit_memory(256).expect("limited");
            assert_eq!(fs::read_to_string(group.folder.join(limit)).expect("written"), "256");
            for (name, text) in files {
                let error = group.memory().expect_err("something is missing");
                assert!(matches!(error, Error::File { .. }), "{error}");
                fs::write(group.folder.join(name), text).expect("written");
            }
            assert_eq!(group.memory().expect("told"), Memory { peak_bytes: 5000, anonymous_bytes: 2000, kills: 3 });
            fs::write(group.folder.join("memory.stat"), "something else\n").expect("written");
            assert!(matches!(group.memory(), Err(Error::Needs { .. })));
        }
    }
}
