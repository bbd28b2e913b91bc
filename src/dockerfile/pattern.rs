//! The patterns of `${V#p}`, `${V%p}` and `${V/p/r}`: `*` is any text, `?` any character but a newline, a backslash
//! takes either literally. There are no bracket expressions.

use regex::Regex;

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Token>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    AnyText,
    AnyCharacter,
    Literal(char),
}

/// How much a `*` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Shortest,
    Longest,
}

impl Pattern {
    /// Reads a pattern; the error is a character that a backslash cannot precede, `None` at the end of the text.
    pub(super) fn parse(text: &str) -> Result<Pattern, Option<char>> {
        let mut tokens = Vec::with_capacity(text.len());
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            tokens.push(match character {
                '*' => Token::AnyText,
                '?' => Token::AnyCharacter,
                '\\' => match characters.next() {
                    // } and / end parts of ${}, so they can be escaped; the escape is no part of the pattern.
                    Some(literal @ ('*' | '?' | '\\' | '}' | '/')) => Token::Literal(literal),
                    other => return Err(other),
                },
                literal => Token::Literal(literal),
            });
        }
        Ok(Pattern(tokens))
    }

    /// The value without the start that matches; `None` where the pattern is too large to be searched for.
    pub(super) fn trim_start(&self, value: &str, length: Length) -> Option<String> {
        let regex = self.regex("^", length)?;
        Some(regex.find(value).map_or(value, |found| &value[found.end()..]).to_owned())
    }

    /// The value without the end that matches. Pattern and value are turned round: a search finds the leftmost match, so
    /// only there the shortest can be asked for.
    pub(super) fn trim_end(&self, value: &str, length: Length) -> Option<String> {
        let turned = Pattern(self.0.iter().rev().copied().collect());
        let value: String = value.chars().rev().collect();
        Some(turned.trim_start(&value, length)?.chars().rev().collect())
    }

    /// The value with the first match, or all, replaced.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> Option<String> {
        let limit = if all { 0 } else { 1 };
        let regex = self.regex("", Length::Longest)?;
        Some(regex.replacen(value, limit, regex::NoExpand(replacement)).into_owned())
    }

    fn regex(&self, anchor: &str, length: Length) -> Option<Regex> {
        let mut regex = anchor.to_owned();
        for token in &self.0 {
            match (token, length) {
                (Token::AnyText, Length::Longest) => regex.push_str(".*"),
                (Token::AnyText, Length::Shortest) => regex.push_str(".*?"),
                (Token::AnyCharacter, _) => regex.push('.'),
                (Token::Literal(literal), _) => regex.push_str(&regex::escape(literal.encode_utf8(&mut [0; 4]))),
            }
        }
        Regex::new(&regex).ok()
    }
}
