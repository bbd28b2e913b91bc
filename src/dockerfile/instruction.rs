//! The types of a parsed Dockerfile.

use super::check::CheckOptions;
use super::heredoc::Heredoc;
use super::mount::{Device, MountFlag, Network, Security};

/// Text as it was written, quotes, escapes and `$` included: the planner expands it with the variables in force.
pub type Word = String;

/// A parsed Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The escape character: a backslash, or a backtick by `# escape=`.
    pub escape: char,
    /// `# syntax=`: the frontend that BuildKit would fetch.
    pub syntax: Option<String>,
    /// `# check=`: options of the linter.
    pub check: Option<CheckOptions>,
    /// ARGs before the first FROM.
    pub global_args: Vec<Located<Vec<Arg>>>,
    /// At least one.
    pub stages: Vec<Stage>,
    /// Blank lines inside a continued instruction, which BuildKit warns about.
    pub empty_continuation_lines: Vec<u32>,
}

/// A FROM and the instructions up to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The FROM itself.
    pub from: Located<From>,
    /// In the order they were written.
    pub instructions: Vec<Located<Instruction>>,
}

impl Stage {
    /// The triggers that its ONBUILDs leave, in order.
    pub fn triggers(&self) -> impl Iterator<Item = &str> {
        self.instructions.iter().filter_map(|instruction| match &instruction.value {
            Instruction::OnBuild(trigger) => Some(trigger.as_str()),
            _ => None,
        })
    }
}

/// Bytes of the Dockerfile, from `start` up to but not including `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// A value and its place in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// What was parsed.
    pub value: T,
    /// All of its bytes: continuation lines and heredoc bodies too, without the last newline.
    pub span: Span,
    /// First line, counted from 1.
    pub line: u32,
    /// Last line, that of a heredoc's end included.
    pub end_line: u32,
    /// The instruction's text, continuations joined and comments left out, without heredoc bodies.
    pub text: String,
}

/// FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// Image or earlier stage.
    pub image: Word,
    /// `--platform`.
    pub platform: Option<Word>,
    /// The name after AS, in lower case.
    pub name: Option<String>,
}

/// Any instruction but FROM. What is large is boxed: a file can have a million small ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Runs a command and records what it changed.
    Run(Box<Run>),
    /// Copies files from the context, a stage or an image.
    Copy(Box<Copy>),
    /// As COPY, and fetches URLs and unpacks archives.
    Add(Box<Copy>),
    /// Sets environment variables: names and values, in order.
    Env(Vec<(Word, Word)>),
    /// Declares build arguments.
    Arg(Vec<Arg>),
    /// Sets the working directory.
    Workdir(Word),
    /// Sets the user.
    User(Word),
    /// Sets labels: keys and values, in order.
    Label(Vec<(Word, Word)>),
    /// The default command or arguments; never expanded.
    Cmd(ShellOrExec),
    /// The program; never expanded.
    Entrypoint(ShellOrExec),
    /// Ports, sorted as they were written.
    Expose(Vec<Word>),
    /// Mount points, trimmed, none of them empty.
    Volume(Vec<Word>),
    /// The words before a shell-form command: at least one; never expanded.
    Shell(Vec<String>),
    /// The signal that stops a container.
    StopSignal(Word),
    /// How to find out whether a container is healthy.
    Healthcheck(Box<Healthcheck>),
    /// A trigger for images built on this one, as the image config keeps it, heredocs after it. As in BuildKit, only its
    /// first word and its JSON list are checked here; the rest is when an image is built on this one.
    OnBuild(String),
    /// The author; never expanded.
    Maintainer(String),
}

impl Instruction {
    /// Its name as the Dockerfile reference writes it.
    pub fn keyword(&self) -> &'static str {
        match self {
            Instruction::Run(_) => "RUN",
            Instruction::Copy(_) => "COPY",
            Instruction::Add(_) => "ADD",
            Instruction::Env(_) => "ENV",
            Instruction::Arg(_) => "ARG",
            Instruction::Workdir(_) => "WORKDIR",
            Instruction::User(_) => "USER",
            Instruction::Label(_) => "LABEL",
            Instruction::Cmd(_) => "CMD",
            Instruction::Entrypoint(_) => "ENTRYPOINT",
            Instruction::Expose(_) => "EXPOSE",
            Instruction::Volume(_) => "VOLUME",
            Instruction::Shell(_) => "SHELL",
            Instruction::StopSignal(_) => "STOPSIGNAL",
            Instruction::Healthcheck(_) => "HEALTHCHECK",
            Instruction::OnBuild(_) => "ONBUILD",
            Instruction::Maintainer(_) => "MAINTAINER",
        }
    }
}

/// A command as a line for the shell or as a list of arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShellOrExec {
    /// To be given to the SHELL in force, as one argument.
    Shell(String),
    /// Program and arguments.
    Exec(Vec<String>),
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command as it stands in the line; [`Run::script`] says what becomes of it with heredocs.
    pub command: ShellOrExec,
    /// Bodies that follow the line, in order; empty for the exec form.
    pub heredocs: Vec<Heredoc>,
    /// Its flags.
    pub flags: RunFlags,
}

/// The flags of RUN.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunFlags {
    /// `--mount`, in order.
    pub mounts: Vec<MountFlag>,
    /// `--network`.
    pub network: Option<Network>,
    /// `--security`.
    pub security: Option<Security>,
    /// `--device`, in order.
    pub devices: Vec<Device>,
}

/// What a RUN asks for, heredocs worked in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// Program and arguments.
    Exec(Vec<String>),
    /// One argument for the SHELL in force.
    Shell(String),
    /// A lone heredoc that begins with `#!`: a file of mode 0755 in `/dev/pipes`, whose path is given to the SHELL.
    Program(Heredoc),
}

impl Run {
    /// What is to be run (Dockerfile reference: here-documents). A line that is nothing but one heredoc is its body; any
    /// other line with heredocs is given to the shell with the bodies after it.
    pub fn script(&self) -> Script {
        let line = match &self.command {
            ShellOrExec::Exec(arguments) => return Script::Exec(arguments.clone()),
            ShellOrExec::Shell(line) => line,
        };
        match self.heredocs.as_slice() {
            [only, ..] if Heredoc::is_word(line) => match only.content.starts_with("#!") {
                true => Script::Program(only.clone()),
                false => Script::Shell(only.content.clone()),
            },
            bodies => {
                let mut whole = line.clone();
                for body in bodies {
                    whole.extend(["\n", &body.raw, &body.name]);
                }
                Script::Shell(whole)
            }
        }
    }
}

/// What COPY and ADD copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path, pattern or URL.
    Path(Word),
    /// A file whose content stands in the Dockerfile; its name is the heredoc's.
    Heredoc(Heredoc),
}

/// COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// In order; at least one.
    pub sources: Vec<CopySource>,
    /// The last argument.
    pub destination: Word,
    /// Its flags.
    pub flags: CopyFlags,
}

/// The flags of COPY and ADD; those that the instruction does not have are not set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyFlags {
    /// COPY `--from`: stage, image or named context; never expanded.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<Word>,
    /// `--chmod`.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// COPY `--parents`.
    pub parents: bool,
    /// `--exclude`, in order.
    pub exclude: Vec<Word>,
    /// ADD `--checksum`.
    pub checksum: Option<Word>,
    /// ADD `--keep-git-dir`, where it was given.
    pub keep_git_dir: Option<bool>,
    /// ADD `--unpack`, where it was given.
    pub unpack: Option<bool>,
}

/// One name of an ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// Its name.
    pub name: Word,
    /// Its default.
    pub default: Option<Word>,
}

/// HEALTHCHECK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `NONE`: switches an inherited check off.
    None,
    /// `CMD`.
    Cmd {
        /// What is run: not empty, never expanded.
        command: ShellOrExec,
        /// Its options.
        flags: HealthcheckFlags,
    },
}

/// The options of HEALTHCHECK: durations in nanoseconds, as the image config keeps them. What was not given, or is zero,
/// is the engine's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HealthcheckFlags {
    /// `--interval`.
    pub interval: i64,
    /// `--timeout`.
    pub timeout: i64,
    /// `--start-period`.
    pub start_period: i64,
    /// `--start-interval`.
    pub start_interval: i64,
    /// `--retries`.
    pub retries: i64,
}
