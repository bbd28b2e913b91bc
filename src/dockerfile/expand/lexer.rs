//! [`Lexer`]: one pass over a word.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

use super::super::pattern::{Length, Pattern};
use super::{ExpandProblem, Expander, MAX_SHOWN_CHARS, Quotes};

/// How deep `${A:-${B:-…}}` may nest: every level is a call.
pub(super) const MAX_NESTING: usize = 100;

/// What is left of a word, and which variables it asked for so far.
pub(super) struct Lexer<'a> {
    pub(super) options: Expander<'a>,
    pub(super) rest: Peekable<Chars<'a>>,
    pub(super) depth: usize,
    pub(super) used: BTreeSet<String>,
    pub(super) unset: BTreeSet<String>,
}

/// The text as one word and as words; `word` is the one not finished yet.
#[derive(Default)]
pub(super) struct Output {
    pub(super) text: String,
    pub(super) word: String,
    pub(super) words: Vec<String>,
}

impl Output {
    /// Text that white space splits.
    fn push_split(&mut self, text: &str) {
        self.text.push_str(text);
        for character in text.chars() {
            if !character.is_whitespace() {
                self.word.push(character);
            } else if !self.word.is_empty() {
                self.words.push(std::mem::take(&mut self.word));
            }
        }
    }

    /// Text that stays together.
    fn push_whole(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
    }
}

impl Lexer<'_> {
    /// Reads up to a character, or to the end.
    pub(super) fn until(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<Output, ExpandProblem> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return Err(ExpandProblem::TooDeep);
        }
        let mut output = Output::default();
        let mut buffer = [0; 4];
        while let Some(character) = self.rest.next() {
            match character {
                _ if Some(character) == stop => {
                    self.depth -= 1;
                    return Ok(output);
                }
                '$' => {
                    let value = self.variable()?;
                    output.push_split(&value);
                }
                '\'' if self.options.quotes != Quotes::Ignore => output.push_whole(&self.single_quoted()?),
                '"' if self.options.quotes != Quotes::Ignore => output.push_whole(&self.double_quoted(keep_escapes)?),
                '<' => output.push_whole(&self.heredoc_operator()),
                _ if character == self.options.escape => {
                    if keep_escapes {
                        output.push_whole(character.encode_utf8(&mut buffer));
                    }
                    // An escape at the very end escapes nothing, and goes.
                    if let Some(escaped) = self.rest.next() {
                        output.push_whole(escaped.encode_utf8(&mut buffer));
                    }
                }
                _ => output.push_split(character.encode_utf8(&mut buffer)),
            }
        }
        self.depth -= 1;
        match stop {
            None => Ok(output),
            Some('/') => Err(ExpandProblem::MissingSlash),
            Some(_) => Err(ExpandProblem::MissingBrace),
        }
    }

    fn single_quoted(&mut self) -> Result<String, ExpandProblem> {
        let mut text = String::new();
        self.keep_quote('\'', &mut text);
        loop {
            match self.rest.next() {
                None => return Err(ExpandProblem::UnbalancedQuote('\'')),
                Some('\'') => break,
                Some(character) => text.push(character),
            }
        }
        self.keep_quote('\'', &mut text);
        Ok(text)
    }

    fn double_quoted(&mut self, keep_escapes: bool) -> Result<String, ExpandProblem> {
        let mut text = String::new();
        self.keep_quote('"', &mut text);
        loop {
            match self.rest.next() {
                None => return Err(ExpandProblem::UnbalancedQuote('"')),
                Some('"') => break,
                Some('$') => text.push_str(&self.variable()?),
                Some(escape) if escape == self.options.escape => {
                    if keep_escapes {
                        text.push(escape);
                    }
                    match self.rest.next_if(|&next| matches!(next, '"' | '$') || next == escape) {
                        Some(escaped) => text.push(escaped),
                        None if self.rest.peek().is_some() => text.push(escape),
                        None => {}
                    }
                }
                Some(character) => text.push(character),
            }
        }
        self.keep_quote('"', &mut text);
        Ok(text)
    }

    fn keep_quote(&self, quote: char, text: &mut String) {
        if self.options.quotes == Quotes::Keep {
            text.push(quote);
        }
    }

    /// `<<` and the blanks after it belong to the word that follows, so that `<< EOF` is one.
    fn heredoc_operator(&mut self) -> String {
        let mut text = "<".to_owned();
        if self.rest.next_if_eq(&'<').is_some() {
            text.push('<');
            while let Some(blank) = self.rest.next_if(|next| matches!(next, ' ' | '\t')) {
                text.push(blank);
            }
        }
        text
    }

    /// After a `$`.
    fn variable(&mut self) -> Result<String, ExpandProblem> {
        if self.rest.next_if_eq(&'{').is_some() {
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".into());
        }
        Ok(match self.value(&name) {
            None if self.options.keep_unset => format!("${name}"),
            value => value.unwrap_or_default(),
        })
    }

    /// After `${`.
    fn braced(&mut self) -> Result<String, ExpandProblem> {
        match self.rest.peek() {
            None => return Err(ExpandProblem::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandProblem::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.rest.next() {
            None => Err(ExpandProblem::MissingBrace),
            Some('}') => Ok(match self.value(&name) {
                None if self.options.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => match self.rest.next() {
                None => Err(ExpandProblem::MissingBrace),
                Some(operator @ ('-' | '+' | '?')) => self.alternative(&name, operator, true),
                Some(other) => Err(ExpandProblem::UnknownModifier(format!(":{other}"))),
            },
            Some(operator @ ('-' | '+' | '?')) => self.alternative(&name, operator, false),
            Some(operator @ ('#' | '%')) => self.trimmed(&name, operator),
            Some('/') => self.replaced(&name),
            Some(other) => Err(ExpandProblem::UnknownModifier(other.to_string())),
        }
    }

    /// `${V-w}`, `${V+w}`, `${V?w}`; with a colon an empty value counts as not set.
    fn alternative(&mut self, name: &str, operator: char, colon: bool) -> Result<String, ExpandProblem> {
        let word = self.until(Some('}'), false)?.text;
        let value = self.value(name);
        if value.is_none() && self.options.keep_unset {
            return Ok(format!("${{{name}{}{operator}{word}}}", if colon { ":" } else { "" }));
        }
        let is_set = value.is_some();
        let present = value.filter(|value| !(colon && value.is_empty()));
        match (operator, present) {
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            ('-', None) => Ok(word),
            (_, None) => {
                let message = match word {
                    word if !word.is_empty() => word,
                    _ if is_set => "is not allowed to be empty".into(),
                    _ => "is not allowed to be unset".into(),
                };
                Err(ExpandProblem::Required { name: name.to_owned(), message })
            }
        }
    }

    /// `${V#p}`, `${V##p}`, `${V%p}`, `${V%%p}`.
    fn trimmed(&mut self, name: &str, operator: char) -> Result<String, ExpandProblem> {
        let text = self.until(Some('}'), true)?.text;
        let Some(value) = self.value(name).or_else(|| (!self.options.keep_unset).then(String::new)) else {
            return Ok(format!("${{{name}{operator}{text}}}"));
        };
        let (length, pattern) = match text.strip_prefix(operator) {
            Some(rest) => (Length::Longest, rest),
            None => (Length::Shortest, text.as_str()),
        };
        let pattern = parse_pattern(pattern)?;
        let trimmed =
            if operator == '#' { pattern.trim_start(&value, length) } else { pattern.trim_end(&value, length) };
        trimmed.ok_or(ExpandProblem::LargePattern)
    }

    /// `${V/p/r}`, `${V//p/r}`.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandProblem> {
        let all = self.rest.next_if_eq(&'/').is_some();
        let pattern = self.until(Some('/'), true)?.text;
        let replacement = self.until(Some('}'), true)?.text;
        let Some(value) = self.value(name).or_else(|| (!self.options.keep_unset).then(String::new)) else {
            let slashes = if all { "//" } else { "/" };
            return Ok(format!("${{{name}{slashes}{pattern}/{replacement}}}"));
        };
        parse_pattern(&pattern)?.replace(&value, &replacement, all).ok_or(ExpandProblem::LargePattern)
    }

    /// A name, a number, or one of the shell's special parameters; may be empty.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.rest.peek() {
            Some(first) if first.is_ascii_digit() => {
                while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
                    name.push(digit);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.rest.next()),
            _ => {
                let belongs = |c: &char| c.is_alphabetic() || c.is_ascii_digit() || *c == '_';
                while let Some(character) = self.rest.next_if(belongs) {
                    name.push(character);
                }
            }
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = (self.options.lookup)(name);
        let seen = if value.is_some() { &mut self.used } else { &mut self.unset };
        if !seen.contains(name) {
            seen.insert(name.to_owned());
        }
        value
    }
}

fn parse_pattern(text: &str) -> Result<Pattern, ExpandProblem> {
    Pattern::parse(text).map_err(|_| ExpandProblem::BadPattern(text.chars().take(MAX_SHOWN_CHARS).collect()))
}
