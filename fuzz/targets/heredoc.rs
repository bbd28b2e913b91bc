//! Here-documents: whatever a body is, it comes back, and ends where its name stands alone.
#![no_main]

use kanna::dockerfile::{CopySource, Instruction, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // as it comes: openings of any kind
    for instruction in ["RUN", "COPY", "ADD"] {
        let _ = parse(format!("FROM a\n{instruction} {text}").as_bytes());
    }
    // as a body
    let name = "END";
    let ends = |line: &str| line.trim_end_matches('\r') == name;
    if text.contains('\0') || text.split('\n').any(ends) || text.contains('\r') {
        return;
    }
    let file = format!("FROM a\nCOPY <<\"{name}\" /x\n{text}\n{name}\nUSER after\n");
    let parsed = parse(file.as_bytes()).unwrap_or_else(|error| panic!("{file:?}: {error:?}"));
    let instructions = &parsed.stages[0].instructions;
    let [copy, user] = &instructions[..] else { panic!("{instructions:?}") };
    assert!(matches!(user.value, Instruction::User(_)));
    let Instruction::Copy(copy) = &copy.value else { panic!("{copy:?}") };
    let [CopySource::Heredoc(heredoc)] = &copy.sources[..] else { panic!("{copy:?}") };
    assert_eq!(heredoc.content, format!("{text}\n"));
    assert!(!heredoc.expand);
});
