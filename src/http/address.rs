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

    /// Is `url` asked of the server of this address, in the same way?
    pub(super) fn is_on_host_of(&self, url: &Url) -> bool {
        self.0.origin() == url.origin()
    }

    /// Are both asked of the same server, in the same way?
    pub fn shares_server_with(&self, other: &Address) -> bool {
        self.is_on_host_of(&other.0)
    }

    /// A place that the server of this address sent us to: on the same server, we are who we were.
    pub(super) fn introduce(&self, mut url: Url) -> Url {
        if self.is_on_host_of(&url) && url.username().is_empty() && url.password().is_none() {
            // an address with a host can have both
            let _ = url.set_username(self.0.username());
            let _ = url.set_password(self.0.password());
        }
        url
    }

    /// The same address with a user and, unless it is empty, a password, both as they are; what it has of its own stays.
    pub fn with_login(mut self, user: &str, password: &str) -> Address {
        if self.0.username().is_empty() && self.0.password().is_none() {
            // an address with a host can have both
            let _ = self.0.set_username(user);
            let _ = self.0.set_password(Some(password).filter(|password| !password.is_empty()));
        }
        self
    }

    /// The same address; if it is on the server of `other` and says nothing of user and password, with those of `other`.
    pub fn with_login_of(self, other: &Address) -> Address {
        Address(other.introduce(self.0))
    }

    /// What `relative` means here. None if it is no address of the same kind.
    pub fn join(&self, relative: &str) -> Option<Address> {
        let joined = self.0.join(relative).ok()?;
        Address::is_meant(joined.as_str()).then(|| Address(self.introduce(joined)))
    }

    /// The path, percent signs and all, without query and fragment.
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// The names and values of the query, decoded.
    pub fn query(&self) -> Vec<(String, String)> {
        self.0.query_pairs().into_owned().collect()
    }

    /// The part behind `#`, percent signs and all.
    pub fn fragment(&self) -> Option<&str> {
        self.0.fragment()
    }

    /// The same address with another path, and without query and fragment.
    pub fn with_path(&self, path: &str) -> Address {
        let mut url = self.0.clone();
        url.set_path(path);
        url.set_query(None);
        url.set_fragment(None);
        Address(url)
    }

    /// The same address with another query.
    pub(super) fn with_query(&self, query: Option<&str>) -> Address {
        let mut url = self.0.clone();
        url.set_query(query);
        Address(url)
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
    fn a_login_stays_with_its_server() {
        let shown = |address: Address| address.0.to_string();
        let address = |text: &str| text.parse::<Address>().expect(text);
        let known = address("https://h/a.git").with_login("me", "s/ecret");
        assert_eq!(shown(known.clone()), "https://me:s%2Fecret@h/a.git");
        assert_eq!(shown(known.clone().with_login("you", "")), "https://me:s%2Fecret@h/a.git");
        assert_eq!(shown(address("https://h/b").with_login("token", "")), "https://token@h/b");
        for (other, with_login) in [
            ("https://h/b", "https://me:s%2Fecret@h/b"),
            ("https://h:443/b", "https://me:s%2Fecret@h/b"),
            ("https://you@h/b", "https://you@h/b"),
            ("https://h:444/b", "https://h:444/b"),
            ("http://h/b", "http://h/b"),
            ("https://other/b", "https://other/b"),
        ] {
            assert_eq!(shown(address(other).with_login_of(&known)), with_login, "{other}");
        }
        for (relative, joined) in [
            ("../b.git", Some("https://me:s%2Fecret@h/b.git")),
            ("//other/b.git", Some("https://other/b.git")),
            ("ssh://h/b", None),
        ] {
            assert_eq!(known.join(relative).map(shown).as_deref(), joined, "{relative}");
        }
    }

    #[test]
    fn texts_that_are_none() {
        for text in ["", "a", "/a", "ftp://h/a", "git://h/a", "http://", "https://", "http:///", "http://h:port/a"] {
            assert_eq!(text.parse::<Address>(), Err(BadAddress), "{text}");
        }
    }
}
