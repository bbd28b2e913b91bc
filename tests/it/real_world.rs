//! Dockerfiles of the kinds that people have, each built twice in an ordinary container, on bases made here: both builds
//! give the same digest, every snapshot of the second is judged, and what the image is for works.
//!
//! They lie in `tests/real_world/`, one folder each, written as people write them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kanna::oci::Digest;
use serde_json::Value;

use crate::end_to_end::proxies;
use crate::support::command::{Ended, run, run_within};
use crate::support::podman::DOCKER_CAPABILITIES;
use crate::support::world::{BUILD_LIMIT, World};
use crate::support::{debian, folder, layout, skip};

/// Stages of `bases/Dockerfile`, and the names by which the other Dockerfiles know them.
const BASES: [(&str, &str); 5] = [
    ("node", "library/node:lts-slim"),
    ("python", "library/python:3-slim"),
    ("python-service", "company/python-service:1"),
    ("gcc", "library/gcc:latest"),
    ("rust", "library/rust:slim"),
];

/// As much as a server may take until it answers, or an image's program until it ends.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The machine in the header of a program for arm64 (ELF: `EM_AARCH64`).
const ELF_AARCH64: u16 = 183;

/// What the commands of a Dockerfile may take for the time.
const EPOCH: &str = "--build-arg=SOURCE_DATE_EPOCH=1700000000";

fn dockerfiles() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_world")
}

/// A registry with Debian and the named stages of `bases/Dockerfile`; nothing where they cannot be made.
pub fn world_with(stages: &[&str]) -> Option<World> {
    let world = World::new()?;
    let debian = debian::base_layout().map_err(|reason| skip("debian", &reason)).ok()?;
    layout::push(&debian, &world.registry, "library/debian:stable-slim");
    for (stage, name) in BASES.iter().filter(|(stage, _)| stages.contains(stage)) {
        layout::push(&base(&world, stage), &world.registry, name);
    }
    Some(world)
}

/// An OCI layout of one of the bases; made once and then kept in the target directory, until its Dockerfile changes.
fn base(world: &World, stage: &str) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    // a test that failed while it held the lock left nothing half-done
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let context = dockerfiles().join("bases");
    let version = Digest::of(&fs::read(context.join("Dockerfile")).expect("the Dockerfile is there"));
    let home = folder("real_world").join(version.hex());
    fs::create_dir_all(&home).expect("created");
    let layout = home.join(stage);
    if !layout.exists() {
        let work = tempfile::tempdir_in(&home).expect("a directory");
        let volume = format!("{}:/result", work.path().display());
        let target = format!("--target={stage}");
        let flags = ["--no-push", "--oci-layout-path=/result/layout", "--destination=test/base", &target];
        world.build(&context, &[DOCKER_CAPABILITIES, "-v", &volume], &proxies(&flags)).success(stage);
        fs::rename(work.path().join("layout"), &layout).expect("renamed");
    }
    layout
}

/// An image of one of the Dockerfiles, as it is in the registry. It goes with the test from where containers are started.
struct Built<'a> {
    world: &'a World,
    name: String,
}

/// Builds `tests/real_world/<folder>` twice.
fn build_twice<'a>(world: &'a World, folder: &str, flags: &[&str]) -> Built<'a> {
    let build = |number: &str, more: &[&str]| {
        let result = tempfile::tempdir_in(world.scratch.path()).expect("a directory");
        let volume = format!("{}:/result", result.path().display());
        let name = format!("{}/{folder}/image:{number}", world.registry.host());
        let destination = format!("--destination={name}");
        let own = [&destination, "--reproducible", "--image-format=docker", "--digest-file=/result/digest", EPOCH];
        let flags: Vec<&str> = own.iter().chain(flags).chain(more).copied().collect();
        let options = [DOCKER_CAPABILITIES, "-v", &volume];
        world.build(&dockerfiles().join(folder), &options, &proxies(&flags)).success(&format!("{folder} {number}"));
        let digest = fs::read_to_string(result.path().join("digest")).expect("written");
        (name, digest)
    };
    let (name, digest) = build("first", &[]);
    let (other_name, other_digest) = build("second", &["--verify-snapshots"]);
    if digest != other_digest {
        panic!("{folder}: two builds are not the same:\n{}", difference(world, &name, &other_name));
    }
    world.podman.pull(&name);
    Built { world, name }
}

impl Built<'_> {
    /// What the image's program prints.
    #[track_caller]
    fn prints(&self, options: &[&str], arguments: &[&str]) -> String {
        let mut podman = self.world.podman.run_alone(ANSWER_LIMIT);
        run(podman.args(options).arg(&self.name).args(arguments))
    }

    /// The `config` of the image's configuration.
    fn config(&self) -> Value {
        let image = format!("docker://{}", self.name);
        let text = run(Command::new("skopeo").args(["inspect", "--config", "--raw", "--tls-verify=false", &image]));
        serde_json::from_str(&text).expect("JSON")
    }

    /// Starts the image as a server and waits until its own health check is content. `user` is the number of the image's
    /// user: names are in files that only the podman sees that started the container.
    fn serve(&self, user: &'static str) -> Serving<'_> {
        let config = self.config();
        let test: Vec<&str> = config["config"]["Healthcheck"]["Test"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let check = match test.as_slice() {
            ["CMD", words @ ..] => words.to_vec(),
            ["CMD-SHELL", line] => vec!["/bin/sh", "-c", line],
            _ => panic!("{}: no health check in {config}", self.name),
        };
        let mut podman = self.world.podman.run_alone(BUILD_LIMIT);
        let container = run(podman.args(["--detach", &self.name]));
        let serving = Serving { world: self.world, container, user };
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let ended = run_within(&mut serving.command(&check), ANSWER_LIMIT);
            if ended.code == Some(0) {
                return serving;
            }
            let said =
                || run_within(self.world.podman.command().args(["logs", &serving.container]), ANSWER_LIMIT).stderr;
            assert!(Instant::now() < deadline, "{} is not healthy: {}{}", self.name, ended.stderr, said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Built<'_> {
    fn drop(&mut self) {
        self.world.podman.remove_image(&self.name);
    }
}

/// A container that answers requests from within; it ends with the test.
struct Serving<'a> {
    world: &'a World,
    container: String,
    user: &'static str,
}

impl Serving<'_> {
    fn command(&self, command: &[&str]) -> Command {
        let mut podman = self.world.podman.command();
        podman.args(["exec", "--user", self.user, &self.container]).args(command);
        podman
    }

    /// What a command in the container prints.
    #[track_caller]
    fn prints(&self, command: &[&str]) -> String {
        run(&mut self.command(command))
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        run_within(self.world.podman.command().args(["rm", "--force", "--time=0", &self.container]), ANSWER_LIMIT);
    }
}

/// The files of an image in the registry, in a folder of this name.
fn unpacked(world: &World, image: &str, place: &str) -> PathBuf {
    let oci = world.scratch.path().join(format!("{place}-oci"));
    let bundle = world.scratch.path().join(place);
    let (source, target) = (format!("docker://{image}"), format!("{}:image", oci.display()));
    run(Command::new("skopeo").args(["copy", "--quiet", "--src-tls-verify=false", &source, &format!("oci:{target}")]));
    run(Command::new("umoci").args(["unpack", "--image", &target]).arg(&bundle));
    bundle.join("rootfs")
}

/// Which files of two images differ.
fn difference(world: &World, one: &str, other: &str) -> String {
    let mut diff = Command::new("diff");
    diff.args(["--recursive", "--brief", "--no-dereference"]);
    diff.args([unpacked(world, one, "one"), unpacked(world, other, "other")]);
    let Ended { stdout, stderr, .. } = run_within(&mut diff, ANSWER_LIMIT);
    format!("{stdout}{stderr}")
}

#[test]
fn node() {
    let Some(world) = world_with(&["node"]) else { return };
    let image = build_twice(&world, "node", &["--build-arg=REVISION=abc"]);
    assert_eq!(
        image.config()["config"]["Labels"]["org.opencontainers.image.description"],
        "Greets by HTTP, \"politely\""
    );
    let files = image.prints(&["--entrypoint=ls"], &["-A"]);
    let expected = ".env.example README.md healthcheck.js node_modules package-lock.json package.json server.js";
    assert_eq!(files.split_whitespace().collect::<Vec<_>>().join(" "), expected);
    // the entry point makes `node` of an option
    assert_eq!(image.prints(&[], &["--print", "os.userInfo().username"]), "node");
    let get = "fetch('http://127.0.0.1:3000/hello/world').then(answer => answer.text()).then(console.log)";
    assert_eq!(image.serve("1000").prints(&["node", "--eval", get]), r#"{"hello":"world"}"#);
}

#[test]
fn python() {
    let Some(world) = world_with(&["python-service"]) else { return };
    let image = build_twice(&world, "python", &["--build-arg=WORKERS=3"]);
    let config = image.config();
    assert_eq!(config["config"]["OnBuild"], Value::Null, "triggers act once");
    assert_eq!(config["config"]["ExposedPorts"], serde_json::json!({"8000/tcp": {}}));
    let serving = image.serve("65534");
    let get = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/').read().decode())";
    assert_eq!(serving.prints(&["python", "-c", get]), r#"{"hello":"from a service"}"#);
    assert_eq!(serving.prints(&["stat", "--format=%U", "/proc/1"]), "nobody");
    assert_eq!(serving.prints(&["grep", "workers", "/srv/gunicorn.conf.py"]), "workers = 3");
}

#[test]
fn rust() {
    let Some(world) = world_with(&["rust"]) else { return };
    let image = build_twice(&world, "rust", &[]);
    assert_eq!(image.prints(&[], &[]), "wordcount: counts the words of its arguments");
    assert_eq!(image.prints(&[], &["b", "a", "b"]), "1 a\n2 b");
    assert_eq!(image.prints(&["--entrypoint=wordcount"], &["one"]), "1 one");
    assert_eq!(image.prints(&["--entrypoint=id"], &["-u"]), "10001");
}

#[test]
fn c_without_a_distribution() {
    let Some(world) = world_with(&["gcc"]) else { return };
    let image = build_twice(&world, "c", &[]);
    assert_eq!(image.prints(&[], &[]), "nonroot: 7 3.53553");
    assert_eq!(image.config()["config"]["WorkingDir"], "/home/nonroot");
}

#[test]
fn php() {
    let Some(world) = world_with(&[]) else { return };
    let image = build_twice(&world, "php", &[]);
    let get = |query: &str| format!("echo file_get_contents('http://127.0.0.1:8080/index.php{query}');");
    let serving = image.serve("33");
    assert_eq!(serving.prints(&["php", "-r", &get("")]), r#"{"shout":"GR\u00dcSS DICH!","limit":"64M"}"#);
    assert_eq!(serving.prints(&["php", "-r", &get("?say=a")]), r#"{"shout":"A!","limit":"64M"}"#);
    assert_eq!(serving.prints(&["stat", "--format=%U:%G %a", "/var/lib/app/sessions"]), "www-data:www-data 750");
}

#[test]
fn nginx() {
    let Some(world) = world_with(&[]) else { return };
    let image = build_twice(&world, "nginx", &["--build-arg=BASE_URL=https://site.test/a"]);
    let serving = image.serve("33");
    let get =
        |path: &str| serving.prints(&["curl", "--silent", "--show-error", &format!("http://127.0.0.1:8080{path}")]);
    assert!(
        get("/about.html").contains(r#"<a href="https://site.test/a/index.html">Back</a>"#),
        "{}",
        get("/about.html")
    );
    assert!(get("/files/.htpasswd").contains("403 Forbidden"));
    let packed = serving.prints(&["curl", "--silent", "--head", "--compressed", "http://127.0.0.1:8080/"]);
    assert!(packed.contains("Content-Encoding: gzip"), "{packed}");
    let config = image.config();
    let ports = ["8080/tcp", "9000/udp", "9001/udp", "9002/udp"];
    assert!(ports.iter().all(|port| config["config"]["ExposedPorts"][port].is_object()), "{config}");
}

#[test]
fn monorepo() {
    let Some(world) = world_with(&["node"]) else { return };
    let image = build_twice(&world, "monorepo", &[]);
    assert_eq!(image.prints(&[], &[]), r#"{"day":"86400000 ms","page":"a page"}"#);
    let files = image.prints(&[], &["find", ".", "-type", "f", "-not", "-path", "./node_modules/ms/*"]);
    let mut files: Vec<&str> = files.lines().collect();
    files.sort_unstable();
    let expected = [
        "./node_modules/.package-lock.json",
        "./package.json",
        "./packages/api/package.json",
        "./packages/api/src/main.js",
        "./packages/shared/package.json",
        "./packages/shared/src/index.js",
        "./public/page.txt",
    ];
    assert_eq!(files, expected);
}

#[test]
fn several_platforms() {
    let Some(world) = world_with(&["gcc"]) else { return };
    let image = build_twice(&world, "platforms", &["--build-arg=VERSION=v1.2"]);
    assert_eq!(image.prints(&[], &[]), "linux/amd64: sixty-four bits of one kind");
    drop(image);
    let image = build_twice(&world, "platforms", &["--custom-platform=linux/arm64", "--build-arg=VERSION=v1.2"]);
    let config = image.config();
    assert_eq!((&config["architecture"], &config["variant"]), (&"arm64".into(), &Value::Null));
    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], "1.2");
    // no processor here runs it, but its header can be read
    let root = unpacked(&world, &image.name, "arm64");
    assert_eq!(fs::read_to_string(root.join("data.txt")).expect("copied"), "sixty-four bits of the other kind\n");
    let program = fs::read(root.join("hello-arm64")).expect("named by the platform");
    assert_eq!(u16::from_le_bytes([program[18], program[19]]), ELF_AARCH64);
}
