//! `--context`, `--build-context` and `--git`: where build files come from, as meant.

use super::flags::{Flags, boolean};
use super::settings::{Variable, absolute, bad_value, given, pair, text_variable, value};
use super::{Error, refusals};
use crate::build::{ContextSource, DockerfilePlace, NamedContext, NamedSource};
use crate::context::git::{Kaniko, Repository, is_git};
use crate::http::FilePlace;
use crate::oci::parse_reference;
use crate::registry::LayoutPlace;

/// The build context.
pub(super) fn context(flags: &Flags, variable: Variable<'_>) -> Result<ContextSource, Error> {
    let text = &flags.context;
    match text.split_once("://") {
        _ if text.is_empty() => Err(Error::NoContext),
        Some(("git", "")) => Err(Error::NoContext),
        Some(("git", rest)) => {
            let method = pull_method(variable)?;
            let read = kaniko(flags)?.repository(method, rest);
            let repository = read.map_err(|source| bad_value("context", text, source))?;
            signed_in(kept(repository, flags), variable)
        }
        _ if is_git(text) => {
            let mut repository: Repository = value("context", text)?;
            kaniko(flags)?.apply(&mut repository).map_err(|source| bad_value("context", text, source))?;
            signed_in(kept(repository, flags), variable)
        }
        None => Ok(ContextSource::Directory(absolute(text)?)),
        Some(("dir" | "tar", "")) => Err(Error::NoContext),
        Some(("dir", path)) => Ok(ContextSource::Directory(absolute(path)?)),
        Some(("tar", "stdin")) => Ok(ContextSource::TarStdin),
        Some(("tar", path)) => Ok(ContextSource::Tar(absolute(path)?)),
        Some((scheme @ ("gs" | "s3" | "https"), _)) => Err(Error::Unsupported {
            flag: "context",
            feature: format!("a context of the form {scheme}://…"),
            instead: refusals::CONTEXT,
        }),
        Some((scheme, _)) => Err(Error::UnknownContext { scheme: scheme.to_owned() }),
    }
}

/// The Dockerfile; `-` is standard input, which can be read once.
pub(super) fn dockerfile(flags: &Flags) -> Result<DockerfilePlace, Error> {
    match given(&flags.dockerfile) {
        None => Ok(DockerfilePlace::Usual),
        Some("-") if flags.context == "tar://stdin" => Err(Error::StdinTwice),
        Some("-") => Ok(DockerfilePlace::Stdin),
        Some(text) => value("dockerfile", text).map(DockerfilePlace::Named),
    }
}

/// The named contexts, in the order given.
pub(super) fn named(flags: &Flags) -> Result<Vec<NamedContext>, Error> {
    flags.build_contexts.iter().map(|text| named_context(text)).collect()
}

fn named_context(text: &str) -> Result<NamedContext, Error> {
    let flag = "build-context";
    let (name, place) = pair(flag, text)?;
    let reference = |text: &str| parse_reference(text).map_err(|source| bad_value(flag, text, source));
    let source = match place.split_once("://") {
        _ if is_git(&place) => NamedSource::Repository(Box::new(value(flag, &place)?)),
        None => NamedSource::Files(FilePlace::Path(absolute(&place)?)),
        Some(("dir", path)) => NamedSource::Files(FilePlace::Path(absolute(path)?)),
        Some(("docker-image", image)) => NamedSource::Image(reference(image)?),
        Some(("oci-layout", layout)) => {
            let mut layout: LayoutPlace = value(flag, layout)?;
            layout.directory = absolute(&layout.directory)?;
            NamedSource::Layout(layout)
        }
        Some(("http" | "https", _)) => NamedSource::Files(value(flag, &place)?),
        Some((scheme, _)) => {
            let feature = format!("a context of the form {scheme}://…");
            return Err(Error::Unsupported { flag, feature, instead: refusals::NAMED_CONTEXT });
        }
    };
    Ok(NamedContext { name: reference(&name)?, source })
}

fn kaniko(flags: &Flags) -> Result<Kaniko, Error> {
    let text = flags.git.as_deref().unwrap_or_default();
    Kaniko::parse(text.split(',').filter(|part| !part.is_empty())).map_err(|source| bad_value("git", text, source))
}

/// The build argument that says for BuildKit whether `.git` stays; the last one counts.
fn kept(mut repository: Repository, flags: &Flags) -> Repository {
    let argument = |text: &String| text.strip_prefix("BUILDKIT_CONTEXT_KEEP_GIT_DIR=").map(|value| boolean(value).ok());
    if let Some(kept) = flags.build_args.iter().filter_map(argument).next_back().flatten() {
        repository.keeps_git_directory = Some(kept);
    }
    repository
}

fn pull_method(variable: Variable<'_>) -> Result<&'static str, Error> {
    let name = "GIT_PULL_METHOD";
    match text_variable(variable, name)?.as_deref() {
        None | Some("" | "https") => Ok("https"),
        Some("http") => Ok("http"),
        Some(other) => Err(Error::BadVariable { name, value: other.to_owned(), wanted: "https or http" }),
    }
}

/// Who we are for the context's server: a token is a user without a password. What the address says of it goes first.
fn signed_in(mut repository: Repository, variable: Variable<'_>) -> Result<ContextSource, Error> {
    let text = |name| Ok::<_, Error>(text_variable(variable, name)?.unwrap_or_default());
    let (user, password) = match text("GIT_TOKEN")? {
        token if token.is_empty() => (text("GIT_USERNAME")?, text("GIT_PASSWORD")?),
        token => (token, String::new()),
    };
    if !(user.is_empty() && password.is_empty()) {
        repository.address = repository.address.with_login(&user, &password);
    }
    Ok(ContextSource::Repository(Box::new(repository)))
}
