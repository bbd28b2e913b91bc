//! The two hashes of a layer, which must never be mixed up.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// SHA-256 of a blob as it travels: compressed, the name a registry knows it by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// SHA-256 of a layer's tar *before* compression, as listed in the image config.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiffId([u8; 32]);

/// A text that is not `sha256:` and 64 lower-case hex digits (image spec: descriptor, digests).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest of the form sha256:<64 hex digits>")]
pub struct BadDigest(pub String);

fn parse_sha256(text: &str) -> Result<[u8; 32], BadDigest> {
    let bad = || BadDigest(text.chars().take(100).collect());
    let hex_digits = text.strip_prefix("sha256:").ok_or_else(bad)?;
    if hex_digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(bad());
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(hex_digits, &mut bytes).map_err(|_| bad())?;
    Ok(bytes)
}

macro_rules! sha256_newtype {
    ($name:ident) => {
        impl $name {
            /// Hashes bytes that are at hand.
            pub fn of(bytes: &[u8]) -> $name {
                $name(sha2::Sha256::digest(bytes).into())
            }

            /// The 64 hex digits without `sha256:`.
            pub fn hex(&self) -> String {
                hex::encode(self.0)
            }
        }

        impl From<[u8; 32]> for $name {
            fn from(bytes: [u8; 32]) -> $name {
                $name(bytes)
            }
        }

        impl FromStr for $name {
            type Err = BadDigest;

            fn from_str(text: &str) -> Result<$name, BadDigest> {
                parse_sha256(text).map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "sha256:{}", self.hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

sha256_newtype!(Digest);
sha256_newtype!(DiffId);

/// Hashes bytes as they pass; write to it, then ask once.
#[derive(Clone, Default)]
pub struct Sha256Stream {
    hasher: sha2::Sha256,
    size_bytes: u64,
}

impl Sha256Stream {
    /// A stream that has seen nothing.
    pub fn new() -> Sha256Stream {
        Sha256Stream::default()
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size_bytes += bytes.len() as u64;
    }

    /// How many bytes passed.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The 32 bytes of the hash; `.into()` makes a [`Digest`] or a [`DiffId`] of them.
    pub fn finish(self) -> [u8; 32] {
        self.hasher.finalize().into()
    }
}

impl io::Write for Sha256Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse(), Ok(Digest::of(b"")));
        assert_eq!(DiffId::from(Sha256Stream::new().finish()).to_string(), empty);
        for bad in ["", "sha256:", "sha512:00", &empty[..70], &empty.to_uppercase(), &format!("{empty}0")] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
