//! [`HostName`]: what a host is called in an isolated root.

use std::fmt;
use std::str::FromStr;

/// What it is called where nobody says otherwise, wherever it is built.
const USUAL: &str = "kanna";
/// The kernel's limit.
const MOST_BYTES: usize = 64;

/// The name of a host. It can stand in `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(String);

/// A text that names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no host: letters, digits, \"-\", \"_\" and \".\" do, {MOST_BYTES} of them at most")]
pub struct BadHostName(String);

impl HostName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for HostName {
    fn default() -> HostName {
        HostName(USUAL.to_owned())
    }
}

impl FromStr for HostName {
    type Err = BadHostName;

    fn from_str(text: &str) -> Result<HostName, BadHostName> {
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let begins_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        match begins_well && text.len() <= MOST_BYTES && text.bytes().all(is_fit) {
            true => Ok(HostName(text.to_owned())),
            false => Err(BadHostName(text.to_owned())),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "build-1.example.org", "A_b", "7", &"x".repeat(64)] {
            assert_eq!(good.parse::<HostName>().expect("a name").as_str(), good);
        }
        for bad in ["", "-a", ".", "a b", "a\nb", "ä", "a/b", &"x".repeat(65)] {
            assert!(bad.parse::<HostName>().is_err(), "{bad:?}");
        }
        assert_eq!(HostName::default().to_string(), "kanna");
    }
}
