//! Snapshots by kernel events in real containers: whoever watches, the image is the same, and a walk over every file
//! agrees.

use std::fs;

use crate::support::podman::DOCKER_CAPABILITIES;
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
