//! Layers of a million entries: the memory of the build has the ceiling that it has for other files, whatever
//! the entries are, where 256 MB are all there is.

use std::fs;
use std::io::Write;
use std::time::Duration;

use kanna::oci::{Digest, Sha256Stream};
use tar::EntryType::Regular;

use crate::support::handmade::{Image, header};
use crate::support::http::Server;
use crate::support::limited::Limited;
use crate::support::machine::{Machine, assert_nothing_left};
use crate::support::scratch;

const ENTRIES: u64 = 1_000_000;

/// A million files are made in a minute or two, and removed in another.
const LIMIT: Duration = Duration::from_secs(1800);

/// An image of one layer with a million empty files.
fn image(name: impl Fn(u64) -> String) -> Image {
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

#[test]
#[ignore = "makes two million files"]
fn a_million_entries_are_unpacked_in_bounded_memory() {
    let Some(machine) = Machine::new() else { return };
    for (what, image, files) in [
        ("in 1,000 directories", image(|number| format!("d{}/f{number}", number % 1000)), ENTRIES + 1000),
        ("in one directory", image(|number| format!("d/f{number}")), ENTRIES + 1),
        ("of one name", image(|_| "d/f".to_owned()), 2),
    ] {
        let Some(limited) = Limited::new("million") else { return };
        let server = Server::start(move |request, _| image.answer(request));
        let place = scratch();
        let [context, home] = ["context", "home"].map(|name| place.path().join(name));
        for directory in [&context, &home] {
            fs::create_dir(directory).expect("created");
        }
        let dockerfile = format!("FROM {}/base\nCOPY Dockerfile /copied\n", server.host());
        fs::write(context.join("Dockerfile"), dockerfile).expect("written");
        let mut command = machine.as_root(&home);
        command
            .args(["--isolation=namespaces", "--insecure-pull", "--no-push", "--destination=test/x"])
            .arg(format!("--context={}", context.display()));
        let what = format!("a million entries {what}");
        let (_, peaks) = limited.run(&what, &mut limited.entered_by(&command), LIMIT, || {});
        assert_nothing_left(&home);
        peaks.assert_below_ceiling(&what, files);
    }
}
