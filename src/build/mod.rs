//! The story: from a Dockerfile to an image.
//!
//! Parse, plan (all variables resolved, every step's effect known, what is not supported refused), then each stage when those
//! that it needs are done, several at the same time where each can have a root of its own: bring the root to the base, run
//! each step, snapshot, write the layer, keep what others copy; in the end assemble config and manifest and hand them to the
//! outputs.
//!
//! Not here: flags (`cli`), how any of it is done (the rooms below).

mod base;
mod check;
mod clock;
pub mod copy;
mod error;
mod fetching;
mod kept;
mod metadata;
mod mount_points;
mod named;
mod place;
mod plan;
mod planner;
mod request;
mod schedule;
mod scratch;
mod site;
mod stage;
mod stages;
mod steps;
mod text;
mod unpacking;
mod variables;

pub use check::check;
pub use error::{Error, StepError};
pub use metadata::{BadValue, DEFAULT_PATH, StageConfig};
pub use plan::{
    Action, Base, BaseImage, CopyFrom, CopySource, CopyStep, Files, Image, Plan, RunStep, Stage, Step, Unseen,
};
pub use planner::{PlanError, PlanFault, Wishes, plan};
pub use request::{
    ContextSource, DockerfilePlace, Isolation, Listeners, NamedContext, NamedSource, Output, Request, SnapshotSettings,
};
pub use text::MOST_DOCKERFILE_BYTES;
pub use variables::{GlobalScope, StageScope};

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::blobs::BlobStore;
use crate::context::{self, Context, git, ignore_file, ignore_file_for};
use crate::credentials::Keychain;
use crate::dockerfile::{self, Dockerfile};
use crate::http::{self, FilePlace};
use crate::image::{self, Built, Format, ImageConfig};
use crate::layer::LayerBlob;
use crate::oci::{Destination, Digest, Platform};
use crate::registry::{Client, ImagePlace, PushImage, RemoteImage};
use crate::rootfs::users;
use crate::run::{KnownIds, Supervisor};
use crate::sys::Stop;
use crate::tree::ImagePath;
use base::UnpackedImages;
use fetching::Arrivals;
use place::{Admitted, Places};
use scratch::Scratch;
use site::Site;
use stage::Warnings;

/// Where the program and all that is its own lie in our image.
const IMAGE_DIR: &str = "/kaniko";

/// What came out of a build.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Digest of the image's manifest.
    pub digest: Digest,
}

/// Builds what `request` asks for and hands it to its outputs.
///
/// A signal that asks us to end does so soon, whatever is going on, and is then the reason of the error; and so does the end of
/// the request's time. Nothing but blobs, all of them whole, is left in the work directory.
pub fn run(request: &Request) -> Result<Outcome, Error> {
    let stop = Stop::new();
    let asked = stop.clone();
    let supervisor = Supervisor::start(request.time_limit, move |_| asked.ask())?;
    build(request, &supervisor, &stop).map_err(|error| match supervisor.was_stopped() {
        Some(reason) => {
            tracing::debug!("what ended first: {error}");
            Error::Stopped(reason)
        }
        None => error,
    })
}

fn build(request: &Request, supervisor: &Supervisor, stop: &Stop) -> Result<Outcome, Error> {
    let admitted = Admitted::ask(request, stop)?;
    let scratch = Scratch::make(&request.work_dir)?;
    let places = Places::choose(request, admitted, scratch.path(), stop)?;
    let http = Arc::new(http::Client::new(request.http.clone())?.until(stop.clone()));
    let context = open_context(request, &http, scratch.path(), stop)?;
    let text = match (&request.dockerfile, text::beside_context(&request.dockerfile, stop)?) {
        (_, Some(text)) => text,
        (DockerfilePlace::Named(FilePlace::Address(address)), None) => text::at_address(address, &http)?,
        (place, None) => text::in_context(place, &context)?,
    };
    let ignore_file = match &text.path {
        Some(path) => ignore_file_for(&context, path)?,
        None => ignore_file(&context)?,
    };
    let file = dockerfile::parse(&text.bytes)?;
    let keychain =
        Keychain::new(request.docker_config_files.clone()).with_helper_path(request.credential_helper_path.clone());
    let client = Client::new(request.registry.clone(), keychain, Arc::clone(&http))?;
    let mut bases = Bases { client: &client, known: BTreeMap::new() };
    let platform = request.platform.clone().unwrap_or_else(Platform::host);
    let plan = plan_request(request, &file, &platform, &mut |place, platform| bases.find(place, platform))?;
    if let Some(format) = request.image_format {
        see_that_layers_fit(format, &plan)?;
    }
    let ids = KnownIds::ask()?;
    see_that_ids_are_known(&plan, &ids)?;
    if request.output.push && !request.skip_push_permission_check {
        check_push_permissions(&request.output, &client)?;
    }

    places.pre_cleanup(request)?;
    let site = Site::survey(places.prepare(0)?, request, places.most_at_once(request.jobs))?;
    let before = request.cleanup.then(|| site.index.clone());
    let store = BlobStore::open(&places.blobs)?.until(stop.clone());
    let named = named::open_all(request, &plan, &http, scratch.path(), stop)?;
    let world = stage::World {
        request,
        plan: &plan,
        client: &client,
        http: &http,
        store: &store,
        arrivals: &Arrivals::new(&store, &*request.listeners.downloads),
        context: &context,
        ignore_file: ignore_file.as_ref(),
        named: &named,
        supervisor,
        ids: &ids,
        stop,
        scratch: scratch.path(),
        unpacked: &UnpackedImages::default(),
        warnings: &Warnings::new(request),
        at_work: &AtomicUsize::new(0),
    };
    let target = stages::build(world, &places, site)?;
    let layers = match request.image_format {
        Some(format) => image::with_types_of(format, target.layers)?,
        None => target.layers,
    };
    let built = image::assemble(target.config, layers, target.format, request.annotations.clone(), &store)?;
    deliver(request, &platform, &built, &bases.images(), &client, &store)?;
    if let Some(before) = before {
        places.cleanup(request, &before)?;
    }
    Ok(Outcome { digest: built.digest })
}

/// Opens the build context; what is no directory yet becomes one below `scratch`.
fn open_context(request: &Request, http: &http::Client, scratch: &Path, stop: &Stop) -> Result<Context, Error> {
    let source = match &request.context {
        ContextSource::Directory(place) => context::Source::Directory(place.clone()),
        ContextSource::Tar(file) => context::Source::Tar(file.clone()),
        ContextSource::TarStdin => context::Source::TarStdin,
        ContextSource::Repository(repository) => {
            let place = scratch.join("repository");
            context::Source::Directory(check_out(repository, request, http, &place, stop)?)
        }
    };
    Ok(context::open(&source, request.context_sub_path.as_deref(), scratch, stop)?)
}

/// Makes the working tree of a repository in `place`; gives the directory of it that is meant.
fn check_out(
    repository: &git::Repository,
    request: &Request,
    http: &http::Client,
    place: &Path,
    stop: &Stop,
) -> Result<PathBuf, git::Error> {
    tracing::info!("Cloning {}", repository.address);
    // who we are for the server of the context, we are for other repositories there
    let repository = match &request.context {
        ContextSource::Repository(context) => &git::Repository {
            address: repository.address.clone().with_login_of(&context.address),
            ..repository.clone()
        },
        _ => repository,
    };
    git::clone(repository, http, request.threads.get(), place, stop)?;
    let directory = repository.directory.as_deref().unwrap_or_default();
    Ok(ImagePath::clean(directory).below(place))
}

/// Plans what `request` asks for, and tells of build arguments that nothing takes.
fn plan_request<I: Image>(
    request: &Request,
    file: &Dockerfile,
    platform: &Platform,
    find: &mut planner::Find<'_, I>,
) -> Result<Plan<I>, Error> {
    let build_args: Vec<(String, String)> =
        request.build_args.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect();
    let wishes = Wishes {
        build_args: &build_args,
        target: request.target.as_deref(),
        platform,
        contexts: &request.named_contexts,
    };
    let plan = plan(file, &wishes, find)?;
    if !plan.unused_args.is_empty() {
        tracing::warn!("[Warning] One or more build-args [{}] were not consumed", plan.unused_args.join(" "));
    }
    Ok(plan)
}

/// Layers of a base that the format asked for cannot name are found before the work, not after it.
fn see_that_layers_fit(format: Format, plan: &Plan) -> Result<(), Error> {
    for stage in plan.needed() {
        if let Base::Image(image) = &stage.base {
            for layer in &image.layers {
                format.layer_type(&layer.descriptor.media_type)?;
            }
        }
    }
    Ok(())
}

/// Users and groups that are given by number and that nobody can be here are found before the work. Of those with a name,
/// the image tells the number.
fn see_that_ids_are_known(plan: &Plan, ids: &KnownIds) -> Result<(), Error> {
    for step in plan.needed().flat_map(|stage| &stage.steps) {
        let spec = match &step.action {
            Action::Run(run) => run.user.as_str(),
            Action::Copy(copy) => copy.owner.as_deref().unwrap_or_default(),
            // a directory that is there keeps its owner
            Action::ConfigOnly | Action::Workdir { .. } => continue,
        };
        let (uid, gid) = users::numbers(spec);
        ids.see_owner(uid, gid).map_err(|error| Error::of_step(step, error.into()))?;
    }
    Ok(())
}

/// The images that a build begins with, each asked for once.
struct Bases<'a> {
    client: &'a Client,
    known: BTreeMap<(String, String), Arc<BaseImage>>,
}

impl Bases<'_> {
    fn find(
        &mut self,
        place: &ImagePlace,
        wanted: &Platform,
    ) -> Result<Arc<BaseImage>, Box<dyn std::error::Error + Send + Sync>> {
        let key = (place.to_string(), wanted.to_string());
        if let Some(known) = self.known.get(&key) {
            tracing::info!("Returning cached image manifest");
            return Ok(Arc::clone(known));
        }
        let remote = self.client.find_image(place, wanted)?;
        let config = ImageConfig::parse(&remote.config, &place.to_string(), remote.manifest.layers.len())?;
        // an index has been asked for the platform; an image that stands alone is whatever it is
        if let Some(found) = config.platform().filter(|found| wanted.rank(found).is_none()) {
            let found = found.to_string();
            tracing::warn!(
                "Base image {place} is for {}, and not for {wanted} as this build wants it",
                found.escape_debug()
            );
        }
        let layers = remote
            .manifest
            .layers
            .iter()
            .zip(&config.rootfs.diff_ids)
            .map(|(descriptor, diff_id)| LayerBlob { descriptor: descriptor.clone(), diff_id: *diff_id })
            .collect();
        let base = Arc::new(BaseImage { remote, config, layers });
        self.known.insert(key, Arc::clone(&base));
        Ok(base)
    }

    fn images(&self) -> Vec<RemoteImage> {
        self.known.values().map(|base| base.remote.clone()).collect()
    }
}

/// Asks once per repository.
fn check_push_permissions(output: &Output, client: &Client) -> Result<(), Error> {
    let mut asked = BTreeSet::new();
    for destination in &output.destinations {
        if asked.insert(destination.repository()) {
            client
                .check_push(destination.reference())
                .map_err(|source| Error::PushCheck { destination: destination.reference().clone(), source })?;
        }
    }
    Ok(())
}

/// Hands the image to every output that was asked for.
fn deliver(
    request: &Request,
    platform: &Platform,
    built: &Built,
    sources: &[RemoteImage],
    client: &Client,
    store: &BlobStore,
) -> Result<(), Error> {
    let output = &request.output;
    if output.tarball.is_some() || output.oci_layout.is_some() {
        for source in sources {
            let wanted: Vec<_> = source
                .manifest
                .layers
                .iter()
                .filter(|layer| built.manifest.layers.iter().any(|ours| ours.digest == layer.digest))
                .cloned()
                .collect();
            client.fetch_blobs(source, &wanted, store, &*request.listeners.downloads)?;
        }
    }
    if let Some(path) = &output.tarball {
        image::write_tarball(built, &output.destinations, store, path)?;
    }
    if let Some(path) = &output.oci_layout {
        let tag = output.destinations.first().map_or("latest", Destination::tag);
        image::write_layout(built, platform, tag, store, path)?;
    }
    if !output.push {
        tracing::info!("Skipping push to container registry due to --no-push flag");
        return Ok(());
    }
    let push = PushImage {
        manifest: &built.manifest_bytes,
        media_type: built.media_type(),
        manifest_struct: &built.manifest,
        sources,
    };
    for destination in &output.destinations {
        client
            .push_image(destination.reference(), &push, store, &*request.listeners.pushes)
            .map_err(|source| Error::Push { destination: destination.reference().clone(), source })?;
    }
    Ok(())
}
