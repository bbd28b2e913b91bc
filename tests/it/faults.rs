//! What networks and registries do to a pull and a push, in front of a real registry: each fault at each of four requests ends
//! in the right image or in an error that says what happened, with nothing half-written here or there.
//!
//! `docs/faults.md` lists the faults with the tests that show them. What no proxy can do to a real registry is in
//! `registry_faults`; processes that end and disks that are full are in `interrupted`.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kanna::blobs::BlobStore;
use kanna::credentials::Keychain;
use kanna::http;
use kanna::oci::{Digest, Platform, Reference};
use kanna::registry::{Client, Error, Settings, Silent};

use crate::support::handmade::{Image, Stored};
use crate::support::http::{Reply, Request};
use crate::support::machine::assert_nothing_left;
use crate::support::proxy::{Fault, Harm, Proxy, first};
use crate::support::registry::Registry;
use crate::support::scratch;
use crate::support::workshop::Workshop;

/// Rows of the table at the same time.
const AT_ONCE: usize = 4;
const ALWAYS: usize = usize::MAX;
/// Of the user and the password that the registry wants.
const BASIC: &str = "Basic bWU6c2VjcmV0";

fn layer() -> Vec<u8> {
    (0..50_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// Where `word` is in the manifest.
fn place_of(image: &Stored, word: &str) -> u64 {
    let text = std::str::from_utf8(&image.image.manifest).expect("JSON");
    text.find(word).expect("it is there") as u64
}

/// A client that knows the password of these proxies.
fn client(proxies: &[&Proxy]) -> Client {
    let directory = scratch();
    let config = directory.path().join("config.json");
    let entry = |proxy: &&Proxy| format!(r#""{}": {{"username": "me", "password": "secret"}}"#, proxy.host());
    let entries: Vec<String> = proxies.iter().map(entry).collect();
    fs::write(&config, format!(r#"{{"auths": {{{}}}}}"#, entries.join(","))).expect("written");
    let (retry_pause, patience) = (Duration::from_millis(5), Duration::from_secs(20));
    let http = http::Client::new(http::Settings { retry_pause, patience, ..http::Settings::default() });
    Client::new(Settings::default(), Keychain::new(vec![config]), Arc::new(http.expect("a client"))).expect("a client")
}

/// Pulls an image whole; says what is wrong with it.
fn pull(image: &Stored, client: &Client, host: &str, name: &str) -> Result<Vec<String>, Error> {
    let place = scratch();
    let store = BlobStore::open(place.path()).expect("a store");
    let mut wrong = Vec::new();
    let fetched = client.pull_image(&reference(host, name), &amd64()).and_then(|pulled| {
        if pulled.manifest_bytes != image.image.manifest || pulled.config != image.image.config {
            wrong.push("another manifest or config".to_owned());
        }
        client.fetch_blobs(&pulled, &pulled.manifest.layers, &store, &Silent)
    });
    let files = fs::read_dir(place.path().join("blobs/sha256")).expect("listed").count();
    if fetched.is_ok() && fs::read(store.path(&Digest::of(&layer()))).ok() != Some(layer()) {
        wrong.push("another layer".to_owned());
    }
    if files != usize::from(fetched.is_ok()) {
        wrong.push(format!("{files} files in the store"));
    }
    match fetched {
        Err(_) if !wrong.is_empty() => Ok(wrong),
        other => other.map(|()| wrong),
    }
}

fn reference(host: &str, name: &str) -> Reference {
    format!("{host}/{name}").parse().expect("a reference")
}

fn amd64() -> Platform {
    "linux/amd64".parse().expect("a platform")
}

/// The error with all its causes, as the user sees it.
fn text(error: &Error) -> String {
    http::chain(error)
}

/// The request that a fault meets.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Target {
    PullManifest,
    PullBlob,
    PushBlob,
    PushManifest,
}

use Target::{PullBlob, PullManifest, PushBlob, PushManifest};

impl Target {
    const ALL: [Target; 4] = [PullManifest, PullBlob, PushBlob, PushManifest];

    fn is_met_by(self, request: &Request) -> bool {
        let layer = Digest::of(&layer()).hex();
        let (method, path) = (request.method.as_str(), request.path.as_str());
        match self {
            PullManifest => method == "GET" && path.contains("/manifests/"),
            PullBlob => method == "GET" && path.ends_with(&layer),
            PushBlob => method == "PUT" && path.contains("/blobs/uploads/") && path.contains(&layer),
            PushManifest => method == "PUT" && path.contains("/manifests/"),
        }
    }

    fn is_push(self) -> bool {
        matches!(self, PushBlob | PushManifest)
    }

    fn body_bytes(self, image: &Stored) -> u64 {
        let body = if matches!(self, PullManifest | PushManifest) { image.image.manifest.len() } else { layer().len() };
        body as u64
    }

    /// Harm to the body that matters: what is fetched, or what is sent.
    fn harmed(self, harm: Harm) -> Fault {
        if self.is_push() { Fault::Request(harm) } else { Fault::Response(harm) }
    }
}

/// How it ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The image arrives.
    Right,
    /// An error that says this.
    Error(&'static str),
}

use End::Right;

/// What a fault is for one of the targets.
type FaultOf = dyn Fn(Target, &Stored) -> Fault;

/// A fault: what is done, to how many requests in a row, and how it ends for each of [`Target::ALL`].
struct Row {
    name: String,
    times: usize,
    fault: Box<FaultOf>,
    ends: [End; 4],
}

fn row(name: &str, times: usize, fault: impl Fn(Target, &Stored) -> Fault + 'static, ends: [End; 4]) -> Row {
    Row { name: name.to_owned(), times, fault: Box::new(fault), ends }
}

/// The registry answers this itself.
fn answered(name: &str, times: usize, reply: Reply, ends: [End; 4]) -> Row {
    row(name, times, move |_, _| Fault::Answer(reply.clone()), ends)
}

fn refused(status: u16) -> Reply {
    Reply::new(status, r#"{"errors":[{"code":"DENIED","message":"because"}]}"#)
}

fn cuts() -> Vec<Row> {
    let tenth = |tenth: u64| {
        let cut =
            move |target: Target, image: &Stored| target.harmed(Harm::CutAfter(target.body_bytes(image) * tenth / 10));
        row(&format!("cut after {tenth} tenths"), 1, cut, [Right; 4])
    };
    let half = |target: Target, image: &Stored| target.harmed(Harm::CutAfter(target.body_bytes(image) / 2));
    let mut rows: Vec<Row> = (0..10).map(tenth).collect();
    rows.extend([
        // what came of a blob need not come again; nobody goes on with anything else
        row(
            "cut after the half, always",
            ALWAYS,
            half,
            [End::Error("get manifest"), Right, End::Error("upload blob"), End::Error("put manifest")],
        ),
        row(
            "cut before the first byte, always",
            ALWAYS,
            |target, _| target.harmed(Harm::CutAfter(0)),
            [End::Error("get manifest"), End::Error("get blob"), End::Error("upload blob"), End::Error("put manifest")],
        ),
        row("dripping", ALWAYS, |target, _| target.harmed(Harm::Dripping(20, Duration::from_millis(10))), [Right; 4]),
    ]);
    rows
}

fn refusals() -> Vec<Row> {
    let mut rows = Vec::new();
    for (status, reason) in [
        (401, "answered 401 Unauthorized: DENIED because"),
        (403, "answered 403 Forbidden: DENIED because"),
        (404, "answered 404 Not Found: DENIED because"),
    ] {
        rows.push(answered(&status.to_string(), ALWAYS, refused(status), [End::Error(reason); 4]));
    }
    for (status, reason) in [
        (429, "answered 429 Too Many Requests: DENIED because"),
        (500, "answered 500 Internal Server Error: DENIED because"),
        (502, "answered 502 Bad Gateway: DENIED because"),
        (503, "answered 503 Service Unavailable: DENIED because"),
    ] {
        rows.push(answered(&format!("{status}, twice"), 2, refused(status), [Right; 4]));
        rows.push(answered(&format!("{status}, always"), ALWAYS, refused(status), [End::Error(reason); 4]));
    }
    let later = |seconds: &str| refused(429).header("Retry-After", seconds);
    rows.push(answered("429 until in a second", 1, later("1"), [Right; 4]));
    rows.push(answered("429 until tomorrow", 1, later("86400"), [End::Error("answered 429"); 4]));
    rows
}

fn lies() -> Vec<Row> {
    let damage = |target: Target, image: &Stored| {
        let layer = Digest::of(&layer()).hex();
        // a digit that becomes another
        let digit = layer.find(|c: char| c.is_ascii_digit()).expect("a digest of letters alone would be a wonder");
        let in_manifest = place_of(image, &layer) + digit as u64;
        target.harmed(Harm::Damaged(if matches!(target, PullManifest | PushManifest) { in_manifest } else { 100_000 }))
    };
    vec![
        row(
            "a wrong byte",
            ALWAYS,
            damage,
            [
                End::Error("instead of sha256:"),
                End::Error("has digest sha256:"),
                End::Error("DIGEST_INVALID"),
                End::Error("MANIFEST_BLOB_UNKNOWN"),
            ],
        ),
        row("a length that is too long", 1, |_, _| Fault::Announced(10), [Right; 4]),
        row(
            "a length that is too short",
            1,
            |_, _| Fault::Announced(-10),
            [End::Error("not a valid image manifest"), Right, Right, Right],
        ),
        answered(
            "a page of HTML",
            1,
            Reply::new(200, "<html>welcome</html>"),
            // a blob that was not taken is missed by its manifest; a manifest that was not taken is not there
            [
                End::Error("not a valid image manifest"),
                Right,
                End::Error("MANIFEST_BLOB_UNKNOWN"),
                End::Error("answered 404"),
            ],
        ),
        answered(
            "JSON that is no manifest",
            1,
            Reply::new(200, r#"{"schemaVersion":2}"#),
            [
                End::Error("JSON of an unknown kind is neither an image manifest nor an index"),
                Right,
                End::Error("MANIFEST_BLOB_UNKNOWN"),
                End::Error("answered 404"),
            ],
        ),
        answered("a redirect to nowhere", ALWAYS, Reply::new(307, ""), [End::Error("no usable Location header"); 4]),
    ]
}

/// The place of all rows, and what is wrong with them.
struct Table {
    image: Stored,
    registry: Registry,
    direct: Client,
    complaints: Mutex<Vec<String>>,
}

impl Table {
    fn new() -> Table {
        let (image, registry) = (Image::of_freight(vec![layer()]).stored(), Registry::start());
        let direct = client(&[]);
        image.push(&direct, &reference(registry.host(), "base:1")).expect("pushed");
        Table { image, registry, direct, complaints: Mutex::default() }
    }

    /// The registry wants a password of everybody, and `fault` is done to `target`.
    fn proxy(&self, target: Target, times: usize, fault: Fault) -> Proxy {
        let fault = first(times, move |request| target.is_met_by(request), fault);
        Proxy::start(self.registry.host(), move |request, before| {
            let challenge = || Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"test\"");
            let is_known = request.header("authorization") == Some(BASIC);
            if is_known { fault(request, before) } else { Some(Fault::Answer(challenge())) }
        })
    }

    /// Does what `target` is part of, and compares it with how it should end.
    fn check(&self, name: &str, number: usize, target: Target, client: &Client, host: &str, end: End) {
        let repository = format!("result/{number}-{}:1", target as usize);
        let result = if target.is_push() {
            self.image.push(client, &reference(host, &repository)).and_then(|digest| {
                let wrong = pull(&self.image, &self.direct, self.registry.host(), &repository)?;
                Ok(if digest == self.image.digest() { wrong } else { vec![format!("pushed {digest}")] })
            })
        } else {
            pull(&self.image, client, host, "base:1")
        };
        let mut complaint = match (&result, end) {
            (Ok(wrong), Right) => wrong.join(", "),
            (Err(error), End::Error(word)) if text(error).contains(word) => String::new(),
            (Err(error), _) => text(error),
            (Ok(wrong), End::Error(_)) => format!("no error; {}", wrong.join(", ")),
        };
        if result.is_err() && target.is_push() {
            let there = self.direct.pull_image(&reference(self.registry.host(), &repository), &amd64());
            if there.map(drop).map_err(|error| error.status()) != Err(Some(404)) {
                complaint += ", and the tag is there";
            }
        }
        if !complaint.is_empty() {
            let line = format!("{name}, {target:?}: {end:?} expected: {complaint}");
            self.complaints.lock().expect("not poisoned").push(line);
        }
    }

    /// Runs every row with every target.
    fn run(&self, rows: &[Row]) {
        let jobs: Vec<(usize, &str, Target, Proxy, End)> = rows
            .iter()
            .enumerate()
            .flat_map(|(number, row)| {
                Target::ALL.into_iter().zip(row.ends).map(move |(target, end)| (number, row, target, end))
            })
            .map(|(number, row, target, end)| {
                let proxy = self.proxy(target, row.times, (row.fault)(target, &self.image));
                (number, &*row.name, target, proxy, end)
            })
            .collect();
        let client = client(&jobs.iter().map(|(.., proxy, _)| proxy).collect::<Vec<_>>());
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    while let Some((number, name, target, proxy, end)) = jobs.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        self.check(name, *number, *target, &client, proxy.host(), *end);
                    }
                });
            }
        });
        let complaints = self.complaints.lock().expect("not poisoned");
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }
}

#[test]
fn connections_that_break() {
    Table::new().run(&cuts());
}

#[test]
fn servers_that_refuse() {
    let start = Instant::now();
    Table::new().run(&refusals());
    assert!(start.elapsed() >= Duration::from_secs(1), "Retry-After was not waited for");
}

#[test]
fn servers_that_lie() {
    Table::new().run(&lies());
}

#[test]
fn credentials_follow_no_redirect() {
    let table = Table::new();
    for (number, target) in Target::ALL.into_iter().enumerate() {
        // the blob breaks off there as well
        let cut = move |request: &Request| target == PullBlob && request.header("range").is_none();
        let elsewhere = Proxy::failing(table.registry.host(), 1, cut, Fault::Response(Harm::CutAfter(70_000)));
        let proxy = table.proxy(target, ALWAYS, Fault::SentTo(elsewhere.host().to_owned()));
        let client = client(&[&proxy, &elsewhere]);
        table.check("a redirect", number, target, &client, proxy.host(), Right);
        let seen = elsewhere.seen();
        assert_eq!(seen.len(), if target == PullBlob { 2 } else { 1 }, "{target:?}: {seen:?}");
        for request in &seen {
            assert_eq!(request.header("authorization"), None, "{target:?}");
        }
        assert_eq!(seen.last().is_some_and(|last| last.header("range") == Some("bytes=70000-")), target == PullBlob);
        assert!(proxy.seen().iter().any(|request| request.header("authorization").is_some()), "{target:?}");
    }
    assert_eq!(*table.complaints.lock().expect("not poisoned"), [""; 0]);
}

/// A registry that takes one token only, and from the moment that the target is asked for only another.
#[test]
fn tokens_that_expire_are_renewed() {
    let table = Table::new();
    for (number, target) in Target::ALL.into_iter().enumerate() {
        let expired = Mutex::new(false);
        let proxy = Proxy::start(table.registry.host(), move |request, _| {
            let mut expired = expired.lock().expect("not poisoned");
            *expired |= target.is_met_by(request);
            let token = if *expired { "second" } else { "first" };
            if request.path.starts_with("/token") {
                return Some(Fault::Answer(Reply::new(200, format!(r#"{{"token":"{token}","expires_in":300}}"#))));
            }
            let realm = format!("Bearer realm=\"http://{}/token\"", request.header("host").expect("a host"));
            let challenge = Fault::Answer(Reply::new(401, "").header("WWW-Authenticate", realm));
            (request.header("authorization") != Some(&format!("Bearer {token}"))).then_some(challenge)
        });
        let client = client(&[]);
        table.check("a token that expires", number, target, &client, proxy.host(), Right);
        let tokens = proxy.seen().iter().filter(|request| request.path.starts_with("/token")).count();
        assert_eq!(tokens, 2, "{target:?}");
    }
    assert_eq!(*table.complaints.lock().expect("not poisoned"), [""; 0]);
}

/// A manifest with a config of another kind, which a registry has no reason to refuse: it is there, and nobody says that it
/// is ours.
#[test]
fn a_manifest_that_was_changed_on_its_way_is_noticed() {
    let table = Table::new();
    let at = place_of(&table.image, "config.v1");
    let proxy = table.proxy(PushManifest, ALWAYS, Fault::Request(Harm::Damaged(at)));
    let error = table.image.push(&client(&[&proxy]), &reference(proxy.host(), "changed:1")).expect_err("another");
    let told = format!("instead of {}", table.image.digest());
    assert!(text(&error).contains(&told), "{}", text(&error));
}

/// The same through the executor: the exit code, the message, and what is left.
#[test]
fn what_the_user_sees() {
    let Some(workshop) = Workshop::new() else { return };
    let context = workshop.machine.context("context", "FROM busybox:base\nRUN echo made > /made\n");
    let get_blob = |request: &Request| request.method == "GET" && request.path.contains("/blobs/");
    let get_manifest = |request: &Request| request.method == "GET" && request.path.contains("/manifests/");
    let put_blob = |request: &Request| request.method == "PUT" && request.path.contains("/blobs/");
    let put_manifest = |request: &Request| request.method == "PUT" && request.path.contains("/manifests/");
    type Which = fn(&Request) -> bool;
    let rows: [(&str, usize, Which, Fault, Option<&str>); 9] = [
        ("nothing", 0, get_blob, Fault::Held, None),
        ("cut", 1, get_blob, Fault::Response(Harm::CutAfter(100)), None),
        ("base-503", 1, get_manifest, Fault::Answer(refused(503)), None),
        ("push-503", 1, put_blob, Fault::Answer(refused(503)), None),
        ("push-cut", 1, put_blob, Fault::Request(Harm::CutAfter(50)), None),
        (
            "base-403",
            ALWAYS,
            get_manifest,
            Fault::Answer(refused(403)),
            Some("error building image: dockerfile line 1: "),
        ),
        ("base-damaged", ALWAYS, get_blob, Fault::Response(Harm::Damaged(60)), Some("error building image: ")),
        ("push-403", ALWAYS, put_blob, Fault::Answer(refused(403)), Some("error pushing image to ")),
        ("push-damaged", ALWAYS, put_manifest, Fault::Request(Harm::Damaged(200)), Some("error pushing image to ")),
    ];
    let images = thread::scope(|scope| {
        let builds: Vec<_> = rows
            .into_iter()
            .map(|(name, times, which, fault, error)| {
                let (workshop, context) = (&workshop, &context);
                scope.spawn(move || {
                    let proxy = Proxy::failing(workshop.registry.host(), times, which, fault);
                    let home = workshop.machine.own(name);
                    let destination = format!("{}/result/{name}:1", proxy.host());
                    let ended = workshop.build(&home, context, proxy.host(), &destination, &[]);
                    assert_nothing_left(&home);
                    let digest = fs::read_to_string(home.join("digest")).ok();
                    let pushed = workshop.tag(&format!("result/{name}:1"));
                    match error {
                        None => {
                            ended.success(name);
                            assert_eq!(pushed.map(|digest| digest.to_string()), digest, "{name}");
                        }
                        Some(error) => {
                            assert_eq!(ended.code, Some(1), "{name}: {}", ended.stderr);
                            assert!(
                                ended.stderr.lines().any(|line| line.starts_with(error)),
                                "{name}: {}",
                                ended.stderr
                            );
                            assert_eq!((pushed, &digest), (None, &None), "{name}: nothing is there");
                        }
                    }
                    digest
                })
            })
            .collect();
        builds.into_iter().map(|build| build.join().expect("no complaint")).collect::<Vec<_>>()
    });
    let right: Vec<&String> = images.iter().flatten().collect();
    assert!(right.len() == 5 && right.iter().all(|digest| *digest == right[0]), "{images:?}");
}
