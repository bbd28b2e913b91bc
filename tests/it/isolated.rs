//! The isolated root: the same image as in place, as root and as a plain user, and nothing of the machine in it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::command::run_into;
use crate::support::flat;
use crate::support::machine::{LIMIT, Machine, assert_nothing_left, build, build_command, processes_with};
use crate::support::podman::DOCKER_CAPABILITIES;
use crate::support::world::World;

/// Several owners, kinds and stages, and nothing that depends on when or where.
const DETERMINISTIC: &str = "\
FROM busybox:base AS made
ENV KEY=value
WORKDIR /srv/app
COPY --chown=1000:1001 --chmod=640 Dockerfile .
RUN mkdir -p data/deep && echo $KEY > data/deep/file && ln data/deep/file data/again && ln -s /nowhere data/link
RUN chown -R 7:8 data && chmod 4755 data/again && mkfifo data/pipe
USER 1000:1001
RUN id -u > /tmp/who && id -g >> /tmp/who && umask >> /tmp/who
RUN <<END
#!/bin/sh
echo script > /tmp/script
END

FROM busybox:base
COPY --from=made /srv/app /app
COPY --from=made /tmp/who /tmp/script /
RUN rm -rf /app/data/deep && mkdir /var/empty
";

#[test]
fn the_image_is_the_same_wherever_it_is_built() {
    let (Some(world), Some(machine)) = (World::with_busybox(), Machine::new()) else { return };
    let context = machine.context("context", DETERMINISTIC);
    let result = world.scratch.path().join("result");
    fs::create_dir(&result).expect("created");
    let volume = format!("{}:/result", result.display());
    let flags = ["--reproducible", "--no-push", "--destination=test/x", "--digest-file=/result/digest"];
    let ended = world.build(&context, &[DOCKER_CAPABILITIES, "-v", &volume], &flags);
    ended.success("in place");
    let in_place = fs::read_to_string(result.join("digest")).expect("written");
    assert!(in_place.starts_with("sha256:"), "{in_place}");

    let [root, user] = ["root", "user"].map(|name| machine.own(name));
    for (home, mut command) in
        [(&root, machine.as_root(&root)), (&user, machine.as_user(&user, Some(&machine.path("ids"))))]
    {
        let digest = home.join("digest");
        let flags = ["--reproducible", "--verify-snapshots", &format!("--digest-file={}", digest.display())];
        let ended = build(&mut command, &world, &context, &flags).success(&home.display().to_string());
        assert_eq!(fs::read_to_string(digest).expect("written"), in_place, "{}", ended.stderr);
        assert_nothing_left(home);
    }
}

#[test]
fn a_command_has_a_world_of_its_own() {
    let (Some(world), Some(machine)) = (World::with_busybox(), Machine::new()) else { return };
    let dockerfile = "\
FROM busybox:base
RUN hostname > /host && cat /etc/hostname >> /host && grep -c kanna /etc/hosts >> /host
RUN sed -n 's/^CapBnd:\\s*//p' /proc/self/status > /capabilities
RUN ls /dev | sort | tr '\\n' ' ' > /devices; echo > /dev/null; head -c 3 /dev/zero | wc -c >> /devices
RUN [ $(ls -d /proc/[0-9]* | wc -l) -lt 10 ] && echo few > /processes; cat /proc/1/environ /proc/1/mem > /ours 2>/dev/null; true
RUN mount -t tmpfs none /mnt 2>/dev/null || echo refused > /mounting; chroot / true && echo allowed >> /mounting
RUN awk '$5 ~ \"^/(sys|proc/sys)\" && $6 !~ /^ro/ {print $5}' /proc/self/mountinfo > /writable
RUN cat /proc/1/maps > /dev/null 2>&1 || echo closed > /written
RUN mknod /tmp/node c 1 3 2>/dev/null; mknod /dev/node c 1 3 2>/dev/null; cat /tmp/node /dev/node 2>/dev/null || echo closed > /nodes
RUN rm -f /tmp/node /dev/node; chmod 600 /dev/full 2>/dev/null; true
RUN ls -A /etc/resolv.conf /etc/hosts > /names; echo mine > /etc/hosts.mine
";
    let context = machine.context("context", dockerfile);
    for (name, with_ids) in [("root", None), ("lent", Some(true)), ("alone", Some(false))] {
        let home = machine.own(name);
        let ids = machine.path("ids");
        let mut command = match with_ids {
            None => machine.as_root(&home),
            Some(true) => machine.as_user(&home, Some(&ids)),
            Some(false) => machine.as_user(&home, None),
        };
        let tarball = home.join("image.tar");
        let ended = build(&mut command, &world, &context, &[&format!("--tar-path={}", tarball.display())]);
        if name == "alone" {
            // the base has files of other users
            assert_eq!(ended.code, Some(1), "{}", ended.stderr);
            for word in ["only files of root can be made", "subordinate ids"] {
                assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
            }
            continue;
        }
        ended.success(name);
        let image = flat::read_tarball(&tarball).expect("a tarball");
        image.assert_text("/host", "kanna\nkanna\n1\n");
        image.assert_text("/capabilities", "00000000a80425fb\n");
        image.assert_text("/devices", "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero 3\n");
        image.assert_text("/ours", "");
        image.assert_text("/mounting", "refused\nallowed\n");
        image.assert_text("/writable", "");
        image.assert_text("/written", "closed\n");
        image.assert_text("/nodes", "closed\n");
        let mode = fs::metadata("/dev/full").expect("the machine has one").permissions().mode();
        assert_eq!(mode & 0o777, 0o666, "the machine's devices are not the commands'");
        for path in ["dev", "proc", "sys"] {
            assert!(!image.has(&format!("/{path}/null")), "{path}");
        }
        image.assert_text("/processes", "few\n");
    }
}

#[test]
fn commands_end_as_in_place() {
    let (Some(world), Some(machine)) = (World::with_busybox(), Machine::new()) else { return };
    for (name, instruction, code, word) in [
        ("code", "RUN exit 42", 42, "exit code 42"),
        ("signal", "RUN kill -9 $$", 137, "signal 9"),
        ("missing", "RUN [\"/no/such\"]", 127, "/no/such"),
        ("daemon", "RUN (sleep 1000 &) ; true", 0, ""),
        ("output", "RUN echo out; echo err >&2", 0, "err"),
    ] {
        let home = machine.own(name);
        let context = machine.context(&format!("{name}-context"), &format!("FROM busybox:base\n{instruction}\n"));
        let ended = build(&mut machine.as_root(&home), &world, &context, &[]);
        assert_eq!(ended.code, Some(code), "{name}: {}", ended.stderr);
        assert!(ended.stderr.contains(word), "{name}: {}", ended.stderr);
        assert_nothing_left(&home);
    }
}

/// Whatever a command does to its streams ends with it.
#[test]
fn commands_write_to_pipes_and_not_to_our_streams() {
    let (Some(world), Some(machine)) = (World::with_busybox(), Machine::new()) else { return };
    let dockerfile = "\
FROM busybox:base
RUN echo out; echo err >&2; chmod 000 /dev/stdout /dev/stderr; chown 1:1 /dev/stdout /dev/stderr; echo out again
USER 1000:1000
RUN echo by name >/dev/stdout; echo error by name >/dev/stderr
USER 0
RUN echo daemon; (trap '' TERM HUP; while true; do sleep 1000; done) & true
RUN printf 'no end'
";
    let context = machine.context("context", dockerfile);
    for (name, mut command) in [
        ("root", machine.as_root(&machine.own("root"))),
        ("user", machine.as_user(&machine.own("user"), Some(&machine.path("ids")))),
    ] {
        let streams = machine.own(&format!("{name}-streams"));
        let ended = run_into(build_command(&mut command, &world, &context), LIMIT, &streams).success(name);
        assert_eq!(ended.stdout, "out\nout again\nby name\ndaemon\nno end", "{name}");
        assert!(ended.stderr.contains("\nerr\n") && ended.stderr.contains("\nerror by name\n"), "{}", ended.stderr);
        for stream in ["out", "err"] {
            let file = fs::metadata(streams.join(stream)).expect("there");
            assert_ne!(file.permissions().mode() & 0o777, 0, "{name}: {stream}");
            assert_eq!(file.uid(), 0, "{name}: {stream}");
        }
    }
}

#[test]
fn nothing_runs_on_when_the_build_is_ended() {
    let (Some(world), Some(machine)) = (World::with_busybox(), Machine::new()) else { return };
    for (signal, number, code) in
        [("TERM", rustix::process::Signal::TERM, Some(143)), ("KILL", rustix::process::Signal::KILL, None)]
    {
        // found again by a number that nobody else sleeps for
        let word = format!("{}{}", 7_000_000 + std::process::id(), signal.len());
        let home = machine.own(signal);
        let context = machine.context(
            &format!("{signal}-context"),
            &format!("FROM busybox:base\nRUN (setsid sleep {word} &) ; sleep {word}\n"),
        );
        let mut command = machine.as_root(&home);
        build_command(&mut command, &world, &context).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("started");
        let begun = Instant::now();
        while processes_with(&format!("sleep\0{word}")).len() < 2 {
            assert!(begun.elapsed() < LIMIT && child.try_wait().expect("ours").is_none(), "the command did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, number).expect("sent");
        assert_eq!(child.wait().expect("ended").code(), code, "{signal}");
        while !processes_with(&word).is_empty() {
            assert!(begun.elapsed() < LIMIT, "{signal}: still there: {:?}", processes_with(&word));
            std::thread::sleep(Duration::from_millis(20));
        }
        if code.is_none() {
            // what was left goes with the next build
            let next = machine.context(&format!("{signal}-next"), "FROM scratch\nCOPY Dockerfile /\n");
            build(&mut machine.as_root(&home), &world, &next, &[]).success("the next build");
        }
        assert_nothing_left(&home);
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("a proc file system");
        assert!(!mounts.contains(&home.display().to_string()), "{mounts}");
    }
}
