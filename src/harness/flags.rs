//! What can be typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::counts;
use super::workload::WORKLOADS;

/// Compares whole builds, and measures what they rest on.
#[derive(Debug, Parser)]
#[command(name = "harness", max_term_width = 100)]
pub(super) struct Flags {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Runs builders in turn, compares their images, and prints medians and ratios
    ///
    /// Needs root, and podman, runc, skopeo and docker-registry; each builder what it needs itself. Every build starts
    /// with empty storage or in a fresh container, takes its base from a registry on loopback, and pushes to it. Measured
    /// are the wall time, the CPU time of all that ran in the builder's cgroup (commands of RUN included), the highest
    /// peak of memory (VmHWM) among the builder's processes, looked at every 5 ms, and what the image has beyond its base.
    #[command(after_long_help = ADDING)]
    Builds(Box<Builds>),
    /// Prints how many bytes a path takes in the root index, and how long it takes to find one
    Index(Index),
    /// Prints what a snapshot costs after a few files of a large root have changed: exact counts and CPU time
    Snapshot(Snapshot),
    /// Prints what being watched costs commands that work on many files, under each tracker; needs tar
    Tracking(Tracking),
    /// Prints what building independent stages at the same time gains; needs busybox-static, and root or a user namespace
    Stages(Stages),
    /// Prints how many instructions parsing an event, finding a path and other hot paths take; needs valgrind
    Counts(Counts),
}

const ADDING: &str = "\
Builders:
  kanna, kanna-fanotify, kanna-inotify, kanna-walk, kanna-redo, kanna-time, kanna-isolated and buildah are known by name;
  fanotify runs without a seccomp profile, as Kubernetes' pods do, and what is isolated without a container, as root. Any
  other is NAME@PROCESS=COMMAND, where PROCESS is the name of the processes whose memory counts (as in /proc/PID/comm)
  and COMMAND is split like a shell's words; no shell reads it. The base is at a registry that speaks plain HTTP, and so
  must the builder. In the words stand:
    {container}    a whole word: `podman run` of a fresh unprivileged container with Docker's capabilities, the host's
                   network, and the context at /workspace; more options of podman may follow, then the image. Only
                   what runs in the container is measured, not podman
    {kanna}        a whole word: after {container} the image of --executor, without it that program in an isolated root,
                   and the flags to build and push; more flags may follow
    {context}      the folder of the context, which has the Dockerfile
    {dockerfile}   the path of the Dockerfile
    {destination}  the name to push to (plain HTTP)
    {registry}     the registry, 127.0.0.1:PORT
    {state}        an empty folder, removed after the build. CONTAINERS_STORAGE_CONF names storage in it

  kanna with another flag, in a container without a seccomp profile:
    --builder 'slow@executor={container} --security-opt=seccomp=unconfined {kanna} --compression-level=9'
  kaniko, from an image saved with `skopeo copy docker://… docker-archive:kaniko.tar:kaniko:1`:
    --load kaniko.tar --builder 'kaniko@executor={container} localhost/kaniko:1 --context=dir:///workspace
      --destination={destination} --insecure --insecure-pull'
  BuildKit, which needs a privileged container:
    --load buildkit.tar --builder 'buildkit@buildkitd={container} --privileged --entrypoint=buildctl-daemonless.sh
      localhost/buildkit:1 build --frontend=dockerfile.v0 --local=context=/workspace --local=dockerfile=/workspace
      --output=type=image,name={destination},push=true,registry.insecure=true'";

#[derive(Debug, Args)]
pub(super) struct Builds {
    /// kanna's executor, for {kanna}
    #[arg(long, value_name = "PATH")]
    pub(super) executor: Option<PathBuf>,
    /// A builder, by name or as NAME@PROCESS=COMMAND (--help says how); may be repeated
    #[arg(long = "builder", value_name = "BUILDER", default_values = ["kanna", "buildah"])]
    pub(super) builders: Vec<String>,
    /// The builder that ratios are taken to; the last one if none is named
    #[arg(long, value_name = "NAME")]
    pub(super) baseline: Option<String>,
    /// An archive of images for `podman load`; may be repeated
    #[arg(long = "load", value_name = "PATH")]
    pub(super) archives: Vec<PathBuf>,
    /// What to build; may be repeated; all if none is named
    #[arg(long = "workload", value_name = "NAME", value_parser = WORKLOADS.map(|workload| workload.name))]
    pub(super) workloads: Vec<String>,
    #[command(flatten)]
    pub(super) sizes: Sizes,
    /// Builds of each builder
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) repeat: u32,
    /// Seconds after which a build is ended and counts as failed
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(super) limit: u64,
    /// Folder for all that is written; with the default sizes 15 GB are needed, on no overlay
    #[arg(long, value_name = "PATH", default_value = "target")]
    pub(super) work: PathBuf,
    /// File for the figures as JSON
    #[arg(long, value_name = "PATH")]
    pub(super) json: Option<PathBuf>,
    /// How the figures are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(super) format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A table in Markdown
    Table,
    /// What --json writes
    Json,
}

/// How large the workloads are.
#[derive(Debug, Clone, Args)]
pub(super) struct Sizes {
    /// Files that are there before, in the base or the context
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) files: u32,
    /// Files that a RUN makes
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) new_files: u32,
    /// Bytes of each file that is there before
    #[arg(long, value_name = "BYTES", default_value_t = 2048)]
    pub(super) file_bytes: u32,
    /// MiB that a RUN writes into one file
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) data_mib: u32,
    /// RUNs that change little
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) runs: u32,
    /// Files that each of them changes
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) changes: u32,
}

#[derive(Debug, Args)]
pub(super) struct Index {
    /// Paths to index
    #[arg(long, value_name = "N", default_value_t = 700_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) files: u32,
}

#[derive(Debug, Args)]
pub(super) struct Tracking {
    /// Files that the commands work on
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) files: u32,
    /// Runs of each command under each tracker
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) repeat: u32,
    /// Folder for the root
    #[arg(long, value_name = "PATH", default_value = "target")]
    pub(super) work: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Stages {
    /// kanna's executor
    #[arg(long, value_name = "PATH")]
    pub(super) executor: PathBuf,
    /// Stages of equal work
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) stages: u32,
    /// Stages at the same time, beside one
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..))]
    pub(super) jobs: u32,
    /// To what each stage counts
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    pub(super) iterations: u32,
    /// Builds of each kind
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) repeat: u32,
    /// Folder for all that is written
    #[arg(long, value_name = "PATH", default_value = "target")]
    pub(super) work: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Counts {
    /// Goes through one hot path and counts nothing: what is run to be counted
    #[arg(long, value_name = "NAME", hide = true, value_parser = counts::names())]
    pub(super) only: Option<String>,
    /// How often
    #[arg(long, value_name = "N", hide = true, default_value_t = 1)]
    pub(super) times: u32,
}

#[derive(Debug, Args)]
pub(super) struct Snapshot {
    /// Files of a root; several numbers are several roots
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [10_000, 100_000, 700_000],
        value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) files: Vec<u32>,
    /// Files that change
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) changes: u32,
    /// Snapshots of each tracker
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) repeat: u32,
    /// Folder for the roots; 700,000 small files take 3 GB
    #[arg(long, value_name = "PATH", default_value = "target")]
    pub(super) work: PathBuf,
}

impl Flags {
    pub(super) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Flags, clap::Error> {
        Flags::try_parse_from(arguments)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_are_well_formed() {
        Flags::command().debug_assert();
    }
}
