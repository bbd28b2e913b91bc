//! One step executed on the root: what did it change?

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::PoisonError;

use tempfile::{TempDir, TempPath};

use super::check_out;
use super::copy::{self, CopyRequest, Origin, SourceItem};
use super::error::StepError;
use super::kept::Tree;
use super::place::Place;
use super::plan::{CopyFrom, CopySource, CopyStep, Files, RunStep};
use super::request::Request;
use super::site::Site;
use super::stage::{Builder, World};
use crate::http::Download;
use crate::rootfs::mounts::{MountWatch, MountsSince};
use crate::rootfs::users::{self, lookup_owner, read_account_files};
use crate::rootfs::{Root, User};
use crate::run::{self, Ended, Exit, Stdin};
use crate::snapshot::{self, LostTrack, SnapshotMode, Tracker, Watching};
use crate::tree::{Changeset, ImagePath, Timestamp};

/// BuildKit's name for a file whose URL has none.
const UNNAMED: &[u8] = b"__unnamed__";

/// Where isolated commands find their script: no path of an image.
const ISOLATED_SCRIPT: &str = "/dev/pipes/here-document";

impl Builder<'_> {
    pub(super) fn copy(&mut self, step: &CopyStep) -> Result<Changeset, StepError> {
        let owner = match &step.owner {
            None => None,
            Some(owner) => {
                let (passwd, group) = read_account_files(&self.site.place.root)?;
                let (uid, gid) = lookup_owner(owner, &passwd, &group)?;
                self.world.ids.see_owner(Some(uid), Some(gid))?;
                Some((uid, gid))
            }
        };
        let image;
        let origin = match &step.from {
            CopyFrom::Context => Origin::Context { root: self.world.context.root(), ignore: self.world.ignore_file },
            CopyFrom::Named(number) => {
                let files = self.world.named.get(number).expect("those that the plan uses are open");
                Origin::Context { root: files.context.root(), ignore: files.ignore_file.as_ref() }
            }
            CopyFrom::Stage(number) => match self.world.plan.files_of(*number) {
                Files::OfStage(of) => tree(&self.sources[&of]),
                Files::OfImage(base) => {
                    image = self.unpack_image(base)?;
                    tree(&image)
                }
                Files::None => Origin::None,
            },
            CopyFrom::Image(base) => {
                image = self.unpack_image(base)?;
                tree(&image)
            }
        };
        let fetched = self.fetch(step)?;
        let mut fetched_in_order = fetched.iter();
        let sources = step
            .sources
            .iter()
            .map(|source| match source {
                CopySource::Path(path) => SourceItem::Path(path.clone().into_bytes()),
                CopySource::Url { .. } | CopySource::Repository(_) => {
                    fetched_in_order.next().expect("every remote source was fetched, in order").item()
                }
                CopySource::Inline { name, content } => {
                    SourceItem::Heredoc { name: name.clone().into_bytes(), bytes: content.as_bytes() }
                }
            })
            .collect();
        let request = CopyRequest {
            origin,
            sources,
            destination: step.destination.clone().into_bytes(),
            workdir: &step.working_directory,
            owner,
            mode: step.mode.clone(),
            unpack: step.unpack,
            link: step.link,
            parents: step.parents,
            excludes: step.exclude.clone(),
            now: self.world.now(),
        };
        let threads = self.world.threads().get();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|source| StepError::Threads { count: threads, source })?;
        let Site { place, index, .. } = &mut self.site;
        Ok(pool.install(|| copy::copy(&request, &place.root, index, &place.ignored))?)
    }

    /// Fetches the URLs and repositories among the sources, in order.
    fn fetch(&self, step: &CopyStep) -> Result<Vec<Fetched>, StepError> {
        let World { request, http, scratch, stop, .. } = self.world;
        let mut fetched = Vec::new();
        for source in &step.sources {
            match source {
                CopySource::Url { address, checksum } => {
                    tracing::info!("Downloading {address}");
                    let name = address.file_name().unwrap_or_else(|| UNNAMED.to_vec());
                    fetched.push(Fetched::File { name, download: http.download(address, *checksum, scratch)? });
                }
                CopySource::Repository(repository) => {
                    let failed = |source| StepError::Directory { path: scratch.to_path_buf(), source };
                    let directory = tempfile::tempdir_in(scratch).map_err(failed)?;
                    let files = check_out(repository, request, http, &directory.path().join("repository"), stop)?;
                    let root = Root::open(&files)?.until(stop.clone());
                    fetched.push(Fetched::Tree { root, _directory: directory });
                }
                CopySource::Path(_) | CopySource::Inline { .. } => {}
            }
        }
        Ok(fetched)
    }

    /// Runs a command; `wants_layer` says whether somebody wants to know of its changes what the snapshot mode tells.
    pub(super) fn run(&mut self, step: &RunStep, wants_layer: bool) -> Result<Changeset, StepError> {
        let request = self.world.request;
        let user = self.user(&step.user)?;
        self.world.ids.see_user(&user)?;
        self.warn_of_readable_credentials(&user);
        self.warn_of_unrecorded(&step.directory);
        let mut environment: Vec<(Vec<u8>, Vec<u8>)> = step
            .environment
            .iter()
            .map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes()))
            .collect();
        if !environment.iter().any(|(name, _)| name == b"HOME") {
            environment.push((b"HOME".to_vec(), user.home.clone()));
        }
        let mut words: Vec<Vec<u8>> = step.words.iter().map(|word| word.clone().into_bytes()).collect();
        self.site.make_mount_points()?;
        let Site { place, index, tracker, ctime, sockets, .. } = &mut self.site;
        let script =
            step.script.as_ref().map(|script| place.write_script(script.content.as_bytes(), request)).transpose();
        let script = script.map_err(StepError::Script)?;
        if let Some(script) = &script {
            let path = shlex::bytes::try_quote(script.seen_at.as_bytes());
            words.pop();
            words.push(path.expect("a path holds no NUL").into_owned());
        }
        // the machine's own directories: commands write into these, and not into what lies beside the root for the image
        let watching = tracker.arm(&place.mounted_root, index, &place.ignored);
        make_start_directory(&place.mounted_root, &step.directory)?;
        let command = run::Command {
            arguments: words,
            environment,
            directory: step.directory.clone(),
            user,
            stdin: Stdin::Empty,
            time_limit: request.run_time_limit,
        };
        let (exit, mounts) = place.execute(&command, script, &self.prefix, &self.world)?;
        match exit {
            Exit::Code(0) => {}
            Exit::Code(code) => return Err(StepError::ExitCode(code)),
            Exit::Signal(signal) => return Err(StepError::Signal(signal)),
        }
        tracing::info!("Taking snapshot of full filesystem...");
        let mode = match request.snapshot.single || !wants_layer {
            // the one layer in the end compares with the state before, and must miss nothing; nor must who copies from here
            true => SnapshotMode::Full,
            false => request.snapshot.mode,
        };
        let mut collected = watching.collect(index, &place.ignored);
        if mounts == MountsSince::Changed {
            collected = collected.walk_because(LostTrack::MountsChanged);
        }
        *ctime = ctime.and(collected.ctime);
        let take = match request.snapshot.verify {
            true => snapshot::take_verified,
            false => snapshot::take,
        };
        let taken = take(collected, mode, &place.root, index, &place.ignored, self.world.threads().get())?;
        tracing::info!("{}", taken.summary(index));
        sockets.extend(taken.sockets);
        Ok(taken.changeset)
    }

    /// Our memory is closed to commands, but a mounted file is as open as its mode says; once per build.
    fn warn_of_readable_credentials(&self, user: &User) {
        let mut credential_files = self.world.warnings.credential_files.lock().unwrap_or_else(PoisonError::into_inner);
        let readable = |file: &&PathBuf| {
            run::can_read(user, file).unwrap_or_else(|error| {
                tracing::debug!("find out who can read {}: {error}", file.display());
                false
            })
        };
        if let Some(file) = credential_files.iter().find(readable) {
            tracing::warn!(
                "RUN can read the registry credentials in {}: build only what you trust, or with credentials that may do \
                 no harm",
                file.display()
            );
            credential_files.clear();
        }
    }

    /// A command that works where the context or a volume lies may mean to make files of the image; once per directory.
    fn warn_of_unrecorded(&self, directory: &ImagePath) {
        let mut unrecorded = self.world.warnings.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
        if self.site.place.ignored.is_untouchable(directory) && unrecorded.insert(directory.clone()) {
            tracing::warn!(
                "RUN works in {directory}, where a volume or the build context is: what it writes there is in no layer"
            );
        }
    }

    pub(super) fn user(&self, spec: &str) -> Result<User, StepError> {
        let (passwd, group) = read_account_files(&self.site.place.root)?;
        Ok(users::resolve(spec, &passwd, &group)?)
    }
}

impl Place {
    /// Runs a command where commands run here. Says whether it changed the mounts: nobody else sees those that it makes in
    /// namespaces of its own, which are gone when it is.
    fn execute(
        &self,
        command: &run::Command,
        script: Option<Script>,
        prefix: &str,
        build: &World<'_>,
    ) -> Result<(Exit, MountsSince), StepError> {
        let World { supervisor, request, .. } = *build;
        if let Some(world) = &self.world {
            let scripts: Vec<_> =
                script.iter().map(|script| (script.seen_at.clone(), script.file.to_path_buf())).collect();
            let output = run::Output { listener: &*request.listeners.commands, prefix };
            let Ended { exit, moved } = run::run_isolated(command, world, &scripts, output, supervisor)?;
            self.take_back(&moved)?;
            return Ok((exit, MountsSince::Same));
        }
        let mounts = MountWatch::begin().map_err(StepError::Mounts)?;
        let exit = run::run(command, &self.mounted_root, supervisor)?;
        Ok((exit, mounts.end(&self.ignored)?))
    }

    /// A file that the command's user can execute; its name, which the command sees, is always the same.
    fn write_script(&self, content: &[u8], request: &Request) -> io::Result<Script> {
        let (directory, seen_at) = match self.world {
            None => (request.work_dir.as_path(), None),
            Some(_) => (self.scratch.as_path(), Some(ISOLATED_SCRIPT)),
        };
        let file = TempPath::try_from_path(directory.join("here-document"))?;
        fs::write(&file, content)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        let seen_at = ImagePath::clean(seen_at.map_or(file.as_os_str().as_encoded_bytes(), str::as_bytes));
        Ok(Script { file, seen_at })
    }
}

/// A remote source, while it is here.
enum Fetched {
    File { name: Vec<u8>, download: Download },
    Tree { root: Root, _directory: TempDir },
}

impl Fetched {
    fn item(&self) -> SourceItem<'_> {
        match self {
            Fetched::File { name, download } => SourceItem::Download {
                name: name.clone(),
                place: download.place(),
                mtime: download.last_modified.unwrap_or(Timestamp::EPOCH),
            },
            Fetched::Tree { root, .. } => SourceItem::Tree { root },
        }
    }
}

/// A here-document with an interpreter, while its command runs.
struct Script {
    file: TempPath,
    /// Where commands find it.
    seen_at: ImagePath,
}

/// A working directory that an earlier RUN removed is made again, as BuildKit does; the snapshot finds it.
fn make_start_directory(root: &Root, path: &ImagePath) -> Result<(), StepError> {
    let resolved = root.resolve(path, true)?;
    let mut directory = root.directory(&ImagePath::root())?;
    for name in resolved.components() {
        if directory.stat(name)?.is_none() {
            directory.create_directory(name)?.set_mode(b".", 0o755)?;
        }
        directory = directory.directory(name)?;
    }
    Ok(())
}

fn tree(tree: &Tree) -> Origin<'_> {
    Origin::Tree { root: &tree.root, index: Some(&tree.index) }
}
