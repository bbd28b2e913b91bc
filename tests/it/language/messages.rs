//! Wrong Dockerfiles as a new user writes them: all that the executor says, and that it ends with 1 before any work.

use std::fs;
use std::process::{Command, Stdio};

use super::cases::{self, Case, Outcome};

#[test]
fn wrong_dockerfiles_are_told_what_to_do() {
    let mut count = 0;
    for file in cases::files("wrong") {
        let judged: Vec<_> = cases::read(&file)
            .into_iter()
            .map(|case| {
                let outcome = checked(&case);
                (case, outcome)
            })
            .collect();
        count += judged.len();
        cases::judge(&file, &judged);
    }
    assert!(count >= 30, "{count} cases");
}

/// `--call=check` in a fresh directory, outside of any container.
fn checked(case: &Case) -> Outcome {
    let context = tempfile::tempdir().expect("a directory");
    fs::write(context.path().join("Dockerfile"), &case.dockerfile).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_executor"))
        .args(["--call=check", "--context=.", "--log-format=text"])
        .args(&case.arguments)
        .current_dir(context.path())
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .expect("the executor runs");
    let left = fs::read_dir(context.path()).expect("still there").count();
    assert_eq!(left, 1, "{}: a check writes nothing", case.name);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let timeless = |line: &str| match line.split_once(" level=") {
        Some((_, rest)) if line.starts_with("time=") => format!("level={rest}\n"),
        _ => format!("{line}\n"),
    };
    let told: String = text(output.stderr).lines().chain(text(output.stdout).lines()).map(timeless).collect();
    Outcome {
        verdict: format!("exit {}", output.status.code().expect("an exit code")),
        text: told.trim_end().to_owned(),
    }
}
