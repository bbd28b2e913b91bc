use super::*;

fn variables(name: &str) -> Option<String> {
    let value = match name {
        "V" => "value",
        "S" => "a b",
        "EMPTY" => "",
        "P" => "/a/b/c.tar.gz",
        "X" => "aXbXc",
        "STARS" => "xx**",
        "1" => "one",
        "é" => "accent",
        _ => return None,
    };
    Some(value.into())
}

#[test]
fn a_word_is_expanded_as_buildkit_does() {
    for (raw, expected) in [
        // plain
        ("", ""),
        ("abc", "abc"),
        ("$V", "value"),
        ("a$V/b", "avalue/b"),
        ("$Vx", ""),
        ("${V}x", "valuex"),
        ("$V.x", "value.x"),
        ("$V-x", "value-x"),
        ("$UNSET", ""),
        ("$1", "one"),
        ("$12", ""),
        ("$1a", "onea"),
        ("$é", "accent"),
        // a dollar that is none
        ("x$", "x$"),
        ("$ y", "$ y"),
        ("$/x", "$/x"),
        ("$$", ""),
        ("$?x", "x"),
        // quotes
        ("'$V'", "$V"),
        ("\"$V\"", "value"),
        ("\"it's\"", "it's"),
        ("'a\"b'", "a\"b"),
        ("a' b 'c", "a b c"),
        ("''", ""),
        ("'\\'", "\\"),
        // escapes
        ("\\$V", "$V"),
        ("\\a\\\\", "a\\"),
        ("\"\\$V \\\" \\\\ \\a\"", "$V \" \\ \\a"),
        ("x\\", "x"),
        ("\\'", "'"),
        // - + ?
        ("${UNSET:-w}", "w"),
        ("${UNSET-w}", "w"),
        ("${EMPTY:-w}", "w"),
        ("${EMPTY-w}", ""),
        ("${V:-w}", "value"),
        ("${V:+w}", "w"),
        ("${UNSET:+w}", ""),
        ("${EMPTY:+w}", ""),
        ("${EMPTY+w}", "w"),
        ("${UNSET+w}", ""),
        ("${V:?w}", "value"),
        ("${EMPTY?w}", ""),
        ("${UNSET:-}", ""),
        // nested
        ("${UNSET:-$V}", "value"),
        ("${UNSET:-${EMPTY:-deep}}", "deep"),
        ("${UNSET:-\"a }b\"}", "a }b"),
        ("${UNSET:-'$V'}", "$V"),
        ("${UNSET:-\\}}", "}"),
        ("${V:+<$V>}", "<value>"),
        // # %
        ("${P#*/}", "a/b/c.tar.gz"),
        ("${P##*/}", "c.tar.gz"),
        ("${P%.*}", "/a/b/c.tar"),
        ("${P%%.*}", "/a/b/c"),
        ("${P#nomatch}", "/a/b/c.tar.gz"),
        ("${P#/a}", "/b/c.tar.gz"),
        ("${P%/*}", "/a/b"),
        ("${P%%/*}", ""),
        ("${P#?a}", "/b/c.tar.gz"),
        ("${STARS%\\*}", "xx*"),
        ("${STARS%%\\**}", "xx"),
        ("${STARS#x*}", "x**"),
        ("${UNSET#x}", ""),
        ("${P#$UNSET/a}", "/b/c.tar.gz"),
        ("${V#[v]}", "value"),
        // /
        ("${X/X/-}", "a-bXc"),
        ("${X//X/-}", "a-b-c"),
        ("${X/b/}", "aXXc"),
        ("${X//[a-b]/n}", "aXbXc"),
        ("${X/X*/!}", "a!"),
        ("${P/\\/a/x}", "x/b/c.tar.gz"),
        ("${P//\\//-}", "-a-b-c.tar.gz"),
        ("${X//X/$V}", "avaluebvaluec"),
        ("${X/X/\"$1\"}", "aonebXc"),
        ("${UNSET//a/b}", ""),
        // what is not special
        ("a < b << c", "a < b << c"),
        ("100%", "100%"),
        ("{V}", "{V}"),
    ] {
        assert_eq!(word(raw, &variables, '\\').as_deref(), Ok(expected), "{raw}");
    }
}

#[test]
fn the_escape_character_is_the_one_in_force() {
    assert_eq!(word("C:\\x `$V \"`\"q\"", &variables, '`').as_deref(), Ok("C:\\x $V \"q"));
}

fn fails(raw: &str) -> ExpandError {
    Expander::new(&variables, '\\').expand(raw).expect_err(raw)
}

#[test]
fn what_cannot_be_expanded_says_why() {
    use ExpandProblem as P;
    let required = |name: &str, message: &str| P::Required { name: name.into(), message: message.into() };
    for (raw, expected) in [
        ("${V", P::MissingBrace),
        ("${", P::MissingBrace),
        ("${V:", P::MissingBrace),
        ("${V:-x", P::MissingBrace),
        ("${V/x}", P::MissingSlash),
        ("${V/x/y", P::MissingBrace),
        ("${}", P::BadSubstitution),
        ("${{V}}", P::BadSubstitution),
        ("${:-x}", P::BadSubstitution),
        ("${V!x}", P::UnknownModifier("!".into())),
        ("${V^^}", P::UnknownModifier("^".into())),
        ("${V:0:1}", P::UnknownModifier(":0".into())),
        ("${V:#x}", P::UnknownModifier(":#".into())),
        ("${#V}", P::UnknownModifier("V".into())),
        ("'x", P::UnbalancedQuote('\'')),
        ("\"x", P::UnbalancedQuote('"')),
        ("\"x\\", P::UnbalancedQuote('"')),
        ("${UNSET:?must be set}", required("UNSET", "must be set")),
        ("${UNSET?}", required("UNSET", "is not allowed to be unset")),
        ("${EMPTY:?}", required("EMPTY", "is not allowed to be empty")),
        ("${V#\\x}", P::BadPattern("\\x".into())),
    ] {
        let error = fails(raw);
        assert_eq!((error.word.as_str(), error.problem), (raw, expected));
    }
    let deep = format!("{}{}", "${U:-".repeat(10_000), "}".repeat(10_000));
    assert_eq!(fails(&deep).problem, P::TooDeep);
    let nested = format!("{}x{}", "${U:-".repeat(50), "}".repeat(50));
    assert_eq!(word(&nested, &variables, '\\').as_deref(), Ok("x"));
    let wide = "${U:-x}".repeat(1_000);
    assert_eq!(word(&wide, &variables, '\\').map(|text| text.len()), Ok(1_000));
}

#[test]
fn words_are_split_after_expansion_where_nothing_is_quoted() {
    for (raw, expected) in [
        ("$S c", vec!["a", "b", "c"]),
        ("\"$S\" c", vec!["a b", "c"]),
        ("x$S", vec!["xa", "b"]),
        ("a\\ b", vec!["a b"]),
        ("'' a", vec!["a"]),
        ("  ", vec![]),
        ("pre${UNSET:-x y}post", vec!["prex", "ypost"]),
    ] {
        assert_eq!(
            words(raw, &variables, '\\').as_deref(),
            Ok(expected.as_slice()).map(|w| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).as_deref(),
            "{raw}"
        );
    }
}

#[test]
fn a_heredoc_keeps_its_quotes() {
    let content = "line $V ${V:-x} \\$V $UNDEF\n  \"quoted\" 'single $V' it's\n";
    let expected = "line value value $V \n  \"quoted\" 'single value' it's\n";
    assert_eq!(body(content, &variables).as_deref(), Ok(expected));
}

#[test]
fn quotes_escapes_and_unset_variables_can_be_kept() {
    let keep =
        Expander { quotes: Quotes::Keep, keep_escapes: true, keep_unset: true, ..Expander::new(&variables, '\\') };
    for raw in ["'a b' \"c\"", "a\\ b", "$UNSET ${UNSET}", "${UNSET:-x}", "${UNSET#x}", "${UNSET/a/b}", "${UNSET//a/b}"]
    {
        assert_eq!(keep.expand(raw).map(|found| found.text).as_deref(), Ok(raw));
    }
    assert_eq!(keep.expand("\"$V\"").map(|found| found.text).as_deref(), Ok("\"value\""));
}

#[test]
fn the_names_asked_for_are_reported() {
    let found = Expander::new(&variables, '\\').expand("$V ${NOPE:-$S} '$X' \"${P#$OTHER}\"").expect("expands");
    assert_eq!(found.used.iter().map(String::as_str).collect::<Vec<_>>(), ["P", "S", "V"]);
    assert_eq!(found.unset.iter().map(String::as_str).collect::<Vec<_>>(), ["NOPE", "OTHER"]);
}
