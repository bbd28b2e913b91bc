//! From bytes to statements: lines, directives, comments, continuations, and the bodies of heredocs.

use super::arguments::{self, Parsed};
use super::check::CheckOptions;
use super::error::{Error, Fault};
use super::heredoc::{self, Heredoc, Opening};
use super::instruction::{Located, Span};

/// The longest line BuildKit reads, without its newline: one less than Go's `bufio.MaxScanTokenSize`.
const MAX_LINE_BYTES: usize = 64 * 1024 - 1;

/// Written by some editors at the start of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The directives at the top of a Dockerfile.
pub(super) struct Directives {
    pub escape: char,
    pub syntax: Option<String>,
    pub check: Option<CheckOptions>,
}

impl Default for Directives {
    fn default() -> Directives {
        Directives { escape: '\\', syntax: None, check: None }
    }
}

/// One instruction's text, continuations joined, and the heredocs after it.
pub(super) struct Statement {
    place: Place,
    text: String,
    heredocs: Vec<Heredoc>,
}

/// Where a statement stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    span: Span,
    line: u32,
    end_line: u32,
}

impl Place {
    pub(super) fn error(self, problem: Fault) -> Error {
        Error::new(problem, self.span, self.line, self.end_line)
    }
}

impl Statement {
    pub(super) fn place(&self) -> Place {
        self.place
    }

    pub(super) fn parse(self, escape: char) -> Result<Located<Parsed>, Error> {
        let Statement { place, mut text, heredocs } = self;
        let value = arguments::parse(&text, heredocs, escape).map_err(|problem| place.error(problem))?;
        let Place { span, line, end_line } = place;
        text.truncate(text.trim_end().len());
        text.drain(..text.len() - text.trim_start().len());
        Ok(Located { value, span, line, end_line, text })
    }
}

/// One physical line.
#[derive(Clone, Copy)]
struct Line<'a> {
    /// Without its newline.
    bytes: &'a [u8],
    /// With its newline, where it has one.
    whole: &'a [u8],
    start: usize,
    number: u32,
}

impl<'a> Line<'a> {
    fn trimmed_start(self) -> Line<'a> {
        let bytes = trim_start(self.bytes);
        Line { bytes, start: self.start + self.bytes.len() - bytes.len(), ..self }
    }

    fn place(self) -> Place {
        let span = Span { start: self.start, end: self.start + self.bytes.len() };
        Place { span, line: self.number, end_line: self.number }
    }
}

/// Divides a Dockerfile into statements, one after the other.
pub(super) struct Reader<'a> {
    text: &'a [u8],
    next: usize,
    line: u32,
    /// Complete once the first statement was read.
    pub directives: Directives,
    /// Still at the top, where directives are.
    in_directives: bool,
    escape_was_set: bool,
    /// No statement was read yet.
    is_first: bool,
    /// Blank lines inside the statements read so far.
    pub empty_continuation_lines: Vec<u32>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a [u8]) -> Reader<'a> {
        Reader {
            text,
            next: 0,
            line: 0,
            directives: Directives::default(),
            in_directives: true,
            escape_was_set: false,
            is_first: true,
            empty_continuation_lines: Vec::new(),
        }
    }

    /// The next statement; a text without any is an error.
    pub(super) fn next_statement(&mut self) -> Result<Option<Statement>, Error> {
        while let Some(line) = self.next_line()? {
            let first = line.trimmed_start();
            self.directive(first)?;
            if !matches!(first.bytes.first(), None | Some(b'#')) {
                self.is_first = false;
                return self.statement(first).map(Some);
            }
        }
        if self.text.is_empty() {
            return Err(Error::new(Fault::Empty, Span::default(), 1, 1));
        }
        if self.is_first {
            let end = self.text.iter().position(|&byte| byte == b'\n').unwrap_or(self.text.len());
            return Err(Error::new(Fault::NoInstructions, Span { start: 0, end }, 1, 1));
        }
        Ok(None)
    }

    fn next_line(&mut self) -> Result<Option<Line<'a>>, Error> {
        if self.line == 0 && self.text.starts_with(BYTE_ORDER_MARK) {
            self.next = BYTE_ORDER_MARK.len();
        }
        let rest = &self.text[self.next..];
        if rest.is_empty() {
            return Ok(None);
        }
        let whole = match rest.iter().position(|&byte| byte == b'\n') {
            Some(newline) => &rest[..=newline],
            None => rest,
        };
        self.line += 1;
        let without_newline = whole.strip_suffix(b"\n").unwrap_or(whole);
        let ends = without_newline.iter().rposition(|&byte| byte != b'\r').map_or(0, |last| last + 1);
        let line = Line { bytes: &whole[..ends], whole, start: self.next, number: self.line };
        self.next += whole.len();
        if without_newline.len() > MAX_LINE_BYTES {
            return Err(line.place().error(Fault::LineTooLong { max: MAX_LINE_BYTES }));
        }
        Ok(Some(line))
    }

    /// Takes a directive in; the first line that is none ends them.
    fn directive(&mut self, line: Line<'_>) -> Result<(), Error> {
        if !self.in_directives {
            return Ok(());
        }
        let Some((name, value)) = directive(line.bytes) else {
            self.in_directives = false;
            return Ok(());
        };
        let twice = |name: &str| Err(line.place().error(Fault::DirectiveTwice(name.to_owned())));
        match name.as_str() {
            "escape" if self.escape_was_set => return twice("escape"),
            "escape" => {
                self.directives.escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    other => return Err(line.place().error(Fault::BadEscape(other.to_owned()))),
                };
                self.escape_was_set = true;
            }
            "syntax" if self.directives.syntax.is_some() => return twice("syntax"),
            "syntax" => self.directives.syntax = Some(value.to_owned()),
            "check" if self.directives.check.is_some() => return twice("check"),
            "check" => {
                let bad = |option| line.place().error(Fault::BadCheck(option));
                self.directives.check = Some(CheckOptions::parse(value).map_err(bad)?);
            }
            _ => self.in_directives = false,
        }
        Ok(())
    }

    /// Joins the lines of one instruction, then reads its heredocs.
    fn statement(&mut self, first: Line<'a>) -> Result<Statement, Error> {
        let mut joined = Vec::new();
        let mut place = first.place();
        let mut line = first;
        loop {
            let (kept, continues) = without_continuation(line.bytes, self.directives.escape);
            if std::str::from_utf8(kept).is_err() {
                return Err(line.place().error(Fault::NotUtf8));
            }
            joined.extend_from_slice(kept);
            if !continues {
                break;
            }
            let Some(next) = self.next_continuation(&mut place)? else { break };
            line = next;
        }
        // Whole lines of UTF-8 joined are UTF-8.
        let text = String::from_utf8(joined).map_err(|_| place.error(Fault::NotUtf8))?;
        let names = arguments::heredocs_of(&text, self.directives.escape).map_err(|problem| place.error(problem))?;
        let mut heredocs = Vec::with_capacity(names.len());
        for name in names {
            heredocs.push(self.heredoc(name, &mut place)?);
        }
        Ok(Statement { place, text, heredocs })
    }

    /// The next line of a continued instruction; comments and blank lines between are passed over.
    fn next_continuation(&mut self, place: &mut Place) -> Result<Option<Line<'a>>, Error> {
        while let Some(line) = self.next_line()? {
            match trim_start(line.bytes).first() {
                None => self.empty_continuation_lines.push(line.number),
                Some(b'#') => {}
                Some(_) => {
                    place.extend_to(line);
                    return Ok(Some(line));
                }
            }
        }
        Ok(None)
    }

    fn heredoc(&mut self, opening: Opening, place: &mut Place) -> Result<Heredoc, Error> {
        let mut content = Vec::new();
        let start = *place;
        while let Some(line) = self.next_line()? {
            let candidate = if opening.strip_tabs { heredoc::without_tabs(line.bytes) } else { line.bytes };
            if candidate == opening.name.as_bytes() {
                place.extend_to(line);
                let raw = String::from_utf8(content).map_err(|_| place.error(Fault::NotUtf8))?;
                return Ok(opening.with_body(raw));
            }
            content.extend_from_slice(line.whole);
        }
        Err(start.error(Fault::UnterminatedHeredoc(opening.name)))
    }
}

impl Place {
    fn extend_to(&mut self, line: Line<'_>) {
        self.span.end = line.start + line.bytes.len();
        self.end_line = line.number;
    }
}

/// `# name = value`: the name in lower case, the value trimmed and not empty.
fn directive(line: &[u8]) -> Option<(String, &str)> {
    let text = std::str::from_utf8(line.strip_prefix(b"#")?).ok()?.trim_start();
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim());
    let is_name =
        name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric());
    (is_name && !value.is_empty()).then(|| (name.to_ascii_lowercase(), value))
}

/// The line without the escape character that continues it, and whether there was one. Two escape characters at the end
/// are an escaped one, and so are three: BuildKit looks at one character before the last only.
fn without_continuation(line: &[u8], escape: char) -> (&[u8], bool) {
    let escape = escape as u8;
    let end = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
    match line[..end].split_last() {
        Some((&last, kept)) if last == escape && kept.last() != Some(&escape) => (kept, true),
        _ => (line, false),
    }
}

/// Without white space at the start, by Unicode as far as the bytes are UTF-8.
fn trim_start(line: &[u8]) -> &[u8] {
    let valid = match std::str::from_utf8(line) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&line[..error.valid_up_to()]).unwrap_or_default(),
    };
    &line[valid.len() - valid.trim_start().len()..]
}
