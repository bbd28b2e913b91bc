//! [`Console`]: what commands write goes to our own standard output and error.

use std::io::{self, Write};
use std::os::fd::AsFd;

use super::progress::Bars;
use crate::run::{Listener, Stream};
use crate::sys::fs::fstat;

/// Our standard output and error, which commands that run at the same time share with the log.
pub(super) struct Console {
    bars: Bars,
    is_one_place: bool,
}

impl Console {
    /// A console on which `bars` are drawn as well.
    pub(super) fn new(bars: Bars) -> Console {
        let is_one_place = is_one(io::stdout().as_fd(), io::stderr().as_fd());
        Console { bars, is_one_place }
    }
}

impl Listener for Console {
    fn hear(&self, stream: Stream, bytes: &[u8]) {
        // one at a time, the log among them: no line is torn, wherever the streams lead
        let written = self.bars.suspended(|| match stream {
            Stream::Out => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush())
            }
            Stream::Err => io::stderr().lock().write_all(bytes),
        });
        // nobody is left to hear when the stream is closed
        drop(written);
    }

    fn is_one_place(&self) -> bool {
        self.is_one_place
    }
}

/// Do two descriptors mean one file? What cannot be told apart by its place, such as two sockets, is two.
fn is_one(one: impl AsFd, other: impl AsFd) -> bool {
    match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_or_two() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let (other, _) = io::pipe().expect("a pipe");
        let again = writer.try_clone().expect("a second handle");
        assert!(is_one(&writer, &again) && is_one(&reader, &writer));
        assert!(!is_one(&reader, &other));
    }
}
