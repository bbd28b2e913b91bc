//! `.dockerignore`: walking down a path and asking for it at once agree, and a directory that can be left out whole can.
#![no_main]

use kanna::context::pattern::Pattern;
use kanna::context::{IgnoreFile, Inherited};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (Some(file), Some(path)) = (parts.next(), parts.next()) else { return };
    if let Ok(pattern) = Pattern::go(file) {
        pattern.matches(path);
    }
    let Ok(file) = IgnoreFile::parse(file) else { return };
    let components: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).take(20).collect();
    let path = components.join(&b'/');
    let patterns = file.patterns();
    let (mut inherited, mut matched) = (Inherited::default(), false);
    // whether what is below may still be another
    let (mut can_match, mut can_except) = (true, true);
    for depth in 1..=components.len() {
        let here = components[..depth].join(&b'/');
        let verdict = patterns.verdict(&here, &inherited);
        assert_eq!(verdict, patterns.descend(&here));
        assert!(can_match || matched || !verdict.matched, "nothing below could match");
        assert!(can_except || !matched || verdict.matched, "nothing below could be brought back");
        (inherited, matched) = (verdict.inherited, verdict.matched);
        can_match = patterns.can_match_below(&here, &inherited);
        can_except = patterns.can_except_below(&here, &inherited);
    }
    assert_eq!(file.matches(&path), matched);
});
