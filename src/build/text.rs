//! Where the Dockerfile is, and what it says.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::request::DockerfilePlace;
use crate::context::Context;
use crate::http::{self, Address, FilePlace};
use crate::sys::{Stop, UntilStopped, read_at_most};

/// Nobody writes one of this size; a server that sends on and on is no server of Dockerfiles.
pub const MOST_DOCKERFILE_BYTES: u64 = 16 * 1024 * 1024;

/// What a Dockerfile is called that nobody has named, the first that is there.
const USUAL_NAMES: [&str; 2] = ["Dockerfile", "Containerfile"];

/// A Dockerfile.
pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    /// Its file, as it was looked for.
    pub(super) path: Option<PathBuf>,
}

impl Text {
    fn alone(bytes: Vec<u8>) -> Text {
        Text { bytes, path: None }
    }
}

/// What is not in the context: a path on this machine (kaniko's order: the current directory goes first), standard input.
/// Either may be a pipe, which is waited for until `stop` is asked.
pub(super) fn beside_context(place: &DockerfilePlace, stop: &Stop) -> Result<Option<Text>, Error> {
    let whole = |file| read_at_most(file, MOST_DOCKERFILE_BYTES);
    let path = match place {
        DockerfilePlace::Usual => Path::new(USUAL_NAMES[0]),
        DockerfilePlace::Named(FilePlace::Path(path)) => path,
        DockerfilePlace::Named(FilePlace::Address(_)) => return Ok(None),
        DockerfilePlace::Stdin => {
            let read = UntilStopped::stdin(stop).and_then(whole);
            let bytes = read.map_err(|source| Error::ReadDockerfile { path: "standard input".into(), source })?;
            return Ok(Some(Text::alone(bytes)));
        }
    };
    match UntilStopped::open(path, stop).and_then(whole) {
        Ok(bytes) => Ok(Some(Text { bytes, path: Some(path.to_path_buf()) })),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(Error::ReadDockerfile { path: path.to_path_buf(), source }),
    }
}

/// What is in the context.
pub(super) fn in_context(place: &DockerfilePlace, context: &Context) -> Result<Text, Error> {
    let names = match place {
        DockerfilePlace::Named(FilePlace::Path(path)) => vec![path.as_path()],
        _ => USUAL_NAMES.map(Path::new).to_vec(),
    };
    for path in &names {
        if let Some(bytes) = context.read_file(path)? {
            return Ok(Text { bytes, path: Some(path.to_path_buf()) });
        }
    }
    Err(Error::NoDockerfile { path: names[0].to_path_buf() })
}

/// What a server has.
pub(super) fn at_address(address: &Address, http: &http::Client) -> Result<Text, Error> {
    let fetched = http.fetch(address, MOST_DOCKERFILE_BYTES);
    fetched.map(Text::alone).map_err(|source| Error::FetchDockerfile { source })
}
