//! The nearest known word to a misspelt one.

/// Words longer than this are not compared: nobody misspells a flag by that much.
const MAX_COMPARED_CHARS: usize = 32;

/// The known word with the fewest edits, where that is at most a third of its letters, rounded up.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.chars().count() > MAX_COMPARED_CHARS {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (distance(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        // of a word with one letter nothing is left that could be meant
        .filter(|&(edits, candidate)| edits <= candidate.len().div_ceil(3) && edits < candidate.len())
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, candidate)| candidate)
}

/// Edits from one word to the other: letters inserted, removed, replaced, or exchanged with their neighbour.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows = vec![(0..=right.len()).collect::<Vec<usize>>()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let above = &rows[i - 1];
            let replaced = above[j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let is_exchange = i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1];
            let exchanged = if is_exchange { rows[i - 2][j - 2] + 1 } else { usize::MAX };
            row.push(replaced.min(exchanged).min(above[j] + 1).min(row[j - 1] + 1));
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_word_is_named_if_it_is_near() {
        let known = ["RUN", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "A"];
        for (word, expected) in [
            ("RUNN", Some("RUN")),
            ("RNU", Some("RUN")),
            ("cpy", Some("COPY")),
            ("ENTRYPONT", Some("ENTRYPOINT")),
            ("EXPOES", Some("EXPOSE")),
            ("INSTALL", None),
            ("", None),
            ("X", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(nearest(&"R".repeat(1_000_000), known), None);
    }
}
