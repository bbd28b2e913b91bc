//! Dockerfiles: what is parsed lies where it says, twice the same, and can be planned or is refused with its lines.
#![no_main]

use kanna::build::{Unseen, Wishes, plan};
use kanna::dockerfile::{Dockerfile, Located, Span, excerpt, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let lines = text.split(|byte| *byte == b'\n').count() as u32;
    match parse(text) {
        Err(error) => {
            assert!(error.line >= 1 && error.line <= error.end_line && error.end_line <= lines.max(1));
            assert!(!excerpt(text, error.line..=error.end_line).is_empty());
        }
        Ok(file) => {
            assert_eq!(parse(text).as_ref(), Ok(&file), "twice the same");
            let mut places = places(&file);
            places.sort_by_key(|(span, ..)| span.start);
            let mut end = 0;
            for (span, line, end_line) in places {
                assert!(span.start >= end && span.start < span.end, "instructions follow each other");
                let breaks = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count() as u32;
                let (before, within) = (breaks(&text[..span.start]), breaks(&text[span.start..span.end]));
                assert_eq!((line, end_line), (before + 1, before + within + 1), "lines are those of the bytes");
                end = span.end;
            }
            let platform = "linux/amd64".parse().expect("a platform");
            let wishes = Wishes { build_args: &[], target: None, platform: &platform, contexts: &[] };
            if let Err(error) = plan(&file, &wishes, &mut |_, _| Ok(Unseen)) {
                assert!(error.line <= lines);
            }
        }
    }
});

fn places(file: &Dockerfile) -> Vec<(Span, u32, u32)> {
    fn place<T>(at: &Located<T>) -> (Span, u32, u32) {
        (at.span, at.line, at.end_line)
    }
    let stages = file
        .stages
        .iter()
        .flat_map(|stage| std::iter::once(place(&stage.from)).chain(stage.instructions.iter().map(place)));
    file.global_args.iter().map(place).chain(stages).collect()
}
