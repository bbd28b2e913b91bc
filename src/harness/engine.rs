//! [`Engine`]: podman with storage of its own, and the configuration that it and others like it need.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use tar::EntryType;
use tempfile::TempDir;

use super::Error;
use super::command::run;
use super::written::append;

/// Docker's default set; podman's own has three capabilities less.
pub(super) const DOCKER_CAPABILITIES: &str = "--cap-add=MKNOD,NET_RAW,AUDIT_WRITE";
/// The image of the executor that is measured.
pub(super) const EXECUTOR_IMAGE: &str = "localhost/kanna:bench";

/// The configuration of its image, as users get it.
const EXECUTOR_CONFIG: [&str; 5] = [
    "ENTRYPOINT [\"/kaniko/executor\"]",
    "WORKDIR /workspace",
    "ENV HOME=/root",
    "ENV USER=root",
    "ENV PATH=/usr/local/bin:/kaniko",
];

/// Starts containers; its storage is unmounted when it is dropped.
pub(super) struct Engine {
    containers_conf: PathBuf,
    storage_conf: PathBuf,
    work: PathBuf,
    short: PathBuf,
}

impl Engine {
    /// An engine with its files in `work`, and its sockets in `short`: a path of more than about a hundred bytes is too
    /// long for those.
    pub(super) fn at(work: &Path, short: &Path) -> Engine {
        Engine {
            containers_conf: work.join("containers.conf"),
            storage_conf: work.join("storage.conf"),
            work: work.to_owned(),
            short: short.to_owned(),
        }
    }

    /// Writes the configuration.
    pub(super) fn configure(&self) -> Result<(), Error> {
        let text = format!(
            "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=30000:30000\"]\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\nevents_logger = \"file\"\n\
             tmp_dir = \"{}/libpod\"\n",
            self.short.display()
        );
        write(&self.containers_conf, &text)?;
        write(&self.storage_conf, &storage(&self.graph(), &self.short.join("run")))
    }

    fn graph(&self) -> PathBuf {
        self.work.join("podman")
    }

    /// The program that is measured where no container is: its processes have the name that they have in one.
    pub(super) fn executor(&self) -> PathBuf {
        self.work.join("executor")
    }

    /// The words that podman's command line begins with.
    pub(super) fn podman_words(&self) -> Vec<String> {
        let set = |name: &str, path: &Path| format!("{name}={}", path.display());
        let conf = set("CONTAINERS_CONF", &self.containers_conf);
        vec!["env".into(), conf, set("CONTAINERS_STORAGE_CONF", &self.storage_conf), "podman".into()]
    }

    fn podman(&self) -> Command {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", &self.containers_conf).env("CONTAINERS_STORAGE_CONF", &self.storage_conf);
        command
    }

    /// Takes the executor that is measured: a copy, and an image of it.
    pub(super) fn import_executor(&self, executor: &Path) -> Result<(), Error> {
        let copied = fs::copy(executor, self.executor());
        copied.map_err(|source| Error::file("copy the executor", executor, source))?;
        let program = fs::read(executor).map_err(|source| Error::file("read the executor", executor, source))?;
        let path = self.work.join("executor.tar");
        let tar = fs::File::create(&path).and_then(|file| executor_tar(file, &program));
        tar.map_err(|source| Error::file("write", &path, source))?;
        let mut import = self.podman();
        import.args(["import", "--quiet"]);
        import.args(EXECUTOR_CONFIG.iter().flat_map(|change| ["--change", change]));
        run(import.arg(&path).arg(EXECUTOR_IMAGE))?;
        fs::remove_file(&path).map_err(|source| Error::file("remove", &path, source))
    }

    /// Takes the images of an archive.
    pub(super) fn load(&self, archive: &Path) -> Result<(), Error> {
        run(self.podman().args(["load", "--quiet", "--input"]).arg(archive)).map(drop)
    }

    /// Removes all containers and what they wrote. Not part of `podman run`, whose time is taken.
    pub(super) fn remove_containers(&self) -> Result<(), Error> {
        run(self.podman().args(["rm", "--all", "--force"])).map(drop)
    }

    /// A command for a builder that may keep what it wants in `state`.
    pub(super) fn command(&self, words: &[String], state: &State) -> Result<Command, Error> {
        let (program, arguments) = words.split_first().expect("a builder's command has words");
        let conf = state.path().join("storage.conf");
        write(&conf, &storage(&state.graph(), &state.path().join("run")))?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(state.path());
        command.env("CONTAINERS_CONF", &self.containers_conf).env("CONTAINERS_STORAGE_CONF", conf);
        Ok(command)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(error) = self.remove_containers() {
            tracing::debug!("{error}");
        }
        leave_storage(&self.graph());
    }
}

/// A folder in which a builder keeps what it wants, storage of an engine for one; gone when it is dropped.
pub(super) struct State(TempDir);

impl State {
    pub(super) fn within(folder: &Path) -> Result<State, Error> {
        let state = tempfile::Builder::new().prefix("state-").tempdir_in(folder);
        state.map(State).map_err(|source| Error::file("make a folder in", folder, source))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    fn graph(&self) -> PathBuf {
        self.path().join("graph")
    }
}

impl Drop for State {
    fn drop(&mut self) {
        leave_storage(&self.graph());
    }
}

/// What keeps the storage at `graph` from being removed: the overlay driver mounts its folder onto itself.
fn leave_storage(graph: &Path) {
    let mount = graph.join("overlay");
    if let Err(error) = nix::mount::umount(&mount) {
        // not mounted, or never made
        tracing::debug!("unmount {}: {error}", mount.display());
    }
}

fn storage(graph: &Path, run: &Path) -> String {
    let (graph, run) = (graph.display(), run.display());
    format!("[storage]\ndriver = \"overlay\"\ngraphroot = \"{graph}\"\nrunroot = \"{run}\"\n")
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::file("write", path, source))
}

fn executor_tar(file: fs::File, program: &[u8]) -> io::Result<()> {
    let mut tar = tar::Builder::new(file);
    append(&mut tar, EntryType::Directory, "etc", 0o755, b"")?;
    append(&mut tar, EntryType::Regular, "etc/nsswitch.conf", 0o644, b"hosts: files dns\n")?;
    append(&mut tar, EntryType::Directory, "kaniko", 0o777, b"")?;
    append(&mut tar, EntryType::Directory, "kaniko/.docker", 0o777, b"")?;
    append(&mut tar, EntryType::Regular, "kaniko/executor", 0o755, program)?;
    append(&mut tar, EntryType::Directory, "workspace", 0o755, b"")?;
    tar.into_inner().map(drop)
}
