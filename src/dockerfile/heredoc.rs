//! Heredocs: `<<EOF`, `<<-EOF`, `<<"EOF"` in a RUN, COPY or ADD, their bodies in the lines after it.

use super::error::Fault;
use super::expand::{ExpandError, Expander, Expansion, Quotes};

/// The escape character inside a heredoc's name, whatever the escape directive says.
const ESCAPE: char = '\\';

/// A heredoc and its body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heredoc {
    /// The word that ends it, quotes removed; for COPY and ADD the file name too.
    pub name: String,
    /// The name was not quoted: variables in a COPY or ADD body are replaced ([`super::expand::body`]).
    pub expand: bool,
    /// The body as it is meant: without the tabs at the start of its lines where it was written `<<-`.
    pub content: String,
    /// The body as it stands in the file, for shells that read it themselves.
    pub raw: String,
}

/// A word that opens a heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opening {
    pub name: String,
    pub strip_tabs: bool,
    pub expand: bool,
}

impl Opening {
    pub(super) fn with_body(self, raw: String) -> Heredoc {
        let content = match self.strip_tabs {
            true => raw.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect(),
            false => raw.clone(),
        };
        Heredoc { name: self.name, expand: self.expand, content, raw }
    }

    /// Reads a word such as `3<<-"EOF"`; `None` where it opens no heredoc.
    pub(super) fn parse(word: &str) -> Result<Option<Opening>, Fault> {
        let Some(after) = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<") else {
            return Ok(None);
        };
        let (strip_tabs, after) = after.strip_prefix('-').map_or((false, after), |rest| (true, rest));
        let name = after.trim_start_matches(|c: char| c.is_ascii_whitespace());
        if name.is_empty() || name.contains('<') {
            return Ok(None);
        }
        if is_plain(name) {
            return Ok(Some(Opening { name: name.to_owned(), strip_tabs, expand: true }));
        }
        if let Some(quoted) = in_quotes(name).filter(|quoted| !quoted.is_empty() && is_plain(quoted)) {
            return Ok(Some(Opening { name: quoted.to_owned(), strip_tabs, expand: false }));
        }
        let bad_name = |_: ExpandError| Fault::BadHeredocName(name.to_owned());
        let plain = lex(name, Quotes::Remove, false).map_err(bad_name)?;
        let quoted = lex(name, Quotes::Keep, false).map_err(bad_name)?;
        let ([plain], [quoted]) = (plain.words.as_slice(), quoted.words.as_slice()) else { return Ok(None) };
        let expand = quotes_in(plain) == quotes_in(quoted);
        Ok(Some(Opening { name: plain.clone(), strip_tabs, expand }))
    }
}

impl Heredoc {
    /// Whether the whole text is one heredoc's opening.
    pub(super) fn is_word(text: &str) -> bool {
        matches!(Opening::parse(text), Ok(Some(_)))
    }
}

/// The heredocs that a line opens, in order. A line that cannot be split into words opens none, as in BuildKit.
pub(super) fn openings(line: &str) -> Result<Vec<Opening>, Fault> {
    if has_plain_words(line) {
        return openings_in(line.split_whitespace());
    }
    let Ok(split) = lex(line, Quotes::Keep, true) else { return Ok(Vec::new()) };
    openings_in(split.words.iter().map(String::as_str))
}

fn openings_in<'a>(words: impl Iterator<Item = &'a str>) -> Result<Vec<Opening>, Fault> {
    words.filter_map(|word| Opening::parse(word).transpose()).collect()
}

/// White space alone divides the line: no quote, escape or variable, and no blank after `<<`, which would belong to the word.
fn has_plain_words(line: &str) -> bool {
    !line.contains(['\'', '"', '$', ESCAPE]) && !line.contains("<< ") && !line.contains("<<\t")
}

/// Without the tabs at the start.
pub(super) fn without_tabs(line: &[u8]) -> &[u8] {
    let start = line.iter().position(|&byte| byte != b'\t').unwrap_or(line.len());
    &line[start..]
}

fn lex(text: &str, quotes: Quotes, keep_escapes: bool) -> Result<Expansion, ExpandError> {
    Expander { lookup: &|_| None, escape: ESCAPE, quotes, keep_escapes, keep_unset: true }.expand(text)
}

/// Nothing in it means anything to a shell.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// What stands between a quote at the start and the same quote at the end.
fn in_quotes(name: &str) -> Option<&str> {
    ['\'', '"'].into_iter().find_map(|quote| name.strip_prefix(quote)?.strip_suffix(quote))
}

fn quotes_in(word: &str) -> usize {
    word.chars().filter(|c| matches!(c, '\'' | '"')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_are_read_as_a_shell_would() {
        // line -> (name, strip_tabs, expand)
        type Row = (&'static str, &'static [(&'static str, bool, bool)]);
        let rows: &[Row] = &[
            ("RUN <<EOF", &[("EOF", false, true)]),
            ("RUN 3<<EOF", &[("EOF", false, true)]),
            ("RUN <<-EOF", &[("EOF", true, true)]),
            ("RUN <<'EOF'", &[("EOF", false, false)]),
            ("RUN <<-\"EOF\"", &[("EOF", true, false)]),
            ("RUN <<EO'F'", &[("EOF", false, false)]),
            ("RUN <<''", &[]),
            ("RUN <<'", &[]),
            ("RUN <<'E\"", &[]),
            ("RUN <<eo\\'f", &[("eo'f", false, true)]),
            ("RUN <<'e'o\\'f", &[("eo'f", false, false)]),
            ("RUN <<'one two'", &[("one two", false, false)]),
            ("RUN <<$EOF", &[("$EOF", false, true)]),
            ("RUN <<  EOF > foo", &[("EOF", false, true)]),
            ("RUN << -EOF", &[("-EOF", false, true)]),
            ("RUN cat <<A >/a && cat <<B >/b", &[("A", false, true), ("B", false, true)]),
            ("COPY <<file.txt /dest", &[("file.txt", false, true)]),
            ("RUN \"<<EOF\"", &[]),
            ("RUN '<<EOF'", &[]),
            ("RUN <<<EOF", &[]),
            ("RUN <<", &[]),
            ("RUN <<-", &[]),
            ("RUN echo it's <<EOF", &[]),
        ];
        for (line, expected) in rows {
            let found = openings(line).expect(line);
            let found: Vec<_> = found.iter().map(|h| (h.name.as_str(), h.strip_tabs, h.expand)).collect();
            assert_eq!(found, *expected, "{line}");
        }
    }

    #[test]
    fn plain_words_are_those_that_the_lexer_finds() {
        for line in [
            "RUN <<EOF",
            "RUN 3<<-E.x >a <<_",
            "COPY\t<<a\u{a0}<<b\x0b/x",
            "RUN <<<E <<\x0bE",
            "RUN <<",
            "  <<E<<F < <",
            "",
        ] {
            assert!(has_plain_words(line), "{line}");
            assert_eq!(lex(line, Quotes::Keep, true).expect(line).words, line.split_whitespace().collect::<Vec<_>>());
        }
        for line in ["RUN << E", "RUN <<\tE", "RUN '<<E F'", "RUN \"<<E\"", "RUN $a <<E", "RUN a\\ <<E"] {
            assert!(!has_plain_words(line), "{line}");
        }
    }

    #[test]
    fn a_word_with_an_open_quote_is_refused() {
        for word in ["<<'EOF", "<<\"EOF", "<<EOF'"] {
            assert!(Opening::parse(word).is_err(), "{word}");
        }
        assert!(!Heredoc::is_word("<<EOF sh"));
        assert!(Heredoc::is_word("<<EOF"));
    }

    #[test]
    fn tabs_are_stripped_for_the_dash_form_only() {
        let raw = "\t\ta\tb\n\n \tc\n";
        let opening = |strip_tabs| Opening { name: "E".into(), strip_tabs, expand: true };
        assert_eq!(opening(true).with_body(raw.into()).content, "a\tb\n\n \tc\n");
        assert_eq!(opening(false).with_body(raw.into()).content, raw);
        assert_eq!(opening(true).with_body(raw.into()).raw, raw);
    }
}
