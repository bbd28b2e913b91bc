//! Files on servers: ADD of URLs, a Dockerfile from one, results sent to one; in a container, as a user meets them.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use kanna::oci::Digest;

use crate::support::flat::{File, FlatImage, read_tarball};
use crate::support::http::{Reply, Request, Server};
use crate::support::podman::DOCKER_CAPABILITIES;
use crate::support::world::{World, assert_refused};

/// 21 October 2015.
const DATE: (&str, i64) = ("Wed, 21 Oct 2015 07:28:00 GMT", 1_445_412_480);

const PLAIN: &[u8] = b"plain text\n";

/// A gzipped tar with the file `inside`.
fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_ustar();
    header.set_size(3);
    header.set_mode(0o640);
    header.set_mtime(1_000_000_000);
    tar.append_data(&mut header, "inside", &b"in\n"[..]).expect("a Vec takes all");
    tar.into_inner().and_then(GzEncoder::finish).expect("a Vec takes all")
}

/// A server of a few files, the first of which is not to be had at once.
fn files() -> Server {
    Server::start(|request, before| match request.path.as_str() {
        "/plain" if before == 0 => Reply::new(503, "later"),
        "/plain" | "/with%20space" | "/?query" => Reply::new(200, PLAIN),
        "/dated" => Reply::new(200, PLAIN).header("Last-Modified", DATE.0),
        "/archive.tar.gz" => Reply::new(200, archive()).header("Last-Modified", DATE.0),
        "/moved" => Reply::new(302, "").header("Location", "/dated"),
        _ => Reply::new(404, "no such file"),
    })
}

/// Builds into a tarball; the folder for it must be new.
fn build(world: &World, name: &str, dockerfile: &str, flags: &[&str]) -> (FlatImage, String) {
    let context = world.context(name, dockerfile);
    let result = world.scratch.path().join(format!("{name}-result"));
    fs::create_dir(&result).expect("created");
    let volume = format!("{}:/result", result.display());
    let usual = ["--no-push", "--tar-path=/result/image.tar", "--destination=test/urls"];
    let flags: Vec<&str> = usual.iter().chain(flags).copied().collect();
    let ended = world.build(&context, &[DOCKER_CAPABILITIES, "-v", &volume], &flags).success(name);
    (read_tarball(&result.join("image.tar")).expect("an image"), ended.stderr)
}

#[track_caller]
fn file<'a>(image: &'a FlatImage, path: &str) -> &'a File {
    image.tree.get(path.as_bytes()).unwrap_or_else(|| panic!("{path} is not there"))
}

#[track_caller]
fn assert_file(image: &FlatImage, path: &str, content: &[u8], mode: u32, owner: (u64, u64), mtime: i64) {
    let file = file(image, path);
    let digest = file.content.as_ref().map(|content| content.digest.clone());
    assert_eq!(digest, Some(Digest::of(content).to_string()), "{path}");
    assert_eq!((file.mode, (file.uid, file.gid), file.mtime), (mode, owner, mtime), "{path}");
}

#[test]
fn add_fetches_urls() {
    let Some(world) = World::with_busybox() else { return };
    let server = files();
    let checksum = Digest::of(PLAIN);
    let dockerfile = format!(
        "FROM busybox:base\n\
         ARG HOST\n\
         ENV NAME=plain\n\
         ADD http://$HOST/$NAME /plain/\n\
         ADD http://${{HOST}}/dated /dated\n\
         ADD --chown=1234:5678 --chmod=0751 --checksum={checksum} http://$HOST/with%20space /names/\n\
         ADD http://$HOST/archive.tar.gz /kept/\n\
         ADD --unpack=true http://$HOST/archive.tar.gz /unpacked\n\
         ADD --link http://$HOST/plain /linked/\n\
         WORKDIR /existing\n\
         ADD http://$HOST/moved .\n\
         ADD [\"http://$HOST/?query\", \"/unnamed/\"]\n\
         ADD http://$HOST/plain Dockerfile http://$HOST/dated /several/\n\
         RUN [ \"$(cat /plain/plain)\" = 'plain text' ] && [ \"$(cat /existing/moved)\" = 'plain text' ]\n"
    );
    let host = format!("--build-arg=HOST={}", server.host());
    let (image, log) = build(&world, "add", &dockerfile, &[&host]);
    let root = (0, 0);
    assert_file(&image, "/plain/plain", PLAIN, 0o600, root, 0);
    assert_file(&image, "/dated", PLAIN, 0o600, root, DATE.1);
    assert_file(&image, "/names/with space", PLAIN, 0o751, (1234, 5678), 0);
    assert_file(&image, "/kept/archive.tar.gz", &archive(), 0o600, root, DATE.1);
    assert_file(&image, "/unpacked/inside", b"in\n", 0o640, root, 1_000_000_000);
    assert_file(&image, "/linked/plain", PLAIN, 0o600, root, 0);
    assert_file(&image, "/existing/moved", PLAIN, 0o600, root, DATE.1);
    assert_file(&image, "/unnamed/__unnamed__", PLAIN, 0o600, root, 0);
    assert_file(&image, "/several/plain", PLAIN, 0o600, root, 0);
    assert_file(&image, "/several/dated", PLAIN, 0o600, root, DATE.1);
    assert_eq!(file(&image, "/several/Dockerfile").content.as_ref().map(|one| one.size), Some(dockerfile.len() as u64));
    assert!(!image.tree.contains_key(&b"/unpacked/archive.tar.gz"[..]));
    let created_by: Vec<&str> =
        image.config["history"].as_array().into_iter().flatten().filter_map(|one| one["created_by"].as_str()).collect();
    let named = format!("ADD --chown=1234:5678 --chmod=0751 http://{}/with%20space /names/ # buildkit", server.host());
    assert!(created_by.contains(&&*named), "{created_by:?}");
    assert!(log.contains(&format!("Downloading http://{}/plain", server.host())), "{log}");
}

/// A directory is in the conformance cases.
#[test]
fn named_contexts_from_elsewhere() {
    let Some(world) = World::with_busybox() else { return };
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in [(".dockerignore", "left\n"), ("left", "no\n"), ("taken", "yes\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).expect("a Vec takes all");
    }
    let tar = tar.into_inner().expect("a Vec takes all");
    let server = Server::start(move |_, _| Reply::new(200, tar.clone()));
    let dockerfile = "FROM tool AS files\nRUN echo stage >/taken\n\
                      FROM tool\nCOPY --from=files . /copied/\nCOPY --from=tool:latest /etc/passwd /copied/passwd\n\
                      RUN test -e /copied/taken\n";
    let files = format!("--build-context=files=http://{}/files.tar", server.host());
    let unused = "--build-context=unused=/nowhere";
    let image = "--build-context=tool=docker-image://busybox:base";
    let (image, log) = build(&world, "named", dockerfile, &[&files, unused, image]);
    let digest = |path: &str| file(&image, path).content.as_ref().map(|content| content.digest.clone());
    assert_eq!(digest("/copied/taken"), Some(Digest::of(b"yes\n").to_string()), "the context wins over the stage");
    assert_eq!(digest("/copied/passwd"), digest("/etc/passwd"));
    assert!(!image.tree.contains_key(&b"/copied/left"[..]), "its own ignore file holds");
    assert_eq!(server.seen().len(), 1);
    assert!(!log.contains("RUN echo stage"), "{log}");
    let context = world.context("named-missing", "FROM missing\n");
    let flags = ["--no-push", "--destination=test/x", "--build-context=missing=/nowhere"];
    assert_refused("missing", &world.build(&context, &[], &flags), "open the named context docker.io/library/missing");
}

#[test]
fn the_same_files_give_the_same_digest() {
    let Some(world) = World::with_busybox() else { return };
    let server = files();
    let dockerfile =
        format!("FROM scratch\nADD http://{host}/plain http://{host}/dated /new/directory/\n", host = server.host());
    let [one, two] = ["one", "two"].map(|name| build(&world, name, &dockerfile, &["--reproducible"]).0.diff_ids);
    assert_eq!(one, two);
    assert_eq!(one.len(), 1);
}

#[test]
fn urls_that_cannot_be_added() {
    let Some(world) = World::with_busybox() else { return };
    let server = files();
    let host = server.host();
    let other = Digest::of(b"other");
    for (name, instruction, told, requests) in [
        ("gone", format!("ADD http://{host}/gone /"), "the server answered 404 Not Found: no such file", 1),
        ("other", format!("ADD --checksum={other} http://{host}/dated /"), "instead of sha256:", 1),
        ("nobody", "ADD http://127.0.0.1:1/a /".to_owned(), "http://127.0.0.1:1/a", 0),
        ("copy", format!("COPY http://{host}/plain /"), "ADD does", 0),
        ("git", "ADD git@127.0.0.1:repository.git /".to_owned(), "not by ssh", 0),
        ("no-address", "ADD http:// /".to_owned(), "http[s]://host", 0),
        ("sha512", format!("ADD --checksum=sha512:00 http://{host}/plain /"), "sha256:<64 hex digits>", 0),
        ("local", format!("ADD --checksum={other} Dockerfile /"), "--checksum is for", 0),
        (
            "several",
            format!("ADD --checksum={other} http://{host}/plain http://{host}/dated /a/"),
            "one URL or repository",
            0,
        ),
    ] {
        let before = server.seen().len();
        let context = world.context(name, &format!("FROM scratch\nCOPY Dockerfile /\n{instruction}\n"));
        let result = world.scratch.path().join(format!("{name}-result"));
        fs::create_dir(&result).expect("created");
        let volume = format!("{}:/result", result.display());
        let flags = ["--no-push", "--tar-path=/result/image.tar", "--digest-file=/result/digest", "-d=test/x"];
        let ended = world.build(&context, &[DOCKER_CAPABILITIES, "-v", &volume], &flags);
        assert_refused(name, &ended, told);
        assert!(ended.stderr.contains("dockerfile line 3"), "{name}: {}", ended.stderr);
        assert_eq!(server.seen().len() - before, requests, "{name}");
        assert_eq!(fs::read_dir(&result).expect("read").count(), 0, "{name} leaves files");
    }
}

#[test]
fn proxies_are_asked() {
    let Some(world) = World::with_busybox() else { return };
    let proxy = Server::start(|request, _| match request.path.as_str() {
        "http://files.example/through" => Reply::new(200, PLAIN),
        _ => Reply::new(404, ""),
    });
    let context = world.context("proxy", "FROM scratch\nADD http://files.example/through /\n");
    let environment = format!("--env=http_proxy=http://{}", proxy.host());
    world.build(&context, &[&environment], &["--no-push", "--destination=test/x"]).success("proxy");
    assert_eq!(proxy.seen().len(), 1);
}

#[test]
fn results_go_to_servers() {
    let Some(world) = World::with_busybox() else { return };
    let server = Server::start(|_, before| Reply::new(if before == 0 { 503 } else { 200 }, ""));
    let host = server.host();
    let context = world.context("results", "FROM scratch\nCOPY Dockerfile /\n");
    let flags = [
        format!("--destination={}/test/results:1", world.registry.host()),
        format!("--digest-file=http://{host}/digest?run=1"),
        format!("--image-name-with-digest-file=http://{host}/name"),
        format!("--image-name-tag-with-digest-file=http://{host}/tag"),
    ];
    world.build(&context, &[], &flags.each_ref().map(String::as_str)).success("results");
    let kept = |path: &str| -> String {
        let is_it = |request: &&Request| request.method == "PUT" && request.path == path;
        let seen = server.seen();
        let mut sent = seen.iter().filter(is_it);
        let last = sent.next_back().unwrap_or_else(|| panic!("nothing for {path}"));
        assert_eq!((sent.count(), last.header("content-type")), (1, Some("text/plain")), "{path}");
        String::from_utf8(last.body.clone()).expect("text")
    };
    let digest = kept("/digest?run=1");
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{digest:?}");
    let line = format!("{}/test/results:1@{digest}\n", world.registry.host());
    assert_eq!([kept("/name"), kept("/tag")], [line.clone(), line]);

    let closed = Server::start(|_, _| Reply::new(403, "not you"));
    let address = format!("--digest-file=http://me:secret@{}/digest?token=secret", closed.host());
    let ended = world.build(&context, &[], &["--no-push", &address]);
    let told = format!("error writing results: send to http://{}/digest: the server answered 403", closed.host());
    assert_refused("closed", &ended, &told);
    assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
}

#[test]
fn a_dockerfile_from_a_url() {
    let Some(world) = World::with_busybox() else { return };
    let server = Server::start(|request, _| match request.path.as_str() {
        "/good" => Reply::new(200, "FROM scratch\nCOPY . /\n"),
        "/wrong" => Reply::new(200, "FROM scratch\nCOPPY . /\n"),
        _ => Reply::new(404, ""),
    });
    let context = world.context("dockerfile", "not read");
    for (name, text) in [(".dockerignore", "left\n"), ("left", ""), ("taken", "")] {
        fs::File::create(context.join(name)).and_then(|mut file| file.write_all(text.as_bytes())).expect("written");
    }
    let result = world.scratch.path().join("dockerfile-result");
    fs::create_dir(&result).expect("created");
    let volume = format!("{}:/result", result.display());
    let built = |path: &str| {
        let dockerfile = format!("--dockerfile=http://{}{path}", server.host());
        let flags = [&dockerfile, "--no-push", "--tar-path=/result/image.tar", "--destination=test/x"];
        world.build(&context, &["-v", &volume], &flags)
    };
    assert_refused("gone", &built("/gone"), "fetch the Dockerfile: get http://");
    assert_refused("wrong", &built("/wrong"), "COPPY");
    assert!(!Path::new(&result.join("image.tar")).exists());
    built("/good").success("a Dockerfile from a URL");
    let image = read_tarball(&result.join("image.tar")).expect("an image");
    let has = |path: &str| image.tree.contains_key(path.as_bytes());
    assert!(has("/taken") && !has("/left"), "the context's ignore file holds");
}
