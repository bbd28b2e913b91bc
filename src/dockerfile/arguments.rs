//! From a statement's text to a typed instruction.

use std::collections::{HashMap, VecDeque};

use super::duration;
use super::error::Fault;
use super::expand::Expander;
use super::flags::Flags;
use super::heredoc::{self, Heredoc, Opening};
use super::instruction::{
    Arg, Copy, CopyFlags, CopySource, From, Healthcheck, HealthcheckFlags, Instruction, Run, RunFlags, ShellOrExec,
    Word,
};
use super::mount::{Device, MountFlag, Network, Security};
use super::suggest::nearest;
use super::words::{self, Json};

/// All instructions, in alphabetical order.
pub const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// The shortest duration of a health check that is not zero: a millisecond (moby: `MinimumDuration`).
const MIN_NANOSECONDS: i64 = 1_000_000;

/// A statement's meaning.
pub(super) enum Parsed {
    From(From),
    Instruction(Instruction),
}

/// A statement divided: name, flags, the rest.
struct Statement<'a> {
    name: &'static str,
    flags: Flags,
    rest: &'a str,
    escape: char,
}

impl<'a> Statement<'a> {
    fn split(text: &'a str, escape: char) -> Result<Statement<'a>, Fault> {
        let (word, rest) = words::split_name(text);
        let name = known_name(word)?;
        let (flags, rest) = words::split_flags(rest, escape);
        Ok(Statement { name, flags: Flags::new(name, flags), rest, escape })
    }
}

fn known_name(word: &str) -> Result<&'static str, Fault> {
    INSTRUCTIONS.into_iter().find(|name| name.eq_ignore_ascii_case(word)).ok_or_else(|| Fault::UnknownInstruction {
        name: word.chars().take(80).collect(),
        suggestion: nearest(word, INSTRUCTIONS).or_else(|| instruction_before_sign(word)),
    })
}

/// The instruction in `FROM=image` or `RUN:`.
fn instruction_before_sign(word: &str) -> Option<&'static str> {
    let (name, _) = word.split_once(['=', ':'])?;
    INSTRUCTIONS.into_iter().find(|instruction| instruction.eq_ignore_ascii_case(name))
}

/// The heredocs that follow a statement: RUN, COPY and ADD can have them, ONBUILD for these, and no JSON list.
pub(super) fn heredocs_of(text: &str, escape: char) -> Result<Vec<Opening>, Fault> {
    if !text.contains("<<") {
        return Ok(Vec::new());
    }
    let mut statement = Statement::split(text, escape)?;
    if statement.name == "ONBUILD" && !statement.rest.is_empty() {
        // An unknown trigger has no heredocs; it is refused when an image is built on this one.
        let Ok(trigger) = Statement::split(statement.rest, escape) else { return Ok(Vec::new()) };
        statement = trigger;
    }
    let can_have = matches!(statement.name, "RUN" | "COPY" | "ADD") && words::json_list(statement.rest) == Json::No;
    if can_have { heredoc::openings(text) } else { Ok(Vec::new()) }
}

/// Parses one statement.
pub(super) fn parse(text: &str, heredocs: Vec<Heredoc>, escape: char) -> Result<Parsed, Fault> {
    let statement = Statement::split(text, escape)?;
    let instruction = match statement.name {
        "FROM" => return from(statement).map(Parsed::From),
        "RUN" => run(statement, heredocs)?,
        "COPY" => Instruction::Copy(Box::new(copy(statement, heredocs)?)),
        "ADD" => Instruction::Add(Box::new(copy(statement, heredocs)?)),
        "ARG" => arg(statement)?,
        "HEALTHCHECK" => healthcheck(statement)?,
        "ONBUILD" => on_build(statement, text, heredocs)?,
        _ => simple(statement)?,
    };
    Ok(Parsed::Instruction(instruction))
}

/// Instructions that have no flags.
fn simple(statement: Statement<'_>) -> Result<Instruction, Fault> {
    let Statement { name, flags, rest, escape } = statement;
    flags.finish()?;
    Ok(match name {
        "ENV" => Instruction::Env(pairs(name, rest, escape)?),
        "LABEL" => Instruction::Label(pairs(name, rest, escape)?),
        "CMD" => Instruction::Cmd(command(rest)?),
        "ENTRYPOINT" => Instruction::Entrypoint(command(rest)?),
        "SHELL" => match command(rest)? {
            ShellOrExec::Exec(words) if !words.is_empty() => Instruction::Shell(words),
            ShellOrExec::Shell(line) if !line.is_empty() => return Err(Fault::NotJson(name)),
            _ => return Err(Fault::NeedsArgument(name)),
        },
        "EXPOSE" => {
            let mut ports: Vec<Word> = words::plain_words(rest).map(str::to_owned).collect();
            if ports.iter().any(|port| port.starts_with('#')) {
                return Err(Fault::CommentAfter);
            }
            ports.sort_unstable();
            Instruction::Expose(at_least_one(name, ports)?)
        }
        "VOLUME" => {
            let volumes = at_least_one(name, list(rest)?)?;
            let volumes: Vec<Word> = volumes.iter().map(|volume| volume.trim().to_owned()).collect();
            if volumes.iter().any(String::is_empty) {
                return Err(Fault::EmptyVolume);
            }
            Instruction::Volume(volumes)
        }
        "WORKDIR" => Instruction::Workdir(one(name, rest)?),
        "USER" => Instruction::User(one(name, rest)?),
        "STOPSIGNAL" => Instruction::StopSignal(one(name, rest)?),
        _ => Instruction::Maintainer(one(name, rest)?),
    })
}

fn one(name: &'static str, rest: &str) -> Result<Word, Fault> {
    if rest.is_empty() { Err(Fault::NeedsOneArgument(name)) } else { Ok(rest.to_owned()) }
}

fn at_least_one(name: &'static str, words: Vec<Word>) -> Result<Vec<Word>, Fault> {
    if words.is_empty() { Err(Fault::NeedsArgument(name)) } else { Ok(words) }
}

/// A JSON list, or a line for the shell.
fn command(rest: &str) -> Result<ShellOrExec, Fault> {
    match words::json_list(rest) {
        Json::Strings(words) => Ok(ShellOrExec::Exec(words)),
        Json::OtherList => Err(Fault::NotStrings),
        Json::No => Ok(ShellOrExec::Shell(rest.to_owned())),
    }
}

/// A JSON list, or words between blanks.
fn list(rest: &str) -> Result<Vec<Word>, Fault> {
    match words::json_list(rest) {
        Json::Strings(words) => Ok(words),
        Json::OtherList => Err(Fault::NotStrings),
        Json::No => Ok(words::plain_words(rest).map(str::to_owned).collect()),
    }
}

/// `name=value …`, or the old form `name value`: the first word decides.
fn pairs(name: &'static str, rest: &str, escape: char) -> Result<Vec<(Word, Word)>, Fault> {
    let words = at_least_one(name, words::quoted_words(rest, escape))?;
    if !words[0].contains('=') {
        let (key, value) =
            words::first_word(rest).ok_or_else(|| Fault::NeedsValue { instruction: name, name: words[0].clone() })?;
        return Ok(vec![(key.to_owned(), value.to_owned())]);
    }
    words.into_iter().map(|word| pair(name, word)).collect()
}

fn pair(name: &'static str, word: Word) -> Result<(Word, Word), Fault> {
    match word.split_once('=') {
        None if word.starts_with('#') => Err(Fault::CommentAfter),
        None => Err(Fault::NeedsEquals { word }),
        Some(("", _)) => Err(Fault::BlankName(name)),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
    }
}

fn arg(statement: Statement<'_>) -> Result<Instruction, Fault> {
    let Statement { name, flags, rest, escape } = statement;
    flags.finish()?;
    let words = at_least_one(name, words::quoted_words(rest, escape))?;
    let argument = |word: Word| match word.contains('=') {
        true => pair(name, word).map(|(name, default)| Arg { name, default: Some(default) }),
        false => Ok(Arg { name: word, default: None }),
    };
    words.into_iter().map(argument).collect::<Result<_, _>>().map(Instruction::Arg)
}

fn from(statement: Statement<'_>) -> Result<From, Fault> {
    let Statement { mut flags, rest, .. } = statement;
    let platform = flags.string("platform")?;
    flags.finish()?;
    let words: Vec<&str> = words::plain_words(rest).collect();
    let (image, name) = match words.as_slice() {
        [image] => (image, None),
        [image, keyword, name] if keyword.eq_ignore_ascii_case("as") => (image, Some(stage_name(name)?)),
        words if words.iter().any(|word| word.starts_with('#')) => return Err(Fault::CommentAfter),
        _ => return Err(Fault::BadFrom),
    };
    Ok(From { image: (*image).to_owned(), platform, name })
}

fn stage_name(written: &str) -> Result<String, Fault> {
    let name = written.to_lowercase();
    let is_valid = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
    if is_valid { Ok(name) } else { Err(Fault::BadStageName(written.to_owned())) }
}

fn run(statement: Statement<'_>, heredocs: Vec<Heredoc>) -> Result<Instruction, Fault> {
    let Statement { mut flags, rest, .. } = statement;
    let bad = |mount: String| move |problem| Fault::BadMount { mount, problem };
    let mut mounts = Vec::new();
    for raw in flags.strings("mount")? {
        mounts.push(MountFlag::parse(raw.clone()).map_err(bad(raw))?);
    }
    let mut devices = Vec::new();
    for raw in flags.strings("device")? {
        devices.push(Device::parse(&raw).map_err(bad(raw))?);
    }
    let network = match flags.string("network")? {
        None => None,
        Some(value) => Some(match value.as_str() {
            "default" => Network::Default,
            "none" => Network::None,
            "host" => Network::Host,
            _ => return Err(Fault::BadFlagValue { flag: "network", value, expected: "default, none or host" }),
        }),
    };
    let security = match flags.string("security")? {
        None => None,
        Some(value) => Some(match value.as_str() {
            "sandbox" => Security::Sandbox,
            "insecure" => Security::Insecure,
            _ => return Err(Fault::BadFlagValue { flag: "security", value, expected: "sandbox or insecure" }),
        }),
    };
    flags.finish()?;
    let command = command(rest)?;
    if matches!(&command, ShellOrExec::Exec(words) if words.is_empty()) {
        return Err(Fault::NeedsArgument("RUN"));
    }
    let flags = RunFlags { mounts, network, security, devices };
    Ok(Instruction::Run(Box::new(Run { command, heredocs, flags })))
}

fn copy(statement: Statement<'_>, heredocs: Vec<Heredoc>) -> Result<Copy, Fault> {
    let Statement { name, flags: mut given, rest, escape } = statement;
    let mut flags = CopyFlags {
        chown: given.string("chown")?,
        chmod: given.string("chmod")?,
        link: given.boolean("link")?.unwrap_or(false),
        exclude: given.strings("exclude")?,
        ..CopyFlags::default()
    };
    if name == "ADD" {
        flags.checksum = given.string("checksum")?;
        flags.keep_git_dir = given.boolean("keep-git-dir")?;
        flags.unpack = given.boolean("unpack")?;
    } else {
        flags.from = given.string("from")?;
        flags.parents = given.boolean("parents")?.unwrap_or(false);
    }
    given.finish()?;
    if let Some(from) = &flags.from {
        let expansion = Expander::new(&|_| None, escape).expand(from)?;
        if !expansion.unset.is_empty() {
            return Err(Fault::VariableInFrom(from.clone()));
        }
    }
    let (sources, destination) = sources_and_destination(name, rest, heredocs)?;
    Ok(Copy { sources, destination, flags })
}

fn sources_and_destination(
    name: &'static str,
    rest: &str,
    heredocs: Vec<Heredoc>,
) -> Result<(Vec<CopySource>, Word), Fault> {
    let mut words = list(rest)?;
    let destination = words.pop().filter(|_| !words.is_empty()).ok_or(Fault::NeedsDestination(name))?;
    if Heredoc::is_word(&destination) {
        return Err(Fault::HeredocDestination(name));
    }
    let mut bodies = Bodies::new(heredocs);
    let source = |word: Word| match Opening::parse(&word) {
        Ok(Some(opening)) => {
            CopySource::Heredoc(bodies.take(&opening.name).unwrap_or_else(|| opening.with_body(String::new())))
        }
        _ => CopySource::Path(word),
    };
    Ok((words.into_iter().map(source).collect(), destination))
}

/// The bodies of a statement's heredocs. Of two with one name the later file replaces the earlier, so each takes its own.
enum Bodies {
    /// By far the most frequent.
    AtMostOne(Option<Heredoc>),
    Many(HashMap<String, VecDeque<Heredoc>>),
}

impl Bodies {
    fn new(mut heredocs: Vec<Heredoc>) -> Bodies {
        if heredocs.len() < 2 {
            return Bodies::AtMostOne(heredocs.pop());
        }
        let mut many: HashMap<String, VecDeque<Heredoc>> = HashMap::new();
        for heredoc in heredocs {
            many.entry(heredoc.name.clone()).or_default().push_back(heredoc);
        }
        Bodies::Many(many)
    }

    fn take(&mut self, name: &str) -> Option<Heredoc> {
        match self {
            Bodies::AtMostOne(body) => body.take_if(|body| body.name == name),
            Bodies::Many(many) => many.get_mut(name)?.pop_front(),
        }
    }
}

fn healthcheck(statement: Statement<'_>) -> Result<Instruction, Fault> {
    let Statement { name, mut flags, rest, .. } = statement;
    let interval = duration_flag(&mut flags, "interval")?;
    let timeout = duration_flag(&mut flags, "timeout")?;
    let start_period = duration_flag(&mut flags, "start-period")?;
    let start_interval = duration_flag(&mut flags, "start-interval")?;
    let retries = match flags.string("retries")? {
        Some(value) if !value.is_empty() => {
            let retries: Option<i64> = value.parse().ok().filter(|retries| (0..=i64::from(i32::MAX)).contains(retries));
            retries.ok_or(Fault::BadRetries(value))?
        }
        _ => 0,
    };
    flags.finish()?;
    let (kind, rest) =
        rest.split_once(char::is_whitespace).map_or((rest, ""), |(kind, rest)| (kind, rest.trim_start()));
    let options = HealthcheckFlags { interval, timeout, start_period, start_interval, retries };
    let check = match kind.to_uppercase().as_str() {
        "" => return Err(Fault::NeedsArgument(name)),
        "NONE" if rest.is_empty() => Healthcheck::None,
        "NONE" => return Err(Fault::HealthcheckNoneArguments),
        "CMD" => match command(rest)? {
            ShellOrExec::Shell(line) if line.is_empty() => return Err(Fault::HealthcheckWithoutCommand),
            ShellOrExec::Exec(words) if words.is_empty() => return Err(Fault::HealthcheckWithoutCommand),
            command => Healthcheck::Cmd { command, flags: options },
        },
        _ => return Err(Fault::BadHealthcheck(kind.to_owned())),
    };
    Ok(Instruction::Healthcheck(Box::new(check)))
}

fn duration_flag(flags: &mut Flags, name: &'static str) -> Result<i64, Fault> {
    let Some(value) = flags.string(name)?.filter(|value| !value.is_empty()) else { return Ok(0) };
    match duration::parse(&value) {
        None => Err(Fault::BadDuration { flag: name, value }),
        Some(1..MIN_NANOSECONDS) => Err(Fault::ShortDuration(name)),
        Some(nanoseconds) => Ok(nanoseconds),
    }
}

fn on_build(statement: Statement<'_>, text: &str, heredocs: Vec<Heredoc>) -> Result<Instruction, Fault> {
    let Statement { name, flags, rest, escape } = statement;
    flags.finish()?;
    if rest.is_empty() {
        return Err(Fault::NeedsArgument(name));
    }
    let (word, _) = words::split_name(rest);
    match known_name(word) {
        Ok(trigger @ ("FROM" | "MAINTAINER" | "ONBUILD")) => return Err(Fault::TriggerNotAllowed(trigger)),
        Ok("RUN" | "CMD" | "ENTRYPOINT" | "SHELL" | "COPY" | "ADD" | "VOLUME") => {
            command(Statement::split(rest, escape)?.rest)?;
        }
        _ => {}
    }
    // The name is ASCII whatever its case, and it stands at the start.
    let mut trigger = text.trim_start()[name.len()..].trim_start().to_owned();
    for body in heredocs {
        trigger.extend(["\n", &body.raw, &body.name]);
    }
    Ok(Instruction::OnBuild(trigger))
}
