//! [`ImagePath`]: the place of a file inside the image.

use std::borrow::Borrow;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Place of a file inside the image: absolute, no empty, `.` or `..` components, no NUL, no slash at the end.
/// Bytes: Linux names need not be UTF-8. Ordered by bytes, so parents come before their children.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImagePath(Box<[u8]>);

/// A text that is no place inside an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// A `..` leads above the root.
    #[error("path {0:?} leads out of the root")]
    LeadsOut(String),
    /// A NUL byte, which no Linux name can hold.
    #[error("path {0:?} holds a NUL byte")]
    Nul(String),
}

impl ImagePath {
    /// The root directory, `/`.
    pub fn root() -> ImagePath {
        ImagePath(Box::from(*b"/"))
    }

    /// Cleans a path as the Dockerfile reference does for destinations: relative means relative to `/`,
    /// `.` and empty components vanish, `..` above the root stays at the root.
    pub fn clean(path: impl AsRef<[u8]>) -> ImagePath {
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in path.as_ref().split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()),
                name => parts.push(name),
            }
        }
        ImagePath::from_parts(&parts)
    }

    /// Reads a path that a foreign party chose (a tar entry's name): like [`ImagePath::clean`], but a `..`
    /// that leads above the root and a NUL are errors.
    pub fn parse_untrusted(path: impl AsRef<[u8]>) -> Result<ImagePath, BadPath> {
        let path = path.as_ref();
        let shown = || String::from_utf8_lossy(path).into_owned();
        if path.contains(&0) {
            return Err(BadPath::Nul(shown()));
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in path.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop().ok_or_else(|| BadPath::LeadsOut(shown()))?),
                name => parts.push(name),
            }
        }
        Ok(ImagePath::from_parts(&parts))
    }

    fn from_parts(parts: &[&[u8]]) -> ImagePath {
        if parts.is_empty() {
            return ImagePath::root();
        }
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
        for part in parts {
            bytes.push(b'/');
            bytes.extend_from_slice(part);
        }
        ImagePath(bytes.into_boxed_slice())
    }

    /// The path whose components `names` gives, the last one first.
    pub(super) fn from_names_upwards<'a, I: Iterator<Item = &'a [u8]>>(names: impl Fn() -> I) -> ImagePath {
        let length: usize = names().map(|name| name.len() + 1).sum();
        if length == 0 {
            return ImagePath::root();
        }
        let mut bytes = vec![b'/'; length];
        let mut end = length;
        for name in names() {
            bytes[end - name.len()..end].copy_from_slice(name);
            end -= name.len() + 1;
        }
        ImagePath(bytes.into_boxed_slice())
    }

    /// What [`ImagePath::split_name`] took apart.
    pub(crate) fn from_parent(parent: &[u8], name: &[u8]) -> ImagePath {
        ImagePath([parent, b"/", name].concat().into_boxed_slice())
    }

    /// The path of `relative` below this one, cleaned; an absolute `relative` replaces this path.
    pub fn resolve(&self, relative: impl AsRef<[u8]>) -> ImagePath {
        let relative = relative.as_ref();
        if relative.starts_with(b"/") {
            return ImagePath::clean(relative);
        }
        let mut bytes = self.0.to_vec();
        bytes.push(b'/');
        bytes.extend_from_slice(relative);
        ImagePath::clean(bytes)
    }

    /// The child called `name`. `name` must be one component: not empty, no slash, not `.` or `..`.
    pub fn join(&self, name: impl AsRef<[u8]>) -> ImagePath {
        let name = name.as_ref();
        debug_assert!(!name.is_empty() && !name.contains(&b'/') && name != b"." && name != b"..");
        let mut bytes = Vec::with_capacity(self.0.len() + name.len() + 1);
        if !self.is_root() {
            bytes.extend_from_slice(&self.0);
        }
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        ImagePath(bytes.into_boxed_slice())
    }

    /// Is this `/`?
    pub fn is_root(&self) -> bool {
        &*self.0 == b"/"
    }

    /// The directory that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<ImagePath> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(0) | None => Some(ImagePath::root()),
            Some(slash) => Some(ImagePath(Box::from(&self.0[..slash]))),
        }
    }

    /// The last component; empty for the root.
    pub fn file_name(&self) -> &[u8] {
        self.split_name().1
    }

    /// What is before the last slash, nothing for what is in the root directory, and what is after it.
    pub(crate) fn split_name(&self) -> (&[u8], &[u8]) {
        let slash = self.0.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        (&self.0[..slash], &self.0[slash + 1..])
    }

    /// The bytes, beginning with a slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Without the leading slash, as a tar entry names it; empty for the root.
    pub fn relative(&self) -> &[u8] {
        &self.0[1..]
    }

    /// The relative form as an OS path, `.` for the root: what `openat` beneath a root directory takes.
    pub fn relative_path(&self) -> &Path {
        if self.is_root() { Path::new(".") } else { Path::new(OsStr::from_bytes(self.relative())) }
    }

    /// This path as an absolute OS path.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The place of this path on the machine, for a root directory at `root`.
    pub fn below(&self, root: &Path) -> PathBuf {
        if self.is_root() { root.to_path_buf() } else { root.join(self.relative_path()) }
    }

    /// The components from the top; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.relative().split(|&byte| byte == b'/').filter(|part| !part.is_empty())
    }

    /// Is this path `ancestor` itself or something inside it?
    pub fn is_within(&self, ancestor: &ImagePath) -> bool {
        self.strip_prefix(ancestor).is_some()
    }

    /// What follows `ancestor`, without a leading slash: empty for `ancestor` itself, `None` outside of it.
    pub fn strip_prefix(&self, ancestor: &ImagePath) -> Option<&[u8]> {
        if ancestor.is_root() {
            return Some(self.relative());
        }
        match self.0.strip_prefix(&*ancestor.0)? {
            b"" => Some(b""),
            [b'/', rest @ ..] => Some(rest),
            _ => None,
        }
    }

    /// The parents from `/` down to the nearest; the path itself is not among them.
    pub fn ancestors(&self) -> Vec<ImagePath> {
        let mut found: Vec<ImagePath> = std::iter::successors(self.parent(), ImagePath::parent).collect();
        found.reverse();
        found
    }
}

impl Borrow<[u8]> for ImagePath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// For people alone: foreign names must not begin lines of a log, nor steer a terminal. What is not printable, quotes and
/// backslashes are escaped as in Rust's strings, bytes that are not UTF-8 as `\xff`: no two paths look the same.
impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .utf8_chunks()
            .try_for_each(|chunk| write!(f, "{}{}", chunk.valid().escape_debug(), chunk.invalid().escape_ascii()))
    }
}

impl fmt::Debug for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_and_parse() {
        for (given, cleaned, parsed) in [
            ("", "/", Some("/")),
            ("a/b", "/a/b", Some("/a/b")),
            ("/a//b/./c/", "/a/b/c", Some("/a/b/c")),
            ("a/../b", "/b", Some("/b")),
            ("../x", "/x", None),
            ("/a/../../x", "/x", None),
        ] {
            assert_eq!(ImagePath::clean(given).to_string(), cleaned);
            assert_eq!(ImagePath::parse_untrusted(given).ok().map(|path| path.to_string()).as_deref(), parsed);
        }
        assert!(ImagePath::parse_untrusted(b"a\0b").is_err());
    }

    #[test]
    fn shown() {
        for (name, shown) in [
            (&b"/usr/share/a b"[..], "/usr/share/a b"),
            ("/été/e\u{301}/日本".as_bytes(), "/été/e\u{301}/日本"),
            (b"/a\nINFO[0000] Pushed", "/a\\nINFO[0000] Pushed"),
            (b"/\x1b[2J\t\r\x7f", "/\\u{1b}[2J\\t\\r\\u{7f}"),
            // the control characters of ISO 6429, and what turns the direction of writing
            ("/\u{9b}2J\u{202e}".as_bytes(), "/\\u{9b}2J\\u{202e}"),
            (b"/a\\nb", "/a\\\\nb"),
            (b"/it's \"so\"", "/it\\'s \\\"so\\\""),
            (b"/caf\xe9/\xff\xfe!", "/caf\\xe9/\\xff\\xfe!"),
        ] {
            assert_eq!(ImagePath::clean(name).to_string(), shown);
            assert_eq!(format!("{:?}", ImagePath::clean(name)), format!("\"{shown}\""));
        }
    }

    #[test]
    fn family() {
        let path = ImagePath::clean("/a/b/c");
        assert_eq!(path.parent(), Some(ImagePath::clean("/a/b")));
        assert_eq!(ImagePath::clean("/a").parent(), Some(ImagePath::root()));
        assert_eq!(ImagePath::root().parent(), None);
        assert_eq!(path.file_name(), b"c");
        assert_eq!(ImagePath::root().file_name(), b"");
        assert_eq!(path.ancestors(), ["/", "/a", "/a/b"].map(ImagePath::clean));
        assert!(path.is_within(&ImagePath::clean("/a")) && path.is_within(&path));
        assert!(!ImagePath::clean("/ab").is_within(&ImagePath::clean("/a")));
        assert_eq!(ImagePath::clean("/w").resolve("x/../y"), ImagePath::clean("/w/y"));
        assert_eq!(ImagePath::root().join("x"), ImagePath::clean("x"));
    }
}
