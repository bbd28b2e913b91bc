//! How much memory there is for this process and all that it starts, and how it is given back.

#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "mallopt has no safe wrapper"))]

use std::fs;
use std::path::Path;

use rustix::system::sysinfo;

/// Where cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Makes sure that pieces of memory of 128 KiB and more go back to the system when they are freed. That is how glibc
/// begins, but it keeps what is as large as anything that was freed before, unless it is told not to. Of the rest it keeps
/// 4 MiB for what comes next.
pub fn give_large_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the calls take numbers and touch nothing but malloc's own settings.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 4 * 1024 * 1024);
    }
}

/// The machine's memory, or less where a cgroup around this process has a limit. `None` if nobody says.
pub fn memory_limit_bytes() -> Option<u64> {
    let machine = sysinfo();
    let machine = u64::from(machine.mem_unit) * machine.totalram;
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let read = |file: &Path| fs::read_to_string(file).ok();
    limits(&cgroups, &read).into_iter().chain([machine]).filter(|bytes| *bytes > 0).min()
}

/// The limits of the cgroups that `cgroups` (`/proc/self/cgroup`) names, and of those above them, of both versions.
fn limits(cgroups: &str, read: &dyn Fn(&Path) -> Option<String>) -> Vec<u64> {
    let mut found = Vec::new();
    for line in cgroups.lines() {
        // hierarchy:controllers:path; version 2 has no controllers here
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (hierarchy, file) = match controllers {
            "" => ("", "memory.max"),
            some if some.split(',').any(|controller| controller == "memory") => ("memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // in a container the path may be the machine's, of which only the end is mounted
        let place = Path::new(CGROUPS).join(hierarchy);
        let groups = Path::new(path.trim_start_matches('/')).ancestors().map(|group| place.join(group).join(file));
        found.extend(groups.filter_map(|file| read(&file)?.trim().parse::<u64>().ok()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_all_groups_around_us() {
        let files = [
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.max", "2000\n"),
            ("/sys/fs/cgroup/memory/c/memory.limit_in_bytes", "1000\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        let read =
            |path: &Path| files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| (*text).to_owned());
        for (cgroups, found) in [
            ("0::/a/b\n", vec![2000]),
            ("4:cpu,memory:/c\n1:name=systemd:/a\n0::/\n", vec![1000, 9_223_372_036_854_771_712]),
            ("0::/elsewhere/of/the/machine\n", vec![]),
            ("", vec![]),
            ("nonsense", vec![]),
        ] {
            assert_eq!(limits(cgroups, &read), found, "{cgroups:?}");
        }
    }

    #[test]
    fn there_is_some_memory() {
        assert!(memory_limit_bytes().is_some_and(|bytes| bytes > 1024 * 1024));
    }
}
