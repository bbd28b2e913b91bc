//! Pull and push, against a real registry.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use kanna::blobs::BlobStore;
use kanna::credentials::Keychain;
use kanna::http;
use kanna::oci::{Descriptor, Digest, Platform, Reference, media_type};
use kanna::registry::{Client, Error, Progress, RemoteImage, Settings, Silent};
use tempfile::TempDir;

use crate::support::handmade::{Image, Stored};
use crate::support::http::{Reply, Server};
use crate::support::registry::{Options, Registry};
use crate::support::scratch;

/// An image of two layers.
fn sample() -> Stored {
    let large = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    Image::of_freight(vec![b"first layer".to_vec(), large]).stored()
}

/// Pulls the image into a new store and compares all of it.
fn assert_pulls(sample: &Stored, client: &Client, from: &Reference) -> RemoteImage {
    let pulled = client.pull_image(from, &amd64()).expect("pulled");
    assert_eq!(pulled.manifest_bytes, sample.image.manifest);
    assert_eq!(pulled.manifest_digest, sample.digest());
    assert_eq!(pulled.config, sample.image.config);
    let place = scratch();
    let store = BlobStore::open(place.path()).expect("a store");
    client.fetch_blobs(&pulled, &pulled.manifest.layers, &store, &Silent).expect("fetched");
    for (layer, bytes) in sample.manifest.layers.iter().zip(&sample.image.layers) {
        assert!(fs::read(store.path(&layer.digest)).is_ok_and(|read| read == *bytes), "{}", layer.digest);
    }
    pulled
}

fn amd64() -> Platform {
    "linux/amd64".parse().expect("a platform")
}

fn reference(text: impl AsRef<str>) -> Reference {
    text.as_ref().parse().expect("a reference")
}

fn http_settings() -> http::Settings {
    let (retry_pause, patience) = (Duration::from_millis(10), Duration::from_secs(20));
    http::Settings { retry_pause, patience, ..http::Settings::default() }
}

fn client(settings: Settings) -> Client {
    client_over(http_settings(), settings)
}

fn client_over(http: http::Settings, settings: Settings) -> Client {
    let http = Arc::new(http::Client::new(http).expect("a client"));
    Client::new(settings, Keychain::new(Vec::new()), http).expect("a client")
}

/// A client with a `config.json` in which one entry is for `registry`.
fn client_as(settings: Settings, directory: &Path, registry: &str, entry: &str) -> Result<Client, Error> {
    let config = directory.join("config.json");
    fs::write(&config, format!(r#"{{"auths": {{"{registry}": {entry}}}}}"#)).expect("written");
    let http = Arc::new(http::Client::new(http_settings()).expect("a client"));
    Client::new(settings, Keychain::new(vec![config]), http)
}

fn run(program: &str, arguments: &[&str], directory: &Path) {
    let status = (Command::new(program).args(arguments).current_dir(directory))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap_or_else(|error| panic!("{program}: {error}")).success(), "{program} {arguments:?}");
}

#[test]
fn push_then_pull() {
    let registry = Registry::start();
    let sample = sample();
    let client = client(Settings::default());
    let name = reference(format!("{}/team/app:1", registry.host()));
    client.check_push(&name).expect("allowed");
    assert_eq!(sample.push(&client, &name).expect("pushed"), sample.digest());
    let image = assert_pulls(&sample, &client, &name);
    assert_eq!(image.registry_and_repository(), Some((registry.host(), "team/app")));
    assert_pulls(&sample, &client, &reference(format!("{}/team/app@{}", registry.host(), sample.digest())));
}

#[test]
fn what_is_there_is_not_sent_again() {
    let registry = Registry::start();
    let sample = sample();
    let client = client(Settings::default());
    let begun = || registry.log().matches("\"POST /v2/").count();
    sample.push(&client, &reference(format!("{}/app:1", registry.host()))).expect("pushed");
    assert_eq!(begun(), 3, "two layers and the config");
    sample.push(&client, &reference(format!("{}/app:2", registry.host()))).expect("pushed");
    assert_eq!(begun(), 3);
}

#[test]
fn layers_of_a_base_are_mounted_or_fetched() {
    let (near, far) = (Registry::start(), Registry::start());
    let sample = sample();
    let client = client(Settings::default());
    let base = reference(format!("{}/base:1", near.host()));
    sample.push(&client, &base).expect("pushed");
    let base = client.pull_image(&base, &amd64()).expect("pulled");
    for layer in &sample.manifest.layers {
        sample.store.remove(&layer.digest).expect("removed");
    }

    let mounted = reference(format!("{}/derived:1", near.host()));
    sample.push_with(&client, &mounted, std::slice::from_ref(&base)).expect("pushed");
    assert!(!sample.store.contains(&sample.manifest.layers[0].digest), "mounted, not fetched");

    let error = sample.push(&client, &reference(format!("{}/derived:1", far.host()))).expect_err("nowhere");
    assert!(matches!(error, Error::NoSource { .. }), "{error}");
    let fetched = reference(format!("{}/derived:2", far.host()));
    sample.push_with(&client, &fetched, &[base]).expect("pushed");
    assert_pulls(&sample, &client, &fetched);
    assert_pulls(&sample, &client, &mounted);
}

#[test]
fn what_is_missing_is_said_at_once() {
    let registry = Registry::start();
    let sample = sample();
    let client = client(Settings::default());
    let error = client.pull_image(&reference(format!("{}/none:1", registry.host())), &amd64()).expect_err("none");
    assert_eq!(error.status(), Some(404));
    assert!(!error.is_temporary() && error.to_string().contains("none:1"), "{error}");
    let name = reference(format!("{}/app:1", registry.host()));
    sample.push(&client, &name).expect("pushed");
    let image = client.pull_image(&name, &amd64()).expect("pulled");
    let absent = Descriptor::new(media_type::OCI_LAYER, Digest::of(b"absent"), 6);
    let error = client.fetch_blobs(&image, &[absent], &sample.store, &Silent).expect_err("none");
    assert_eq!(error.status(), Some(404));
}

#[test]
fn every_blob_is_reported_once() {
    #[derive(Default)]
    struct Heard(Mutex<Vec<Digest>>);
    impl Progress for Heard {
        fn finished(&self, blob: &Descriptor) {
            self.0.lock().expect("not poisoned").push(blob.digest);
        }
    }
    let registry = Registry::start();
    let sample = sample();
    let client = client(Settings::default());
    let name = reference(format!("{}/app:1", registry.host()));
    sample.push(&client, &name).expect("pushed");
    let image = client.pull_image(&name, &amd64()).expect("pulled");
    let twice = [&image.manifest.layers[..], &image.manifest.layers[..]].concat();
    let heard = Heard::default();
    let place = scratch();
    let store = BlobStore::open(place.path()).expect("a store");
    client.fetch_blobs(&image, &twice, &store, &heard).expect("fetched");
    let mut heard = heard.0.into_inner().expect("not poisoned");
    heard.sort();
    let mut expected: Vec<_> = image.manifest.layers.iter().map(|layer| layer.digest).collect();
    expected.sort();
    assert_eq!(heard, expected);
}

#[test]
fn mirrors_are_asked_first() {
    let registry = Registry::start();
    let sample = sample();
    let pushed = reference(format!("{}/prefix/library/debian:1", registry.host()));
    sample.push(&client(Settings::default()), &pushed).expect("pushed");
    let mirror = |registry: &str| format!("http://{registry}/prefix");
    let dead = mirror("127.0.0.1:1");
    let mirrors = vec![dead, mirror(registry.host())];
    let with_mirrors = client(Settings { mirrors, skip_default_fallback: true, ..Settings::default() });
    let image = assert_pulls(&sample, &with_mirrors, &reference("debian:1"));
    assert_eq!(image.reference, reference("docker.io/library/debian:1"));
    assert_eq!(image.registry_and_repository().map(|(_, repository)| repository), Some("prefix/library/debian"));
}

/// A certificate authority, and a certificate of its for 127.0.0.1.
struct Certificates {
    directory: TempDir,
}

impl Certificates {
    fn new() -> Certificates {
        let directory = scratch();
        let place = directory.path();
        let request = ["req", "-newkey", "rsa:2048", "-nodes", "-subj"];
        let authority = ["/CN=test authority", "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca.crt"];
        run("openssl", &[&request[..], &authority[..]].concat(), place);
        for (name, extension) in [("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")]
        {
            let [key, csr, certificate, extensions] =
                ["key", "csr", "crt", "ext"].map(|suffix| format!("{name}.{suffix}"));
            fs::write(place.join(&extensions), extension).expect("written");
            run("openssl", &[&request[..], &["/CN=test", "-keyout", &key, "-out", &csr]].concat(), place);
            let sign = ["x509", "-req", "-days", "2", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-in"];
            run("openssl", &[&sign[..], &[&csr, "-out", &certificate, "-extfile", &extensions]].concat(), place);
        }
        Certificates { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

#[test]
fn tls_with_an_authority_of_one_s_own() {
    let certificates = Certificates::new();
    let (certificate, key) = (certificates.path("server.crt"), certificates.path("server.key"));
    let registry = Registry::start_with(&Options { tls: Some((&certificate, &key)), ..Options::default() });
    let sample = sample();
    let name = reference(format!("{}/app:1", registry.host()));
    let host = registry.host().to_owned();

    let error = sample.push(&client(Settings::default()), &name).expect_err("nobody trusts it");
    assert!(!error.is_temporary(), "{error:?}");

    let own = [(host.clone(), certificates.path("ca.crt"))].into();
    let trusting = client_over(http::Settings { authorities: own, ..http_settings() }, Settings::default());
    sample.push(&trusting, &name).expect("pushed");
    assert_pulls(&sample, &trusting, &name);

    let authorities = certificates.path("authorities");
    fs::create_dir(&authorities).expect("created");
    fs::copy(certificates.path("ca.crt"), authorities.join("own.pem")).expect("copied");
    fs::write(authorities.join("README"), "not a certificate").expect("written");
    let http = http::Settings { extra_ca_directories: vec![authorities], ..http_settings() };
    assert_pulls(&sample, &client_over(http.clone(), Settings::default()), &name);

    let address = format!("https://{}/v2/", registry.host()).parse().expect("an address");
    let fetch = |http: http::Settings| http::Client::new(http).expect("a client").fetch(&address, 100);
    assert!(!fetch(http_settings()).expect_err("nobody trusts it").is_temporary());
    assert_eq!(fetch(http).expect("fetched"), b"{}", "files are trusted as registries are");

    let careless = client(Settings { skip_tls_verify_pull: true, ..Settings::default() });
    assert_pulls(&sample, &careless, &name);
    assert!(careless.check_push(&name).is_err(), "only pulls are careless");
    let careless = client(Settings { skip_tls_verify_registries: vec![host], ..Settings::default() });
    careless.check_push(&name).expect("allowed");
}

#[test]
fn a_server_s_own_certificate_is_believed_where_it_was_given() {
    let directory = tempfile::tempdir().expect("a directory");
    let make = |name: &str, subject: &str| {
        let [key, certificate] = ["key", "crt"].map(|suffix| directory.path().join(format!("{name}.{suffix}")));
        let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test", "-addext"];
        let files = ["-keyout", key.to_str().expect("UTF-8"), "-out", certificate.to_str().expect("UTF-8")];
        run("openssl", &[&request[..], &[subject], &files].concat(), directory.path());
        (certificate, key)
    };
    let check = |shown: &(PathBuf, PathBuf), given: &(PathBuf, PathBuf)| {
        let registry = Registry::start_with(&Options { tls: Some((&shown.0, &shown.1)), ..Options::default() });
        let authorities = [(registry.host().to_owned(), given.0.clone())].into();
        let client = client_over(http::Settings { authorities, ..http_settings() }, Settings::default());
        client.check_push(&reference(format!("{}/app:1", registry.host())))
    };
    let own = make("own", "subjectAltName=IP:127.0.0.1");
    check(&own, &own).expect("it was given");
    let another = make("another", "subjectAltName=IP:127.0.0.1");
    let elsewhere = make("elsewhere", "subjectAltName=IP:127.0.0.2");
    for (shown, given, reason) in [(&own, &another, "certificate"), (&elsewhere, &elsewhere, "not valid for name")] {
        let error = check(shown, given).expect_err("not to be believed");
        assert_eq!(error.status(), None, "why TLS failed is told, not that a server wants it: {error}");
        assert_eq!(error.tls_fault(), Some(http::TlsFault::Certificate));
        let told = http::chain(&error);
        assert!(told.contains(reason), "{told}");
    }
}

#[test]
fn a_client_certificate_is_shown_to_the_registry_that_it_is_for() {
    let certificates = Certificates::new();
    let [certificate, key, authority] = ["server.crt", "server.key", "ca.crt"].map(|name| certificates.path(name));
    let tls = Some((certificate.as_path(), key.as_path()));
    let registry = Registry::start_with(&Options { tls, client_authority: Some(&authority), ..Options::default() });
    let name = reference(format!("{}/app:1", registry.host()));
    let identified = |host: &str| {
        let pair = (certificates.path("client.crt"), certificates.path("client.key"));
        let http = http::Settings {
            authorities: [(registry.host().to_owned(), authority.clone())].into(),
            identities: [(host.to_owned(), pair)].into(),
            ..http_settings()
        };
        client_over(http, Settings::default())
    };
    let sample = sample();
    sample.push(&identified(registry.host()), &name).expect("pushed");
    assert_pulls(&sample, &identified(registry.host()), &name);
    identified("other.example").check_push(&name).expect_err("nobody in particular");
}

#[test]
fn bad_certificate_files_are_named_at_the_start() {
    let certificates = Certificates::new();
    let empty = certificates.path("empty.crt");
    fs::write(&empty, "").expect("written");
    let absent = certificates.path("absent.crt");
    for path in [empty.clone(), absent] {
        let own = [("r.example".to_owned(), path.clone())].into();
        let settings = http::Settings { authorities: own, ..http_settings() };
        let error = http::Client::new(settings).err().expect("an error");
        assert!(error.to_string().contains(path.to_str().expect("UTF-8")), "{error}");
    }
    let pair = (certificates.path("client.crt"), empty);
    let settings = http::Settings { identities: [("r.example".to_owned(), pair)].into(), ..http_settings() };
    assert!(matches!(http::Client::new(settings), Err(http::Error::BadCertificate { .. })));
}

#[test]
fn a_password() {
    let place = scratch();
    run("htpasswd", &["-Bbc", "htpasswd", "me", "secret"], place.path());
    let file = place.path().join("htpasswd");
    let registry = Registry::start_with(&Options { htpasswd: Some(&file), ..Options::default() });
    let sample = sample();
    let name = reference(format!("{}/team/app:1", registry.host()));
    let as_me = |entry: &str| client_as(Settings::default(), place.path(), registry.host(), entry).expect("a client");
    let right = as_me(r#"{"username": "me", "password": "secret"}"#);
    right.check_push(&name).expect("allowed");
    sample.push(&right, &name).expect("pushed");
    assert_pulls(&sample, &right, &name);
    for wrong in [as_me(r#"{"username": "me", "password": "wrong"}"#), as_me("{}")] {
        let error = wrong.check_push(&name).expect_err("not allowed");
        assert_eq!(error.status(), Some(401), "{error}");
        assert_eq!(wrong.pull_image(&name, &amd64()).expect_err("not allowed").status(), Some(401));
    }
}

#[test]
fn an_index_is_resolved_by_platform() {
    let registry = Registry::start();
    let client = client(Settings::default());
    let mut entries = Vec::new();
    for platform in ["linux/amd64", "linux/arm64"] {
        let sample = Image::of_freight(vec![platform.as_bytes().to_vec()]).stored();
        let (repository, tag) = (format!("{}/app", registry.host()), platform.replace('/', "-"));
        let digest = sample.push(&client, &reference(format!("{repository}:{tag}"))).expect("pushed");
        let mut entry = Descriptor::new(media_type::OCI_MANIFEST, digest, sample.image.manifest.len() as u64);
        entry.platform = Some(platform.parse().expect("a platform"));
        entries.push(entry);
    }
    let json = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
    let index = serde_json::to_vec(&json).expect("JSON");
    put_manifest(registry.host(), "app", "all", media_type::OCI_INDEX, &index);

    let name = reference(format!("{}/app:all", registry.host()));
    for entry in &entries {
        let image = client.pull_image(&name, entry.platform.as_ref().expect("a platform")).expect("pulled");
        assert_eq!((image.manifest_digest, image.resolved_digest), (entry.digest, Digest::of(&index)));
    }
    let error = client.pull_image(&name, &"linux/s390x".parse().expect("a platform")).expect_err("none");
    let text = error.to_string();
    assert!(text.ends_with("has no image for linux/s390x; it has linux/amd64, linux/arm64"), "{text}");
}

fn put_manifest(host: &str, repository: &str, tag: &str, kind: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(host).expect("connected");
    let length = bytes.len();
    write!(
        stream,
        "PUT /v2/{repository}/manifests/{tag} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    )
    .and_then(|()| stream.write_all(bytes))
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

/// Signs what docker-registry takes for a token: all that is asked for is granted, but for the repository `closed`.
fn signed_token(certificates: &Path, query: &str) -> String {
    let scopes = query
        .split(['?', '&'])
        .filter_map(|pair| pair.strip_prefix("scope="))
        .map(|scope| scope.replace("%3A", ":").replace("%2C", ",").replace("%2F", "/"));
    let access: Vec<_> = scopes
        .filter_map(|scope| {
            let parts: Vec<&str> = scope.split(':').collect();
            let actions: Vec<&str> = parts[2].split(',').collect();
            (parts[1] != "closed").then(|| serde_json::json!({"type": parts[0], "name": parts[1], "actions": actions}))
        })
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let pem = fs::read_to_string(certificates.join("ca.crt")).expect("read");
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let header = serde_json::json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
    let claims = serde_json::json!({
        "iss": "test", "sub": "me", "aud": "test", "jti": now.to_string(),
        "iat": now - 10, "nbf": now - 10, "exp": now + 600, "access": access,
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let place = scratch();
    fs::write(place.path().join("signed"), &signed).expect("written");
    let key = certificates.join("ca.key");
    let key = key.to_str().expect("UTF-8");
    run("openssl", &["dgst", "-sha256", "-sign", key, "-out", "signature", "signed"], place.path());
    let signature = fs::read(place.path().join("signature")).expect("read");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn tokens_that_a_real_registry_takes() {
    let certificates = Certificates::new();
    let place = certificates.directory.path().to_path_buf();
    let server = Server::start(move |request, _| {
        if request.header("authorization") != Some("Basic bWU6c2VjcmV0") {
            return Reply::new(401, "");
        }
        Reply::new(200, format!(r#"{{"token":"{}"}}"#, signed_token(&place, &request.path)))
    });
    let realm = format!("http://{}/token", server.host());
    let authority = certificates.path("ca.crt");
    let registry = Registry::start_with(&Options { token: Some((&realm, &authority)), ..Options::default() });
    let sample = sample();
    let entry = r#"{"auth": "bWU6c2VjcmV0"}"#;
    let client =
        client_as(Settings::default(), certificates.directory.path(), registry.host(), entry).expect("a client");
    let base = reference(format!("{}/base:1", registry.host()));
    client.check_push(&base).expect("allowed");
    sample.push(&client, &base).expect("pushed");
    let base = assert_pulls(&sample, &client, &base);

    // mounting needs a token for both repositories
    for layer in &sample.manifest.layers {
        sample.store.remove(&layer.digest).expect("removed");
    }
    let derived = reference(format!("{}/derived:1", registry.host()));
    sample.push_with(&client, &derived, &[base]).expect("pushed");
    assert!(sample.manifest.layers.iter().all(|layer| !sample.store.contains(&layer.digest)), "mounted, not fetched");

    let closed = client.check_push(&reference(format!("{}/closed:1", registry.host()))).expect_err("closed");
    assert_eq!(closed.status(), Some(401), "{closed}");
    let stranger = crate::registry::client(Settings::default());
    assert_eq!(stranger.check_push(&derived).expect_err("a stranger").status(), Some(401));
}
