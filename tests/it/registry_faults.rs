//! Registries that misbehave: what passes is tried again, what does not is an error that says what is wrong.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kanna::blobs::BlobStore;
use kanna::credentials::Keychain;
use kanna::http;
use kanna::oci::{Descriptor, Digest, Reference, media_type};
use kanna::registry::{Client, Error, PushImage, RemoteImage, Settings, Silent};
use kanna::sys::Stop;
use tempfile::TempDir;

use crate::support::http::{Ending, Reply, Request, Server};
use crate::support::machine::processes_with;
use crate::support::scratch;

const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux"}"#;

fn layer() -> Vec<u8> {
    (0..50_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn manifest() -> Vec<u8> {
    let describe = |kind: &str, bytes: &[u8]| {
        serde_json::to_value(Descriptor::new(kind, Digest::of(bytes), bytes.len() as u64)).expect("JSON")
    };
    let json = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": describe(media_type::OCI_CONFIG, CONFIG),
        "layers": [describe(media_type::OCI_LAYER, &layer())],
    });
    serde_json::to_vec(&json).expect("JSON")
}

/// What a registry with one image answers.
fn proper(request: &Request) -> Reply {
    let path = request.path.as_str();
    if path == "/v2/" {
        Reply::new(200, "{}")
    } else if path.contains("/manifests/") {
        Reply::new(200, manifest()).header("Content-Type", media_type::OCI_MANIFEST)
    } else if path.ends_with(&Digest::of(CONFIG).to_string()) {
        Reply::new(200, CONFIG)
    } else if is_layer(request) {
        Reply::new(200, layer())
    } else {
        Reply::new(404, r#"{"errors":[{"code":"NAME_UNKNOWN","message":"not here"}]}"#)
    }
}

fn is_layer(request: &Request) -> bool {
    request.path.ends_with(&Digest::of(&layer()).to_string())
}

fn is_manifest(request: &Request) -> bool {
    request.path.contains("/manifests/")
}

/// A registry that is proper but for the requests that `answer` takes.
fn faulty(answer: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static) -> Server {
    Server::start(move |request, before| answer(request, before).unwrap_or_else(|| proper(request)))
}

/// A client that does not wait long; `config` has its credentials.
fn client_with(settings: Settings, config: Option<PathBuf>) -> Client {
    let (retry_pause, patience) = (Duration::from_millis(5), Duration::from_millis(400));
    let http = http::Client::new(http::Settings { retry_pause, patience, ..http::Settings::default() });
    let keychain = Keychain::new(config.into_iter().collect());
    Client::new(settings, keychain, Arc::new(http.expect("a client"))).expect("a client")
}

fn client() -> Client {
    client_with(Settings::default(), None)
}

fn client_with_password(server: &Server) -> (TempDir, Client) {
    let place = scratch();
    let config = place.path().join("config.json");
    let entry = r#"{"username": "me", "password": "secret"}"#;
    std::fs::write(&config, format!(r#"{{"auths": {{"{}": {entry}}}}}"#, server.host())).expect("written");
    (place, client_with(Settings::default(), Some(config)))
}

fn name(server: &Server) -> Reference {
    format!("{}/app:1", server.host()).parse().expect("a reference")
}

fn pull(server: &Server) -> Result<RemoteImage, Error> {
    client().pull_image(&name(server), &"linux/amd64".parse().expect("a platform"))
}

/// Pulls the image and its layer; the store must have the layer, or nothing.
fn fetch(server: &Server) -> Result<(), Error> {
    fetch_as(&client(), server)
}

fn fetch_as(client: &Client, server: &Server) -> Result<(), Error> {
    let image = client.pull_image(&name(server), &"linux/amd64".parse().expect("a platform"))?;
    let place = scratch();
    let store = BlobStore::open(place.path()).expect("a store");
    let fetched = client.fetch_blobs(&image, &image.manifest.layers, &store, &Silent);
    let files = std::fs::read_dir(place.path().join("blobs/sha256")).expect("listed").count();
    assert_eq!(files, usize::from(fetched.is_ok()), "nothing half-written");
    if fetched.is_ok() {
        assert_eq!(std::fs::read(store.path(&Digest::of(&layer()))).expect("read"), layer());
    }
    fetched
}

/// The error with all its causes, as the user sees it.
fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn count(server: &Server, which: fn(&Request) -> bool) -> usize {
    server.seen().iter().filter(|request| which(request)).count()
}

#[test]
fn a_proper_registry_is_asked_once() {
    let server = faulty(|_, _| None);
    fetch(&server).expect("fetched");
    assert_eq!(server.seen().len(), 4, "{:?}", server.seen());
}

#[test]
fn what_passes_is_tried_again() {
    for status in [429, 500, 502, 503, 504] {
        let server = faulty(move |request, before| {
            ((is_layer(request) || is_manifest(request) || request.path == "/v2/") && before < 2)
                .then(|| Reply::new(status, "later"))
        });
        fetch(&server).expect("fetched");
        assert_eq!((count(&server, is_layer), count(&server, is_manifest)), (3, 3), "{status}");
    }
}

#[test]
fn the_server_says_when_to_come_back() {
    let server = faulty(|request, before| {
        (is_manifest(request) && before == 0).then(|| Reply::new(429, "later").header("Retry-After", "1"))
    });
    let start = Instant::now();
    pull(&server).expect("pulled");
    assert!(start.elapsed() >= Duration::from_secs(1));
    let server = faulty(|request, _| is_manifest(request).then(|| Reply::new(429, "").header("Retry-After", "86400")));
    assert_eq!(pull(&server).expect_err("tomorrow").status(), Some(429));
    assert_eq!(count(&server, is_manifest), 1);
}

#[test]
fn tries_come_to_an_end() {
    let server = faulty(|request, _| is_layer(request).then(|| Reply::new(503, "never")));
    let error = fetch(&server).expect_err("never");
    assert!(error.is_temporary() && text(&error).contains("503 Service Unavailable: never"), "{error}");
    assert_eq!(count(&server, is_layer), 5);
}

#[test]
fn what_does_not_pass_is_not_tried_again() {
    for (status, reason) in [(401, "Unauthorized"), (403, "Forbidden"), (404, "Not Found"), (400, "Bad Request")] {
        let body = r#"{"errors":[{"code":"DENIED","message":"because"}]}"#;
        let server = faulty(move |request, _| is_manifest(request).then(|| Reply::new(status, body)));
        let error = pull(&server).expect_err("refused");
        assert_eq!(error.status(), Some(status));
        assert!(text(&error).contains(&format!("{status} {reason}: DENIED because")), "{error}");
        // after a 401 credentials are looked up once more
        assert_eq!(count(&server, is_manifest), if status == 401 { 2 } else { 1 }, "{status}");
    }
}

#[test]
fn a_download_goes_on_where_it_broke_off() {
    let tenths = (0..10).map(|tenth| Ending::CutAfter(layer().len() / 10 * tenth + 1));
    for ending in tenths.chain([Ending::SilentAfter(70_000, Duration::from_secs(1))]) {
        let server = faulty(move |request, before| {
            if !is_layer(request) {
                return None;
            }
            if before == 0 { Some(Reply::new(200, layer()).ending(ending)) } else { ranged(request) }
        });
        fetch(&server).expect("fetched");
        let seen = server.seen();
        let again = seen.iter().rfind(|request| is_layer(request)).expect("asked again");
        let range = again.header("range").expect("a range");
        assert!(range != "bytes=0-" && count(&server, is_layer) == 2, "{range}");
    }
}

/// What a server with ranges makes of a request for the rest of the layer.
fn ranged(request: &Request) -> Option<Reply> {
    let from = request.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()?;
    let range = format!("bytes {from}-{}/{}", layer().len() - 1, layer().len());
    Some(Reply::new(206, &layer()[from..]).header("Content-Range", range))
}

#[test]
fn a_download_that_gets_on_is_not_given_up() {
    // far more cuts in a row than there are tries
    let server = faulty(|request, _| {
        let cut = Ending::CutAfter(10_000);
        is_layer(request).then(|| {
            let whole = || Reply::new(200, layer());
            let reply = ranged(request).unwrap_or_else(whole);
            let ending = if reply.body.len() > 10_000 { cut } else { Ending::Whole };
            reply.ending(ending)
        })
    });
    fetch(&server).expect("fetched");
    assert_eq!(count(&server, is_layer), 20);
    // a byte with each try is not getting on
    let server = faulty(|request, _| {
        is_layer(request)
            .then(|| ranged(request).unwrap_or_else(|| Reply::new(200, layer())).ending(Ending::CutAfter(1)))
    });
    fetch(&server).expect_err("cut");
    assert_eq!(count(&server, is_layer), 5);
}

#[test]
fn a_server_that_cannot_go_on_from_there_begins_anew() {
    let elsewhere = || Reply::new(206, &layer()[..9]).header("Content-Range", "bytes 100-108/200000");
    let another = || Reply::new(206, &layer()[..9]).header("Content-Range", "bytes 70000-199999/300000");
    let refused = || Reply::new(416, "").header("Content-Range", "bytes */200000");
    let answers: [fn() -> Reply; 4] = [elsewhere, another, refused, || Reply::new(206, "no word of what this is")];
    for (number, answer) in answers.into_iter().enumerate() {
        let server = faulty(move |request, before| match (is_layer(request), before) {
            (true, 0) => Some(Reply::new(200, layer()).ending(Ending::CutAfter(70_000))),
            (true, _) => request.header("range").map(|_| answer()),
            _ => None,
        });
        fetch(&server).unwrap_or_else(|error| panic!("{number}: {}", text(&error)));
        assert_eq!(count(&server, is_layer), 3, "{number}: the first, the rest, all of it");
    }
}

#[test]
fn pieces_that_do_not_belong_together_are_fetched_as_one() {
    let other = || vec![7; layer().len()];
    let server = faulty(move |request, before| match (is_layer(request), before) {
        (true, 0) => Some(Reply::new(200, other()).ending(Ending::CutAfter(70_000))),
        (true, _) => ranged(request),
        _ => None,
    });
    fetch(&server).expect("fetched");
    let asked = |request: &Request| is_layer(request) && request.header("range").is_some();
    assert_eq!((count(&server, is_layer), count(&server, asked)), (3, 1));
}

#[test]
fn a_length_that_is_not_that_of_the_blob() {
    let short = |request: &Request, before: usize| {
        (is_layer(request) && before == 0).then(|| Reply::new(200, &layer()[..150_000]))
    };
    let server = faulty(move |request, before| {
        short(request, before).or_else(|| if is_layer(request) { ranged(request) } else { None })
    });
    fetch(&server).expect("fetched");
    assert_eq!(count(&server, is_layer), 2);
    // the connection ends when all is there, whatever else was announced
    let server = faulty(|request, _| {
        let announced = [layer(), b"more".to_vec()].concat();
        is_layer(request).then(|| Reply::new(200, announced).ending(Ending::CutAfter(layer().len())))
    });
    fetch(&server).expect("fetched");
    assert_eq!(count(&server, is_layer), 1);
}

/// A registry that asks for a password, and has its layer elsewhere, where none is wanted.
fn redirecting_to(storage: &Server) -> Server {
    let target = format!("http://{}/bucket?signature=x", storage.host());
    faulty(move |request, _| {
        if request.header("authorization") != Some("Basic bWU6c2VjcmV0") {
            return Some(Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"test\""));
        }
        is_layer(request).then(|| Reply::new(307, "").header("Location", target.clone()))
    })
}

#[test]
fn a_download_from_elsewhere_goes_on_there() {
    let storage = Arc::new(Server::start(|request, before| {
        let whole = || Reply::new(200, layer()).ending(Ending::CutAfter(70_000));
        if before == 0 { whole() } else { ranged(request).unwrap_or_else(whole) }
    }));
    let server = redirecting_to(&storage);
    let (_place, client) = client_with_password(&server);
    fetch_as(&client, &server).expect("fetched");
    let seen = storage.seen();
    assert!(seen.len() == 2 && seen.iter().all(|request| request.header("authorization").is_none()), "{seen:?}");
    assert!(seen[1].header("range").is_some());
    assert_eq!(count(&server, is_layer), 2, "each piece with an address of its own: signatures end");
}

#[test]
fn a_server_without_ranges_begins_anew() {
    let cut = |request: &Request, before: usize| {
        (is_layer(request) && before < 2).then(|| Reply::new(200, layer()).ending(Ending::CutAfter(70_000)))
    };
    fetch(&faulty(cut)).expect("fetched");
}

#[test]
fn a_server_that_answers_another_range_is_not_believed() {
    let server = faulty(|request, before| match (is_layer(request), before) {
        (true, 0) => Some(Reply::new(200, layer()).ending(Ending::CutAfter(70_000))),
        (true, _) => Some(Reply::new(206, layer()).header("Content-Range", "bytes 0-199999/200000")),
        _ => None,
    });
    fetch(&server).expect("fetched");
}

#[test]
fn a_blob_that_is_always_cut() {
    let server =
        faulty(|request, _| is_layer(request).then(|| Reply::new(200, layer()).ending(Ending::CutAfter(1000))));
    let error = fetch(&server).expect_err("cut");
    assert!(text(&error).contains(&Digest::of(&layer()).to_string()), "{error}");
    let short =
        faulty(|request, _| is_layer(request).then(|| Reply::new(200, &layer()[..1000]).ending(Ending::Unannounced)));
    let error = fetch(&short).expect_err("cut");
    assert!(text(&error).contains("1000 bytes instead of 200000"), "{error}");
    let silent = faulty(|request, _| {
        let ending = Ending::SilentAfter(1000, Duration::from_secs(5));
        is_layer(request).then(|| Reply::new(200, layer()).ending(ending))
    });
    assert!(matches!(fetch(&silent).expect_err("silent"), Error::Http(http::Error::Stalled { .. })));
}

#[test]
fn blobs_that_are_not_what_was_promised() {
    let mut other = layer();
    other[100_000] ^= 1;
    let longer = [layer(), b"more".to_vec()].concat();
    for (body, complaint) in [(other, "has digest sha256:"), (longer, "bytes instead of 200000")] {
        let server = faulty(move |request, _| is_layer(request).then(|| Reply::new(200, body.clone())));
        let error = fetch(&server).expect_err("wrong");
        assert!(text(&error).contains(complaint) && !error.is_temporary(), "{error}");
        assert_eq!(count(&server, is_layer), 1);
    }
    let config = |request: &Request| request.path.ends_with(&Digest::of(CONFIG).to_string());
    for (body, complaint) in
        [(b"x".repeat(CONFIG.len()), "has digest"), (b"x".to_vec(), "has 1 bytes"), (vec![b'x'; 17 << 20], "more than")]
    {
        let server = faulty(move |request, _| config(request).then(|| Reply::new(200, body.clone())));
        let error = text(&pull(&server).expect_err("wrong"));
        assert!(error.contains(complaint), "{error}");
    }
}

#[test]
fn manifests_that_are_none() {
    let v1 = r#"{"schemaVersion":1,"name":"app","tag":"1","fsLayers":[]}"#;
    for (body, complaint) in [
        ("<html>hello</html>".to_owned(), "not a valid image manifest"),
        ("{".to_owned(), "not a valid image manifest"),
        (String::new(), "not a valid image manifest"),
        (v1.to_owned(), "schema 1"),
        (r#"{"schemaVersion":2,"mediaType":"text/plain"}"#.to_owned(), "text/plain is neither"),
        (" ".repeat(5 << 20), "more than 4194304 bytes"),
    ] {
        let server = faulty(move |request, _| is_manifest(request).then(|| Reply::new(200, body.clone())));
        let error = text(&pull(&server).expect_err("no manifest"));
        assert!(error.contains("app:1") && error.contains(complaint), "{error}");
        assert_eq!(count(&server, is_manifest), 1);
    }
}

#[test]
fn a_manifest_must_have_the_digest_that_was_asked_for() {
    let asked = |server: &Server, digest: Digest| {
        let name: Reference = format!("{}/app@{digest}", server.host()).parse().expect("a reference");
        client().pull_image(&name, &"linux/amd64".parse().expect("a platform"))
    };
    let right = Digest::of(&manifest());
    asked(&faulty(|_, _| None), right).expect("pulled");
    let error = text(&asked(&faulty(|_, _| None), Digest::of(b"other")).expect_err("wrong"));
    assert!(error.contains(&format!("digest {right} instead of")), "{error}");
    let lying = faulty(|request, _| {
        is_manifest(request)
            .then(|| Reply::new(200, manifest()).header("Docker-Content-Digest", Digest::of(b"lie").to_string()))
    });
    asked(&lying, right).expect_err("wrong");
    let error = text(&pull(&lying).expect_err("a tag has a digest as well"));
    assert!(error.contains(&format!("digest {right} instead of {}", Digest::of(b"lie"))), "{error}");
}

#[test]
fn indexes_without_end() {
    let index = |inner: &[u8]| {
        let inner = Descriptor::new(media_type::OCI_INDEX, Digest::of(inner), inner.len() as u64);
        let inner = serde_json::to_string(&inner).expect("JSON");
        format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{inner}]}}"#, media_type::OCI_INDEX).into_bytes()
    };
    let mut chain = vec![manifest()];
    for _ in 0..6 {
        chain.push(index(chain.last().expect("never empty")));
    }
    let chain = Arc::new(chain);
    let server = faulty(move |request, _| {
        let deepest = is_manifest(request).then(|| chain.last().cloned()).flatten()?;
        let named = chain.iter().find(|bytes| request.path.ends_with(&Digest::of(bytes).to_string()));
        Some(Reply::new(200, named.cloned().unwrap_or(deepest)))
    });
    let error = text(&pull(&server).expect_err("too deep"));
    assert!(error.contains("nested deeper than 3"), "{error}");
}

#[test]
fn credentials_stay_with_the_registry() {
    let storage = Arc::new(Server::start(|_, _| Reply::new(200, layer())));
    let server = redirecting_to(&storage);
    let (_place, client) = client_with_password(&server);
    fetch_as(&client, &server).expect("fetched");
    let seen = storage.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("authorization"), None);
}

#[test]
fn redirects_without_end() {
    let server =
        faulty(|request, _| is_layer(request).then(|| Reply::new(302, "").header("Location", request.path.clone())));
    let error = text(&fetch(&server).expect_err("round and round"));
    assert!(error.contains("more than 10 redirects"), "{error}");
}

/// A registry that takes the newest token only, and its token server in one.
fn token_registry(
    token_answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    accepted: &'static str,
) -> Server {
    faulty(move |request, before| {
        if request.path.starts_with("/token") {
            return Some(token_answer(request, before));
        }
        let host = request.header("host").expect("a host").to_owned();
        let challenge = format!("Negotiate, Bearer realm=\"http://{host}/token\",service=\"svc, with comma\"");
        let bearer = format!("Bearer {accepted}");
        (request.header("authorization") != Some(&bearer))
            .then(|| Reply::new(401, "").header("WWW-Authenticate", challenge))
    })
}

#[test]
fn one_token_serves_all_and_is_renewed_when_refused() {
    let token = |_: &Request, _| Reply::new(200, r#"{"token":"good","expires_in":300}"#);
    let server = token_registry(token, "good");
    let (_place, client) = client_with_password(&server);
    fetch_as(&client, &server).expect("fetched");
    let seen = server.seen();
    let tokens: Vec<_> = seen.iter().filter(|request| request.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].path, "/token?service=svc%2C+with+comma&scope=repository%3Aapp%3Apull");
    assert_eq!(tokens[0].header("authorization"), Some("Basic bWU6c2VjcmV0"));

    let stale_first = |_: &Request, before: usize| {
        Reply::new(200, format!(r#"{{"access_token":"{}","expires_in":300}}"#, ["stale", "good"][before.min(1)]))
    };
    let server = token_registry(stale_first, "good");
    fetch(&server).expect("fetched");
    let server = token_registry(|_, _| Reply::new(200, r#"{"token":"never good"}"#), "good");
    assert_eq!(pull(&server).expect_err("refused").status(), Some(401));
    assert_eq!(count(&server, is_manifest), 2);
}

#[test]
fn an_identity_token_is_exchanged_by_post() {
    let server = token_registry(|_, _| Reply::new(200, r#"{"access_token":"good"}"#), "good");
    let place = scratch();
    let config = place.path().join("config.json");
    std::fs::write(&config, format!(r#"{{"auths": {{"{}": {{"identitytoken": "id"}}}}}}"#, server.host()))
        .expect("written");
    let client = client_with(Settings::default(), Some(config));
    fetch_as(&client, &server).expect("fetched");
    let seen = server.seen();
    let post = seen.iter().find(|request| request.method == "POST").expect("a POST");
    let form = String::from_utf8(post.body.clone()).expect("UTF-8");
    for field in ["grant_type=refresh_token", "refresh_token=id", "scope=repository%3Aapp%3Apull", "client_id=kanna"] {
        assert!(form.split('&').any(|given| given == field), "{form}");
    }
}

#[test]
fn token_servers_that_misbehave() {
    for (body, complaint) in [("{}", "no token"), ("<html>", "no token"), (r#"{"token":""}"#, "no token")] {
        let error = text(&pull(&token_registry(move |_, _| Reply::new(200, body), "good")).expect_err("no token"));
        assert!(error.contains("/token") && error.contains(complaint), "{error}");
    }
    let error = pull(&token_registry(|_, _| Reply::new(403, "no"), "good")).expect_err("refused");
    assert_eq!(error.status(), Some(403));
}

/// Pushes an image with one layer to a registry that has nothing and takes everything, but for what `answer` takes.
fn push(
    settings: Settings,
    answer: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
) -> (Server, Result<Digest, Error>) {
    let server = Server::start(move |request, before| {
        answer(request, before).unwrap_or_else(|| match request.method.as_str() {
            "GET" => Reply::new(200, "{}"),
            "HEAD" => Reply::new(404, ""),
            "POST" => Reply::new(202, "").header("Location", "/upload?state=1"),
            _ => Reply::new(201, ""),
        })
    });
    let place = scratch();
    let store = BlobStore::open(place.path()).expect("a store");
    store.write(&layer()).and_then(|_| store.write(CONFIG)).expect("stored");
    let bytes = manifest();
    let parsed = serde_json::from_slice(&bytes).expect("a manifest");
    let image =
        PushImage { manifest: &bytes, media_type: media_type::OCI_MANIFEST, manifest_struct: &parsed, sources: &[] };
    let client = client_with(settings, None);
    let pushed = client.push_image(&name(&server), &image, &store, &Silent);
    (server, pushed)
}

fn is_layer_upload(request: &Request) -> bool {
    request.method == "PUT" && request.path.ends_with(&Digest::of(&layer()).to_string().replace(':', "%3A"))
}

#[test]
fn an_upload_is_begun_anew() {
    for status in [500, 503, 429] {
        let (server, pushed) = push(Settings::default(), move |request, before| {
            (is_layer_upload(request) && before < 2).then(|| Reply::new(status, "later"))
        });
        assert_eq!(pushed.expect("pushed"), Digest::of(&manifest()));
        let seen = server.seen();
        let uploads: Vec<_> = seen.iter().filter(|request| is_layer_upload(request)).collect();
        assert_eq!(uploads.len(), 3);
        assert!(uploads.iter().all(|upload| upload.body == layer()), "each with the whole layer");
        assert!(uploads[0].path.starts_with("/upload?state=1&digest="), "{}", uploads[0].path);
        let last = seen.last().expect("requests");
        assert!(is_manifest(last) && last.body == manifest(), "the manifest comes last");
    }
}

#[test]
fn an_upload_that_nobody_answers_is_given_up() {
    let (_server, pushed) = push(Settings::default(), |request, _| {
        let ending = Ending::SilentAfter(0, Duration::from_secs(1));
        // the pause comes before the status line: nothing at all is answered
        is_layer_upload(request).then(|| {
            std::thread::sleep(Duration::from_secs(1));
            Reply::new(201, "").ending(ending)
        })
    });
    let error = pushed.expect_err("no answer");
    assert!(matches!(error, Error::Http(http::Error::Stalled { .. })), "{error}");
}

#[test]
fn refused_uploads_end_the_push() {
    for status in [401, 403, 400] {
        let (server, pushed) =
            push(Settings::default(), move |request, _| is_layer_upload(request).then(|| Reply::new(status, "no")));
        assert_eq!(pushed.expect_err("refused").status(), Some(status));
        assert_eq!(count(&server, is_manifest), 0, "no manifest without its blobs");
    }
}

#[test]
fn a_tag_that_must_not_change() {
    let refuse = |request: &Request, _| {
        let body = r#"{"errors":[{"code":"TAG_INVALID","message":"The image tag '1' is immutable"}]}"#;
        is_manifest(request).then(|| Reply::new(400, body))
    };
    assert_eq!(push(Settings::default(), refuse).1.expect_err("refused").status(), Some(400));
    let lenient = Settings { ignore_immutable_tag_errors: true, ..Settings::default() };
    assert_eq!(push(lenient.clone(), refuse).1.expect("pushed"), Digest::of(&manifest()));
    let other = |request: &Request, _| is_manifest(request).then(|| Reply::new(400, "no"));
    push(lenient, other).1.expect_err("refused for another reason");
}

#[test]
fn a_manifest_that_is_another_when_it_is_there() {
    let taken = |digest: &'static [u8]| {
        let header = Digest::of(digest).to_string();
        let answer = move |request: &Request, _: usize| {
            is_manifest(request).then(|| Reply::new(201, "").header("Docker-Content-Digest", header.clone()))
        };
        text(&push(Settings::default(), answer).1.expect_err("another manifest"))
    };
    let error = taken(b"another");
    let [right, other] = [Digest::of(&manifest()), Digest::of(b"another")];
    assert!(error.contains(&format!("app:1: digest {other} instead of {right}")), "{error}");
}

#[test]
fn whoever_takes_everything_must_have_it() {
    // as a hotel's network answers, whatever is asked
    let polite = |has_it: bool| {
        let (server, pushed) = push(Settings::default(), move |request, _| {
            let reply = match request.method.as_str() {
                "GET" if has_it => Reply::new(200, manifest()),
                _ => Reply::new(200, "<html>welcome</html>"),
            };
            is_manifest(request).then_some(reply)
        });
        (pushed, server.seen().iter().filter(|request| is_manifest(request)).count())
    };
    let (pushed, asked) = polite(true);
    assert_eq!((pushed.expect("pushed"), asked), (Digest::of(&manifest()), 2));
    let error = text(&polite(false).0.expect_err("nothing is there"));
    assert!(error.contains("instead of"), "{error}");
}

/// Patient for so long that a test which only waited would fail by its own limit.
fn client_until(stop: &Stop, keychain: Keychain) -> Client {
    let settings = http::Settings { patience: Duration::from_secs(600), ..http::Settings::default() };
    let http = http::Client::new(settings).expect("a client").until(stop.clone());
    Client::new(Settings::default(), keychain, Arc::new(http)).expect("a client")
}

/// Asks to end as soon as `is_time`.
fn stop_when(stop: &Stop, is_time: impl Fn() -> bool + Send + 'static) {
    let stop = stop.clone();
    std::thread::spawn(move || {
        while !is_time() {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.ask();
    });
}

#[test]
fn nobody_waits_for_a_silent_registry_once_asked_to_end() {
    let half = layer().len() / 2;
    let ending = Ending::SilentAfter(half, Duration::from_secs(600));
    let server = faulty(move |request, _| is_layer(request).then(|| Reply::new(200, layer()).ending(ending)));
    let server = Arc::new(server);
    let stop = Stop::new();
    let asked = Arc::clone(&server);
    stop_when(&stop, move || count(&asked, is_layer) > 0);
    let client = client_until(&stop, Keychain::new(Vec::new()));
    assert!(matches!(fetch_as(&client, &server), Err(Error::Http(http::Error::Stopped(_)))));
    let again = client.pull_image(&name(&server), &"linux/amd64".parse().expect("a platform"));
    assert!(matches!(again, Err(Error::Http(http::Error::Stopped(_)))), "nothing is asked any more");
}

#[test]
fn nobody_waits_for_a_silent_helper_once_asked_to_end() {
    use std::os::unix::fs::PermissionsExt;
    let server = faulty(|request, _| {
        let challenge = Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"test\"");
        request.header("authorization").is_none().then_some(challenge)
    });
    let place = scratch();
    let at = |name: &str| place.path().join(name);
    let begun = at("begun");
    std::fs::write(at("config.json"), r#"{"credsStore": "silent"}"#).expect("written");
    let helper = at("docker-credential-silent");
    // of the helper and of what it started
    let words = ["600.125", "600.25"];
    let script = format!("#!/bin/sh\nsleep {} &\n: >{}\nexec sleep {}\n", words[0], begun.display(), words[1]);
    std::fs::write(&helper, script).expect("written");
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).expect("made executable");
    let stop = Stop::new();
    stop_when(&stop, move || begun.exists());
    let client = client_until(&stop, Keychain::new(vec![at("config.json")]).with_helper_path(place.path()));
    assert!(matches!(fetch_as(&client, &server), Err(Error::Http(http::Error::Stopped(_)))));
    drop(client);
    assert_eq!(words.map(|word| processes_with(word).len()), [0, 0]);
}
