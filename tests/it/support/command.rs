//! Commands of the machine, run to their end.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::scratch;

/// What a command left: its streams, how it ended, and whether it was stopped for taking too long.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub timed_out: bool,
}

impl Ended {
    /// Panics with everything that was said unless the command succeeded.
    #[track_caller]
    pub fn success(self, what: &str) -> Ended {
        assert_eq!(self.code, Some(0), "{what}:\n{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// Runs a command that must succeed and gives its stdout, trimmed.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}\n{}{stderr}", String::from_utf8_lossy(&stdout));
    String::from_utf8_lossy(&stdout).trim().to_owned()
}

/// Runs a command for at most `limit`. Its output goes through files: a pipe could fill up while nobody reads.
pub fn run_within(command: &mut Command, limit: Duration) -> Ended {
    let output = scratch();
    run_into(command, limit, output.path())
}

/// The same with the output in the files `out` and `err` of `place`.
pub fn run_into(command: &mut Command, limit: Duration, place: &Path) -> Ended {
    run_watched(command, limit, place, || {})
}

/// The same; `watch` is called some hundred times a second while the command runs.
pub fn run_watched(command: &mut Command, limit: Duration, place: &Path, mut watch: impl FnMut()) -> Ended {
    let [out, err] = ["out", "err"].map(|name| place.join(name));
    let create = |path| fs::File::create(path).expect("created");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(create(&out))
        .stderr(create(&err))
        .spawn()
        .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    let deadline = Instant::now() + limit;
    let mut timed_out = false;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            break status;
        }
        if Instant::now() > deadline {
            timed_out = true;
            child.kill().expect("a child of ours");
        }
        watch();
        std::thread::sleep(Duration::from_millis(5));
    };
    let read = |path| String::from_utf8_lossy(&fs::read(path).expect("written")).into_owned();
    Ended { code: status.code(), stdout: read(out), stderr: read(err), timed_out }
}
