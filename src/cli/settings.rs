//! [`settings`]: flags and variables as meant. All that combines, conflicts or has a default is decided here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use super::console::Console;
use super::flags::{self, Flags};
use super::logging::{LogFormat, LogSettings};
use super::progress::Bars;
use super::result_files::ResultFiles;
use super::{Error, contexts, refusals};
use crate::build::{Isolation, Listeners, Output, Request, SnapshotSettings};
use crate::http::{self, FilePlace};
use crate::image::Format;
use crate::layer::{Compression, Method};
use crate::oci::Destination;
use crate::registry;
use crate::rootfs::container::Surroundings;
use crate::rootfs::pristine::InPlaceRequest;
use crate::snapshot::ChangeTracker;
use crate::sys::memory_limit_bytes;
use crate::tree::ImagePath;

/// Where the executor image keeps what is its own, wherever the work directory is.
const IMAGE_DIR: &str = "/kaniko";

/// Memory that there should be for each stage at work: 64 MB and 170 bytes a file are ours, which is 234 MB in a root of a million
/// files, and its command may be a compiler.
const JOB_MEMORY_BYTES: u64 = 512 * 1024 * 1024;

/// Answers for the environment.
pub(super) type Variable<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What one call of the executor is to do.
pub(super) struct Settings {
    /// The build.
    pub(super) request: Request,
    /// What is to be done with it.
    pub(super) call: Call,
    /// What is written once it is done.
    pub(super) results: ResultFiles,
}

/// What can be done with a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// Make the image.
    Build,
    /// Parse and plan, and see what is wrong.
    Check,
}

/// How to log, which must be known before anything else can be told.
pub(super) fn log_settings(flags: &Flags) -> Result<LogSettings, Error> {
    Ok(LogSettings {
        level: value("verbosity", &flags.verbosity)?,
        format: given(&flags.log_format).map(|text| value("log-format", text)).transpose()?.unwrap_or(LogFormat::Auto),
        timestamps: flags.log_timestamp,
    })
}

/// What is meant by `flags` in an environment where `variable` answers.
pub(super) fn settings(
    flags: &Flags,
    variable: Variable<'_>,
    surroundings: Surroundings,
    bars: &Bars,
) -> Result<Settings, Error> {
    refusals::check(flags)?;
    let text = |name: &'static str| text_variable(variable, name);
    let call = call(&flags.call)?;
    let mut output = match call {
        Call::Build => output(flags, text("KANIKO_NO_PUSH")?.as_deref())?,
        // nothing is written, so that it need not be said where
        Call::Check => output(flags, Some("true"))?,
    };
    let results = result_files(flags, &output, variable)?;
    output.results = results.paths().map(Path::to_path_buf).collect();
    let isolation = isolation(flags, &surroundings)?;
    let work_dir = work_dir(flags, call, isolation, variable)?;
    let threads = threads(text("GOMAXPROCS")?.as_deref());
    let compression = compression(flags)?;
    let request = Request {
        context: contexts::context(flags, variable)?,
        context_sub_path: given(&flags.context_sub_path).map(PathBuf::from),
        named_contexts: contexts::named(flags)?,
        dockerfile: contexts::dockerfile(flags)?,
        build_args: build_args(&flags.build_args, variable)?,
        target: given(&flags.target).map(str::to_owned),
        labels: flags.labels.iter().map(|text| pair("label", text)).collect::<Result<_, _>>()?,
        annotations: flags.annotations.iter().map(|text| pair("annotation", text)).collect::<Result<_, _>>()?,
        image_format: image_format(flags, compression.method())?,
        platform: given(&flags.custom_platform).map(|text| value("custom-platform", text)).transpose()?,
        snapshot: SnapshotSettings {
            mode: value("snapshot-mode", &flags.snapshot_mode)?,
            single: flags.single_snapshot,
            tracker: match value("change-tracker", &flags.change_tracker)? {
                ChangeTracker::Auto if flags.use_new_run => ChangeTracker::Walk,
                asked => asked,
            },
            verify: flags.verify_snapshots,
        },
        threads,
        jobs: jobs(flags, isolation, threads),
        compression,
        reproducible: flags.reproducible,
        source_date_epoch: source_date_epoch(text("SOURCE_DATE_EPOCH")?)?,
        ignore_paths: filled(&flags.ignore_paths).map(ImagePath::clean).collect(),
        ignore_var_run: flags.ignore_var_run,
        cleanup: flags.cleanup,
        isolation,
        in_place: InPlaceRequest { force: flags.force, pre_cleanup: flags.pre_cleanup },
        surroundings,
        skip_unused_stages: flags.skip_unused_stages,
        skip_push_permission_check: flags.skip_push_permission_check,
        time_limit: Some(flags.build_timeout).filter(|limit| !limit.is_zero()),
        run_time_limit: Some(flags.run_timeout).filter(|limit| !limit.is_zero()),
        image_fs_extract_retry: flags.image_fs_extract_retry,
        http: http_settings(flags, &work_dir, variable)?,
        registry: registry_settings(flags, variable)?,
        docker_config_files: docker_config_files(&work_dir, variable),
        credential_helper_path: variable("PATH").unwrap_or_default(),
        listeners: Listeners {
            downloads: Arc::new(bars.of("pull")),
            unpacking: Arc::new(bars.of("unpack")),
            pushes: Arc::new(bars.of("push")),
            commands: Arc::new(Console::new(bars.clone())),
        },
        output,
        work_dir,
        program: std::env::current_exe().map_err(|source| Error::Surroundings { source })?,
    };
    Ok(Settings { request, call, results })
}

/// Where the root is, as asked for; else `/` in a container, which is there for this, and nowhere else.
fn isolation(flags: &Flags, surroundings: &Surroundings) -> Result<Isolation, Error> {
    match (flags.isolation.as_str(), surroundings) {
        ("in-place", _) | ("auto" | "", Surroundings::Container(_)) => Ok(Isolation::InPlace),
        ("namespaces", _) | ("auto" | "", Surroundings::Machine { .. }) => Ok(Isolation::Namespaces),
        _ => Err(Error::BadForm {
            flag: "isolation",
            value: flags.isolation.clone(),
            form: "auto, in-place or namespaces",
        }),
    }
}

/// The image's own directory in a container; elsewhere, where nobody has made that, the user's directory for caches. A check
/// writes to neither.
fn work_dir(flags: &Flags, call: Call, isolation: Isolation, variable: Variable<'_>) -> Result<PathBuf, Error> {
    let variable_text = text_variable(variable, "KANIKO_DIR")?.filter(|text| !text.is_empty());
    if let Some(asked) = given(&flags.kaniko_dir).or(variable_text.as_deref()) {
        return absolute(asked);
    }
    if isolation == Isolation::InPlace || call == Call::Check {
        return Ok(IMAGE_DIR.into());
    }
    // never a directory that others share: they could change the root under our hands
    let set = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    caches.map(|caches| caches.join("kanna")).ok_or(Error::NoWorkDirectory)
}

fn call(text: &str) -> Result<Call, Error> {
    match text {
        "build" | "" => Ok(Call::Build),
        "check" => Ok(Call::Check),
        // what BuildKit has besides
        "outline" | "targets" => Err(Error::Unsupported {
            flag: "call",
            feature: format!("the method {text}"),
            instead: "give --call=check, or leave it out",
        }),
        _ => Err(Error::BadForm { flag: "call", value: text.to_owned(), form: "build or check" }),
    }
}

fn compression(flags: &Flags) -> Result<Compression, Error> {
    let method = match &*flags.compression {
        "" => Method::default(),
        text => value("compression", text)?,
    };
    let level = flags.compression_level;
    method.at_level(level).map_err(|source| bad_value("compression-level", level, source))
}

/// Annotations and zstd need the image spec's media types: Docker's have no place for them.
fn image_format(flags: &Flags, method: Method) -> Result<Option<Format>, Error> {
    let asked = given(&flags.image_format).map(|text| value("image-format", text)).transpose()?;
    match asked {
        Some(Format::Docker) if !flags.annotations.is_empty() => Err(Error::DockerAnnotations),
        Some(Format::Docker) if method == Method::Zstd => Err(Error::DockerZstd),
        None if !flags.annotations.is_empty() || method == Method::Zstd => Ok(Some(Format::Oci)),
        _ => Ok(asked),
    }
}

fn output(flags: &Flags, no_push_variable: Option<&str>) -> Result<Output, Error> {
    let no_push = match no_push_variable {
        // kaniko lets the variable win
        Some(text) => flags::boolean(text).map_err(|_| Error::BadVariable {
            name: "KANIKO_NO_PUSH",
            value: text.to_owned(),
            wanted: "true or false",
        })?,
        None => flags.no_push,
    };
    let destinations =
        flags.destinations.iter().map(|text| value("destination", text)).collect::<Result<Vec<Destination>, _>>()?;
    if destinations.is_empty() && !no_push {
        return Err(Error::NoDestination);
    }
    Ok(Output {
        destinations,
        push: !no_push,
        tarball: given(&flags.tar_path).map(absolute).transpose()?,
        oci_layout: given(&flags.oci_layout_path).map(absolute).transpose()?,
        results: Vec::new(),
    })
}

fn result_files(flags: &Flags, output: &Output, variable: Variable<'_>) -> Result<ResultFiles, Error> {
    let named = |flag, file| match file_place(flag, file)? {
        Some(_) if output.destinations.is_empty() => Err(Error::NeedsDestination { flag }),
        place => Ok(place),
    };
    Ok(ResultFiles {
        digest_file: file_place("digest-file", &flags.digest_file)?,
        image_name_with_digest_file: named("image-name-with-digest-file", &flags.image_name_with_digest_file)?,
        image_name_tag_with_digest_file: named(
            "image-name-tag-with-digest-file",
            &flags.image_name_tag_with_digest_file,
        )?,
        // set by Skaffold and Tekton; lists what was pushed
        builder_output: variable("BUILDER_OUTPUT")
            .filter(|directory| !directory.is_empty() && output.push)
            .map(absolute)
            .transpose()?,
    })
}

fn file_place(flag: &'static str, typed: &Option<String>) -> Result<Option<FilePlace>, Error> {
    match given(typed).map(|text| value(flag, text)).transpose()? {
        Some(FilePlace::Path(path)) => absolute(path).map(FilePlace::Path).map(Some),
        place => Ok(place),
    }
}

/// While it is still known what a path is relative to: the build may take the current directory away.
pub(super) fn absolute(path: impl AsRef<Path>) -> Result<PathBuf, Error> {
    let path = path.as_ref();
    std::path::absolute(path).map_err(|source| Error::CurrentDirectory { path: path.to_owned(), source })
}

fn build_args(arguments: &[String], variable: Variable<'_>) -> Result<Vec<(String, Option<String>)>, Error> {
    let resolve = |text: &String| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
        None => Ok((text.clone(), text_variable(variable, text)?)),
    };
    arguments.iter().map(resolve).collect()
}

/// As many as the cgroup and the CPU set give us, unless the variable that steers kaniko's (and every Go program's) says
/// otherwise; Go ignores values that are no positive number.
fn threads(variable: Option<&str>) -> NonZeroUsize {
    let usual = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    variable.and_then(|text| text.trim().parse().ok()).unwrap_or_else(usual)
}

/// In place there is one root. Elsewhere as many stages are built at the same time as was asked for, else as there are threads,
/// and there is memory for.
fn jobs(flags: &Flags, isolation: Isolation, threads: NonZeroUsize) -> NonZeroUsize {
    match (isolation, flags.jobs) {
        (Isolation::InPlace, asked) => {
            if asked.is_some_and(|asked| asked > NonZeroUsize::MIN) {
                tracing::info!("Stages are built one after another, for in place there is one root");
            }
            NonZeroUsize::MIN
        }
        (Isolation::Namespaces, Some(asked)) => asked,
        (Isolation::Namespaces, None) => threads.min(jobs_in(memory_limit_bytes().unwrap_or(u64::MAX))),
    }
}

fn jobs_in(memory_bytes: u64) -> NonZeroUsize {
    let jobs = usize::try_from(memory_bytes / JOB_MEMORY_BYTES).unwrap_or(usize::MAX);
    NonZeroUsize::new(jobs).unwrap_or(NonZeroUsize::MIN)
}

fn source_date_epoch(text: Option<String>) -> Result<Option<i64>, Error> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let wanted = "a number of seconds since 1970";
    text.parse().map(Some).map_err(|_| Error::BadVariable { name: "SOURCE_DATE_EPOCH", value: text.clone(), wanted })
}

fn http_settings(flags: &Flags, work_dir: &Path, variable: Variable<'_>) -> Result<http::Settings, Error> {
    let usual = http::Settings::default();
    let user_agent = match text_variable(variable, "UPSTREAM_CLIENT_TYPE")?.filter(|text| !text.is_empty()) {
        Some(client) => format!("{},{client}", usual.user_agent),
        None => usual.user_agent,
    };
    let mut authorities = BTreeMap::new();
    for entry in filled(&flags.registry_certificates) {
        let (registry, file) = pair("registry-certificate", entry)?;
        authorities.insert(registry::canonical(&registry).to_owned(), file.into());
    }
    let mut identities = BTreeMap::new();
    for entry in filled(&flags.registry_client_certs) {
        let (registry, files) = pair("registry-client-cert", entry)?;
        let (certificate, key) = files.split_once(',').ok_or_else(|| Error::BadForm {
            flag: "registry-client-cert",
            value: entry.clone(),
            form: CLIENT_CERT,
        })?;
        identities.insert(registry::canonical(&registry).to_owned(), (certificate.into(), key.into()));
    }
    let extra_ca_directories = own_places(work_dir).map(|place| place.join("ssl/certs")).collect();
    Ok(http::Settings { authorities, identities, extra_ca_directories, user_agent, ..usual })
}

fn registry_settings(flags: &Flags, variable: Variable<'_>) -> Result<registry::Settings, Error> {
    let text = |name: &'static str| Ok::<_, Error>(text_variable(variable, name)?.filter(|text| !text.is_empty()));
    let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entries in flags.registry_maps.iter().cloned().chain(text("KANIKO_REGISTRY_MAP")?) {
        for entry in entries.split(';').filter(|entry| !entry.trim().is_empty()) {
            let (registry, other) = pair("registry-map", entry.trim())?;
            map.entry(registry::canonical(&registry).to_owned()).or_default().push(other);
        }
    }
    Ok(registry::Settings {
        insecure_push: flags.insecure,
        insecure_pull: flags.insecure_pull,
        insecure_registries: filled(&flags.insecure_registries).cloned().collect(),
        skip_tls_verify_push: flags.skip_tls_verify,
        skip_tls_verify_pull: flags.skip_tls_verify_pull,
        skip_tls_verify_registries: filled(&flags.skip_tls_verify_registries).cloned().collect(),
        map,
        mirrors: filled(&flags.registry_mirrors).cloned().chain(text("KANIKO_REGISTRY_MIRROR")?).collect(),
        skip_default_fallback: flags.skip_default_registry_fallback,
        push_retry: flags.push_retry,
        download_retry: flags.image_download_retry,
        ignore_immutable_tag_errors: flags.push_ignore_immutable_tag_errors,
    })
}

/// Where docker, and kaniko's image, keep `config.json`. A variable that points into `/kaniko` follows the work directory; one
/// that names a file, as only kaniko takes it, means that file.
fn docker_config_files(work_dir: &Path, variable: Variable<'_>) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    match variable("DOCKER_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from) {
        Some(directory) => {
            if let Ok(inside) = directory.strip_prefix(IMAGE_DIR) {
                directories.push(work_dir.join(inside));
            }
            directories.push(directory);
        }
        None => directories.extend(variable("HOME").map(|home| Path::new(&home).join(".docker"))),
    }
    directories.extend(own_places(work_dir).map(|place| place.join(".docker")));
    let mut files: Vec<PathBuf> = Vec::new();
    for place in directories {
        let file = if place.is_file() { place } else { place.join("config.json") };
        if !files.contains(&file) {
            files.push(file);
        }
    }
    files
}

/// The work directory and, where that was moved, the place in the image.
fn own_places(work_dir: &Path) -> impl Iterator<Item = PathBuf> {
    let image_dir = Path::new(IMAGE_DIR);
    [work_dir, image_dir].into_iter().take(if work_dir == image_dir { 1 } else { 2 }).map(Path::to_path_buf)
}

const CLIENT_CERT: &str = "REGISTRY=CERTIFICATE,KEY";

/// A flag's value, where an empty one is as good as none.
pub(super) fn given(flag: &Option<String>) -> Option<&str> {
    flag.as_deref().filter(|text| !text.is_empty())
}

/// The same of a flag that collects.
fn filled(flag: &[String]) -> impl Iterator<Item = &String> {
    flag.iter().filter(|text| !text.is_empty())
}

pub(super) fn value<T>(flag: &'static str, text: &str) -> Result<T, Error>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    text.parse().map_err(|source| bad_value(flag, text, source))
}

pub(super) fn bad_value(
    flag: &'static str,
    text: impl ToString,
    source: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::BadValue { flag, value: text.to_string(), source: Box::new(source) }
}

pub(super) fn pair(flag: &'static str, text: &str) -> Result<(String, String), Error> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Error::BadForm { flag, value: text.to_owned(), form: "NAME=VALUE" }),
    }
}

pub(super) fn text_variable(variable: Variable<'_>, name: &str) -> Result<Option<String>, Error> {
    let text = |value: OsString| value.into_string().map_err(|_| Error::VariableNotText { name: name.to_owned() });
    variable(name).map(text).transpose()
}

#[cfg(test)]
#[path = "settings_tests.rs"]
pub(super) mod tests;
