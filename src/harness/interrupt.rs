//! [`Interrupts`]: Ctrl-C ends the build that is measured, and what was made for it goes.

use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;

use rustix::process::Signal;

use super::Error;
use crate::sys::signals::{self, Caught};

/// Signals that ask us to end.
const SIGNALS: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::HUP];

/// While this lives, a signal does not end the process, but [`Interrupts::check`] tells of it.
pub(super) struct Interrupts {
    pipe: PipeReader,
    _caught: Caught,
}

impl Interrupts {
    pub(super) fn catch() -> Result<Interrupts, Error> {
        let caught = || {
            let (pipe, writer) = io::pipe()?;
            rustix::io::ioctl_fionbio(&pipe, true)?;
            let numbers = SIGNALS.map(|signal| u8::try_from(signal.as_raw()).expect("signals end at 64"));
            let _caught = signals::catch(&numbers, OwnedFd::from(writer))?;
            Ok(Interrupts { pipe, _caught })
        };
        caught().map_err(Error::Signals)
    }

    /// An error if a signal has come since the last call.
    pub(super) fn check(&self) -> Result<(), Error> {
        let mut signal = [0];
        match (&self.pipe).read(&mut signal) {
            Ok(1) => Err(Error::Interrupted { signal: signal[0] }),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(Error::Signals(error)),
        }
    }
}
