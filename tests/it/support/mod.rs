//! What several tests need: real servers that end with the test, one that misbehaves on purpose and a proxy that makes real
//! ones do so, containers, and images made from plain data.

pub mod command;
pub mod debian;
pub mod flat;
pub mod git;
pub mod handmade;
pub mod http;
pub mod layout;
pub mod limited;
pub mod machine;
pub mod podman;
pub mod proxy;
pub mod registry;
pub mod workshop;
pub mod world;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The folder of a test below cargo's target directory: what is in it survives, and is on a disk.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("the target directory can be written");
    folder
}

/// A directory of a test below cargo's target directory: what a killed test leaves is nowhere else.
pub fn scratch() -> TempDir {
    tempfile::tempdir_in(folder("scratch")).expect("the target directory can be written")
}

/// Holds a page of the repository to what a test found: the part that is marked with `name`.
#[track_caller]
pub fn assert_page_has(page: &str, name: &str, found: &str) {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).expect("there");
    let (_, rest) = text.split_once(&format!("<!-- {name} -->\n")).unwrap_or_else(|| panic!("{page} has no {name}"));
    let kept = rest.split_once("<!-- ").map_or(rest, |(kept, _)| kept);
    assert!(kept.trim() == found.trim(), "{page} has others than these {name}:\n{found}");
}

/// Says why a test does not run here. `KANNA_ACCEPTED_SKIPS` (names, comma-separated, may be empty), where set, is the
/// list of skips that a machine may have; any other is a failure.
pub fn skip(name: &str, reason: &str) {
    eprintln!("skipped ({name}): {reason}");
    if let Ok(accepted) = std::env::var("KANNA_ACCEPTED_SKIPS") {
        assert!(accepted.split(',').any(|one| one == name), "skip {name:?} is not among the accepted: {accepted:?}");
    }
}
