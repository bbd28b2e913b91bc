//! [`clone`]: what of a repository is meant, fetched and checked out.

use std::error::Error as StdError;
use std::fs;
use std::path::{Path, PathBuf};

use gix::protocol::handshake::Ref;
use gix::protocol::transport::Protocol;
use gix::protocol::transport::client::blocking_io::http::Transport;
use gix::remote::fetch::{Shallow, Status, Tags};
use gix::remote::{Connection, Direction};
use gix::{ObjectId, progress::Discard};

use super::transport::{Fault, Line};
use super::tree::{self, GIT_DIRECTORY};
use super::{Error, History, Repository, Revision, submodules};
use crate::http;
use crate::sys::Stop;

/// Submodules within submodules.
const MOST_NESTED: usize = 20;

const BRANCHES: &str = "refs/heads/";
const OUR_BRANCHES: &str = "refs/remotes/origin/";

/// Makes the working tree of `repository` in `place`, a directory that is not there yet. `threads` write files.
pub fn clone(
    repository: &Repository,
    http: &http::Client,
    threads: usize,
    place: &Path,
    stop: &Stop,
) -> Result<(), Error> {
    let made = Cloner { http, threads, stop }.clone(repository, place, 0);
    if made.is_err() {
        // the error tells more than what else may go wrong now
        let _ = fs::remove_dir_all(place);
    }
    made
}

pub(super) struct Cloner<'a> {
    http: &'a http::Client,
    threads: usize,
    stop: &'a Stop,
}

/// What is to be checked out.
struct Target {
    /// The reference that it was found by.
    reference: Option<String>,
    /// The object of that name: a commit, or a tag that leads to one.
    id: ObjectId,
    /// The object that the tag leads to, where the server says so.
    peeled: Option<ObjectId>,
}

impl Cloner<'_> {
    /// `nested` is how many repositories this one is in as a submodule.
    pub(super) fn clone(&self, repository: &Repository, place: &Path, nested: usize) -> Result<(), Error> {
        if nested > MOST_NESTED {
            return Err(Error::TooDeep { most: MOST_NESTED });
        }
        let fetched = self.fetch(repository, place)?;
        self.stop.check()?;
        let asked = Asked { repository, fault: Fault::default() };
        let commit = fetched.peeled().map_err(|source| asked.failed("look at the commit", source))?;
        let index = self.check_out(&fetched, &commit, &asked)?;
        let mut submodule_places = Vec::new();
        if repository.has_submodules {
            for submodule in submodules::of(&fetched.git, &index, repository, &asked)? {
                let inside = |source| Error::Submodule { path: submodule.path.clone(), source: Box::new(source) };
                let place = place.join(&submodule.path);
                let repository = submodule.repository.map_err(inside)?;
                self.clone(&repository, &place, nested + 1).map_err(inside)?;
                submodule_places.push(place);
            }
        }
        let unwritten = |source| Error::Write { place: place.to_path_buf(), source };
        if repository.keeps_git_directory == Some(true) {
            fetched.settle(repository).map_err(unwritten)?;
        } else {
            fs::remove_dir_all(place.join(GIT_DIRECTORY)).map_err(unwritten)?;
        }
        let time = commit.time().map_err(|source| asked.failed("look at the commit", source))?;
        tree::level(place, time.seconds, &|path: &Path| submodule_places.iter().any(|place| place == path))
            .map_err(unwritten)
    }

    /// Tries again where an answer broke off.
    fn fetch(&self, repository: &Repository, place: &Path) -> Result<Fetched, Error> {
        let mut pauses = self.http.pauses(0);
        loop {
            let asked = Asked { repository, fault: Fault::default() };
            let error = match self.try_to_fetch(&asked, place) {
                Ok(fetched) => return Ok(fetched),
                Err(error) => error,
            };
            let Some(broken) = asked.fault.take_broken() else { return Err(error) };
            let given_up = |source| Error::Http { repository: repository.address.to_string(), source };
            self.http.block_on(pauses.after(broken)).map_err(given_up)?;
            fs::remove_dir_all(place).map_err(|source| Error::Write { place: place.to_path_buf(), source })?;
        }
    }

    fn try_to_fetch(&self, asked: &Asked<'_>, place: &Path) -> Result<Fetched, Error> {
        let prepare = |source| asked.failed("prepare a place for it", source);
        let kind = gix::create::Kind::WithWorktree;
        let (made, opened) = (gix::create::Options::default(), gix::open::Options::isolated());
        let mut git =
            gix::ThreadSafeRepository::init_opts(place, kind, made, opened).map_err(prepare)?.to_thread_local();
        git.committer_or_set_generic_fallback().map_err(prepare)?;
        let target = self.resolve(&git, asked)?;
        let history = asked.repository.history;
        let by_name = target.reference.as_ref().map(|name| match name.strip_prefix(BRANCHES) {
            Some(branch) => format!("+{name}:{OUR_BRANCHES}{branch}"),
            None => format!("+{name}:{name}"),
        });
        let all = format!("+{BRANCHES}*:{OUR_BRANCHES}*");
        match (by_name, history) {
            (Some(by_name), History::Depth(_) | History::OfReference) => {
                self.receive(&git, asked, &[by_name], history)?;
            }
            (Some(by_name), History::Whole) => self.receive(&git, asked, &[all, by_name], history)?,
            (None, History::Depth(_)) => {
                let alone = self.receive(&git, asked, &[target.id.to_string()], history);
                // some servers give only what a reference leads to
                if matches!(alone, Err(Error::Git { .. })) {
                    self.receive(&git, asked, &[all], History::Whole)?;
                } else {
                    alone?;
                }
            }
            (None, History::OfReference | History::Whole) => {
                self.receive(&git, asked, &[all], History::Whole)?;
                if !git.has_object(target.id) {
                    self.receive(&git, asked, &[target.id.to_string()], history)?;
                }
            }
        }
        let no_commit = || Error::NoCommit {
            repository: asked.repository.address.to_string(),
            name: target.reference.clone().unwrap_or_else(|| target.id.to_string()),
        };
        let commit = git.find_object(target.id).and_then(|object| object.peel_to_commit()).map_err(|_| no_commit())?.id;
        if let Some(expected) = &asked.repository.expected {
            let known = [Some(commit), Some(target.id), target.peeled];
            if !known.iter().flatten().any(|id| expected.is(&id.to_string())) {
                return Err(Error::WrongCommit {
                    repository: asked.repository.address.to_string(),
                    expected: expected.clone(),
                    found: commit.to_string(),
                });
            }
        }
        Ok(Fetched { git, commit, reference: target.reference })
    }

    /// Finds what is asked for among what the server has.
    fn resolve(&self, git: &gix::Repository, asked: &Asked<'_>) -> Result<Target, Error> {
        let (asked_for, names) = match &asked.repository.revision {
            Revision::Commit(commit) => {
                let id = ObjectId::from_hex(commit.as_str().as_bytes());
                let id = id.map_err(|source| asked.failed("read the name of the commit", source))?;
                return Ok(Target { reference: None, id, peeled: None });
            }
            Revision::Default => (None, vec!["HEAD".to_owned()]),
            Revision::Reference(name) => (Some(name), candidates(name)),
        };
        let missing = || match asked_for {
            Some(name) => Error::NoReference { repository: asked.repository.address.to_string(), name: name.clone() },
            None => Error::Empty { repository: asked.repository.address.to_string() },
        };
        let remote = asked.remote(git)?.with_refspecs(names.iter().map(String::as_str), Direction::Fetch);
        let remote = remote.map_err(|_| missing())?;
        let options = gix::remote::ref_map::Options::default();
        let (map, _) = self
            .connect(&remote, asked)?
            .ref_map(Discard, options)
            .map_err(|source| asked.failed("ask for its branches and tags", source))?;
        let found = |name: &String| map.remote_refs.iter().find(|found| found.unpack().0 == name.as_str());
        let found = names.iter().find_map(found).ok_or_else(missing)?;
        let (name, id, peeled) = found.unpack();
        let id = id.ok_or_else(missing)?.to_owned();
        let reference = match found {
            Ref::Unborn { .. } => return Err(missing()),
            Ref::Symbolic { target, .. } => Some(target.to_string()),
            // a HEAD that is on no branch
            _ if name == "HEAD" => None,
            _ => Some(name.to_string()),
        };
        Ok(Target { reference, id, peeled: peeled.map(ToOwned::to_owned) })
    }

    /// Fetches what the reference specifications `specs` name.
    fn receive(
        &self,
        git: &gix::Repository,
        asked: &Asked<'_>,
        specs: &[String],
        history: History,
    ) -> Result<(), Error> {
        let failed = |source| asked.failed("fetch its commits", source);
        let (shallow, tags) = match history {
            History::Depth(depth) => (Shallow::DepthAtRemote(depth), Tags::None),
            History::OfReference => (Shallow::NoChange, Tags::Included),
            History::Whole => (Shallow::NoChange, Tags::All),
        };
        let remote = asked.remote(git)?.with_fetch_tags(tags);
        let remote = remote.with_refspecs(specs.iter().map(String::as_str), Direction::Fetch).map_err(failed)?;
        let prepared = self.connect(&remote, asked)?.prepare_fetch(Discard, gix::remote::ref_map::Options::default());
        let received = prepared.map_err(failed)?.with_shallow(shallow).receive(Discard, self.stop.flag());
        self.stop.check()?;
        match received.map_err(failed)?.status {
            // nobody else is here to clear away what no reference leads to
            Status::Change { write_pack_bundle, .. } => match write_pack_bundle.keep_path {
                Some(place) => fs::remove_file(&place).map_err(|source| Error::Write { place, source }),
                None => Ok(()),
            },
            Status::NoPackReceived { .. } => Ok(()),
        }
    }

    fn connect<'r, 'g>(
        &'r self,
        remote: &'r gix::Remote<'g>,
        asked: &Asked<'_>,
    ) -> Result<Connection<'r, 'static, 'g, Transport<Line<'r>>>, Error> {
        let repository = asked.repository;
        let url = remote.url(Direction::Fetch).expect("it was made of one").clone();
        let line = Line::new(self.http, repository.address.clone(), repository.skips_verify, asked.fault.clone());
        let transport = Transport::new_http(line, url, Protocol::V2, false);
        // no helper of this machine is asked who we are: the address says it, or nobody does
        let connection = remote.to_connection_with_transport(transport).with_credentials(|_| Ok(None));
        Ok(connection.with_transport_options(Box::new(())))
    }

    /// Writes the files of a commit. Its index says what there is.
    fn check_out(
        &self,
        fetched: &Fetched,
        commit: &gix::Commit<'_>,
        asked: &Asked<'_>,
    ) -> Result<gix::index::File, Error> {
        let failed = |source| asked.failed("check out its files", source);
        let git = &fetched.git;
        let mut index = git.index_from_tree(&commit.tree_id().map_err(failed)?).map_err(failed)?;
        let by_id = gix::worktree::stack::state::attributes::Source::IdMapping;
        let mut options = git.checkout_options(by_id).map_err(failed)?;
        options.destination_is_initially_empty = true;
        options.thread_limit = Some(self.threads);
        let objects = git.objects.clone().into_arc().map_err(|source| asked.failed("open its objects", source))?;
        let place = &fetched.place();
        let written =
            gix::worktree::state::checkout(&mut index, place, objects, &Discard, &Discard, self.stop.flag(), options)
                .map_err(failed)?;
        self.stop.check()?;
        if let Some(error) = written.errors.into_iter().next() {
            return Err(failed(error.error));
        }
        if let Some(collision) = written.collisions.into_iter().next() {
            let place = place.join(collision.path.to_string());
            return Err(Error::Write { place, source: collision.error_kind.into() });
        }
        index.write(gix::index::write::Options::default()).map_err(failed)?;
        Ok(index)
    }
}

/// What is being asked for, and what went wrong with it.
pub(super) struct Asked<'a> {
    repository: &'a Repository,
    fault: Fault,
}

impl Asked<'_> {
    /// Errors of the connection say more than what git makes of them.
    pub(super) fn failed(&self, what: &'static str, source: impl StdError + Send + Sync + 'static) -> Error {
        let repository = self.repository.address.to_string();
        match self.fault.take_final() {
            Some(source) => Error::Http { repository, source },
            None => Error::Git { repository, what, source: Box::new(source) },
        }
    }

    fn remote<'g>(&self, git: &'g gix::Repository) -> Result<gix::Remote<'g>, Error> {
        let address = self.repository.address.to_string();
        git.remote_at_without_url_rewrite(address.as_str()).map_err(|source| self.failed("read its address", source))
    }
}

/// A repository with what was asked for.
struct Fetched {
    git: gix::Repository,
    commit: ObjectId,
    reference: Option<String>,
}

impl Fetched {
    fn place(&self) -> PathBuf {
        self.git.workdir().expect("it was made with one").to_path_buf()
    }

    fn peeled(&self) -> gix::Result<gix::Commit<'_>> {
        self.git.find_object(self.commit)?.peel_to_commit()
    }

    /// Leaves `.git` as a clone would: on its branch, or on the commit, with the way back to where it is from.
    fn settle(&self, repository: &Repository) -> std::io::Result<()> {
        let directory = self.git.git_dir();
        let branch = self.reference.as_deref().filter(|name| name.starts_with(BRANCHES));
        if let Some(branch) = branch {
            let file = directory.join(branch);
            file.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(file, format!("{}\n", self.commit))?;
        }
        let head = branch.map_or_else(|| self.commit.to_string(), |branch| format!("ref: {branch}"));
        fs::write(directory.join("HEAD"), format!("{head}\n"))?;
        let config = directory.join("config");
        let mut text = fs::read(&config)?;
        let url = &repository.address;
        let remote = format!("[remote \"origin\"]\n\turl = \"{url}\"\n\tfetch = +{BRANCHES}*:{OUR_BRANCHES}*\n");
        text.extend_from_slice(remote.as_bytes());
        fs::write(config, text)
    }
}

/// The references that a name can mean, the first that exists being meant: as it stands, a branch, a tag.
fn candidates(name: &str) -> Vec<String> {
    if name == "HEAD" || name.starts_with("refs/") {
        return vec![name.to_owned()];
    }
    ["refs/", BRANCHES, "refs/tags/"].iter().map(|prefix| format!("{prefix}{name}")).collect()
}
