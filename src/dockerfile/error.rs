//! What is wrong with a Dockerfile, and where.

use std::fmt;

use super::expand::ExpandError;
use super::instruction::Span;
use super::mount::BadMount;

/// A Dockerfile that cannot be parsed: what is wrong, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What is wrong.
    pub fault: Box<Fault>,
    /// The bytes of the instruction (or line) that is wrong.
    pub span: Span,
    /// First line of it, counted from 1.
    pub line: u32,
    /// Last line of it.
    pub end_line: u32,
}

/// What can be wrong with a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No byte at all.
    #[error("the Dockerfile is empty: begin with FROM and the image to build on")]
    Empty,
    /// Comments and blank lines only.
    #[error("the Dockerfile has only comments and blank lines: begin with FROM and the image to build on")]
    NoInstructions,
    /// Arguments but no FROM.
    #[error("the Dockerfile has no stage to build: add a FROM")]
    NoStages,
    /// `# check=` with something that it does not take.
    #[error("the check directive takes skip=, experimental= and error=true or error=false, not {0:?}")]
    BadCheck(String),
    /// An instruction other than ARG before the first FROM.
    #[error("only ARG may stand before the first FROM: begin with FROM and the image to build on")]
    BeforeFrom,
    /// A line longer than BuildKit takes.
    #[error("the line is longer than {max} bytes: continue it on the next line")]
    LineTooLong {
        /// The longest line allowed, without its newline.
        max: usize,
    },
    /// Bytes outside a comment that are not UTF-8.
    #[error("the line is not valid UTF-8: save the file as UTF-8")]
    NotUtf8,
    /// `# escape=` with something else than a backslash or a backtick.
    #[error("the escape directive takes \\ or `, not {0:?}")]
    BadEscape(String),
    /// The same directive twice.
    #[error("the {0} directive can be given only once")]
    DirectiveTwice(String),
    /// A first word that is no instruction.
    #[error("unknown instruction {name:?}{}", instruction_or_command(*.suggestion))]
    UnknownInstruction {
        /// As it was written.
        name: String,
        /// The nearest known instruction.
        suggestion: Option<&'static str>,
    },
    /// A flag that this instruction does not have.
    #[error("{instruction} has no flag --{flag}{}", other_flags(.known, *.suggestion))]
    UnknownFlag {
        /// The instruction.
        instruction: &'static str,
        /// The flag without dashes.
        flag: String,
        /// The nearest flag of this instruction, without dashes.
        suggestion: Option<&'static str>,
        /// All flags of this instruction, without dashes.
        known: Vec<&'static str>,
    },
    /// A flag given twice that can be given once.
    #[error("flag --{0} is given twice")]
    DuplicateFlag(&'static str),
    /// A flag that needs `=value`.
    #[error("flag --{0} needs a value: --{0}=value")]
    FlagWithoutValue(&'static str),
    /// A flag that takes true or false.
    #[error("flag --{flag} takes true or false, not {value:?}")]
    NotBoolean {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
    },
    /// A flag whose value is one of a few words.
    #[error("flag --{flag} takes {expected}, not {value:?}")]
    BadFlagValue {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// The values it takes.
        expected: &'static str,
    },
    /// `RUN --mount` with wrong options.
    #[error("--mount={mount}: {problem}")]
    BadMount {
        /// The value of the flag.
        mount: String,
        /// What is wrong with it.
        problem: BadMount,
    },
    /// An instruction without arguments.
    #[error("{0} needs at least one argument, such as {0} {example}", example = example(.0))]
    NeedsArgument(&'static str),
    /// An instruction that takes exactly one argument.
    #[error("{0} needs exactly one argument, such as {0} {example}", example = example(.0))]
    NeedsOneArgument(&'static str),
    /// COPY or ADD without a destination.
    #[error("{0} needs a source and a destination, such as {0} {example}", example = example(.0))]
    NeedsDestination(&'static str),
    /// FROM with a wrong number of words, or without AS between them.
    #[error("FROM takes an image, or an image AS name")]
    BadFrom,
    /// AS with something that cannot name a stage.
    #[error("{0:?} cannot name a stage: a name begins with a letter and has letters, digits, -, _ and . only")]
    BadStageName(String),
    /// ENV or LABEL with a name and nothing else.
    #[error("{instruction} {name} has no value: write {instruction} {name}=value")]
    NeedsValue {
        /// ENV or LABEL.
        instruction: &'static str,
        /// The name.
        name: String,
    },
    /// A word without `=` among words with it.
    #[error("{word:?} has no =: write name=value, and quote values with spaces")]
    NeedsEquals {
        /// The word.
        word: String,
    },
    /// A `#` among the arguments, which begins no comment there.
    #[error("# begins a comment only at the start of a line: put the comment on a line of its own")]
    CommentAfter,
    /// `=value` without a name.
    #[error("{0} has a value without a name: write {0} name=value, without spaces around =")]
    BlankName(&'static str),
    /// A JSON list that holds something else than strings.
    #[error("a JSON list of arguments can hold only strings: put double quotes around the rest")]
    NotStrings,
    /// SHELL that is no JSON list.
    #[error("{0} takes a JSON list, such as {0} [\"/bin/sh\", \"-c\"]")]
    NotJson(&'static str),
    /// An empty path in VOLUME.
    #[error("a volume cannot be an empty string")]
    EmptyVolume,
    /// HEALTHCHECK followed by neither CMD nor NONE.
    #[error("HEALTHCHECK takes CMD or NONE, not {0:?}: write CMD before the command")]
    BadHealthcheck(String),
    /// HEALTHCHECK NONE followed by something.
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthcheckNoneArguments,
    /// HEALTHCHECK CMD and no command.
    #[error("HEALTHCHECK CMD has no command")]
    HealthcheckWithoutCommand,
    /// A flag's duration that is none.
    #[error("flag --{flag} takes a duration such as 30s or 1m30s, not {value:?}")]
    BadDuration {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
    },
    /// A duration below one millisecond.
    #[error("flag --{0} cannot be less than 1ms")]
    ShortDuration(&'static str),
    /// A number of retries that is none.
    #[error("flag --retries takes a number from 0, not {0:?}")]
    BadRetries(String),
    /// An instruction that cannot be a trigger.
    #[error("{0} is not allowed as an ONBUILD trigger")]
    TriggerNotAllowed(&'static str),
    /// A trigger that is empty or more than one instruction.
    #[error("an ONBUILD trigger is exactly one instruction")]
    NotOneInstruction,
    /// A heredoc whose end never comes.
    #[error("the heredoc has no line {0:?} that ends it: that word stands alone, with nothing before it")]
    UnterminatedHeredoc(String),
    /// A heredoc's name with a quote that is not closed.
    #[error("the heredoc's name {0:?} has an unbalanced quote")]
    BadHeredocName(String),
    /// A heredoc in the place of the destination.
    #[error("{0} cannot write to a heredoc: its last argument is the destination")]
    HeredocDestination(&'static str),
    /// A variable in `COPY --from`.
    #[error("variables are not replaced in --from: add a stage FROM {0} AS name and copy from that name")]
    VariableInFrom(String),
    /// A word whose variables cannot be replaced.
    #[error(transparent)]
    Word(#[from] ExpandError),
}

impl Error {
    pub(super) fn new(fault: Fault, span: Span, line: u32, end_line: u32) -> Error {
        Error { fault: Box::new(fault), span, line, end_line }
    }

    /// The nearest known word where one was misspelt; the message names it too.
    pub fn suggestion(&self) -> Option<String> {
        match &*self.fault {
            Fault::UnknownInstruction { suggestion, .. } => suggestion.map(str::to_owned),
            Fault::UnknownFlag { suggestion, .. } => suggestion.map(|flag| format!("--{flag}")),
            Fault::BadMount { problem, .. } => problem.suggestion().map(str::to_owned),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dockerfile line {}", self.line)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.fault)
    }
}

pub(super) fn did_you_mean(dashes: &str, suggestion: Option<&str>) -> String {
    suggestion.map(|word| format!(" (did you mean {dashes}{word}?)")).unwrap_or_default()
}

fn instruction_or_command(suggestion: Option<&str>) -> String {
    match suggestion {
        Some(_) => did_you_mean("", suggestion),
        None => ": a command stands after RUN, and a line that goes on has the escape character at its end".to_owned(),
    }
}

/// Arguments that an instruction could have.
fn example(instruction: &str) -> &'static str {
    match instruction {
        "ADD" | "COPY" => ". /app",
        "ARG" => "VERSION=1.0",
        "ENV" | "LABEL" => "name=value",
        "EXPOSE" => "8080",
        "HEALTHCHECK" => "CMD curl -f http://localhost/",
        "MAINTAINER" => "name@example.com",
        "SHELL" => "[\"/bin/sh\", \"-c\"]",
        "STOPSIGNAL" => "SIGTERM",
        "USER" => "1000",
        "VOLUME" => "/data",
        "WORKDIR" => "/app",
        "ONBUILD" => "RUN make",
        _ => "make",
    }
}

fn other_flags(known: &[&str], suggestion: Option<&str>) -> String {
    match (known, suggestion) {
        (_, Some(_)) => did_you_mean("--", suggestion),
        ([], None) => "; it has none".to_owned(),
        (_, None) => format!("; it has --{}", known.join(", --")),
    }
}
