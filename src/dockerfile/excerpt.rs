//! [`excerpt`]: the wrong lines of a Dockerfile and their neighbours.

use std::ops::RangeInclusive;

/// Lines shown before and after the wrong ones.
const CONTEXT_LINES: u32 = 2;

/// Wrong lines shown at most: a heredoc can be long.
const MAX_MARKED_LINES: u32 = 6;

/// Bytes of one line shown at most.
const MAX_SHOWN_BYTES: usize = 160;

/// The lines around `wrong` (counted from 1), the wrong ones marked: plain text, several lines.
pub fn excerpt(text: &[u8], wrong: RangeInclusive<u32>) -> String {
    let last_marked = *wrong.end().min(&wrong.start().saturating_add(MAX_MARKED_LINES - 1));
    let first = wrong.start().saturating_sub(CONTEXT_LINES).max(1);
    let last = last_marked.saturating_add(CONTEXT_LINES);
    let width = last.to_string().len();
    let mut shown = String::new();
    let lines = text.split(|&byte| byte == b'\n').zip(1..=last);
    for (line, number) in lines.skip_while(|(_, number)| *number < first) {
        let mark = if (*wrong.start()..=last_marked).contains(&number) { '>' } else { ' ' };
        let row = format!("{mark} {number:width$} | {}", printable(line));
        shown.push_str(row.trim_end());
        shown.push('\n');
    }
    shown
}

/// A line as a terminal can show it: no control characters, not too long.
fn printable(line: &[u8]) -> String {
    let cut = &line[..line.len().min(MAX_SHOWN_BYTES)];
    let mut shown: String = String::from_utf8_lossy(cut)
        .trim_end()
        .chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    if cut.len() < line.len() {
        shown.push_str(" ...");
    }
    shown
}
