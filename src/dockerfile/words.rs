//! How the text after an instruction's name is divided: flags, words with their quotes, words without, JSON lists.

use serde::de::IgnoredAny;

/// White space between plain words; BuildKit does not count Unicode's other spaces here.
fn is_blank(character: char) -> bool {
    matches!(character, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// An instruction's name, and what follows it.
pub(super) fn split_name(line: &str) -> (&str, &str) {
    let line = line.trim();
    line.split_once(is_blank).map_or((line, ""), |(name, rest)| (name, rest.trim_start_matches(is_blank)))
}

/// Words between blanks; quotes mean nothing.
pub(super) fn plain_words(rest: &str) -> impl Iterator<Item = &str> {
    rest.split(is_blank).filter(|word| !word.is_empty())
}

/// The first word and all the rest, which keeps its blanks.
pub(super) fn first_word(rest: &str) -> Option<(&str, &str)> {
    rest.split_once(is_blank).map(|(word, value)| (word, value.trim_start_matches(is_blank)))
}

/// Words between white space outside of quotes; quotes and escapes stay in them.
pub(super) fn quoted_words(rest: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        match quote {
            None if character.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(character, '\'' | '"') => quote = Some(character),
            Some(open) if open == character => quote = None,
            _ => {}
        }
        if character == escape && quote != Some('\'') {
            // An escape at the very end escapes nothing, and goes.
            if let Some(escaped) = characters.next() {
                word.extend([character, escaped]);
            }
            continue;
        }
        word.push(character);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Takes the flags off the start: words that begin with `--`, up to a lone `--`. Quotes and escapes are removed from them.
pub(super) fn split_flags(rest: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = rest.trim_start();
    while rest.starts_with("--") {
        let (flag, after) = unquoted_word(rest, escape);
        rest = after;
        if flag == "--" {
            break;
        }
        flags.push(flag);
        rest = rest.trim_start();
    }
    (flags, rest.trim())
}

/// The first word without quotes and escapes, and what follows it.
fn unquoted_word(rest: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        match quote {
            None if character.is_whitespace() => return (word, characters.as_str()),
            None if matches!(character, '\'' | '"') => quote = Some(character),
            Some(open) if open == character => quote = None,
            _ if character == escape => word.extend(characters.next()),
            _ => word.push(character),
        }
    }
    (word, "")
}

/// What a text that may be a JSON list is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json {
    /// A list of strings.
    Strings(Vec<String>),
    /// A list with something else in it.
    OtherList,
    /// No list.
    No,
}

/// Reads a JSON list; whatever is not quite one is no error but plain text (`RUN [ -d /x ] && …`).
pub(super) fn json_list(rest: &str) -> Json {
    if !rest.trim_start().starts_with('[') {
        return Json::No;
    }
    match serde_json::from_str(rest) {
        Ok(strings) => Json::Strings(strings),
        Err(_) if serde_json::from_str::<Vec<IgnoredAny>>(rest).is_ok() => Json::OtherList,
        Err(_) => Json::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_words_together_and_stay() {
        for (rest, escape, expected) in [
            ("a b  c", '\\', vec!["a", "b", "c"]),
            ("a='x y' b", '\\', vec!["a='x y'", "b"]),
            ("a=\"x \\\" y\" b", '\\', vec!["a=\"x \\\" y\"", "b"]),
            ("a='x\\' b", '\\', vec!["a='x\\'", "b"]),
            ("a=x\\ y b", '\\', vec!["a=x\\ y", "b"]),
            ("a=\\\"x y", '\\', vec!["a=\\\"x", "y"]),
            ("a=x\\", '\\', vec!["a=x"]),
            ("a=C:\\ b", '`', vec!["a=C:\\", "b"]),
            ("a=x` y", '`', vec!["a=x` y"]),
            ("a=\"x y", '\\', vec!["a=\"x y"]),
            ("a=\"it's\" b", '\\', vec!["a=\"it's\"", "b"]),
            ("", '\\', vec![]),
        ] {
            assert_eq!(quoted_words(rest, escape), expected, "{rest}");
        }
    }

    #[test]
    fn flags_end_at_the_first_other_word() {
        for (rest, flags, after) in [
            ("--a --b=c x --d", vec!["--a", "--b=c"], "x --d"),
            ("--a='x y' z", vec!["--a=x y"], "z"),
            ("--a=\"x\\\"y\" z", vec!["--a=x\"y"], "z"),
            ("--a=x\\ y z", vec!["--a=x y"], "z"),
            ("--a -- --b", vec!["--a"], "--b"),
            ("x --a", vec![], "x --a"),
            ("-x", vec![], "-x"),
            ("--a", vec!["--a"], ""),
            ("--a=", vec!["--a="], ""),
            ("  --a  b ", vec!["--a"], "b"),
            ("", vec![], ""),
        ] {
            let (found, rest_found) = split_flags(rest, '\\');
            assert_eq!((found, rest_found), (flags.into_iter().map(str::to_owned).collect(), after), "{rest}");
        }
    }

    #[test]
    fn only_a_whole_json_list_is_one() {
        let strings = |list: &[&str]| Json::Strings(list.iter().map(|&s| s.to_owned()).collect());
        for (rest, expected) in [
            ("[\"a\", \"b\"]", strings(&["a", "b"])),
            (" [ \"\\u0041\" ,\"q\\\"q\" ] ", strings(&["A", "q\"q"])),
            ("[]", strings(&[])),
            ("[\"a\", 1]", Json::OtherList),
            ("[[\"a\"]]", Json::OtherList),
            ("[null]", Json::OtherList),
            ("['a']", Json::No),
            ("[\"a\"] b", Json::No),
            ("[\"a\",]", Json::No),
            ("[ -d /srv ] && x", Json::No),
            ("\"a\"", Json::No),
            ("", Json::No),
        ] {
            assert_eq!(json_list(rest), expected, "{rest}");
        }
    }
}
