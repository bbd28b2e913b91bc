//! An image against `expected.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::Base;
use super::case::{Case, TAG};
use crate::support::flat::{File, FlatImage, Name, Tree, show};

/// Fields of the configuration that every builder writes.
const CONFIG_FIELDS: [&str; 12] = [
    "Env",
    "Cmd",
    "Entrypoint",
    "WorkingDir",
    "User",
    "Labels",
    "ExposedPorts",
    "Volumes",
    "Healthcheck",
    "StopSignal",
    "Shell",
    "OnBuild",
];

/// What belongs to the container runtime: paths by themselves, and those with everything in them.
const RUNTIME_FILES: [&[u8]; 7] =
    [b"/", b"/etc/hosts", b"/etc/resolv.conf", b"/etc/hostname", b"/etc/mtab", b"/.dockerenv", b"/run"];
const RUNTIME_TREES: [&[u8]; 3] = [b"/proc", b"/sys", b"/dev"];

/// A time this near to now is the time of the build and says nothing.
const TIME_OF_BUILD_SECONDS: u64 = 86_400;

/// Every difference between an image and what the case expects; none if it is right.
pub fn differences(case: &Case, image: &FlatImage, base: &Base) -> Vec<String> {
    let expected = case.expected();
    let mut found = Vec::new();
    let empty = Tree::new();
    let below = if expected["diff_against"] == "base" {
        if image.diff_ids.first() != Some(&base.diff_id) {
            found.push("the first layer is not the base's".to_owned());
        }
        &base.tree
    } else {
        &empty
    };
    if image.tags != [TAG] {
        found.push(format!("the tarball names the image {:?}", image.tags));
    }
    compare_trees(case, &changes(below, &image.tree, case.compares_mtimes()), &mut found);
    compare_config(expected, &image.config, &mut found);
    compare_history(expected, image, &mut found);
    found
}

/// The changed paths and what is said of each, in the words of `expected.json`.
fn changes(below: &Tree, above: &Tree, mtimes: bool) -> BTreeMap<Name, Value> {
    let names: BTreeSet<&Name> = below.keys().chain(above.keys()).collect();
    let mut changes = BTreeMap::new();
    for name in names.into_iter().filter(|name| !belongs_to_runtime(name)) {
        let before = below.get(name).map(|file| describe(file, mtimes));
        let after = above.get(name).map(|file| describe(file, mtimes));
        let change = match (before, after) {
            (Some(before), None) => json!({"change": "removed", "type": before["type"]}),
            (None, Some(after)) => with_change(after, "added"),
            (Some(before), Some(after)) if before != after && !only_a_directorys_time(&before, &after) => {
                with_change(after, "modified")
            }
            _ => continue,
        };
        changes.insert(name.clone(), change);
    }
    changes
}

fn with_change(mut file: Map<String, Value>, change: &str) -> Value {
    file.insert("change".into(), change.into());
    Value::Object(file)
}

fn only_a_directorys_time(before: &Map<String, Value>, after: &Map<String, Value>) -> bool {
    let without = |file: &Map<String, Value>| {
        let mut file = file.clone();
        file.remove("mtime");
        file
    };
    after["type"] == "dir" && without(before) == without(after)
}

fn describe(file: &File, mtimes: bool) -> Map<String, Value> {
    let mut said = Map::new();
    let mut say = |key: &str, value: Value| said.insert(key.to_owned(), value);
    say("type", file.kind.into());
    say("uid", file.uid.into());
    say("gid", file.gid.into());
    if file.kind != "symlink" {
        say("mode", format!("{:04o}", file.mode).into());
    }
    if let Some(content) = &file.content {
        say("size", content.size.into());
        say("sha256", content.digest.trim_start_matches("sha256:").into());
    }
    if let Some(link) = &file.link {
        say("link", show(link).into());
    }
    if let Some((major, minor)) = file.device {
        say("dev", json!([major, minor]));
    }
    if !file.xattrs.is_empty() {
        say(
            "xattrs",
            file.xattrs.iter().map(|(name, value)| (name.clone(), Value::from(hex::encode(value)))).collect(),
        );
    }
    if !file.hardlinks.is_empty() {
        say("hardlinks", file.hardlinks.iter().map(|name| Value::from(show(name))).collect());
    }
    if mtimes {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let of_build = file.mtime.abs_diff(now.cast_signed()) < TIME_OF_BUILD_SECONDS;
        say("mtime", if of_build { Value::Null } else { file.mtime.into() });
    }
    said
}

fn belongs_to_runtime(name: &[u8]) -> bool {
    RUNTIME_FILES.contains(&name)
        || RUNTIME_TREES.iter().any(|tree| name.strip_prefix(*tree).is_some_and(|rest| matches!(rest, [] | [b'/', ..])))
}

fn compare_trees(case: &Case, actual: &BTreeMap<Name, Value>, found: &mut Vec<String>) {
    let mut expected = BTreeMap::new();
    for entry in case.expected()["entries"].as_array().into_iter().flatten() {
        let name = match entry["path_hex"].as_str() {
            Some(path) => hex::decode(path).expect("path_hex is hexadecimal"),
            None => entry["path"].as_str().expect("an entry has a path").as_bytes().to_vec(),
        };
        let mut entry = entry.as_object().expect("an entry is an object").clone();
        for comment in ["path", "path_hex", "fields", "text"] {
            entry.remove(comment);
        }
        expected.insert(name, Value::Object(entry));
    }
    let names: BTreeSet<&Name> = expected.keys().chain(actual.keys()).collect();
    for name in names {
        match (expected.get(name), actual.get(name)) {
            (Some(expected), None) => found.push(format!("{}: missing: {expected}", show(name))),
            (None, Some(actual)) => found.push(format!("{}: not expected: {actual}", show(name))),
            (Some(expected), Some(actual)) => compare_entry(name, expected, actual, found),
            (None, None) => {}
        }
    }
}

fn compare_entry(name: &[u8], expected: &Value, actual: &Value, found: &mut Vec<String>) {
    let keys = |value| Value::as_object(value).into_iter().flat_map(Map::keys).collect::<BTreeSet<&String>>();
    for key in keys(expected).union(&keys(actual)).copied() {
        // null: the time of the build, on which builders may differ
        let any_time = key == "mtime" && expected[key].is_null();
        if !any_time && expected[key] != actual[key] {
            found.push(format!("{}: {key}: expected {}, found {}", show(name), expected[key], actual[key]));
        }
    }
}

fn compare_config(expected: &Value, config: &Value, found: &mut Vec<String>) {
    for field in CONFIG_FIELDS {
        let [expected, actual] = [&expected["config"], &config["config"]].map(|one| canonical(field, &one[field]));
        if expected != actual {
            found.push(format!("config {field}: expected {expected}, found {actual}"));
        }
    }
    for field in ["architecture", "os", "variant", "author"] {
        let [expected, actual] = [expected, config].map(|one| canonical(field, &one[field]));
        if expected != actual {
            found.push(format!("{field}: expected {expected}, found {actual}"));
        }
    }
}

/// Missing and empty are the same; so are `/` and no directory, `/a` and `/a/`.
fn canonical(field: &str, value: &Value) -> Value {
    match value {
        Value::String(text) if field == "WorkingDir" => canonical("", &text.trim_end_matches('/').into()),
        Value::String(text) if text.is_empty() => Value::Null,
        Value::Array(list) if list.is_empty() => Value::Null,
        Value::Object(map) if map.is_empty() => Value::Null,
        other => other.clone(),
    }
}

/// One history entry for every instruction, and one that is no `empty_layer` for every layer.
fn compare_history(expected: &Value, image: &FlatImage, found: &mut Vec<String>) {
    let entries = |value: &Value| value["history"].as_array().cloned().unwrap_or_default();
    let (expected, actual) = (entries(expected), entries(&image.config));
    if expected.len() != actual.len() {
        let texts: Vec<&str> = actual.iter().filter_map(|entry| entry["created_by"].as_str()).collect();
        found.push(format!("history: expected {} entries, found {texts:?}", expected.len()));
    }
    let layers = actual.iter().filter(|entry| entry["empty_layer"] != true).count();
    if layers != image.diff_ids.len() {
        found.push(format!("history speaks of {layers} layers, there are {}", image.diff_ids.len()));
    }
}
