//! Words and how often they come.

use std::collections::BTreeMap;

/// Each word of `text` with the number of times that it is there.
pub fn count(text: &str) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word).or_default() += 1;
    }
    counts
}

#[test]
fn words_are_counted() {
    assert_eq!(count("a b  a").into_iter().collect::<Vec<_>>(), [("a", 2), ("b", 1)]);
}
