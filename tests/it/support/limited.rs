//! Builds in a cgroup whose memory is limited and counted.

use std::error::Error as _;
use std::process::Command;
use std::time::Duration;

use kanna::harness::Error;
use kanna::harness::cgroup::{Cgroup, Controller};

use super::command::{Ended, run_watched};
use super::{scratch, skip};

/// What a group may have, page cache included.
const LIMIT_BYTES: u64 = 256_000_000;

/// What a builder may have, but for the files of its root (benches/README.md).
const CEILING_BYTES: u64 = 64_000_000;
const CEILING_BYTES_PER_FILE: u64 = 170;

/// What a build took.
#[derive(Debug, Clone, Copy)]
pub struct Peaks {
    /// The most that the builder had in memory at a time, its program included: VmHWM.
    pub builder_bytes: u64,
    /// The most that was seen in the whole group, commands included and page cache not.
    pub anonymous_bytes: u64,
}

impl Peaks {
    /// Of a build whose root has no more than `files` files.
    #[track_caller]
    pub fn assert_below_ceiling(&self, what: &str, files: u64) {
        let ceiling = CEILING_BYTES + CEILING_BYTES_PER_FILE * files;
        assert!((1..=ceiling).contains(&self.builder_bytes), "{what}: {self:?}, at most {ceiling}");
    }
}

/// A limited group.
pub struct Limited(Cgroup);

impl Limited {
    /// Nothing if memory cannot be limited here.
    pub fn new(label: &str) -> Option<Limited> {
        let limited = || {
            let group = Cgroup::create(Controller::Memory, label)?;
            group.limit_memory(LIMIT_BYTES)?;
            group.memory().map(|_| Limited(group))
        };
        let because =
            |error: Error| format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default());
        limited().map_err(|error| skip("memory", &because(error))).ok()
    }

    /// The option that puts a container into the group.
    pub fn podman_option(&self) -> String {
        format!("--cgroup-parent=/{}", self.0.name)
    }

    /// `command` as it puts itself into the group.
    pub fn entered_by(&self, command: &Command) -> Command {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words = self.0.entered_by(words.map(|word| word.to_string_lossy().into_owned()).collect());
        let mut entered = Command::new(&words[0]);
        entered.args(&words[1..]).env_clear();
        entered.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir("/");
        entered
    }

    /// Runs what is, or will be, in the group, calling `watch` meanwhile. It must end well, and the kernel must have had no
    /// reason to kill anything.
    #[track_caller]
    pub fn run(&self, what: &str, command: &mut Command, limit: Duration, mut watch: impl FnMut()) -> (Ended, Peaks) {
        let mut peaks = Peaks { builder_bytes: 0, anonymous_bytes: 0 };
        let output = scratch();
        let ended = run_watched(command, limit, output.path(), || {
            peaks.builder_bytes = peaks.builder_bytes.max(self.0.peak_of("executor"));
            let anonymous = self.0.memory().expect("told before").anonymous_bytes;
            peaks.anonymous_bytes = peaks.anonymous_bytes.max(anonymous);
            watch();
        });
        let memory = self.0.memory().expect("told before");
        assert!(memory.kills == 0, "{what}: {memory:?}, {peaks:?}: {}", ended.stderr);
        // that it gets there says nothing: cached pages stay until there is no room for others
        assert!(memory.peak_bytes <= LIMIT_BYTES, "{what}: {memory:?}");
        println!("{what}: {peaks:?}, {memory:?}");
        (ended.success(what), peaks)
    }
}
