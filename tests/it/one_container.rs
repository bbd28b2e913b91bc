//! Everything in the root of one container: the context, the outputs, and build after build.

use std::fs;
use std::path::Path;

use crate::support::command::{Ended, run, run_within};
use crate::support::flat::{self, FlatImage};
use crate::support::podman::DOCKER_CAPABILITIES;
use crate::support::world::{BUILD_LIMIT, World};

/// A container that can be started more than once. Nothing is mounted in it but what engines always mount.
struct Container<'a> {
    world: &'a World,
    name: String,
}

impl Container<'_> {
    /// One that will run the executor with these flags.
    fn create<'a>(world: &'a World, name: &str, flags: &[&str]) -> Container<'a> {
        let name = format!("kanna-{name}-{}", std::process::id());
        let map = format!("--registry-map=index.docker.io={}", world.registry.host());
        let limit = format!("--timeout={}", BUILD_LIMIT.as_secs());
        let mut podman = world.podman.command();
        podman.args(["create", "--pull=never", "--network=host", "--log-driver=none", DOCKER_CAPABILITIES]);
        podman.args([&limit, "--name", &name, world.podman.executor_image(), &map, "--insecure-pull"]).args(flags);
        run(&mut podman);
        Container { world, name }
    }

    fn copy(&self, from: &str, to: &str) -> Ended {
        run_within(self.world.podman.command().args(["cp", from, to]), BUILD_LIMIT)
    }

    /// Puts what is in a folder of this machine into a directory of the container.
    fn put(&self, folder: &Path, directory: &str) {
        self.copy(&format!("{}/.", folder.display()), &format!("{}:{directory}", self.name)).success("podman cp");
    }

    /// The text of a file of the container.
    fn text(&self, file: &str) -> String {
        let to = self.world.scratch.path().join("text");
        self.copy(&format!("{}:{file}", self.name), &to.display().to_string()).success("podman cp");
        fs::read_to_string(to).expect("text")
    }

    /// Is there such a file in the container?
    fn has(&self, file: &str) -> bool {
        let to = self.world.scratch.path().join("found");
        self.copy(&format!("{}:{file}", self.name), &to.display().to_string()).code == Some(0)
    }

    fn image(&self, tarball: &str) -> FlatImage {
        let to = self.world.scratch.path().join("image.tar");
        self.copy(&format!("{}:{tarball}", self.name), &to.display().to_string()).success("podman cp");
        flat::read_tarball(&to).expect("a tarball")
    }

    fn start(&self) -> Ended {
        run_within(self.world.podman.command().args(["start", "--attach", &self.name]), BUILD_LIMIT)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        run_within(self.world.podman.command().args(["rm", "--force", "--time=0", &self.name]), BUILD_LIMIT);
    }
}

/// Two bases, so that the root is reset, and copies onto the place of the context.
const DOCKERFILE: &str = "FROM busybox:base AS one\n\
    COPY . /of-one/\n\
    RUN echo changed >/etc/motd && ls /of-one >/names\n\
    FROM busybox:base\n\
    COPY --from=one /names /names\n\
    COPY . /copied/\n\
    WORKDIR /workspace\n\
    COPY file made\n\
    RUN cat /etc/motd >/motd\n";

/// What was copied into the container, and not mounted, is neither part of the image nor lost; nor are the outputs.
#[test]
fn the_context_lies_in_the_root_and_builds_follow_each_other() {
    let Some(world) = World::with_busybox() else { return };
    let context = world.context("in-the-root/home/ci/project", DOCKERFILE);
    fs::write(context.join("file"), "from the context\n").expect("written");
    for (name, place, put, to) in [
        ("workspace", "/workspace", &*context, "/workspace"),
        ("home", "/home/ci/project", &*world.scratch.path().join("in-the-root"), "/"),
    ] {
        let from = format!("--context=dir://{place}");
        let flags = [
            &from,
            "--no-push",
            "--cleanup",
            "--reproducible",
            "--destination=app",
            "--tar-path=/results/image.tar",
            "--oci-layout-path=/results/layout",
            "--digest-file=/results/digest",
        ];
        let container = Container::create(&world, name, &flags);
        container.put(put, to);
        let mut digests = Vec::new();
        for _ in 0..3 {
            let ended = container.start().success(name);
            digests.push(container.text("/results/digest"));
            let image = container.image("/results/image.tar");
            image.assert_text("/names", "Dockerfile\nfile\n");
            image.assert_text("/copied/file", "from the context\n");
            image.assert_text("/workspace/made", "from the context\n");
            image.assert_text("/motd", "base motd\n");
            for not_there in ["/workspace/file", "/workspace/Dockerfile", "/home/ci", "/results", "/of-one"] {
                assert!(!image.has(not_there), "{name}: {not_there}: {}", ended.stderr);
            }
            assert_eq!(container.text(&format!("{place}/file")), "from the context\n");
            assert_eq!(ended.stderr.contains("RUN works in /workspace"), place == "/workspace", "{}", ended.stderr);
            assert!(container.has("/results/layout/index.json"));
            assert!(!container.has(&format!("{place}/made")), "the image's files are not the context's");
            assert!(!container.has("/copied") && !container.has("/motd"), "the root is empty again");
        }
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{name}: {digests:?}");
    }
}

/// What somebody left in the root is refused, and removed where that was asked for.
#[test]
fn what_is_left_in_the_root_is_no_part_of_the_image() {
    let Some(world) = World::with_busybox() else { return };
    let context = world.context("left", "FROM busybox:base\nRUN ls / >/names\n");
    let left = world.scratch.path().join("left-behind");
    fs::create_dir_all(left.join("opt/tool")).expect("created");
    fs::write(left.join("opt/tool/file"), "left\n").expect("written");
    for (name, flag, removes) in
        [("refused", None, false), ("pre-cleanup", Some("--pre-cleanup"), true), ("force", Some("--force"), false)]
    {
        let mut flags =
            vec!["--context=/workspace", "--no-push", "--tar-path=/workspace/image.tar", "--destination=app"];
        flags.extend(flag);
        let container = Container::create(&world, name, &flags);
        container.put(&context, "/workspace");
        container.put(&left, "/");
        let ended = container.start();
        if flag.is_none() {
            assert_eq!(ended.code, Some(1), "{}", ended.stderr);
            assert!(ended.stderr.contains("it holds /opt"), "{}", ended.stderr);
            assert_eq!(container.text("/opt/tool/file"), "left\n");
            continue;
        }
        ended.success(name);
        let image = container.image("/workspace/image.tar");
        assert!(!image.has("/opt/tool") && !image.has("/workspace"), "{name}");
        assert_eq!(container.has("/opt/tool/file"), !removes, "{name}");
    }
}
