//! Who is meant by `USER alice:staff` and `--chown=1000`? Answered from the image's own account files.
//!
//! USER follows the rules of container runtimes, `--chown` those of the Dockerfile reference; they differ for a uid
//! without group: a process gets the group of the account, or 0, a file gets the gid of the same number.

use std::io::Read as _;

use super::{Error, Root};
use crate::sys::Errno;
use crate::tree::ImagePath;

/// The account files are read up to this size; a larger one is no account file.
const MOST_ACCOUNT_BYTES: u64 = 16 * 1024 * 1024;

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups for the process' credentials, the primary one among them; sorted, without repetition.
    pub groups: Vec<u32>,
    /// Home directory as the account says; `/` where there is no account or it names none.
    pub home: Vec<u8>,
    /// Name of the account, if there is one.
    pub name: Option<Vec<u8>>,
}

/// A user or group that cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownAccount {
    /// A user name that the image does not know.
    #[error("find user {0:?}: /etc/passwd of the image has no such entry")]
    User(String),
    /// A group name that the image does not know.
    #[error("find group {0:?}: /etc/group of the image has no such entry")]
    Group(String),
    /// A number beyond what Linux takes.
    #[error("use id {0}: the largest is {LARGEST_ID}")]
    TooLarge(String),
}

/// Largest uid or gid; the next number means "leave as it is" in system calls.
const LARGEST_ID: u32 = u32::MAX - 1;

/// The content of `/etc/passwd` and `/etc/group` of the image under construction; empty where there is none.
pub fn read_account_files(root: &Root) -> Result<(Vec<u8>, Vec<u8>), Error> {
    Ok((read_account_file(root, "/etc/passwd")?, read_account_file(root, "/etc/group")?))
}

fn read_account_file(root: &Root, path: &str) -> Result<Vec<u8>, Error> {
    let path = root.resolve(&ImagePath::clean(path), true)?;
    let failed = |source| Error { action: "read", path: path.clone(), source };
    let file = match root.open_file(&path) {
        Ok(file) => file,
        Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::NOTDIR)) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(Errno::INVAL.into()));
    }
    let mut content = Vec::new();
    file.take(MOST_ACCOUNT_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > MOST_ACCOUNT_BYTES {
        return Err(failed(Errno::FBIG.into()));
    }
    Ok(content)
}

/// Whom a process runs as under `USER spec`: `user`, `user:group` or `:group`, each a name or a number. The empty spec
/// is root. A number needs no entry; its gid is then 0. Without a group, the supplementary groups are those that list
/// the user; with one, there is that one only.
pub fn resolve(spec: &str, passwd: &[u8], group: &[u8]) -> Result<User, UnknownAccount> {
    let (user, wanted_group) = split(spec);
    let (uid, account) = match user {
        None => (0, account_of_uid(passwd, 0)),
        Some(user) => match parse_id(user)? {
            Some(uid) => (uid, account_of_uid(passwd, uid)),
            None => {
                let account = accounts(passwd).find(|account| account.name == user.as_bytes());
                let account = account.ok_or_else(|| UnknownAccount::User(user.to_owned()))?;
                (account.uid, Some(account))
            }
        },
    };
    let mut gid = account.as_ref().map_or(0, |account| account.gid);
    let mut groups = Vec::new();
    match (wanted_group, &account) {
        (Some(wanted), _) => gid = group_id(wanted, group)?,
        (None, Some(account)) if user.is_some() => {
            groups.extend(group_entries(group).filter(|entry| entry.lists(account.name)).map(|entry| entry.gid));
        }
        (None, _) => {}
    }
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    let home = account.as_ref().map_or(&b""[..], |account| account.home);
    let home = if home.is_empty() { b"/".to_vec() } else { home.to_vec() };
    Ok(User { uid, gid, groups, home, name: account.map(|account| account.name.to_vec()) })
}

/// The uid and gid of `--chown=spec`. A user name without group brings its account's group; a uid without group is the
/// gid too (Dockerfile reference: COPY --chown).
pub fn lookup_owner(spec: &str, passwd: &[u8], group: &[u8]) -> Result<(u32, u32), UnknownAccount> {
    let (user, wanted_group) = split(spec);
    let (uid, own_gid) = match user {
        None => (0, 0),
        Some(user) => match parse_id(user)? {
            Some(uid) => (uid, uid),
            None => {
                let account = accounts(passwd).find(|account| account.name == user.as_bytes());
                let account = account.ok_or_else(|| UnknownAccount::User(user.to_owned()))?;
                (account.uid, account.gid)
            }
        },
    };
    let gid = wanted_group.map_or(Ok(own_gid), |wanted| group_id(wanted, group))?;
    Ok((uid, gid))
}

/// The uid and the gid that `spec`, of USER or `--chown`, gives as numbers.
pub fn numbers(spec: &str) -> (Option<u32>, Option<u32>) {
    let number = |text: &str| parse_id(text).ok().flatten();
    let (user, group) = split(spec);
    (user.and_then(number), group.and_then(number))
}

/// User and group of `user:group`; what is empty is not there.
fn split(spec: &str) -> (Option<&str>, Option<&str>) {
    let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
    (Some(user).filter(|user| !user.is_empty()), Some(group).filter(|group| !group.is_empty()))
}

/// A text of digits is an id, never a name.
fn parse_id(text: &str) -> Result<Option<u32>, UnknownAccount> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let id = text.parse().ok().filter(|&id| id <= LARGEST_ID);
    id.map(Some).ok_or_else(|| UnknownAccount::TooLarge(text.to_owned()))
}

fn group_id(wanted: &str, group: &[u8]) -> Result<u32, UnknownAccount> {
    if let Some(gid) = parse_id(wanted)? {
        return Ok(gid);
    }
    let entry = group_entries(group).find(|entry| entry.name == wanted.as_bytes());
    entry.map(|entry| entry.gid).ok_or_else(|| UnknownAccount::Group(wanted.to_owned()))
}

/// A line of `/etc/passwd`: `name:password:uid:gid:comment:home:shell`.
struct Account<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

/// A line of `/etc/group`: `name:password:gid:member,member`.
struct GroupEntry<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl GroupEntry<'_> {
    fn lists(&self, user: &[u8]) -> bool {
        self.members.split(|&byte| byte == b',').any(|member| member.trim_ascii() == user)
    }
}

fn account_of_uid(passwd: &[u8], uid: u32) -> Option<Account<'_>> {
    accounts(passwd).find(|account| account.uid == uid)
}

/// The entries that can be used: those with a name and readable numbers.
fn accounts(passwd: &[u8]) -> impl Iterator<Item = Account<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b':');
        let name = fields.next()?;
        let (_password, uid, gid) = (fields.next()?, number(fields.next()?)?, number(fields.next()?)?);
        let home = fields.nth(1).unwrap_or_default();
        Some(Account { name, uid, gid, home })
    })
}

fn group_entries(group: &[u8]) -> impl Iterator<Item = GroupEntry<'_>> {
    lines(group).filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b':');
        let name = fields.next()?;
        let (_password, gid) = (fields.next()?, number(fields.next()?)?);
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
    })
}

/// Lines without surrounding blanks; empty ones and comments left out.
fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content
        .split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#") && !line.starts_with(b":"))
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok().filter(|&id| id <= LARGEST_ID)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        alice:x:1000:1000:Alice:/home/alice:/bin/sh\n\
        # a comment\n\n\
        broken:x:none:1:::\n\
        +nis\n\
        carol:x:777:778::\n\
        nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
    const GROUP: &[u8] = b"root:x:0:\nwheel:x:10:bob, alice\nstaff:x:50:\nalice:x:1000:\nbad:x:y:alice\n\
        disk:x:6:root\nnogroup:x:65534:\n";

    #[test]
    fn processes() {
        for (spec, uid, gid, groups, home, name) in [
            ("", 0, 0, &[0][..], "/root", Some("root")),
            ("root", 0, 0, &[0, 6], "/root", Some("root")),
            ("0", 0, 0, &[0, 6], "/root", Some("root")),
            ("0:0", 0, 0, &[0], "/root", Some("root")),
            ("alice", 1000, 1000, &[10, 1000], "/home/alice", Some("alice")),
            ("alice:", 1000, 1000, &[10, 1000], "/home/alice", Some("alice")),
            ("1000", 1000, 1000, &[10, 1000], "/home/alice", Some("alice")),
            ("alice:staff", 1000, 50, &[50], "/home/alice", Some("alice")),
            ("1000:7", 1000, 7, &[7], "/home/alice", Some("alice")),
            ("4242", 4242, 0, &[0], "/", None),
            ("12:34", 12, 34, &[34], "/", None),
            ("12:wheel", 12, 10, &[10], "/", None),
            (":staff", 0, 50, &[50], "/root", Some("root")),
            ("carol", 777, 778, &[778], "/", Some("carol")),
            ("4294967294:1", 4_294_967_294, 1, &[1], "/", None),
        ] {
            let name = name.map(|name| name.as_bytes().to_vec());
            let expected = User { uid, gid, groups: groups.to_vec(), home: home.into(), name };
            assert_eq!(resolve(spec, PASSWD, GROUP), Ok(expected), "{spec:?}");
        }
    }

    #[test]
    fn owners() {
        for (spec, owner) in [
            ("", (0, 0)),
            ("1234", (1234, 1234)),
            ("777", (777, 777)),
            ("carol", (777, 778)),
            ("alice", (1000, 1000)),
            ("alice:staff", (1000, 50)),
            ("7:wheel", (7, 10)),
            ("12:34", (12, 34)),
            (":50", (0, 50)),
            ("nobody", (65534, 65534)),
        ] {
            assert_eq!(lookup_owner(spec, PASSWD, GROUP), Ok(owner), "{spec:?}");
        }
        assert_eq!(lookup_owner("0:0", b"", b""), Ok((0, 0)));
    }

    #[test]
    fn unknown_names_and_impossible_numbers() {
        let user = |name: &str| UnknownAccount::User(name.to_owned());
        let group = |name: &str| UnknownAccount::Group(name.to_owned());
        let large = |id: &str| UnknownAccount::TooLarge(id.to_owned());
        for (spec, error) in [
            ("bob", user("bob")),
            ("broken", user("broken")),
            ("a b", user("a b")),
            ("-1", user("-1")),
            ("+1", user("+1")),
            ("alice:nogrp", group("nogrp")),
            ("alice:bad", group("bad")),
            ("alice:1:2", group("1:2")),
            ("4294967295", large("4294967295")),
            ("0:99999999999999999999", large("99999999999999999999")),
        ] {
            assert_eq!(resolve(spec, PASSWD, GROUP), Err(error.clone()), "{spec:?}");
            assert_eq!(lookup_owner(spec, PASSWD, GROUP), Err(error), "{spec:?}");
        }
        assert_eq!(resolve("root", b"", b""), Err(user("root")), "a name needs an entry");
    }

    #[test]
    fn account_files() {
        let place = tempfile::tempdir().expect("a directory");
        let root = Root::open(place.path()).expect("opened");
        assert_eq!(read_account_files(&root).expect("read"), (Vec::new(), Vec::new()));
        std::fs::create_dir_all(place.path().join("etc")).expect("made");
        std::fs::create_dir_all(place.path().join("usr/share")).expect("made");
        std::fs::write(place.path().join("usr/share/passwd"), "from the image").expect("written");
        symlink("/usr/share/passwd", place.path().join("etc/passwd")).expect("linked");
        symlink("../../../etc/no/such", place.path().join("etc/group")).expect("linked");
        assert_eq!(read_account_files(&root).expect("read"), (b"from the image".to_vec(), Vec::new()));
        std::fs::remove_file(place.path().join("etc/group")).expect("removed");
        std::fs::create_dir(place.path().join("etc/group")).expect("made");
        assert!(read_account_files(&root).is_err(), "a directory is no account file");
        std::fs::remove_dir(place.path().join("etc/group")).expect("removed");
        let endless = std::fs::File::create(place.path().join("etc/group")).expect("created");
        endless.set_len(MOST_ACCOUNT_BYTES + 1).expect("grown");
        assert_eq!(read_account_files(&root).expect_err("too large").errno(), Some(Errno::FBIG));
    }
}
