//! One stage after another on the root of a container: what passes from one to the next, and what must not.

use std::fs;

use serde_json::json;

use crate::support::layout;
use crate::support::podman::DOCKER_CAPABILITIES;
use crate::support::world::World;

/// A command that changes files so that their mtimes do not show it.
const UNSEEN_BY_LOSSY_MODES: &str = "cp -p /etc/motd /tmp/motd && echo 'base MOTD' >/etc/motd && \
                                     touch -r /tmp/motd /etc/motd && chmod 600 /etc/passwd";

/// What the snapshot of a mode leaves out is not in the image of its stage, but on disk it is; the next stage must not see
/// it, neither what no snapshot looks at.
#[test]
fn a_stage_inherits_nothing_but_the_image_of_the_one_before() {
    let Some(world) = World::with_busybox() else { return };
    let one = format!(
        "FROM busybox:base AS one\n\
         RUN {UNSEEN_BY_LOSSY_MODES}\n\
         RUN mkdir -p /ignored/deep /tmp/apt-key-gpghome.x && echo left >/ignored/deep/file\n"
    );
    let look =
        "RUN cat /etc/motd >/motd; stat -c %a /etc/passwd >/mode; ls -d /ignored /tmp/apt-key-gpghome.x >/left; true\n";
    let on_one = world.context("on-one", &format!("{one}FROM one\n{look}"));
    let beside = world.context("beside", &format!("{one}FROM busybox:base\nCOPY --from=one /tmp/motd /\n{look}"));
    for mode in ["full", "redo", "time"] {
        let flags = [&format!("--snapshot-mode={mode}")[..], "--ignore-path=/ignored"];
        let image = world.image(&beside, &[], &flags);
        image.assert_text("/motd", "base motd\n");
        image.assert_text("/mode", "644\n");
        image.assert_text("/left", "");
        let image = world.image(&on_one, &[], &flags);
        image.assert_text("/left", "");
        image.assert_text("/motd", if mode == "full" { "base MOTD\n" } else { "base motd\n" });
        image.assert_text("/mode", if mode == "time" { "644\n" } else { "600\n" });
    }
}

/// Stages that are copied from, built on, and both; what is copied is what the stage ended with, whatever came after.
const COPIES: &str = r#"
FROM busybox:base AS build
COPY hosts /etc/hosts
RUN mkdir -p /out/sub && echo a >/out/a && ln /out/a /out/sub/again && ln /out/a /outside && echo b >/out/b && \
    chmod 640 /out/b && chown 5:6 /out/b && ln -s out /way && ln -s ../out/b /srv/hop && touch -d @1500000000 /out
FROM build AS test
COPY --from=build /out /copied
RUN echo changed >/out/a && echo changed >/outside && rm /out/b && echo changed >>/etc/motd
FROM busybox:base AS other
COPY --from=build /way/sub /other/
COPY --from=build /etc/host* /hosts/
COPY --from=test /out /test
RUN cat /etc/motd >/motd && ls / >/names
FROM scratch AS whole
COPY --from=build / /
FROM busybox:base
COPY --from=build /srv/ho? /hop
COPY --from=build --parents /out/./sub /p/
COPY --from=other /other /other
COPY --from=other /hosts /hosts
COPY --from=other /motd /names /of-other/
COPY --from=test /copied /copied
COPY --from=test /out /etc/motd /test/
COPY --from=whole /out /whole
COPY --from=whole /etc/hosts /whole-hosts
COPY --from=busybox:base /etc/motd /etc/hosts /of-image/
COPY hosts /etc/hosts
"#;

#[test]
fn what_is_copied_is_what_a_stage_ended_with() {
    let Some(world) = World::with_busybox() else { return };
    let context = world.context("copies", COPIES);
    fs::write(context.join("hosts"), "from the context\n").expect("written");
    // the work directory on another file system: nothing can be moved there
    for (options, flags) in [(&[][..], &[][..]), (&["--volume=/elsewhere"], &["--kaniko-dir=/elsewhere"])] {
        let (image, log) = world.image_and_log(&context, options, flags);
        for (path, text) in [
            ("/hop", "b\n"),
            ("/p/sub/again", "a\n"),
            ("/other/again", "a\n"),
            ("/hosts/hosts", "from the context\n"),
            ("/hosts/hostname", ""),
            ("/of-other/motd", "base motd\n"),
            ("/copied/a", "a\n"),
            ("/copied/sub/again", "a\n"),
            ("/test/a", "changed\n"),
            ("/test/sub/again", "changed\n"),
            ("/test/motd", "base motd\nchanged\n"),
            ("/whole/b", "b\n"),
            ("/whole-hosts", "from the context\n"),
            ("/of-image/motd", "base motd\n"),
            ("/of-image/hosts", ""),
            ("/etc/hosts", "from the context\n"),
        ] {
            image.assert_text(path, text);
        }
        assert!(!image.has("/test/b") && !image.has("/outside") && !image.has("/out"));
        for (path, mode, uid, gid) in [("/hop", 0o640, 5, 6), ("/whole/b", 0o640, 5, 6), ("/copied/b", 0o640, 5, 6)] {
            let file = image.file(path);
            assert_eq!((file.mode, file.uid, file.gid), (mode, uid, gid), "{path}");
        }
        assert_eq!(image.file("/whole").mtime, 1_500_000_000);
        assert_eq!(image.file("/whole/a").hardlinks.len(), 2, "what was one file in the stage is one here");
        assert_eq!(image.file("/copied/a").hardlinks.len(), 2);
        assert!(log.stderr.contains("The root filesystem is that of stage 0 already."), "{}", log.stderr);
    }
}

/// As in Kubernetes: something is mounted below a path that is a symlink in the image (`/var/run` leads to `/run`).
#[test]
fn a_mount_below_a_symlink_of_the_image() {
    let Some(world) = World::with_busybox() else { return };
    let context = world.context(
        "mount-below-symlink",
        "FROM busybox:base AS build\nRUN echo x >/x\nCOPY Dockerfile /var/run/copied\nRUN echo y >/y\n\
         FROM busybox:base\nCOPY --from=build /var/run/copied /y /\nCOPY --from=build /var/run/ /of-run/\n\
         COPY --from=build /var /of-var\nCOPY Dockerfile /var/run/here\nRUN true\n",
    );
    let secrets = world.scratch.path().join("secrets");
    fs::create_dir(&secrets).expect("created");
    let volume = format!("--volume={}:/var/run/secrets/service:ro", secrets.display());
    let dockerfile = fs::read_to_string(context.join("Dockerfile")).expect("read");
    let image = world.image(&context, &[&volume], &["--ignore-var-run=false"]);
    for path in ["/copied", "/of-run/copied", "/run/here"] {
        image.assert_text(path, &dockerfile);
    }
    image.assert_text("/y", "y\n");
    for path in ["/var/run", "/of-var/run"] {
        assert_eq!(image.file(path).link.as_deref(), Some(&b"/run"[..]), "{path}");
    }
}

/// Devices, in a base and copied on and on, through resets of the root.
const DEVICES: &str = "FROM devices:base AS stage\n\
    COPY Dockerfile /box/added\n\
    FROM stage AS on\n\
    COPY --from=stage /box /again\n\
    FROM busybox:base AS other\n\
    RUN test ! -e /box\n\
    COPY --from=on /again/d* /from-on/\n\
    FROM devices:base\n\
    COPY --from=stage /box /box-of-stage\n\
    COPY --from=on / /on\n\
    COPY --from=other /from-on/disk /by-name\n\
    COPY --from=other --chown=8:9 --chmod=600 /from-on/ /changed/\n\
    COPY --from=stage --parents /box/./disk /parents/\n\
    COPY --from=devices:base /box/tty /of-image\n";

/// Where nobody may make devices, they are in the image all the same.
#[test]
fn devices_are_copied_also_where_nobody_may_make_them() {
    let Some(world) = World::with_busybox() else { return };
    let mut tar = tar::Builder::new(Vec::new());
    for (path, kind, number) in [
        ("box/", tar::EntryType::Directory, None),
        ("box/disk", tar::EntryType::Block, Some((7, 300))),
        ("box/tty", tar::EntryType::Char, Some((5, 1))),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o640);
        header.set_uid(3);
        header.set_gid(4);
        header.set_mtime(1_500_000_000);
        if let Some((major, minor)) = number {
            header.set_device_major(major).expect("ustar has them");
            header.set_device_minor(minor).expect("ustar has them");
        }
        tar.append_data(&mut header, path, &b""[..]).expect("a Vec takes all");
    }
    let layout = world.scratch.path().join("devices");
    let tar = tar.into_inner().expect("a Vec takes all");
    layout::write(&layout, &tar, json!({"architecture": "amd64", "os": "linux", "config": {}}));
    layout::push(&layout, &world.registry, "library/devices:base");
    let context = world.context("devices-context", DEVICES);
    for options in [&[][..], &[DOCKER_CAPABILITIES]] {
        let (image, log) = world.image_of_podman(&context, options, &[]);
        let refused = log.stderr.contains("making device nodes is not allowed");
        assert_eq!(refused, options.is_empty(), "{}", log.stderr);
        for (path, disk, (mode, uid, gid)) in [
            ("/box/disk", true, (0o640, 3, 4)),
            ("/box/tty", false, (0o640, 3, 4)),
            ("/box-of-stage/disk", true, (0o640, 3, 4)),
            ("/box-of-stage/tty", false, (0o640, 3, 4)),
            ("/on/box/disk", true, (0o640, 3, 4)),
            ("/on/again/disk", true, (0o640, 3, 4)),
            ("/on/again/tty", false, (0o640, 3, 4)),
            ("/by-name", true, (0o640, 3, 4)),
            ("/changed/disk", true, (0o600, 8, 9)),
            ("/parents/disk", true, (0o640, 3, 4)),
            ("/of-image", false, (0o640, 3, 4)),
        ] {
            let file = image.file(path);
            let expected = if disk { ("block", Some((7, 300))) } else { ("char", Some((5, 1))) };
            assert_eq!((file.kind, file.device), expected, "{path}");
            assert_eq!((file.mode, file.uid, file.gid, file.mtime), (mode, uid, gid, 1_500_000_000), "{path}");
        }
        assert!(!image.has("/parents/tty") && !image.has("/changed/tty") && image.has("/box-of-stage/added"));
    }
}
