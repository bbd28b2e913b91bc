//! What a build needs has a ceiling (benches/README.md): 64 MB of memory for the builder and 170 bytes for each file of the
//! root, however large files, layers and bases are, where 256 MB are all there is, and on disk one copy of the root and
//! each blob once.
//!
//! Memory is that of the builder's processes, as the kernel remembers it. The group's own peak tells nothing: whatever is
//! read and written stays in the page cache until the limit is reached, and is given up then. What would not be is
//! memory that somebody made, and then the kernel kills.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::limited::Limited;
use crate::support::machine::assert_nothing_left;
use crate::support::podman::DOCKER_CAPABILITIES;
use crate::support::workshop::Workshop;
use crate::support::world::World;

const MB: u64 = 1_000_000;

/// The base's own, more or less.
const FILES_OF_BUSYBOX: u64 = 500;

/// The largest build writes some ten GB of layers.
const LIMIT: Duration = Duration::from_secs(3600);

/// Builds `context` in an isolated root and pushes it as `library/NAME:1`, within the ceiling; gives what commands printed.
#[track_caller]
fn build(workshop: &Workshop, name: &str, dockerfile: &str, files: u64) -> Option<String> {
    let context = workshop.machine.path("context");
    fs::create_dir_all(&context).expect("created");
    fs::write(context.join("Dockerfile"), dockerfile).expect("written");
    let limited = Limited::new(name)?;
    let home = workshop.machine.own(name);
    let host = workshop.registry.host();
    let command = workshop.command(&home, &context, host, &format!("{host}/library/{name}:1"));
    let (ended, peaks) = limited.run(name, &mut limited.entered_by(&command), LIMIT, || {});
    assert_nothing_left(&home);
    peaks.assert_below_ceiling(name, FILES_OF_BUSYBOX + files);
    Some(ended.stdout)
}

/// A file of which a part does not compress.
#[derive(Clone, Copy)]
struct Large {
    random_bytes: u64,
    text_bytes: u64,
}

impl Large {
    fn write(self, place: &Path) {
        let mut file = File::create(place).expect("created");
        let random = File::open("/dev/urandom").expect("opened");
        io::copy(&mut random.take(self.random_bytes), &mut file).expect("written");
        let text = b"kanna\n".repeat(100_000);
        let mut left = self.text_bytes;
        while left > 0 {
            let part = left.min(text.len() as u64);
            file.write_all(&text[..part as usize]).expect("written");
            left -= part;
        }
    }

    fn bytes(self) -> u64 {
        self.random_bytes + self.text_bytes
    }

    /// A command that makes one.
    fn made_by(self, path: &str) -> String {
        let Large { random_bytes, text_bytes } = self;
        format!("head -c {random_bytes} /dev/urandom >{path} && yes kanna | head -c {text_bytes} >>{path}")
    }

    /// One that a command makes, that is copied from a stage and from the context.
    fn dockerfile(self) -> String {
        format!(
            "FROM busybox:base AS made\nRUN {}\nFROM busybox:base\nCOPY large /copied\n\
             COPY --from=made /stage /from-stage\nRUN {}\n",
            self.made_by("/stage"),
            self.made_by("/made"),
        )
    }
}

/// Larger than all that there is, and in a layer still larger than what the builder needs less than the ceiling.
const SMALL: Large = Large { random_bytes: 40 * MB, text_bytes: 260 * MB };

const SIZES: &str = "RUN stat -c '%s' /copied /from-stage /made\n";

fn large_files(large: Large) {
    let Some(workshop) = Workshop::new() else { return };
    let context = workshop.machine.context("context", "");
    large.write(&context.join("large"));
    if build(&workshop, "large", &large.dockerfile(), 0).is_none() {
        return;
    }
    let sizes = build(&workshop, "on-large", &format!("FROM large:1\n{SIZES}"), 0);
    assert_eq!(sizes, Some(format!("{}\n", large.bytes()).repeat(3)));
}

#[test]
fn large_files_take_no_more_memory() {
    large_files(SMALL);
}

#[test]
#[ignore = "writes 4 GiB some times: `make test-long`"]
fn files_of_4_gib_take_no_more_memory() {
    large_files(Large { random_bytes: 1 << 30, text_bytes: 3 << 30 });
}

/// The same in the root of a container.
#[test]
fn large_files_take_no_more_memory_in_place() {
    let (Some(world), Some(limited)) = (World::with_busybox(), Limited::new("in-place")) else { return };
    let context = world.context("large", &SMALL.dockerfile());
    SMALL.write(&context.join("large"));
    let destination = format!("--destination={}/large:1", world.registry.host());
    let options = [DOCKER_CAPABILITIES, &limited.podman_option()];
    let mut command = world.build_command(world.podman, &context, &options, &[&destination]);
    let (_, peaks) = limited.run("in place", &mut command, LIMIT, || {});
    peaks.assert_below_ceiling("in place", FILES_OF_BUSYBOX);
}

/// As many layers as an image may have and more, of commands and of copies, and then in a base.
#[test]
fn many_layers_take_no_more_memory() {
    let Some(workshop) = Workshop::new() else { return };
    let steps: String = (0..100)
        .map(|number| format!("RUN echo {number} >/ran-{number}\nCOPY Dockerfile /copied-{number}\n"))
        .collect();
    if build(&workshop, "layers", &format!("FROM busybox:base\n{steps}"), 200).is_none() {
        return;
    }
    let counted = build(&workshop, "on-layers", "FROM layers:1\nRUN ls -d /ran-* /copied-* | wc -l\n", 200);
    assert_eq!(counted.as_deref(), Some("200\n"));
}

/// Made by one command, then in a base of which most are touched.
fn many_files(folders: u64) {
    let Some(workshop) = Workshop::new() else { return };
    let files = folders * 1000;
    let each = format!("mkdir -p /many && cd /many && for folder in $(seq {folders}); do mkdir $folder");
    let made = format!("{each} && cd $folder && for file in $(seq 1000); do echo $file >$file; done && cd ..; done");
    if build(&workshop, "many", &format!("FROM busybox:base\nRUN {made}\n"), files + folders).is_none() {
        return;
    }
    let changed = "RUN chmod -R 700 /many && find /many -type f | wc -l\n";
    let counted = build(&workshop, "on-many", &format!("FROM many:1\n{changed}"), files + folders);
    assert_eq!(counted, Some(format!("{files}\n")));
}

#[test]
fn many_files_take_170_bytes_each() {
    many_files(20);
}

#[test]
#[ignore = "makes half a million files some times: `make test-long`"]
fn half_a_million_files_take_170_bytes_each() {
    many_files(500);
}

/// Bytes of a directory on disk, each file counted once.
fn on_disk(place: &Path, seen: &mut HashSet<(u64, u64)>) -> u64 {
    let metadata = fs::symlink_metadata(place).expect("there");
    if !seen.insert((metadata.dev(), metadata.ino())) {
        return 0;
    }
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return own;
    }
    let entries = fs::read_dir(place).expect("listed").map(|entry| entry.expect("read").path());
    own + entries.map(|entry| on_disk(&entry, seen)).sum::<u64>()
}

/// What a work directory holds.
#[derive(Debug)]
struct Usage {
    all: u64,
    root: u64,
    blobs: u64,
}

/// Looked at while the last command waits for it, after all else has been built.
#[test]
fn the_disk_holds_the_root_and_each_blob_once() {
    const LARGE: u64 = 40 * MB;
    let (Some(workshop), Some(limited)) = (Workshop::new(), Limited::new("disk")) else { return };
    let dockerfile = format!(
        "FROM busybox:base AS made\nRUN head -c {LARGE} /dev/urandom >/made\n\
         FROM made\nCOPY large /copied\nRUN head -c {LARGE} /dev/urandom >/again\n\
         RUN touch /ready && while [ ! -e /go ]; do sleep 0.01; done; rm /go /ready\n"
    );
    let context = workshop.machine.context("context", &dockerfile);
    Large { random_bytes: LARGE, text_bytes: 0 }.write(&context.join("large"));
    let (home, host) = (workshop.machine.own("disk"), workshop.registry.host());
    let mut command = workshop.command(&home, &context, host, &format!("{host}/disk:1"));
    command.arg(format!("--oci-layout-path={}", home.join("layout").display()));
    let mut found = None;
    limited.run("disk", &mut limited.entered_by(&command), LIMIT, || {
        let Some(root) = waiting_root(&home).filter(|_| found.is_none()) else { return };
        let work = home.join(".cache/kanna");
        let usage = |place: &Path| on_disk(place, &mut HashSet::new());
        let scratch = root.ancestors().nth(3).expect("the root is deep in the work directory");
        found = Some(Usage { all: usage(&work), root: usage(&root), blobs: usage(&scratch.join("blobs")) });
        File::create(root.join("go")).expect("created");
    });
    assert_nothing_left(&home);
    let usage = found.expect("the command waited");
    let layers: u64 = workshop.layers("disk:1").iter().map(|layer| layer.size).sum();
    // busybox, directories, a config
    let little = 4 * MB;
    assert!((3 * LARGE..3 * LARGE + little).contains(&usage.root), "{usage:?}");
    assert!((3 * LARGE..layers + little).contains(&usage.blobs), "{usage:?}, layers: {layers}");
    assert!(usage.all <= usage.root + usage.blobs + little, "{usage:?}");
    let layout = on_disk(&home.join("layout"), &mut HashSet::new());
    assert!((3 * LARGE..layers + little).contains(&layout), "{layout}");
}

/// The root in which a command waits, if one does.
fn waiting_root(home: &Path) -> Option<PathBuf> {
    let listed = |place: PathBuf| fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
    let roots = listed(home.join(".cache/kanna")).flat_map(|scratch| listed(scratch.join("roots")));
    roots.map(|place| place.join("root")).find(|root| root.join("ready").exists())
}
