//! The executor in an ordinary container, beside a real registry that holds its bases.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::command::{Ended, run_within};
use super::flat::{self, FlatImage};
use super::podman::{DOCKER_CAPABILITIES, Podman};
use super::registry::Registry;
use super::{debian, folder, layout, skip};

/// A compiler is installed in half a minute on two idle cores.
pub const BUILD_LIMIT: Duration = Duration::from_secs(600);

/// What an engine may take to end a container whose time is over.
const ENDING: Duration = Duration::from_secs(60);

/// A registry with the images `debian:base` (if asked for) and `busybox:base` in it.
pub struct World {
    /// Starts containers.
    pub podman: &'static Podman,
    /// Reached from the containers by the same name as from here.
    pub registry: Registry,
    /// What the test puts there goes with it.
    pub scratch: TempDir,
}

impl World {
    /// Nothing if containers cannot be started here.
    pub fn new() -> Option<World> {
        let podman = Podman::probe().map_err(|reason| skip("containers", &reason)).ok()?;
        podman.executor_image();
        let scratch = tempfile::tempdir_in(folder("end_to_end")).expect("a directory");
        Some(World { podman, registry: Registry::start(), scratch })
    }

    /// The same with `debian:base` in the registry; nothing either if that base cannot be made here.
    pub fn with_debian() -> Option<World> {
        let world = World::new()?;
        let layout = debian::base_layout().map_err(|reason| skip("debian", &reason)).ok()?;
        layout::push(&layout, &world.registry, "library/debian:base");
        Some(world)
    }

    /// The same with `busybox:base` in the registry.
    pub fn with_busybox() -> Option<World> {
        let world = World::new()?;
        layout::push_busybox(&world.registry, &world.scratch.path().join("busybox"));
        Some(world)
    }

    /// A folder with a Dockerfile and nothing else.
    pub fn context(&self, name: &str, dockerfile: &str) -> PathBuf {
        let context = self.scratch.path().join(name);
        fs::create_dir_all(&context).expect("created");
        fs::write(context.join("Dockerfile"), dockerfile).expect("written");
        context
    }

    /// Builds a context in a container that differs from Docker's default by `options`.
    pub fn build(&self, context: &Path, options: &[&str], flags: &[&str]) -> Ended {
        self.build_on(self.podman, context, options, flags)
    }

    /// The same on another engine.
    pub fn build_on(&self, podman: &Podman, context: &Path, options: &[&str], flags: &[&str]) -> Ended {
        run_within(&mut self.build_command(podman, context, options, flags), BUILD_LIMIT + ENDING)
    }

    /// The same, not started yet.
    pub fn build_command(&self, podman: &Podman, context: &Path, options: &[&str], flags: &[&str]) -> Command {
        let host = self.registry.host();
        let volume = format!("{}:/workspace:ro", context.display());
        let options: Vec<&str> = ["-v", &volume].iter().chain(options).copied().collect();
        let map = format!("--registry-map=index.docker.io={host}");
        let mut command = podman.run_executor(BUILD_LIMIT, &options);
        command.args([&map, "--insecure", "--insecure-pull", "--context=dir:///workspace"]).args(flags);
        command
    }
}

impl World {
    /// Builds an image of `context` in a container with Docker's default capabilities, changed by `options`, and reads
    /// what came out.
    #[track_caller]
    pub fn image(&self, context: &Path, options: &[&str], flags: &[&str]) -> FlatImage {
        self.image_and_log(context, options, flags).0
    }

    /// The same, with what the executor said.
    #[track_caller]
    pub fn image_and_log(&self, context: &Path, options: &[&str], flags: &[&str]) -> (FlatImage, Ended) {
        let options: Vec<&str> = [DOCKER_CAPABILITIES].iter().chain(options).copied().collect();
        self.image_of_podman(context, &options, flags)
    }

    /// The same with podman's own capabilities, which lack those that make device nodes and raw sockets.
    #[track_caller]
    pub fn image_of_podman(&self, context: &Path, options: &[&str], flags: &[&str]) -> (FlatImage, Ended) {
        let result = tempfile::tempdir_in(self.scratch.path()).expect("a directory");
        let volume = format!("{}:/result", result.path().display());
        let options: Vec<&str> = ["-v", &volume].iter().chain(options).copied().collect();
        let own = ["--no-push", "--tar-path=/result/image.tar", "--destination=test/image"];
        let flags: Vec<&str> = own.iter().chain(flags).copied().collect();
        let ended = self.build(context, &options, &flags);
        assert_eq!(ended.code, Some(0), "{}: {}", context.display(), ended.stderr);
        let image = flat::read_tarball(&result.path().join("image.tar")).expect("a tarball");
        (image, ended)
    }
}

/// The build failed as it must: told in words, with exit code 1, at once.
#[track_caller]
pub fn assert_refused(name: &str, ended: &Ended, word: &str) {
    assert!(!ended.timed_out, "{name} takes too long");
    assert_eq!(ended.code, Some(1), "{name}: {}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{name}: {}", ended.stderr);
    let told = ended.stderr.to_lowercase().contains("error") && ended.stderr.contains(word);
    assert!(told, "{name}: the message must speak of {word:?}: {}", ended.stderr);
}
