//! This machine as its users have it: root, and a plain user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::command::{Ended, run, run_within};
use super::skip;
use super::world::World;

/// What a build may take.
pub const LIMIT: Duration = Duration::from_secs(300);

/// A user who is nobody in particular, by the number that Debian gives to `nobody`.
pub const PLAIN: &str = "65534";

/// A place that every user can reach, with the executor in it.
pub struct Machine {
    place: TempDir,
}

impl Machine {
    /// Nothing if we are not root.
    pub fn new() -> Option<Machine> {
        if !rustix::process::geteuid().is_root() {
            skip("setpriv", "only root can become another user");
            return None;
        }
        let place = tempfile::tempdir().expect("a directory");
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("set");
        let machine = Machine { place };
        // each command runs from a copy in memory, which costs less without what only debuggers read
        run(Command::new("strip").arg("-o").arg(machine.path("executor")).arg(env!("CARGO_BIN_EXE_executor")));
        fs::write(machine.path("ids"), "nobody:100000:65536\n").expect("written");
        Some(machine)
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A directory of the plain user's.
    pub fn own(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).expect("created");
        let id = PLAIN.parse().expect("a number");
        std::os::unix::fs::chown(&path, Some(id), Some(id)).expect("given");
        path
    }

    /// Gives all that is in a directory to the plain user. Modes stay; capabilities of files go with their owner.
    pub fn give(&self, place: &Path) {
        let id = PLAIN.parse().expect("a number");
        let metadata = fs::symlink_metadata(place).expect("there");
        std::os::unix::fs::lchown(place, Some(id), Some(id)).expect("given");
        if metadata.is_dir() {
            fs::read_dir(place).expect("read").for_each(|entry| self.give(&entry.expect("read").path()));
        }
        if !metadata.is_symlink() {
            fs::set_permissions(place, metadata.permissions()).expect("set");
        }
    }

    /// The executor as root, with a umask that closes all that is not opened on purpose.
    pub fn as_root(&self, home: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(self.path("executor"));
        command.env_clear().env("HOME", home);
        command
    }

    /// The executor as a plain user to whom `ids`, where given, lends some.
    pub fn as_user(&self, home: &Path, ids: Option<&Path>) -> Command {
        let mut command = Machine::user(home, ids);
        command.arg(self.path("executor"));
        command
    }

    /// A command that is yet to be named, as that user.
    pub fn user(home: &Path, ids: Option<&Path>) -> Command {
        let nothing = Path::new("/dev/null");
        let script = "mount --bind \"$0\" /etc/subuid && mount --bind \"$0\" /etc/subgid && exec \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script])
            .arg(ids.unwrap_or(nothing))
            .args(["setpriv", "--reuid", PLAIN, "--regid", PLAIN, "--clear-groups"])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", home);
        command
    }

    /// A folder with a Dockerfile and nothing else.
    pub fn context(&self, name: &str, dockerfile: &str) -> PathBuf {
        let context = self.path(name);
        fs::create_dir(&context).expect("created");
        fs::write(context.join("Dockerfile"), dockerfile).expect("written");
        context
    }
}

/// Builds a context in an isolated root.
pub fn build(command: &mut Command, world: &World, context: &Path, flags: &[&str]) -> Ended {
    run_within(build_command(command, world, context).args(flags), LIMIT)
}

/// The same, not started yet.
pub fn build_command<'a>(command: &'a mut Command, world: &World, context: &Path) -> &'a mut Command {
    command
        .current_dir("/")
        .arg(format!("--context={}", context.display()))
        .arg(format!("--registry-map=index.docker.io={}", world.registry.host()))
        .args(["--isolation=namespaces", "--insecure-pull", "--no-push", "--destination=test/x"])
}

/// Of a home directory after a build in it.
#[track_caller]
pub fn assert_nothing_left(home: &Path) {
    let left: Vec<_> = fs::read_dir(home.join(".cache/kanna")).expect("the work directory").collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Processes of the machine whose command line holds `word`.
pub fn processes_with(word: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").expect("a proc file system").filter_map(Result::ok);
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).into_owned()).filter(|line| line.contains(word)).collect()
}
