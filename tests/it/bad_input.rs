//! Bad input, through the executor in a container: each is refused with exit code 1 and a message that names what is
//! wrong with which entry, blob, file or address, and nothing is pushed or written.
//!
//! What the rooms make of many more such inputs stands beside them (`registry_faults`, `layer`, `dockerfile`).

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use kanna::oci::{Digest, Platform};
use regex::Regex;
use tar::EntryType::{Link, Regular, Symlink};

use crate::support::command::Ended;
use crate::support::handmade::{Image, client, header, is_for, tar_of};
use crate::support::http::{Ending, Reply, Request, Server};
use crate::support::podman::DOCKER_CAPABILITIES;
use crate::support::skip;
use crate::support::world::World;

/// Everything that a build can leave, asked for at once.
struct Outputs {
    name: &'static str,
    place: PathBuf,
    volume: String,
    flags: Vec<String>,
}

impl Outputs {
    fn new(world: &World, name: &'static str) -> Outputs {
        let place = world.scratch.path().join(format!("{name}-outputs"));
        fs::create_dir(&place).expect("created");
        let volume = format!("{}:/outputs", place.display());
        let flags = [
            "--tar-path=/outputs/image.tar".to_owned(),
            "--oci-layout-path=/outputs/layout".to_owned(),
            "--digest-file=/outputs/digest".to_owned(),
            "--image-name-with-digest-file=/outputs/name".to_owned(),
            format!("--destination={}/result/{name}:tag", world.registry.host()),
        ];
        Outputs { name, place, volume, flags: flags.to_vec() }
    }

    /// The flags that ask for the outputs, and others.
    fn flags_and<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        self.flags.iter().map(String::as_str).chain(more.iter().copied()).collect()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.place).expect("read").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn is_pushed(&self, world: &World) -> bool {
        let name = format!("{}/result/{}:tag", world.registry.host(), self.name).parse().expect("a reference");
        match client().pull_image(&name, &Platform::host()) {
            Ok(_) => true,
            Err(error) if error.status() == Some(404) => false,
            Err(error) => panic!("ask for {name}: {error}"),
        }
    }

    #[track_caller]
    fn assert_all(&self, world: &World) {
        assert_eq!(self.files(), ["digest", "image.tar", "layout", "name"], "{}", self.name);
        assert!(self.is_pushed(world), "{}", self.name);
    }
}

/// Builds `dockerfile`, which needs nothing but itself, with all outputs.
fn build(world: &World, outputs: &Outputs, dockerfile: &str) -> Ended {
    let context = world.context(outputs.name, dockerfile);
    world.build(&context, &[DOCKER_CAPABILITIES, "-v", &outputs.volume], &outputs.flags_and(&[]))
}

/// What is wrong with rows of a table; told all at once when the table is done.
#[derive(Default)]
struct Complaints(Vec<String>);

impl Complaints {
    /// The build must have failed with nothing to show for it but the message `says`. In that, `<name>` stands for a value of
    /// `names`, `<other>` for any other digest, `<find>` for what comes before all errors of a base's manifest and config.
    fn unless_refused(&mut self, world: &World, outputs: &Outputs, ended: &Ended, names: &[(&str, &str)], says: &str) {
        let mut complain = |text: String| self.0.push(format!("{}: {text}: {}", outputs.name, ended.stderr));
        if ended.timed_out || ended.code != Some(1) {
            complain(format!("ends with {:?}", ended.code));
        }
        let told = message(ended, names);
        if told != says {
            complain(format!("says {told:?} instead of {says:?}"));
        }
        if !outputs.files().is_empty() {
            complain(format!("leaves {:?}", outputs.files()));
        }
        if outputs.is_pushed(world) {
            complain("is pushed".into());
        }
    }

    /// A hint must follow the message.
    fn unless_hinted(&mut self, outputs: &Outputs, ended: &Ended, hint: &str) {
        if !ended.stderr.contains(&format!("\nhint: {hint}")) {
            self.0.push(format!("{} gives no hint {hint:?}: {}", outputs.name, ended.stderr));
        }
    }

    #[track_caller]
    fn assert_none(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

/// The error that the user is told in the end.
fn message(ended: &Ended, names: &[(&str, &str)]) -> String {
    let told = ended.stderr.lines().find_map(|line| line.strip_prefix("error building image: "));
    let mut told = told.unwrap_or_default().to_owned();
    for (name, value) in names {
        told = told.replace(value, &format!("<{name}>"));
    }
    told = told.replace("dockerfile line 1: FROM <base>: find the image <base>:", "<find>");
    for (pattern, name) in [("sha256:[0-9a-f]{64}", "<other>"), (r"\.kanna-partial-\w+", "<partial>")] {
        told = Regex::new(pattern).expect("a pattern").replace_all(&told, name).into_owned();
    }
    told
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).expect("a Vec takes all");
    gzip.finish().expect("a Vec takes all")
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    next.take(length).collect()
}

/// A gzip of a tar of which only the beginning is there.
fn cut_gzip() -> Vec<u8> {
    let mut blob = gzip(&tar_of(&[(Regular, "file", "", &noise(100_000))]));
    blob.truncate(50_000);
    blob
}

/// A header that promises ten gibibytes, and half a kibibyte of them.
fn ten_gibibytes() -> Vec<u8> {
    let mut tar = header(Regular, "large", "", 10 << 30).as_bytes().to_vec();
    tar.resize(1024, b'x');
    tar
}

fn wrong_checksum() -> Vec<u8> {
    let mut tar = tar_of(&[(Regular, "first", "", b"x"), (Regular, "second", "", b"x")]);
    tar[1024] = b'b';
    tar
}

/// Images that are what their digests say, and that no root may take in. (A symlink that stays inside the root is
/// followed, as BuildKit does it: see `layer`.)
fn hostile_images() -> Vec<(&'static str, Image, &'static str)> {
    let one_layer = |rows: &[_]| Image::of(tar_of(rows));
    let empty = tar_of(&[]);
    let diff_id = Digest::of(&empty);
    vec![
        (
            "entry-above-the-root",
            one_layer(&[(Regular, "../x", "", b"x")]),
            "unpack the base <base>: layer <layer>: entry of a hostile or broken tar: path \"../x\" leads out of the root",
        ),
        (
            "hard-link-above-the-root",
            one_layer(&[(Link, "hard", "../../x", b"")]),
            "unpack the base <base>: layer <layer>: entry \"hard\" is a hard link to \"../../x\", which is outside of the \
             root",
        ),
        (
            "hard-link-to-a-mount",
            one_layer(&[(Link, "hard", "/workspace/Dockerfile", b"")]),
            "unpack the base <base>: layer <layer>: entry \"hard\" is a hard link to \"/workspace/Dockerfile\", which the \
             image does not have",
        ),
        (
            "absolute-symlink-to-a-mount",
            one_layer(&[(Symlink, "link", "/outputs", b""), (Regular, "link/x", "", b"x")]),
            "unpack the base <base>: layer <layer>: entry \"link/x\" leads through a symlink to /outputs/x, which is not \
             the image's",
        ),
        (
            "symlink-to-the-executor",
            one_layer(&[(Symlink, "link", "../../kaniko", b""), (Regular, "link/executor", "", b"x")]),
            "unpack the base <base>: layer <layer>: entry \"link/executor\" leads through a symlink to /kaniko/executor, \
             which is not the image's",
        ),
        (
            "ten-gibibytes-in-one-kibibyte",
            Image::of(ten_gibibytes()),
            "unpack the base <base>: read /large from layer <layer>: the tar ends 10737417728 bytes early",
        ),
        (
            "truncated-before-the-push",
            Image::with_diff_ids(vec![cut_gzip()], &[diff_id]),
            "unpack the base <base>: read /file from layer <layer>: decompress Gzip: incomplete deflate stream",
        ),
        (
            "no-tar",
            Image::of(vec![b'x'; 5000]),
            "unpack the base <base>: read layer <layer>: this is neither a tar nor the gzip, zstd, bzip2 or xz of one: it \
             begins with no tar header",
        ),
        (
            "wrong-checksum",
            Image::of(wrong_checksum()),
            "unpack the base <base>: read layer <layer>: a tar header has a wrong checksum",
        ),
        (
            "another-diff-id",
            Image::with_diff_ids(vec![empty.clone()], &[Digest::of(b"another")]),
            "unpack the base <base>: layer <layer> holds a tar with diff ID <layer>, but the image config says <other>",
        ),
        (
            "too-many-diff-ids",
            Image::with_diff_ids(vec![empty.clone()], &[diff_id, diff_id]),
            "<find> the config of <base> lists 2 diff IDs for 1 layers",
        ),
        (
            "too-few-diff-ids",
            Image::with_diff_ids(vec![empty.clone()], &[]),
            "<find> the config of <base> lists 0 diff IDs for 1 layers",
        ),
        (
            "config-is-no-json",
            Image { config: b"<html>".to_vec(), ..Image::of(empty) }.sealed(),
            "<find> parse the image config of <base>: expected value at line 1 column 1",
        ),
    ]
}

#[test]
fn hostile_images_are_refused() {
    let Some(world) = World::new() else { return };
    let mut complaints = Complaints::default();
    for (name, image, says) in hostile_images() {
        let base = format!("base/{name}:1");
        image.push(&world.registry, &base);
        let outputs = Outputs::new(&world, name);
        let base = format!("{}/{base}", world.registry.host());
        let ended = build(&world, &outputs, &format!("FROM {base}\nCOPY Dockerfile /copied\n"));
        let layer = Digest::of(&image.layers[0]).to_string();
        complaints.unless_refused(&world, &outputs, &ended, &[("base", &base), ("layer", &layer)], says);
    }
    complaints.assert_none();
}

/// What is wrong with a registry: answers to some of its requests, by the request and the number of equal ones before.
type Fault = fn(&Image, &Request, usize) -> Option<Reply>;

fn manifest_is(request: &Request, reply: impl FnOnce() -> Reply) -> Option<Reply> {
    request.path.contains("/manifests/").then(reply)
}

fn config_is(image: &Image, request: &Request, body: impl Into<Vec<u8>>) -> Option<Reply> {
    is_for(request, &image.config).then(|| Reply::new(200, body))
}

fn layer_is(image: &Image, request: &Request, reply: impl FnOnce(&[u8]) -> Reply) -> Option<Reply> {
    is_for(request, &image.layers[0]).then(|| reply(&image.layers[0]))
}

fn refusal(status: u16) -> Reply {
    Reply::new(status, r#"{"errors":[{"code":"DENIED","message":"not for you"}]}"#)
}

/// Registries that do not give what they promise.
const FAULTS: [(&str, Fault, &str); 13] = [
    (
        "stops-in-the-layer",
        |image, request, _| layer_is(image, request, |layer| Reply::new(200, layer).ending(Ending::CutAfter(700))),
        "get blob <server>/base@<layer>: error decoding response body: error reading a body from connection: end of file \
         before message length reached",
    ),
    (
        "layer-is-shorter",
        |image, request, _| layer_is(image, request, |layer| Reply::new(200, &layer[..700])),
        "get blob <server>/base@<layer>: 700 bytes instead of 2048",
    ),
    (
        "layer-is-longer",
        |image, request, _| layer_is(image, request, |layer| Reply::new(200, [layer, b"more"].concat())),
        "get blob <server>/base@<layer>: blob <layer> has 2052 bytes instead of 2048",
    ),
    (
        "layer-is-another",
        |image, request, _| layer_is(image, request, |layer| Reply::new(200, vec![0; layer.len()])),
        "get blob <server>/base@<layer>: blob <layer> has digest <other>: it was damaged or replaced on the way",
    ),
    (
        "layer-is-missing",
        |image, request, _| layer_is(image, request, |_| refusal(404)),
        "get blob <server>/base@<layer>: the server answered 404 Not Found: DENIED not for you",
    ),
    (
        "config-is-another",
        |image, request, _| config_is(image, request, vec![b' '; image.config.len()]),
        "<find> get config <server>/base@<config>: blob <config> has digest <other>: it was damaged or replaced on the way",
    ),
    (
        "config-is-shorter",
        |image, request, _| config_is(image, request, "{}"),
        "<find> get config <server>/base@<config>: blob <config> has 2 bytes instead of 151",
    ),
    (
        "manifest-is-a-page",
        |_, request, _| manifest_is(request, || Reply::new(200, "<html>hello</html>")),
        "<find> get manifest <base>: not a valid image manifest: expected value at line 1 column 1",
    ),
    (
        "manifest-is-of-another-kind",
        |_, request, _| manifest_is(request, || Reply::new(200, r#"{"schemaVersion":2,"mediaType":"text/plain"}"#)),
        "<find> get manifest <base>: text/plain is neither an image manifest nor an index",
    ),
    (
        "unauthorized",
        |_, request, _| manifest_is(request, || refusal(401).header("WWW-Authenticate", "Basic realm=\"test\"")),
        "<find> get manifest <base>: the server answered 401 Unauthorized: DENIED not for you",
    ),
    (
        "forbidden",
        |_, request, _| manifest_is(request, || refusal(403)),
        "<find> get manifest <base>: the server answered 403 Forbidden: DENIED not for you",
    ),
    (
        "not-found",
        |_, request, _| manifest_is(request, || refusal(404)),
        "<find> get manifest <base>: the server answered 404 Not Found: DENIED not for you",
    ),
    (
        "down",
        |_, _, _| Some(Reply::new(503, "down for today")),
        "<find> reach registry <server>: the server answered 503 Service Unavailable: down for today",
    ),
];

#[test]
fn registries_that_do_not_give_what_they_promise() {
    let Some(world) = World::new() else { return };
    let mut complaints = Complaints::default();
    for (name, fault, says) in FAULTS {
        let image = Image::of(tar_of(&[(Regular, "file", "", b"content")]));
        let digests = [&image.layers[0], &image.config].map(|blob| Digest::of(blob).to_string());
        let server = Server::start(move |request, before| {
            fault(&image, request, before).unwrap_or_else(|| image.answer(request))
        });
        let outputs = Outputs::new(&world, name);
        let base = format!("{}/base:1", server.host());
        let ended = build(&world, &outputs, &format!("FROM {base}\nCOPY Dockerfile /copied\n"));
        let names = [("base", &*base), ("server", server.host()), ("layer", &digests[0]), ("config", &digests[1])];
        complaints.unless_refused(&world, &outputs, &ended, &names, says);
    }
    complaints.assert_none();
}

/// A registry that first refuses everything with 429 gets what it asks for: time.
#[test]
fn a_registry_that_is_busy_for_a_while_is_waited_for() {
    let Some(world) = World::new() else { return };
    let image = Image::of(tar_of(&[(Regular, "file", "", b"content")]));
    let server = Server::start(move |request, before| match before {
        0 => Reply::new(429, "later"),
        _ => image.answer(request),
    });
    let outputs = Outputs::new(&world, "busy");
    build(&world, &outputs, &format!("FROM {}/base:1\nCOPY Dockerfile /copied\n", server.host())).success("busy");
    outputs.assert_all(&world);
}

/// A tar that begins so and goes on with sixty-four gibibytes of zeros, in some two megabytes.
fn exploding(beginning: &[u8]) -> Image {
    let pack = |bytes: &[u8]| zstd::encode_all(bytes, 1).expect("a Vec takes all");
    let mut blob = pack(beginning);
    blob.extend(pack(&vec![0; 16 * MIB]).repeat(64 << 6));
    // nobody gets to the end of it
    Image::with_diff_ids(vec![blob], &[Digest::of(b"")])
}

/// One file of zeros.
fn bomb() -> Image {
    exploding(header(Regular, "bomb", "", 64 << 30).as_bytes())
}

/// A sound tar with more behind its end, which the diff ID covers.
fn endless_padding() -> Image {
    exploding(&tar_of(&[(Regular, "file", "", b"content")]))
}

/// An image of layers with a file each, of so many bytes; none is zero, for zeros take no room.
fn large_files(layers: &[(&str, usize)]) -> Image {
    let tars: Vec<Vec<u8>> =
        layers.iter().map(|(name, size)| tar_of(&[(Regular, name, "", &vec![b'x'; *size])])).collect();
    let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
    Image::with_diff_ids(tars.iter().map(|tar| gzip(tar)).collect(), &diff_ids)
}

const MIB: usize = 1 << 20;

/// The work directory, where blobs are, has room for one mebibyte.
const SMALL_SPOOL: [&str; 2] = ["--tmpfs=/spool:size=1m", DOCKER_CAPABILITIES];

#[test]
fn a_full_work_directory_ends_the_build() {
    let Some(world) = World::new() else { return };
    let image = Image::of(tar_of(&[(Regular, "noise", "", &noise(3 * MIB))]));
    image.push(&world.registry, "base/noise:1");
    let base = format!("{}/base/noise:1", world.registry.host());
    let full = "/spool/blobs/blobs/sha256/<partial>: No space left on device (os error 28)";
    let mut complaints = Complaints::default();
    for (name, dockerfile, says) in [
        ("no-room-for-a-base", format!("FROM {base}\nCOPY Dockerfile /copied\n"), format!("write blob {full}")),
        (
            "no-room-for-a-layer",
            "FROM scratch\nCOPY noise /\n".into(),
            format!("dockerfile line 2: COPY noise /: write {full}"),
        ),
    ] {
        let outputs = Outputs::new(&world, name);
        let context = world.context(name, &dockerfile);
        fs::write(context.join("noise"), noise(3 * MIB)).expect("written");
        let options = [&SMALL_SPOOL[..], &["-v", &outputs.volume]].concat();
        let ended = world.build(&context, &options, &outputs.flags_and(&["--kaniko-dir=/spool"]));
        complaints.unless_refused(&world, &outputs, &ended, &[], &says);
        complaints.unless_hinted(&outputs, &ended, "the disk is full");
    }
    complaints.assert_none();
}

/// What a root of 24 MiB says to more. A bomb must not take memory either: the container has little beside its root.
#[test]
fn a_full_root_ends_the_build() {
    let Some(world) = World::with_busybox() else { return };
    let room = world.podman.with_room(24 * MIB as u64, world.scratch.path());
    let memory = match memory_can_be_limited() {
        true => &["--memory=200m", "--memory-swap=200m"][..],
        false => {
            skip("memory", "there is no cgroup that limits memory");
            &[]
        }
    };
    let too_large = "unpack the base <base>: layer <layer>: entry \"bomb\" is too large: the disk has room for 25165824 bytes \
                     when it is empty";
    let mut complaints = Complaints::default();
    for (name, image, before, says) in [
        ("bomb", bomb(), "", too_large),
        ("bomb-after-another-stage", bomb(), "FROM busybox:base AS first\nRUN touch /first\n", too_large),
        (
            "zeros-behind-the-end",
            endless_padding(),
            "",
            "unpack the base <base>: read layer <layer>: it goes on after 25165824 bytes, for which the disk has room when it \
             is empty",
        ),
        (
            "no-room-for-the-second-layer",
            large_files(&[("first", 16 * MIB), ("second", 16 * MIB)]),
            "",
            "unpack the base <base>: write /second: No space left on device (os error 28)",
        ),
    ] {
        let base = format!("base/{name}:1");
        image.push(&world.registry, &base);
        let outputs = Outputs::new(&world, name);
        let base = format!("{}/{base}", world.registry.host());
        let context = world.context(name, &format!("{before}FROM {base}\nCOPY Dockerfile /copied\n"));
        let options = [&[DOCKER_CAPABILITIES, "-v", &outputs.volume], memory].concat();
        let ended = world.build_on(&room, &context, &options, &outputs.flags_and(&[]));
        let layer = Digest::of(&image.layers[0]).to_string();
        complaints.unless_refused(&world, &outputs, &ended, &[("base", &base), ("layer", &layer)], says);
        if says != too_large {
            complaints.unless_hinted(&outputs, &ended, "the disk is full");
        }
    }

    let outputs = Outputs::new(&world, "no-room-for-a-copy");
    let context = world.context(outputs.name, "FROM scratch\nCOPY noise /\n");
    fs::write(context.join("noise"), noise(32 * MIB)).expect("written");
    let options = [&[DOCKER_CAPABILITIES, "-v", &outputs.volume], memory].concat();
    let ended = world.build_on(&room, &context, &options, &outputs.flags_and(&[]));
    let says = "dockerfile line 2: COPY noise /: copy to /noise: No space left on device (os error 28)";
    complaints.unless_refused(&world, &outputs, &ended, &[], says);
    complaints.assert_none();
}

fn memory_can_be_limited() -> bool {
    let unified = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    unified.split_whitespace().any(|name| name == "memory") || Path::new("/sys/fs/cgroup/memory").exists()
}

/// Dockerfiles with a mistake, in a context with two archives that have one, and what is said.
const MISTAKES: [(&str, &str, &str); 9] = [
    (
        "unknown-instruction",
        "FROM busybox:base\nRUNN true\n",
        "dockerfile line 2: unknown instruction \"RUNN\" (did you mean RUN?)",
    ),
    (
        "missing-source",
        "FROM busybox:base\nCOPY nowhere.txt /\n",
        "dockerfile line 2: COPY nowhere.txt /: source \"nowhere.txt\" not found (or left out by .dockerignore)",
    ),
    (
        "undefined-stage",
        "FROM busybox:base\nCOPY --from=7 /etc/motd /\n",
        "dockerfile line 2: COPY --from=7 /etc/motd /: --from=7: a stage can only copy from stages before it",
    ),
    (
        "unknown-image",
        "FROM nowhere:1\nRUN true\n",
        "dockerfile line 1: FROM nowhere:1: find the image nowhere:1: get manifest <registry>/library/nowhere:1: the server \
         answered 404 Not Found: MANIFEST_UNKNOWN manifest unknown",
    ),
    (
        "unknown-user",
        "FROM busybox:base\nUSER mallory\nRUN true\n",
        "dockerfile line 3: RUN true: find user \"mallory\": /etc/passwd of the image has no such entry",
    ),
    (
        "empty",
        "\n",
        "dockerfile line 1: the Dockerfile has only comments and blank lines: begin with FROM and the image to build on",
    ),
    (
        "no-from",
        "RUN true\n",
        "dockerfile line 1: only ARG may stand before the first FROM: begin with FROM and the image to build on",
    ),
    (
        "cut-archive",
        "FROM busybox:base\nADD cut.tar.gz /\n",
        "dockerfile line 2: ADD cut.tar.gz /: unpack the archive /cut.tar.gz: incomplete deflate stream",
    ),
    (
        "hostile-archive",
        "FROM busybox:base\nADD hostile.tar /\n",
        "dockerfile line 2: ADD hostile.tar /: unpack the archive /hostile.tar: path \"../x\" leads out of the root",
    ),
];

#[test]
fn mistakes_are_told_and_leave_nothing_behind() {
    let Some(world) = World::with_busybox() else { return };
    let mut complaints = Complaints::default();
    for (name, dockerfile, says) in MISTAKES {
        let outputs = Outputs::new(&world, name);
        let context = world.context(name, dockerfile);
        fs::write(context.join("cut.tar.gz"), cut_gzip()).expect("written");
        fs::write(context.join("hostile.tar"), tar_of(&[(Regular, "../x", "", b"x")])).expect("written");
        let options = [DOCKER_CAPABILITIES, "-v", &outputs.volume];
        let ended = world.build(&context, &options, &outputs.flags_and(&["--skip-default-registry-fallback"]));
        complaints.unless_refused(&world, &outputs, &ended, &[("registry", world.registry.host())], says);
    }
    complaints.assert_none();
}
