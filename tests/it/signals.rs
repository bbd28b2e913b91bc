//! A signal that asks the executor to end does so soon, whatever it is at, and leaves nothing half-done; and so does the end
//! of the time that it may take.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kanna::oci::{Digest, media_type};
use serde_json::json;

use crate::support::command::run;
use crate::support::http::{Ending, Reply, Request, Server};
use crate::support::podman::DOCKER_CAPABILITIES;
use crate::support::world::World;

/// Containers start in a second, and in many when other tests use all cores.
const PATIENCE: Duration = Duration::from_secs(180);
/// What the servers and commands of these tests would go on for. No test waits so long.
const FOR_EVER: Duration = Duration::from_secs(600);

const TERM: (&str, i32) = ("TERM", 143);
const INT: (&str, i32) = ("INT", 130);
/// Exit code of timeout(1).
const OUT_OF_TIME: i32 = 124;

/// Flags of a build that pushes nothing.
const TO_FILES: [&str; 4] =
    ["--no-push", "--destination=test/x", "--tar-path=/result/image.tar", "--oci-layout-path=/result/layout"];

/// A build in a container, with a work directory and a folder for results that outlive it.
struct Trial<'a> {
    world: &'a World,
    name: String,
    place: PathBuf,
    options: Vec<&'a str>,
}

impl<'a> Trial<'a> {
    fn new(world: &'a World, name: &str) -> Trial<'a> {
        let place = world.scratch.path().join(name);
        for folder in ["work", "result", "context"] {
            fs::create_dir_all(place.join(folder)).expect("created");
        }
        Trial { world, name: format!("kanna-{name}-{}", std::process::id()), place, options: Vec::new() }
    }

    /// Starts the build, waits until `is_time`, sends the signal, and says what the executor wrote.
    fn stop(
        &self,
        (signal, code): (&str, i32),
        dockerfile: &str,
        flags: &[&str],
        is_time: &dyn Fn(&str) -> bool,
    ) -> String {
        self.end(code, dockerfile, flags, |told| {
            self.wait("the moment", told, || is_time(&told()));
            run(self.world.podman.command().args(["kill", "--signal", signal, &self.name]));
        })
    }

    /// Starts the build, which ends with `code` after what is done `meanwhile`, and says what the executor wrote.
    fn end(&self, code: i32, dockerfile: &str, flags: &[&str], meanwhile: impl FnOnce(&dyn Fn() -> String)) -> String {
        fs::write(self.place.join("context/Dockerfile"), dockerfile).expect("written");
        let log = self.place.join("log");
        let mut child = self.command(flags, &log).spawn().expect("started");
        let told = || fs::read_to_string(&log).expect("written");
        meanwhile(&told);
        let mut ended = None;
        self.wait("the end", &told, || {
            ended = child.try_wait().expect("a child of ours");
            ended.is_some()
        });
        assert_eq!(ended.and_then(|status| status.code()), Some(code), "{}: {}", self.name, told());
        self.assert_nothing_half_done();
        told()
    }

    fn command(&self, flags: &[&str], log: &Path) -> Command {
        let volume = |folder: &str| format!("--volume={}:/{folder}", self.place.join(folder).display());
        let (work, result, context) = (volume("work"), volume("result"), volume("context"));
        let options = [DOCKER_CAPABILITIES, "--name", &self.name, &work, &result, &context];
        let options: Vec<&str> = options.iter().chain(&self.options).copied().collect();
        let podman = self.world.podman.run_executor(FOR_EVER, &options);
        // a shell's background jobs ignore SIGINT, and so would all that they start
        let mut command = Command::new("env");
        command.arg("--default-signal=INT,QUIT").arg(podman.get_program()).args(podman.get_args());
        for (name, value) in podman.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let log = fs::File::create(log).expect("created");
        command
            .args(["--context=/context", "--kaniko-dir=/work", "--insecure", "--insecure-pull"])
            .arg("--digest-file=/result/digest")
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        command
    }

    fn wait(&self, what: &str, told: &dyn Fn() -> String, mut is_there: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_there() {
            if Instant::now() > deadline {
                run(self.world.podman.command().args(["rm", "--force", "--time=0", &self.name]));
                panic!("{}: {what} did not come: {}", self.name, told());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Blobs are whole, results are not there, and nothing else is.
    fn assert_nothing_half_done(&self) {
        let mut found = files_below(&self.place.join("work"));
        found.retain(|path| !path.ends_with("blobs/oci-layout"));
        for path in found {
            let digest = Digest::of(&fs::read(&path).expect("read")).hex();
            assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(&*digest), "{}", path.display());
        }
        let results = files_below(&self.place.join("result"));
        assert!(results.is_empty(), "{results:?}");
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("listed") {
        let path = entry.expect("listed").path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

/// A registry with one image `app:1` of one layer, whose diff ID is invented.
fn registry(layer: Vec<u8>, layer_ending: Ending) -> Server {
    let config = json!({
        "architecture": kanna::oci::Platform::host().architecture,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"invented").to_string()]},
    });
    let config = config.to_string().into_bytes();
    let describe = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": describe(media_type::OCI_CONFIG, &config),
        "layers": [describe(media_type::OCI_LAYER_GZIP, &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let config_name = Digest::of(&config).to_string();
    Server::start(move |request, _| match request.path.as_str() {
        "/v2/" => Reply::new(200, "{}"),
        path if path.contains("/manifests/") => {
            Reply::new(200, manifest.clone()).header("Content-Type", media_type::OCI_MANIFEST)
        }
        path if path.ends_with(&config_name) => Reply::new(200, config.clone()),
        _ => Reply::new(200, layer.clone()).ending(layer_ending),
    })
}

/// A gzip of a tar with 32 GB of zeros for a folder that is mounted, so that they are read and not written.
fn endless_layer() -> Vec<u8> {
    const MEMBER_BYTES: usize = 64 * 1024 * 1024;
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("a Vec takes all");
        encoder.finish().expect("a Vec takes all")
    };
    let members = 512;
    let mut header = tar::Header::new_gnu();
    header.set_path("result/zeros").expect("a short name");
    header.set_size((members * MEMBER_BYTES) as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let zeros = gzip(&vec![0; MEMBER_BYTES]);
    [gzip(header.as_bytes()), zeros.repeat(members)].concat()
}

fn is_upload(request: &Request) -> bool {
    request.method == "PUT"
}

#[test]
fn while_a_silent_registry_is_waited_for() {
    let Some(world) = World::new() else { return };
    let server = registry(vec![7; 100_000], Ending::SilentAfter(50_000, FOR_EVER));
    let dockerfile = format!("FROM {}/app:1\nRUN true\n", server.host());
    for (name, signal) in [("pull-term", TERM), ("pull-int", INT)] {
        let seen = server.seen().len();
        // the config, then the layer
        let asked = |_: &str| {
            let requests = server.seen();
            requests[seen..].iter().filter(|request| request.path.contains("/blobs/")).count() >= 2
        };
        Trial::new(&world, name).stop(signal, &dockerfile, &TO_FILES, &asked);
    }
}

#[test]
fn while_a_silent_credential_helper_is_waited_for() {
    let Some(world) = World::new() else { return };
    let server = Server::start(|_, _| Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"test\""));
    let dockerfile = format!("FROM {}/app:1\nRUN true\n", server.host());
    let mut trial = Trial::new(&world, "helper");
    trial.options = vec!["--env=PATH=/context", "--env=DOCKER_CONFIG=/context"];
    let at = |name: &str| trial.place.join("context").join(name);
    fs::write(at("config.json"), r#"{"credsStore": "silent"}"#).expect("written");
    fs::copy("/bin/busybox", at("busybox")).expect("copied");
    let script =
        format!("#!/context/busybox sh\n: >/context/asked\nexec /context/busybox sleep {}\n", FOR_EVER.as_secs());
    fs::write(at("docker-credential-silent"), script).expect("written");
    fs::set_permissions(at("docker-credential-silent"), fs::Permissions::from_mode(0o755)).expect("made executable");
    let log = trial.stop(TERM, &dockerfile, &TO_FILES, &|_| at("asked").exists());
    assert!(!log.contains("no answer came"), "{log}");
}

#[test]
fn while_a_file_for_add_arrives() {
    let Some(world) = World::new() else { return };
    let ending = Ending::SilentAfter(50_000, FOR_EVER);
    let server = Server::start(move |_, _| Reply::new(200, vec![7; 100_000]).ending(ending));
    let dockerfile = format!("FROM scratch\nADD http://{}/file /\n", server.host());
    let trial = Trial::new(&world, "add");
    let is_download = |path: &PathBuf| path.to_string_lossy().contains("/.download-");
    let arrives = |_: &str| files_below(&trial.place.join("work")).iter().any(is_download);
    trial.stop(TERM, &dockerfile, &TO_FILES, &arrives);
}

#[test]
fn while_a_large_layer_is_unpacked() {
    let Some(world) = World::new() else { return };
    let server = registry(endless_layer(), Ending::Whole);
    let dockerfile = format!("FROM {}/app:1\nRUN true\n", server.host());
    let trial = Trial::new(&world, "unpack");
    let fetched = |_: &str| {
        fs::read_dir(trial.place.join("work/blobs/blobs/sha256"))
            .is_ok_and(|blobs| blobs.flatten().any(|blob| !blob.file_name().to_string_lossy().starts_with('.')))
    };
    trial.stop(TERM, &dockerfile, &TO_FILES, &fetched);
}

#[test]
fn while_a_command_runs() {
    let Some(world) = World::with_busybox() else { return };
    let base = format!("{}/library/busybox:base", world.registry.host());
    let seconds = FOR_EVER.as_secs();
    for (name, signal, script) in [
        ("run-term", TERM, format!("echo begun; exec sleep {seconds}")),
        ("run-int", INT, format!("echo begun; exec sleep {seconds}")),
        // the build ends even if the command thinks that all is well
        ("run-deaf", TERM, format!("trap 'exit 0' TERM; echo begun; sleep {seconds} & wait")),
    ] {
        let dockerfile = format!("FROM {base}\nCOPY Dockerfile /\nRUN {script}\nRUN echo not reached\n");
        let begun = |log: &str| log.lines().any(|line| line == "begun");
        let trial = Trial::new(&world, name);
        let log = trial.stop(signal, &dockerfile, &TO_FILES, &begun);
        assert!(!log.lines().any(|line| line == "not reached"), "{name}: {log}");
        assert!(log.contains("stopped by signal"), "{name}: {log}");
    }
}

#[test]
fn while_a_silent_registry_takes_the_image() {
    let Some(world) = World::new() else { return };
    let server = Server::start(|request, _| match request.method.as_str() {
        "POST" => Reply::new(202, "").header("Location", "/v2/app/blobs/uploads/1"),
        "HEAD" => Reply::new(404, ""),
        "PUT" => {
            thread::sleep(FOR_EVER);
            Reply::new(201, "")
        }
        _ => Reply::new(200, "{}"),
    });
    let destination = format!("--destination={}/app:2", server.host());
    let asked = |_: &str| server.seen().iter().any(is_upload);
    let trial = Trial::new(&world, "push");
    let log = trial.stop(TERM, "FROM scratch\nCOPY Dockerfile /\n", &[&destination], &asked);
    assert!(!log.contains("Pushed"), "{log}");
}

#[test]
fn when_a_command_takes_too_long() {
    let Some(world) = World::with_busybox() else { return };
    let base = format!("{}/library/busybox:base", world.registry.host());
    let script = format!("trap 'echo told; exit 0' TERM; echo begun; sleep {} & wait", FOR_EVER.as_secs());
    let dockerfile = format!("FROM {base}\nRUN sleep 3\nRUN sleep 3\nRUN {script}\nRUN echo not reached\n");
    let flags = [&TO_FILES[..], &["--run-timeout=5s"]].concat();
    let log = Trial::new(&world, "limit-run").end(OUT_OF_TIME, &dockerfile, &flags, |_| {});
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines.contains(&"begun") && lines.contains(&"told") && !lines.contains(&"not reached"), "{log}");
    assert!(log.contains("dockerfile line 4: RUN ") && log.contains("the command was ended after 5s"), "{log}");
    assert!(log.contains("hint: --run-timeout"), "{log}");
}

#[test]
fn when_the_build_takes_too_long() {
    let Some(world) = World::with_busybox() else { return };
    let base = format!("{}/library/busybox:base", world.registry.host());
    let server = registry(vec![7; 100_000], Ending::SilentAfter(50_000, FOR_EVER));
    let pull = format!("FROM {}/app:1\nRUN true\n", server.host());
    let run = format!("FROM {base}\nRUN echo begun; exec sleep {}\nRUN echo not reached\n", FOR_EVER.as_secs());
    for (name, dockerfile, limit, flag) in [
        ("limit-dockerfile", "", "--build-timeout=3s", "--dockerfile=/context/fifo"),
        ("limit-context", "", "--build-timeout=3s", "--context=tar:///context/fifo"),
        ("limit-pull", &*pull, "--build-timeout=5s", "--run-timeout=1h"),
        ("limit-build", &*run, "--build-timeout=10s", "--run-timeout=1h"),
    ] {
        let trial = Trial::new(&world, name);
        let fifo = trial.place.join("context/fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, fifo, rustix::fs::Mode::RWXU).expect("created");
        let log = trial.end(OUT_OF_TIME, dockerfile, &[&TO_FILES[..], &[limit, flag]].concat(), |_| {});
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.contains(&"begun"), name == "limit-build", "{name}: {log}");
        assert!(!lines.contains(&"not reached"), "{name}: {log}");
        assert!(log.contains("stopped by the time limit of the build"), "{name}: {log}");
        assert!(log.contains("hint: --build-timeout"), "{name}: {log}");
    }
}
