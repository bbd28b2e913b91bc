//! The flags of RUN: `--mount`, `--network`, `--security`, `--device`.

mod options;

use super::error::did_you_mean;
use super::expand::{ExpandError, Expander, Lookup};
use super::records::{csv_fields, go_bool, key_and_value};
use super::suggest::nearest;
pub use options::MOUNT_OPTIONS;

use options::Options;

/// Where RUN finds a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The build's network.
    Default,
    /// Loopback only.
    None,
    /// The host's network.
    Host,
}

/// What RUN may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// As every RUN.
    Sandbox,
    /// With all capabilities.
    Insecure,
}

/// `--device`: a CDI device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name or class.
    pub name: String,
    /// Without it the build fails.
    pub required: bool,
}

/// `--mount` as it was written; its values may hold variables, so it is read again by [`MountFlag::resolve`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlag {
    /// The value of the flag.
    pub raw: String,
    /// Keys in lower case; the value where there was a `=`.
    options: Vec<(String, Option<String>)>,
}

/// A mount for one RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it appears; `None` where it was not given.
    pub target: Option<String>,
    /// Whether RUN can write there.
    pub read_only: bool,
    /// What appears there.
    pub kind: MountKind,
}

/// The types of mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    Bind {
        /// Stage, image or named context; `None` is the context.
        from: Option<String>,
        /// Path in it; empty is its root.
        source: String,
    },
    /// A directory that outlives the build.
    Cache {
        /// Its name; `None` is the target.
        id: Option<String>,
        /// What is in it at first: stage, image or named context.
        from: Option<String>,
        /// Path in it; empty is its root.
        source: String,
        /// Who may use it at the same time.
        sharing: Sharing,
        /// Mode and owner of a new directory.
        ownership: Ownership,
    },
    /// Memory.
    Tmpfs {
        /// Its limit.
        size_bytes: Option<u64>,
    },
    /// A secret as a file or a variable.
    Secret {
        /// Its name; `None` is the last part of the target.
        id: Option<String>,
        /// The variable that holds it; no file then, unless a target is given.
        env: Option<String>,
        /// Without it the build fails.
        required: bool,
        /// Mode and owner of the file.
        ownership: Ownership,
    },
    /// An SSH agent's socket.
    Ssh {
        /// Its name; `None` is `default`.
        id: Option<String>,
        /// Without it the build fails.
        required: bool,
        /// Mode and owner of the socket.
        ownership: Ownership,
    },
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Any number of RUNs.
    #[default]
    Shared,
    /// Each its own.
    Private,
    /// One after the other.
    Locked,
}

/// Mode and owner of what a mount makes, where given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ownership {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// What can be wrong with `--mount` or `--device`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMount {
    /// Quotes that do not pair.
    #[error("the list of options has an unbalanced quote")]
    Quote,
    /// A type that does not exist.
    #[error("{0:?} is no mount type; bind, cache, tmpfs, secret and ssh are")]
    Type(String),
    /// An option that does not exist.
    #[error("unknown option {name:?}{}", did_you_mean("", *.suggestion))]
    UnknownOption {
        /// The option.
        name: String,
        /// The nearest known one.
        suggestion: Option<&'static str>,
    },
    /// An option that this type does not have.
    #[error("a {kind} mount has no option {option:?}")]
    Misplaced {
        /// The option.
        option: &'static str,
        /// The type.
        kind: &'static str,
    },
    /// An option that needs a value.
    #[error("the option {0:?} needs a value: {0}=value")]
    NeedsValue(String),
    /// A value of the wrong form.
    #[error("the option {option:?} cannot be {value:?}")]
    Value {
        /// The option.
        option: String,
        /// Its value.
        value: String,
    },
    /// A secret without id, source or target.
    #[error("a secret needs an id or a target")]
    SecretWithoutName,
    /// A secret with an id and a source.
    #[error("a secret takes id or source, not both")]
    SecretWithTwoNames,
    /// A variable in `from`.
    #[error("variables are not replaced in from: add a stage FROM {0} AS name and mount from that name")]
    VariableInFrom(String),
    /// A device without a name.
    #[error("a device needs a name")]
    DeviceWithoutName,
    /// A value that cannot be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
}

impl BadMount {
    pub(super) fn suggestion(&self) -> Option<&'static str> {
        match self {
            BadMount::UnknownOption { suggestion, .. } => *suggestion,
            BadMount::Type(name) => nearest(name, ["bind", "cache", "tmpfs", "secret", "ssh"]),
            _ => None,
        }
    }
}

impl MountFlag {
    /// Splits the options. A mount without variables is checked whole, so that mistakes have their line.
    pub(super) fn parse(raw: String) -> Result<MountFlag, BadMount> {
        let options: Vec<_> = csv_fields(&raw).ok_or(BadMount::Quote)?.into_iter().map(key_and_value).collect();
        for (key, value) in &options {
            if let ("from", Some(value)) = (key.as_str(), value) {
                let has_variable = value.split_once('$').is_some_and(|(_, after)| !after.is_empty());
                if has_variable {
                    return Err(BadMount::VariableInFrom(value.clone()));
                }
            }
        }
        let flag = MountFlag { raw, options };
        if !flag.raw.contains('$') {
            flag.resolve(&|_| None, '\\')?;
        }
        Ok(flag)
    }

    /// The mount, with the variables in force.
    pub fn resolve(&self, lookup: &Lookup<'_>, escape: char) -> Result<Mount, BadMount> {
        let mut options = Options::default();
        for (key, value) in &self.options {
            let value = match value {
                Some(value) => Some(Expander::new(lookup, escape).expand(value)?.text),
                None => None,
            };
            options.take(key, value)?;
        }
        options.into_mount()
    }
}

impl Device {
    pub(super) fn parse(raw: &str) -> Result<Device, BadMount> {
        let mut device = Device { name: String::new(), required: false };
        for field in csv_fields(raw).ok_or(BadMount::Quote)? {
            let (key, value) = key_and_value(field.clone());
            match (key.as_str(), value) {
                ("required", None) => device.required = true,
                ("required", Some(value)) => {
                    device.required = go_bool(&value).ok_or(BadMount::Value { option: key, value })?;
                }
                ("name", Some(value)) if device.name.is_empty() => device.name = value,
                _ if device.name.is_empty() => device.name = field,
                _ => {
                    let suggestion = nearest(&key, ["name", "required"]);
                    return Err(BadMount::UnknownOption { name: key, suggestion });
                }
            }
        }
        if device.name.is_empty() { Err(BadMount::DeviceWithoutName) } else { Ok(device) }
    }
}

#[cfg(test)]
mod tests;
