//! [`Client`]: the blocking face of the room.

use std::sync::Arc;

use super::endpoint::Place;
use super::error::Error;
use super::progress::Progress;
use super::pull::{ImagePlace, RemoteImage};
use super::push::PushImage;
use super::settings::Settings;
use super::transport::Transport;
use super::{download, layout, pull, push};
use crate::blobs::BlobStore;
use crate::credentials::Keychain;
use crate::http;
use crate::oci::{Descriptor, Digest, Platform, Reference};
use crate::sys::Stop;

/// Speaks to registries. Make it before the root is replaced: credentials are read now.
pub struct Client {
    http: Arc<http::Client>,
    transport: Transport,
}

impl Client {
    /// Reads credentials, and checks all addresses in the settings; nothing is sent yet.
    pub fn new(settings: Settings, keychain: Keychain, http: Arc<http::Client>) -> Result<Client, Error> {
        Place::check(&settings)?;
        let transport = Transport::new(settings, keychain, Arc::clone(&http))?;
        Ok(Client { http, transport })
    }

    /// Manifest and config of an image; of an index, the image for the platform. Mirrors are asked first.
    pub fn pull_image(&self, image: &Reference, platform: &Platform) -> Result<RemoteImage, Error> {
        self.http.block_on(pull::image(&self.transport, image, platform))
    }

    /// The same of an image wherever it is.
    pub fn find_image(&self, image: &ImagePlace, platform: &Platform) -> Result<RemoteImage, Error> {
        match image {
            ImagePlace::Registry(reference) => self.pull_image(reference, platform),
            ImagePlace::Layout { place, name } => {
                tracing::info!("Retrieving image {name} from the layout {place}");
                layout::image(place, name, platform)
            }
        }
    }

    /// Downloads what the store lacks, several blobs at once, the first ones first.
    pub fn fetch_blobs(
        &self,
        image: &RemoteImage,
        wanted: &[Descriptor],
        store: &BlobStore,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        self.fetch_blobs_until(&Stop::new(), image, wanted, store, progress)
    }

    /// As [`Client::fetch_blobs`], given up once `enough` is asked.
    pub fn fetch_blobs_until(
        &self,
        enough: &Stop,
        image: &RemoteImage,
        wanted: &[Descriptor],
        store: &BlobStore,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let blobs = download::blobs(&self.transport, image, wanted, store, progress);
        self.http.block_on(async {
            enough.interrupting(blobs).await.unwrap_or_else(|stopped| Err(http::Error::Stopped(stopped).into()))
        })
    }

    /// May we push there? An upload is begun and given up.
    pub fn check_push(&self, destination: &Reference) -> Result<(), Error> {
        self.http.block_on(push::check(&self.transport, destination))
    }

    /// Uploads what the destination lacks, and then the manifest under the destination's tag; the manifest's digest.
    pub fn push_image(
        &self,
        destination: &Reference,
        image: &PushImage<'_>,
        store: &BlobStore,
        progress: &dyn Progress,
    ) -> Result<Digest, Error> {
        self.http.block_on(push::image(&self.transport, destination, image, store, progress))
    }
}
