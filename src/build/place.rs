//! Where an image is built: on the `/` of the container around us, or in a directory of its own.

use std::fs;
use std::path::{Path, PathBuf};

use super::IMAGE_DIR;
use super::error::Error;
use super::request::{Isolation, Request};
use crate::rootfs::pristine::{self, InPlacePermit};
use crate::rootfs::{Ignored, Root, mounts};
use crate::run::World;
use crate::sys::Stop;
use crate::tree::{ImagePath, RootIndex};

/// The root of a build, and what is in it that belongs to no image.
pub(super) struct Place {
    /// As commands see it.
    pub(super) root: Root,
    pub(super) ignored: Ignored,
    /// Where blobs are kept.
    pub(super) blobs: PathBuf,
    kind: Kind,
}

enum Kind {
    InPlace { permit: InPlacePermit, unexpected: Vec<ImagePath> },
    Isolated(World),
}

/// Leave to replace `/`, with what was found there.
pub(super) struct Admitted {
    root: Root,
    ignored: Ignored,
    permit: InPlacePermit,
    unexpected: Vec<ImagePath>,
}

impl Admitted {
    /// Refused before anything is written.
    pub(super) fn ask(request: &Request, stop: &Stop) -> Result<Option<Admitted>, Error> {
        if request.isolation == Isolation::Namespaces {
            return Ok(None);
        }
        let root = Root::open(Path::new("/"))?.until(stop.clone());
        let ignored = ignored_in_place(request)?;
        let mut unexpected = pristine::unexpected(&root, &ignored)?;
        // what an earlier build in this container left there is written anew
        unexpected.retain(|path| !request.output.is_at(path));
        let permit = pristine::admit(&request.surroundings, &unexpected, request.in_place)?;
        Ok(Some(Admitted { root, ignored, permit, unexpected }))
    }
}

impl Place {
    /// Prepares the root that was admitted, else one in `scratch`, a directory that goes when the build ends.
    pub(super) fn prepare(
        request: &Request,
        admitted: Option<Admitted>,
        scratch: &Path,
        stop: &Stop,
    ) -> Result<Place, Error> {
        if let Some(Admitted { root, ignored, permit, unexpected }) = admitted {
            let kind = Kind::InPlace { permit, unexpected };
            return Ok(Place { root, ignored, blobs: request.work_dir.join("blobs"), kind });
        }
        for directory in request.context_directories() {
            // its COPY would copy the root into itself
            if let (Ok(context), Ok(work)) = (fs::canonicalize(directory), fs::canonicalize(&request.work_dir))
                && work.starts_with(&context)
            {
                return Err(Error::WorkInContext { work, context });
            }
        }
        let [place, files] = ["root", "files"].map(|name| scratch.join(name));
        for directory in [&place, &files] {
            fs::create_dir(directory).map_err(|source| Error::WorkDirectory { path: directory.clone(), source })?;
        }
        let (world, ours) = World::prepare(&place, &files)?;
        let mut ignored = Ignored::new();
        for path in ours {
            ignored.add_untouchable(path);
        }
        overlook(&mut ignored, request);
        let root = Root::open(&place)?.until(stop.clone());
        Ok(Place { root, ignored, blobs: scratch.join("blobs"), kind: Kind::Isolated(world) })
    }

    /// The root as the image sees it: what a mount or something else that is not the image's hides is in `beside`.
    pub(super) fn as_image(&self, beside: &Path, stop: &Stop) -> Result<Root, Error> {
        Ok(Root::open(self.root.place())?.until(stop.clone()).with_masked(self.ignored.clone(), beside)?)
    }

    /// The world in which commands run; `None` if it is ours.
    pub(super) fn world(&self) -> Option<&World> {
        match &self.kind {
            Kind::InPlace { .. } => None,
            Kind::Isolated(world) => Some(world),
        }
    }

    /// Removes what nobody expected in the root, if that was asked for.
    pub(super) fn pre_cleanup(&self, request: &Request) -> Result<(), Error> {
        match &self.kind {
            Kind::InPlace { permit, unexpected } if request.in_place.pre_cleanup => {
                Ok(pristine::pre_cleanup(permit, &self.root, unexpected)?)
            }
            _ => Ok(()),
        }
    }

    /// Removes what was not there `before` and is no output. A root of its own goes anyway.
    pub(super) fn cleanup(&self, request: &Request, before: &RootIndex) -> Result<(), Error> {
        let Kind::InPlace { permit, .. } = &self.kind else { return Ok(()) };
        tracing::info!("Deleting filesystem...");
        let stays = |path: &ImagePath| before.lookup(path).is_some() || request.output.is_at(path);
        pristine::cleanup(permit, &self.root, &self.ignored, &stays)?;
        let _ = fs::remove_dir_all(&self.blobs);
        Ok(())
    }
}

/// COMPAT: "Never part of an image". Contexts are no part either, wherever they lie: a stage must leave to the next what it
/// copies from.
fn ignored_in_place(request: &Request) -> Result<Ignored, Error> {
    let mut ignored = Ignored::new();
    let mountinfo = mounts::read().map_err(Error::Surroundings)?;
    mounts::ignore_mounts(&mut ignored, &mountinfo, Path::new("/"));
    let work = request.work_dir.as_os_str().as_encoded_bytes();
    ignored.add_untouchable(ImagePath::clean(work));
    ignored.add_untouchable(ImagePath::clean(request.program.as_os_str().as_encoded_bytes()));
    // with the work directory elsewhere and the program mounted elsewhere, an image may have a /kaniko: our own has one
    if [&request.work_dir, &request.program].iter().any(|ours| ours.starts_with(IMAGE_DIR)) {
        ignored.add_untouchable(ImagePath::clean(IMAGE_DIR));
    }
    for directory in request.context_directories() {
        // one that is not there is told of by who opens it; of `/` as a context, everything is the root's
        if let Ok(place) = fs::canonicalize(directory)
            && place != Path::new("/")
        {
            ignored.add_untouchable(ImagePath::clean(place.as_os_str().as_encoded_bytes()));
        }
    }
    overlook(&mut ignored, request);
    Ok(ignored)
}

/// What no snapshot records, wherever the root is.
fn overlook(ignored: &mut Ignored, request: &Request) {
    ignored.add_overlooked(ImagePath::clean("/etc/mtab"));
    if request.ignore_var_run {
        ignored.add_overlooked(ImagePath::clean("/var/run"));
    }
    for path in &request.ignore_paths {
        ignored.add_overlooked(path.clone());
    }
}
