//! Plain files over HTTP: whole or not at all, tried again where that may help, and no secret in a message.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use kanna::http::{Address, Client, Download, Error, Settings, chain};
use kanna::oci::Digest;
use tempfile::TempDir;

use crate::support::http::{Ending, Reply, Request, Server};

fn content() -> Vec<u8> {
    (0..50_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn client() -> Client {
    let (retry_pause, patience) = (Duration::from_millis(5), Duration::from_millis(400));
    Client::new(Settings { retry_pause, patience, ..Settings::default() }).expect("a client")
}

fn address(server: &Server, path: &str) -> Address {
    format!("http://{}{path}", server.host()).parse().expect("an address")
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).expect("listed").next().is_none()
}

/// Fetches `/file`. What is in the directory afterwards is the file, or nothing.
fn download(server: &Server, expected: Option<Digest>) -> (TempDir, Result<Download, Error>) {
    let directory = tempfile::tempdir().expect("a directory");
    let downloaded = client().download(&address(server, "/file"), expected, directory.path());
    assert_eq!(downloaded.is_err(), is_empty(directory.path()), "nothing half-written");
    (directory, downloaded)
}

#[track_caller]
fn assert_arrives(server: &Server) {
    let (directory, downloaded) = download(server, Some(Digest::of(&content())));
    let downloaded = downloaded.expect("fetched");
    assert_eq!(std::fs::read(downloaded.place()).expect("read"), content());
    drop(downloaded);
    assert!(is_empty(directory.path()), "the file stays");
}

#[track_caller]
fn assert_fails(server: &Server, told: &str) {
    let error = download(server, None).1.expect_err("no file");
    assert!(chain(&error).contains(told), "{}", chain(&error));
}

#[test]
fn a_file_and_its_time() {
    let server = Server::start(|_, before| {
        let reply = Reply::new(200, content());
        match before {
            0 => reply,
            1 => reply.header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT"),
            _ => reply.header("Last-Modified", "the day before yesterday"),
        }
    });
    let seconds = || download(&server, None).1.expect("fetched").last_modified.map(|time| time.seconds);
    assert_eq!([seconds(), seconds(), seconds()], [None, Some(1_445_412_480), None]);
    assert!(
        server.seen().iter().all(|request| request.header("user-agent").is_some_and(|me| me.starts_with("kanna/")))
    );
}

#[test]
fn what_passes_is_tried_again() {
    for status in [429, 500, 502, 503, 504] {
        let server = Server::start(move |_, before| match before {
            0 | 1 => Reply::new(status, "later"),
            _ => Reply::new(200, content()),
        });
        assert_arrives(&server);
        assert_eq!(server.seen().len(), 3, "{status}");
    }
    let server = Server::start(|_, before| {
        let ending = [Ending::CutAfter(1000), Ending::SilentAfter(1000, Duration::from_secs(1)), Ending::Whole];
        Reply::new(200, content()).ending(ending[before])
    });
    assert_arrives(&server);
}

#[test]
fn what_does_not_is_an_error() {
    let short = Server::start(|_, _| Reply::new(200, content()).ending(Ending::CutAfter(1000)));
    assert_fails(&short, "/file");
    assert!(short.seen().len() > 3, "a body that breaks off may be whole next time");
    let gone = Server::start(|_, _| Reply::new(404, "no such file"));
    assert_fails(&gone, "/file: the server answered 404 Not Found: no such file");
    assert_eq!(gone.seen().len(), 1);
    let nowhere = Server::start(|_, _| Reply::new(302, ""));
    assert_fails(&nowhere, "no usable Location header");
    let round = Server::start(|_, _| Reply::new(302, "").header("Location", "/file"));
    assert_fails(&round, "more than 10 redirects");
    let elsewhere = Server::start(|_, _| Reply::new(302, "").header("Location", "file:///etc/passwd"));
    assert_fails(&elsewhere, "/file");
    assert_eq!(elsewhere.seen().len(), 1);
}

#[test]
fn other_bytes_than_expected() {
    let server = Server::start(|_, _| Reply::new(200, content()));
    let error = download(&server, Some(Digest::of(b"other"))).1.expect_err("other bytes");
    assert!(matches!(error, Error::WrongDigest { .. }), "{error}");
    let (expected, found) = (Digest::of(b"other").to_string(), Digest::of(&content()).to_string());
    assert!(error.to_string().contains(&expected) && error.to_string().contains(&found), "{error}");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn redirects_and_passwords() {
    let storage = Server::start(|request, _| match request.path.as_str() {
        "/store/a?signature=s" => Reply::new(200, content()),
        _ => Reply::new(404, ""),
    });
    let target = format!("http://{}/store/a?signature=s", storage.host());
    let server = Server::start(move |request, _| match request.path.as_str() {
        "/file?key=k" => Reply::new(301, "").header("Location", "moved"),
        "/moved" => Reply::new(307, "").header("Location", target.clone()),
        _ => Reply::new(404, ""),
    });
    let address: Address = format!("http://me:secret@{}/file?key=k", server.host()).parse().expect("an address");
    let directory = tempfile::tempdir().expect("a directory");
    client().download(&address, Some(Digest::of(&content())), directory.path()).expect("fetched");
    let told = |request: &Request| request.header("authorization").map(str::to_owned);
    assert_eq!(told(&server.seen()[0]).as_deref(), Some("Basic bWU6c2VjcmV0"));
    assert_eq!(told(&storage.seen()[0]), None);

    let address: Address = format!("http://me:secret@{}/gone?key=k", server.host()).parse().expect("an address");
    let error = client().download(&address, None, directory.path()).expect_err("gone");
    let text = chain(&error);
    assert!(!text.contains("secret") && !text.contains("key=k") && text.contains("/gone"), "{text}");
}

#[test]
fn gzip_as_an_encoding_is_taken_off() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&content()).expect("compressed");
    let packed = encoder.finish().expect("compressed");
    let cut = packed[..packed.len() - 20].to_vec();
    let reply = packed.clone();
    assert_arrives(&Server::start(move |_, _| Reply::new(200, reply.clone()).header("Content-Encoding", "gzip")));
    let broken = Server::start(move |_, _| Reply::new(200, cut.clone()).header("Content-Encoding", "gzip"));
    assert_fails(&broken, "write the file");
    let as_type = Server::start(move |_, _| Reply::new(200, packed.clone()).header("Content-Type", "application/gzip"));
    let (_directory, downloaded) = download(&as_type, None);
    let file = std::fs::read(downloaded.expect("fetched").place()).expect("read");
    assert_eq!(file[..2], [0x1f, 0x8b], "an archive stays an archive");
}

#[test]
fn a_directory_that_cannot_be_written() {
    let server = Server::start(|_, _| Reply::new(200, "x"));
    let error = client().download(&address(&server, "/file"), None, Path::new("/proc/none")).expect_err("no place");
    assert!(matches!(error, Error::Store { .. }), "{error}");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn small_files_are_small() {
    let server = Server::start(|_, before| match before {
        0 => Reply::new(503, ""),
        _ => Reply::new(200, "FROM scratch\n"),
    });
    assert_eq!(client().fetch(&address(&server, "/Dockerfile"), 13).expect("fetched"), b"FROM scratch\n");
    let error = client().fetch(&address(&server, "/Dockerfile"), 12).expect_err("too large");
    assert!(matches!(error, Error::TooLarge { limit_bytes: 12, .. }), "{error}");
    let silent =
        Server::start(|_, _| Reply::new(200, "FROM").ending(Ending::SilentAfter(1, Duration::from_millis(600))));
    let error = client().fetch(&address(&silent, "/Dockerfile"), 100).expect_err("silent");
    assert!(matches!(error, Error::Stalled { .. }), "{error}");
}

#[test]
fn a_text_is_put() {
    let server = Server::start(|_, before| Reply::new(if before == 0 { 503 } else { 201 }, ""));
    client().put(&address(&server, "/result?run=1"), "sha256:1234").expect("sent");
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    for request in seen {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("PUT", "/result?run=1"));
        assert_eq!((request.header("content-type"), &request.body[..]), (Some("text/plain"), &b"sha256:1234"[..]));
    }
    for status in [302, 403, 404] {
        let server = Server::start(move |_, _| Reply::new(status, "").header("Location", "/other"));
        let error = client().put(&address(&server, "/result"), "x").expect_err("refused");
        assert_eq!((error.status(), server.seen().len()), (Some(status), 1));
    }
    let moved = Server::start(|request, _| match request.path.as_str() {
        "/old" => Reply::new(308, "").header("Location", "/new"),
        _ => Reply::new(204, ""),
    });
    client().put(&address(&moved, "/old"), "text").expect("sent");
    assert_eq!(moved.seen()[1].body, b"text");
}
