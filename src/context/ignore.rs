//! [`PatternList`]: patterns of which the last that matches decides; [`IgnoreFile`]: such a list read from a file.

use super::pattern::{BadPattern, Pattern};

#[derive(Debug, Clone)]
struct Rule {
    pattern: Pattern,
    /// Written with `!`: brings back what an earlier rule took.
    is_exception: bool,
}

/// Patterns in moby's order of evaluation: a pattern that matches a directory matches all below it, and an exception
/// is only asked about what is matched so far.
#[derive(Debug, Clone, Default)]
pub struct PatternList {
    rules: Vec<Rule>,
}

/// Which patterns of a list matched a directory: what the directory hands down to its entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inherited(Vec<bool>);

/// What a [`PatternList`] says of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Does the list match the path?
    pub matched: bool,
    /// For the entries, if the path is a directory.
    pub inherited: Inherited,
}

impl PatternList {
    /// Reads patterns one by one, as `--exclude` gives them: white space around is cut, `!` marks an exception.
    pub fn new<Text: AsRef<[u8]>>(texts: impl IntoIterator<Item = Text>) -> Result<PatternList, BadPattern> {
        let mut rules = Vec::new();
        for text in texts {
            let text = text.as_ref().trim_ascii();
            if text.is_empty() {
                continue;
            }
            let text = clean(text);
            let (is_exception, body) = match text.strip_prefix(b"!") {
                Some(body) => (true, body),
                None => (false, &*text),
            };
            if body.is_empty() {
                return Err(BadPattern("!".to_owned()));
            }
            rules.push(Rule { pattern: Pattern::moby(body)?, is_exception });
        }
        Ok(PatternList { rules })
    }

    /// Is there no pattern at all?
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Does the list match `path` (relative to where the list counts from)? Asks for each of its parents first.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.descend(path).matched
    }

    /// As [`PatternList::matches`], with what `path` hands down. The empty path is the top: never matched.
    pub fn descend(&self, path: &[u8]) -> Verdict {
        let mut verdict = Verdict { matched: false, inherited: Inherited::default() };
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain((!path.is_empty()).then_some(path.len())) {
            verdict = self.verdict(&path[..end], &verdict.inherited);
        }
        verdict
    }

    /// What the list says of `path`, whose directory handed down `parent`.
    pub fn verdict(&self, path: &[u8], parent: &Inherited) -> Verdict {
        let mut matched = false;
        let mut own = Vec::with_capacity(self.rules.len());
        for (at, rule) in self.rules.iter().enumerate() {
            let by_parent = parent.0.get(at).copied().unwrap_or(false);
            let found = by_parent || (rule.is_exception == matched && rule.pattern.matches(path));
            own.push(found);
            if found {
                matched = !rule.is_exception;
            }
        }
        Verdict { matched, inherited: Inherited(own) }
    }

    /// Can anything below the directory `path`, which is not matched, be matched?
    pub fn can_match_below(&self, path: &[u8], inherited: &Inherited) -> bool {
        self.any_below(path, inherited, false)
    }

    /// Can anything below the directory `path`, which is matched, be brought back by an exception?
    pub fn can_except_below(&self, path: &[u8], inherited: &Inherited) -> bool {
        self.any_below(path, inherited, true)
    }

    fn any_below(&self, path: &[u8], inherited: &Inherited, is_exception: bool) -> bool {
        self.rules.iter().enumerate().any(|(at, rule)| {
            rule.is_exception == is_exception
                && (inherited.0.get(at).copied().unwrap_or(false) || rule.pattern.can_match_below(path))
        })
    }
}

/// A `.dockerignore`: what of the context no COPY or ADD can see. Paths are relative to the context.
#[derive(Debug, Clone, Default)]
pub struct IgnoreFile {
    patterns: PatternList,
}

impl IgnoreFile {
    /// Reads the file: `#` in the first column is a comment, a byte order mark and CRLF are no part of it.
    pub fn parse(text: &[u8]) -> Result<IgnoreFile, BadPattern> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut patterns = Vec::new();
        for line in text.split(|&byte| byte == b'\n') {
            if line.starts_with(b"#") {
                continue;
            }
            let line = line.trim_ascii();
            let (mark, body): (&[u8], &[u8]) = match line.strip_prefix(b"!") {
                Some(body) => (b"!", body.trim_ascii()),
                None => (b"", line),
            };
            let mut pattern = mark.to_vec();
            if !body.is_empty() {
                let body = clean(body);
                pattern.extend_from_slice(if body.len() > 1 {
                    body.strip_prefix(b"/").unwrap_or(&body)
                } else {
                    &body
                });
            }
            patterns.push(pattern);
        }
        Ok(IgnoreFile { patterns: PatternList::new(patterns)? })
    }

    /// Is `path`, relative to the context, left out?
    pub fn matches(&self, path: &[u8]) -> bool {
        self.patterns.matches(path)
    }

    /// The patterns, for whoever walks the context.
    pub fn patterns(&self) -> &PatternList {
        &self.patterns
    }
}

/// As Go's `filepath.Clean`: no empty or `.` components, `..` resolved where something precedes it.
fn clean(path: &[u8]) -> Vec<u8> {
    let is_absolute = path.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => drop(parts.pop()),
            b".." if is_absolute => {}
            part => parts.push(part),
        }
    }
    let mut cleaned = if is_absolute { b"/".to_vec() } else { Vec::new() };
    cleaned.extend_from_slice(&parts.join(&b'/'));
    if cleaned.is_empty() { b".".to_vec() } else { cleaned }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of which `text` leaves over some, as (file, is left out).
    const FILES: [&str; 9] =
        [".dockerignore", ".hid", "a.txt", "b.md", "dir/a.txt", "dir/b.md", "dir/sub/a.txt", "dir/sub/c.log", "tmp/x"];

    #[test]
    fn files_left_out() {
        for (text, out) in [
            ("", vec![]),
            ("a.txt", vec!["a.txt"]),
            ("/a.txt\n/dir/b.md", vec!["a.txt", "dir/b.md"]),
            ("./a.txt", vec!["a.txt"]),
            ("../a.txt\n.\n/", vec![]),
            ("dir/", vec!["dir/a.txt", "dir/b.md", "dir/sub/a.txt", "dir/sub/c.log"]),
            ("dir/x/../sub", vec!["dir/sub/a.txt", "dir/sub/c.log"]),
            ("# a.txt\n\n   b.md   \n#dir", vec!["b.md"]),
            (" #a.txt\n\\#x", vec![]),
            ("\u{feff}a.txt\r\nb.md\r\n", vec!["a.txt", "b.md"]),
            ("A.TXT", vec![]),
            (".*", vec![".dockerignore", ".hid"]),
            ("*.txt\n!a.txt", vec![]),
            ("!a.txt\n*.txt", vec!["a.txt"]),
            ("*.txt\n! a.txt", vec![]),
            ("dir\n!dir/sub\ndir/sub/c.log", vec!["dir/a.txt", "dir/b.md", "dir/sub/c.log"]),
            ("*\n!dir/sub\n!b.md", vec![".dockerignore", ".hid", "a.txt", "dir/a.txt", "dir/b.md", "tmp/x"]),
            (
                "**\n!**/*.md",
                vec![".dockerignore", ".hid", "a.txt", "dir/a.txt", "dir/sub/a.txt", "dir/sub/c.log", "tmp/x"],
            ),
            ("**/*.txt", vec!["a.txt", "dir/a.txt", "dir/sub/a.txt"]),
            ("dir/*/a.txt", vec!["dir/sub/a.txt"]),
            ("dir/**/a.txt", vec!["dir/a.txt", "dir/sub/a.txt"]),
        ] {
            let ignore = IgnoreFile::parse(text.as_bytes()).expect("a good file");
            let found: Vec<&str> = FILES.into_iter().filter(|file| ignore.matches(file.as_bytes())).collect();
            assert_eq!(found, out, "{text:?}");
        }
        for bad in ["a[", "!", "x\n! \n", "a\\"] {
            assert!(IgnoreFile::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    /// Walking with pruning finds the same files as asking for each.
    #[test]
    fn pruning_misses_nothing() {
        for (text, pruned) in [
            ("dir", true),
            ("dir\n!a.txt", true),
            ("dir\n!dir/sub/a.txt", false),
            ("*\n!**/*.md", false),
            ("*\n!dir/s?b", false),
            ("dir\n!dir", false),
        ] {
            let ignore = IgnoreFile::parse(text.as_bytes()).expect("a good file");
            let verdict = ignore.patterns().descend(b"dir");
            let descends = !verdict.matched || ignore.patterns().can_except_below(b"dir", &verdict.inherited);
            assert_eq!(descends, !pruned, "{text:?}");
        }
    }

    #[test]
    fn cleaning() {
        for (given, cleaned) in
            [("a//b/./c/", "a/b/c"), ("./", "."), ("../a", "../a"), ("a/../../b", "../b"), ("/..", "/"), ("/a/..", "/")]
        {
            assert_eq!(clean(given.as_bytes()), cleaned.as_bytes(), "{given}");
        }
    }
}
