//! How do whole builds compare with those of other builders?
//!
//! The same work for all, from a fresh container or fresh storage to the pushed image, in turn, in one run, so that
//! ratios mean something on any machine. Promise: no number before the images were compared, path by path; everything
//! that a build needs is made here, the same every time, and nothing is fetched from elsewhere.
//!
//! A program of its own like the executor, so it reads its command line and prints; what a build means it does not know.
//!
//! Not here: proof that an image or a snapshot is right (the tests' task). What is compared here shows that builders did
//! the same work, and a wrong snapshot is not timed.

mod builder;
pub mod cgroup;
mod command;
mod compare;
mod counts;
mod engine;
mod flags;
mod image;
mod index;
mod interrupt;
mod measure;
pub mod memory;
mod registry;
mod report;
mod snapshots;
mod stages;
mod tracking;
mod workload;
mod written;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::snapshot;
use flags::{Command, Flags};

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A builder that nobody can start.
    #[error("builder {text:?}: {fault}")]
    Builder {
        /// As typed.
        text: String,
        /// What is wrong with it.
        fault: String,
    },
    /// Something that must be there is not.
    #[error("{what}")]
    Needs {
        /// What is needed, and for what.
        what: String,
    },
    /// The system refused.
    #[error("{action} {path}", path = path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A program is not there.
    #[error("start {program}")]
    Start {
        /// Which.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A command came to a bad end.
    #[error("{command}: {ending}\n{output}")]
    Command {
        /// Which, with its arguments.
        command: String,
        /// How it ended.
        ending: String,
        /// The last of what it printed.
        output: String,
    },
    /// An image that cannot be read.
    #[error("read image {image}: {fault}")]
    Image {
        /// Its name.
        image: String,
        /// What is wrong with it.
        fault: String,
    },
    /// The builders did not build the same.
    #[error("{workload}: the images of {one} and {other} differ in {count} paths, among them:\n{paths}")]
    Differ {
        /// Which.
        workload: &'static str,
        /// A builder.
        one: String,
        /// Another.
        other: String,
        /// How many paths.
        count: usize,
        /// The first ones, with what each has there.
        paths: String,
    },
    /// An index that forgot something would make its figures worthless.
    #[error("the index lacks {path}")]
    Forgotten {
        /// What was inserted.
        path: String,
    },
    /// No snapshot could be taken.
    #[error("measure a snapshot")]
    Snapshot(#[source] snapshot::Error),
    /// A snapshot that is wrong costs nothing.
    #[error("{changed} files were changed, and the snapshot tells of others ({told})")]
    WrongSnapshot {
        /// How many were changed.
        changed: usize,
        /// How many it tells of.
        told: usize,
    },
    /// An image that depends on timing is worthless, however soon it is there.
    #[error("with --jobs={jobs}, the image is another one")]
    OtherImage {
        /// How many stages were built at the same time.
        jobs: u32,
    },
    /// A hot path is longer than it was.
    #[error("{what} takes {instructions} instructions, and must take at most {most}")]
    Slower {
        /// Which.
        what: &'static str,
        /// As counted.
        instructions: u64,
        /// As measured before, with some room.
        most: u64,
    },
    /// We would leave a mess behind.
    #[error("catch signals")]
    Signals(#[source] io::Error),
    /// Somebody has had enough.
    #[error("ended by signal {signal}")]
    Interrupted {
        /// Which.
        signal: u8,
    },
    /// Standard output is closed.
    #[error("print the figures")]
    Print(#[source] io::Error),
}

impl Error {
    fn file(action: &'static str, path: &Path, source: io::Error) -> Error {
        Error::File { action, path: path.to_owned(), source }
    }
}

/// The harness: reads `arguments`, the program's name first, measures, prints, and answers with the exit code.
pub fn harness(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let flags = match Flags::read(arguments) {
        Ok(flags) => flags,
        Err(usage) => {
            let code = u8::try_from(usage.exit_code()).unwrap_or(1);
            // nobody is left to tell when the stream is closed
            drop(usage.print());
            return ExitCode::from(code);
        }
    };
    let done = match &flags.command {
        Command::Builds(wanted) => compare::run(wanted, &mut io::stdout()),
        Command::Index(wanted) => index::run(wanted, &mut io::stdout()),
        Command::Snapshot(wanted) => snapshots::run(wanted, &mut io::stdout()),
        Command::Tracking(wanted) => tracking::run(wanted, &mut io::stdout()),
        Command::Stages(wanted) => stages::run(wanted, &mut io::stdout()),
        Command::Counts(wanted) => counts::run(wanted, &mut io::stdout()),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    let mut text = format!("Error: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(one) = cause {
        text = format!("{text}: {one}");
        cause = one.source();
    }
    // as above
    drop(writeln!(io::stderr(), "{text}"));
    match error {
        Error::Interrupted { signal } => ExitCode::from(128 + signal),
        _ => ExitCode::FAILURE,
    }
}
