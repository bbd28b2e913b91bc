//! Stages that are built at the same time: the image does not depend on how many, and nothing of one gets into another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::machine::{LIMIT, Machine, assert_nothing_left, build, build_command, processes_with};
use crate::support::world::World;

/// Stages on stages, on images and on nothing, copied from in both ways; commands that make, change, link and remove files
/// while others do; and in the end a list of all that is in the root.
const DIAMOND: &str = "\
FROM busybox:base AS base
RUN mkdir -p /shared/empty && echo base >/shared/file && ln /shared/file /shared/link

FROM base AS left
RUN for i in $(seq 60); do echo $i >/shared/$i; mv /shared/$i /shared/left; ln /shared/left /shared/again; rm /shared/again; done
RUN mkdir /shared/new && cp /shared/left /shared/new/ && rm /shared/link

FROM base AS right
COPY --from=busybox:base /etc/motd /right/
RUN for i in $(seq 60); do mkdir -p /right/$i; echo $i >/right/$i/file; done; rm -rf /right/1*; chmod 700 /shared /etc
RUN echo right >/right/file

FROM scratch AS alone
COPY Dockerfile /

FROM busybox:base AS beside
COPY --from=busybox:base /etc/motd /etc/passwd /beside/
RUN for i in $(seq 300); do echo $i >/beside/$i; done; rm -rf /etc/passwd /var; mkdir /only-here

FROM base AS named
ENV NAME=value

FROM scratch AS bare
COPY --from=busybox:base /bin /bin
RUN chmod 700 /etc && chown 3:4 /etc && mkdir /etc/own

FROM scratch AS barer
COPY --from=busybox:base /bin /bin
RUN stat -c '%n %a %u %g' / /etc >/etc.list; ls /etc >>/etc.list

FROM busybox:base
COPY --from=left /shared /left
COPY --from=right /right /shared /right/
COPY --from=alone / /alone/
COPY --from=beside /beside /beside
COPY --from=named /shared/empty /named
COPY --from=bare /etc/own /own
COPY --from=barer /etc.list /
RUN find / -xdev >/found; grep -v -E '^/(proc|sys|dev)' /found | sort | xargs stat -c '%n %a %u %g %h' >/list; cat /list
";

#[test]
fn the_image_does_not_depend_on_how_many_stages_are_built_at_the_same_time() {
    let (Some(world), Some(machine)) = (World::with_busybox(), Machine::new()) else { return };
    let context = machine.context("context", DIAMOND);
    let (mut digests, mut lists) = (BTreeMap::new(), BTreeMap::new());
    for (name, is_root) in [("root-1", true), ("root-8", true), ("user-2", false)] {
        let home = machine.own(name);
        let digest = home.join("digest");
        let mut command =
            if is_root { machine.as_root(&home) } else { machine.as_user(&home, Some(&machine.path("ids"))) };
        let jobs = format!("--jobs={}", &name[5..]);
        let flags = ["--reproducible", "--verify-snapshots", &jobs, &format!("--digest-file={}", digest.display())];
        let ended = build(&mut command, &world, &context, &flags).success(name);
        // what the last command found in its root
        let list = ended.stdout.lines().map(|line| line.rsplit("] ").next().unwrap_or_default().to_owned());
        lists.insert(name, list.collect::<BTreeSet<String>>());
        let differences: Vec<_> = lists["root-1"].symmetric_difference(&lists[name]).collect();
        assert!(differences.is_empty(), "{name}: {differences:#?}");
        digests.insert(name, fs::read_to_string(digest).expect("written"));
        assert_nothing_left(&home);
    }
    let first = &digests["root-1"];
    assert!(first.starts_with("sha256:") && digests.values().all(|digest| digest == first), "{digests:#?}");
}

#[test]
fn a_stage_that_fails_ends_the_others() {
    let (Some(world), Some(machine)) = (World::with_busybox(), Machine::new()) else { return };
    let word = format!("{}", 8_000_000 + std::process::id());
    let dockerfile = format!(
        "FROM busybox:base AS slow\nRUN trap '' TERM; (setsid sleep {word} &); sleep {word}\n\
         FROM busybox:base AS failing\nRUN sleep 1; echo failing; exit 42\n\
         FROM busybox:base AS later\nRUN echo later\n\
         FROM scratch\nCOPY --from=slow /a /a\nCOPY --from=failing /b /b\nCOPY --from=later /c /c\n"
    );
    let context = machine.context("context", &dockerfile);
    let home = machine.own("home");
    let ended = build(&mut machine.as_root(&home), &world, &context, &["--jobs=2"]);
    assert_eq!((ended.code, ended.timed_out), (Some(42), false), "{}", ended.stderr);
    let error = "error building image: dockerfile line 4: RUN sleep 1; echo failing; exit 42: ";
    assert!(ended.stderr.lines().any(|line| line.starts_with(error)), "{}", ended.stderr);
    assert!(!ended.stdout.contains("later"), "{}", ended.stdout);
    assert!(processes_with(&word).is_empty(), "{:?}", processes_with(&word));
    assert_nothing_left(&home);
}

#[test]
fn a_signal_ends_all_stages() {
    let (Some(world), Some(machine)) = (World::with_busybox(), Machine::new()) else { return };
    let word = format!("{}", 9_000_000 + std::process::id());
    // one ends at once, the other in its own time
    let dockerfile = format!(
        "FROM busybox:base AS one\nRUN (setsid sleep {word} &) ; sleep {word}\n\
         FROM busybox:base AS two\nRUN trap 'sleep 1; echo goodbye; exit 3' TERM; (setsid sleep {word} &); sleep {word} & wait\n\
         FROM scratch\nCOPY --from=one /a /\nCOPY --from=two /b /\n"
    );
    let context = machine.context("context", &dockerfile);
    let home = machine.own("home");
    let mut command = machine.as_root(&home);
    build_command(&mut command, &world, &context).arg("--jobs=2");
    let output = machine.path("output");
    let stdout = fs::File::create(&output).expect("created");
    let mut child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null()).spawn().expect("started");
    let begun = Instant::now();
    while processes_with(&format!("sleep\0{word}")).len() < 4 {
        assert!(begun.elapsed() < LIMIT && child.try_wait().expect("ours").is_none(), "the commands did not start");
        thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
    assert_eq!(child.wait().expect("ended").code(), Some(143));
    assert_eq!(fs::read_to_string(&output).expect("written"), "[two 1/1] goodbye\n");
    assert!(processes_with(&word).is_empty(), "{:?}", processes_with(&word));
    assert_nothing_left(&home);
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("a proc file system");
    assert!(!mounts.contains(&home.display().to_string()), "{mounts}");
}

const TOLD: &str = "\
FROM busybox:base AS one
ENV A=b
RUN echo from one; echo error of one >&2; printf 'no end'
FROM busybox:base
RUN echo from the second
FROM scratch
COPY --from=one /etc/motd /one
COPY --from=1 /etc/motd /second
";

/// What the log says of the stage `one`.
const OF_ONE: [&str; 9] = [
    "[one] Building stage 'busybox:base' [idx: '0', base-idx: '-1']",
    "[one] Unpacking rootfs as cmd RUN echo from one; echo error of one >&2; printf 'no end' requires it.",
    "[one] Executing 0 build triggers",
    "[one 1/2] ENV A=b",
    "[one 2/2] RUN echo from one; echo error of one >&2; printf 'no end'",
    "[one 2/2] error of one",
    "[one 2/2] Taking snapshot of full filesystem...",
    "[one 2/2] took",
    "[one 2/2] Saving file /etc/motd for later use",
];

#[test]
fn lines_say_of_which_stage_they_are() {
    let (Some(world), Some(machine)) = (World::with_busybox(), Machine::new()) else { return };
    let context = machine.context("context", TOLD);
    let run = |name: &str, flags: &[&str]| {
        build(&mut machine.as_root(&machine.own(name)), &world, &context, flags).success(name)
    };
    let several = run("several", &["--jobs=2"]);
    let mut output: Vec<&str> = several.stdout.lines().collect();
    output.sort_unstable();
    assert_eq!(output, ["[one 2/2] from one", "[one 2/2] no end", "[stage-1 1/1] from the second"]);
    let of_one: Vec<&str> = several.stderr.lines().filter_map(|line| line.find("[one").map(|at| &line[at..])).collect();
    let mut left = of_one.iter();
    for wanted in OF_ONE {
        assert!(
            left.any(|line| line.starts_with(wanted)),
            "{wanted:?} does not come in its place:\n{}",
            several.stderr
        );
    }
    let nobodys = |line: &&str| line.starts_with("INFO[") && !line.contains("] [");
    let nobodys: Vec<&str> =
        several.stderr.lines().filter(nobodys).map(|line| &line[line.find(']').unwrap_or(0)..]).collect();
    assert!(
        nobodys
            .iter()
            .all(|line| line.contains("etrieving") || line.contains("image manifest") || line.contains("push")),
        "{nobodys:?}"
    );

    let json = run("json", &["--jobs=2", "--log-format=json"]);
    let lines = json.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_one: Vec<Value> = lines.filter(|line| line["stage"] == "one").collect();
    assert!(of_one.iter().any(|line| line["step"] == "1/2" && line["msg"] == "ENV A=b"), "{}", json.stderr);
    assert!(of_one[0]["step"].is_null() && of_one.iter().all(|line| line["level"] == "info"), "{of_one:?}");

    // one at a time, or none that could be beside another: as ever
    let chain = machine.context("chain", "FROM busybox:base AS one\nRUN echo one\nFROM one\nRUN printf two\n");
    for (name, context, flags, output) in [
        ("single", &context, "--jobs=1", "from one\nno endfrom the second\n"),
        ("chained", &chain, "--jobs=8", "one\ntwo"),
    ] {
        let ended = build(&mut machine.as_root(&machine.own(name)), &world, context, &[flags]).success(name);
        assert_eq!(ended.stdout, output);
        assert!(ended.stderr.contains("] [1/") && !ended.stderr.contains("[one"), "{}", ended.stderr);
    }
}
