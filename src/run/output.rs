//! [`Output`]: what a command writes comes to us through pipes, and goes on to whoever listens.
//!
//! A pipe stands between the command and our own standard streams, so that a command that changes the mode or the owner
//! of `/dev/stdout` changes nothing that outlives it, and so that lines of commands that run at the same time can be
//! told apart and are not torn.

use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use crate::sys::event::{self, PollFd, PollFlags};
use crate::sys::process::Uid;
use crate::sys::{Errno, bytes_waiting, fs};

/// Bytes per read: what a pipe holds.
const READ_BYTES: usize = 64 * 1024;
/// A line that is longer goes on in another one: memory has a ceiling.
const LONGEST_LINE_BYTES: usize = 64 * 1024;

/// A stream that a command writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Hears what commands write.
pub trait Listener: Send + Sync {
    /// Takes bytes as they come; where lines have a prefix, whole lines.
    fn hear(&self, stream: Stream, bytes: &[u8]);

    /// Do both streams end in one place? Then they share a pipe, which keeps the order in which they were written to.
    fn is_one_place(&self) -> bool;
}

/// Where the output of a command goes.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    /// Who hears it.
    pub listener: &'a dyn Listener,
    /// What stands in front of each line. Where it is empty, nothing waits for the end of a line.
    pub prefix: &'a str,
}

/// The pipes of one command, as we hold them.
pub(super) struct Pipes {
    streams: Vec<(Stream, PipeReader)>,
    end: PipeReader,
}

/// The pipes of one command, as it gets them.
pub(super) struct Ends {
    pub(super) stdout: Stdio,
    pub(super) stderr: Stdio,
}

/// To be dropped when the command has ended: nobody waits any longer for who else may hold its pipes.
pub(super) struct HangUp {
    _writer: PipeWriter,
}

/// Makes pipes that belong to the user `owner`, who may open them again by the names of `/dev/stdout` and `/dev/stderr`.
pub(super) fn pipes(listener: &dyn Listener, owner: u32) -> io::Result<(Pipes, Ends, HangUp)> {
    let pipe = || -> io::Result<(PipeReader, OwnedFd)> {
        let (reader, writer) = io::pipe()?;
        let writer = OwnedFd::from(writer);
        match fs::fchown(&writer, Some(Uid::from_raw(owner)), None) {
            // a user who does not exist in our namespace: nothing can run as that user either
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => Ok((reader, writer)),
            Err(errno) => Err(errno.into()),
        }
    };
    let (out, stdout) = pipe()?;
    let mut streams = vec![(Stream::Out, out)];
    let stderr = if listener.is_one_place() {
        stdout.try_clone()?
    } else {
        let (err, stderr) = pipe()?;
        streams.push((Stream::Err, err));
        stderr
    };
    let (end, hang_up) = io::pipe()?;
    Ok((Pipes { streams, end }, Ends { stdout: stdout.into(), stderr: stderr.into() }, HangUp { _writer: hang_up }))
}

impl Pipes {
    /// Passes on what comes, until nobody can write any more, or else what is there when the other side hangs up.
    pub(super) fn pass_on(self, output: Output<'_>) -> io::Result<()> {
        let Pipes { streams, end } = self;
        let mut buffer = vec![0; READ_BYTES];
        let mut open: Vec<Lines<'_>> =
            streams.into_iter().map(|(stream, pipe)| Lines { stream, pipe, output, begun: Vec::new() }).collect();
        while !open.is_empty() {
            let mut polled: Vec<PollFd<'_>> =
                open.iter().map(|lines| &lines.pipe).chain([&end]).map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            match event::poll(&mut polled, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let mut is_ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
            if is_ready.pop() == Some(true) {
                break;
            }
            let mut is_ready = is_ready.into_iter();
            let mut failure = None;
            open.retain_mut(|lines| {
                is_ready.next() == Some(false)
                    || lines.read(&mut buffer).map(|read| read > 0).unwrap_or_else(|error| {
                        failure = Some(error);
                        false
                    })
            });
            if let Some(error) = failure {
                return Err(error);
            }
        }
        for mut lines in open {
            let mut left = bytes_waiting(&lines.pipe)?;
            while left > 0 {
                left = left.saturating_sub(lines.read(&mut buffer)?.max(1) as u64);
            }
        }
        Ok(())
    }
}

/// A stream on its way.
struct Lines<'a> {
    stream: Stream,
    pipe: PipeReader,
    output: Output<'a>,
    /// A line of which the end has not come yet.
    begun: Vec<u8>,
}

impl Lines<'_> {
    /// Passes on one read's worth; 0 when there is no more.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.pipe.read(buffer)?;
        self.take(&buffer[..read]);
        Ok(read)
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.output.prefix.is_empty() {
            if !bytes.is_empty() {
                self.output.listener.hear(self.stream, bytes);
            }
            return;
        }
        self.begun.extend_from_slice(bytes);
        let whole = match self.begun.iter().rposition(|&byte| byte == b'\n') {
            Some(last) => last + 1,
            None if self.begun.len() >= LONGEST_LINE_BYTES => self.begun.len(),
            None => return,
        };
        self.tell(whole);
    }

    /// Passes on the first `whole` bytes of what has begun, as lines.
    fn tell(&mut self, whole: usize) {
        let mut text = Vec::with_capacity(whole + self.output.prefix.len());
        for line in self.begun[..whole].split_inclusive(|&byte| byte == b'\n') {
            text.extend_from_slice(self.output.prefix.as_bytes());
            text.extend_from_slice(line);
        }
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        self.output.listener.hear(self.stream, &text);
        self.begun.drain(..whole);
    }
}

impl Drop for Lines<'_> {
    /// The last line may have no end.
    fn drop(&mut self) {
        if !self.begun.is_empty() {
            self.tell(self.begun.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Heard {
        said: Mutex<Vec<(Stream, String)>>,
        is_one_place: bool,
    }

    impl Listener for Heard {
        fn hear(&self, stream: Stream, bytes: &[u8]) {
            let text = String::from_utf8_lossy(bytes).into_owned();
            self.said.lock().expect("not poisoned").push((stream, text));
        }

        fn is_one_place(&self) -> bool {
            self.is_one_place
        }
    }

    /// Ourselves: the owner that a pipe has anyhow.
    fn owner() -> u32 {
        crate::sys::process::getuid().as_raw()
    }

    fn lines<'a>(heard: &'a Heard, prefix: &'a str) -> Lines<'a> {
        let (pipe, _) = io::pipe().expect("a pipe");
        Lines { stream: Stream::Out, pipe, output: Output { listener: heard, prefix }, begun: Vec::new() }
    }

    #[test]
    fn lines_are_whole_and_have_a_prefix() {
        let long = "x".repeat(LONGEST_LINE_BYTES);
        for (prefix, pieces, told) in [
            ("", &["a", "b\nc"][..], &["a", "b\nc"][..]),
            ("[1] ", &["a", "b\nc"], &["[1] ab\n", "[1] c\n"]),
            ("[1] ", &["a\n\nb\n"], &["[1] a\n[1] \n[1] b\n"]),
            ("[1] ", &[&long, "y\n"], &[&format!("[1] {long}\n"), "[1] y\n"]),
            ("[1] ", &[], &[]),
        ] {
            let heard = Heard::default();
            let mut lines = lines(&heard, prefix);
            for piece in pieces {
                lines.take(piece.as_bytes());
            }
            drop(lines);
            let said = heard.said.into_inner().expect("not poisoned");
            assert_eq!(said.into_iter().map(|(_, text)| text).collect::<Vec<_>>(), told, "{pieces:?}");
        }
    }

    #[test]
    fn streams_stay_apart_or_share_a_pipe() {
        for (is_one_place, told) in [
            (false, vec![(Stream::Out, "out\nmore\n".to_owned()), (Stream::Err, "err\n".to_owned())]),
            (true, vec![(Stream::Out, "out\nerr\nmore\n".to_owned())]),
        ] {
            let heard = Heard { is_one_place, ..Heard::default() };
            let (pipes, Ends { stdout, stderr }, _hang_up) = pipes(&heard, owner()).expect("pipes");
            let script = "echo out; echo err >&2; echo more";
            let mut command = std::process::Command::new("sh");
            let status = command.args(["-c", script]).stdout(stdout).stderr(stderr).status();
            assert!(status.expect("started").success());
            drop(command);
            pipes.pass_on(Output { listener: &heard, prefix: "" }).expect("passed on");
            assert_eq!(heard.said.into_inner().expect("not poisoned"), told);
        }
    }

    /// As a daemon that fled, or a process of the machine that was given the pipe.
    #[test]
    fn who_else_holds_the_pipe_is_not_waited_for() {
        let heard = Heard::default();
        let (pipes, ends, hang_up) = pipes(&heard, owner()).expect("pipes");
        let output = Output { listener: &heard, prefix: "> " };
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pipes.streams[0].1));
        let mut held = File::options().write(true).open(path).expect("opened again");
        drop(ends);
        std::thread::scope(|scope| {
            let passing = scope.spawn(|| pipes.pass_on(output));
            held.write_all(b"last\nwords").expect("written");
            drop(hang_up);
            passing.join().expect("no panic").expect("passed on");
        });
        let said: String = heard.said.into_inner().expect("not poisoned").into_iter().map(|(_, text)| text).collect();
        assert_eq!(said, "> last\n> words\n");
        drop(held);
    }
}
