//! Flags as typed: kaniko's spellings, read with the habits of Go's flag library.
//!
//! Those habits, which scripts rely on: a boolean may stand alone or have a value after `=` (`--cache=false`, in all
//! of Go's spellings), any other flag takes the next word whatever it looks like, and of a flag given twice the last
//! one counts unless it collects. An empty value is as good as none.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::builder::ArgAction;
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::duration;

/// Builds a container image from a Dockerfile, inside a container and without a daemon, and pushes it.
#[derive(Debug, Parser)]
#[command(name = "executor", disable_version_flag = true, args_override_self = true, max_term_width = 100)]
#[command(override_usage = "executor [OPTIONS]\n       executor version")]
pub(super) struct Flags {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    /// Build context: a directory, dir://PATH, tar://PATH, tar://stdin, git://HOST/PATH#REFERENCE#COMMIT or
    /// https://….git#REF:DIRECTORY
    #[arg(short, long, default_value = "/workspace/")]
    pub(super) context: String,
    /// Files or an image for FROM and COPY --from: NAME=DIRECTORY, NAME=docker-image://IMAGE,
    /// NAME=oci-layout://DIRECTORY:TAG, NAME=https://… for a tar, or NAME=https://….git for a repository; may be repeated
    #[arg(long = "build-context", value_name = "NAME=PLACE")]
    pub(super) build_contexts: Vec<String>,
    /// Directory inside the context to use as the context
    #[arg(long, value_name = "PATH")]
    pub(super) context_sub_path: Option<String>,
    /// How to clone a git context: branch, single-branch, recurse-submodules, depth, insecure-skip-tls
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub(super) git: Option<String>,
    /// The Dockerfile: a path is looked for in the current directory and then in the context; - is standard input. Without
    /// it, Dockerfile, or Containerfile in the context
    #[arg(short = 'f', long, value_name = "PATH|URL|-")]
    pub(super) dockerfile: Option<String>,
    /// Name to push the image to; may be repeated
    #[arg(short, long = "destination", value_name = "IMAGE")]
    pub(super) destinations: Vec<String>,
    /// NAME=VALUE for an ARG, or NAME to take the value from the environment; may be repeated
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(super) build_args: Vec<String>,
    /// Stage to build; the last one if none is named
    #[arg(long, value_name = "STAGE")]
    pub(super) target: Option<String>,
    /// KEY=VALUE to add to the image's labels; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(super) labels: Vec<String>,
    /// KEY=VALUE to annotate the image's manifest with; may be repeated
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    pub(super) annotations: Vec<String>,
    /// Media types of the image, instead of those of its base
    #[arg(long, value_name = "docker|oci")]
    pub(super) image_format: Option<String>,
    /// Platform of base images that name none, instead of this machine's
    #[arg(long, alias = "customPlatform", value_name = "OS/ARCH[/VARIANT]")]
    pub(super) custom_platform: Option<String>,
    /// Stages to build at the same time, each in a root of its own; in place one after another
    /// [default: as many as there are CPUs, and memory allows]
    #[arg(long, value_name = "NUMBER")]
    pub(super) jobs: Option<NonZeroUsize>,
    /// How long the build may take, pushes included, such as 90s or 1h30m; 0 for as long as it likes
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = duration::parse)]
    pub(super) build_timeout: Duration,
    /// How long each RUN may take; 0 for as long as it likes
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = duration::parse)]
    pub(super) run_timeout: Duration,
    /// Build only the stages that the target needs
    #[arg(long)]
    pub(super) skip_unused_stages: bool,
    /// What to do: build, or check the Dockerfile, for which no image is looked for and nothing is written
    #[arg(long, value_name = "build|check", default_value = "build")]
    pub(super) call: String,

    /// Do not push the image [also: KANIKO_NO_PUSH]
    #[arg(long)]
    pub(super) no_push: bool,
    /// Write the image as a docker-save tarball
    #[arg(long, alias = "tarPath", value_name = "PATH")]
    pub(super) tar_path: Option<String>,
    /// Write the image as an OCI layout
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) oci_layout_path: Option<String>,
    /// File for the image's digest; a URL gets it by PUT
    #[arg(long, value_name = "PATH|URL")]
    pub(super) digest_file: Option<String>,
    /// File for the image's names with digest
    #[arg(long, value_name = "PATH|URL")]
    pub(super) image_name_with_digest_file: Option<String>,
    /// File for the image's names with tag and digest
    #[arg(long, value_name = "PATH|URL")]
    pub(super) image_name_tag_with_digest_file: Option<String>,

    /// How files are compared: full, redo or time
    #[arg(long, alias = "snapshotMode", value_name = "MODE", default_value = "full")]
    pub(super) snapshot_mode: String,
    /// How RUN's changes are found: fanotify, inotify, walk, or auto for the first that works
    #[arg(long, value_name = "TRACKER", default_value = "auto")]
    pub(super) change_tracker: String,
    /// Where the root is: in-place (the container's own), namespaces (a directory), or auto: in-place in a container
    #[arg(long, value_name = "WHERE", default_value = "auto")]
    pub(super) isolation: String,
    /// Compare each snapshot with a walk that reads every file, and fail if they differ
    #[arg(long)]
    pub(super) verify_snapshots: bool,
    /// Take one snapshot, at the end of the build
    #[arg(long)]
    pub(super) single_snapshot: bool,
    /// Find RUN's changes with a walk, like --change-tracker=walk
    #[arg(long)]
    pub(super) use_new_run: bool,
    /// Compression of the layers that the build makes; zstd, which docker's media types do not have, makes the image an
    /// OCI image
    #[arg(long, value_name = "gzip|zstd|none", default_value = "gzip")]
    pub(super) compression: String,
    /// Level of the compression: 0 to 9 for gzip, 0 to 22 for zstd, or -1 for the default
    #[arg(long, value_name = "LEVEL", default_value_t = -1)]
    pub(super) compression_level: i32,
    /// Leave times out of the image [SOURCE_DATE_EPOCH: the latest time that may show]
    #[arg(long)]
    pub(super) reproducible: bool,
    /// Path that never becomes part of the image; may be repeated
    #[arg(long = "ignore-path", value_name = "PATH")]
    pub(super) ignore_paths: Vec<String>,
    /// Never make /var/run part of the image
    #[arg(long, alias = "whitelist-var-run", default_value = "true")]
    pub(super) ignore_var_run: bool,
    /// Empty the root at the end of the build
    #[arg(long)]
    pub(super) cleanup: bool,
    /// Remove what is in the root and does not belong there before the build
    #[arg(long)]
    pub(super) pre_cleanup: bool,
    /// Build although this does not look like a container, or like a fresh one
    #[arg(long)]
    pub(super) force: bool,
    /// Directory that is the executor's own [also: KANIKO_DIR]
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) kaniko_dir: Option<String>,

    /// Push over plain HTTP
    #[arg(long)]
    pub(super) insecure: bool,
    /// Pull over plain HTTP
    #[arg(long)]
    pub(super) insecure_pull: bool,
    /// Registry to speak plain HTTP with; may be repeated
    #[arg(long = "insecure-registry", value_name = "REGISTRY")]
    pub(super) insecure_registries: Vec<String>,
    /// Push without verifying certificates
    #[arg(long)]
    pub(super) skip_tls_verify: bool,
    /// Pull without verifying certificates
    #[arg(long)]
    pub(super) skip_tls_verify_pull: bool,
    /// Registry whose certificate is not verified; may be repeated
    #[arg(long = "skip-tls-verify-registry", value_name = "REGISTRY")]
    pub(super) skip_tls_verify_registries: Vec<String>,
    /// Certificate authorities of a registry; may be repeated
    #[arg(long = "registry-certificate", value_name = "REGISTRY=PATH")]
    pub(super) registry_certificates: Vec<String>,
    /// Certificate and key to show to a registry; may be repeated
    #[arg(long = "registry-client-cert", value_name = "REGISTRY=CERTIFICATE,KEY")]
    pub(super) registry_client_certs: Vec<String>,
    /// Where to look for a registry's images first; may be repeated [also: KANIKO_REGISTRY_MAP]
    #[arg(long = "registry-map", value_name = "REGISTRY=OTHER[;…]")]
    pub(super) registry_maps: Vec<String>,
    /// Where to look for Docker Hub's images first; may be repeated [also: KANIKO_REGISTRY_MIRROR]
    #[arg(long = "registry-mirror", value_name = "MIRROR")]
    pub(super) registry_mirrors: Vec<String>,
    /// Fail when no mirror has an image, instead of asking the registry itself
    #[arg(long)]
    pub(super) skip_default_registry_fallback: bool,
    /// Do not check before the build whether pushing is allowed
    #[arg(long)]
    pub(super) skip_push_permission_check: bool,
    /// A tag that exists and must not change counts as pushed
    #[arg(long)]
    pub(super) push_ignore_immutable_tag_errors: bool,
    /// Further tries to push an image
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(super) push_retry: u32,
    /// Further tries to download an image
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(super) image_download_retry: u32,
    /// Further tries to unpack a base image
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(super) image_fs_extract_retry: u32,

    /// What is logged: panic, fatal, error, warn, info, debug or trace
    #[arg(short, long, value_name = "LEVEL", default_value = "info")]
    pub(super) verbosity: String,
    /// Form of the log: text, color or json
    #[arg(long, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,
    /// Time of day in the log
    #[arg(long)]
    pub(super) log_timestamp: bool,

    #[command(flatten)]
    pub(super) other: OtherFlags,
}

/// kaniko's flags whose features are not there yet, or need nothing to be done: accepted unless their value asks for a
/// feature (`refusals` decides).
#[derive(Debug, Parser)]
#[command(next_help_heading = "Accepted, without effect or refused where they ask for what is not there yet")]
pub(super) struct OtherFlags {
    /// Cache layers
    #[arg(long)]
    pub(super) cache: bool,
    /// Directory of cached base images
    #[arg(long, value_name = "DIRECTORY", default_value = "/cache")]
    pub(super) cache_dir: String,
    /// Repository of cached layers
    #[arg(long, value_name = "REPOSITORY")]
    pub(super) cache_repo: Option<String>,
    /// Cache layers of COPY
    #[arg(long)]
    pub(super) cache_copy_layers: bool,
    /// Cache layers of RUN
    #[arg(long, default_value = "true")]
    pub(super) cache_run_layers: bool,
    /// How long cached layers are good for
    #[arg(long, value_name = "DURATION", default_value = "336h", value_parser = duration::checked)]
    pub(super) cache_ttl: String,
    /// Do not push cached layers
    #[arg(long)]
    pub(super) no_push_cache: bool,
    /// Nothing: compressed layers are never kept in memory
    #[arg(long, default_value = "true")]
    pub(super) compressed_caching: bool,
    /// Secret for RUN --mount=type=secret; may be repeated
    #[arg(long = "secret", value_name = "id=ID,…")]
    pub(super) secrets: Vec<String>,
    /// Credential helpers to ask; may be repeated
    #[arg(long = "credential-helpers", value_name = "HELPER")]
    pub(super) credential_helpers: Vec<String>,
    /// Print the plan and stop
    #[arg(long)]
    pub(super) dryrun: bool,
    /// Leave the root as the target stage has it
    #[arg(long)]
    pub(super) materialize: bool,
    /// Keep the context in a cleaned root
    #[arg(long)]
    pub(super) preserve_context: bool,
    #[arg(long, hide = true)]
    pub(super) force_build_metadata: bool,
    #[arg(short, long, hide = true)]
    pub(super) bucket: Option<String>,
    #[arg(long, hide = true)]
    pub(super) azure_container_registry_config: Option<String>,
}

/// What else the executor can do.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Command {
    /// Print the version
    Version,
}

/// The command line with Go's habits.
pub(super) fn command() -> clap::Command {
    Flags::command().mut_args(with_go_habits)
}

/// Reads a command line, the program's name first.
pub(super) fn parse(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Flags, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    Flags::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn with_go_habits(argument: Arg) -> Arg {
    match argument.get_action() {
        ArgAction::SetTrue => {
            let default =
                if argument.get_default_values().iter().any(|value| value == "true") { "true" } else { "false" };
            argument
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .default_value(default)
                .value_parser(boolean)
                .value_name("BOOL")
                .hide_possible_values(true)
                .hide_default_value(default == "false")
        }
        ArgAction::Set | ArgAction::Append => argument.allow_hyphen_values(true),
        _ => argument,
    }
}

/// A boolean in Go's spellings.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("neither true nor false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &str) -> Flags {
        let words = std::iter::once("executor").chain(arguments.split_whitespace());
        parse(words.map(Into::into)).unwrap_or_else(|error| panic!("{arguments}: {error}"))
    }

    #[test]
    fn booleans_as_go_reads_them() {
        for (typed, cache, cache_run_layers) in [
            ("", false, true),
            ("--cache", true, true),
            ("--cache=true --cache-run-layers=false", true, false),
            ("--cache=T --cache-run-layers=0", true, false),
            ("--cache --cache=false", false, true),
            ("--cache=false --cache=1", true, true),
        ] {
            let other = parsed(typed).other;
            assert_eq!((other.cache, other.cache_run_layers), (cache, cache_run_layers), "{typed}");
        }
        let refused = parse(["executor", "--cache=yes"].map(Into::into)).expect_err("no boolean of Go's");
        assert!(refused.to_string().contains("neither true nor false"), "{refused}");
    }

    #[test]
    fn a_boolean_leaves_the_next_word_alone() {
        let flags = parsed("--no-push --context /c");
        assert!(flags.no_push);
        assert_eq!(flags.context, "/c");
        assert!(parse(["executor", "--no-push", "false"].map(Into::into)).is_err(), "false is no flag");
    }

    #[test]
    fn values_with_a_space_an_equals_sign_or_a_short_name() {
        for typed in
            ["--context /c --dockerfile /d", "--context=/c --dockerfile=/d", "-c /c -f /d", "-c=/c -f=/d", "-c/c -f/d"]
        {
            let flags = parsed(typed);
            assert_eq!((&*flags.context, flags.dockerfile.as_deref()), ("/c", Some("/d")), "{typed}");
        }
    }

    #[test]
    fn a_value_may_look_like_a_flag() {
        assert_eq!(parsed("--build-arg --x=1 --no-push").build_args, ["--x=1"]);
        assert_eq!(parsed("--compression-level -1").compression_level, -1);
    }

    #[test]
    fn repeated_flags_collect_and_single_ones_are_overwritten() {
        let flags = parsed("-d a -d b --destination c --target x --target y");
        assert_eq!(flags.destinations, ["a", "b", "c"]);
        assert_eq!(flags.target.as_deref(), Some("y"));
    }

    #[test]
    fn values_are_not_split() {
        let flags = parsed("--build-arg A=1,2 --label k=a,b --registry-map a=b;c=d");
        assert_eq!((&*flags.build_args[0], &*flags.labels[0], &*flags.registry_maps[0]), ("A=1,2", "k=a,b", "a=b;c=d"));
    }

    #[test]
    fn deprecated_spellings() {
        let flags = parsed("--customPlatform linux/arm64 --snapshotMode=redo --tarPath /t --whitelist-var-run=false");
        assert_eq!(flags.custom_platform.as_deref(), Some("linux/arm64"));
        assert_eq!(flags.snapshot_mode, "redo");
        assert_eq!(flags.tar_path.as_deref(), Some("/t"));
        assert!(!flags.ignore_var_run);
    }

    #[test]
    fn what_is_no_flag_is_refused_with_a_hint() {
        let unknown = parse(["executor", "--destinaton=x"].map(Into::into)).expect_err("misspelt");
        assert!(unknown.to_string().contains("--destination"), "{unknown}");
        assert!(parse(["executor", "something"].map(Into::into)).is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
