//! Commands of the machine that prepare a comparison, run to their end.

use std::process::{Command, Stdio};

use super::Error;

/// As much of what a command printed as an error shows.
const MOST_OUTPUT_BYTES: usize = 3000;

/// Runs a command that must succeed, and gives what it printed.
pub(super) fn run(command: &mut Command) -> Result<String, Error> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|source| Error::Start { program: command_line(command), source })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let all = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    Err(Error::Command { command: command_line(command), ending: output.status.to_string(), output: end_of(&all) })
}

/// The last lines of an output.
pub(super) fn end_of(output: &str) -> String {
    let cut = output.len().saturating_sub(MOST_OUTPUT_BYTES);
    let start = (cut..=output.len()).find(|&at| output.is_char_boundary(at)).unwrap_or(output.len());
    output[start..].trim_end().to_owned()
}

/// The words of a command.
pub(super) fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_tells_how_it_ended() {
        assert_eq!(run(Command::new("echo").arg("x")).expect("it succeeds"), "x\n");
        let error = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"])).expect_err("it fails");
        assert_eq!(error.to_string(), "sh -c echo out; echo err >&2; exit 3: exit status: 3\nout\nerr");
        assert!(matches!(run(&mut Command::new("/no/such/program")), Err(Error::Start { .. })));
    }

    #[test]
    fn the_end_of_an_output_is_whole_characters() {
        let long = "é".repeat(MOST_OUTPUT_BYTES);
        assert_eq!(end_of(&format!("x{long}")).len(), MOST_OUTPUT_BYTES);
        assert_eq!(end_of(&format!("{long}x")).len(), MOST_OUTPUT_BYTES - 1);
        assert_eq!(end_of("short\n"), "short");
    }
}
