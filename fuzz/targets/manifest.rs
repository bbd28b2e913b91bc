//! Manifests and indexes, as a layout on this machine has them: an image comes whole or not at all.
#![no_main]

use std::fs;
use std::sync::{Arc, LazyLock};

use kanna::credentials::Keychain;
use kanna::http;
use kanna::oci::Digest;
use kanna::registry::{Client, ImagePlace, LayoutPlace, Settings};
use libfuzzer_sys::fuzz_target;

static CLIENT: LazyLock<Client> = LazyLock::new(|| {
    let http = Arc::new(http::Client::new(http::Settings::default()).expect("a client"));
    Client::new(Settings::default(), Keychain::new(Vec::new()), http).expect("a client")
});

fuzz_target!(|data: &[u8]| {
    let place = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let blobs = place.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("made");
    let digest = Digest::of(data);
    let empty = Digest::of(b"{}");
    for (digest, bytes) in [(digest, data), (empty, b"{}")] {
        fs::write(blobs.join(digest.hex()), bytes).expect("written");
    }
    fs::write(place.path().join("index.json"), data).expect("written");
    let name = "r.example/a:1".parse().expect("a reference");
    let platform = "linux/amd64".parse().expect("a platform");
    for asked in [None, Some(digest)] {
        let directory = place.path().to_path_buf();
        let asked = LayoutPlace { directory, name: None, digest: asked };
        let Ok(image) = CLIENT.find_image(&ImagePlace::Layout { place: asked, name: Clone::clone(&name) }, &platform)
        else {
            continue;
        };
        assert_eq!(Digest::of(&image.manifest_bytes), image.manifest_digest);
        assert_eq!(Digest::of(&image.config), image.manifest.config.digest);
        assert_eq!(image.config.len() as u64, image.manifest.config.size);
    }
});
