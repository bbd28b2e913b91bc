//! [`Options`]: what was given becomes a mount, if it makes sense together.

use super::super::records::{go_bool, size_bytes};
use super::super::suggest::nearest;
use super::{BadMount, Mount, MountKind, Ownership, Sharing};

/// All options of all mount types.
pub const MOUNT_OPTIONS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "mode",
    "uid",
    "gid",
    "size",
    "env",
];

/// All options of all types, as they were given.
#[derive(Default)]
pub(super) struct Options {
    kind: Option<&'static str>,
    from: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: Option<bool>,
    id: Option<String>,
    env: Option<String>,
    sharing: Option<Sharing>,
    required: Option<bool>,
    size_bytes: Option<u64>,
    ownership: Ownership,
}

impl Options {
    pub(super) fn take(&mut self, key: &str, value: Option<String>) -> Result<(), BadMount> {
        let bad = |value: String| BadMount::Value { option: key.to_owned(), value };
        let flag = |value: Option<String>| match value {
            None => Ok(true),
            Some(value) => go_bool(&value).ok_or_else(|| bad(value)),
        };
        match key {
            "readonly" | "ro" => self.read_only = Some(flag(value)?),
            "readwrite" | "rw" => self.read_only = Some(!flag(value)?),
            "required" => self.required = Some(flag(value)?),
            _ if !MOUNT_OPTIONS.contains(&key) => {
                return Err(BadMount::UnknownOption { name: key.to_owned(), suggestion: nearest(key, MOUNT_OPTIONS) });
            }
            _ => {
                let value = value.ok_or_else(|| BadMount::NeedsValue(key.to_owned()))?;
                self.take_value(key, value)?;
            }
        }
        Ok(())
    }

    fn take_value(&mut self, key: &str, value: String) -> Result<(), BadMount> {
        let bad = |value: String| BadMount::Value { option: key.to_owned(), value };
        let number = |value: String, radix| u32::from_str_radix(&value, radix).map_err(|_| bad(value));
        match key {
            "type" => {
                let kind = ["bind", "cache", "tmpfs", "secret", "ssh"].into_iter().find(|k| *k == value.to_lowercase());
                self.kind = Some(kind.ok_or(BadMount::Type(value))?);
            }
            "from" => self.from = Some(value),
            "source" | "src" => self.source = Some(value),
            "target" | "dst" | "destination" => self.target = Some(value),
            "id" => self.id = Some(value),
            "env" => self.env = Some(value),
            "sharing" => {
                self.sharing = Some(match value.to_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ => return Err(bad(value)),
                });
            }
            "size" => self.size_bytes = Some(size_bytes(&value).ok_or_else(|| bad(value))?),
            "mode" => self.ownership.mode = Some(number(value, 8)?),
            "uid" => self.ownership.uid = Some(number(value, 10)?),
            "gid" => self.ownership.gid = Some(number(value, 10)?),
            _ => return Err(BadMount::UnknownOption { name: key.to_owned(), suggestion: nearest(key, MOUNT_OPTIONS) }),
        }
        Ok(())
    }

    pub(super) fn into_mount(self) -> Result<Mount, BadMount> {
        let kind = self.kind.unwrap_or("bind");
        self.only_options_of(kind)?;
        let Options { from, source, target, id, env, sharing, size_bytes, ownership, .. } = self;
        let from = from.filter(|from| !from.is_empty());
        let id = id.filter(|id| !id.is_empty());
        let target = target.filter(|target| !target.is_empty());
        let required = self.required.unwrap_or(false);
        let source = source.unwrap_or_default();
        let (read_only, kind) = match kind {
            "cache" => {
                let sharing = sharing.unwrap_or_default();
                (false, MountKind::Cache { id, from, source, sharing, ownership })
            }
            "tmpfs" => (false, MountKind::Tmpfs { size_bytes }),
            "secret" => {
                if id.is_some() && !source.is_empty() {
                    return Err(BadMount::SecretWithTwoNames);
                }
                let id = id.or(Some(source).filter(|source| !source.is_empty()));
                if id.is_none() && target.is_none() {
                    return Err(BadMount::SecretWithoutName);
                }
                (true, MountKind::Secret { id, env, required, ownership })
            }
            "ssh" => (true, MountKind::Ssh { id, required, ownership }),
            _ => (true, MountKind::Bind { from, source }),
        };
        Ok(Mount { target, read_only: self.read_only.unwrap_or(read_only), kind })
    }

    /// Refuses options that mean nothing for this type.
    fn only_options_of(&self, kind: &'static str) -> Result<(), BadMount> {
        let Ownership { mode, uid, gid } = self.ownership;
        let given: [(&'static str, bool, &[&str]); 9] = [
            ("from", self.from.is_some(), &["bind", "cache"]),
            ("source", self.source.is_some(), &["bind", "cache", "secret"]),
            ("id", self.id.is_some(), &["cache", "secret", "ssh"]),
            ("env", self.env.is_some(), &["secret"]),
            ("sharing", self.sharing.is_some(), &["cache"]),
            ("required", self.required.is_some(), &["secret", "ssh"]),
            ("size", self.size_bytes.is_some(), &["tmpfs"]),
            ("mode", mode.is_some(), &["cache", "secret", "ssh"]),
            ("uid or gid", uid.is_some() || gid.is_some(), &["cache", "secret", "ssh"]),
        ];
        match given.into_iter().find(|(_, is_given, kinds)| *is_given && !kinds.contains(&kind)) {
            Some((option, ..)) => Err(BadMount::Misplaced { option, kind }),
            None => Ok(()),
        }
    }
}
