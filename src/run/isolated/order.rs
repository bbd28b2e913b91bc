//! What the helpers are told, and what they answer.

use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Ended, World};
use crate::rootfs::User;
use crate::run::{Command, Error, Exit, Obstacle, Stdin};
use crate::sys::Errno;
use crate::tree::ImagePath;

/// The longest message that a helper sends.
const MESSAGE_CHARS: usize = 4096;

/// All that a helper must know.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) root: Vec<u8>,
    pub(super) files: Vec<u8>,
    /// Path in the world, and the file on the machine that is mounted there.
    pub(super) scripts: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) host_name: String,
    arguments: Vec<Vec<u8>>,
    environment: Vec<(Vec<u8>, Vec<u8>)>,
    directory: Vec<u8>,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    home: Vec<u8>,
    name: Option<Vec<u8>>,
    stdin: Option<Vec<u8>>,
}

impl Order {
    pub(super) fn new(command: &Command, world: &World, scripts: &[(ImagePath, PathBuf)]) -> Order {
        let bytes = |path: &PathBuf| path.as_os_str().as_bytes().to_vec();
        let user = command.user.clone();
        Order {
            root: bytes(&world.root),
            files: bytes(&world.files),
            scripts: scripts.iter().map(|(path, file)| (path.as_bytes().to_vec(), bytes(file))).collect(),
            host_name: world.host_name.to_string(),
            arguments: command.arguments.clone(),
            environment: command.environment.clone(),
            directory: command.directory.as_bytes().to_vec(),
            uid: user.uid,
            gid: user.gid,
            groups: user.groups,
            home: user.home,
            name: user.name,
            stdin: match &command.stdin {
                Stdin::Empty => None,
                Stdin::Bytes(bytes) => Some(bytes.clone()),
            },
        }
    }

    pub(super) fn command(&self) -> Command {
        Command {
            arguments: self.arguments.clone(),
            environment: self.environment.clone(),
            directory: ImagePath::clean(&self.directory),
            user: User {
                uid: self.uid,
                gid: self.gid,
                groups: self.groups.clone(),
                home: self.home.clone(),
                name: self.name.clone(),
            },
            stdin: self.stdin.clone().map_or(Stdin::Empty, Stdin::Bytes),
            // who waits outside looks at the clock
            time_limit: None,
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("bytes and numbers can be written")
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Order, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

pub(super) fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec()))
}

/// How it went, in the helpers' words.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The command ran and ended.
    Ended {
        /// How.
        exit: Exit,
        /// Mount points that it has moved: from where, and to where.
        moved: Vec<(Vec<u8>, Vec<u8>)>,
    },
    /// It did not run.
    Failed {
        /// What the program ends with.
        exit_code: u8,
        /// Why, with all causes.
        message: String,
        /// What stood in the way, if that is known.
        obstacle: Option<Obstacle>,
        /// The number of what the kernel said.
        errno: Option<i32>,
    },
}

impl Report {
    pub(super) fn ended(Ended { exit, moved }: Ended) -> Report {
        let bytes = |path: ImagePath| path.as_bytes().to_vec();
        Report::Ended { exit, moved: moved.into_iter().map(|moved| (bytes(moved.from), bytes(moved.to))).collect() }
    }

    /// Of an error and all its causes.
    pub(super) fn of(error: &Error) -> Report {
        let chain = std::iter::successors(Some(error as &dyn std::error::Error), |&error| error.source());
        let message: String = chain.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        // a pipe has room for it: nobody reads before the helper has ended
        let message = message.chars().take(MESSAGE_CHARS).collect();
        let errno = error.errno().map(Errno::raw_os_error);
        Report::Failed { exit_code: error.exit_code(), message, obstacle: error.obstacle(), errno }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers can be written")
    }

    /// `None` if nothing whole was said.
    pub(super) fn parse(bytes: &[u8]) -> Option<Report> {
        serde_json::from_slice(bytes).ok()
    }
}
