//! COPY and ADD -> [`CopyStep`].

use super::super::copy::{ModeSpec, Unpack};
use super::super::plan::{Action, CopyFrom, CopySource, CopyStep, Image, Step};
use super::PlanFault;
use super::steps::StageWork;
use crate::context::PatternList;
use crate::dockerfile::{self, CopyFlags, Located, expand};
use crate::http::Address;
use crate::oci::Digest;
use crate::tree::ImagePath;

impl<I: Image> StageWork<'_, '_, '_, I> {
    pub(super) fn copy(&mut self, word: &str, copy: &dockerfile::Copy) -> Result<(String, Action<I>), PlanFault> {
        let flags = &copy.flags;
        let from = self.copy_from(flags)?;
        let checksum = self.checksum(copy)?;
        let mut sources = Vec::new();
        let mut shown = Vec::new();
        for source in &copy.sources {
            match source {
                dockerfile::CopySource::Path(text) => {
                    let text = self.word(text)?;
                    sources.push(path_or_url(word, &text, checksum)?);
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
        if checksum.is_some() && !matches!(sources[..], [CopySource::Url { .. }]) {
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
    fn checksum(&self, copy: &dockerfile::Copy) -> Result<Option<Digest>, PlanFault> {
        let Some(text) = &copy.flags.checksum else { return Ok(None) };
        let text = self.word(text)?;
        if text.is_empty() { Ok(None) } else { Ok(Some(text.parse()?)) }
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

fn path_or_url(word: &str, text: &str, checksum: Option<Digest>) -> Result<CopySource, PlanFault> {
    let is_git = is_git(text);
    if !is_git && !Address::is_meant(text) {
        return Ok(CopySource::Path(text.to_owned()));
    }
    if word != "ADD" {
        return Err(PlanFault::RemoteCopy(text.to_owned()));
    }
    if is_git {
        return Err(PlanFault::NotSupported("ADD of a git repository", "clone it in a RUN, or into the context"));
    }
    let wrong = |source| PlanFault::Address { text: text.to_owned(), source };
    Ok(CopySource::Url { address: text.parse().map_err(wrong)?, checksum })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_urls_and_repositories() {
        for (source, kind) in [
            ("a", "path"),
            ("./a.git", "path"),
            ("github.com/moby/buildkit", "path"),
            ("ftp://h/a", "path"),
            ("a@b", "path"),
            ("a@b/c:d", "path"),
            ("dir/a@b:c", "path"),
            ("http://h/a", "url"),
            ("https://h/a.git.tar", "url"),
            ("https://h.git", "url"),
            ("https://h/a?b=c.git", "url"),
            ("https://h/a#b.git", "url"),
            ("https://", "wrong"),
            ("http://h:port/a", "wrong"),
            ("https://github.com/moby/buildkit.git", "git"),
            ("https://github.com/moby/buildkit.git#v0.1:docs", "git"),
            ("https://github.com/moby/buildkit.git?ref=v0.1", "git"),
            ("git://h/a", "git"),
            ("ssh://git@h/a", "git"),
            ("git@github.com:moby/buildkit.git#v0.1", "git"),
        ] {
            let found = match path_or_url("ADD", source, None) {
                Ok(CopySource::Path(path)) if path == source => "path",
                Ok(CopySource::Url { .. }) => "url",
                Err(PlanFault::NotSupported(..)) => "git",
                Err(PlanFault::Address { .. }) => "wrong",
                other => panic!("{source}: {other:?}"),
            };
            assert_eq!(found, kind, "{source}");
            let copied = path_or_url("COPY", source, None);
            assert_eq!(matches!(copied, Err(PlanFault::RemoteCopy(_))), kind != "path", "{source}");
        }
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
