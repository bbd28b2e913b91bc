//! What a user must be told although the build goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::podman::DOCKER_CAPABILITIES;
use crate::support::world::World;

const NO_PUSH: [&str; 2] = ["--no-push", "--destination=test/x"];

/// Lines of a log that are warnings about `what`.
fn warnings<'a>(log: &'a str, what: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.starts_with("WARN") && line.contains(what)).collect()
}

#[test]
fn credentials_that_run_can_read_are_spoken_of_once() {
    let Some(world) = World::with_busybox() else { return };
    let mounted = |name: &str, mode: u32| {
        let file = world.scratch.path().join(name);
        fs::write(&file, r#"{"auths": {}}"#).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("set");
        format!("--volume={}:/kaniko/.docker/config.json:ro", file.display())
    };
    let (private, public) = (mounted("private.json", 0o600), mounted("public.json", 0o644));
    let as_root = "FROM busybox:base\nRUN true\nRUN true\nFROM busybox:base\nRUN true\n";
    let as_user = "FROM busybox:base\nUSER 1234\nRUN true\nUSER 0\n";
    let copies = "FROM busybox:base\nCOPY Dockerfile /\n";
    for (name, dockerfile, volume, expected) in [
        ("none", as_root, None, 0),
        ("root", as_root, Some(&private), 1),
        ("user", as_user, Some(&private), 0),
        ("user-public", as_user, Some(&public), 1),
        ("no-run", copies, Some(&public), 0),
    ] {
        let context = world.context(name, dockerfile);
        let options: Vec<&str> = [DOCKER_CAPABILITIES].into_iter().chain(volume.map(String::as_str)).collect();
        let flags = [&NO_PUSH[..], &["--skip-unused-stages=false"]].concat();
        let ended = world.build(&context, &options, &flags).success(name);
        let found = warnings(&ended.stderr, "/kaniko/.docker/config.json");
        assert_eq!(found.len(), expected, "{name}: {}", ended.stderr);
    }
}

#[test]
fn a_base_for_another_platform_is_spoken_of() {
    let Some(world) = World::with_busybox() else { return };
    let context =
        world.context("platform", "FROM busybox:base AS one\nFROM busybox:base\nCOPY --from=one /etc/motd /\n");
    for (wanted, expected) in [("linux/amd64", 0), ("linux/s390x", 1)] {
        let platform = format!("--custom-platform={wanted}");
        let flags = [&NO_PUSH[..], &[&platform]].concat();
        let ended = world.build(&context, &[DOCKER_CAPABILITIES], &flags).success(wanted);
        let found = warnings(&ended.stderr, "busybox:base");
        assert_eq!(found.len(), expected, "{}", ended.stderr);
        assert!(found.iter().all(|line| line.contains("linux/amd64") && line.contains(wanted)), "{found:?}");
    }
}
