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
    pub group: i32,
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
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    let started = fields.nth(15)?.parse().ok()?;
    Some(Process { pid, name, is_zombie: matches!(state, "Z" | "X"), parent, group, session, started })
}

/// Which processes are a command's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kin {
    /// All descendants of ours, wherever they fled to. No other command may run beside it: whose an orphan is, nobody could
    /// tell.
    AllOfOurs,
    /// Those of its session, and what these started: of a command from whose PID namespace nothing flees.
    ItsSession,
}

/// A command that was started: the leader of a session and of a process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leader {
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
    pub kin: Kin,
}

/// Those of `all` that are the command's, itself among them. As a subreaper we (`ourselves`) are the parent of its orphans,
/// but also of helpers that other threads started: these are in our session, which no process of the command can be,
/// since it began in a session of its own. What is older than the command, such as an orphan of a shell beside us that
/// we got as the container's first process, is not the command's either.
pub(super) fn of_command(all: &[Process], ourselves: i32, leader: Leader) -> Vec<&Process> {
    // 0 where its leader is outside our PID namespace
    let session = all.iter().find(|process| process.pid == ourselves).map(|ourselves| ourselves.session);
    let is_foreign = |process: &Process| {
        Some(process.session) == session || process.started < leader.started || process.pid == ourselves
    };
    let is_first = |process: &&Process| match leader.kin {
        Kin::AllOfOurs => process.parent == ourselves,
        Kin::ItsSession => process.session == leader.pid,
    };
    let mut children: BTreeMap<i32, Vec<&Process>> = BTreeMap::new();
    for process in all.iter().filter(|process| !is_foreign(process)) {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = BTreeMap::new();
    let mut left: Vec<&Process> = all.iter().filter(|process| is_first(process) && !is_foreign(process)).collect();
    while let Some(process) = left.pop() {
        if found.insert(process.pid, process).is_none() {
            left.extend(children.get(&process.pid).into_iter().flatten());
        }
    }
    found.into_values().collect()
}

/// Those of `all` that `ourselves` adopted when their parents ended, as far as their groups tell: whom we start is in our
/// own group, or leads one.
pub(super) fn adopted(all: &[Process], ourselves: i32) -> Vec<&Process> {
    let group = all.iter().find(|process| process.pid == ourselves).map(|ourselves| ourselves.group);
    let is_adopted = |process: &&Process| {
        process.parent == ourselves && process.group != process.pid && Some(process.group) != group
    };
    all.iter().filter(is_adopted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let line = b"123 (a ) (b) S 1 123 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 200\n";
        let expected = Process {
            pid: 123,
            name: "a ) (b".to_owned(),
            is_zombie: false,
            parent: 1,
            group: 123,
            session: 77,
            started: 98765,
        };
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

    /// One whose session has one group.
    fn process(pid: i32, parent: i32, session: i32, started: u64) -> Process {
        Process { pid, name: String::new(), is_zombie: false, parent, group: session, session, started }
    }

    #[test]
    fn only_the_commands_own() {
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
        let found = |leader| of_command(&all, 1, leader).iter().map(|process| process.pid).collect::<Vec<_>>();
        assert_eq!(found(Leader { pid: 20, started: 50, kin: Kin::AllOfOurs }), [20, 21, 22, 23, 24]);
    }

    #[test]
    fn commands_beside_each_other() {
        let all = [
            process(1, 0, 1, 50),
            process(20, 1, 20, 50),
            process(21, 20, 20, 50),
            process(22, 21, 22, 50), // of its own session, and yet the first one's
            process(30, 1, 30, 50),
            process(31, 1, 30, 50), // its parent was killed
            process(32, 31, 32, 50),
            process(40, 1, 1, 50), // a credential helper of ours
        ];
        for (pid, its) in [(20, vec![20, 21, 22]), (30, vec![30, 31, 32]), (50, vec![])] {
            let found = of_command(&all, 1, Leader { pid, started: 50, kin: Kin::ItsSession });
            assert_eq!(found.iter().map(|process| process.pid).collect::<Vec<_>>(), its);
        }
    }

    #[test]
    fn whom_we_did_not_start() {
        let all = [
            process(5, 1, 4, 50),    // we
            process(20, 5, 20, 50),  // a command, or a helper
            process(21, 20, 20, 50), // its parent is still there
            process(22, 5, 20, 50),  // its parent is not
            process(23, 5, 4, 50),   // a program that is waited for
            process(24, 1, 20, 50),  // somebody else's
        ];
        assert_eq!(adopted(&all, 5).iter().map(|process| process.pid).collect::<Vec<_>>(), [22]);
    }
}
