//! Layers of a million entries: the memory of the build has the bound that it promises, whatever the entries are.

use std::fs;
use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use kanna::oci::{Digest, Sha256Stream};
use tar::EntryType::Regular;

use crate::support::handmade::{Image, header};
use crate::support::http::Server;
use crate::support::machine::{Machine, assert_nothing_left};
use crate::support::scratch;

const ENTRIES: u32 = 1_000_000;

/// What a build may take, and for each file of the root beside that.
const MOST_BYTES: u64 = 64 << 20;
const BYTES_PER_FILE: u64 = 170;

/// A million files are made in a minute or two, and removed in another.
const LIMIT: Duration = Duration::from_secs(1800);

/// An image of one layer with a million empty files.
fn image(name: impl Fn(u32) -> String) -> Image {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = Sha256Stream::new();
    let mut append = |bytes: &[u8]| {
        tar.update(bytes);
        gzip.write_all(bytes).expect("a Vec takes all");
    };
    for number in 0..ENTRIES {
        append(header(Regular, &name(number), "", 0).as_bytes());
    }
    append(&[0; 1024]);
    Image::with_diff_ids(vec![gzip.finish().expect("a Vec takes all")], &[Digest::from(tar.finish())])
}

/// The most memory that a process has had so far (man 5 proc, `VmHWM`); `None` once it has ended.
fn peak_bytes(process: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[test]
#[ignore = "makes two million files"]
fn a_million_entries_are_unpacked_in_bounded_memory() {
    let Some(machine) = Machine::new() else { return };
    let mut complaints = Vec::new();
    for (what, image, files) in [
        ("in 1,000 directories", image(|number| format!("d{}/f{number}", number % 1000)), ENTRIES + 1000),
        ("in one directory", image(|number| format!("d/f{number}")), ENTRIES + 1),
        ("of one name", image(|_| "d/f".to_owned()), 2),
    ] {
        let server = Server::start(move |request, _| image.answer(request));
        let place = scratch();
        let [context, home] = ["context", "home"].map(|name| place.path().join(name));
        for directory in [&context, &home] {
            fs::create_dir(directory).expect("created");
        }
        let dockerfile = format!("FROM {}/base\nCOPY Dockerfile /copied\n", server.host());
        fs::write(context.join("Dockerfile"), dockerfile).expect("written");
        let log = fs::File::create(place.path().join("log")).expect("created");
        let mut command = machine.as_root(&home);
        command
            .current_dir("/")
            .args(["--isolation=namespaces", "--insecure-pull", "--no-push", "--destination=test/x"])
            .arg(format!("--context={}", context.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let started = Instant::now();
        let mut build = command.spawn().expect("started");
        let mut peak = 0;
        let status = loop {
            peak = peak_bytes(&build).unwrap_or(peak);
            if let Some(status) = build.try_wait().expect("a child of ours") {
                break status;
            }
            if started.elapsed() > LIMIT {
                build.kill().expect("a child of ours");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let log = fs::read_to_string(place.path().join("log")).expect("written");
        assert!(status.success(), "{what}: {log}");
        assert_nothing_left(&home);
        let most = MOST_BYTES + BYTES_PER_FILE * u64::from(files);
        let told = format!(
            "a million entries {what}: {:.1} of {:.1} MiB, {:.0} s",
            peak as f64 / 1_048_576.0,
            most as f64 / 1_048_576.0,
            started.elapsed().as_secs_f64()
        );
        println!("{told}");
        if peak == 0 || peak > most {
            complaints.push(told);
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
