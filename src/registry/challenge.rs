//! `WWW-Authenticate`: how a registry wants to be spoken to (RFC 9110, section 11.6.1).

use std::collections::BTreeMap;

/// One way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// Distribution spec, token authentication.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// The challenge to answer: a token where one is offered, else a password. Unknown ways are passed over.
pub(super) fn choose<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for (scheme, mut parameters) in headers.into_iter().flat_map(parse) {
        match (scheme.as_str(), parameters.remove("realm")) {
            ("bearer", Some(realm)) => {
                let (service, scope) = (parameters.remove("service"), parameters.remove("scope"));
                return Some(Challenge::Bearer { realm, service, scope });
            }
            ("basic", _) => basic = Some(Challenge::Basic),
            _ => {}
        }
    }
    basic
}

/// Splits a header into schemes (lower case) and their parameters. A comma separates both parameters and challenges;
/// a word that no `=` follows begins a challenge.
fn parse(header: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut challenges: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',', '=']);
        let end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        if end == 0 {
            return challenges;
        }
        let word = rest[..end].to_lowercase();
        rest = &rest[end..];
        let after = rest.trim_start_matches([' ', '\t']);
        let value = after.strip_prefix('=').filter(|value| !value.starts_with('='));
        match (value, challenges.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (text, remaining) = parse_value(value.trim_start_matches([' ', '\t']));
                parameters.entry(word).or_insert(text);
                rest = remaining;
            }
            (Some(_), None) => return challenges,
            (None, _) => challenges.push((word, BTreeMap::new())),
        }
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// A value, quoted or not, and what follows it.
fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            Some(Challenge::Bearer { realm: realm.into(), service: own(service), scope: own(scope) })
        };
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        for (headers, expected) in [
            (vec![], None),
            (vec!["Basic realm=\"x, Bearer y\""], Some(Challenge::Basic)),
            (vec!["basic"], Some(Challenge::Basic)),
            (
                vec![hub],
                bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull,push")),
            ),
            (vec!["Basic realm=a, Bearer realm=b,service=\"c\""], bearer("b", Some("c"), None)),
            (vec!["Basic realm=a", "BEARER realm = \"b\""], bearer("b", None, None)),
            (vec!["Negotiate, Bearer realm=\"q\\\"q\", error=\"invalid_token\""], bearer("q\"q", None, None)),
            (vec!["Negotiate abc==, Basic realm=x"], Some(Challenge::Basic)),
            (vec!["Digest realm=a"], None),
            (vec!["Bearer service=no-realm"], None),
            (vec!["Bearer realm=\"never closed"], bearer("never closed", None, None)),
            (vec!["realm=x", "\u{e9}", "=,=,"], None),
        ] {
            assert_eq!(choose(headers.iter().copied()), expected, "{headers:?}");
        }
    }
}
