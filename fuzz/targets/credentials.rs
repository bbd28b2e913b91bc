//! `config.json`: any text is a file, or an error that tells nothing of what is in it.
#![no_main]

use std::fs;

use kanna::credentials::Keychain;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let place = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let file = place.path().join("config.json");
    fs::write(&file, data).expect("written");
    // no program is found there
    let keychain = Keychain::new(vec![file]).with_helper_path(place.path());
    for (registry, repository) in [("docker.io", "library/a"), ("r.example:5000", "team/app"), ("r.example", "a")] {
        let found = keychain.for_registry(registry, repository);
        if let Err(error) = found {
            let text = error.to_string();
            assert!(text.len() < 2000, "{text}");
        }
    }
    let names: Vec<_> = fs::read_dir(place.path()).expect("read").collect();
    assert_eq!(names.len(), 1);
});
