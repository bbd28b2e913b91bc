//! Lies of whoever a build believes: manifests and configs of images, `config.json`, credential helpers. `docs/lies.md` lists
//! them with what happens: these tests make the tables, and hold the page to them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::thread;
use std::time::Duration;

use kanna::credentials::{Credential, Keychain};
use kanna::oci::{Digest, Platform, media_type};
use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::{Value, json};
use tar::EntryType::Regular;

use crate::support::command::run_within;
use crate::support::flat;
use crate::support::handmade::{Image, tar_of};
use crate::support::http::{Reply, Request, Server};
use crate::support::machine::{LIMIT, Machine, assert_nothing_left};
use crate::support::{assert_page_has, scratch};

/// What no message may tell.
const SECRET: &str = "hunter2";

/// Builds that go on at the same time.
const AT_ONCE: usize = 16;

/// An image that is not what it says, and what is built of it.
struct Lie {
    what: &'static str,
    image: Image,
    /// What stands in the index that its name leads to, if there is one, beside digest and size.
    entry: Option<Value>,
    /// The Dockerfile behind FROM.
    instructions: &'static str,
}

fn lie(what: &'static str, image: Image) -> Lie {
    Lie { what, image, entry: None, instructions: "COPY Dockerfile /copied" }
}

fn one_file() -> Image {
    Image::of(tar_of(&[(Regular, "file", "", b"content")]))
}

/// An honest image but for its config.
fn config(what: &'static str, change: impl FnOnce(&mut Value)) -> Lie {
    let image = one_file();
    let mut config = serde_json::from_slice(&image.config).expect("JSON");
    change(&mut config);
    lie(what, Image { config: config.to_string().into_bytes(), ..image }.sealed())
}

/// The same with the text of the config changed.
fn config_text(what: &'static str, change: impl FnOnce(&str) -> Vec<u8>) -> Lie {
    let image = one_file();
    let config = change(std::str::from_utf8(&image.config).expect("JSON"));
    lie(what, Image { config, ..image }.sealed())
}

/// An honest image but for its manifest.
fn manifest(what: &'static str, change: impl FnOnce(&mut Value)) -> Lie {
    let mut image = one_file();
    let mut manifest = serde_json::from_slice(&image.manifest).expect("JSON");
    change(&mut manifest);
    image.manifest = manifest.to_string().into_bytes();
    lie(what, image)
}

/// The same with a piece of the manifest's text replaced.
fn manifest_text(what: &'static str, piece: &str, other: &str) -> Lie {
    let mut image = one_file();
    let text = String::from_utf8(image.manifest).expect("JSON");
    assert!(text.contains(piece), "{what}: {text}");
    image.manifest = text.replacen(piece, other, 1).into_bytes();
    lie(what, image)
}

fn layer_type(what: &'static str, media_type: &str) -> Lie {
    manifest(what, |manifest| manifest["layers"][0]["mediaType"] = media_type.into())
}

fn layer_elsewhere(what: &'static str, address: &str) -> Lie {
    let mut lie = layer_type(what, media_type::OCI_LAYER_FOREIGN);
    let mut manifest: Value = serde_json::from_slice(&lie.image.manifest).expect("JSON");
    manifest["layers"][0]["urls"] = json!([address]);
    lie.image.manifest = manifest.to_string().into_bytes();
    // the registry has none
    lie.image.layers.clear();
    lie
}

const LAYER_SIZE: &str = "\"size\":2048";

fn manifests() -> Vec<Lie> {
    let config_size = format!("\"size\":{}", one_file().config.len());
    let image = one_file();
    let two = Image { layers: vec![image.layers[0].clone(), image.layers[0].clone()], ..image };
    vec![
        manifest_text("a layer of a size below zero", LAYER_SIZE, "\"size\":-1"),
        manifest_text("a layer of no size", LAYER_SIZE, "\"size\":0"),
        manifest_text("a layer of 2^63 bytes", LAYER_SIZE, "\"size\":9223372036854775808"),
        manifest_text("a layer of 2^64 bytes", LAYER_SIZE, "\"size\":18446744073709551616"),
        manifest_text("a layer of one byte and a half", LAYER_SIZE, "\"size\":1.5"),
        manifest_text("a size that is text", LAYER_SIZE, "\"size\":\"2048\""),
        manifest_text("a layer without a size", ",\"size\":2048", ""),
        manifest_text("a config of no size", &config_size, "\"size\":0"),
        manifest_text("a config of a pebibyte", &config_size, "\"size\":1125899906842624"),
        manifest("a digest that leads elsewhere", |manifest| {
            manifest["layers"][0]["digest"] = "sha256:../../../../etc/passwd".into();
        }),
        manifest("a digest of another kind", |manifest| {
            manifest["layers"][0]["digest"] = "md5:d41d8cd98f00b204e9800998ecf8427e".into();
        }),
        manifest("a layer that is the config", |manifest| {
            let mut layer = manifest["config"].clone();
            layer["mediaType"] = media_type::OCI_LAYER.into();
            manifest["layers"][0] = layer;
        }),
        manifest("no layers where the config has one", |manifest| manifest["layers"] = json!([])),
        manifest("layers that are null", |manifest| manifest["layers"] = Value::Null),
        manifest("layers that are an object", |manifest| manifest["layers"] = json!({"0": {}})),
        lie("one layer twice", two.sealed()),
        manifest_text("a key twice", "\"layers\":", "\"layers\":[],\"layers\":"),
        manifest_text("another schema version", "\"schemaVersion\":2", "\"schemaVersion\":3"),
        manifest("a list in the manifest's place", |manifest| {
            let parts = ["schemaVersion", "mediaType", "config", "layers"].map(|name| manifest[name].clone());
            *manifest = json!(parts);
        }),
        manifest("the media type of an index", |manifest| manifest["mediaType"] = media_type::OCI_INDEX.into()),
        manifest("the media type of Docker's manifests", |manifest| {
            manifest["mediaType"] = media_type::DOCKER_MANIFEST.into();
        }),
        layer_type("a tar that is said to be gzip", media_type::OCI_LAYER_GZIP),
        layer_type("an attestation as a layer", "application/vnd.in-toto+json"),
        layer_type("an encrypted layer", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"),
        Lie { instructions: "LABEL a=b", ..layer_type("the same where no file is needed", "text/plain") },
        manifest("an artifact: a chart", |manifest| {
            manifest["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
        }),
        manifest("an artifact of the image spec", |manifest| {
            manifest["artifactType"] = "application/vnd.example+type".into();
            manifest["config"]["mediaType"] = "application/vnd.oci.empty.v1+json".into();
        }),
        manifest("a config of the type that old registries gave", |manifest| {
            manifest["config"]["mediaType"] = "application/octet-stream".into();
        }),
        layer_elsewhere("a layer that is to be had from a file", "file:///etc/passwd"),
        layer_elsewhere("a layer that is to be had from nowhere", "no address"),
        layer_elsewhere("a layer that is to be had where something else is", "http://SERVER/elsewhere"),
    ]
}

fn indexes() -> Vec<Lie> {
    let host = Platform::host();
    let ours = json!({"os": host.os, "architecture": host.architecture});
    let other = |config: &mut Value| config["architecture"] = "s390x".into();
    let promises = |platform: &Value| Some(json!({"mediaType": media_type::OCI_MANIFEST, "platform": platform}));
    vec![
        config("an image of another platform, alone", other),
        Lie { entry: promises(&ours), ..config("the same in an index that says it is of ours", other) },
        Lie {
            entry: promises(&json!({"os": "linux", "architecture": "s390x"})),
            ..lie("our image in an index that says it is of another", one_file())
        },
        Lie {
            entry: Some(json!({"mediaType": media_type::OCI_MANIFEST, "platform": {"os": 1}})),
            ..lie("a platform that is a number", one_file())
        },
        Lie {
            entry: Some(json!({"mediaType": media_type::OCI_MANIFEST, "size": 1, "platform": ours})),
            ..lie("an image of another size", one_file())
        },
        Lie { entry: Some(json!({"mediaType": "text/plain"})), ..lie("no image at all", one_file()) },
    ]
}

fn configs() -> Vec<Lie> {
    let empty = |times: usize| vec![json!({"created_by": "told", "empty_layer": true}); times];
    let full = |times: usize| vec![json!({"created_by": "told"}); times];
    let run = |what, change: fn(&mut Value), instructions| {
        let lie = config(what, |config| {
            config["config"] = json!({});
            change(&mut config["config"]);
        });
        Lie { instructions, ..lie }
    };
    const COMMAND: &str = "RUN [\"/file\"]";
    const COPY: &str = "COPY Dockerfile .";
    vec![
        config("no platform", |config| {
            config["os"] = "".into();
            config["architecture"] = "".into();
        }),
        config("a platform that is a number", |config| config["os"] = 1.into()),
        config("no history", |config| config["history"] = Value::Null),
        config("a history of no layers", |config| config["history"] = empty(2).into()),
        config("a history of three layers", |config| config["history"] = full(3).into()),
        config("a history that is text", |config| config["history"] = "long".into()),
        config("no layers", |config| config["rootfs"] = Value::Null),
        config("layers of another kind", |config| config["rootfs"]["type"] = "overlay".into()),
        Lie {
            instructions: "LABEL a=b",
            ..lie(
                "another diff ID, where no file is needed",
                Image::with_diff_ids(one_file().layers, &[Digest::of(b"other")]),
            )
        },
        config_text("a key twice", |text| text.replacen('{', "{\"os\":\"linux\",", 1).into_bytes()),
        config_text("a number that no computer has", |text| text.replacen('{', "{\"x\":1e999,", 1).into_bytes()),
        config_text("a thousand lists within each other", |text| {
            text.replacen('{', &format!("{{\"x\":{}{},", "[".repeat(1000), "]".repeat(1000)), 1).into_bytes()
        }),
        config_text("bytes that are no UTF-8", |text| {
            text.bytes().map(|byte| if byte == b'x' { 0xff } else { byte }).collect()
        }),
        config_text("text behind its end", |text| format!("{text}{{}}").into_bytes()),
        config_text("the mark that Windows puts before UTF-8", |text| format!("\u{feff}{text}").into_bytes()),
        run("variables that are none", |run| run["Env"] = json!(["", "=", "A", "=C"]), COPY),
        run("variables that are numbers", |run| run["Env"] = json!([1]), COPY),
        run("a variable with a NUL", |run| run["Env"] = json!(["A=b\0c"]), COMMAND),
        run("a user who climbs", |run| run["User"] = "../../root".into(), COMMAND),
        run("a user of 2^64", |run| run["User"] = "18446744073709551616".into(), COMMAND),
        run("a working directory that climbs", |run| run["WorkingDir"] = "../../../up".into(), COPY),
        run("a working directory with a NUL", |run| run["WorkingDir"] = "/a\0b".into(), COPY),
        run("a working directory that is a file", |run| run["WorkingDir"] = "/file".into(), COPY),
        run("an entrypoint that is text", |run| run["Entrypoint"] = "/bin/sh".into(), COPY),
        run("a trigger that is no instruction", |run| run["OnBuild"] = json!(["NONSENSE"]), COPY),
        run("a trigger that is another FROM", |run| run["OnBuild"] = json!(["FROM scratch"]), COPY),
        run("a trigger that triggers", |run| run["OnBuild"] = json!(["ONBUILD RUN true"]), COPY),
        run("a trigger of two lines", |run| run["OnBuild"] = json!(["ENV A=b\nRUN true"]), COPY),
        run("a volume that is the root", |run| run["Volumes"] = json!({"/": {}}), COPY),
        run("a volume that climbs", |run| run["Volumes"] = json!({"../../x": {}}), COPY),
        run("a port that is none", |run| run["ExposedPorts"] = json!({"x/y/z": {}}), COPY),
        run("a health check below zero", |run| run["Healthcheck"] = json!({"Interval": -1}), COPY),
        run("labels that are null", |run| run["Labels"] = json!({"a": null}), COPY),
    ]
}

/// What a registry answers that has the lie under every name.
fn answer(lie: &Lie, request: &Request) -> Reply {
    let digest = Digest::of(&lie.image.manifest).to_string();
    match &lie.entry {
        _ if request.path == "/elsewhere" => Reply::new(200, "something else"),
        Some(entry) if request.path.contains("/manifests/") && !request.path.ends_with(&digest) => {
            let mut described = json!({"digest": digest, "size": lie.image.manifest.len()});
            let fields = described.as_object_mut().expect("an object");
            fields.extend(entry.as_object().expect("an object").clone());
            let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [described]});
            Reply::new(200, index.to_string()).header("Content-Type", media_type::OCI_INDEX)
        }
        _ => lie.image.answer(request),
    }
}

/// What the user is told: the warnings, then what the image has, or why there is none.
fn build(machine: &Machine, place: &Path, mut lie: Lie) -> String {
    let own = Server::start(|_, _| Reply::new(200, "something else"));
    let manifest = String::from_utf8_lossy(&lie.image.manifest).replace("SERVER", own.host());
    lie.image.manifest = manifest.into_bytes();
    let blobs = [("layer", &one_file().layers[0]), ("config", &lie.image.config), ("manifest", &lie.image.manifest)];
    let names = blobs.map(|(name, blob)| (Digest::of(blob).to_string(), name));
    let (what, instructions) = (lie.what, lie.instructions);
    let server = Server::start(move |request, _| answer(&lie, request));
    let [context, home, tarball] = ["context", "home", "image.tar"].map(|name| place.join(name));
    for directory in [&context, &home] {
        fs::create_dir_all(directory).expect("created");
    }
    fs::write(context.join("Dockerfile"), format!("FROM {}/base\n{instructions}\n", server.host())).expect("written");
    let mut command = machine.as_root(&home);
    command
        .current_dir("/")
        .args(["--isolation=namespaces", "--insecure-pull", "--no-push", "--destination=test/x", "--log-format=text"])
        .arg(format!("--context={}", context.display()))
        .arg(format!("--tar-path={}", tarball.display()));
    let ended = run_within(&mut command, LIMIT);
    assert!(!ended.timed_out && !ended.stderr.contains("panicked"), "{what}: {}", ended.stderr);
    assert_nothing_left(&home);
    let mut told: Vec<String> = Vec::new();
    if ended.code == Some(0) {
        let warnings = ended.stderr.lines().filter_map(|line| line.split_once("level=warning msg="));
        told.extend(warnings.map(|(_, said)| format!("warning: {}", said.trim_matches('"'))));
        told.push(match flat::read_tarball(&tarball) {
            Ok(image) => {
                let history = image.config["history"].as_array().expect("a history");
                let layers = history.iter().filter(|entry| entry["empty_layer"] != true).count();
                assert_eq!(layers, image.diff_ids.len(), "{what}: {history:?}");
                "built".to_owned()
            }
            Err(error) => format!("built, and whoever unpacks it is told: {error}"),
        });
    } else {
        // 126 and 127 are a shell's words for a command that cannot be run
        assert!(matches!(ended.code, Some(1 | 126 | 127)), "{what}: {:?} {}", ended.code, ended.stderr);
        assert!(!tarball.exists(), "{what}");
        let error = ended.stderr.lines().find_map(|line| line.strip_prefix("error building image: "));
        told.push(format!("refused: {}", error.unwrap_or_else(|| panic!("{what}: {}", ended.stderr))));
    }
    let text = told.join("; ").replace(server.host(), "registry").replace(own.host(), "elsewhere");
    let text = text.replace("dockerfile line 1: FROM registry/base: find the image registry/base: ", "… ");
    let text = text.replace(&Platform::host().to_string(), "<ours>");
    names.iter().fold(text, |text, (digest, name)| text.replace(digest, &format!("<{name}>")))
}

/// Builds some at a time, since some of them are tried again after a while.
fn build_all(machine: &Machine, place: &Path, mut lies: Vec<Lie>) -> Vec<(&'static str, String)> {
    let mut told = Vec::new();
    while !lies.is_empty() {
        let some = lies.drain(..lies.len().min(AT_ONCE));
        told.extend(thread::scope(|scope| {
            let build = |lie: Lie| {
                let what = lie.what;
                let own = tempfile::tempdir_in(place).expect("a directory");
                scope.spawn(move || (what, build(machine, own.path(), lie)))
            };
            let builds: Vec<_> = some.map(build).collect();
            builds.into_iter().map(|build| build.join().expect("no panic")).collect::<Vec<_>>()
        }));
    }
    told
}

#[test]
fn images_end_as_the_tables_say() {
    let Some(machine) = Machine::new() else { return };
    let place = scratch();
    let chapters = [("Manifests", manifests()), ("Indexes and platforms", indexes()), ("Image configs", configs())];
    let mut page = String::new();
    for (chapter, lies) in chapters {
        page.push_str(&table(chapter, "the image has", build_all(&machine, place.path(), lies)));
    }
    assert_page_has("docs/lies.md", "images", &page);
}

/// A chapter of the page.
fn table(chapter: &str, head: &str, rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let rows = rows.into_iter().map(|(what, told)| {
        let told = told.replace('|', "\\|").replace('<', "&lt;").replace('\0', "\\0");
        format!("| {what} | {told} |\n")
    });
    format!("\n## {chapter}\n\n| {head} | what happens |\n|---|---|\n{}", rows.collect::<String>())
}

/// Who we are then, or why that cannot be said.
fn identity(keychain: &Keychain, place: &Path) -> String {
    let told = match keychain.load().and_then(|()| keychain.for_registry("r.example", "team/app")) {
        Ok(Credential::Anonymous) => "nobody".to_owned(),
        Ok(Credential::Basic { username, password }) => {
            format!("{username:?} with a password of {} bytes", password.len())
        }
        Ok(Credential::IdentityToken(token)) => format!("an identity token of {} bytes", token.len()),
        Ok(Credential::RegistryToken(token)) => format!("a registry token of {} bytes", token.len()),
        Err(error) => format!("refused: {}", kanna::http::chain(&error)),
    };
    assert!(!told.contains(SECRET), "{told}");
    // a long complaint, cut
    let told = told.replace(&"x".repeat(500), "xxx…");
    let told = told.replace("credential helper docker-credential-test for r.example", "…");
    told.replace(&format!("{}/", place.display()), "")
}

/// Makes a `config.json` of its own kind at a path.
type Made = Box<dyn Fn(&Path)>;

fn bytes(bytes: impl Into<Vec<u8>>) -> Made {
    let bytes = bytes.into();
    Box::new(move |path| fs::write(path, &bytes).expect("written"))
}

fn linked(to: &'static str) -> Made {
    Box::new(move |path| symlink(to, path).expect("linked"))
}

fn entry(entry: &str) -> Made {
    bytes(format!(r#"{{"auths": {{"r.example": {entry}}}}}"#))
}

fn auth(user_and_password: &[u8]) -> Made {
    use base64::Engine;
    entry(&json!({"auth": base64::engine::general_purpose::STANDARD.encode(user_and_password)}).to_string())
}

fn config_files() -> Vec<(&'static str, Made)> {
    let deep = |around: &str| around.replace('*', &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)));
    vec![
        ("nothing in it", bytes("")),
        ("five mebibytes", bytes(vec![b' '; 5 << 20])),
        ("no end: a link to `/dev/zero`", linked("/dev/zero")),
        ("nothing: a link to `/dev/null`", linked("/dev/null")),
        ("a link to nothing", linked("nowhere")),
        ("a link to itself", linked("config.json")),
        ("a directory", Box::new(|path| fs::create_dir(path).expect("created"))),
        ("a fifo", Box::new(|path| mkfifoat(CWD, path, Mode::RWXU).expect("created"))),
        ("a list", bytes("[{\"r.example\": {\"username\": \"me\"}}, {}, \"\"]")),
        ("text", bytes(format!("\"{SECRET}\""))),
        ("half of it", bytes(r#"{"auths": {"r.example": {"username": "me""#)),
        ("more behind it", bytes("{} {}")),
        ("bytes that are no UTF-8", bytes(*b"{\"auths\": {\"r.example\": {\"username\": \"\xff\"}}}")),
        ("the mark that Windows puts before UTF-8", bytes("\u{feff}{}")),
        ("100,000 lists within each other, where nobody looks", bytes(deep(r#"{"other": *}"#))),
        ("100,000 lists within each other, as an entry", bytes(deep(r#"{"auths": {"r.example": *}}"#))),
        ("null for everything", bytes(r#"{"auths": null, "credHelpers": null, "credsStore": null}"#)),
        ("an entry that is null", entry("null")),
        ("an entry that is text", entry(&format!("{SECRET:?}"))),
        ("an entry that is a list", entry(&format!("[{SECRET:?}]"))),
        ("entries that are a list", bytes(r#"{"auths": ["r.example"]}"#)),
        ("a password that is a number", entry(r#"{"username": "me", "password": 1234}"#)),
        ("a key twice", entry(&format!(r#"{{"username": "me", "username": "you", "password": "{SECRET}"}}"#))),
        (
            "an entry twice",
            bytes(r#"{"auths": {"r.example": {"username": "first"}, "r.example": {"username": "second"}}}"#),
        ),
        ("no base64", entry(&format!(r#"{{"auth": "{SECRET}!"}}"#))),
        ("base64 of no UTF-8", auth(b"me:\xff\xfe")),
        ("base64 without a colon", auth(SECRET.as_bytes())),
        ("base64 with a NUL in the password", auth(b"me:pass\0word")),
        ("base64 with NULs behind it, as docker pads", auth(b"me:password\0\0\0")),
        ("no name but a password", auth(b":password")),
        ("a helper that climbs", bytes(r#"{"credsStore": "../../bin/sh"}"#)),
        ("a helper with a NUL", bytes("{\"credsStore\": \"a\\u0000b\"}")),
        ("a helper of no name", bytes(r#"{"credHelpers": {"r.example": ""}}"#)),
        ("a helper that is a number", bytes(r#"{"credHelpers": {"r.example": 1}}"#)),
        ("a helper that is not there", bytes(r#"{"credsStore": "gone"}"#)),
    ]
}

/// Helpers, by what they do, as scripts.
fn helpers() -> Vec<(&'static str, String)> {
    let answer = format!("{{\"Username\":\"me\",\"Secret\":\"{SECRET}\"}}");
    let says = |text: &str| format!("cat <<'END'\n{text}\nEND");
    vec![
        ("says nothing for ever", "exec sleep 600".into()),
        ("closes its output and goes on for ever", "exec >&-; sleep 600".into()),
        ("does not read which server is meant", format!("exec <&-; {}", says(&answer))),
        ("answers, and leaves a program behind that has its output", format!("{}\nsleep 2 &", says(&answer))),
        (
            "says more and more",
            "while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done".into(),
        ),
        (
            "answers with two mebibytes",
            format!("printf '{{\"Secret\":\"'; head -c 2097152 /dev/zero | tr '\\0' {SECRET}"),
        ),
        ("answers nothing", "true".into()),
        ("answers what is no UTF-8", "printf '{\"Username\":\"\\377\",\"Secret\":\"x\"}'".into()),
        ("answers with text", says(SECRET)),
        ("answers with a list", says(&format!("[\"me\",\"{SECRET}\"]"))),
        ("answers with numbers", says("{\"Username\":1,\"Secret\":2}")),
        ("answers, and goes on", format!("{}\n{}", says(&answer), says("{}"))),
        ("answers with nulls", says("{\"Username\":null,\"Secret\":null}")),
        ("answers without a name", says(&format!("{{\"Secret\":\"{SECRET}\"}}"))),
        ("answers without a secret", says("{\"Username\":\"me\"}")),
        ("answers about another server", says(&format!("{{\"ServerURL\":\"x\",{}", &answer[1..]))),
        ("answers, and fails", format!("{}\nexit 1", says(&answer))),
        ("fails without a word", "exit 3".into()),
        ("fails with a mebibyte of words", "head -c 1000000 /dev/zero | tr '\\0' x; exit 1".into()),
        ("fails with control characters", "printf '\\033[31mred\\007\\nline'; exit 1".into()),
        ("knows nobody", "echo credentials not found in native keychain; exit 1".into()),
        ("is killed", "kill -9 $$".into()),
    ]
}

fn run_helper(place: &Path, write: impl FnOnce(&Path)) -> String {
    let directory = tempfile::tempdir_in(place).expect("a directory");
    let (config, helper) = (directory.path().join("config.json"), directory.path().join("docker-credential-test"));
    fs::write(&config, r#"{"credsStore": "test"}"#).expect("written");
    write(&helper);
    let patience = Duration::from_millis(1500);
    let keychain = Keychain::new(vec![config]).with_helper_path(directory.path()).with_helper_patience(patience);
    identity(&keychain, directory.path()).replace("within 1.5 seconds", "within 60 seconds")
}

#[test]
fn credentials_end_as_the_tables_say() {
    let place = scratch();
    let files = config_files().into_iter().map(|(what, make)| {
        let directory = tempfile::tempdir_in(place.path()).expect("a directory");
        let path = directory.path().join("config.json");
        make(&path);
        (what, identity(&Keychain::new(vec![path]), directory.path()))
    });
    let mut page = table("config.json", "the file is, or has", files);
    let executable = |path: &Path, content: &[u8]| {
        fs::write(path, content).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("made executable");
    };
    let scripts = helpers().into_iter().map(|(what, script)| {
        (what, run_helper(place.path(), |path| executable(path, format!("#!/bin/sh\n{script}\n").as_bytes())))
    });
    let others = [
        ("is no program", run_helper(place.path(), |path| executable(path, b"\x7fELF and nothing more"))),
        ("is a directory", run_helper(place.path(), |path| fs::create_dir(path).expect("created"))),
        ("may not be executed", run_helper(place.path(), |path| fs::write(path, "").expect("written"))),
    ];
    page.push_str(&table("Credential helpers", "the helper", scripts.chain(others)));
    assert_page_has("docs/lies.md", "credentials", &page);
}
