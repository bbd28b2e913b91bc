//! Which files do the sources of a COPY name?

use super::origin::Files;
use super::{CopyError, Origin};
use crate::context::PatternList;
use crate::context::pattern::{Pattern, has_wildcard};
use crate::sys::fs::FileType;
use crate::tree::ImagePath;

/// One file or directory that a source names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As the source names it: its last component is what the copy is called inside a directory.
    pub named: ImagePath,
    /// Where it is, symlinks followed.
    pub at: ImagePath,
}

/// Finds what `text`, a source without `--parents`, names in `origin`. A leading slash means the top of the origin,
/// and `..` does not lead out of it. Symlinks are followed. A wildcard may match nothing; a plain name must exist.
pub fn find_sources(origin: &Origin<'_>, text: &[u8]) -> Result<Vec<Found>, CopyError> {
    let Some(searched) = Searched::of(origin) else { return Err(not_found(text)) };
    let path = ImagePath::clean(text);
    let components: Vec<&[u8]> = path.components().collect();
    let Some(first_wildcard) = components.iter().position(|component| has_wildcard(component)) else {
        return searched.existing(&path)?.map(|found| vec![found]).ok_or_else(|| not_found(text));
    };
    let base = ImagePath::clean(components[..first_wildcard].join(&b'/'));
    let base = searched.existing(&base)?.ok_or_else(|| not_found(text))?.at;
    let patterns: Vec<Pattern> = components[first_wildcard..]
        .iter()
        .map(|component| Pattern::go(component))
        .collect::<Result<_, _>>()
        .map_err(|error| CopyError::Pattern { source: error })?;
    let mut found = Vec::new();
    searched.matching(&base, &patterns, &mut found)?;
    found.into_iter().map(|named| searched.existing(&named)?.ok_or_else(|| not_found(named.as_bytes()))).collect()
}

/// The two halves of a source of `COPY --parents`: the directory it counts from, and the pattern below it whose path is
/// kept. `/./` divides them; without it all of the path is kept.
pub fn split_pivot(text: &[u8]) -> (ImagePath, Vec<u8>) {
    const PIVOT: &[u8] = b"/./";
    match text.windows(PIVOT.len()).position(|window| window == PIVOT) {
        Some(at) => (ImagePath::clean(&text[..at]), ImagePath::clean(&text[at + PIVOT.len()..]).relative().to_vec()),
        None => (ImagePath::root(), ImagePath::clean(text).relative().to_vec()),
    }
}

pub(super) fn not_found(text: &[u8]) -> CopyError {
    CopyError::SourceNotFound { named: String::from_utf8_lossy(text).into_owned() }
}

/// Where sources are looked for.
struct Searched<'a> {
    files: Files<'a>,
    ignore: Option<&'a PatternList>,
}

impl<'a> Searched<'a> {
    fn of(origin: &Origin<'a>) -> Option<Searched<'a>> {
        let ignore = match origin {
            Origin::Context { ignore, .. } => ignore.map(|file| file.patterns()),
            Origin::Tree { .. } | Origin::None => None,
        };
        Some(Searched { files: origin.files()?, ignore })
    }

    /// What is at `named`, unless it is ignored.
    fn existing(&self, named: &ImagePath) -> Result<Option<Found>, CopyError> {
        if !self.is_visible(named)? {
            return Ok(None);
        }
        let at = match self.files.root.resolve(named, true) {
            Ok(at) => at,
            Err(error) if error.errno() == Some(crate::sys::Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(CopyError::source(error)),
        };
        let exists = self.files.look(&at)?.is_some() && self.is_visible(&at)?;
        Ok(exists.then(|| Found { named: named.clone(), at }))
    }

    /// Is `path` no ignored file? An ignored directory is visible if something in it is not ignored.
    fn is_visible(&self, path: &ImagePath) -> Result<bool, CopyError> {
        let Some(ignore) = self.ignore else { return Ok(true) };
        let verdict = ignore.descend(path.relative());
        if !verdict.matched {
            return Ok(true);
        }
        let is_directory = self.files.look(path)?.is_some_and(|source| source.is_directory());
        if !is_directory || !ignore.can_except_below(path.relative(), &verdict.inherited) {
            return Ok(false);
        }
        let directory = self.files.root.directory(path).map_err(CopyError::source)?;
        for (name, _) in self.files.entries(&directory)? {
            if self.is_visible(&path.join(name))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Collects what matches `patterns`, one per component, below the directory `base`. As with Go's `Walk`, symlinks
    /// on the way are not entered.
    fn matching(&self, base: &ImagePath, patterns: &[Pattern], found: &mut Vec<ImagePath>) -> Result<(), CopyError> {
        let Some((pattern, deeper)) = patterns.split_first() else { return Ok(()) };
        if !self.files.look(base)?.is_some_and(|source| source.is_directory()) {
            return Ok(());
        }
        let directory = self.files.root.directory(base).map_err(CopyError::source)?;
        let mut entries = self.files.entries(&directory)?;
        entries.retain(|(name, _)| pattern.matches(name));
        for (name, file_type) in entries {
            let path = base.join(&name);
            if !self.is_visible(&path)? {
                continue;
            }
            if deeper.is_empty() {
                found.push(path);
            } else if file_type == FileType::Directory {
                self.matching(&path, deeper, found)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::IgnoreFile;
    use crate::rootfs::Root;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Root) {
        let place = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(place.path().join("d/sub")).expect("made");
        fs::create_dir_all(place.path().join("e")).expect("made");
        for file in ["a.txt", "b.txt", "d/x", "d/sub/y", "e/x", "back\\slash", "arr[0]"] {
            fs::write(place.path().join(file), file).expect("written");
        }
        symlink("d", place.path().join("dl")).expect("linked");
        symlink("/a.txt", place.path().join("al")).expect("linked");
        symlink("nowhere", place.path().join("bad")).expect("linked");
        symlink("dl", place.path().join("dll")).expect("linked");
        let root = Root::open(place.path()).expect("opened");
        (place, root)
    }

    /// The `at` of everything found, or `None` where nothing of that name is.
    #[test]
    fn names_and_wildcards() {
        let (_place, root) = tree();
        let ignore = IgnoreFile::parse(b"b.txt\nd\n!d/sub/y").expect("a good file");
        for (text, found, found_ignoring) in [
            ("a.txt", Some(vec!["/a.txt"]), Some(vec!["/a.txt"])),
            ("../../a.txt", Some(vec!["/a.txt"]), Some(vec!["/a.txt"])),
            ("/a.txt", Some(vec!["/a.txt"]), Some(vec!["/a.txt"])),
            ("b.txt", Some(vec!["/b.txt"]), None),
            ("?.txt", Some(vec!["/a.txt", "/b.txt"]), Some(vec!["/a.txt"])),
            ("none*", Some(vec![]), Some(vec![])),
            ("none", None, None),
            ("none/*", None, None),
            ("d/", Some(vec!["/d"]), Some(vec!["/d"])),
            ("d/x", Some(vec!["/d/x"]), None),
            ("*/x", Some(vec!["/d/x", "/e/x"]), Some(vec!["/e/x"])),
            ("dl/x", Some(vec!["/d/x"]), None),
            ("dl/*", Some(vec!["/d/sub", "/d/x"]), Some(vec!["/d/sub"])),
            ("al", Some(vec!["/a.txt"]), Some(vec!["/a.txt"])),
            ("a[l]", Some(vec!["/a.txt"]), Some(vec!["/a.txt"])),
            ("bad", None, None),
            ("b[a]d", None, None),
            ("back\\slash", Some(vec!["/back\\slash"]), Some(vec!["/back\\slash"])),
            ("arr[[]0]", Some(vec!["/arr[0]"]), Some(vec!["/arr[0]"])),
            (".", Some(vec!["/"]), Some(vec!["/"])),
        ] {
            for (ignore, expected) in [(None, found), (Some(&ignore), found_ignoring)] {
                let origin = Origin::Context { root: &root, ignore };
                let paths = find_sources(&origin, text.as_bytes())
                    .ok()
                    .map(|found| found.into_iter().map(|found| found.at).collect::<Vec<_>>());
                let expected = expected.map(|paths| paths.into_iter().map(ImagePath::clean).collect::<Vec<_>>());
                assert_eq!(paths, expected, "{text} {}", ignore.is_some());
            }
        }
        let bad = find_sources(&Origin::Context { root: &root, ignore: None }, b"[a");
        assert!(matches!(bad, Err(CopyError::Pattern { .. })));
    }

    #[test]
    fn pivots() {
        for (text, pivot, pattern) in [
            ("src/a", "/", "src/a"),
            ("./src/./a", "/src", "a"),
            ("/srv/./a/b/", "/srv", "a/b"),
            ("**/*.txt", "/", "**/*.txt"),
            ("a/./b/./c", "/a", "b/c"),
        ] {
            assert_eq!(split_pivot(text.as_bytes()), (ImagePath::clean(pivot), pattern.as_bytes().to_vec()), "{text}");
        }
    }
}
