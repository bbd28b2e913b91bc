//! `make demo` as it is typed, with the executor of this build.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::command::run_within;
use crate::support::podman::Podman;
use crate::support::skip;

/// It takes some seconds.
const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn the_demo_ends_with_a_page() {
    if let Err(reason) = Podman::probe() {
        return skip("containers", &reason);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo/run.sh");
    let ended = run_within(Command::new(script).env("EXECUTOR", env!("CARGO_BIN_EXE_executor")), LIMIT);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let page = "<p>Hello, everybody.</p>";
    assert!(ended.stdout.contains(page) && ended.stdout.contains("target/demo/site"), "{}", ended.stdout);
}
