//! The flags of one instruction: each is taken by name, and what nobody took is an error.

use super::error::Fault;
use super::suggest::nearest;

/// Flags given, minus those taken.
pub(super) struct Flags {
    instruction: &'static str,
    /// Name without dashes, and what follows `=`.
    given: Vec<(String, Option<String>)>,
    known: Vec<&'static str>,
}

impl Flags {
    pub(super) fn new(instruction: &'static str, words: Vec<String>) -> Flags {
        let split = |word: String| {
            let flag = word.strip_prefix("--").unwrap_or(&word);
            match flag.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (flag.to_owned(), None),
            }
        };
        Flags { instruction, given: words.into_iter().map(split).collect(), known: Vec::new() }
    }

    /// A flag that may be given many times.
    pub(super) fn strings(&mut self, name: &'static str) -> Result<Vec<String>, Fault> {
        self.known.push(name);
        let (taken, left) = std::mem::take(&mut self.given).into_iter().partition(|(given, _)| given == name);
        self.given = left;
        let taken: Vec<(String, Option<String>)> = taken;
        taken.into_iter().map(|(_, value)| value.ok_or(Fault::FlagWithoutValue(name))).collect()
    }

    /// A flag with a value.
    pub(super) fn string(&mut self, name: &'static str) -> Result<Option<String>, Fault> {
        let mut values = self.strings(name)?;
        if values.len() > 1 {
            return Err(Fault::DuplicateFlag(name));
        }
        Ok(values.pop())
    }

    /// A flag that is true where it stands without a value; `None` where it does not stand.
    pub(super) fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, Fault> {
        for (given, value) in &mut self.given {
            if given == name && value.is_none() {
                *value = Some("true".into());
            }
        }
        let Some(value) = self.string(name)? else { return Ok(None) };
        match value.to_lowercase().as_str() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            "" => Err(Fault::FlagWithoutValue(name)),
            _ => Err(Fault::NotBoolean { flag: name, value }),
        }
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), Fault> {
        match self.given.into_iter().next() {
            None => Ok(()),
            Some((flag, _)) => {
                let suggestion = nearest(&flag, self.known.iter().copied());
                Err(Fault::UnknownFlag { instruction: self.instruction, flag, suggestion, known: self.known })
            }
        }
    }
}
