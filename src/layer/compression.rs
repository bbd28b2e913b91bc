//! [`Compression`]: how the tar of a layer becomes its blob.

use std::fmt;
use std::str::FromStr;

/// By what the tar of a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// By nothing: the blob is the tar.
    None,
    /// By gzip, which every reader knows.
    #[default]
    Gzip,
    /// By zstd, which Docker's media types have no word for.
    Zstd,
}

/// A method, and how hard it tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    method: Method,
    level: i8,
}

/// A word that is no method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gzip, zstd or none is wanted")]
pub struct BadMethod;

/// A number that is no level of the method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLevel {
    /// There are levels, but not this one.
    #[error("{method}'s levels are 0 to {most}, and -1 for the default")]
    OutOfRange {
        /// Whose level it would be.
        method: Method,
        /// The highest one.
        most: i8,
    },
    /// There is nothing that could try harder.
    #[error("what is not compressed has no level")]
    NoLevels,
}

/// What `--compression-level` says for the method's own default.
const DEFAULT: i8 = -1;

impl Method {
    /// The method at a level in kaniko's spelling: -1 for the default, else the method's own scale.
    pub fn at_level(self, level: i32) -> Result<Compression, BadLevel> {
        let most = match self {
            Method::None => DEFAULT,
            Method::Gzip => 9,
            Method::Zstd => 22,
        };
        match i8::try_from(level).ok().filter(|level| (DEFAULT..=most).contains(level)) {
            Some(level) => Ok(Compression { method: self, level }),
            None if self == Method::None => Err(BadLevel::NoLevels),
            None => Err(BadLevel::OutOfRange { method: self, most }),
        }
    }
}

impl Compression {
    /// By what.
    pub fn method(self) -> Method {
        self.method
    }

    /// How hard; `None` for the method's default.
    pub(super) fn level(self) -> Option<i8> {
        (self.level != DEFAULT).then_some(self.level)
    }
}

impl Default for Compression {
    fn default() -> Compression {
        Compression { method: Method::default(), level: DEFAULT }
    }
}

impl FromStr for Method {
    type Err = BadMethod;

    fn from_str(text: &str) -> Result<Method, BadMethod> {
        match text {
            "none" => Ok(Method::None),
            "gzip" => Ok(Method::Gzip),
            "zstd" => Ok(Method::Zstd),
            _ => Err(BadMethod),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::None => "none",
            Method::Gzip => "gzip",
            Method::Zstd => "zstd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        for (method, levels) in [(Method::None, -1..=-1), (Method::Gzip, -1..=9), (Method::Zstd, -1..=22)] {
            for level in [i32::MIN, -2, -1, 0, 1, 9, 10, 22, 23, 255, 256, 1000] {
                let made = method.at_level(level).ok();
                let wanted = levels.contains(&level).then_some((method, (level >= 0).then_some(level as i8)));
                assert_eq!(made.map(|made| (made.method(), made.level())), wanted, "{method} {level}");
            }
        }
        assert_eq!(Method::default().at_level(-1), Ok(Compression::default()));
    }

    #[test]
    fn words() {
        for method in [Method::None, Method::Gzip, Method::Zstd] {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        assert_eq!("estargz".parse::<Method>(), Err(BadMethod));
    }
}
