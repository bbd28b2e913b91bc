//! kanna builds container images from Dockerfiles without a daemon, inside an ordinary unprivileged
//! container, and pushes them to a registry: a drop-in replacement for kaniko.
//!
//! # The map
//!
//! Imports only go down; rooms on the same floor do not know each other (`tests/it/layering.rs` holds
//! this table and fails when an import climbs).
//!
//! ```text
//! floor 6    cli          flags as typed -> settings as meant; printing, hints, exit codes
//!            harness      whole builds beside those of other builders, as ratios
//! floor 5    build        the story: plan, stages, steps, and the image that comes out
//! floor 3    image        config, manifest, history; tarball and OCI layout output
//! floor 2    snapshot     what changed? trackers and snapshot modes
//!            layer        changeset <-> layer blob: tar, whiteouts, compression, digests, extraction
//!            run          one RUN: process, user, environment
//!            context      where build files come from (dir, tar); .dockerignore
//!            registry     pull, push, mirrors, retries
//! floor 1    rootfs       the root under construction; what to ignore; safe file access beneath it
//!            blobs        the content-addressed blob store in the work directory
//!            http         requests: trust, retries, redirects; files from and to plain addresses
//!            credentials  config.json, helpers, environment: who are we for this registry?
//!            dockerfile   text -> instructions
//! floor 0    tree         words for files:  ImagePath, Node, RootIndex, Changeset
//!            oci          words for images: Digest, DiffId, Descriptor, Reference, Platform
//!            sys          words to the kernel: thin syscall wrappers
//! ```
//!
//! # A line's journey
//!
//! `RUN make install`: [`dockerfile`] makes an instruction of it; [`build`] expands its variables and plans a
//! step; [`layer`] extracts the base, once, and fills the [`tree::RootIndex`] on the way; [`run`] runs the
//! command; [`snapshot`] says what changed; [`layer`] writes the [`tree::Changeset`] as a blob into
//! [`blobs`]; [`image`] appends it with its history; [`registry`] pushes what is missing.

pub mod blobs;
pub mod build;
pub mod cli;
pub mod context;
pub mod credentials;
pub mod dockerfile;
pub mod harness;
pub mod http;
pub mod image;
pub mod layer;
pub mod oci;
pub mod registry;
pub mod rootfs;
pub mod run;
pub mod snapshot;
pub mod sys;
pub mod tree;
