//! [`ImageConfig`]: the image spec's config with Docker's extensions, unknown fields kept.
//!
//! Our own type because that of `oci-spec` drops Healthcheck, OnBuild and Shell.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Error;
use crate::oci::{DiffId, Platform};

/// Docker refuses health check intervals, timeouts and start periods below a millisecond, except 0.
pub const SHORTEST_INTERVAL_NANOSECONDS: i64 = 1_000_000;

/// What is passed on of fields that have no meaning here, as by BuildKit: the rest is about the base itself and the container
/// that it was once made from (Docker's `container`, `container_config`, `docker_version`, `Hostname`, `Image`, …).
const PASSED_ON: [&str; 2] = ["os.version", "os.features"];
const PASSED_ON_OF_RUN: [&str; 1] = ["ArgsEscaped"];

/// The one type of a root file system that there is.
const LAYERS: &str = "layers";

/// The comment on a layer of which the base's history does not tell.
const UNTOLD: &str = "a layer of the base image";

/// The config blob of an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it (MAINTAINER).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// CPU architecture, in Go's words.
    #[serde(default)]
    pub architecture: String,
    /// Variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Operating system.
    #[serde(default)]
    pub os: String,
    /// How a container of it runs.
    #[serde(default)]
    pub config: Option<RunConfig>,
    /// The layers, by diff ID.
    #[serde(default)]
    pub rootfs: RootFs,
    /// How it came to be.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub history: Vec<History>,
    /// What else the base's config said (`os.version`, …).
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The execution parameters, with Docker's field names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// `user[:group]`, names or numbers.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub user: String,
    /// `port/protocol`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=value`, in order of definition.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// `None` is not set; an empty list is an entrypoint that was reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments or command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Places that are volumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub volumes: BTreeMap<String, Empty>,
    /// Where the command starts.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub working_dir: String,
    /// Triggers for images that are built from this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub on_build: Vec<String>,
    /// Free words about the image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the container to end.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub stop_signal: String,
    /// Shell of the shell form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// What else the base's config said.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// How to find out whether a container is well; durations in nanoseconds, 0 is inherited or the default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", …]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub test: Vec<String>,
    /// Time between checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time for one check.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time in which failures do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between checks in the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures that make a container unwell.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// What else a base's check said.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Go's `struct{}`: the value of a set's member.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Empty {}

/// The layers of an image, lowest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Hashes of the uncompressed layers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> RootFs {
        RootFs { kind: LAYERS.into(), diff_ids: Vec::new() }
    }
}

/// One instruction that made the image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The instruction, as docker prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// A word about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// It made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// The config of an image without layers, `FROM scratch`.
    pub fn scratch(platform: &Platform) -> ImageConfig {
        ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            config: Some(RunConfig::default()),
            ..ImageConfig::default()
        }
    }

    /// What an image that is built on this one begins with.
    pub fn into_base(mut self) -> ImageConfig {
        self.other.retain(|name, _| PASSED_ON.contains(&name.as_str()));
        if let Some(run) = &mut self.config {
            run.other.retain(|name, _| PASSED_ON_OF_RUN.contains(&name.as_str()));
            if let Some(check) = &mut run.healthcheck {
                check.other.clear();
            }
        }
        self
    }

    /// What it runs on; `None` where the config does not say.
    pub fn platform(&self) -> Option<Platform> {
        let is_known = !self.os.is_empty() && !self.architecture.is_empty();
        is_known.then(|| Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone().filter(|variant| !variant.is_empty()),
            os_version: None,
        })
    }

    /// Reads the config blob of `image`, which has `layers` layers.
    pub fn parse(bytes: &[u8], image: &str, layers: usize) -> Result<ImageConfig, Error> {
        let config: ImageConfig =
            serde_json::from_slice(bytes).map_err(|source| Error::Config { image: image.into(), source })?;
        if config.rootfs.kind != LAYERS {
            return Err(Error::RootFs { image: image.into(), kind: config.rootfs.kind });
        }
        match config.rootfs.diff_ids.len() {
            found if found == layers => Ok(config),
            diff_ids => Err(Error::DiffIds { image: image.into(), diff_ids, layers }),
        }
    }

    /// How the layers came to be, each with an entry of its own. A config need not say it of all, or may say it of more than
    /// there are; whoever pairs entries with layers (`docker history`, scanners) would take one for the other.
    pub fn history_of_layers(&self) -> Vec<History> {
        let mut history = self.history.clone();
        let mut left = self.rootfs.diff_ids.len();
        for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
            match left.checked_sub(1) {
                Some(rest) => left = rest,
                None => entry.empty_layer = true,
            }
        }
        let untold = || History { comment: Some(UNTOLD.into()), ..History::default() };
        history.extend(std::iter::repeat_with(untold).take(left));
        history
    }

    /// The execution parameters, empty where the config has none.
    pub fn run_config(&self) -> RunConfig {
        self.config.clone().unwrap_or_default()
    }
}

impl RunConfig {
    /// The value of an environment variable.
    pub fn env_value(&self, name: &str) -> Option<&str> {
        self.env.iter().find_map(|pair| match pair.split_once('=') {
            Some((key, value)) if key == name => Some(value),
            None if pair == name => Some(""),
            _ => None,
        })
    }

    /// Sets an environment variable: in its old place, or at the end.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let pair = format!("{name}={value}");
        match self.env.iter_mut().find(|old| old.split('=').next() == Some(name)) {
            Some(old) => *old = pair,
            None => self.env.push(pair),
        }
    }
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Go writes `null` for empty lists and maps.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by fuzzing: a number that is no integer was read a little off.
    #[test]
    fn what_is_written_is_read_as_the_same() {
        let text = r#"{"rootfs":{"type":"layers","diff_ids":[]},"b":222222222222222212222222223}"#;
        let config = ImageConfig::parse(text.as_bytes(), "i", 0).expect("a config");
        let written = serde_json::to_vec(&config).expect("JSON");
        assert_eq!(ImageConfig::parse(&written, "i", 0).expect("a config"), config);
    }

    #[test]
    fn what_we_do_not_know_is_kept() {
        let text = r#"{"created":"2024-01-01T00:00:00Z","architecture":"arm64","os":"linux","os.version":"7",
            "config":{"Env":["PATH=/bin"],"Cmd":null,"Entrypoint":[],"Volumes":{"/v":{}},"NetworkDisabled":true,
            "Healthcheck":{"Test":["CMD","x"],"Interval":5}},
            "rootfs":{"type":"layers","diff_ids":[]},"history":null}"#;
        let config = ImageConfig::parse(text.as_bytes(), "i", 0).expect("a config");
        let run = config.run_config();
        assert_eq!(run.cmd, None);
        assert_eq!(run.entrypoint, Some(Vec::new()));
        let again: Value = serde_json::to_value(&config).expect("written");
        assert_eq!(again["os.version"], "7");
        assert_eq!(again["config"]["NetworkDisabled"], true);
        assert_eq!(again["config"]["Volumes"]["/v"], Value::Object(Map::new()));
        assert!(again.get("history").is_none());

        let base: Value = serde_json::to_value(config.into_base()).expect("written");
        assert_eq!((&base["os.version"], &base["config"]["Healthcheck"]["Interval"]), (&"7".into(), &5.into()));
        assert!(base["config"].get("NetworkDisabled").is_none());
    }

    #[test]
    fn a_config_that_lies() {
        for (text, layers) in [("", 0), ("[]", 0), (r#"{"rootfs":{"type":"layers","diff_ids":["sha256:xx"]}}"#, 1)] {
            assert!(matches!(ImageConfig::parse(text.as_bytes(), "i", layers), Err(Error::Config { .. })), "{text}");
        }
        let overlay = br#"{"rootfs":{"type":"overlay","diff_ids":[]}}"#;
        assert!(matches!(ImageConfig::parse(overlay, "i", 0), Err(Error::RootFs { .. })));
        assert!(matches!(ImageConfig::parse(b"{}", "i", 2), Err(Error::DiffIds { diff_ids: 0, layers: 2, .. })));
    }

    #[test]
    fn history_has_an_entry_for_each_layer() {
        for (layers, told, expected) in [
            (0, &[][..], &[][..]),
            (2, &[false, true, false], &[false, true, false]),
            (3, &[true, false], &[true, false, false, false]),
            (1, &[false, true, false, false], &[false, true, true, true]),
        ] {
            let history = told.iter().map(|&empty_layer| History { empty_layer, ..History::default() }).collect();
            let rootfs = RootFs { diff_ids: vec![DiffId::of(b""); layers], ..RootFs::default() };
            let config = ImageConfig { history, rootfs, ..ImageConfig::default() };
            let found: Vec<bool> = config.history_of_layers().iter().map(|entry| entry.empty_layer).collect();
            assert_eq!(found, expected, "{layers} layers, {told:?}");
        }
    }

    #[test]
    fn env_keeps_its_order() {
        let mut run = RunConfig { env: vec!["A=1".into(), "B=2".into()], ..RunConfig::default() };
        run.set_env("A", "3");
        run.set_env("C", "a=b");
        assert_eq!(run.env, ["A=3", "B=2", "C=a=b"]);
        assert_eq!(run.env_value("C"), Some("a=b"));
        assert_eq!(run.env_value("D"), None);
    }
}
