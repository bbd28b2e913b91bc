//! git itself: repositories made by its commands, and its own server (`git http-backend`) behind ours.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::command::run;
use super::http::{Reply, Request};

/// A day of the commits that tests make.
pub const COMMIT_TIME: i64 = 1_500_000_000;

/// A repository with a working tree.
pub struct Worktree {
    place: PathBuf,
}

impl Worktree {
    /// An empty one, on the branch `main`.
    pub fn new(place: &Path) -> Worktree {
        fs::create_dir_all(place).expect("created");
        let tree = Worktree { place: place.to_path_buf() };
        tree.git(&["init", "-q", "-b", "main"]);
        tree
    }

    /// Runs git in it, with nothing of this machine's configuration; gives what it prints.
    #[track_caller]
    pub fn git(&self, arguments: &[&str]) -> String {
        run(git(&self.place).args(arguments))
    }

    /// Writes a file.
    pub fn file(&self, path: &str, text: &str) -> &Worktree {
        let file = self.place.join(path);
        fs::create_dir_all(file.parent().expect("in a directory")).expect("created");
        fs::write(file, text).expect("written");
        self
    }

    /// Commits all that is there; gives the commit's name.
    #[track_caller]
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// The directory.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// What a server gives of it: `name` below `served`.
    #[track_caller]
    pub fn publish(&self, served: &Path, name: &str) {
        let bare = served.join(name);
        run(git(served).args(["clone", "-q", "--mirror"]).arg(&self.place).arg(&bare));
    }
}

/// git in `place`, as nobody in particular at [`COMMIT_TIME`].
pub fn git(place: &Path) -> Command {
    let mut command = Command::new("git");
    let time = format!("{COMMIT_TIME} +0000");
    command.current_dir(place).args(["-c", "protocol.file.allow=always"]);
    for (name, value) in [
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_AUTHOR_NAME", "A"),
        ("GIT_AUTHOR_EMAIL", "a@example.com"),
        ("GIT_COMMITTER_NAME", "A"),
        ("GIT_COMMITTER_EMAIL", "a@example.com"),
        ("GIT_AUTHOR_DATE", &time),
        ("GIT_COMMITTER_DATE", &time),
    ] {
        command.env(name, value);
    }
    command
}

/// Answers as the repositories below `served` do.
pub fn answer(served: &Path, request: &Request) -> Reply {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", served)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        // whoever made the repositories
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", &request.method)
        .env("CONTENT_TYPE", request.header("content-type").unwrap_or_default())
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("GIT_PROTOCOL", request.header("git-protocol").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("git is installed");
    // a server that has heard enough hangs up
    let _ = child.stdin.take().expect("piped").write_all(&request.body);
    let output = child.wait_with_output().expect("it ends").stdout;
    let end = output.windows(4).position(|four| four == b"\r\n\r\n").expect("headers");
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let mut reply = Reply::new(200, &output[end + 4..]);
    for (name, value) in head.lines().filter_map(|line| line.split_once(':')) {
        match (name, value.trim()) {
            ("Status", status) => reply.status = status[..3].parse().expect("a number"),
            (name, value) => reply = reply.header(name, value),
        }
    }
    reply
}
