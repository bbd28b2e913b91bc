//! COPY and ADD -> [`CopyStep`].

use super::super::copy::{ModeSpec, Unpack};
use super::super::plan::{Action, CopyFrom, CopySource, CopyStep, Image, Step};
use super::PlanFault;
use super::steps::StageWork;
use crate::context::PatternList;
use crate::context::git::{Repository, is_git};
use crate::dockerfile::{self, CopyFlags, Located, expand};
use crate::http::Address;
use crate::tree::ImagePath;

impl<I: Image> StageWork<'_, '_, '_, I> {
    pub(super) fn copy(&mut self, word: &str, copy: &dockerfile::Copy) -> Result<(String, Action<I>), PlanFault> {
        let flags = &copy.flags;
        let from = self.copy_from(flags)?;
        let remote = Remote { checksum: self.checksum(copy)?, keeps_git_directory: flags.keep_git_dir };
        let mut sources = Vec::new();
        let mut shown = Vec::new();
        for source in &copy.sources {
            match source {
                dockerfile::CopySource::Path(text) => {
                    let text = self.word(text)?;
                    sources.push(source_of(word, &text, &remote)?);
                    shown.push(text);
                }
                dockerfile::CopySource::Heredoc(heredoc) => {
                    let content = match heredoc.expand {
                        true => expand::body(&heredoc.content, &|name| self.scope.value(name))?,
                        false => heredoc.content.clone(),
                    };
                    shown.push(format!("<<{}", heredoc.name));
                    sources.push(CopySource::Inline { name: heredoc.name.clone(), content });
                }
            }
        }
        let is_one_remote = matches!(sources[..], [CopySource::Url { .. } | CopySource::Repository(_)]);
        if remote.checksum.is_some() && !is_one_remote {
            return Err(PlanFault::ChecksumWithoutUrl);
        }
        let destination = self.word(&copy.destination)?;
        let owner = flags.chown.as_ref().map(|text| self.word(text)).transpose()?;
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(owner) = owner.as_ref().filter(|owner| flags.link && !owner.split(':').all(is_number)) {
            return Err(PlanFault::NameWithLink(owner.clone()));
        }
        let mode = flags.chmod.as_ref().map(|text| self.word(text)).transpose()?;
        let mode_spec = |text: &String| ModeSpec::parse(text).map_err(|_| PlanFault::Mode(text.clone()));
        let mut created_by = word.to_owned();
        for (flag, value) in [("chown", &owner), ("chmod", &mode)] {
            if let Some(value) = value {
                created_by.push_str(&format!(" --{flag}={value}"));
            }
        }
        created_by.push_str(&format!(" {} {destination} # buildkit", shown.join(" ")));
        let step = CopyStep {
            from,
            sources,
            destination,
            working_directory: ImagePath::clean(self.config.working_directory()),
            owner,
            mode: mode.as_ref().map(mode_spec).transpose()?,
            unpack: unpack(word, flags.unpack),
            link: flags.link,
            parents: flags.parents,
            exclude: PatternList::new(&self.words(&flags.exclude)?).map_err(|bad| PlanFault::Exclude(bad.0))?,
        };
        Ok((created_by, Action::Copy(Box::new(step))))
    }

    fn copy_from(&mut self, flags: &CopyFlags) -> Result<CopyFrom<I>, PlanFault> {
        let Some(name) = &flags.from else { return Ok(CopyFrom::Context) };
        match self.planner.names.stage_to_copy_from(name, self.number)? {
            Some(stage) => Ok(CopyFrom::Stage(stage)),
            None if let Some(number) = self.planner.names.files(name) => Ok(CopyFrom::Named(number)),
            None if name == "scratch" => Err(PlanFault::UnknownStage {
                name: name.clone(),
                known: self.planner.names.of_stages(),
                nearest: None,
            }),
            None => Ok(CopyFrom::Image(self.planner.image(name, &self.platform, self.number)?)),
        }
    }

    /// What ADD's only source must be, where it says so. An empty checksum is none.
    fn checksum(&self, copy: &dockerfile::Copy) -> Result<Option<String>, PlanFault> {
        let text = copy.flags.checksum.as_ref().map(|text| self.word(text)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    }
}

/// FROM a named context: a stage that begins with its files.
pub(super) fn all_of<I>(context: usize, from: &Located<dockerfile::From>) -> Step<I> {
    let copy = CopyStep {
        from: CopyFrom::Named(context),
        sources: vec![CopySource::Path(".".to_owned())],
        destination: "/".to_owned(),
        working_directory: ImagePath::root(),
        owner: None,
        mode: None,
        unpack: Unpack::Never,
        link: false,
        parents: false,
        exclude: PatternList::default(),
    };
    let action = Action::Copy(Box::new(copy));
    Step { line: from.line, text: from.text.clone(), created_by: Some(from.text.clone()), action }
}

/// Local archives are unpacked by ADD, remote ones only where it is asked to.
fn unpack(word: &str, flag: Option<bool>) -> Unpack {
    match (word, flag) {
        ("ADD", None) => Unpack::Local,
        ("ADD", Some(true)) => Unpack::Always,
        _ => Unpack::Never,
    }
}

/// What ADD's flags say of a source that is fetched.
#[derive(Default)]
struct Remote {
    checksum: Option<String>,
    keeps_git_directory: Option<bool>,
}

fn source_of(word: &str, text: &str, remote: &Remote) -> Result<CopySource, PlanFault> {
    let is_git = is_git(text);
    if !is_git && !Address::is_meant(text) {
        return Ok(CopySource::Path(text.to_owned()));
    }
    if word != "ADD" {
        return Err(PlanFault::RemoteCopy(text.to_owned()));
    }
    if is_git {
        return repository(text, remote).map(|repository| CopySource::Repository(Box::new(repository)));
    }
    let wrong = |source| PlanFault::Address { text: text.to_owned(), source };
    let checksum = remote.checksum.as_ref().map(|text| text.parse()).transpose()?;
    Ok(CopySource::Url { address: text.parse().map_err(wrong)?, checksum })
}

/// A checksum of a repository is the name of its commit.
fn repository(text: &str, remote: &Remote) -> Result<Repository, PlanFault> {
    let wrong = |source| PlanFault::Repository { text: text.to_owned(), source };
    let mut repository: Repository = text.parse().map_err(wrong)?;
    if let Some(checksum) = &remote.checksum {
        repository.expect(checksum.parse().map_err(PlanFault::Commit)?).map_err(wrong)?;
    }
    if remote.keeps_git_directory.is_some() {
        repository.keeps_git_directory = remote.keeps_git_directory;
    }
    Ok(repository)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_urls_and_repositories() {
        for (source, kind) in [
            ("a", "path"),
            ("./a.git", "path"),
            ("ftp://h/a", "path"),
            ("http://h/a", "url"),
            ("https://h/a?b=c.git", "url"),
            ("https://", "wrong"),
            ("http://h:port/a", "wrong"),
            ("https://github.com/moby/buildkit.git#v0.1:docs", "git"),
            ("https://github.com/moby/buildkit.git?ref=v0.1", "git"),
            ("https://github.com/moby/buildkit.git?no=key", "wrong git"),
            ("git://h/a", "wrong git"),
            ("ssh://git@h/a", "wrong git"),
            ("git@github.com:moby/buildkit.git#v0.1", "wrong git"),
        ] {
            let found = match source_of("ADD", source, &Remote::default()) {
                Ok(CopySource::Path(path)) if path == source => "path",
                Ok(CopySource::Url { .. }) => "url",
                Ok(CopySource::Repository(_)) => "git",
                Err(PlanFault::Repository { .. }) => "wrong git",
                Err(PlanFault::Address { .. }) => "wrong",
                other => panic!("{source}: {other:?}"),
            };
            assert_eq!(found, kind, "{source}");
            let copied = source_of("COPY", source, &Remote::default());
            assert_eq!(matches!(copied, Err(PlanFault::RemoteCopy(_))), kind != "path", "{source}");
        }
    }

    #[test]
    fn what_flags_say_of_a_repository() {
        let read = |checksum: Option<&str>, kept, text: &str| {
            repository(text, &Remote { checksum: checksum.map(str::to_owned), keeps_git_directory: kept })
        };
        let commit = "05d2d74403d23d99daf70f4eb4fc0ff16cae7f1a";
        let found = read(Some(commit), Some(true), "https://h/a.git#v1").expect("good");
        assert_eq!(found.expected.map(|commit| commit.to_string()).as_deref(), Some(commit));
        assert_eq!(found.keeps_git_directory, Some(true));
        let found = read(None, None, "https://h/a.git?keep-git-dir=true").expect("good");
        assert_eq!(found.keeps_git_directory, Some(true));
        let found = read(None, Some(false), "https://h/a.git?keep-git-dir=true").expect("good");
        assert_eq!(found.keeps_git_directory, Some(false));
        assert!(matches!(read(Some("sha256:1"), None, "https://h/a.git"), Err(PlanFault::Commit(_))));
        let twice = read(Some(commit), None, "https://h/a.git?checksum=05d2d74");
        assert!(matches!(twice, Err(PlanFault::Repository { .. })));
    }

    #[test]
    fn what_is_unpacked() {
        for (word, flag, meant) in [
            ("COPY", None, Unpack::Never),
            ("ADD", None, Unpack::Local),
            ("ADD", Some(false), Unpack::Never),
            ("ADD", Some(true), Unpack::Always),
        ] {
            assert_eq!(unpack(word, flag), meant, "{word} {flag:?}");
        }
    }
}
