//! The image of every Dockerfile in `tests/conformance/` equals what BuildKit makes of it (its README.md says how the
//! cases are to be read). Each is built by the executor in place, in a fresh, ordinary container; a spread of those that
//! make an image is built in an isolated root too, by root and by a plain user.
//!
//! `KANNA_CASES=copy-*,run-user` builds only those; `KANNA_CASES=*` builds all, whoever builds. What a failed case left in
//! place is kept in the target directory.

mod case;
mod compare;
mod lists;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use self::case::{Case, Outcome};
use crate::support::flat::{self, Tree};
use crate::support::machine::Machine;
use crate::support::podman::Podman;
use crate::support::registry::Registry;
use crate::support::{folder, layout, scratch, skip};

/// Cases that are built at the same time.
const WORKERS: usize = 2;

/// The variable that chooses cases.
const CHOICE: &str = "KANNA_CASES";

/// In isolated roots, one of so many cases is built where nobody asks for all.
const SPREAD: usize = 16;

/// What all cases share.
pub struct Bench {
    builder: Builder,
    registry: Registry,
    base: Base,
}

/// Who builds, and where.
pub enum Builder {
    /// The executor on the root of a container of its own.
    InPlace(&'static Podman),
    /// Root, in an isolated root.
    AsRoot(Machine),
    /// A plain user to whom ids are lent, in an isolated root.
    AsUser(Machine),
}

/// The image under the cases.
pub struct Base {
    diff_id: String,
    tree: Tree,
}

/// How a case ended, or rather what is wrong with it.
type Verdict = Result<(), Vec<String>>;

/// The folder with the cases and their base image.
fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

#[test]
fn images_equal_what_buildkit_makes() {
    let podman = match Podman::probe() {
        Ok(podman) => podman,
        Err(reason) => return skip("containers", &reason),
    };
    podman.executor_image();
    build_all(Builder::InPlace(podman), &chosen_cases());
}

#[test]
fn images_of_root_in_an_isolated_root() {
    let Some(machine) = Machine::new() else { return };
    build_all(Builder::AsRoot(machine), &spread_from(0));
}

#[test]
fn images_of_a_plain_user_in_an_isolated_root() {
    let Some(machine) = Machine::new() else { return };
    build_all(Builder::AsUser(machine), &spread_from(SPREAD / 2));
}

/// The chosen cases; where none were chosen, one in [`SPREAD`] of those that make an image.
fn spread_from(first: usize) -> Vec<Case> {
    if std::env::var_os(CHOICE).is_some() {
        return chosen_cases();
    }
    let cases = chosen_cases().into_iter().filter(|case| !case.must_fail() && !is_refused(case, None));
    cases.skip(first).step_by(SPREAD).collect()
}

/// Builds cases and judges them.
fn build_all(builder: Builder, cases: &[Case]) {
    let started = Instant::now();
    let bench = Bench { builder, registry: Registry::start(), base: read_base() };
    publish_bases(&bench.registry);

    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(reasons) = judge(case, &bench) {
                        wrong.lock().unwrap_or_else(PoisonError::into_inner).push((case.name.clone(), reasons));
                    }
                }
            });
        }
    });

    let mut wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    wrong.sort();
    let seconds = started.elapsed().as_secs();
    println!("{} cases in {seconds} s: {} right, {} wrong", cases.len(), cases.len() - wrong.len(), wrong.len());
    for (name, reasons) in &wrong {
        println!("{name}:\n    {}", reasons.join("\n    "));
    }
    let names: Vec<&str> = wrong.iter().map(|(name, _)| name.as_str()).collect();
    assert!(wrong.is_empty(), "{} cases are wrong: {}", wrong.len(), names.join(" "));
}

/// The lists name cases that exist, once each.
#[test]
fn lists_are_about_cases() {
    let lists = [lists::LATER, lists::STRICTER, lists::OF_ROOT, lists::ACCEPTED];
    let names: Vec<&str> = lists.into_iter().flatten().map(|listed| listed.name).collect();
    for name in &names {
        assert!(reference().join("cases").join(name).is_dir(), "no case is called {name:?}");
        assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{name} is listed twice");
    }
}

fn chosen_cases() -> Vec<Case> {
    let patterns = std::env::var(CHOICE).unwrap_or_else(|_| "*".into());
    let mut names: Vec<String> = fs::read_dir(reference().join("cases"))
        .expect("the cases are there")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("names are plain"))
        .filter(|name| patterns.split(',').any(|pattern| matches(pattern, name)))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no case matches {patterns:?}");
    names.into_iter().map(|name| Case::read(&reference(), name)).collect()
}

/// Whether a name matches a pattern, in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name
            .strip_prefix(before)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))),
    }
}

fn read_base() -> Base {
    let tar = fs::read(reference().join("base/base.tar")).expect("the base is there");
    let tree = flat::flatten(&[&tar]).expect("the base is sound");
    Base { diff_id: kanna::oci::Digest::of(&tar).to_string(), tree }
}

fn publish_bases(registry: &Registry) {
    let folder_of_base = reference().join("base");
    let tar = fs::read(folder_of_base.join("base.tar")).expect("the base is there");
    for name in ["base", "base-onbuild", "base-full"] {
        let config = fs::read(folder_of_base.join(format!("{name}.json"))).expect("its config is there");
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        let layout = scratch();
        layout::write(layout.path(), &tar, config);
        layout::push(layout.path(), registry, &format!("library/{name}:latest"));
    }
}

/// Must it be refused, although BuildKit builds it? By anybody, or by this one.
fn is_refused(case: &Case, builder: Option<&Builder>) -> bool {
    let of_root = if let Some(Builder::AsUser(_)) = builder { lists::OF_ROOT } else { &[] };
    let lists = [lists::LATER, lists::STRICTER, of_root];
    lists.into_iter().flatten().any(|listed| listed.name == case.name)
}

/// Builds a case and says what is wrong with the result.
fn judge(case: &Case, bench: &Bench) -> Verdict {
    let scratch = match &bench.builder {
        Builder::InPlace(_) => folder("conformance").join(&case.name),
        Builder::AsRoot(machine) | Builder::AsUser(machine) => machine.path(&case.name),
    };
    // of an earlier run, if that one failed
    let _ = fs::remove_dir_all(&scratch);
    case.prepare(&scratch).map_err(|error| vec![error])?;
    let outcome = case.build(&scratch, bench);
    let refused = is_refused(case, Some(&bench.builder));
    match outcome {
        Outcome::Broken(reason) => return Err(vec![reason]),
        Outcome::Refused(message) if refused || case.must_fail() => println!("{}: {message}", case.name),
        Outcome::Refused(message) => return Err(vec![format!("refused: {message}")]),
        Outcome::Image(_) if case.must_fail() => return Err(vec!["builds, but must fail".into()]),
        Outcome::Image(image) => {
            let differences = compare::differences(case, &image, &bench.base);
            match (refused, differences.is_empty()) {
                (false, true) => {}
                (true, true) => return Err(vec!["right, though it is listed as refused: take it off the list".into()]),
                (false, false) => return Err(differences),
                (true, false) => {
                    return Err([vec!["listed, but not refused".into()], differences].concat());
                }
            }
        }
    }
    let _ = fs::remove_dir_all(&scratch);
    Ok(())
}
