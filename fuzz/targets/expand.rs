//! `${…}`: the same word is the same text, what has nothing special stays, and nobody is asked for what is not told.
#![no_main]

use std::cell::RefCell;
use std::collections::BTreeSet;

use kanna::dockerfile::expand::{Expander, Quotes, body};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&flags, data)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(data) else { return };
    let asked = RefCell::new(BTreeSet::new());
    let lookup = |name: &str| {
        asked.borrow_mut().insert(name.to_owned());
        match name {
            "SET" | "a" => Some("value with spaces".to_owned()),
            "EMPTY" | "b" => Some(String::new()),
            "PATH" | "c" => Some("/a/b.c/d.tar.gz".to_owned()),
            _ => None,
        }
    };
    let expander = Expander {
        quotes: [Quotes::Remove, Quotes::Keep, Quotes::Ignore][usize::from(flags % 3)],
        keep_escapes: flags & 4 != 0,
        keep_unset: flags & 8 != 0,
        ..Expander::new(&lookup, if flags & 16 != 0 { '`' } else { '\\' })
    };
    let expanded = expander.expand(text);
    assert_eq!(expanded, expander.expand(text), "twice the same");
    if let Ok(expansion) = expanded {
        assert!(expansion.used.is_disjoint(&expansion.unset));
        let told: BTreeSet<_> = expansion.used.union(&expansion.unset).cloned().collect();
        assert!(told.is_subset(&asked.borrow()));
        if !text.contains(['$', '\'', '"', '\\', '`']) {
            assert_eq!(expansion.text, text);
            assert!(told.is_empty());
            // the blanks behind << belong to the word that follows
            let words: Vec<&str> = text.split_whitespace().collect();
            assert!(expansion.words == words || text.contains('<'));
        }
    }
    let _ = body(text, &lookup);
});
