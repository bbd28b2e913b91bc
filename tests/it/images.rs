//! Our own images, built by kanna of this checkout: `make image`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::command::{run, run_within};
use crate::support::podman::{DOCKER_CAPABILITIES, Podman};
use crate::support::{folder, skip};

/// Two builds of some files take seconds.
const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn our_images_are_built_by_ourselves_and_build() {
    let podman = match Podman::probe() {
        Ok(podman) => podman,
        Err(reason) => return skip("containers", &reason),
    };
    let scratch = tempfile::tempdir_in(folder("images")).expect("a directory");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/images");
    let mut command = Command::new(script);
    command
        .env("EXECUTOR", env!("CARGO_BIN_EXE_executor"))
        .env("WARMER", env!("CARGO_BIN_EXE_warmer"))
        .env("DIST", scratch.path());
    let made = run_within(&mut command, LIMIT);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    for target in ["executor", "debug"] {
        run(podman
            .command()
            .args(["load", "--quiet", "--input"])
            .arg(scratch.path().join(format!("kanna-{target}.tar"))));
    }
    let container = |options: &[&str], image: &str, arguments: &[&str]| {
        let mut command = podman.command();
        command.args(["run", "--rm", "--pull=never", "--network=host", "--log-driver=none", DOCKER_CAPABILITIES]);
        run(command.args(options).arg(image).args(arguments))
    };
    let version = container(&[], "localhost/kanna:latest", &["version"]);
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let script = "id -u; stat -c %a /kaniko /kaniko/.docker; ls /kaniko; echo $DOCKER_CONFIG $SSL_CERT_DIR; pwd";
    assert_eq!(
        container(&["--entrypoint=/bin/sh"], "localhost/kanna:debug", &["-c", script]),
        "0\n777\n755\nexecutor\nssl\nwarmer\n/kaniko/.docker/ /kaniko/ssl/certs\n/workspace"
    );

    // with the mounts of a pod; the shell of the debug image is not part of what it builds
    let context = scratch.path().join("context");
    std::fs::create_dir(&context).expect("created");
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /busybox-is-not-here/\n")
        .expect("written");
    for image in ["localhost/kanna:latest", "localhost/kanna:debug"] {
        let mounts = [
            format!("--volume={}:/workspace:ro", context.display()),
            format!("--volume={}:/out", scratch.path().display()),
        ];
        let mounts: Vec<&str> = mounts.iter().map(String::as_str).collect();
        let flags = ["--no-push", "--destination=self/built", "--tar-path=/out/built.tar"];
        container(&mounts, image, &flags);
        let mut command = podman.command();
        run(command.args(["load", "--quiet", "--input"]).arg(scratch.path().join("built.tar")));
        let exported = run(Command::new("sh")
            .arg("-c")
            .arg("tar -xOf \"$0\" --wildcards '*.tar.gz' | tar -tzf -")
            .arg(scratch.path().join("built.tar")));
        assert_eq!(exported, "busybox-is-not-here/\nbusybox-is-not-here/Dockerfile", "{image}");
    }
}
