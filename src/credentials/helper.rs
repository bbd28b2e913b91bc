//! [`Helper`]: a `docker-credential-*` program, which is asked and not waited for without end.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{Credential, Error};
use crate::oci::parse_object;
use crate::sys::{Stop, fs, process};

/// The longest answer of a helper that is read: tokens have some kilobytes at most.
const ANSWER_BYTES: usize = 1024 * 1024;
/// How much of a helper's complaint is told: some print whole answers of servers.
const COMPLAINT_CHARS: usize = 500;
/// First and longest pause between two looks at a helper.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// The name that helpers give instead of a user's when the secret is an identity token.
const IDENTITY_TOKEN_USER: &str = "<token>";

/// A program that was found.
pub(super) struct Helper {
    pub(super) path: PathBuf,
    /// Its name.
    pub(super) program: String,
}

/// Looks for a program in the directories of `path`, which has the form of `PATH`.
pub(super) fn find(program: &str, path: &OsStr) -> Option<PathBuf> {
    let executable = |file: &PathBuf| {
        file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path).map(|directory| directory.join(program)).find(executable)
}

/// Go writes `null` for what is not there.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: Option<String>,
    secret: Option<String>,
}

/// Why there is no answer.
enum Fault {
    Run(io::Error),
    TooLong,
    TooLate,
}

impl Helper {
    /// docker-credential-helpers, protocol: the server on stdin, JSON or a complaint on stdout.
    pub(super) fn ask(&self, server: &str, patience: Duration, stop: &Stop) -> Result<Credential, Error> {
        let (program, server) = (self.program.clone(), server.to_owned());
        let (status, answer) = match self.converse(&server, patience, stop) {
            Ok(ended) => ended,
            Err(Fault::Run(source)) => return Err(Error::RunHelper { program, server, source }),
            Err(Fault::TooLong) => {
                let reason = format!("its answer has more than {ANSWER_BYTES} bytes");
                return Err(Error::Helper { program, server, reason });
            }
            Err(Fault::TooLate) => {
                let reason = format!("no answer came within {} seconds", patience.as_secs_f32());
                return Err(Error::Helper { program, server, reason });
            }
        };
        if !status.success() {
            return match complaint(&answer) {
                Some(said) if said.contains("credentials not found") => Ok(Credential::Anonymous),
                said => {
                    let reason = said.unwrap_or_else(|| status.to_string());
                    Err(Error::Helper { program, server, reason })
                }
            };
        }
        // the cause is left out on purpose: it could quote the answer
        let answer: Answer = parse_object(&answer).map_err(|_| {
            let reason = "its answer is not the JSON of a credential".to_owned();
            Error::Helper { program, server, reason }
        })?;
        let (username, secret) = (answer.username.unwrap_or_default(), answer.secret.unwrap_or_default());
        Ok(match (username.as_str(), secret.as_str()) {
            ("", "") => Credential::Anonymous,
            (IDENTITY_TOKEN_USER, _) => Credential::IdentityToken(secret),
            _ => Credential::Basic { username, password: secret },
        })
    }

    /// How it ended, and what it said until then. One that takes too long, says too much, or that nobody waits for any longer
    /// is killed, with all that it started and that is still in its group.
    fn converse(&self, server: &str, patience: Duration, stop: &Stop) -> Result<(ExitStatus, Vec<u8>), Fault> {
        let mut command = Command::new(&self.path);
        command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
        let mut child = command.spawn().map_err(Fault::Run)?;
        let said = hear(&mut child, server, patience, stop);
        // nobody has waited for it so far: its number is nobody else's
        let kill = || process::kill_process_group(process::Pid::from_child(&child), process::Signal::KILL);
        if said.is_err() && kill().is_err() {
            // it became another user, and ends when it likes
            return Err(said.expect_err("it is an error"));
        }
        let status = child.wait().map_err(Fault::Run)?;
        said.map(|answer| (status, answer))
    }
}

/// Says which server is meant, and hears what it answers until it ends. It is not reaped.
fn hear(child: &mut Child, server: &str, patience: Duration, stop: &Stop) -> Result<Vec<u8>, Fault> {
    let begun = Instant::now();
    let mut stdin = child.stdin.take().expect("it is a pipe");
    match stdin.write_all(server.as_bytes()) {
        // a helper that knows one server only need not read which
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(Fault::Run(error)),
        _ => drop(stdin),
    }
    let mut stdout = child.stdout.take().expect("it is a pipe");
    fs::fcntl_setfl(&stdout, fs::OFlags::NONBLOCK).map_err(|errno| Fault::Run(errno.into()))?;
    let mut answer = Vec::new();
    let mut pause = SHORTEST_PAUSE;
    loop {
        // in this order: all that it wrote is read, and what it left running with its end of the pipe is not waited for
        let is_over = has_ended(child).map_err(Fault::Run)?;
        read_waiting(&mut stdout, &mut answer).map_err(Fault::Run)?;
        if answer.len() > ANSWER_BYTES {
            return Err(Fault::TooLong);
        }
        if is_over {
            return Ok(answer);
        }
        stop.check().map_err(|stopped| Fault::Run(stopped.into()))?;
        if begun.elapsed() >= patience {
            return Err(Fault::TooLate);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn has_ended(child: &Child) -> io::Result<bool> {
    let how = process::WaitIdOptions::EXITED | process::WaitIdOptions::NOHANG | process::WaitIdOptions::NOWAIT;
    Ok(process::waitid(process::WaitId::Pid(process::Pid::from_child(child)), how)?.is_some())
}

/// Reads what is in the pipe by now, and no more than shows that it is too much.
fn read_waiting(stdout: &mut ChildStdout, answer: &mut Vec<u8>) -> io::Result<()> {
    let room = (ANSWER_BYTES + 1 - answer.len()) as u64;
    match stdout.take(room).read_to_end(answer) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

/// The words of a helper that gave up. Some answer all the same: that is not for the log.
fn complaint(answer: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(answer);
    if said.to_ascii_lowercase().contains("\"secret\"") {
        return None;
    }
    let told: String =
        said.trim().chars().take(COMPLAINT_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    (!told.is_empty()).then_some(told)
}
