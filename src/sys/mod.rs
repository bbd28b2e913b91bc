//! Words to the kernel: thin wrappers, one call each, and the only room that may hold `unsafe`.
//!
//! What `rustix` and `nix` wrap safely is used through the re-exports here, so that the crate has one door to the
//! kernel and one place that says which library serves what: files, stat, xattrs, processes through `rustix`; mounts
//! and namespaces through `nix`.
//!
//! Not here: decisions. A wrapper takes borrowed file descriptors, gives owned ones, and leaves the error unchanged.

pub mod beneath;
pub mod fanotify;
pub mod inotify;
pub mod mapping;
mod memory;
pub mod mounts;
pub mod process;
mod records;
mod regular;
pub mod signals;
mod stop;
mod until_stopped;

pub use memory::{give_large_memory_back, memory_limit_bytes};
pub use nix;
pub use records::Malformed;
pub use regular::{open_regular, read_at_most, read_regular};
pub use rustix::event;
pub use rustix::fs;
pub use rustix::io::{Errno, ioctl_fionread as bytes_waiting, read};
pub use rustix::thread;
pub use rustix::time;
pub use stop::{Stop, Stopped};
pub use until_stopped::UntilStopped;
