//! The pages of `docs/` name tests that are there.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

#[test]
fn faults_and_lies_are_shown_by_tests_that_are_there() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let faults = fs::read_to_string(repository.join("docs/faults.md")).expect("there");
    let lies = fs::read_to_string(repository.join("docs/lies.md")).expect("there");
    // what follows are tables that the tests of `lies` make
    let (lies, _) = lies.split_once("<!-- ").expect("a mark");
    let page = format!("{faults}{lies}");
    let named = Regex::new(r"`((?:[a-z_]+::)+)([a-z_]+)`").expect("a pattern");
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.ends_with("| shown by |"));
    let unshown: Vec<&str> = rows.filter(|row| !named.is_match(row)).collect();
    assert!(unshown.is_empty(), "{unshown:?}");
    let mut count = 0;
    for (whole, [place, test]) in named.captures_iter(&page).map(|captures| captures.extract()) {
        let parts: Vec<&str> = place.split("::").filter(|part| !part.is_empty()).collect();
        let file: PathBuf = match &parts[..] {
            [module] => repository.join("tests/it").join(module),
            [rooms @ .., "tests"] => repository.join("src").join(rooms.join("/")),
            _ => panic!("{whole} is in no place for tests"),
        };
        let text = fs::read_to_string(file.with_extension("rs")).unwrap_or_else(|error| panic!("{whole}: {error}"));
        let is_test = Regex::new(&format!(r"#\[test\]\n(?:#\[ignore.*\n)? *fn {test}\(\)")).expect("a pattern");
        assert!(is_test.is_match(&text), "{whole}");
        count += 1;
    }
    assert!(count > 30, "{count}");
}
