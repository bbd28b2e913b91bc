//! [`Platform`]: what an image runs on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Operating system, architecture and variant, in Go's words (image spec: image index, platform).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `linux`, …
    pub os: String,
    /// `v7`, `v8`, …; `None` where the architecture has just one that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Version of the operating system (Windows).
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a platform of the form os/architecture[/variant], such as linux/arm64/v8")]
pub struct BadPlatform(pub String);

impl Platform {
    /// The machine that this program was built for.
    pub fn host() -> Platform {
        let (architecture, variant) = normalize(std::env::consts::ARCH, None);
        Platform { architecture, os: "linux".into(), variant, os_version: None }
    }

    /// Can an image for `offered` be used where `self` is wanted? Higher is better; `None` is no.
    /// An arm/v7 machine also runs v6 and v5; everything else must match.
    pub fn rank(&self, offered: &Platform) -> Option<u32> {
        let (wanted_arch, wanted_variant) = normalize(&self.architecture, self.variant.as_deref());
        let (offered_arch, offered_variant) = normalize(&offered.architecture, offered.variant.as_deref());
        if self.os != offered.os || wanted_arch != offered_arch {
            return None;
        }
        if wanted_variant == offered_variant {
            return Some(100);
        }
        let number = |variant: Option<String>| variant?.strip_prefix('v')?.parse::<u32>().ok();
        match (wanted_arch.as_str(), number(wanted_variant), number(offered_variant)) {
            ("arm", Some(wanted), Some(offered)) if offered < wanted => Some(offered),
            ("amd64", Some(wanted), offered) if offered.unwrap_or(1) < wanted => Some(offered.unwrap_or(1)),
            _ => None,
        }
    }
}

/// Brings architecture names to Go's, and drops the variant that is the default (as containerd's platforms do).
fn normalize(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let variant = variant.filter(|text| !text.is_empty()).map(str::to_lowercase);
    let architecture = architecture.to_lowercase();
    match (architecture.as_str(), variant.as_deref()) {
        ("x86_64" | "x86-64" | "amd64", Some("v1")) => ("amd64".into(), None),
        ("x86_64" | "x86-64" | "amd64", _) => ("amd64".into(), variant),
        ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64".into(), None),
        ("aarch64" | "arm64", _) => ("arm64".into(), variant),
        ("armhf", _) => ("arm".into(), Some("v7".into())),
        ("armel", _) => ("arm".into(), Some("v6".into())),
        ("arm", None | Some("7")) => ("arm".into(), Some("v7".into())),
        ("arm", Some(number @ ("5" | "6" | "8"))) => ("arm".into(), Some(format!("v{number}"))),
        ("i386" | "i686" | "x86", _) => ("386".into(), None),
        ("powerpc64le" | "ppc64el", _) => ("ppc64le".into(), variant),
        ("loongarch64", _) => ("loong64".into(), variant),
        _ => (architecture, variant),
    }
}

impl FromStr for Platform {
    type Err = BadPlatform;

    fn from_str(text: &str) -> Result<Platform, BadPlatform> {
        let bad = || BadPlatform(text.to_owned());
        let parts: Vec<&str> = text.split('/').collect();
        let proper = |part: &&str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        if !parts.iter().all(proper) {
            return Err(bad());
        }
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            // containerd: a lone known system or architecture is completed by the host's
            ["linux"] => return Ok(Platform::host()),
            [architecture] if normalize(architecture, None).0 != architecture || KNOWN.contains(&architecture) => {
                ("linux", architecture, None)
            }
            _ => return Err(bad()),
        };
        let (architecture, variant) = normalize(architecture, variant);
        Ok(Platform { architecture, os: os.to_lowercase(), variant, os_version: None })
    }
}

const KNOWN: [&str; 10] =
    ["amd64", "arm64", "arm", "386", "ppc64le", "s390x", "riscv64", "mips64le", "mips64", "loong64"];

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_and_print() {
        for (given, printed) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/x86_64", Some("linux/amd64")),
            ("linux/arm64/v8", Some("linux/arm64")),
            ("linux/arm/v7", Some("linux/arm/v7")),
            ("linux/arm", Some("linux/arm/v7")),
            ("arm64", Some("linux/arm64")),
            ("windows/amd64", Some("windows/amd64")),
            ("", None),
            ("linux/", None),
            ("a/b/c/d", None),
            ("nonsense", None),
        ] {
            assert_eq!(given.parse::<Platform>().ok().map(|platform| platform.to_string()).as_deref(), printed);
        }
    }

    #[test]
    fn rank() {
        let platform = |text: &str| text.parse::<Platform>().expect("a platform");
        assert!(platform("linux/amd64").rank(&platform("linux/arm64")).is_none());
        assert_eq!(platform("linux/arm/v7").rank(&platform("linux/arm/v6")), Some(6));
        assert_eq!(platform("linux/arm/v7").rank(&platform("linux/arm/v7")), Some(100));
        assert_eq!(platform("linux/arm/v6").rank(&platform("linux/arm/v7")), None);
        assert_eq!(platform("linux/arm64").rank(&platform("linux/arm64/v8")), Some(100));
    }
}
