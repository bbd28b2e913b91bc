//! Is the Dockerfile right, as far as it can be told without a build?

use super::plan::Unseen;
use super::text::{self, Text};
use super::{DockerfilePlace, Error, Request, open_context, plan_request};
use crate::dockerfile;
use crate::http::{self, FilePlace};
use crate::oci::Platform;
use crate::sys::Stop;

/// Where a context that is no directory is unpacked, since a check has no work directory.
const TEMPORARY: &str = "/tmp";

/// Parses and plans what `request` asks for. No image is looked for, so that what depends on an image's environment is
/// not judged, and nothing is written but the files of a context that is no directory, into a directory that goes again.
pub fn check(request: &Request) -> Result<(), Error> {
    let file = dockerfile::parse(&dockerfile_text(request)?.bytes)?;
    let platform = request.platform.clone().unwrap_or_else(Platform::host);
    plan_request(request, &file, &platform, &mut |_, _| Ok(Unseen))?;
    Ok(())
}

/// The context is opened only for a Dockerfile that is not beside it.
fn dockerfile_text(request: &Request) -> Result<Text, Error> {
    if let Some(text) = text::beside_context(&request.dockerfile, &Stop::new())? {
        return Ok(text);
    }
    let http = http::Client::new(request.http.clone())?;
    if let DockerfilePlace::Named(FilePlace::Address(address)) = &request.dockerfile {
        return text::at_address(address, &http);
    }
    let scratch =
        tempfile::tempdir_in(TEMPORARY).map_err(|source| Error::WorkDirectory { path: TEMPORARY.into(), source })?;
    let context = open_context(request, &http, scratch.path(), &Stop::new())?;
    text::in_context(&request.dockerfile, &context)
}
