//! One case: its parameters, its scratch folder, its build.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Bench, Builder, lists};
use crate::support::command::run_within;
use crate::support::flat::{FlatImage, read_tarball};
use crate::support::podman::DOCKER_CAPABILITIES;

/// A case takes about a second; this is for a machine that does much else.
const TIME_LIMIT: Duration = Duration::from_secs(90);

/// Where the container writes the image: no case has this name.
const RESULT_MOUNT: &str = "/conformance-result";

/// What an isolated build works in, below its home directory.
const WORK: &str = ".cache/kanna";

/// What the image is called in the tarball.
pub const TAG: &str = "docker.io/conformance/case:latest";

/// A case as it stands in the repository.
pub struct Case {
    pub name: String,
    folder: PathBuf,
    parameters: Value,
    /// What must come out, if an image must.
    expected: Option<Value>,
}

/// What the executor made of a case.
pub enum Outcome {
    Image(FlatImage),
    /// It failed as it should fail: with this message and nothing written.
    Refused(String),
    /// Anything that must never happen.
    Broken(String),
}

impl Case {
    /// Reads what the repository says about a case; an accepted difference has an expectation of its own.
    pub fn read(reference: &Path, name: String) -> Case {
        let folder = reference.join("cases").join(&name);
        let json = |path: PathBuf| -> Value {
            let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let parameters = json(folder.join("case.json"));
        let accepted = lists::ACCEPTED.iter().any(|listed| listed.name == name);
        let expected = match (accepted, parameters["expect"].as_str()) {
            (true, _) => Some(json(reference.join("accepted").join(format!("{name}.json")))),
            (false, Some("image")) => Some(json(folder.join("expected.json"))),
            (false, Some("error")) => None,
            (false, other) => panic!("{name}: expect is {other:?}"),
        };
        Case { name, folder, parameters, expected }
    }

    /// Whether the build must fail.
    pub fn must_fail(&self) -> bool {
        self.expected.is_none()
    }

    /// The tree and the configuration that must come out.
    pub fn expected(&self) -> &Value {
        self.expected.as_ref().expect("asked only of cases that build")
    }

    /// Whether times are part of the expectation.
    pub fn compares_mtimes(&self) -> bool {
        self.parameters["mtimes"] == true
    }

    /// Makes the scratch folder by the rules of the README: a checkout's umask must not change the result.
    pub fn prepare(&self, scratch: &Path) -> Result<(), String> {
        let text = |error: std::io::Error| format!("prepare {}: {error}", self.name);
        let case = scratch.join("case");
        copy_normalised(&self.folder, &case).map_err(text)?;
        let context = case.join("context");
        if !context.exists() {
            fs::create_dir(&context).map_err(text)?;
            fs::set_permissions(&context, fs::Permissions::from_mode(0o755)).map_err(text)?;
        }
        fs::create_dir(scratch.join("result")).map_err(text)?;
        if case.join("context.setup").exists() {
            let mut setup = Command::new("sh");
            setup.args(["-c", "umask 022; exec sh -eu ../context.setup"]).current_dir(&context);
            let ended = run_within(&mut setup, TIME_LIMIT);
            if ended.code != Some(0) {
                return Err(format!("context.setup: {}", ended.stderr));
            }
        }
        Ok(())
    }

    /// Builds the case, which was prepared in `scratch`.
    pub fn build(&self, scratch: &Path, bench: &Bench) -> Outcome {
        let (case, result) = (scratch.join("case"), scratch.join("result"));
        let mut command = match &bench.builder {
            Builder::InPlace(podman) => {
                let workspace = format!("{}:/workspace:ro", case.display());
                let result = format!("{}:{RESULT_MOUNT}", result.display());
                let options = [DOCKER_CAPABILITIES, "-v", &workspace, "-v", &result];
                let mut command = podman.run_executor(TIME_LIMIT, &options);
                command.args(self.flags(bench, Path::new("/workspace"), Path::new(RESULT_MOUNT)));
                command
            }
            Builder::AsRoot(machine) => self.isolated(machine.as_root(scratch), bench, &case, &result),
            Builder::AsUser(machine) => {
                machine.give(scratch);
                let command = machine.as_user(scratch, Some(&machine.path("ids")));
                self.isolated(command, bench, &case, &result)
            }
        };
        let started = Instant::now();
        let ended = run_within(&mut command, TIME_LIMIT * 2);
        let _ = fs::write(scratch.join("log"), format!("{command:?}\n{}{}", ended.stdout, ended.stderr));
        if started.elapsed() > TIME_LIMIT {
            return Outcome::Broken(format!("takes more than {TIME_LIMIT:?}"));
        }
        let tarball = scratch.join("result/image.tar");
        if ended.code == Some(0) {
            if !is_empty(&scratch.join(WORK)) {
                return Outcome::Broken(format!("leaves something in {WORK}"));
            }
            return match read_tarball(&tarball) {
                Ok(image) => Outcome::Image(image),
                Err(reason) => Outcome::Broken(format!("the image cannot be read: {reason}")),
            };
        }
        let message = ended.stderr.lines().rfind(|line| line.contains("rror")).unwrap_or_default();
        let left = fs::read_dir(scratch.join("result")).map_or(0, Iterator::count);
        if ended.stderr.contains("panicked at") || ended.code.is_none() {
            Outcome::Broken(format!("panics: {}", ended.stderr))
        } else if ended.code == Some(125) {
            Outcome::Broken(format!("podman: {}", ended.stderr))
        } else if message.is_empty() {
            Outcome::Broken(format!("fails ({:?}) without saying why: {}", ended.code, ended.stderr))
        } else if left > 0 {
            Outcome::Broken(format!("fails, but leaves {left} files behind: {message}"))
        } else if !is_empty(&scratch.join(WORK)) {
            Outcome::Broken(format!("fails, but leaves something in {WORK}: {message}"))
        } else {
            Outcome::Refused(message.to_owned())
        }
    }

    fn isolated(&self, mut command: Command, bench: &Bench, case: &Path, result: &Path) -> Command {
        command.current_dir("/").arg("--isolation=namespaces").args(self.flags(bench, case, result));
        command
    }

    /// The flags of a build that finds the case and leaves the result in these directories.
    fn flags(&self, bench: &Bench, case: &Path, result: &Path) -> Vec<String> {
        let registry = bench.registry.host();
        let (case, result) = (case.display(), result.display());
        let dockerfile = self.parameters["dockerfile"].as_str().unwrap_or("Dockerfile");
        let mut flags = vec![
            format!("--context=dir://{case}/context"),
            format!("--dockerfile={case}/{dockerfile}"),
            "--no-push".to_owned(),
            format!("--tar-path={result}/image.tar"),
            format!("--destination={TAG}"),
            format!("--registry-map=index.docker.io={registry}"),
            "--insecure-pull".to_owned(),
            format!("--insecure-registry={registry}"),
        ];
        for (name, value) in self.parameters["args"].as_object().into_iter().flatten() {
            flags.push(format!("--build-arg={name}={}", value.as_str().unwrap_or_default()));
        }
        for (name, place) in self.parameters["named_contexts"].as_object().into_iter().flatten() {
            flags.push(format!("--build-context={name}={case}/{}", place.as_str().unwrap_or_default()));
        }
        flags.extend(self.parameters["target"].as_str().map(|target| format!("--target={target}")));
        flags.extend(self.parameters["platform"].as_str().map(|platform| format!("--custom-platform={platform}")));
        flags
    }
}

/// Of a directory that need not exist.
fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}

fn copy_normalised(from: &Path, to: &Path) -> std::io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    if metadata.is_dir() {
        fs::create_dir_all(to)?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy_normalised(&from.join(&name), &to.join(&name))?;
        }
    } else {
        fs::write(to, fs::read(from)?)?;
        let executable = metadata.permissions().mode() & 0o100 != 0;
        fs::set_permissions(to, fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
    }
    lchown(to, Some(0), Some(0))
}
