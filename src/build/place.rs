//! Where an image is built: on the `/` of the container around us, or in directories of their own.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::IMAGE_DIR;
use super::error::Error;
use super::request::{Isolation, Request};
use crate::rootfs::pristine::{self, InPlacePermit};
use crate::rootfs::{Ignored, Root, mounts};
use crate::run::{self, HostName};
use crate::sys::Stop;
use crate::tree::{ImagePath, RootIndex};

/// A root in which one stage at a time is built, and what is in it that belongs to no image.
pub(super) struct Place {
    /// As the image sees it: what a mount or something else that is not the image's hides is beside it.
    pub(super) root: Root,
    /// As commands see it.
    pub(super) mounted_root: Root,
    pub(super) ignored: Ignored,
    /// The world in which commands run; `None` if it is ours.
    pub(super) world: Option<run::World>,
    /// A directory for what is there for one command.
    pub(super) scratch: PathBuf,
}

/// Where the roots of a build are.
pub(super) struct Places {
    /// Where blobs are kept.
    pub(super) blobs: PathBuf,
    kind: Kind,
    scratch: PathBuf,
    stop: Stop,
}

enum Kind {
    InPlace { root: Root, ignored: Ignored, permit: InPlacePermit, unexpected: Vec<ImagePath> },
    Isolated { overlooked: Ignored, program: run::Program, host_name: HostName },
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
        if request.host_name().is_some() {
            return Err(Error::HostNameInPlace);
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

impl Places {
    /// The root that was admitted, else directories in `scratch`, which goes when the build ends.
    pub(super) fn choose(
        request: &Request,
        admitted: Option<Admitted>,
        scratch: &Path,
        stop: &Stop,
    ) -> Result<Places, Error> {
        let (blobs, kind) = match admitted {
            Some(Admitted { root, ignored, permit, unexpected }) => {
                (request.work_dir.join("blobs"), Kind::InPlace { root, ignored, permit, unexpected })
            }
            None => {
                see_that_no_context_holds_the_work(request)?;
                let mut overlooked = Ignored::new();
                overlook(&mut overlooked, request);
                let host_name = request.host_name().map(str::parse).transpose()?.unwrap_or_default();
                (scratch.join("blobs"), Kind::Isolated { overlooked, program: run::Program::default(), host_name })
            }
        };
        Ok(Places { blobs, kind, scratch: scratch.to_path_buf(), stop: stop.clone() })
    }

    /// How many stages can be built at the same time, of as many as may be.
    pub(super) fn most_at_once(&self, jobs: NonZeroUsize) -> usize {
        match &self.kind {
            Kind::InPlace { .. } => 1,
            Kind::Isolated { .. } => jobs.get(),
        }
    }

    /// Prepares the root of this number, of which in place there is only the first.
    pub(super) fn prepare(&self, number: usize) -> Result<Place, Error> {
        let scratch = self.scratch.join("roots").join(number.to_string());
        let beside = directory(&scratch, "masked")?;
        let (at, ignored, world) = match &self.kind {
            Kind::InPlace { root, ignored, .. } => (root.place().to_path_buf(), ignored.clone(), None),
            Kind::Isolated { overlooked, program, host_name } => {
                let (root, files) = (directory(&scratch, "root")?, directory(&scratch, "files")?);
                let world = run::World::prepare(&root, &files, program, host_name)?;
                let mut ignored = overlooked.clone();
                for (path, _) in world.mount_points() {
                    ignored.add_untouchable(path);
                }
                (root, ignored, Some(world))
            }
        };
        let mounted_root = Root::open(&at)?.until(self.stop.clone());
        let root = Root::open(&at)?.until(self.stop.clone()).with_masked(ignored.clone(), &beside)?;
        Ok(Place { root, mounted_root, ignored, world, scratch })
    }

    /// Removes what nobody expected in the root, if that was asked for.
    pub(super) fn pre_cleanup(&self, request: &Request) -> Result<(), Error> {
        match &self.kind {
            Kind::InPlace { root, permit, unexpected, .. } if request.in_place.pre_cleanup => {
                Ok(pristine::pre_cleanup(permit, root, unexpected)?)
            }
            _ => Ok(()),
        }
    }

    /// Removes what was not there `before` and is no output. Roots of their own go anyway.
    pub(super) fn cleanup(&self, request: &Request, before: &RootIndex) -> Result<(), Error> {
        let Kind::InPlace { root, ignored, permit, .. } = &self.kind else { return Ok(()) };
        tracing::info!("Deleting filesystem...");
        let stays = |path: &ImagePath| before.lookup(path).is_some() || request.output.is_at(path);
        pristine::cleanup(permit, root, ignored, &stays)?;
        let _ = fs::remove_dir_all(&self.blobs);
        Ok(())
    }
}

/// Makes a directory, with those above it.
fn directory(above: &Path, name: &str) -> Result<PathBuf, Error> {
    let path = above.join(name);
    fs::create_dir_all(&path).map_err(|source| Error::WorkDirectory { path: path.clone(), source })?;
    Ok(path)
}

/// A COPY of the whole context would copy the root into itself.
fn see_that_no_context_holds_the_work(request: &Request) -> Result<(), Error> {
    for directory in request.context_directories() {
        if let (Ok(context), Ok(work)) = (fs::canonicalize(directory), fs::canonicalize(&request.work_dir))
            && work.starts_with(&context)
        {
            return Err(Error::WorkInContext { work, context });
        }
    }
    Ok(())
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
