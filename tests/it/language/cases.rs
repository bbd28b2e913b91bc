//! Files of named cases:
//!
//! ```text
//! ==== a name
//! FROM scratch
//! ---- arguments
//! --target=x
//! ---- refused
//! what must come of it
//! ```
//!
//! What comes first below the name is the Dockerfile. `---- arguments` may follow, a line for each, and `---- image NAME`
//! with the config of a base image; the last section is what must come of it.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// A case, and what must come of it.
#[derive(Default)]
pub struct Case {
    pub name: String,
    pub dockerfile: String,
    pub arguments: Vec<String>,
    /// Names and configs (JSON) of images.
    pub images: Vec<(String, String)>,
    pub expected: Outcome,
}

/// What comes of a case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// `planned`, `refused`, …
    pub verdict: String,
    pub text: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dockerfiles")
}

/// The files of cases in a subfolder, without their extension.
pub fn files(subfolder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join(subfolder)).expect("the folder of cases");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// The cases of one file.
pub fn read(file: &Path) -> Vec<Case> {
    let text = fs::read_to_string(file).expect("the cases");
    let (_, cases) = text.split_once("==== ").expect("a case");
    cases.split("\n==== ").map(case).collect()
}

fn case(text: &str) -> Case {
    let (name, rest) = text.split_once('\n').unwrap_or((text, ""));
    let mut sections = rest.split("---- ").map(whole_lines);
    let mut case =
        Case { name: name.to_owned(), dockerfile: sections.next().expect("a Dockerfile"), ..Case::default() };
    for section in sections {
        let (title, body) = section.split_once('\n').expect("a title and what is below it");
        match title.split_once(' ') {
            None if title == "arguments" => case.arguments = body.lines().map(str::to_owned).collect(),
            Some(("image", image)) => case.images.push((image.to_owned(), body.to_owned())),
            _ => case.expected = Outcome { verdict: title.to_owned(), text: body.trim_end().to_owned() },
        }
    }
    case
}

/// The split took the last newline of a case.
fn whole_lines(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

/// Compares what came of the cases of a file; with `KANNA_BLESS` what came is written there.
pub fn judge(file: &Path, judged: &[(Case, Outcome)]) {
    if env::var_os("KANNA_BLESS").is_some() {
        return fs::write(file, written(file, judged)).expect("the cases can be written");
    }
    let wrong: Vec<String> = judged
        .iter()
        .filter(|(case, outcome)| case.expected != *outcome)
        .map(|(case, outcome)| {
            let Outcome { verdict, text } = outcome;
            let Outcome { verdict: meant, text: meant_text } = &case.expected;
            format!("{}: {verdict}\n{text}\n  instead of {meant}\n{meant_text}\n", case.name)
        })
        .collect();
    assert!(wrong.is_empty(), "{}: {} cases\n\n{}", file.display(), wrong.len(), wrong.join("\n"));
}

/// What stands before the first case stays.
fn written(file: &Path, judged: &[(Case, Outcome)]) -> String {
    let old = fs::read_to_string(file).expect("the cases");
    let mut text = old.split("==== ").next().unwrap_or_default().to_owned();
    for (case, outcome) in judged {
        let mut write = |line: std::fmt::Arguments<'_>| text.write_fmt(line).expect("a string takes it");
        write(format_args!("==== {}\n{}", case.name, case.dockerfile));
        if !case.arguments.is_empty() {
            write(format_args!("---- arguments\n{}\n", case.arguments.join("\n")));
        }
        for (name, config) in &case.images {
            write(format_args!("---- image {name}\n{config}"));
        }
        write(format_args!("---- {}\n{}\n", outcome.verdict, outcome.text));
    }
    text
}
