//! What is printed when there is no image: the whole chain of causes once, the place in the Dockerfile, a hint.

use std::error::Error as StdError;
use std::path::Path;
use std::{fmt, io};

use clap::error::{ContextKind, ContextValue};

use super::{Error, flags};
use crate::build::{self, ContextSource, DockerfilePlace, MOST_DOCKERFILE_BYTES, Request, StepError};
use crate::context;
use crate::dockerfile;
use crate::http::{FilePlace, TlsFault};
use crate::layer;
use crate::registry;
use crate::rootfs::{self, pristine::Refusal};
use crate::run::{self, Obstacle};
use crate::sys::read_regular;

/// A build that failed, ready to be told.
#[derive(Debug)]
pub(super) struct Failure {
    /// What the error's own text follows: `error building image: `, or less where that text says what we were at.
    pub(super) opening: &'static str,
    /// What went wrong; its sources are its causes.
    pub(super) error: Box<dyn StdError + Send + Sync>,
    /// The lines of the Dockerfile that it is about, to be printed as they are.
    pub(super) excerpt: Option<String>,
    /// How the process ends.
    pub(super) exit_code: u8,
}

impl Failure {
    /// A failure with nothing special to it: the process ends with 1.
    pub(super) fn new(opening: &'static str, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Failure {
        Failure { opening, error: error.into(), excerpt: None, exit_code: 1 }
    }

    /// What `build` said about `request`.
    pub(super) fn of_build(error: build::Error, request: &Request) -> Failure {
        let (opening, is_before_work) = match &error {
            build::Error::Push { .. } | build::Error::PushCheck { .. } => ("error ", false),
            build::Error::Parse(_) | build::Error::Plan(_) => (BUILDING, true),
            _ => (BUILDING, false),
        };
        // once the work has begun, another file may be where the Dockerfile was
        let lines = error.lines().filter(|_| is_before_work);
        let excerpt = lines.and_then(|lines| Some(dockerfile::excerpt(&dockerfile_text(request)?, lines)));
        Failure { excerpt, exit_code: error.exit_code(), ..Failure::new(opening, error) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.opening, chain(&*self.error))?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{}", excerpt.trim_end())?;
        }
        match hint(&*self.error) {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// What kaniko's errors begin with.
pub(super) const BUILDING: &str = "error building image: ";

/// The Dockerfile, where it can be read as easily as by its author, and again: a pipe has given what it had.
fn dockerfile_text(request: &Request) -> Option<Vec<u8>> {
    let dockerfile = match &request.dockerfile {
        DockerfilePlace::Usual => Path::new("Dockerfile"),
        DockerfilePlace::Named(FilePlace::Path(path)) => path,
        DockerfilePlace::Named(FilePlace::Address(_)) | DockerfilePlace::Stdin => return None,
    };
    let in_context = match &request.context {
        ContextSource::Directory(context) => {
            let context = request.context_sub_path.as_ref().map_or_else(|| context.clone(), |sub| context.join(sub));
            Some(context.join(dockerfile))
        }
        ContextSource::Tar(_) | ContextSource::TarStdin | ContextSource::Repository(_) => None,
    };
    let places = [Some(dockerfile.to_path_buf()), in_context];
    places.into_iter().flatten().find_map(|path| read_regular(&path, MOST_DOCKERFILE_BYTES).ok())
}

/// The text of an error of the command line: what is wrong, what to do instead, and the usage.
pub(super) fn usage_error(error: &Error, command: &mut clap::Command) -> String {
    let mut text = format!("Error: {}", chain(error));
    if let Error::Unsupported { instead, .. } = error {
        text.push_str("\nhint: ");
        text.push_str(instead);
    }
    format!("{text}\n\n{}\n\nFor more information, try '--help'.", command.render_usage())
}

/// The text of what the flags' reader says: kaniko begins its errors with a capital.
pub(super) fn flag_error(error: &clap::Error) -> String {
    let mut text = error.to_string();
    text = format!("Error: {}", text.strip_prefix("error: ").unwrap_or(&text));
    if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
        && flags::boolean(word).is_ok()
    {
        let hint = format!("\nhint: a flag that is on or off has its value behind a \"=\", as in --cache={word}\n");
        let end_of_line = text.find('\n').unwrap_or(text.len());
        text.insert_str(end_of_line, &hint);
    }
    text
}

/// An error and its causes, from the outside in. A cause that its error's own text ends with is not told again.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error).skip(1) {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// What the user could do about the first cause that we know something about.
fn hint(error: &(dyn StdError + 'static)) -> Option<String> {
    causes(error).find_map(|cause| {
        if let Some(refusal) = cause.downcast_ref::<Refusal>() {
            return Some(refusal_hint(refusal).to_owned());
        }
        if of_root(cause).is_some_and(rootfs::Error::is_unknown_owner) {
            return Some(OWNERS.to_owned());
        }
        match of_command(cause).and_then(run::Error::obstacle) {
            Some(Obstacle::Namespaces) => return Some(NAMESPACES.to_owned()),
            Some(Obstacle::UnknownId) => return Some(OWNERS.to_owned()),
            None => {}
        }
        if let Some(build::Error::Stopped(run::StopReason::OutOfTime)) = cause.downcast_ref() {
            return Some("--build-timeout gives a build more time".to_owned());
        }
        if let Some(run::Error::OutOfTime { .. }) = of_command(cause) {
            return Some("--run-timeout gives a RUN more time".to_owned());
        }
        let refused = cause.downcast_ref().and_then(registry::Error::status);
        if let Some(401 | 403) = refused {
            return Some("the registry wants credentials: see that /kaniko/.docker/config.json has them".to_owned());
        }
        if let Some(hint) = cause.downcast_ref().and_then(registry::Error::tls_fault).and_then(tls_hint) {
            return Some(hint.to_owned());
        }
        if let Some(build::Error::Context(context::Error::Unpack { from, source })) = cause.downcast_ref()
            && (from, source.kind()) == (&"standard input".to_owned(), io::ErrorKind::UnexpectedEof)
        {
            return Some("tar://stdin needs standard input: docker run --interactive, kubectl run --stdin".to_owned());
        }
        match cause.downcast_ref::<io::Error>()?.kind() {
            io::ErrorKind::StorageFull => Some("the disk is full: give the container more room".to_owned()),
            io::ErrorKind::QuotaExceeded => Some("a quota is used up: give the container more room".to_owned()),
            io::ErrorKind::ReadOnlyFilesystem => {
                Some("a build in place writes to /: the container's root must not be read-only".to_owned())
            }
            _ => None,
        }
    })
}

/// The error of the root that a cause is, or that it stands for.
fn of_root<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a rootfs::Error> {
    match (cause.downcast_ref(), cause.downcast_ref(), cause.downcast_ref()) {
        (Some(build::Error::Root(error)), _, _)
        | (_, Some(StepError::Root(error) | StepError::Layer(layer::Error::Root(error))), _)
        | (_, _, Some(layer::Error::Root(error))) => Some(error),
        _ => cause.downcast_ref(),
    }
}

/// The error of a command that a cause is, or that it stands for.
fn of_command<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a run::Error> {
    match (cause.downcast_ref(), cause.downcast_ref()) {
        (Some(build::Error::Run(error)), _) | (_, Some(StepError::Run(error))) => Some(error),
        _ => cause.downcast_ref(),
    }
}

const OWNERS: &str = "no such user or group exists in this user namespace: /etc/subuid and /etc/subgid lend subordinate ids to a \
                      user (useradd and usermod write them), newuidmap and newgidmap map them; root needs none";

const NAMESPACES: &str = "an isolated root needs namespaces: run this as root, or as a user who may make them, or in a container, where \
                          --isolation=in-place needs none";

fn tls_hint(fault: TlsFault) -> Option<&'static str> {
    match fault {
        TlsFault::Certificate => Some(
            "--registry-certificate names a certificate to believe; --skip-tls-verify-registry, --skip-tls-verify and \
             --skip-tls-verify-pull believe any",
        ),
        TlsFault::NotSpoken => Some("--insecure-registry, --insecure (to push) and --insecure-pull allow plain HTTP"),
        TlsFault::Other => None,
    }
}

fn refusal_hint(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Machine { .. } => {
            "a build in place replaces all of /: run this in a container of its own, or leave out --isolation=in-place"
        }
        Refusal::NotInContainer { .. } => {
            "run this in a container, or leave out --isolation=in-place; --force builds here all the same, and replaces \
             what is in /"
        }
        Refusal::NotPristine { .. } => {
            "run this in a fresh container of the executor image; --pre-cleanup removes these paths, --force leaves them"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::super::flags;
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layered {
        text: &'static str,
        source: Option<Box<dyn StdError + Send + Sync>>,
    }

    fn layered(texts: &[&'static str]) -> Box<dyn StdError + Send + Sync> {
        let (text, inner) = texts.split_first().expect("at least one");
        Box::new(Layered { text, source: (!inner.is_empty()).then(|| layered(inner)) })
    }

    #[test]
    fn the_chain_is_told_once() {
        for (texts, told) in [
            (&["a"][..], "error building image: a"),
            (&["push a", "send b", "reset"], "error building image: push a: send b: reset"),
            (&["push a: reset", "reset"], "error building image: push a: reset"),
        ] {
            assert_eq!(Failure::new(BUILDING, layered(texts)).to_string(), told);
        }
    }

    #[test]
    fn excerpt_and_hint_follow() {
        let failure = Failure {
            excerpt: Some("  3 | COPY x\n".to_owned()),
            ..Failure::new(BUILDING, Refusal::NotInContainer { despite: None })
        };
        let lines: Vec<String> = failure.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("error building image: build in place: "), "{}", lines[0]);
        assert_eq!(lines[1], "  3 | COPY x");
        assert!(lines[2].starts_with("hint: run this in a container"), "{}", lines[2]);
    }

    #[test]
    fn what_the_build_said() {
        let request = super::super::settings::tests::request("", &[]);
        let push = build::Error::Push {
            destination: "r.example/a:1".parse().expect("a reference"),
            source: registry::Error::BadMirror { mirror: "x".to_owned() },
        };
        let text = Failure::of_build(push, &request).to_string();
        assert!(text.starts_with("error pushing image to r.example/a:1: "), "{text}");
        let command = |source| build::Error::Step { line: 2, text: "RUN false".to_owned(), source };
        let failed = Failure::of_build(command(StepError::ExitCode(42)), &request);
        assert_eq!(failed.exit_code, 42);
        assert_eq!(failed.excerpt, None, "the error tells the line, and the file may be another one now");
        assert!(failed.to_string().starts_with("error building image: dockerfile line 2: RUN false: "), "{failed}");
        assert_eq!(Failure::of_build(command(StepError::Signal(9)), &request).exit_code, 137);
    }

    #[test]
    fn an_error_in_the_dockerfile_shows_the_line() {
        let context = tempfile::tempdir().expect("a directory");
        fs::write(context.path().join("Other"), "FROM scratch\nCOPPY a b\n").expect("written");
        let arguments = format!("--context={} --dockerfile=Other", context.path().display());
        let request = super::super::settings::tests::request(&arguments, &[]);
        let error = dockerfile::parse(b"FROM scratch\nCOPPY a b\n").expect_err("no such instruction");
        let text = Failure::of_build(build::Error::Parse(error), &request).to_string();
        assert!(text.contains("\n  1 | FROM scratch\n> 2 | COPPY a b"), "{text}");
    }

    #[test]
    fn causes_that_we_know_give_hints() {
        let full = Layered { text: "write a", source: Some(Box::new(io::Error::from(io::ErrorKind::StorageFull))) };
        assert!(Failure::new(BUILDING, full).to_string().contains("hint: the disk is full"));
        let refused = Refusal::NotInContainer { despite: None };
        assert!(Failure::new(BUILDING, refused).to_string().contains("hint: run this in a container"));
        let nothing = context::Error::Unpack {
            from: "standard input".to_owned(),
            source: io::Error::from(io::ErrorKind::UnexpectedEof),
        };
        let unpack = build::Error::Context(nothing);
        assert!(Failure::new(BUILDING, unpack).to_string().contains("hint: tar://stdin needs standard input"));
        let inside = |obstacle, errno: i32| run::Error::Inside {
            exit_code: 1,
            message: format!("do a: {}", io::Error::from_raw_os_error(errno)),
            obstacle,
            source: Some(io::Error::from_raw_os_error(errno)),
        };
        let step = |error| build::Error::Step { line: 1, text: "RUN a".to_owned(), source: StepError::Run(error) };
        let unknown = run::Error::UnknownId { kind: "user", id: 7, known: "0".to_owned() };
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        for (error, words) in [
            (inside(Some(Obstacle::Namespaces), 1), "hint: an isolated root needs namespaces"),
            (inside(None, 28), "hint: the disk is full"),
            (unknown, "hint: no such user or group exists in this user namespace"),
            (run::Error::Isolate { action: "a", source: refused }, "hint: an isolated root needs namespaces"),
            (run::Error::OutOfTime { limit: Duration::from_secs(90) }, "hint: --run-timeout gives a RUN more time"),
        ] {
            let text = Failure::new(BUILDING, step(error)).to_string();
            assert!(text.contains(words), "{text}");
            assert!(text.matches("os error").count() <= 1, "told once: {text}");
        }
        let plain = Failure::new(BUILDING, io::Error::from(io::ErrorKind::NotFound));
        assert!(!plain.to_string().contains("hint"));
    }

    #[test]
    fn usage_errors_say_what_to_do() {
        let error =
            Error::Unsupported { flag: "cache", feature: "the layer cache".to_owned(), instead: "leave it out" };
        let text = usage_error(&error, &mut flags::command());
        assert!(
            text.starts_with("Error: --cache: the layer cache is not supported yet\nhint: leave it out\n"),
            "{text}"
        );
        assert!(text.contains("Usage: executor [OPTIONS]"), "{text}");
    }
}
