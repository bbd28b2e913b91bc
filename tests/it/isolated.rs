//! The isolated root: the same image as in place, as root and as a plain user, and nothing of the machine in it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::command::{Ended, run_into};
use crate::support::flat::{self, FlatImage};
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

#[test]
fn a_command_that_takes_too_long_is_ended() {
    let (Some(world), Some(machine)) = (World::with_busybox(), Machine::new()) else { return };
    // found again by a number that nobody else sleeps for
    let word = format!("{}", 8_000_000 + std::process::id());
    let script = format!("(setsid sleep {word} &) ; trap 'echo told; exit 0' TERM; echo begun; sleep {word} & wait");
    let context = machine.context("context", &format!("FROM busybox:base\nRUN {script}\n"));
    let [root, user] = ["root", "user"].map(|name| machine.own(name));
    for (home, mut command) in
        [(&root, machine.as_root(&root)), (&user, machine.as_user(&user, Some(&machine.path("ids"))))]
    {
        let ended = build(&mut command, &world, &context, &["--run-timeout=5s"]);
        assert_eq!((ended.code, &*ended.stdout), (Some(124), "begun\ntold\n"), "{}", ended.stderr);
        assert!(ended.stderr.contains("the command was ended after 5s"), "{}", ended.stderr);
        assert_eq!(processes_with(&word), Vec::<String>::new(), "{}", ended.stderr);
        assert_nothing_left(home);
    }
}

/// Users and groups that have no number where the build runs: told before a command runs, and where ids come from.
#[test]
fn ids_that_nobody_has_are_refused_at_once() {
    let (Some(world), Some(machine)) = (World::with_busybox(), Machine::new()) else { return };
    let context = machine.context("context", "");
    for (name, dockerfile, ids, words) in [
        ("user", "FROM busybox:base\nUSER 70000\nRUN true", true, "line 3: RUN true: use user 70000: "),
        ("group", "FROM busybox:base\nUSER 0:70000\nRUN true", true, "line 3: RUN true: use group 70000: "),
        ("chown", "FROM busybox:base\nCOPY --chown=0:70000 Dockerfile /", true, "use group 70000: "),
        ("alone", "FROM busybox:base\nUSER 1:0\nRUN true", false, "use user 1: this user namespace has none but 0\n"),
        (
            "by name",
            "FROM busybox:base\nRUN echo far:x:70000:0::/:/bin/sh >>/etc/passwd\nUSER far\nRUN echo has run",
            true,
            "line 4: RUN echo has run: use user 70000: this user namespace has none but 0 to 65536\n",
        ),
        ("base", "FROM busybox:base\nRUN true", false, "change owner of "),
    ] {
        fs::write(context.join("Dockerfile"), format!("{dockerfile}\n")).expect("written");
        let home = machine.own(name);
        let lent = machine.path("ids");
        let ended = build(&mut machine.as_user(&home, ids.then_some(&*lent)), &world, &context, &[]);
        assert_eq!(ended.code, Some(1), "{name}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{name}: {}", ended.stderr);
        let hint = "hint: no such user or group exists in this user namespace: /etc/subuid and /etc/subgid lend";
        assert!(ended.stderr.contains(hint), "{name}: {}", ended.stderr);
        assert!(!ended.stdout.contains("has run"), "{name}");
        // where the Dockerfile tells the number, nothing has been done before
        let has_begun = ended.stderr.contains("Unpacking rootfs");
        assert_eq!(has_begun, ["by name", "base"].contains(&name), "{name}: {}", ended.stderr);
        assert_nothing_left(&home);
    }
    // where nobody has to be such a user, nobody asks
    fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /\nUSER 70000\nWORKDIR /\n").expect("written");
    let home = machine.own("label");
    build(&mut machine.as_user(&home, None), &world, &context, &[]).success("a user who does nothing");
}

/// What is mounted for commands lies on files that are no part of the image, wherever a command takes them.
#[test]
fn mount_points_that_are_moved_belong_to_no_image() {
    let (Some(world), Some(machine)) = (World::with_busybox(), Machine::new()) else { return };
    let builds = Builds { world: &world, machine: &machine };
    for is_root in [true, false] {
        let image = builds.image(
            "own",
            is_root,
            "ADD files.tar /\nRUN mv /etc /moved\nRUN ls -A /etc >/list && cat /etc/hostname >>/list\n\
             RUN mkdir /new && mv /moved /new/etc\nRUN echo more >>/new/etc/hosts",
        );
        image.assert_text("/list", "hostname\nhosts\nresolv.conf\nkanna\n");
        image.assert_text("/new/etc/hosts", "mine\nmore\n");
        let hosts = image.file("/new/etc/hosts");
        assert_eq!((hosts.mode, hosts.uid, hosts.gid), (0o640, 3, 4));
        assert_eq!(image.file("/new/etc/resolv.conf").link.as_deref(), Some(&b"/run/resolv.conf"[..]));
        image.assert_text("/new/etc/hostname", "");
        assert_eq!([image.file("/new/etc/hostname").mtime, image.file("/new/etc").mtime], [1_600_000_000; 2]);
        assert!(!image.has("/etc") && !image.has("/moved"), "{:?}", image.tree.keys());
    }
    let image = builds.image(
        "bare",
        true,
        "FROM scratch\nCOPY --from=busybox:base /bin /bin\nRUN mkdir /etc/mine && mv /etc /gone\nRUN ls -A /gone >/list",
    );
    image.assert_text("/list", "mine\n");
    assert!(image.has("/gone/mine") && !image.has("/gone/hosts") && !image.has("/etc"), "{:?}", image.tree.keys());

    let replaced = "RUN cp -a /etc /copy && mv /etc /old && mv /copy /etc\nRUN wc -l </etc/hostname >/list";
    let image = builds.image("replaced", true, replaced);
    image.assert_text("/old/hosts", "");
    image.assert_text("/etc/motd", "base motd\n");
    image.assert_text("/list", "1\n");

    let linked =
        "RUN mv /etc /usr/etc && ln -s usr/etc /etc\nRUN cat /etc/hostname >/list; echo x >/etc/hostname; true";
    let image = builds.image("linked", true, linked);
    image.assert_text("/usr/etc/hostname", "");
    image.assert_text("/list", "kanna\n");
    assert_eq!(image.file("/etc").link.as_deref(), Some(&b"usr/etc"[..]));

    let ended = builds.build("blocked", true, "RUN mv /etc /usr/etc && echo >/etc\nRUN true", "image.tar");
    let words = "line 3: RUN true: /etc/hostname cannot be mounted for the command, since an earlier one has moved";
    assert!(ended.code == Some(1) && ended.stderr.contains(words), "{}", ended.stderr);
}

/// What BuildKit calls `BUILDKIT_SANDBOX_HOSTNAME`.
#[test]
fn the_host_is_called_as_somebody_says() {
    let (Some(world), Some(machine)) = (World::with_busybox(), Machine::new()) else { return };
    let run = "RUN (hostname; cat /etc/hostname; grep -c build.example /etc/hosts) >/host";
    let context = machine.context("context", &format!("FROM busybox:base\n{run}\n"));
    let argument = |name: &str| format!("--build-arg=BUILDKIT_SANDBOX_HOSTNAME={name}");
    for (name, mut command) in [
        ("root", machine.as_root(&machine.own("root"))),
        ("user", machine.as_user(&machine.own("user"), Some(&machine.path("ids")))),
    ] {
        let tarball = machine.own(&format!("{name}-result")).join("image.tar");
        let flags = [&argument("other"), &argument("build.example"), &format!("--tar-path={}", tarball.display())];
        let ended = build(&mut command, &world, &context, &flags.map(String::as_str)).success(name);
        assert!(!ended.stderr.contains("not consumed"), "{}", ended.stderr);
        let image = flat::read_tarball(&tarball).expect("a tarball");
        image.assert_text("/host", "build.example\nbuild.example\n1\n");
    }
    let home = machine.own("bad");
    let ended = build(&mut machine.as_root(&home), &world, &context, &[&argument("a b")]);
    let words = "--build-arg=BUILDKIT_SANDBOX_HOSTNAME: \"a b\" names no host";
    assert!(ended.code == Some(1) && ended.stderr.contains(words), "{}", ended.stderr);
    let ended = world.build(&context, &[DOCKER_CAPABILITIES], &["--no-push", "--destination=test/x", &argument("a")]);
    let words = "in place, commands see what the container is called";
    assert!(ended.code == Some(1) && ended.stderr.contains(words), "{}", ended.stderr);
}

/// Builds in isolated roots, each in a home of its own.
struct Builds<'a> {
    world: &'a World,
    machine: &'a Machine,
}

impl Builds<'_> {
    /// Builds these instructions, on the usual base if they name none, beside `files.tar`.
    fn build(&self, name: &str, is_root: bool, instructions: &str, tarball: &str) -> Ended {
        let name = format!("{name}-{}", if is_root { "root" } else { "user" });
        let from = if instructions.starts_with("FROM") { "" } else { "FROM busybox:base\n" };
        let context = self.machine.context(&format!("{name}-context"), &format!("{from}{instructions}\n"));
        fs::write(context.join("files.tar"), files_of_etc()).expect("written");
        let home = self.machine.own(&name);
        let mut command = match is_root {
            true => self.machine.as_root(&home),
            false => self.machine.as_user(&home, Some(&self.machine.path("ids"))),
        };
        let tarball = format!("--tar-path={}", home.join(tarball).display());
        let ended = build(&mut command, self.world, &context, &["--verify-snapshots", &tarball]);
        assert_nothing_left(&home);
        ended
    }

    #[track_caller]
    fn image(&self, name: &str, is_root: bool, instructions: &str) -> FlatImage {
        self.build(name, is_root, instructions, "image.tar").success(name);
        let home = format!("{name}-{}", if is_root { "root" } else { "user" });
        flat::read_tarball(&self.machine.path(&home).join("image.tar")).expect("a tarball")
    }
}

/// An archive of files at places where something is mounted for commands.
fn files_of_etc() -> Vec<u8> {
    let mut files = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o640);
    header.set_uid(3);
    header.set_gid(4);
    header.set_mtime(1_000_000_000);
    header.set_size(5);
    files.append_data(&mut header, "etc/hosts", &b"mine\n"[..]).expect("a Vec takes all");
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    files.append_link(&mut header, "etc/resolv.conf", "/run/resolv.conf").expect("a Vec takes all");
    files.into_inner().expect("a Vec takes all")
}
