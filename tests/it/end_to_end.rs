//! The executor as a user meets it: in an ordinary container, with a real Debian base, a real registry, and the tools
//! that others read images with.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::command::{run, run_within};
use crate::support::podman::DOCKER_CAPABILITIES;
use crate::support::skip;
use crate::support::world::{World, assert_refused};

/// As much as a build that must fail at once, or with tiny files, may take.
const SHORT_LIMIT: Duration = Duration::from_secs(60);

/// What is different about a container beside Docker's defaults, and what RUN sees of it.
struct Container {
    name: &'static str,
    options: &'static [&'static str],
    sees: &'static [&'static str],
}

/// Docker's fourteen capabilities, and those without the one of the row or the three that podman does not give.
const ALL: &str = "CapBnd:\t00000000a80425fb";
const NO_CHROOT: &str = "CapBnd:\t00000000a80025fb";
const PODMANS: &str = "CapBnd:\t00000000800405fb";

const CONTAINERS: [Container; 5] = [
    Container { name: "defaults", options: &[DOCKER_CAPABILITIES], sees: &[ALL, "NoNewPrivs:\t0"] },
    Container {
        name: "no-chroot",
        options: &[DOCKER_CAPABILITIES, "--cap-drop=SYS_CHROOT"],
        sees: &[NO_CHROOT, "NoNewPrivs:\t0"],
    },
    Container {
        name: "no-new-privileges",
        options: &[DOCKER_CAPABILITIES, "--security-opt=no-new-privileges"],
        sees: &[ALL, "NoNewPrivs:\t1"],
    },
    Container { name: "podmans-own-capabilities", options: &[], sees: &[PODMANS, "NoNewPrivs:\t0"] },
    // of a size that has Debian's `nobody` in it: podman looks for users only in the image that it starts. And runc cannot
    // mount /sys itself in a user namespace that has the host's network
    Container {
        name: "user-namespace",
        options: &[DOCKER_CAPABILITIES, "--userns=auto:size=65536", "--volume=/sys:/sys:ro"],
        sees: &[ALL, "NoNewPrivs:\t0", " 65536"],
    },
];

#[test]
fn a_compiler_is_installed_and_used_on_debian() {
    let Some(world) = World::with_debian() else { return };
    let context = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/context");
    for Container { name, options, sees } in CONTAINERS {
        let image = format!("{}/test/greet:{name}", world.registry.host());
        let destination = format!("--destination={image}");
        let ended = world.build(&context, options, &proxies(&[&destination])).success(name);
        // the filter of system calls is there, and the context is read-only
        for line in sees.iter().chain(&["Seccomp:\t2", "Read-only file system"]) {
            assert!(
                format!("{}{}", ended.stdout, ended.stderr).contains(line),
                "{name}: no {line:?} in {}",
                ended.stdout
            );
        }
        assert_image_is_what_the_dockerfile_says(&world, &image, name);
        world.podman.remove_image(&image);
    }
}

/// The flags, and the machine's proxies as build arguments.
pub fn proxies<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    let names = ["http_proxy", "https_proxy", "no_proxy"];
    let set = names.into_iter().filter(|name| std::env::var_os(name).is_some());
    flags.iter().copied().chain(set.flat_map(|name| ["--build-arg", name])).collect()
}

fn assert_image_is_what_the_dockerfile_says(world: &World, image: &str, name: &str) {
    world.podman.pull(image);
    let container = |options: &[&str], command: &[&str]| {
        let mut podman = world.podman.command();
        podman.args(["run", "--rm", "--network=host", "--log-driver=none"]).args(options).arg(image).args(command);
        run(&mut podman)
    };
    assert_eq!(container(&[], &[]), "hello, world and everybody", "{name}");
    assert_eq!(container(&["--entrypoint=id"], &["-un"]), "app", "{name}");
    assert_eq!(
        container(&["--entrypoint=getcap"], &["/usr/local/bin/greet"]),
        "/usr/local/bin/greet cap_net_bind_service=ep",
        "{name}"
    );

    let scratch = world.scratch.path();
    let oci = scratch.join(format!("oci-{name}"));
    let bundle = scratch.join(format!("bundle-{name}"));
    run(Command::new("skopeo")
        .args(["copy", "--quiet", "--src-tls-verify=false"])
        .arg(format!("docker://{image}"))
        .arg(format!("oci:{}:image", oci.display())));
    run(Command::new("umoci").args(["unpack", "--image"]).arg(format!("{}:image", oci.display())).arg(&bundle));
    assert_files(&bundle.join("rootfs"), name);
    fs::remove_dir_all(&bundle).expect("removed");
}

fn assert_files(root: &Path, name: &str) {
    let stat =
        |path: &str| fs::symlink_metadata(root.join(path)).unwrap_or_else(|error| panic!("{name}: {path}: {error}"));
    let facts = |path: &str| (stat(path).permissions().mode() & 0o7777, stat(path).uid(), stat(path).gid());
    let gone = |path: &str| assert!(fs::symlink_metadata(root.join(path)).is_err(), "{name}: {path} is still there");

    assert_eq!(facts("usr/local/bin/greet"), (0o750, 0, 1234), "{name}");
    assert_eq!(facts("usr/local/bin/plain"), (0o4750, 0, 1234), "{name}");
    assert_eq!(facts("srv/app"), (0o2770, 1234, 1234), "{name}");
    // --chown with a user alone means the user's id as the group, too, where the name has one: moby's rule
    assert_eq!(stat("srv/app/data").uid(), 1234, "{name}");
    assert_eq!(stat("srv/app/data/one").ino(), stat("srv/app/data/one-again").ino(), "{name}: a hard link");
    assert_eq!(fs::read(root.join("srv/app/data/one-again")).expect("read"), b"one\n", "{name}");
    assert_eq!(fs::read_link(root.join("usr/bin/greet")).expect("a link"), Path::new("../local/bin/greet"), "{name}");
    assert!(stat("srv/app/pipe").file_type().is_fifo(), "{name}");
    let mut capability = [0_u8; 64];
    let length = rustix::fs::getxattr(root.join("usr/local/bin/greet"), "security.capability", &mut capability)
        .unwrap_or_else(|error| panic!("{name}: greet has no capability: {error}"));
    assert_eq!(&capability[..length], CAP_NET_BIND_SERVICE_EP, "{name}");
    for path in
        ["etc/issue", "srv/app/data/gone", "srv/app/data/ignored.log", "usr/bin/gcc", "src", "var/lib/apt/lists"]
    {
        gone(path);
    }
    for path in ["kaniko", "workspace", "etc/mtab", "run/.containerenv"] {
        gone(path);
    }
}

/// `cap_net_bind_service=ep` as the attribute's version 2.
const CAP_NET_BIND_SERVICE_EP: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn the_digest_does_not_depend_on_threads() {
    let Some(world) = World::with_busybox() else { return };
    let context = world.context(
        "threads",
        "FROM busybox:base\n\
         RUN for i in $(seq 300); do mkdir -p /many/$i; for j in 1 2 3 4 5; do echo $i $j >/many/$i/$j; done; done\n\
         RUN i=0; while [ $i -lt 40 ]; do seq 1 20000 >/big$i; i=$((i+1)); done\n\
         RUN rm -rf /many/1* && ln /many/2/1 /linked && chmod 700 /many/3\n\
         COPY Dockerfile /copied\n",
    );
    let digest = |name: &str, options: &[&str]| {
        let file = world.scratch.path().join(name);
        fs::create_dir(&file).expect("created");
        let result = format!("{}:/result", file.display());
        let options: Vec<&str> = [DOCKER_CAPABILITIES, "-v", &result].iter().chain(options).copied().collect();
        let flags = ["--no-push", "--reproducible", "--digest-file=/result/digest", "--destination=test/threads"];
        world.build(&context, &options, &flags).success(name);
        fs::read_to_string(file.join("digest")).expect("written")
    };
    let one = digest("one", &["--cpuset-cpus=0"]);
    let two = digest("two", &["--env=GOMAXPROCS=2"]);
    let eight = digest("eight", &["--env=GOMAXPROCS=8"]);
    assert!(one.starts_with("sha256:") && one.len() == 71, "{one:?}");
    assert_eq!([&one, &one], [&two, &eight]);
}

#[test]
fn a_commands_exit_code_is_ours() {
    let Some(world) = World::with_busybox() else { return };
    let context = world.context("exit-code", "FROM busybox:base\nRUN echo out; echo err >&2; exit 42\n");
    let ended = world.build(&context, &[DOCKER_CAPABILITIES], &["--no-push", "--destination=test/x"]);
    assert_eq!(ended.code, Some(42), "{}", ended.stderr);
    assert!(ended.stdout.contains("out\n") && ended.stderr.contains("err\n"), "{}{}", ended.stdout, ended.stderr);
}

#[test]
fn a_root_that_is_in_use_is_refused() {
    let Some(world) = World::with_busybox() else { return };
    let context = world.context("in-use", "FROM busybox:base\nRUN rm -rf /srv\n");
    let base = format!("{}/library/busybox:base", world.registry.host());
    let executor = format!("{}:/kaniko/executor:ro", env!("CARGO_BIN_EXE_executor"));
    let mut command = world.podman.command();
    command
        .args(["run", "--name=kanna-in-use", "--replace", "--network=host", "--tls-verify=false"])
        .args([DOCKER_CAPABILITIES, "--entrypoint=/kaniko/executor"])
        .args(["-v", &executor, "-v", &format!("{}:/workspace:ro", context.display()), &base])
        .args(["--context=dir:///workspace", "--no-push", "--insecure-pull", "--destination=test/x"])
        .arg(format!("--registry-map=index.docker.io={}", world.registry.host()));
    let ended = run_within(&mut command, SHORT_LIMIT);
    let changed = run(world.podman.command().args(["diff", "kanna-in-use"]));
    run(world.podman.command().args(["rm", "--force", "kanna-in-use"]));
    assert_refused("in-use", &ended, "/");
    let foreign = |line: &&str| !line.contains("/kaniko") && !line.contains("/workspace") && !line.contains("/run");
    let beside: Vec<&str> = changed.lines().filter(foreign).filter(|line| !line.ends_with("/etc")).collect();
    assert!(beside.is_empty(), "a refused build changed the root: {beside:?}");
}

/// The machine that runs the tests is a root in use as well. The executor runs as a user who could not harm it.
#[test]
fn the_machine_itself_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return skip("setpriv", "only root can become another user");
    }
    let scratch = tempfile::tempdir().expect("a directory");
    let executor = scratch.path().join("executor");
    fs::copy(env!("CARGO_BIN_EXE_executor"), &executor).expect("copied");
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("set");
    let work = scratch.path().join("work");
    fs::create_dir(&work).expect("created");
    fs::set_permissions(&work, fs::Permissions::from_mode(0o777)).expect("set");
    fs::write(work.join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").expect("written");
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all"])
        .arg(&executor)
        .arg("--isolation=in-place")
        .arg(format!("--context=dir://{}", work.display()))
        .args(["--no-push", "--destination=test/x"])
        .arg(format!("--kaniko-dir={}", work.join("kaniko").display()))
        .env_clear();
    let ended = run_within(&mut command, SHORT_LIMIT);
    assert_refused("the machine", &ended, "container");
}
