//! Snapshots by kernel events in real containers, and in isolated roots: whoever watches, the image is the same, and a walk over every file
//! agrees.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::support::command::run;
use crate::support::machine::{Machine, build};
use crate::support::podman::DOCKER_CAPABILITIES;
use crate::support::skip;
use crate::support::world::World;

/// RUNs that change little, much, by other names, and behind the back of whoever watches single directories.
const DOCKERFILE: &str = "\
FROM busybox:base AS first
RUN mkdir /made /gone && echo 1 >/made/a && echo 2 >/gone/b
FROM busybox:base
COPY --from=first /made /made
RUN echo changed >/etc/motd && chmod 600 /etc/passwd
RUN mkdir -p /new/deep && seq 1 100 | while read n; do echo $n >/new/deep/$n; done
RUN echo small >/new/deep/5 && rm /new/deep/6 && echo more >>/made/a
RUN ln /new/deep/7 /new/link && mkdir /t && ln /new/deep/8 /t/hidden && echo hidden >/t/hidden && rm -r /t
RUN mv /new/deep /moved && mkdir /new/deep && echo other >/new/deep/1
RUN echo through >/new/link && touch /kaniko/mark && ln /moved/9 /kaniko/kept
RUN echo kept >/kaniko/kept && rm /kaniko/kept /kaniko/mark
COPY Dockerfile /copied/
RUN (sleep 1; echo late >/copied/late) & echo early >/copied/early
WORKDIR /copied/below
RUN echo here >here && rm -rf /moved
";

#[test]
fn whoever_watches_finds_the_same() {
    let Some(world) = World::with_busybox() else { return };
    let context = world.context("trackers", DOCKERFILE);
    let unconfined = "--security-opt=seccomp=unconfined";
    let build = |name: &str, options: &[&str], tracker: &str| {
        let folder = world.scratch.path().join(name);
        fs::create_dir(&folder).expect("created");
        let result = format!("{}:/result", folder.display());
        let options: Vec<&str> = [DOCKER_CAPABILITIES, "-v", &result].iter().chain(options).copied().collect();
        let tracker = format!("--change-tracker={tracker}");
        let flags = ["--no-push", "--reproducible", "--digest-file=/result/digest", "--destination=test/trackers"];
        let flags: Vec<&str> = flags.iter().chain(&[&*tracker, "--verify-snapshots"]).copied().collect();
        let ended = world.build(&context, &options, &flags);
        let log = ended.stderr.clone();
        ended.success(name);
        (fs::read_to_string(folder.join("digest")).expect("written"), log)
    };
    let (digest, log) = build("walk", &[], "walk");
    assert!(log.contains("Changes are tracked by walk"), "{log}");
    for (name, options, tracker, by) in [
        ("auto", [].as_slice(), "auto", "inotify; not by fanotify for the file system: the kernel refuses to watch"),
        ("inotify", &[], "inotify", "inotify"),
        (
            "fanotify is refused",
            &[],
            "fanotify",
            "walk; not by fanotify for the file system: the kernel refuses to watch",
        ),
        ("auto, unconfined", &[unconfined], "auto", "fanotify for each directory; not by fanotify for the file system"),
        ("fanotify", &[unconfined], "fanotify", "fanotify for each directory; not by fanotify for the file system"),
        // An overlay's handles cannot be opened.
        ("privileged", &["--privileged"], "auto", "fanotify for each directory; not by fanotify for the file system"),
    ] {
        let (other, log) = build(name, options, tracker);
        assert_eq!(other, digest, "{name}: {log}");
        assert!(log.contains(&format!("Changes are tracked by {by}")), "{name}: {log}");
        // One line for each RUN; most of them need no more than the list.
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("paths looked at")).collect();
        assert_eq!(lines.len(), 10, "{name}: {log}");
        let listed = lines.iter().filter(|line| !line.contains("because")).count();
        assert_eq!(listed, if by.starts_with("walk") { 0 } else { 5 }, "{name}: {lines:#?}");
    }
}

/// Mounts that come and go while the command runs, and one that it leaves behind.
#[test]
fn mounts_hide_nothing() {
    let Some(world) = World::with_busybox() else { return };
    let dockerfile = "\
FROM busybox:base
RUN mkdir /m && mount -t tmpfs none /m && mkdir /m/deep && mount -t tmpfs none /m/deep && echo lost >/m/deep/x
RUN test -z \"$(ls /m)\" && mount --bind /etc /m && echo bound >/m/motd && umount /m
RUN grep bound /etc/motd
";
    let context = world.context("mounts", dockerfile);
    let flags = ["--no-push", "--destination=test/mounts", "--verify-snapshots", "--change-tracker=auto"];
    let ended = world.build(&context, &["--privileged"], &flags);
    let log = ended.stderr.clone();
    ended.success("mounts");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("paths looked at")).collect();
    assert_eq!(lines.len(), 3, "{log}");
    let walked = lines.iter().map(|line| line.contains("walked, because mounts came or went"));
    assert_eq!(walked.collect::<Vec<_>>(), [true, true, false], "{lines:#?}");
    assert!(log.contains("unmounting /m/deep") && log.contains("unmounting /m,"), "{log}");
    assert!(lines[0].contains(" 1 paths changed") && lines[1].contains(" 2 paths changed"), "{lines:#?}");
}

/// What the engine has mounted cannot be mounted again by us, and its place is none of the image's.
#[test]
fn mounts_that_are_moved_are_refused_in_place() {
    let Some(world) = World::with_busybox() else { return };
    let context = world.context("moved", "FROM busybox:base\nRUN mv /data /moved\n");
    let volume = format!("{}:/data/volume", context.display());
    for option in [DOCKER_CAPABILITIES, "--privileged"] {
        let ended = world.build(&context, &[option, "-v", &volume], &["--no-push", "--destination=test/moved"]);
        let words =
            "RUN mv /data /moved: keep what is mounted at /data/volume in the root: the command has moved it to ";
        assert!(ended.code == Some(1) && ended.stderr.contains(words), "{option}: {}", ended.stderr);
    }
}

/// In an isolated root there is no work directory of ours, and nothing has to be waited for twice.
#[test]
fn whoever_watches_an_isolated_root_finds_the_same() {
    let (Some(world), Some(machine)) = (World::with_busybox(), Machine::new()) else { return };
    let lines = DOCKERFILE.lines().filter(|line| !line.contains("/kaniko") && !line.contains("sleep"));
    let context = machine.context("context", &lines.map(|line| format!("{line}\n")).collect::<String>());
    let build = |name: &str, tracker: &str| {
        let home = machine.own(&format!("{name}-{tracker}"));
        let mut command = match name {
            "root" => machine.as_root(&home),
            _ => machine.as_user(&home, Some(&machine.path("ids"))),
        };
        let digest = home.join("digest");
        let flags = [format!("--change-tracker={tracker}"), format!("--digest-file={}", digest.display())];
        let flags = ["--reproducible", "--verify-snapshots", &flags[0], &flags[1]];
        let ended = build(&mut command, &world, &context, &flags).success(name);
        (fs::read_to_string(digest).expect("written"), ended.stderr)
    };
    let (digest, log) = build("root", "walk");
    assert!(log.contains("Changes are tracked by walk"), "{log}");
    for (name, tracker, by) in [
        ("root", "auto", ["fanotify", "inotify"].as_slice()),
        ("user", "auto", &["fanotify for each directory", "inotify"]),
        ("user", "inotify", &["inotify"]),
        ("user", "walk", &["walk"]),
    ] {
        let (other, log) = build(name, tracker);
        assert_eq!(other, digest, "{name}, {tracker}: {log}");
        assert!(by.iter().any(|by| log.contains(&format!("Changes are tracked by {by}"))), "{name}, {tracker}: {log}");
    }
}

/// The contract of all trackers, as a command sees it that root or a plain user runs in an isolated root.
#[test]
fn the_contract_holds_in_an_isolated_root() {
    let (Some(world), Some(machine)) = (World::with_busybox(), Machine::new()) else { return };
    let Some(tests) = unit_tests() else { return skip("unit tests", "they are not compiled") };
    let dockerfile = "\
FROM busybox:base
COPY tests /
WORKDIR /tmp
RUN [\"/tests\", \"snapshot::tests::contract\", \"--nocapture\"]
";
    let context = machine.context("context", dockerfile);
    run(Command::new("strip").arg("-o").arg(context.join("tests")).arg(tests));
    fs::set_permissions(context.join("tests"), fs::Permissions::from_mode(0o755)).expect("set");
    for (name, mut command, has_devices) in [
        ("root", machine.as_root(&machine.own("root")), true),
        ("user", machine.as_user(&machine.own("user"), Some(&machine.path("ids"))), false),
    ] {
        let ended = build(&mut command, &world, &context, &[]);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        ended.success(name);
        assert!(said.contains("test result: ok. 5 passed; 0 failed"), "{name}: {said}");
        let skipped =
            |what: &str| said.lines().filter(|line| line.contains("skipped: ") && line.contains(what)).count();
        assert_eq!(skipped("mknod is refused") == 0, has_devices, "{name}: {said}");
        assert_eq!(skipped("need root"), 0, "{name}: {said}");
        // no command may watch a whole file system; whether it may watch directories with fanotify, the machine decides
        match skipped("the kernel refuses to watch") {
            1 => {}
            2 => skip("fanotify", "the kernel refuses to watch directories"),
            _ => panic!("{name}: {said}"),
        }
    }
}

/// The program of the library's own tests that was compiled last; it lies beside this one.
fn unit_tests() -> Option<PathBuf> {
    let ourselves = std::env::current_exe().expect("a proc file system");
    let beside = fs::read_dir(ourselves.parent().expect("in a directory")).expect("read");
    let programs = beside.map(|entry| entry.expect("read").path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("kanna-") && path.extension().is_none()
    });
    programs.max_by_key(|path| fs::metadata(path).and_then(|metadata| metadata.modified()).expect("there"))
}
