//! Imports only go down, rooms on one floor do not know each other, and only `sys` holds `unsafe`.

use std::fs;
use std::path::{Path, PathBuf};

/// The map of `src/lib.rs`.
const FLOORS: [(&str, u32); 19] = [
    ("cli", 6),
    ("harness", 6),
    ("build", 5),
    ("warm", 5),
    ("cache", 4),
    ("image", 3),
    ("snapshot", 2),
    ("layer", 2),
    ("run", 2),
    ("context", 2),
    ("registry", 2),
    ("rootfs", 1),
    ("blobs", 1),
    ("http", 1),
    ("credentials", 1),
    ("dockerfile", 1),
    ("tree", 0),
    ("oci", 0),
    ("sys", 0),
];

fn floor(room: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// The rooms that `text` names as `crate::room` or in `crate::{room, …}`, with line numbers.
fn imports(text: &str) -> Vec<(usize, String)> {
    let name = |text: &str| text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        if text[line_start..].trim_start().starts_with("//") || text[..at].ends_with(|c: char| c.is_alphanumeric()) {
            continue;
        }
        let line = text[..at].matches('\n').count() + 1;
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(top_level(group).map(|part| (line, name(part)))),
            None => found.push((line, name(rest))),
        }
    }
    found
}

/// What stands between the commas of a group, up to its closing brace.
fn top_level(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                parts.push(group[start..at].trim());
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    parts.into_iter().filter(|part| !part.is_empty())
}

/// What is wrong with a file of `room`.
fn faults(room: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let own = floor(room).unwrap_or_else(|| panic!("room {room} is not in the map"));
    for (line, other) in imports(text) {
        match floor(&other) {
            _ if other == room => {}
            None => faults.push(format!("line {line}: crate::{other} names no room")),
            Some(floor) if floor >= own => faults.push(format!("line {line}: {room} imports {other}")),
            Some(_) => {}
        }
    }
    let has_unsafe = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl")
    };
    if room != "sys" && text.lines().any(has_unsafe) {
        faults.push(format!("{room} holds unsafe code; only sys may"));
    }
    faults
}

fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a readable source folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn imports_only_go_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&src).expect("below src");
        let room = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
        if room == "lib.rs" || room == "bin" {
            continue;
        }
        let text = fs::read_to_string(&file).expect("readable source");
        wrong.extend(faults(&room, &text).into_iter().map(|fault| format!("{}: {fault}", inside.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_finds_what_it_is_for() {
    assert!(faults("layer", "use crate::tree::Node;\n").is_empty());
    assert_eq!(faults("tree", "use crate::rootfs::Root;").len(), 1);
    assert_eq!(faults("layer", "use crate::snapshot::take;").len(), 1);
    assert_eq!(faults("layer", "fn f() { unsafe { g() } }").len(), 1);
    assert_eq!(faults("layer", "use crate::nowhere::X;").len(), 1);
    assert_eq!(faults("layer", "use crate::{oci, snapshot::{self, take}, tree, run};").len(), 2);
    assert_eq!(faults("layer", "use crate::{\n    oci,\n    run,\n};").len(), 1);
    assert_eq!(faults("layer", "fn f() { crate::run::start() }").len(), 1);
    assert!(faults("layer", "//! As `crate::run` does.").is_empty());
}
