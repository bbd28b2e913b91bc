//! What scripts written for kaniko rely on: its spellings, its result files byte for byte, its log's words.

use std::fs;
use std::path::Path;
use std::process::Command;

use kanna::oci::Digest;
use serde_json::Value;

use crate::support::command::{Ended, run, run_within};
use crate::support::podman::DOCKER_CAPABILITIES;
use crate::support::world::{BUILD_LIMIT, World};

const DOCKERFILE: &str = "FROM busybox:base AS made\n\
    ARG WHO=nobody\n\
    RUN echo $WHO >/who; echo out; echo err >&2\n\
    FROM busybox:base\n\
    COPY --from=made /who /srv/who\n\
    CMD [\"cat\", \"/srv/who\"]\n";

/// Lines that scripts look for, in the order in which they come.
const LOG: [&str; 12] = [
    "Retrieving image manifest busybox:base",
    "Retrieving image docker.io/library/busybox:base from registry ",
    "Retrieving image manifest busybox:base",
    "Returning cached image manifest",
    "Building stage 'busybox:base' [idx: '0', base-idx: '-1']",
    "Unpacking rootfs as cmd RUN echo $WHO >/who; echo out; echo err >&2 requires it.",
    "Executing 0 build triggers",
    "Taking snapshot of full filesystem...",
    "Building stage 'busybox:base' [idx: '1', base-idx: '-1']",
    "Pushing image to ",
    "Pushed ",
    "Pushed ",
];

#[test]
fn one_build_with_every_output() {
    let Some(world) = World::with_busybox() else { return };
    let context = world.context("outputs", DOCKERFILE);
    let result = world.scratch.path().join("result");
    fs::create_dir(&result).expect("created");
    let host = world.registry.host();
    let volume = format!("{}:/result", result.display());
    let options = [DOCKER_CAPABILITIES, "-v", &volume, "--env=WHO=me", "--env=BUILDER_OUTPUT=/result/built"];
    let [first, second] = [format!("--destination={host}/team/app:1"), format!("{host}/team/app")];
    let flags = [
        &first,
        "--destination",
        &second,
        "--build-arg",
        "WHO",
        "--label=a=b=c",
        "--label",
        "empty=",
        "--cache=false",
        "--digest-file=/result/new/digest",
        "--image-name-with-digest-file=/result/named",
        "--log-format",
        "text",
        "--image-name-tag-with-digest-file",
        "/result/tagged",
        "--tar-path=/result/image.tar",
        "--no-push=false",
        "--oci-layout-path",
        "/result/layout",
        "--snapshotMode=redo",
        "--skip-unused-stages=true",
        "--push-retry=2",
    ];
    let ended = world.build(&context, &options, &flags).success("build");

    assert_eq!(ended.stdout, "out\n");
    assert!(ended.stderr.contains("\nerr\n"), "{}", ended.stderr);
    assert_log(&ended, "msg=");

    let text = |name: &str| fs::read_to_string(result.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let digest = text("new/digest");
    assert!(digest.parse::<Digest>().is_ok(), "{digest:?}");
    let lines = format!("{host}/team/app:1@{digest}\n{host}/team/app:latest@{digest}\n");
    assert_eq!((text("named"), text("tagged")), (lines.clone(), lines));
    let line = |name: &str| format!("{{\"name\":\"{name}\",\"digest\":\"{digest}\"}}\n");
    assert_eq!(text("built/images"), [line(&format!("{host}/team/app:1")), line(&format!("{host}/team/app"))].concat());

    for tag in ["1", "latest"] {
        let image = format!("docker://{host}/team/app:{tag}");
        let inspected: Value = serde_json::from_str(&skopeo(&["inspect", "--tls-verify=false", &image])).expect("JSON");
        assert_eq!(inspected["Digest"], digest, "{tag}");
        assert_eq!((&inspected["Labels"]["a"], &inspected["Labels"]["empty"]), (&"b=c".into(), &"".into()));
    }
    let layout = result.join("layout");
    let inspected: Value =
        serde_json::from_str(&skopeo(&["inspect", &format!("oci:{}:1", layout.display())])).expect("JSON");
    assert_eq!(inspected["Digest"], digest);
    let bundle = world.scratch.path().join("bundle");
    run(Command::new("umoci").args(["unpack", "--image"]).arg(format!("{}:1", layout.display())).arg(&bundle));
    assert_eq!(fs::read_to_string(bundle.join("rootfs/srv/who")).expect("copied"), "me\n");
    assert!(!bundle.join("rootfs/who").exists(), "of another stage");

    let loaded = run(world.podman.command().args(["load", "--quiet", "--input"]).arg(result.join("image.tar")));
    assert!(loaded.contains(&format!("{host}/team/app:1")) && loaded.contains("/team/app:latest"), "{loaded}");
    let mut container = world.podman.run_container(BUILD_LIMIT);
    assert_eq!(run(container.arg(format!("{host}/team/app:1"))), "me");
}

fn skopeo(arguments: &[&str]) -> String {
    run(Command::new("skopeo").args(arguments))
}

#[track_caller]
fn assert_log(ended: &Ended, before: &str) {
    let mut lines = ended.stderr.lines().filter(|line| line.contains(before));
    for wanted in LOG {
        assert!(lines.any(|line| line.contains(wanted)), "{wanted:?} does not come in its place:\n{}", ended.stderr);
    }
}

/// The context comes on standard input, results are relative to a directory that RUN removes, and the root is emptied.
#[test]
fn a_context_on_standard_input_and_results_in_the_root() {
    let Some(world) = World::with_busybox() else { return };
    let context = world.context("stdin", "FROM busybox:base\nCOPY . /context/\nRUN rm -rf /workspace\n");
    let tar = world.scratch.path().join("context.tar.gz");
    run(Command::new("tar").arg("-C").arg(&context).arg("-czf").arg(&tar).arg("."));
    let host = world.registry.host();
    let name = format!("kanna-stdin-{}", std::process::id());
    let flags = [
        "--context=tar://stdin",
        "--no-push",
        "--destination",
        "app",
        "--cleanup",
        "--tar-path=image.tar",
        "--oci-layout-path=made/layout",
        "--digest-file=digest",
        "--log-format=json",
    ];
    let mut podman = world.podman.command();
    podman
        .args([
            "run",
            "-i",
            "--name",
            &name,
            "--pull=never",
            "--network=host",
            "--log-driver=none",
            DOCKER_CAPABILITIES,
        ])
        .arg(format!("--timeout={}", BUILD_LIMIT.as_secs()))
        .arg(world.podman.executor_image())
        .args([&format!("--registry-mirror={host}"), "--insecure-pull"])
        .args(flags);
    let ended = run_within(&mut from_file(&podman, &tar), BUILD_LIMIT);
    let copied = ["image.tar", "made/layout", "digest"].map(|file| {
        let from = format!("{name}:/workspace/{file}");
        run_within(world.podman.command().args(["cp", &from]).arg(world.scratch.path()), BUILD_LIMIT).code
    });
    run(world.podman.command().args(["rm", "--force", "--time=0", &name]));
    let ended = ended.success("build");
    assert_eq!(copied, [Some(0); 3], "{}", ended.stderr);
    let last: Value = serde_json::from_str(ended.stderr.lines().last().expect("a log")).expect("JSON");
    assert_eq!((&last["level"], &last["msg"]), (&"info".into(), &"Deleting filesystem...".into()));

    let place = |file: &str| world.scratch.path().join(file).display().to_string();
    let digest = fs::read_to_string(place("digest")).expect("copied");
    let inspected = skopeo(&["inspect", &format!("oci:{}:latest", place("layout"))]);
    assert!(inspected.contains(&digest), "{inspected}");
    assert!(skopeo(&["inspect", &format!("docker-archive:{}:app:latest", place("image.tar"))]).contains("Layers"));
}

/// The command with a file as its standard input, which [`run_within`] does not give it.
fn from_file(command: &Command, file: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "file=$0; exec \"$@\" <\"$file\""]).arg(file).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

#[test]
fn what_cannot_be_is_told_with_a_way_out() {
    let Some(world) = World::with_busybox() else { return };
    let context = world.context("mistakes", "FROM busybox:base\nLABEL a=b\n");
    let host = format!("registry.test:{}", world.registry.host().rsplit(':').next().expect("a port"));
    let destination = format!("--destination={host}/app");
    let known = "--add-host=registry.test:127.0.0.1";
    for (flags, told, hint) in [
        (&["--target=nope", "--no-push"][..], "building image: --target=nope: no stage is called", None),
        (&["--context=tar://stdin", "--no-push"], "there is nothing in it", Some("docker run --interactive")),
        (&[&destination, "--insecure=false"], "checking push permissions for ", Some("--insecure-registry")),
    ] {
        let ended = world.build(&context, &[DOCKER_CAPABILITIES, known], flags);
        assert_eq!(ended.code, Some(1), "{flags:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
        let given = ended.stderr.lines().last().and_then(|line| line.strip_prefix("hint: "));
        assert!(hint.is_none_or(|hint| given.is_some_and(|given| given.contains(hint))), "{}", ended.stderr);
    }
    // the same name, allowed to speak plain HTTP
    let allowed = format!("--insecure-registry={host}");
    world.build(&context, &[DOCKER_CAPABILITIES, known], &[&destination, "--insecure=false", &allowed]).success("push");
}
