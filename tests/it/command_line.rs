//! The executor as a process: what it prints where, and how it ends. Nothing here gets as far as a build.

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn executor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_executor"))
        .args(arguments)
        .env_clear()
        // outside a container, the directory to work in is below it
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .output()
        .expect("the executor runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// After a change that is meant, the new text is what this test prints.
#[test]
fn help() {
    let output = executor(&["--help"]);
    assert!(output.status.success());
    assert!(output.stderr.is_empty());
    let help = text(&output.stdout);
    assert!(help == include_str!("golden/executor-help.txt"), "the help is another one:\n{help}");
}

#[test]
fn version() {
    let output = executor(&["version"]);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), format!("kanna version {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn flag_errors_are_on_standard_error_with_the_usage() {
    for (arguments, first_line) in [
        (&[][..], "Error: you must provide --destination, or use --no-push"),
        (&["--destinaton=a"], "Error: unexpected argument '--destinaton' found"),
        (&["--no-push", "--cache"], "Error: --cache: the layer cache is not supported yet"),
        (&["--no-push", "--snapshot-mode=fast"], "Error: invalid value \"fast\" for --snapshot-mode: "),
        (&["--no-push", "--secret=id=a"], "Error: --secret: a build secret is not supported yet"),
        (
            &["--no-push", "--cache", "false"],
            "Error: unrecognized subcommand 'false'\nhint: a flag that is on or off has its",
        ),
        (
            &["--no-push", "--destination=Team/app"],
            "Error: invalid value \"Team/app\" for --destination: repository name",
        ),
        (&["--no-push=maybe"], "Error: invalid value 'maybe' for '--no-push[=<BOOL>]': neither true nor false"),
    ] {
        let output = executor(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        let told = text(&output.stderr);
        assert!(told.starts_with(first_line), "{arguments:?}: {told}");
        assert!(told.contains("--help"), "{arguments:?}: {told}");
    }
}

#[test]
fn where_a_dockerfile_is_looked_for() {
    let place = tempfile::tempdir().expect("a directory");
    let check = |file: Option<&str>, typed: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_executor"));
        command.current_dir("/").args(["--call=check", "--build-arg=BUILDKIT_INLINE_CACHE=1", "--build-arg=OTHER=1"]);
        command.arg(format!("--context={}", place.path().display())).args(file);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        // who does not want it does not read it
        let _ = child.stdin.take().expect("piped").write_all(typed.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        (output.status.success(), text(&output.stderr))
    };
    let (fine, told) = check(Some("--dockerfile=-"), "FROM scratch\n");
    assert!(fine && told.contains("build-args [OTHER] were not consumed"), "{told}");
    let (fine, told) = check(Some("--dockerfile=-"), "FROM scratch\nCOPPY a b\n");
    assert!(!fine && told.contains("line 2") && told.contains("COPY"), "{told}");
    let (fine, told) = check(None, "");
    assert!(!fine && told.contains("the Dockerfile Dockerfile is neither"), "{told}");
    std::fs::write(place.path().join("Containerfile"), "FROM scratch\n").expect("written");
    assert!(check(None, "").0);
    std::fs::write(place.path().join("Dockerfile"), "FORM scratch\n").expect("written");
    assert!(!check(None, "").0, "Dockerfile goes first");
    assert!(check(Some("--dockerfile=Containerfile"), "").0);
    // where there is a pipe, what it says is read once
    let fifo = place.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("created");
    for (said, is_fine) in [("FROM scratch\n", true), ("FROM scratch\nCOPPY a b\n", false)] {
        let writer = std::thread::spawn({
            let fifo = fifo.clone();
            move || std::fs::write(fifo, said)
        });
        let (fine, told) = check(Some(&format!("--dockerfile={}", fifo.display())), "");
        assert!(fine == is_fine && told.contains("COPPY") != is_fine, "{told}");
        writer.join().expect("it ends").expect("written");
    }
}

/// A job of a CI runner that has no home.
#[test]
fn a_check_needs_no_directory_to_work_in() {
    let context = tempfile::tempdir().expect("a directory");
    std::fs::write(context.path().join("Dockerfile"), "FROM scratch\n").expect("written");
    let executor = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_executor"));
        command.env_clear().args(["--isolation=namespaces", "--no-push", "--context"]).arg(context.path()).args(flags);
        let output = command.output().expect("it runs");
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let checked = (Some(0), "Check complete, no errors found.\n".to_owned(), String::new());
    assert_eq!(executor(&["--call=check"]), checked);
    let (code, _, told) = executor(&[]);
    let wanted = "Error: neither XDG_CACHE_HOME nor HOME names a directory to work in: give one with --kaniko-dir\n";
    assert!(code == Some(1) && told.starts_with(wanted), "{code:?}: {told}");
}

#[test]
fn a_program_that_is_not_there_yet_says_so() {
    let output = Command::new(env!("CARGO_BIN_EXE_warmer")).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("Error: the "));
}
