//! Which processes are the command's? Read from `/proc`, decided in a pure function.

use std::collections::BTreeMap;
use std::{fs, io};

use super::Error;

/// A process as `/proc/<pid>/stat` tells it (man 5 proc).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: i32,
    pub name: String,
    pub is_zombie: bool,
    pub parent: i32,
    pub session: i32,
    /// Clock ticks since boot.
    pub started: u64,
}

/// All processes that can be seen.
pub(super) fn all() -> Result<Vec<Process>, Error> {
    let failed = |source| Error::Processes { path: "/proc".to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            found.extend(one(pid)?);
        }
    }
    Ok(found)
}

/// The process `pid`; `None` if it has gone.
pub(super) fn one(pid: i32) -> Result<Option<Process>, Error> {
    let path = format!("/proc/{pid}/stat");
    match fs::read(&path) {
        Ok(stat) => Ok(parse(&stat)),
        Err(error) if has_gone(&error) => Ok(None),
        Err(source) => Err(Error::Processes { path, source }),
    }
}

/// Has it gone, or is it hidden from us, as other users' processes can be (`hidepid`), and therefore not ours?
fn has_gone(error: &io::Error) -> bool {
    use crate::sys::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH | Errno::PERM | Errno::ACCESS))
}

/// `pid (name) state ppid pgrp session tty tpgid flags …`, the 22nd field being the start time. The name may hold
/// anything, parentheses and blanks too.
fn parse(stat: &[u8]) -> Option<Process> {
    let open = stat.iter().position(|&byte| byte == b'(')?;
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    let pid = std::str::from_utf8(&stat[..open]).ok()?.trim().parse().ok()?;
    let name = String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned();
    let mut fields = std::str::from_utf8(&stat[close + 1..]).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(15)?.parse().ok()?;
    Some(Process { pid, name, is_zombie: matches!(state, "Z" | "X"), parent, session, started })
}

/// Ourselves, as the ancestor of what the command started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ancestor {
    pub pid: i32,
    /// When the command's first process started, in clock ticks since boot.
    pub command_started: u64,
}

/// Those of `all` that the command started, directly or not. As a subreaper we are the parent of its orphans, but
/// also of helpers that other threads started: these are in our session, which no process of the command can be,
/// since it began in a session of its own. What is older than the command, such as an orphan of a shell beside us that
/// we got as the container's first process, is not the command's either.
pub(super) fn of_command(all: &[Process], ancestor: Ancestor) -> Vec<&Process> {
    let mut children: BTreeMap<i32, Vec<&Process>> = BTreeMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(process);
    }
    // 0 where its leader is outside our PID namespace
    let session = all.iter().find(|process| process.pid == ancestor.pid).map(|ourselves| ourselves.session);
    let is_foreign = |process: &Process| {
        Some(process.session) == session || process.started < ancestor.command_started || process.pid == ancestor.pid
    };
    let mut found = Vec::new();
    let mut parents = vec![ancestor.pid];
    while let Some(parent) = parents.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            if !is_foreign(child) {
                parents.push(child.pid);
                found.push(child);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let line = b"123 (a ) (b) S 1 123 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 200\n";
        let expected =
            Process { pid: 123, name: "a ) (b".to_owned(), is_zombie: false, parent: 1, session: 77, started: 98765 };
        assert_eq!(parse(line), Some(expected));
        assert!(parse(b"9 (x) Z 1 9 9 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 5 0 0").expect("parsed").is_zombie);
        for odd in [&b""[..], b"1 (x", b"1 x) S", b"1 (x) S 1 2", b")("] {
            assert_eq!(parse(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn we_are_among_all() {
        let own = std::process::id() as i32;
        let all = all().expect("a proc file system");
        let process = all.iter().find(|process| process.pid == own).expect("we are running");
        assert_eq!(process.parent, std::os::unix::process::parent_id() as i32);
        assert_eq!(one(i32::MAX).expect("read"), None);
    }

    #[test]
    fn only_the_commands_own() {
        let process = |pid, parent, session, started| Process {
            pid,
            name: String::new(),
            is_zombie: false,
            parent,
            session,
            started,
        };
        let all = [
            process(1, 0, 1, 10),   // we, the container's first process
            process(20, 1, 20, 50), // the command
            process(21, 20, 20, 51),
            process(22, 21, 22, 52), // a daemon, still a child
            process(23, 1, 23, 52),  // a daemon, orphaned
            process(24, 23, 23, 60),
            process(30, 1, 1, 55),   // a credential helper of ours
            process(31, 30, 31, 56), // and what it started
            process(40, 0, 40, 57),  // a shell beside us
            process(41, 40, 40, 58),
            process(50, 1, 50, 20), // an orphan from before
        ];
        let ancestor = Ancestor { pid: 1, command_started: 50 };
        let mut found: Vec<i32> = of_command(&all, ancestor).iter().map(|process| process.pid).collect();
        found.sort_unstable();
        assert_eq!(found, [20, 21, 22, 23, 24]);
    }
}
