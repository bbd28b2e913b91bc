//! Becoming root of a user namespace of one's own, for a plain user who builds in an isolated root.
//!
//! With subordinate ids (`/etc/subuid`, `/etc/subgid`) and the programs `newuidmap` and `newgidmap`, as rootless podman
//! uses them, images have all their users there; without, only root exists.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::{fs, iter};

use super::Error;
use crate::rootfs::{User, users};
use crate::sys::nix::sched::{CloneFlags, unshare};
use crate::sys::process::{self, Uid};
use crate::sys::thread::{CapabilitySet, capabilities};

/// The name by which the program knows that it is the helper which maps ids from outside.
pub(super) const MAPPER: &str = "kanna: ids";

/// Which ids there are in a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// Those of the machine: there is no namespace of ours.
    Machine,
    /// As many as were lent to the user, from 0 on.
    Subordinate {
        /// Users.
        users: u32,
        /// Groups.
        groups: u32,
    },
    /// Root alone.
    OnlyRoot,
}

/// Ids that a file such as `/etc/subuid` lends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lent {
    first: u32,
    count: u32,
}

/// The users and the groups that have a number in the user namespace of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownIds {
    users: Vec<Mapped>,
    groups: Vec<Mapped>,
    groups_are_fixed: bool,
}

/// Ids that exist in a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mapped {
    first: u32,
    last: u32,
}

impl KnownIds {
    /// Asks the kernel.
    pub fn ask() -> Result<KnownIds, Error> {
        let mapped = |file: &str| match fs::read_to_string(file) {
            Ok(text) => Ok(mapped_by(&text)),
            // a kernel without user namespaces
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![Mapped { first: 0, last: u32::MAX }]),
            Err(source) => Err(Error::UserNamespace { action: "ask for the ids of this user namespace", source }),
        };
        let (users, groups) = (mapped("/proc/self/uid_map")?, mapped("/proc/self/gid_map")?);
        Ok(KnownIds { users, groups, groups_are_fixed: groups_are_fixed() })
    }

    /// Refuses a user whom no process can become.
    pub fn see_user(&self, user: &User) -> Result<(), Error> {
        self.see_owner(Some(user.uid), Some(user.gid))?;
        // where they are fixed, nobody gets any
        let others = user.groups.iter().filter(|_| !self.groups_are_fixed);
        others.into_iter().try_for_each(|&gid| self.see_owner(None, Some(gid)))
    }

    /// Refuses an owner whom no file can have.
    pub fn see_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Error> {
        for (kind, id, mapped) in [("user", uid, &self.users), ("group", gid, &self.groups)] {
            if let Some(id) = id.filter(|id| !mapped.iter().any(|ids| (ids.first..=ids.last).contains(id))) {
                return Err(Error::UnknownId { kind, id, known: list(mapped) });
            }
        }
        Ok(())
    }
}

/// The ids of a file such as `/proc/self/uid_map` (`inside outside count`, a line per range).
fn mapped_by(text: &str) -> Vec<Mapped> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse::<u32>().ok());
        let (first, _, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(Mapped { first, last: first.saturating_add(count.checked_sub(1)?) })
    };
    let mut mapped: Vec<Mapped> = text.lines().filter_map(line).collect();
    mapped.sort_unstable_by_key(|ids| ids.first);
    mapped.dedup_by(|next, before| {
        let is_continued = before.last.checked_add(1) == Some(next.first);
        if is_continued {
            before.last = next.last;
        }
        is_continued
    });
    mapped
}

fn list(mapped: &[Mapped]) -> String {
    let range = |ids: &Mapped| match ids.first == ids.last {
        true => ids.first.to_string(),
        false => format!("{} to {}", ids.first, ids.last),
    };
    mapped.iter().map(range).collect::<Vec<_>>().join(", ")
}

/// Makes this process, which must not have any other thread, root of a user namespace of its own, unless it may do
/// already what building in an isolated root needs.
pub fn become_root() -> Result<Ids, Error> {
    let failed = |action: &'static str| move |source: io::Error| Error::UserNamespace { action, source };
    let held = capabilities(None).map_err(|errno| failed("ask for our capabilities")(errno.into()))?;
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER;
    if process::geteuid().is_root() && held.effective.contains(needed) {
        return Ok(Ids::Machine);
    }
    let (uid, gid) = (process::geteuid().as_raw(), process::getegid().as_raw());
    let name = account_name(uid);
    let users = lent("/etc/subuid", name.as_deref(), uid).map_err(failed("read /etc/subuid"))?;
    let groups = lent("/etc/subgid", name.as_deref(), uid).map_err(failed("read /etc/subgid"))?;
    let mapper = if users.is_empty() || groups.is_empty() {
        None
    } else {
        let arguments = [map(uid, &users), map(gid, &groups)].map(|ranges| ranges.join(" "));
        Some(start_mapper(&arguments).map_err(failed("start a helper that maps ids"))?)
    };
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| failed("make a user namespace")(errno.into()))?;
    let ids = match mapper.map(finish_mapper) {
        Some(Ok(())) => Ids::Subordinate { users: total(&users), groups: total(&groups) },
        // no programs that may map what was lent
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => map_only_root(uid, gid)?,
        Some(Err(error)) => return Err(failed("map subordinate ids with newuidmap and newgidmap")(error)),
        None => map_only_root(uid, gid)?,
    };
    debug_assert_eq!(process::geteuid(), Uid::ROOT);
    Ok(ids)
}

/// Does this process lack the groups that others have? Without subordinate ids nobody may set any.
pub(super) fn groups_are_fixed() -> bool {
    fs::read("/proc/self/setgroups").is_ok_and(|text| text.trim_ascii() == b"deny")
}

fn map_only_root(uid: u32, gid: u32) -> Result<Ids, Error> {
    for (file, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1\n")),
        ("/proc/self/gid_map", format!("0 {gid} 1\n")),
    ] {
        fs::write(file, text).map_err(|source| Error::UserNamespace { action: "map our id to root's", source })?;
    }
    Ok(Ids::OnlyRoot)
}

fn account_name(uid: u32) -> Option<String> {
    let passwd = fs::read("/etc/passwd").ok()?;
    String::from_utf8(users::resolve(&uid.to_string(), &passwd, b"").ok()?.name?).ok()
}

/// What `file` (`name:first:count`, a line per range) lends to the user.
fn lent(file: &str, name: Option<&str>, uid: u32) -> io::Result<Vec<Lent>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(lent_by(&text, name, uid)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn lent_by(text: &str, name: Option<&str>, uid: u32) -> Vec<Lent> {
    let number = uid.to_string();
    let line = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        ((Some(owner) == name || owner == number) && count > 0).then_some(Lent { first, count })
    };
    text.lines().filter_map(line).collect()
}

fn total(lent: &[Lent]) -> u32 {
    lent.iter().fold(1_u32, |sum, lent| sum.saturating_add(lent.count))
}

/// Numbers for `newuidmap`: root is the user, the others follow.
fn map(own: u32, lent: &[Lent]) -> Vec<String> {
    let mut next = 1_u32;
    let others = lent.iter().map(|lent| {
        let inside = next;
        next = next.saturating_add(lent.count);
        [inside, lent.first, lent.count]
    });
    iter::once([0, own, 1]).chain(others).flatten().map(|number| number.to_string()).collect()
}

/// Starts the program again, outside the namespace that will be. It waits for a byte.
fn start_mapper(maps: &[String; 2]) -> io::Result<process::Child> {
    use std::os::unix::process::CommandExt as _;
    Command::new("/proc/self/exe")
        .arg0(MAPPER)
        .arg(process::getpid().as_raw_pid().to_string())
        .args(maps)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

fn finish_mapper(mut mapper: process::Child) -> io::Result<()> {
    mapper.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(b"!"))?;
    let output = mapper.wait_with_output()?;
    match output.status.code() {
        Some(0) => Ok(()),
        Some(code) if code == i32::from(super::CODE_NOT_FOUND) => Err(io::ErrorKind::NotFound.into()),
        _ => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// The helper: maps the ids of the process named by the first argument once it is told to.
pub(super) fn mapper(arguments: &[OsString]) -> ExitCode {
    let [_, pid, users, groups] = arguments else { return ExitCode::FAILURE };
    // nothing to read: whoever started us has gone
    if io::stdin().read_exact(&mut [0]).is_err() {
        return ExitCode::FAILURE;
    }
    for (program, ranges) in [("newuidmap", users), ("newgidmap", groups)] {
        let ranges = ranges.to_string_lossy().into_owned();
        match Command::new(program).arg(pid).args(ranges.split(' ')).stdin(Stdio::null()).status() {
            Ok(status) if status.success() => {}
            Ok(_) => return ExitCode::FAILURE,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return ExitCode::from(super::CODE_NOT_FOUND),
            Err(_) => return ExitCode::FAILURE,
        }
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_lend_ids() {
        let text = "other:1:2\nme:100000:65536\n1000:300000:10\nme:bad:1\nme:5\nme:7:0\n";
        let lent = lent_by(text, Some("me"), 1000);
        assert_eq!(lent, [Lent { first: 100_000, count: 65536 }, Lent { first: 300_000, count: 10 }]);
        assert_eq!(map(1000, &lent).join(" "), "0 1000 1 1 100000 65536 65537 300000 10");
        assert_eq!(total(&lent), 65_547);
        assert_eq!(lent_by(text, None, 7), []);
        assert_eq!(map(7, &[]).join(" "), "0 7 1");
    }

    #[test]
    fn ids_of_a_namespace() {
        let known = |users: &str, groups: &str| KnownIds {
            users: mapped_by(users),
            groups: mapped_by(groups),
            groups_are_fixed: false,
        };
        let lent = known("1 100000 65536\n 0 1000 1\n", "0 1000 1\n70000 5 10\n");
        let machine = known("0 0 4294967295", "0 0 4294967295\n");
        let user = |uid, gid, groups: &[u32]| User { uid, gid, groups: groups.to_vec(), home: Vec::new(), name: None };
        for (user, said) in [
            (user(0, 0, &[0]), None),
            (user(65536, 0, &[0, 70009]), None),
            (user(65537, 0, &[0]), Some("use user 65537: this user namespace has none but 0 to 65536")),
            (user(1, 1, &[1]), Some("use group 1: this user namespace has none but 0, 70000 to 70009")),
            (user(1, 0, &[0, 7]), Some("use group 7: this user namespace has none but 0, 70000 to 70009")),
        ] {
            let found = lent.see_user(&user).map_err(|error| error.to_string()).err();
            assert_eq!(found.as_deref(), said, "{user:?}");
            assert!(machine.see_user(&user).is_ok(), "{user:?}");
        }
        let fixed = KnownIds { groups_are_fixed: true, ..lent };
        assert!(fixed.see_user(&user(1, 0, &[0, 7])).is_ok());
        assert!(fixed.see_owner(Some(70000), None).is_err() && fixed.see_owner(None, Some(70000)).is_ok());
        KnownIds::ask().expect("a proc file system").see_owner(Some(0), Some(0)).expect("root is everywhere");
    }

    #[test]
    fn accounts_have_names() {
        assert_eq!(account_name(0).as_deref(), Some("root"));
        assert_eq!(account_name(u32::MAX - 7), None);
    }
}
