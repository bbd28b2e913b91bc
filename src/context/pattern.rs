//! [`Pattern`]: one wildcard pattern, in the two dialects of a Dockerfile.
//!
//! The sources of COPY follow Go's `filepath.Match` ([`Pattern::go`]); `.dockerignore`, `--exclude` and `--parents` follow
//! moby's `patternmatcher` ([`Pattern::moby`]), which adds `**`. Both are the same tokens, run as a set of states: the
//! cost is bounded by pattern length times path length, whatever the pattern.
//!
//! Characters are UTF-8 code points; a byte that is no UTF-8 counts as one character of its own.

/// A pattern that cannot be read: an open bracket, an empty range, a backslash at the end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern {0:?}")]
pub struct BadPattern(pub String);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// This character.
    Character(u32),
    /// `?`: one character but `/`.
    One,
    /// `*`: any characters but `/`.
    Star,
    /// `[a-z]`, `[^a-z]`: one character of a set. Like Go's, a negated set contains `/`.
    Class { negated: bool, ranges: Vec<(u32, u32)> },
    /// `**/`: nothing, or anything up to and with a `/`.
    Directories,
    /// `**` at the end: anything.
    Anything,
}

/// A pattern ready to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    tokens: Vec<Token>,
    /// Bytes that every match begins with: most paths are refused by these alone.
    prefix: Box<[u8]>,
    /// Bytes that every match ends with.
    suffix: Box<[u8]>,
    /// Is `prefix` the whole pattern?
    literal: bool,
}

const SLASH: u32 = b'/' as u32;
/// A byte that is no UTF-8 becomes this plus its value: above all code points.
const RAW_BYTE: u32 = 0x11_0000;

impl Pattern {
    /// Reads a pattern of Go's `filepath.Match`: two stars mean what one means.
    pub fn go(text: &[u8]) -> Result<Pattern, BadPattern> {
        let mut parser = Parser::new(text);
        while let Some(character) = parser.next() {
            let token = parser.simple(character)?;
            parser.push(token);
        }
        Ok(Pattern::new(parser.tokens))
    }

    /// Reads a pattern of moby's matcher: `**` spans directories.
    pub fn moby(text: &[u8]) -> Result<Pattern, BadPattern> {
        let mut parser = Parser::new(text);
        let mut leading_without_slash = false;
        while let Some(character) = parser.next() {
            if character != u32::from(b'*') || parser.peek() != Some(u32::from(b'*')) {
                let token = parser.simple(character)?;
                parser.push(token);
                continue;
            }
            let is_first = parser.tokens.is_empty();
            parser.next();
            let had_slash = parser.peek() == Some(SLASH);
            if had_slash {
                parser.next();
            }
            leading_without_slash |= is_first && !had_slash;
            parser.push(if parser.peek().is_none() { Token::Anything } else { Token::Directories });
        }
        let mut tokens = parser.tokens;
        // moby compares the rest of `**name` as a suffix, so that it matches `a/my-name` too, unless that rest has
        // wildcards of its own
        if leading_without_slash && tokens[1..].iter().all(|token| matches!(token, Token::Character(_))) {
            tokens[0] = Token::Anything;
        }
        Ok(Pattern::new(tokens))
    }

    fn new(tokens: Vec<Token>) -> Pattern {
        let character = |token: &Token| match token {
            Token::Character(character) => Some(*character),
            _ => None,
        };
        let prefix: Vec<u32> = tokens.iter().map_while(character).collect();
        let mut suffix: Vec<u32> = tokens.iter().rev().map_while(character).collect();
        suffix.reverse();
        let literal = prefix.len() == tokens.len();
        Pattern { tokens, prefix: encode(&prefix), suffix: encode(&suffix), literal }
    }

    /// Does the whole of `path` match? `path` is relative and clean.
    pub fn matches(&self, path: &[u8]) -> bool {
        if self.literal {
            return *path == *self.prefix;
        }
        if !path.starts_with(&self.prefix) || !path.ends_with(&self.suffix) {
            return false;
        }
        self.run(path).is_some_and(|states| states[self.tokens.len()])
    }

    /// Can anything below the directory `path` match?
    pub fn can_match_below(&self, path: &[u8]) -> bool {
        let common = path.len().min(self.prefix.len());
        if path[..common] != self.prefix[..common] {
            return false;
        }
        let mut below = path.to_vec();
        below.push(b'/');
        self.run(&below).is_some_and(|states| states[..self.tokens.len()].contains(&true))
    }

    /// The states that are alive after all of `text`; the last one is "matched". `None` once all are dead.
    fn run(&self, text: &[u8]) -> Option<Vec<bool>> {
        let mut now = vec![false; self.tokens.len() + 1];
        let mut next = now.clone();
        self.enter(&mut now, 0);
        for character in characters(text) {
            next.fill(false);
            for (at, token) in self.tokens.iter().enumerate() {
                if !now[at] {
                    continue;
                }
                match token {
                    Token::Character(wanted) if *wanted == character => self.enter(&mut next, at + 1),
                    Token::One if character != SLASH => self.enter(&mut next, at + 1),
                    Token::Class { negated, ranges } => {
                        let found = ranges.iter().any(|&(low, high)| low <= character && character <= high);
                        if found != *negated {
                            self.enter(&mut next, at + 1);
                        }
                    }
                    Token::Star if character != SLASH => self.enter(&mut next, at),
                    Token::Anything => self.enter(&mut next, at),
                    Token::Directories => {
                        next[at] = true;
                        if character == SLASH {
                            self.enter(&mut next, at + 1);
                        }
                    }
                    Token::Character(_) | Token::One | Token::Star => {}
                }
            }
            std::mem::swap(&mut now, &mut next);
            if !now.contains(&true) {
                return None;
            }
        }
        Some(now)
    }

    /// Makes state `at` alive, with those that it leads to without a character.
    fn enter(&self, states: &mut [bool], mut at: usize) {
        loop {
            states[at] = true;
            match self.tokens.get(at) {
                Some(Token::Star | Token::Anything | Token::Directories) => at += 1,
                _ => return,
            }
        }
    }
}

/// Does a component of a COPY source hold an unescaped wildcard?
pub fn has_wildcard(text: &[u8]) -> bool {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

struct Parser<'a> {
    text: &'a [u8],
    rest: Vec<u32>,
    tokens: Vec<Token>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a [u8]) -> Parser<'a> {
        let mut rest: Vec<u32> = characters(text).collect();
        rest.reverse();
        Parser { text, rest, tokens: Vec::new() }
    }

    fn next(&mut self) -> Option<u32> {
        self.rest.pop()
    }

    fn peek(&self) -> Option<u32> {
        self.rest.last().copied()
    }

    fn push(&mut self, token: Token) {
        if token != Token::Star || self.tokens.last() != Some(&Token::Star) {
            self.tokens.push(token);
        }
    }

    fn bad(&self) -> BadPattern {
        BadPattern(String::from_utf8_lossy(self.text).into_owned())
    }

    /// The token that begins with `character`, which was just read.
    fn simple(&mut self, character: u32) -> Result<Token, BadPattern> {
        Ok(match u8::try_from(character) {
            Ok(b'*') => Token::Star,
            Ok(b'?') => Token::One,
            Ok(b'[') => self.class()?,
            Ok(b'\\') => Token::Character(self.next().ok_or_else(|| self.bad())?),
            _ => Token::Character(character),
        })
    }

    /// What follows `[`.
    fn class(&mut self) -> Result<Token, BadPattern> {
        let negated = self.peek() == Some(u32::from(b'^'));
        if negated {
            self.next();
        }
        let mut ranges = Vec::new();
        loop {
            if self.peek() == Some(u32::from(b']')) && !ranges.is_empty() {
                self.next();
                return Ok(Token::Class { negated, ranges });
            }
            let low = self.class_character()?;
            let mut high = low;
            if self.peek() == Some(u32::from(b'-')) {
                self.next();
                high = self.class_character()?;
            }
            ranges.push((low, high));
        }
    }

    /// One end of a range; something must follow it, if only the closing bracket.
    fn class_character(&mut self) -> Result<u32, BadPattern> {
        let mut character = self.next().ok_or_else(|| self.bad())?;
        match u8::try_from(character) {
            Ok(b'-' | b']') => return Err(self.bad()),
            Ok(b'\\') => character = self.next().ok_or_else(|| self.bad())?,
            _ => {}
        }
        if character >= RAW_BYTE || self.rest.is_empty() { Err(self.bad()) } else { Ok(character) }
    }
}

/// The characters of `text`.
fn characters(text: &[u8]) -> impl Iterator<Item = u32> {
    text.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid().chars().map(u32::from);
        valid.chain(chunk.invalid().iter().map(|&byte| RAW_BYTE + u32::from(byte)))
    })
}

fn encode(characters: &[u32]) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(characters.len());
    for &character in characters {
        match char::from_u32(character) {
            Some(character) => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            None => bytes.push((character - RAW_BYTE) as u8),
        }
    }
    bytes.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows in the manner of the documentation of Go's `filepath.Match`; `None` is a syntax error.
    #[test]
    fn go_dialect() {
        for (pattern, path, matches) in [
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "a", Some(true)),
            ("a*", "ab/c", Some(false)),
            ("a*/b", "abc/b", Some(true)),
            ("a*/b", "a/c/b", Some(false)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Some(true)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Some(false)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
            ("ab[c]", "abc", Some(true)),
            ("ab[b-d]", "abc", Some(true)),
            ("ab[e-g]", "abc", Some(false)),
            ("ab[^c]", "abc", Some(false)),
            ("ab[^e-g]", "abc", Some(true)),
            ("a\\*b", "a*b", Some(true)),
            ("a\\*b", "ab", Some(false)),
            ("a?b", "aéb", Some(true)),
            ("a[^a]b", "aéb", Some(true)),
            ("a???b", "aéb", Some(false)),
            ("[a-ζ]*", "α", Some(true)),
            ("*[a-ζ]", "A", Some(false)),
            ("a?b", "a/b", Some(false)),
            ("a*b", "a/b", Some(false)),
            ("a[^x]b", "a/b", Some(true)),
            ("[\\]a]", "]", Some(true)),
            ("[\\-]", "-", Some(true)),
            ("[x\\-]", "-", Some(true)),
            ("[x\\-]", "z", Some(false)),
            ("arr[[]0].txt", "arr[0].txt", Some(true)),
            ("a]", "a]", Some(true)),
            ("[!a]", "!", Some(true)),
            ("[!a]", "b", Some(false)),
            ("**", "a/b", Some(false)),
            ("**", "ab", Some(true)),
            ("", "", Some(true)),
            ("", "a", Some(false)),
            ("[]a]", "]", None),
            ("[-]", "-", None),
            ("[x-]", "x", None),
            ("[-x]", "x", None),
            ("[^]a]", "b", None),
            ("[a-b-c]", "a", None),
            ("[", "a", None),
            ("[^", "a", None),
            ("[^bc", "a", None),
            ("a[", "a", None),
            ("a[", "ab", None),
            ("x[", "unrelated", None),
            ("a\\", "a", None),
            ("[a\\", "a", None),
        ] {
            let found = Pattern::go(pattern.as_bytes()).map(|pattern| pattern.matches(path.as_bytes())).ok();
            assert_eq!(found, matches, "{pattern:?} on {path:?}");
        }
    }

    #[test]
    fn moby_dialect() {
        for (pattern, path, matches) in [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "dir/file", true),
            ("**/**", "dir/file", true),
            ("**/file", "file", true),
            ("**/file", "dir/dir/file", true),
            ("**/file", "dir/my-file", false),
            ("**file", "dir/my-file", true),
            ("**fil?", "dir/my-file", false),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/*", "dir/dir2/dir2/file", true),
            ("**/dir2/*", "dir/dir2/a/b", false),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir/a/b", true),
            ("dir/**", "dir", false),
            ("dir**", "dir/a", true),
            ("dir**", "dirt", true),
            ("dir/**/file", "dir/file", true),
            ("dir/**/file", "dir/a/b/file", true),
            ("dir/**/file", "dir/a/bfile", false),
            ("a**/*.txt", "a/b/c.txt", true),
            ("*.md", "a.md", true),
            ("*.md", "b/a.md", false),
            ("a.c", "abc", false),
            ("a(b)+|{c}$", "a(b)+|{c}$", true),
            ("[ab].*", "a.x", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("../a", "a", false),
        ] {
            let parsed = Pattern::moby(pattern.as_bytes()).expect("a good pattern");
            assert_eq!(parsed.matches(path.as_bytes()), matches, "{pattern:?} on {path:?}");
        }
        assert!(Pattern::moby(b"a[").is_err());
    }

    #[test]
    fn below() {
        for (pattern, directory, possible) in [
            ("a/b/c", "a", true),
            ("a/b/c", "a/b", true),
            ("a/b/c", "a/b/c", false),
            ("a/b/c", "x", false),
            ("**/*.md", "any/where", true),
            ("*.md", "dir", false),
            ("*/x", "dir", true),
            ("*/x", "dir/sub", false),
            ("dir/**", "dir/sub", true),
            ("a?/x", "ab", true),
        ] {
            let parsed = Pattern::moby(pattern.as_bytes()).expect("a good pattern");
            assert_eq!(parsed.can_match_below(directory.as_bytes()), possible, "{pattern:?} below {directory:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text() {
        let pattern = Pattern::moby(b"a?\xff*").expect("a good pattern");
        assert!(pattern.matches(b"a\xfe\xff\xfd"));
        assert!(!pattern.matches(b"a\xfe\xfe"));
        assert!(Pattern::go(b"[\xff]").is_err());
    }

    #[test]
    fn many_stars_stay_cheap() {
        let pattern = Pattern::moby("**/*a".repeat(40).as_bytes()).expect("a good pattern");
        assert!(!pattern.matches(&b"a/".repeat(1000)));
    }

    /// The slow, obvious way: the documented meaning of each wildcard as a regular expression.
    fn as_regex(pattern: &str) -> regex::Regex {
        let mut text = String::from("^(?s)");
        let mut rest = pattern;
        while let Some(character) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("**") {
                rest = after.strip_prefix('/').unwrap_or(after);
                text.push_str(if rest.is_empty() { ".*" } else { "(.*/)?" });
                continue;
            }
            match character {
                '*' => text.push_str("[^/]*"),
                '?' => text.push_str("[^/]"),
                other => text.push_str(&regex::escape(&other.to_string())),
            }
            rest = &rest[character.len_utf8()..];
        }
        regex::Regex::new(&(text + "$")).expect("a good expression")
    }

    proptest::proptest! {
        #[test]
        fn as_the_regular_expression_says(pattern in "[ab/*?é]{1,10}", path in "[ab/é]{0,12}", tail in "[ab/é]{0,6}") {
            let literal_after_stars = pattern.strip_prefix("**").is_some_and(|rest| !rest.starts_with('/') && !rest.contains(['*', '?']));
            let parsed = Pattern::moby(pattern.as_bytes()).expect("a good pattern");
            let slow = as_regex(&pattern);
            if !literal_after_stars {
                proptest::prop_assert_eq!(parsed.matches(path.as_bytes()), slow.is_match(&path));
            }
            // what matches below a directory is never pruned with it
            let below = format!("{path}/{tail}");
            if parsed.matches(below.as_bytes()) {
                proptest::prop_assert!(tail.is_empty() || parsed.can_match_below(path.as_bytes()));
            }
        }
    }

    #[test]
    fn wildcards() {
        for (text, found) in [("a", false), ("a*", true), ("a?", true), ("[", true), ("\\*", false), ("\\\\*", true)] {
            assert_eq!(has_wildcard(text.as_bytes()), found, "{text:?}");
        }
    }
}
