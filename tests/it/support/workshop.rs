//! A machine with a registry beside it: builds in isolated roots, whose bases come from the registry and whose images go there.

use std::path::Path;
use std::process::Command;

use kanna::oci::{Descriptor, Digest, Platform};

use super::command::{Ended, run_within};
use super::handmade::client;
use super::layout;
use super::machine::{LIMIT, Machine};
use super::registry::Registry;

/// Machine and registry, which has `busybox:base`.
pub struct Workshop {
    pub machine: Machine,
    pub registry: Registry,
}

impl Workshop {
    /// Nothing if we are not root.
    pub fn new() -> Option<Workshop> {
        let machine = Machine::new()?;
        let registry = Registry::start();
        layout::push_busybox(&registry, &machine.path("layout"));
        Some(Workshop { machine, registry })
    }

    /// The executor as root, which builds `context`: bases come from `bases` (host and port), the image goes to
    /// `destination`, its digest into a file of `home`, below which the work directory is, too.
    pub fn command(&self, home: &Path, context: &Path, bases: &str, destination: &str) -> Command {
        let mut command = self.machine.as_root(home);
        command
            .current_dir("/")
            .args(["--isolation=namespaces", "--reproducible", "--insecure", "--insecure-pull"])
            .arg(format!("--context={}", context.display()))
            .arg(format!("--registry-map=index.docker.io={bases}"))
            .arg(format!("--destination={destination}"))
            .arg(format!("--digest-file={}", home.join("digest").display()));
        command
    }

    /// The same, run to its end.
    pub fn build(&self, home: &Path, context: &Path, bases: &str, destination: &str, flags: &[&str]) -> Ended {
        run_within(self.command(home, context, bases, destination).args(flags), LIMIT)
    }

    /// The layers of an image in the registry, lowest first.
    #[track_caller]
    pub fn layers(&self, name: &str) -> Vec<Descriptor> {
        let name = format!("{}/{name}", self.registry.host()).parse().expect("a reference");
        client().pull_image(&name, &Platform::host()).expect("an image").manifest.layers
    }

    /// The digest of an image that is whole in the registry; `None` if there is no such tag.
    pub fn tag(&self, name: &str) -> Option<Digest> {
        let name = format!("{}/{name}", self.registry.host()).parse().expect("a reference");
        match client().pull_image(&name, &Platform::host()) {
            Ok(image) => {
                let place = super::scratch();
                let store = kanna::blobs::BlobStore::open(place.path()).expect("a store");
                let fetched = client().fetch_blobs(&image, &image.manifest.layers, &store, &kanna::registry::Silent);
                fetched.expect("a tag without its blobs");
                Some(image.manifest_digest)
            }
            Err(error) if error.status() == Some(404) => None,
            Err(error) => panic!("ask for {name}: {error}"),
        }
    }
}
