//! [`Repository`]: an address, and what it says of the files that are meant.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::http::{Address, BadAddress};

/// A repository, and which of its files are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Where it is, without query and fragment.
    pub address: Address,
    /// What is checked out.
    pub revision: Revision,
    /// The commit that this must be.
    pub expected: Option<CommitId>,
    /// The directory in it that is meant, as written.
    pub directory: Option<String>,
    /// Stays `.git` with the files?
    pub keeps_git_directory: Option<bool>,
    /// Are the submodules fetched too?
    pub has_submodules: bool,
    /// How much of what was before comes along.
    pub history: History,
    /// Is a server believed whose certificate nobody vouches for?
    pub skips_verify: bool,
}

/// What is checked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revision {
    /// What the repository itself begins with.
    Default,
    /// A branch, a tag, or the whole name of a reference.
    Reference(String),
    /// A commit, wherever it is.
    Commit(CommitId),
}

/// How much of what was before comes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// The last commits of what is checked out.
    Depth(NonZeroU32),
    /// All of what is checked out.
    OfReference,
    /// All branches and tags.
    Whole,
}

impl History {
    /// The one commit that is checked out.
    pub const NONE: History = History::Depth(NonZeroU32::MIN);
}

/// The name of a commit, or its beginning: at least seven hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitId(String);

/// Digits of a whole SHA-1.
const ALL_DIGITS: usize = 40;
/// The fewest that git itself shows.
const FEWEST_DIGITS: usize = 7;

impl CommitId {
    /// The digits, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Is no digit missing?
    pub fn is_whole(&self) -> bool {
        self.0.len() == ALL_DIGITS
    }

    /// Is this the commit whose whole name is `whole`?
    pub fn is(&self, whole: &str) -> bool {
        whole.starts_with(&self.0)
    }
}

impl FromStr for CommitId {
    type Err = BadRepository;

    fn from_str(text: &str) -> Result<CommitId, BadRepository> {
        let is_good = (FEWEST_DIGITS..=ALL_DIGITS).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_hexdigit());
        if is_good { Ok(CommitId(text.to_ascii_lowercase())) } else { Err(BadRepository::Commit(text.to_owned())) }
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text names no repository that can be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRepository {
    /// It would be reached in a way that is not there.
    #[error("git repositories are fetched by https:// only, not by {0}: give the repository's https:// address")]
    Protocol(&'static str),
    /// No address.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// A part of the query that has no meaning.
    #[error(
        "the query of a repository has no {0:?}; it has ref, branch, tag, subdir, checksum, commit, keep-git-dir, submodules"
    )]
    Key(String),
    /// Two parts that say the same thing.
    #[error("the address of a repository says more than once what to check out")]
    Twice,
    /// A value that is neither yes nor no.
    #[error("{key}={value}: that is neither true nor false")]
    Switch {
        /// What it is for.
        key: String,
        /// As written.
        value: String,
    },
    /// A number was wanted.
    #[error("depth={0}: that is no number of commits")]
    Depth(String),
    /// No commit.
    #[error("{0:?} is no commit: give its name, 40 hexadecimal digits")]
    Commit(String),
}

/// Is this a git repository (Dockerfile reference: ADD)? Of `http` addresses, those whose path ends in `.git`.
pub fn is_git(source: &str) -> bool {
    match source.split_once("://") {
        Some(("http" | "https", rest)) => {
            let path = rest.split(['?', '#']).next().and_then(|rest| rest.split_once('/'));
            path.is_some_and(|(_host, path)| path.ends_with(".git"))
        }
        Some((scheme, _)) => matches!(scheme, "git" | "ssh"),
        None => is_ssh_place(source),
    }
}

/// `user@host:path`, ssh's short form.
fn is_ssh_place(source: &str) -> bool {
    let is_name = |text: &str, others: &[char]| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(&c))
    };
    source.split_once('@').is_some_and(|(user, place)| {
        let host = place.split_once(':').map_or("", |(host, _)| host);
        is_name(user, &['-', '_']) && is_name(host, &['-', '.'])
    })
}

impl Repository {
    /// All that an address without query and fragment says.
    fn at(address: Address) -> Repository {
        Repository {
            address,
            revision: Revision::Default,
            expected: None,
            directory: None,
            keeps_git_directory: None,
            has_submodules: true,
            history: History::NONE,
            skips_verify: false,
        }
    }

    /// What stands behind `#`: `ref`, `:directory` or both.
    fn fragment(&mut self, text: &str) -> Result<(), BadRepository> {
        let (reference, directory) = text.split_once(':').unwrap_or((text, ""));
        if !reference.is_empty() {
            self.check_out(reference)?;
        }
        if !directory.is_empty() {
            self.directory = Some(directory.to_owned());
        }
        Ok(())
    }

    fn check_out(&mut self, reference: &str) -> Result<(), BadRepository> {
        if self.revision != Revision::Default {
            return Err(BadRepository::Twice);
        }
        self.revision = match reference.parse::<CommitId>() {
            Ok(commit) if commit.is_whole() => Revision::Commit(commit),
            _ => Revision::Reference(reference.to_owned()),
        };
        Ok(())
    }

    fn query(&mut self, key: &str, value: &str) -> Result<(), BadRepository> {
        match key {
            "ref" => self.check_out(value),
            "branch" => self.check_out(&format!("refs/heads/{value}")),
            "tag" => self.check_out(&format!("refs/tags/{value}")),
            "subdir" => {
                self.directory = Some(value.to_owned());
                Ok(())
            }
            "checksum" | "commit" => self.expect(value.parse()?),
            "keep-git-dir" => {
                self.keeps_git_directory = Some(switch(key, value)?);
                Ok(())
            }
            "submodules" => {
                self.has_submodules = switch(key, value)?;
                Ok(())
            }
            _ => Err(BadRepository::Key(key.to_owned())),
        }
    }

    /// The commit that it must be at.
    pub fn expect(&mut self, commit: CommitId) -> Result<(), BadRepository> {
        match self.expected.replace(commit) {
            None => Ok(()),
            Some(_) => Err(BadRepository::Twice),
        }
    }

    /// A whole commit that nothing else leads to is what is checked out.
    fn settled(mut self) -> Repository {
        if let (Revision::Default, Some(commit)) = (&self.revision, &self.expected)
            && commit.is_whole()
        {
            self.revision = Revision::Commit(commit.clone());
        }
        self
    }
}

/// Yes or no; naming it alone means yes.
fn switch(key: &str, value: &str) -> Result<bool, BadRepository> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(BadRepository::Switch { key: key.to_owned(), value: value.to_owned() }),
    }
}

/// BuildKit's form: `https://host/path.git`, then `#ref:directory` or a query.
impl FromStr for Repository {
    type Err = BadRepository;

    fn from_str(text: &str) -> Result<Repository, BadRepository> {
        match text.split_once("://") {
            Some(("git", _)) => return Err(BadRepository::Protocol("git://")),
            Some(("ssh", _)) => return Err(BadRepository::Protocol("ssh")),
            None => return Err(BadRepository::Protocol("ssh")),
            Some(_) => {}
        }
        let whole: Address = text.parse()?;
        let mut repository = Repository::at(whole.with_path(whole.path()));
        for (key, value) in whole.query() {
            repository.query(&key, &value)?;
        }
        if let Some(fragment) = whole.fragment() {
            repository.fragment(&percent_decode_str(fragment).decode_utf8_lossy())?;
        }
        Ok(repository.settled())
    }
}

/// What kaniko knows of a git context besides its address: `--git` and two environment variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kaniko {
    /// `branch=`: a branch or a tag.
    pub branch: Option<String>,
    /// `single-branch=`.
    pub single_branch: bool,
    /// `recurse-submodules=`.
    pub recurse_submodules: bool,
    /// `insecure-skip-tls=`.
    pub insecure_skip_tls: bool,
    /// `depth=`.
    pub depth: Option<NonZeroU32>,
}

impl Kaniko {
    /// Reads the parts of `--git`.
    pub fn parse<'a>(parts: impl IntoIterator<Item = &'a str>) -> Result<Kaniko, BadRepository> {
        let mut options = Kaniko {
            branch: None,
            single_branch: false,
            recurse_submodules: false,
            insecure_skip_tls: false,
            depth: None,
        };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match key {
                "branch" => options.branch = Some(value.to_owned()).filter(|name| !name.is_empty()),
                "single-branch" => options.single_branch = switch(key, value)?,
                "recurse-submodules" => options.recurse_submodules = switch(key, value)?,
                "insecure-skip-tls" => options.insecure_skip_tls = switch(key, value)?,
                // kaniko's living fork has 0 for all
                "depth" => {
                    let depth: u32 = value.parse().map_err(|_| BadRepository::Depth(value.to_owned()))?;
                    options.depth = NonZeroU32::new(depth);
                }
                _ => return Err(BadRepository::Key(key.to_owned())),
            }
        }
        Ok(options)
    }

    /// kaniko's form: `git://[token@]host/path[#reference[#commit]]`, fetched by `method` (`https` or `http`); `rest` is what
    /// follows `git://`.
    pub fn repository(&self, method: &str, rest: &str) -> Result<Repository, BadRepository> {
        let mut parts = rest.split('#');
        let address: Address = format!("{method}://{}", parts.next().unwrap_or_default()).parse()?;
        let mut repository = Repository::at(address);
        if let Some(fragment) = parts.next() {
            repository.fragment(fragment)?;
        }
        if let Some(commit) = parts.next().filter(|commit| !commit.is_empty()) {
            repository.pin(commit.parse()?);
        }
        if parts.next().is_some() {
            return Err(BadRepository::Twice);
        }
        self.apply(&mut repository)?;
        // kaniko's contexts are clones: people ask git for their version in a RUN
        repository.keeps_git_directory = Some(true);
        repository.has_submodules = self.recurse_submodules;
        repository.history = match self.depth {
            Some(depth) => History::Depth(depth),
            None if self.single_branch => History::OfReference,
            None => History::Whole,
        };
        Ok(repository)
    }

    /// What holds for every context, whatever its form.
    pub fn apply(&self, repository: &mut Repository) -> Result<(), BadRepository> {
        repository.skips_verify = self.insecure_skip_tls;
        match &self.branch {
            // a reference in the address says more
            Some(branch) if repository.revision == Revision::Default => repository.check_out(branch),
            _ => Ok(()),
        }
    }
}

impl Repository {
    /// The commit is what is checked out, and the reference only leads there.
    fn pin(&mut self, commit: CommitId) {
        if commit.is_whole() {
            self.revision = Revision::Commit(commit);
        } else {
            self.expected = Some(commit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "05d2d74403d23d99daf70f4eb4fc0ff16cae7f1a";

    fn shown(repository: &Repository) -> String {
        let revision = match &repository.revision {
            Revision::Default => String::new(),
            Revision::Reference(name) => format!(" {name}"),
            Revision::Commit(commit) => format!(" commit {}", &commit.as_str()[..7]),
        };
        let expected = repository.expected.as_ref().map(|commit| format!(" ={}", &commit.as_str()[..7]));
        let directory = repository.directory.as_ref().map(|directory| format!(" /{directory}"));
        let kept = repository.keeps_git_directory.map(|kept| format!(" .git:{kept}"));
        let no_submodules = (!repository.has_submodules).then(|| " alone".to_owned());
        let more: String = [expected, directory, kept, no_submodules].into_iter().flatten().collect();
        format!("{}{revision}{more}", repository.address)
    }

    #[test]
    fn buildkit_s_forms() {
        for (text, meant) in [
            ("https://h/a.git", "https://h/a.git"),
            ("https://h/a.git#", "https://h/a.git"),
            ("https://h/a.git#v1", "https://h/a.git v1"),
            ("https://h/a.git#release/1.2:docs/en", "https://h/a.git release/1.2 /docs/en"),
            ("https://h/a.git#:docs", "https://h/a.git /docs"),
            ("https://h/a.git#v1:", "https://h/a.git v1"),
            ("https://h/a.git#with%20space", "https://h/a.git with space"),
            ("https://h/a.git#05d2d74403d23d99daf70f4eb4fc0ff16cae7f1a", "https://h/a.git commit 05d2d74"),
            ("https://h/a.git#05d2d74", "https://h/a.git 05d2d74"),
            ("http://h:8080/a.git?branch=b&subdir=d", "http://h:8080/a.git refs/heads/b /d"),
            ("https://h/a.git?tag=v1", "https://h/a.git refs/tags/v1"),
            ("https://h/a.git?ref=pull/42/head", "https://h/a.git pull/42/head"),
            ("https://h/a.git?tag=v1&checksum=05d2d74", "https://h/a.git refs/tags/v1 =05d2d74"),
            (
                "https://h/a.git?commit=05d2d74403d23d99daf70f4eb4fc0ff16cae7f1a",
                "https://h/a.git commit 05d2d74 =05d2d74",
            ),
            ("https://h/a.git?keep-git-dir=1&submodules=false", "https://h/a.git .git:true alone"),
            ("https://h/a.git?keep-git-dir", "https://h/a.git .git:true"),
            ("https://me:secret@h/a.git#v1", "https://h/a.git v1"),
        ] {
            let repository: Repository = text.parse().expect(text);
            assert_eq!(shown(&repository), meant, "{text}");
            assert_eq!((repository.history, repository.skips_verify), (History::NONE, false), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_fetched_is_said() {
        for (text, said) in [
            ("git@github.com:moby/buildkit.git#v0.1", "not by ssh"),
            ("ssh://git@h/a", "not by ssh"),
            ("git://h/a", "not by git://"),
            ("https://:1/a.git", "not an address"),
            ("https://h/a.git?branches=b", "has no \"branches\""),
            ("https://h/a.git?branch=b#v1", "more than once"),
            ("https://h/a.git?branch=b&tag=v1", "more than once"),
            ("https://h/a.git?submodules=perhaps", "neither true nor false"),
            ("https://h/a.git?checksum=v1", "\"v1\" is no commit"),
            ("https://h/a.git?checksum=05d2d7", "\"05d2d7\" is no commit"),
        ] {
            let error = text.parse::<Repository>().expect_err(text).to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn kaniko_s_form() {
        let kaniko = |git: &str| Kaniko::parse(git.split(',').filter(|part| !part.is_empty())).expect(git);
        for (git, text, meant, history) in [
            ("", "h/a.git", "https://h/a.git .git:true alone", History::Whole),
            ("", "token@h/a", "https://h/a .git:true alone", History::Whole),
            ("", "h/a#refs/heads/b", "https://h/a refs/heads/b .git:true alone", History::Whole),
            ("", "h/a#refs/pull/1/head", "https://h/a refs/pull/1/head .git:true alone", History::Whole),
            ("branch=b", "h/a#main", "https://h/a main .git:true alone", History::Whole),
            ("branch=b,single-branch=true", "h/a", "https://h/a b .git:true alone", History::OfReference),
            ("recurse-submodules=true", "h/a#main:sub", "https://h/a main /sub .git:true", History::Whole),
            ("depth=1", "h/a##05d2d74", "https://h/a =05d2d74 .git:true alone", History::NONE),
            ("depth=0", "h/a#", "https://h/a .git:true alone", History::Whole),
        ] {
            let repository = kaniko(git).repository("https", text).expect(text);
            assert_eq!((shown(&repository).as_str(), repository.history), (meant, history), "{git} {text}");
        }
        let pinned =
            kaniko("insecure-skip-tls").repository("http", &format!("h/a#refs/heads/b#{COMMIT}")).expect("good");
        assert_eq!(shown(&pinned), "http://h/a commit 05d2d74 .git:true alone");
        assert!(pinned.skips_verify);
        for (git, said) in [
            ("branches=b", "has no \"branches\""),
            ("depth=some", "depth=some"),
            ("single-branch=2", "neither true nor false"),
        ] {
            let error = Kaniko::parse(git.split(',')).expect_err(git).to_string();
            assert!(error.contains(said), "{git}: {error}");
        }
        for text in ["h/a#b#c", "h/a#b#0123456#d", ""] {
            assert!(kaniko("").repository("https", text).is_err(), "{text}");
        }
    }

    #[test]
    fn which_texts_are_repositories() {
        for (source, is) in [
            ("a", false),
            ("./a.git", false),
            ("github.com/moby/buildkit", false),
            ("a@b/c:d", false),
            ("https://h/a.git.tar", false),
            ("https://h.git", false),
            ("https://h/a#b.git", false),
            ("https://h/a.git#v0.1:docs", true),
            ("https://h/a.git?ref=v0.1", true),
            ("git://h/a", true),
            ("ssh://git@h/a", true),
            ("git@github.com:moby/buildkit.git#v0.1", true),
        ] {
            assert_eq!(is_git(source), is, "{source}");
        }
    }
}
