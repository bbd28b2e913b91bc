//! Flags that change what an image holds or how patient a build is, each shown on whole builds.

use std::fs;

use kanna::oci::Digest;
use tar::EntryType::Regular;

use crate::support::handmade::{Image, is_for, tar_of};
use crate::support::http::{Reply, Request, Server};
use crate::support::podman::DOCKER_CAPABILITIES;
use crate::support::world::World;

#[test]
fn one_layer_for_all_changes_of_the_last_stage() {
    let Some(world) = World::with_busybox() else { return };
    let context = world.context(
        "single",
        "FROM busybox:base AS one\nRUN echo one >/one\n\
         FROM busybox:base\nCOPY --from=one /one /one\nRUN echo a >/a && echo b >/b\nENV C=D\n\
         RUN rm /a && echo more >>/b && chmod 600 /etc/passwd\nLABEL e=f\n",
    );
    let count = |flags: &[&str]| {
        let image = world.image(&context, &[], flags);
        image.assert_text("/one", "one\n");
        image.assert_text("/b", "b\nmore\n");
        assert!(!image.has("/a"));
        assert_eq!(image.file("/etc/passwd").mode, 0o600);
        assert_eq!(image.config["config"]["Labels"]["e"], "f");
        let history = image.config["history"].as_array().expect("a history").clone();
        let layers = history.iter().filter(|entry| entry["empty_layer"] != true).count();
        assert_eq!(layers, image.diff_ids.len(), "each layer has its entry");
        (image.diff_ids.len(), history.len())
    };
    // the base's, COPY, RUN, RUN
    let (layers, history) = count(&[]);
    assert_eq!(layers, 4);
    assert_eq!(count(&["--single-snapshot"]), (2, history));
}

#[test]
fn times_of_a_reproducible_image() {
    let Some(world) = World::with_busybox() else { return };
    let context = world.context(
        "times",
        "FROM busybox:base\nCOPY old new /\nRUN echo now >/now && touch -d @1400000000 /earlier\nWORKDIR /work\n",
    );
    for (name, seconds) in [("old", 1_300_000_000), ("new", 1_700_000_000)] {
        let file = fs::File::create(context.join(name)).expect("created");
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        file.set_modified(time).expect("set");
    }
    for (variable, created, clamp) in [
        (None, "1970-01-01T00:00:00Z", 0),
        (Some("--env=SOURCE_DATE_EPOCH=1500000000"), "2017-07-14T02:40:00Z", 1_500_000_000),
    ] {
        let options: Vec<&str> = variable.into_iter().collect();
        let images = [(); 2].map(|()| world.image(&context, &options, &["--reproducible"]));
        assert_eq!(images[0].config, images[1].config, "two builds at two times are one image");
        let image = &images[0];
        for (path, time) in [
            ("/old", 1_300_000_000),
            ("/new", 1_700_000_000),
            ("/now", i64::MAX),
            ("/earlier", 1_400_000_000),
            ("/work", i64::MAX),
        ] {
            assert_eq!(image.file(path).mtime, time.min(clamp), "{path} {variable:?}");
        }
        assert_eq!(image.config["created"], created);
        let history = image.config["history"].as_array().expect("a history");
        let ours = history.iter().filter(|entry| entry["comment"] == "buildkit.dockerfile.v0");
        let times: Vec<_> = ours.map(|entry| &entry["created"]).collect();
        assert!(times.len() == 3 && times.iter().all(|time| *time == created), "{times:?}");
    }
    // the variable alone is enough, as with BuildKit
    let image = world.image(&context, &["--env=SOURCE_DATE_EPOCH=1500000000"], &[]);
    assert_eq!((image.file("/new").mtime, &image.config["created"]), (1_500_000_000, &"2017-07-14T02:40:00Z".into()));
}

#[test]
fn paths_that_are_never_part_of_an_image() {
    let Some(world) = World::with_busybox() else { return };
    let context = world.context(
        "ignored",
        "FROM busybox:base\nRUN rm /var/run && mkdir -p /var/run /ignored/below /kept && touch /var/run/a /ignored/below/b /kept/c\n\
         COPY Dockerfile /ignored/copied\n",
    );
    for (flags, var_run, ignored) in [
        (&[][..], false, true),
        (&["--ignore-var-run=false"], true, true),
        (&["--ignore-path=/ignored"], false, false),
        (&["--ignore-path", "/elsewhere", "--ignore-path", "/ignored/below", "--ignore-var-run=false"], true, false),
    ] {
        let image = world.image(&context, &[], flags);
        assert_eq!(image.has("/var/run/a"), var_run, "{flags:?}");
        assert_eq!(image.has("/ignored/below/b"), ignored, "{flags:?}");
        assert!(image.has("/kept/c") && image.has("/ignored/copied"), "{flags:?}");
    }
}

/// Tries that are made without any flag.
const USUAL_TRIES: usize = 5;

/// Which requests.
type Which = fn(&Image, &Request) -> bool;

/// A registry that refuses what `is_refused` says as often as a build asks for it unless a flag tells it to ask more.
fn tired(image: &Image, is_refused: Which) -> Server {
    let image = image.clone();
    Server::start(move |request, before| match request.method.as_str() {
        _ if before < USUAL_TRIES && is_refused(&image, request) => Reply::new(503, "later"),
        "HEAD" => Reply::new(404, ""),
        "POST" => Reply::new(202, "").header("Location", "/v2/app/blobs/uploads/1"),
        "PUT" => Reply::new(201, ""),
        _ => image.answer(request),
    })
}

#[test]
fn who_is_told_to_try_more_often_tries_more_often() {
    let Some(world) = World::new() else { return };
    let image = Image::of(tar_of(&[(Regular, "file", "", b"content")]));
    let is_manifest =
        |request: &Request, method: &str| request.method == method && request.path.contains("/manifests/");
    let refused: [(&str, Which); 3] = [
        ("image-download-retry", |_, request| request.method == "GET" && request.path.contains("/manifests/")),
        ("image-fs-extract-retry", |image, request| request.method == "GET" && is_for(request, &image.layers[0])),
        ("push-retry", |_, request| request.method == "PUT" && request.path.contains("/manifests/")),
    ];
    for (flag, is_refused) in refused {
        for tries in [0, 1] {
            let server = tired(&image, is_refused);
            let host = server.host();
            let context = world.context(flag, &format!("FROM {host}/base:1\nCOPY Dockerfile /copied\n"));
            let (flag, destination) = (format!("--{flag}={tries}"), format!("--destination={host}/app:1"));
            let ended = world.build(&context, &[DOCKER_CAPABILITIES], &[&flag, &destination]);
            assert_eq!(ended.code, Some(if tries == 0 { 1 } else { 0 }), "{flag}: {}", ended.stderr);
            let pushed = server.seen().into_iter().rfind(|request| is_manifest(request, "PUT"));
            assert_eq!(ended.stderr.contains(&format!("Pushed {host}/app@")), tries == 1, "{}", ended.stderr);
            if let (1, Some(pushed)) = (tries, pushed) {
                assert!(ended.stderr.contains(&Digest::of(&pushed.body).to_string()), "{}", ended.stderr);
            }
        }
    }
}

/// Where kaniko and its scripts differ from what one expects.
#[test]
fn a_dockerfile_below_what_is_a_file_here() {
    let Some(world) = World::with_busybox() else { return };
    let context = world.context("where", "FROM busybox:base\nLABEL which=outer\n");
    fs::create_dir(context.join("a")).expect("created");
    fs::write(context.join("a/D"), "FROM busybox:base\nLABEL which=inner\n").expect("written");
    let file = world.scratch.path().join("a");
    fs::write(&file, "no directory").expect("written");
    // in the directory in which the executor begins, `a` is a file
    let volumes = [format!("--volume={}:/start/a:ro", file.display())];
    let image = world.image(&context, &[&volumes[0], "--workdir=/start"], &["-f", "a/D"]);
    assert_eq!(image.config["config"]["Labels"]["which"], "inner");
}
