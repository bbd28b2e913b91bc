//! Flags as typed become settings as meant; what went wrong becomes a text and an exit code.
//!
//! The only room that reads the command line and the environment, and that prints. `flags` and `refusals` know
//! what can be typed, `settings` what was meant by it; below, nobody sees a flag.
//!
//! Promise: kaniko's spellings and meaning. A flag whose feature is not there is refused by name before any work, and
//! only if its value asks for the feature.
//!
//! Not here: the build (`build`), which takes a [`Request`].

mod console;
mod contexts;
mod duration;
mod flags;
mod logging;
mod progress;
mod refusals;
mod report;
mod result_files;
mod settings;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::build::{self, Isolation, Request};
use crate::http;
use crate::oci::Digest;
use crate::rootfs::container::Facts;
use crate::run::{self, Ids};
use crate::sys;
use flags::{Command, Flags};
use logging::LogFormat;
use progress::Bars;
use report::Failure;
use settings::Call;
use settings::Settings;

/// What cannot be done as it was typed, or written down in the end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing says where the image should go.
    #[error("you must provide --destination, or use --no-push")]
    NoDestination,
    /// A format without annotations, and annotations.
    #[error("--annotation: an image of docker's format has none; give --image-format=oci, or leave that out")]
    DockerAnnotations,
    /// A format without zstd, and zstd.
    #[error(
        "--compression=zstd: an image of docker's format has no such layers; give --image-format=oci, or leave that out"
    )]
    DockerZstd,
    /// A file of names without names.
    #[error("you must provide --destination if setting --{flag}")]
    NeedsDestination {
        /// The file's flag.
        flag: &'static str,
    },
    /// Outside a container, there is no place of our own.
    #[error("neither XDG_CACHE_HOME nor HOME names a directory to work in: give one with --kaniko-dir")]
    NoWorkDirectory,
    /// An empty context.
    #[error("please specify a path to the build context with the --context flag")]
    NoContext,
    /// A context of a form that nobody knows.
    #[error("unknown build context prefix {scheme}://, use one of dir:// and tar://")]
    UnknownContext {
        /// What is before `://`.
        scheme: String,
    },
    /// A value that its flag cannot have.
    #[error("invalid value {value:?} for --{flag}")]
    BadValue {
        /// The flag.
        flag: &'static str,
        /// As typed.
        value: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A value that lacks a part.
    #[error("invalid value {value:?} for --{flag}: it has the form {form}")]
    BadForm {
        /// The flag.
        flag: &'static str,
        /// As typed.
        value: String,
        /// What is wanted.
        form: &'static str,
    },
    /// A variable with a value that it cannot have.
    #[error("invalid value {value:?} for the {name} environment variable: {wanted} is wanted")]
    BadVariable {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wanted.
        wanted: &'static str,
    },
    /// A variable that is not UTF-8.
    #[error("the environment variable {name} is not UTF-8")]
    VariableNotText {
        /// Its name.
        name: String,
    },
    /// Two things are to be read from the one standard input.
    #[error("--context=tar://stdin and --dockerfile=- both read standard input: give one of them as a file")]
    StdinTwice,
    /// A feature of kaniko that is not there yet.
    #[error("--{flag}: {feature} is not supported yet")]
    Unsupported {
        /// The flag that asks for it.
        flag: &'static str,
        /// What it asks for.
        feature: String,
        /// What can be done instead.
        instead: &'static str,
    },
    /// Nothing can be said about where we run.
    #[error("find out whether this is a container")]
    Surroundings {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A relative path is relative to nothing.
    #[error("find out the current directory, to which {path} is relative", path = path.display())]
    CurrentDirectory {
        /// As typed.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The image is there, but nobody could be told.
    #[error(transparent)]
    SendResult(#[from] http::Error),
    /// The image is there, but not what should tell of it.
    #[error("write {path}", path = path.display())]
    WriteResult {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The executor: reads `arguments`, the program's name first, builds, and answers with the exit code. `variable` answers
/// for the environment.
pub fn executor(
    arguments: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.first().is_some_and(|name| run::is_helper(name)) {
        return run::helper(&arguments);
    }
    sys::give_large_memory_back();
    execute(arguments, &variable, become_root, |request| match build::run(request) {
        Ok(outcome) => Ok(outcome.digest),
        Err(error) => Err(Failure::of_build(error, request)),
    })
}

/// Lets a plain user build in an isolated root. There must be one thread.
fn become_root() -> Result<(), Failure> {
    match run::become_root().map_err(|error| Failure::new(report::BUILDING, error))? {
        Ids::Machine => {}
        Ids::Subordinate { users, groups } => tracing::debug!(users, groups, "root of a user namespace"),
        Ids::OnlyRoot => tracing::warn!(
            "no subordinate ids (/etc/subuid and /etc/subgid, newuidmap and newgidmap): only files of root can be made"
        ),
    }
    Ok(())
}

/// The executor with a build of one's own; `enter` is called first where that needs an isolated root.
fn execute(
    arguments: impl IntoIterator<Item = OsString>,
    variable: settings::Variable<'_>,
    enter: impl FnOnce() -> Result<(), Failure>,
    build: impl FnOnce(&Request) -> Result<Digest, Failure>,
) -> ExitCode {
    let flags = match flags::parse(arguments) {
        Ok(flags) => flags,
        Err(error) => return not_to_be_run(&error),
    };
    if let Some(Command::Version) = flags.command {
        let version = format!("kanna version {}\n", env!("CARGO_PKG_VERSION"));
        return exit_code_of(io::stdout().write_all(version.as_bytes()));
    }
    match build_as_typed(&flags, variable, enter, build) {
        Ok(()) => ExitCode::SUCCESS,
        Err(NoImage::Usage(error)) => {
            print_error(&report::usage_error(&error, &mut flags::command()));
            ExitCode::FAILURE
        }
        Err(NoImage::Failure(failure)) => {
            print_error(&failure.to_string());
            ExitCode::from(failure.exit_code)
        }
    }
}

/// Why there is no image.
enum NoImage {
    /// It was not asked for in a way that makes sense.
    Usage(Error),
    /// It could not be made.
    Failure(Failure),
}

impl From<Error> for NoImage {
    fn from(error: Error) -> NoImage {
        NoImage::Usage(error)
    }
}

fn build_as_typed(
    flags: &Flags,
    variable: settings::Variable<'_>,
    enter: impl FnOnce() -> Result<(), Failure>,
    build: impl FnOnce(&Request) -> Result<Digest, Failure>,
) -> Result<(), NoImage> {
    let log = settings::log_settings(flags)?;
    let is_for_people = matches!(log.format, LogFormat::Auto | LogFormat::Color);
    let bars = if is_for_people { Bars::on_stderr() } else { Bars::hidden() };
    logging::start(log, bars.clone());
    let facts = Facts::read(variable).map_err(|source| Error::Surroundings { source })?;
    let surroundings = facts.surroundings();
    let Settings { request, call, results } = settings::settings(flags, variable, surroundings, &bars)?;
    if call == Call::Check {
        return check(&request).map_err(NoImage::Failure);
    }
    if request.isolation == Isolation::Namespaces {
        enter().map_err(NoImage::Failure)?;
    }
    let unwritten = |error: Box<dyn std::error::Error + Send + Sync>| {
        NoImage::Failure(Failure::new("error writing results: ", error))
    };
    let results = results.ready(&request.http).map_err(|error| unwritten(error.into()))?;
    let built = build(&request);
    bars.clear();
    let digest = built.map_err(NoImage::Failure)?;
    results.write(&request.output.destinations, &digest).map_err(|error| unwritten(error.into()))
}

fn check(request: &Request) -> Result<(), Failure> {
    build::check(request).map_err(|error| Failure::of_build(error, request))?;
    let said = io::stdout().write_all(b"Check complete, no errors found.\n");
    said.map_err(|error| Failure::new("error writing results: ", error))
}

/// Help is what was asked for; all else that the flags' reader says is an error.
fn not_to_be_run(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        print_error(&report::flag_error(error));
        return ExitCode::FAILURE;
    }
    exit_code_of(error.print())
}

fn exit_code_of(written: io::Result<()>) -> ExitCode {
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_error(text: &str) {
    // nobody is left to tell when standard error is closed
    drop(io::stderr().lock().write_all(format!("{}\n", text.trim_end()).as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn execute_typed(arguments: &str, build: impl FnOnce(&Request) -> Result<Digest, Failure>) -> ExitCode {
        let words = std::iter::once("executor").chain(arguments.split_whitespace());
        execute(words.map(Into::into), &|name| (name == "HOME").then(|| "/home/me".into()), || Ok(()), build)
    }

    #[test]
    fn results_are_written_after_the_build() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("digest");
        let arguments = format!("--no-push --digest-file={}", file.display());
        let code = execute_typed(&arguments, |_| {
            assert!(!file.exists(), "there is no digest yet");
            Ok(Digest::of(b"image"))
        });
        assert_eq!(code, ExitCode::SUCCESS);
        assert_eq!(std::fs::read_to_string(&file).expect("written"), Digest::of(b"image").to_string());
    }

    #[test]
    fn a_failed_build_passes_its_exit_code_on_and_leaves_no_result() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("digest");
        let arguments = format!("--no-push --digest-file={}", file.display());
        let code = execute_typed(&arguments, |_| {
            Err(Failure { exit_code: 42, ..Failure::new("error building image: ", "no") })
        });
        assert_eq!(code, ExitCode::from(42));
        assert!(!file.exists());
    }

    #[test]
    fn results_that_cannot_be_written_are_a_failure() {
        let code = execute_typed("--no-push --digest-file=/proc/no/place", |_| Ok(Digest::of(b"image")));
        assert_eq!(code, ExitCode::FAILURE);
    }

    #[test]
    fn nothing_is_built_when_flags_make_no_sense() {
        for arguments in ["", "--no-such-flag", "--no-push --cache", "--no-push --verbosity=loud", "version --no-push"]
        {
            let code = execute_typed(arguments, |_| panic!("{arguments} is built"));
            assert_eq!(code, ExitCode::FAILURE, "{arguments}");
        }
    }
}
