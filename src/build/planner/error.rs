//! What a Dockerfile that can be read may have wrong.

use super::super::metadata::BadValue;
use super::BoxError;
use crate::context::git::BadRepository;
use crate::dockerfile::{Fault, Located};
use crate::http::BadAddress;
use crate::oci::{BadDigest, BadPlatform, BadReference};

/// What is wrong with a Dockerfile that can be read.
#[derive(Debug, thiserror::Error)]
#[error("{}{text}", at_line(*line))]
pub struct PlanError {
    /// The line; 0 where none is to blame.
    pub line: u32,
    /// The instruction.
    pub text: String,
    /// What is wrong with it.
    #[source]
    pub source: PlanFault,
}

/// What can be wrong.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's text says what it is")]
pub enum PlanFault {
    #[error(transparent)]
    Text(#[from] Fault),
    #[error(transparent)]
    Value(#[from] BadValue),
    #[error("base name ({0}) should not be blank: declare the ARG before the first FROM, and give it a value")]
    BlankBase(String),
    #[error(
        "{name} has no value, which leaves {left:?}: declare ARG {name} before the first FROM, and give it a value{}",
        did_you_mean(.nearest.as_deref())
    )]
    Unset { name: String, left: String, nearest: Option<String> },
    #[error("{name:?} is no image name{}", how_to_name(.name))]
    Reference { name: String, source: BadReference },
    #[error(transparent)]
    Platform(#[from] BadPlatform),
    #[error("find the image {name}{}", or_a_stage(.nearest.as_deref()))]
    Base { name: String, nearest: Option<String>, source: BoxError },
    #[error("no stage is called {name:?}{}", other_stages(.known, .nearest.as_deref()))]
    UnknownStage { name: String, known: Vec<String>, nearest: Option<String> },
    #[error("--from={0}: a stage can only copy from stages before it")]
    LaterStage(String),
    #[error(
        "variable expansion is not supported for --from; define a stage with FROM {0} before this one and copy from that"
    )]
    VariableInFrom(String),
    #[error("COPY does not fetch {0}: ADD does")]
    RemoteCopy(String),
    #[error("fetch {text:?}")]
    Address { text: String, source: BadAddress },
    #[error("fetch {text:?}")]
    Repository { text: String, source: BadRepository },
    #[error("--checksum")]
    Commit(#[source] BadRepository),
    #[error("--checksum")]
    Checksum(#[from] BadDigest),
    #[error("--checksum is for an ADD of one URL or repository and nothing else")]
    ChecksumWithoutUrl,
    #[error("{0:?} is no mode for --chmod: write 755 or u=rwX,go=rX")]
    Mode(String),
    #[error("--exclude: {0:?} is no pattern")]
    Exclude(String),
    #[error("{0} is not supported yet: {1}")]
    NotSupported(&'static str, &'static str),
    #[error("ONBUILD trigger {trigger:?} of {image}")]
    Trigger { image: String, trigger: String, source: Box<PlanFault> },
    #[error(
        "--chown={0}: with --link only numbers are possible, as there is no file system in which to look up a name"
    )]
    NameWithLink(String),
}

fn at_line(line: u32) -> String {
    if line == 0 { String::new() } else { format!("dockerfile line {line}: ") }
}

fn how_to_name(name: &str) -> &'static str {
    match name {
        _ if name.contains("://") => " (an image has no scheme before its registry)",
        _ if name.contains('@') => " (after @ stands sha256: and 64 hexadecimal digits)",
        _ if name.ends_with(':') => " (after the colon stands a tag)",
        _ if name.chars().any(char::is_uppercase) => " (an image is named in lower case)",
        _ => "",
    }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default()
}

fn or_a_stage(nearest: Option<&str>) -> String {
    nearest.map(|stage| format!(" (did you mean the stage {stage}?)")).unwrap_or_default()
}

fn other_stages(known: &[String], nearest: Option<&str>) -> String {
    match (known, nearest) {
        ([], _) => ", and none has a name: FROM image AS name gives it one".to_owned(),
        (_, None) => format!("; stages: {}", known.join(", ")),
        (_, Some(nearest)) => format!("; stages: {} (did you mean {nearest}?)", known.join(", ")),
    }
}

pub(super) fn at<T>(place: &Located<T>, source: PlanFault) -> PlanError {
    PlanError { line: place.line, text: place.text.chars().take(200).collect(), source }
}

pub(super) fn in_trigger(image: &str, trigger: &str, fault: PlanFault) -> PlanFault {
    PlanFault::Trigger { image: image.to_owned(), trigger: trigger.to_owned(), source: Box::new(fault) }
}
