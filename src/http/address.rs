//! [`Address`]: where a plain file is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use reqwest::Url;

use super::client::host_and_port;

/// An `http` or `https` address. Shown without what may be secret in it: user, password, query.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address(Url);

/// Where a file is, or shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilePlace {
    /// On this machine.
    Path(PathBuf),
    /// On a server.
    Address(Address),
}

/// A text that is no such address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an address of the form http[s]://host[:port]/path")]
pub struct BadAddress;

impl Address {
    /// Does a text mean to be an address?
    pub fn is_meant(text: &str) -> bool {
        text.starts_with("http://") || text.starts_with("https://")
    }

    pub(super) fn url(&self) -> &Url {
        &self.0
    }

    /// The last part of the path, percent signs decoded; `None` if there is none that a file can be called by.
    pub fn file_name(&self) -> Option<Vec<u8>> {
        let path: Vec<u8> = percent_decode_str(self.0.path()).collect();
        let name = path.split(|byte| *byte == b'/').rfind(|part| !part.is_empty())?;
        (!matches!(name, b"." | b"..") && !name.contains(&0)).then(|| name.to_vec())
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Address, BadAddress> {
        let url = Url::parse(text).map_err(|_| BadAddress)?;
        if Address::is_meant(text) && url.has_host() { Ok(Address(url)) } else { Err(BadAddress) }
    }
}

impl FromStr for FilePlace {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<FilePlace, BadAddress> {
        if Address::is_meant(text) { text.parse().map(FilePlace::Address) } else { Ok(FilePlace::Path(text.into())) }
    }
}

impl fmt::Display for FilePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FilePlace::Path(path) => path.display().fmt(f),
            FilePlace::Address(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.0.scheme(), host_and_port(&self.0), self.0.path())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (address, name) in [
            ("http://h/a", Some("a")),
            ("http://h/a/b.tar.gz?x=/y#/z", Some("b.tar.gz")),
            ("https://h:1/dir/", Some("dir")),
            ("http://h/with%20space", Some("with space")),
            ("http://h/a%2Fb", Some("b")),
            ("http://h/100%", Some("100%")),
            ("http://h/a/..", None),
            ("http://h/a%2F%2E%2E", None),
            ("http://h/nul%00", None),
            ("http://h/", None),
            ("http://h", None),
            ("http://h?file=a", None),
        ] {
            let parsed: Address = address.parse().expect(address);
            assert_eq!(parsed.file_name().as_deref(), name.map(str::as_bytes), "{address}");
        }
    }

    #[test]
    fn what_is_secret_is_not_shown() {
        let address: Address =
            "https://me:secret@h.example:8443/a/b?signature=secret#part".parse().expect("an address");
        assert_eq!(address.to_string(), "https://h.example:8443/a/b");
        assert_eq!(format!("{address:?}"), "https://h.example:8443/a/b");
    }

    #[test]
    fn texts_that_are_none() {
        for text in ["", "a", "/a", "ftp://h/a", "git://h/a", "http://", "https://", "http:///", "http://h:port/a"] {
            assert_eq!(text.parse::<Address>(), Err(BadAddress), "{text}");
        }
    }
}
