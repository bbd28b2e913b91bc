//! Containers of an ordinary engine: podman with settings and storage of its own, so that the machine's images and
//! containers are neither seen nor touched.
//!
//! Every podman runs in a mount namespace of its own. What it mounts is nowhere else to be seen, and is gone when it and
//! its container are, however they end; and there it finds the user ids that `--userns=auto` hands out, which the
//! machine need not have given to anybody. A container ends by itself when its time is over, even if the test that
//! started it was killed.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::command::{run, run_within};
use super::{folder, scratch};

/// podman's default set. It is configured, since some distributions' podman gives Docker's set.
const PODMANS_CAPABILITIES: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Docker's default set, which has three capabilities more than podman's.
pub const DOCKER_CAPABILITIES: &str = "--cap-add=MKNOD,NET_RAW,AUDIT_WRITE";

/// Name of the image that holds the executor of this build.
const EXECUTOR_IMAGE: &str = "localhost/kanna-executor:test";

/// A label of containers: the test process that started them.
const STARTED_BY: &str = "kanna.test";

/// What podman may take for anything but a build.
const ENGINE_LIMIT: Duration = Duration::from_secs(120);

/// Ids for user namespaces, a hundred times 65,536 of them; nobody on the machine has them.
const SUBORDINATE_IDS: &str = "containers:100000:6553600\n";

/// Where podman finds what it keeps about containers that run: in its mount namespace, a directory of the target
/// directory is mounted there. conmon binds sockets below it: with a path of more than about a hundred bytes podman
/// waits 20 seconds in vain.
const STATE: &str = "/tmp/kanna-podman";

/// Two tests must not make the executor image at the same time.
static MAKING_EXECUTOR_IMAGE: Mutex<()> = Mutex::new(());

/// Read while images are pulled, written while some are removed: what podman finds there before it copies an image, it
/// takes for there to its end, and fails with `layer not known` where the layer went with another image meanwhile.
static IMAGES: RwLock<()> = RwLock::new(());

/// Empties the engine's folder if it is another's, copied: podman goes by the paths in its database, and would mix both.
fn forget_if_copied(home: &Path) -> io::Result<()> {
    let note = home.join("place");
    if fs::read(&note).is_ok_and(|place| place == home.as_os_str().as_bytes()) {
        return Ok(());
    }
    fs::remove_dir_all(home)?;
    fs::create_dir(home)?;
    fs::write(note, home.as_os_str().as_bytes())
}

/// An engine that starts containers here.
pub struct Podman {
    containers_conf: PathBuf,
    storage_conf: PathBuf,
    /// What the shell does in the new mount namespace before it becomes podman.
    mounts: String,
}

impl Podman {
    /// The engine, or why there is none.
    pub fn probe() -> Result<&'static Podman, String> {
        static PROBED: LazyLock<Result<Podman, String>> = LazyLock::new(Podman::start);
        PROBED.as_ref().map_err(Clone::clone)
    }

    fn start() -> Result<Podman, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("containers with an overlay root are made as root".into());
        }
        let home = folder("podman");
        forget_if_copied(&home).map_err(|error| format!("{}: {error}", home.display()))?;
        let (state, ids) = (home.join("state"), home.join("subordinate-ids"));
        for directory in [Path::new(STATE), &state] {
            fs::create_dir_all(directory).map_err(|error| error.to_string())?;
        }
        fs::write(&ids, SUBORDINATE_IDS).map_err(|error| error.to_string())?;
        let bind = |from: &Path, to: &str| format!("mount --bind '{}' {to} && ", from.display());
        let mounts = [bind(&state, STATE), bind(&ids, "/etc/subuid"), bind(&ids, "/etc/subgid")].concat();
        let podman = Podman::configured(&home, &home.join("graph"), "", mounts)?;
        podman.remove_leftovers();
        // an image of one static program shows whether containers start at all
        let mut tar = tar::Builder::new(Vec::new());
        let busybox = fs::read("/bin/busybox").map_err(|error| format!("busybox-static: {error}"))?;
        append(&mut tar, tar::EntryType::Regular, "true", 0o755, &busybox);
        let tar = tar.into_inner().expect("a Vec takes all");
        podman.import(&tar, &["ENTRYPOINT [\"/true\"]"], "localhost/probe:1")?;
        let started = run_within(podman.run_container(ENGINE_LIMIT).arg("localhost/probe:1"), ENGINE_LIMIT);
        if started.code == Some(0) { Ok(podman) } else { Err(format!("podman run: {}", started.stderr)) }
    }

    /// With its settings written to `home`.
    fn configured(home: &Path, graph: &Path, storage_options: &str, mounts: String) -> Result<Podman, String> {
        let (containers_conf, storage_conf) = (home.join("containers.conf"), home.join("storage.conf"));
        let write = |path: &Path, text: String| fs::write(path, text).map_err(|error| error.to_string());
        write(
            &containers_conf,
            format!(
                "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=30000:30000\"]\n\
                 default_capabilities = {PODMANS_CAPABILITIES:?}\n\
                 [engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\nevents_logger = \"file\"\n\
                 tmp_dir = \"{STATE}/libpod\"\n"
            ),
        )?;
        write(
            &storage_conf,
            format!(
                "[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{STATE}/run\"\n\
                 [storage.options]\n{storage_options}\n",
                graph.display()
            ),
        )?;
        Ok(Podman { containers_conf, storage_conf, mounts })
    }

    /// An engine with the same images whose containers can write only so much in all. Its settings go to `scratch`.
    pub fn with_room(&self, bytes: u64, scratch: &Path) -> Podman {
        self.executor_image();
        let images = format!("additionalimagestores = [\"{}\"]", folder("podman").join("graph").display());
        let mounts = format!(
            "{}mount -t tmpfs tmpfs {STATE} && mkdir -p {STATE}/graph/overlay && \
             mount -t tmpfs -o size={bytes} tmpfs {STATE}/graph/overlay && ",
            self.mounts
        );
        Podman::configured(scratch, &Path::new(STATE).join("graph"), &images, mounts).expect("written")
    }

    /// Removes containers of test processes that were killed.
    fn remove_leftovers(&self) {
        let format = format!("{{{{.ID}}}} {{{{index .Labels \"{STARTED_BY}\"}}}}");
        let listed = run_within(
            self.command().args(["ps", "--all", "--filter", &format!("label={STARTED_BY}"), "--format", &format]),
            ENGINE_LIMIT,
        );
        for (id, process) in listed.stdout.lines().filter_map(|line| line.split_once(' ')) {
            if !Path::new("/proc").join(process).exists() {
                run_within(self.command().args(["rm", "--force", "--time=0", id]), ENGINE_LIMIT);
            }
        }
    }

    /// `podman`, to be given its arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation=private", "sh", "-c"])
            .arg(format!("{}exec podman \"$@\"", self.mounts))
            .arg("podman")
            // a container's health is asked for, not watched by the machine's systemd
            .env("DISABLE_HC_SYSTEMD", "true")
            .env("CONTAINERS_CONF", &self.containers_conf)
            .env("CONTAINERS_STORAGE_CONF", &self.storage_conf);
        command
    }

    /// An image of one layer.
    pub fn import(&self, tar: &[u8], changes: &[&str], name: &str) -> Result<(), String> {
        let scratch = scratch();
        let file = scratch.path().join("layer.tar");
        fs::write(&file, tar).map_err(|error| error.to_string())?;
        let mut command = self.command();
        command.arg("import").arg("--quiet");
        for change in changes {
            command.args(["--change", change]);
        }
        let ended = run_within(command.arg(&file).arg(name), ENGINE_LIMIT);
        if ended.code == Some(0) { Ok(()) } else { Err(format!("podman import: {}", ended.stderr)) }
    }

    /// Fetches an image from a registry of this machine; one for another platform, too.
    #[track_caller]
    pub fn pull(&self, image: &str) {
        let _images = IMAGES.read().unwrap_or_else(PoisonError::into_inner);
        run(self.command().args(["pull", "--quiet", "--tls-verify=false", image]));
    }

    /// Removes an image, and the containers that were made from it.
    pub fn remove_image(&self, image: &str) {
        let _images = IMAGES.write().unwrap_or_else(PoisonError::into_inner);
        run_within(self.command().args(["rmi", "--force", image]), ENGINE_LIMIT);
    }

    /// The image as users get it, with the executor of this build. Gives its name.
    pub fn executor_image(&self) -> &'static str {
        // a test that failed while it held the lock left nothing half-done
        let _making = MAKING_EXECUTOR_IMAGE.lock().unwrap_or_else(PoisonError::into_inner);
        static MADE: LazyLock<Mutex<bool>> = LazyLock::new(|| Mutex::new(false));
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        if !*made {
            let program = fs::read(env!("CARGO_BIN_EXE_executor")).expect("cargo has built it");
            self.import(&executor_tar(&program), &EXECUTOR_CONFIG, EXECUTOR_IMAGE).expect("imported");
            let _images = IMAGES.write().unwrap_or_else(PoisonError::into_inner);
            run(self.command().args(["image", "prune", "--force"]));
            *made = true;
        }
        EXECUTOR_IMAGE
    }

    /// `podman run` of an image in a container that ends when `limit` is over and is removed afterwards; options of the
    /// engine come next, then the image, then its arguments.
    pub fn run_container(&self, limit: Duration) -> Command {
        let mut command = self.run_on("host", limit);
        command.arg("--log-driver=none");
        command
    }

    /// The same in a container that has no network but a loopback interface of its own, where every port is free.
    pub fn run_alone(&self, limit: Duration) -> Command {
        let mut command = self.run_on("none", limit);
        command.arg("--log-driver=k8s-file");
        command
    }

    fn run_on(&self, network: &str, limit: Duration) -> Command {
        let mut command = self.command();
        command
            .args(["run", "--rm", "--pull=never", &format!("--network={network}")])
            .args([format!("--timeout={}", limit.as_secs()), format!("--label={STARTED_BY}={}", std::process::id())]);
        command
    }

    /// The same of the executor image; only the executor's flags are missing.
    pub fn run_executor(&self, limit: Duration, options: &[&str]) -> Command {
        let mut command = self.run_container(limit);
        command.args(options).arg(self.executor_image());
        command
    }
}

/// What the image's configuration says (the drop-in surface: image).
const EXECUTOR_CONFIG: [&str; 8] = [
    "ENTRYPOINT [\"/kaniko/executor\"]",
    "WORKDIR /workspace",
    "ENV HOME=/root",
    "ENV USER=root",
    "ENV PATH=/usr/local/bin:/kaniko",
    "ENV SSL_CERT_DIR=/kaniko/ssl/certs",
    "ENV DOCKER_CONFIG=/kaniko/.docker/",
    "ENV DOCKER_CREDENTIAL_GCR_CONFIG=/kaniko/.config/gcloud/docker_credential_gcr_config.json",
];

fn executor_tar(program: &[u8]) -> Vec<u8> {
    use tar::EntryType::{Directory, Regular};
    let certificates = fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, Directory, "etc/", 0o755, b"");
    append(&mut tar, Regular, "etc/nsswitch.conf", 0o644, b"hosts: files dns\n");
    append(&mut tar, Directory, "kaniko/", 0o777, b"");
    append(&mut tar, Directory, "kaniko/.docker/", 0o777, b"");
    append(&mut tar, Regular, "kaniko/executor", 0o755, program);
    append(&mut tar, Directory, "kaniko/ssl/", 0o755, b"");
    append(&mut tar, Directory, "kaniko/ssl/certs/", 0o755, b"");
    append(&mut tar, Regular, "kaniko/ssl/certs/ca-certificates.crt", 0o644, &certificates);
    tar.into_inner().expect("a Vec takes all")
}

fn append(tar: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, mode: u32, data: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(data.len() as u64);
    tar.append_data(&mut header, path, data).expect("a Vec takes all");
}
