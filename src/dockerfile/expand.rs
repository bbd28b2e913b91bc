//! Variables in a word: `$V`, `${V}` and the forms with a word or pattern, as BuildKit's shell lexer replaces them.
//!
//! A variable that is not set is empty. Single quotes keep everything, double quotes everything but `$` and escapes;
//! both are removed, and so is an escape character before another character.

mod lexer;

use std::collections::BTreeSet;

use super::error::Fault;
use lexer::{Lexer, MAX_NESTING, Output};

/// Characters of a word that an error repeats.
const MAX_SHOWN_CHARS: usize = 120;

/// A word whose variables cannot be replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?}: {problem}")]
pub struct ExpandError {
    /// The whole word, or the start of a long one.
    pub word: String,
    /// What is wrong with it.
    pub problem: ExpandProblem,
}

/// What can be wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandProblem {
    /// `${V` and no brace that ends it.
    #[error("a ${{ has no closing brace")]
    MissingBrace,
    /// `${V/p` and no second slash.
    #[error("a ${{name/pattern has no second slash")]
    MissingSlash,
    /// `${}`, `${:x}`, `${{x}}`.
    #[error("a ${{ has no variable name")]
    BadSubstitution,
    /// `${V!x}`.
    #[error("${{name{0}}} is not supported; - + ? with or without a colon, # % and / are")]
    UnknownModifier(String),
    /// A quote that is not closed.
    #[error("a {0} has no closing {0}")]
    UnbalancedQuote(char),
    /// `${V:?message}` with V not set.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The text after `?`, or a default.
        message: String,
    },
    /// A pattern with a backslash before an ordinary character.
    #[error("the pattern {0:?} has a backslash before something else than * ? \\ }} or /")]
    BadPattern(String),
    /// A pattern of megabytes.
    #[error("a pattern is too large")]
    LargePattern,
    /// Too many `${` inside each other.
    #[error("${{}} is nested more than {MAX_NESTING} times")]
    TooDeep,
}

/// What becomes of quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quotes {
    /// They quote, and are removed.
    Remove,
    /// They quote, and stay (BuildKit: `RawQuotes`).
    Keep,
    /// They are ordinary characters (BuildKit: `SkipProcessQuotes`).
    Ignore,
}

/// How words are expanded. [`word`], [`words`] and [`body`] are the usual ways.
#[derive(Clone, Copy)]
pub struct Expander<'a> {
    /// Answers for variables.
    pub lookup: &'a Lookup<'a>,
    /// A backslash, or what the escape directive says.
    pub escape: char,
    /// What becomes of quotes.
    pub quotes: Quotes,
    /// Escape characters stay (BuildKit: `RawEscapes`).
    pub keep_escapes: bool,
    /// Variables that are not set stay as they were written (BuildKit: `SkipUnsetEnv`).
    pub keep_unset: bool,
}

/// What a word became.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expansion {
    /// The result as one word.
    pub text: String,
    /// The result split at white space that was not quoted, after variables were replaced; empty words are dropped.
    pub words: Vec<String>,
    /// Names that were looked up and are set.
    pub used: BTreeSet<String>,
    /// Names that were looked up and are not set.
    pub unset: BTreeSet<String>,
}

/// The value of a variable, `None` where it is not set.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// One word: variables replaced, quotes and escapes removed (BuildKit: `ProcessWord`).
pub fn word(raw: &str, lookup: &Lookup<'_>, escape: char) -> Result<String, Fault> {
    Ok(Expander::new(lookup, escape).expand(raw)?.text)
}

/// As [`word`], then split at white space that was not quoted (BuildKit: `ProcessWords`).
pub fn words(raw: &str, lookup: &Lookup<'_>, escape: char) -> Result<Vec<String>, Fault> {
    Ok(Expander::new(lookup, escape).expand(raw)?.words)
}

/// The body of a COPY or ADD heredoc whose name was not quoted: quotes stay, and the escape character is always a backslash.
pub fn body(content: &str, lookup: &Lookup<'_>) -> Result<String, Fault> {
    Ok(Expander { quotes: Quotes::Ignore, ..Expander::new(lookup, '\\') }.expand(content)?.text)
}

impl<'a> Expander<'a> {
    /// As for an ordinary word.
    pub fn new(lookup: &'a Lookup<'a>, escape: char) -> Expander<'a> {
        Expander { lookup, escape, quotes: Quotes::Remove, keep_escapes: false, keep_unset: false }
    }

    /// Expands a word, and says which variables it asked for.
    pub fn expand(&self, raw: &str) -> Result<Expansion, ExpandError> {
        let mut lexer = Lexer {
            options: *self,
            rest: raw.chars().peekable(),
            depth: 0,
            used: BTreeSet::new(),
            unset: BTreeSet::new(),
        };
        match lexer.until(None, self.keep_escapes) {
            Ok(Output { text, word, mut words }) => {
                words.extend((!word.is_empty()).then_some(word));
                Ok(Expansion { text, words, used: lexer.used, unset: lexer.unset })
            }
            Err(problem) => Err(ExpandError { word: raw.chars().take(MAX_SHOWN_CHARS).collect(), problem }),
        }
    }
}

#[cfg(test)]
mod tests;
