//! What does the Dockerfile say?
//!
//! [`parse`] turns the text into stages of typed [`Instruction`]s, exactly as BuildKit's frontend reads it: every
//! instruction, every flag, heredocs, continuations. Values stay as they were written, quotes and `$` included, because
//! which variables are in force is known only while the stages are planned; [`expand`] then replaces them. Whatever is
//! refused carries its place, so that [`excerpt()`] can show the lines.
//!
//! Parsing takes time linear in the text, and nothing is parsed and then dropped: a flag that no instruction knows is an error.
//!
//! Not here: any I/O; which instructions can be built (`build` refuses what it cannot do); the values of variables.

pub mod expand;

mod arguments;
mod check;
mod duration;
mod error;
mod excerpt;
mod flags;
mod heredoc;
mod instruction;
mod lines;
mod mount;
mod pattern;
mod records;
mod suggest;
mod words;

pub use arguments::INSTRUCTIONS;
pub use check::CheckOptions;
pub use duration::parse as parse_duration;
pub use error::{Error, Fault};
pub use excerpt::excerpt;
pub use expand::{ExpandError, ExpandProblem};
pub use heredoc::Heredoc;
pub use instruction::{
    Arg, Copy, CopyFlags, CopySource, Dockerfile, From, Healthcheck, HealthcheckFlags, Instruction, Located, Run,
    RunFlags, Script, ShellOrExec, Span, Stage, Word,
};
pub use mount::{BadMount, Device, MOUNT_OPTIONS, Mount, MountFlag, MountKind, Network, Ownership, Security, Sharing};
pub use suggest::nearest;

use arguments::Parsed;
use lines::{Directives, Reader};

/// Parses a whole Dockerfile.
pub fn parse(text: &[u8]) -> Result<Dockerfile, Error> {
    let mut reader = Reader::new(text);
    let (mut global_args, mut stages) = (Vec::new(), Vec::<Stage>::new());
    while let Some(statement) = reader.next_statement()? {
        let place = statement.place();
        let Located { value, span, line, end_line, text } = statement.parse(reader.directives.escape)?;
        match (value, stages.last_mut()) {
            (Parsed::From(value), _) => {
                let from = Located { value, span, line, end_line, text };
                stages.push(Stage { from, instructions: Vec::new() });
            }
            (Parsed::Instruction(value), Some(stage)) => {
                stage.instructions.push(Located { value, span, line, end_line, text });
            }
            (Parsed::Instruction(Instruction::Arg(value)), None) => {
                global_args.push(Located { value, span, line, end_line, text });
            }
            (Parsed::Instruction(_), None) => return Err(place.error(Fault::BeforeFrom)),
        }
    }
    if stages.is_empty() {
        return Err(Error::new(Fault::NoStages, Span::default(), 1, 1));
    }
    let Reader { directives: Directives { escape, syntax, check }, empty_continuation_lines, .. } = reader;
    Ok(Dockerfile { escape, syntax, check, global_args, stages, empty_continuation_lines })
}

/// Parses one ONBUILD trigger, as the config of a base image holds it; heredocs may follow on further lines. A trigger has
/// the escape character that its own text says, so a backslash, whatever the Dockerfile of the build says.
pub fn parse_trigger(trigger: &str) -> Result<Located<Instruction>, Error> {
    let mut reader = Reader::new(trigger.as_bytes());
    let whole = Span { start: 0, end: trigger.len() };
    let (Some(statement), None) = (reader.next_statement()?, reader.next_statement()?) else {
        return Err(Error::new(Fault::NotOneInstruction, whole, 1, 1));
    };
    let Located { value, span, line, end_line, text } = statement.parse(reader.directives.escape)?;
    match value {
        Parsed::Instruction(value) => Ok(Located { value, span, line, end_line, text }),
        Parsed::From(_) => Err(Error::new(Fault::TriggerNotAllowed("FROM"), whole, 1, 1)),
    }
}

#[cfg(test)]
mod tests;
