//! [`UntilStopped`]: a file that is read as long as nobody asks us to end.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{self, PollFd, PollFlags};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::Stop;

/// How often we look whether we are asked to end, while nothing comes.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A file, perhaps a pipe that somebody fills slowly or never.
pub struct UntilStopped<'a> {
    file: File,
    stop: &'a Stop,
}

impl<'a> UntilStopped<'a> {
    /// Opens a file for reading. A fifo is opened before anybody writes to it; who reads waits for that.
    pub fn open(path: &Path, stop: &'a Stop) -> io::Result<UntilStopped<'a>> {
        let file = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(UntilStopped { file: file.into(), stop })
    }

    /// What comes on standard input, without the buffer that std has before it, in which bytes could wait unseen.
    pub fn stdin(stop: &'a Stop) -> io::Result<UntilStopped<'a>> {
        Ok(UntilStopped { file: io::stdin().as_fd().try_clone_to_owned()?.into(), stop })
    }
}

impl Read for UntilStopped<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let interval = event::Timespec::try_from(LOOK_INTERVAL).ok();
        loop {
            self.stop.check()?;
            match event::poll(&mut [PollFd::new(&self.file, PollFlags::IN)], interval.as_ref()) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(errno.into()),
            }
            match self.file.read(buffer) {
                // somebody else has read it meanwhile
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_fifo_is_waited_for_until_somebody_writes_or_asks_us_to_end() {
        let place = tempfile::tempdir().expect("a directory");
        let fifo = place.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::RWXU).expect("created");
        let stop = Stop::new();
        let read = |stop: &Stop| {
            let mut text = String::new();
            UntilStopped::open(&fifo, stop)?.read_to_string(&mut text).map(|_| text)
        };
        thread::scope(|scope| {
            let reader = scope.spawn(|| read(&stop));
            std::fs::write(&fifo, "text").expect("somebody reads");
            assert_eq!(reader.join().expect("no panic").expect("read"), "text");
            let reader = scope.spawn(|| read(&stop));
            stop.ask();
            let error = reader.join().expect("no panic").expect_err("nobody writes");
            assert_eq!(error.to_string(), "asked to end");
        });
        let error = UntilStopped::open(place.path(), &Stop::new()).and_then(|mut file| file.read(&mut [0]));
        assert_eq!(error.expect_err("a directory").kind(), io::ErrorKind::IsADirectory);
    }
}
