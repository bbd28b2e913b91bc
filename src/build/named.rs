//! Named contexts: directories that take the place of images and stages.

use std::collections::BTreeMap;
use std::path::Path;

use super::check_out;
use super::error::Error;
use super::plan::Plan;
use super::request::{NamedContext, NamedSource, Request};
use crate::context::{self, Context, IgnoreFile, ignore_file};
use crate::http::{self, FilePlace};
use crate::sys::Stop;

/// The files of a named context.
pub(super) struct NamedFiles {
    pub(super) context: Context,
    /// Its own, not that of the build context.
    pub(super) ignore_file: Option<IgnoreFile>,
}

/// Opens those that the plan uses; archives and repositories are fetched and unpacked below `scratch`.
pub(super) fn open_all(
    request: &Request,
    plan: &Plan,
    http: &http::Client,
    scratch: &Path,
    stop: &Stop,
) -> Result<BTreeMap<usize, NamedFiles>, Error> {
    let mut opened = BTreeMap::new();
    for number in plan.named_contexts() {
        let NamedContext { name, source } = &request.named_contexts[number];
        let failed = |source| Error::NamedContext { name: name.to_string(), source };
        let unpacked = scratch.join("named").join(number.to_string());
        let files = match source {
            NamedSource::Files(place) => open(place, http, scratch, &unpacked, stop),
            NamedSource::Repository(repository) => check_out(repository, request, http, &unpacked, stop)
                .map_err(Error::from)
                .and_then(|directory| open(&FilePlace::Path(directory), http, scratch, &unpacked, stop)),
            NamedSource::Image(_) | NamedSource::Layout(_) => continue,
        };
        opened.insert(number, files.map_err(|error| failed(Box::new(error)))?);
    }
    Ok(opened)
}

fn open(
    place: &FilePlace,
    http: &http::Client,
    scratch: &Path,
    unpacked: &Path,
    stop: &Stop,
) -> Result<NamedFiles, Error> {
    let context = match place {
        FilePlace::Path(directory) => {
            context::open(&context::Source::Directory(directory.clone()), None, unpacked, stop)?
        }
        FilePlace::Address(address) => {
            tracing::info!("Downloading {address}");
            let archive = http.download(address, None, scratch)?;
            context::open(&context::Source::Tar(archive.place().to_path_buf()), None, unpacked, stop)?
        }
    };
    let ignore_file = ignore_file(&context)?;
    Ok(NamedFiles { context, ignore_file })
}
