//! Is the Dockerfile right, as far as it can be told without a build?

use std::fs;

use super::plan::Unseen;
use super::{DOCKERFILE_BYTES, Error, Request, open_context, plan_request, read_dockerfile};
use crate::dockerfile;
use crate::http::{self, FilePlace};
use crate::oci::Platform;
use crate::sys::Stop;

/// Where a context that is no directory is unpacked, since a check has no work directory.
const TEMPORARY: &str = "/tmp";

/// Parses and plans what `request` asks for. No image is looked for, so that what depends on an image's environment is
/// not judged, and nothing is written but the files of a context that is no directory, into a directory that goes again.
pub fn check(request: &Request) -> Result<(), Error> {
    let file = dockerfile::parse(&dockerfile_text(request)?)?;
    let platform = request.platform.clone().unwrap_or_else(Platform::host);
    plan_request(request, &file, &platform, &mut |_, _| Ok(Unseen))?;
    Ok(())
}

/// The context is opened only for a Dockerfile that is not on this machine.
fn dockerfile_text(request: &Request) -> Result<Vec<u8>, Error> {
    let path = match &request.dockerfile {
        FilePlace::Path(path) => path,
        FilePlace::Address(address) => {
            let http = http::Client::new(request.http.clone())?;
            return http.fetch(address, DOCKERFILE_BYTES).map_err(|source| Error::FetchDockerfile { source });
        }
    };
    if let Ok(text) = fs::read(path) {
        return Ok(text);
    }
    let scratch =
        tempfile::tempdir_in(TEMPORARY).map_err(|source| Error::WorkDirectory { path: TEMPORARY.into(), source })?;
    let http = http::Client::new(request.http.clone())?;
    let context = open_context(request, &http, scratch.path(), &Stop::new())?;
    read_dockerfile(&context, path)
}
