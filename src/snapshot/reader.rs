//! [`Reader`]: the thread that empties the kernel's queue while a RUN fills it.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::account::Account;
use super::tracker::LostTrack;
use crate::sys::event::{self, PollFd, PollFlags, Timespec};
use crate::sys::{self, Errno};

/// Bytes per read: some thousand events.
pub(super) const READ_BYTES: usize = 128 * 1024;

/// When the queue is read: when there is something in it, but not more often than with this pause. The kernel merges
/// what is in the queue, so that a pause saves work; with one of 20 ms, the default queue of 16,384 events overflows in
/// ordinary commands.
pub(super) const PAUSE: Duration = Duration::from_millis(1);

/// Notes records in an account, or says what is wrong with them.
pub trait Digest: FnMut(&[u8], &mut Account) -> Result<(), LostTrack> + Send + 'static {}

impl<F: FnMut(&[u8], &mut Account) -> Result<(), LostTrack> + Send + 'static> Digest for F {}

/// A thread that reads a queue.
#[derive(Debug)]
pub(super) struct Reader {
    hang_up: Option<PipeWriter>,
    thread: Option<JoinHandle<Account>>,
}

impl Reader {
    /// Begins to read `queue`, which must not block, into `account`.
    pub(super) fn start(
        queue: Arc<OwnedFd>,
        pause: Duration,
        mut account: Account,
        mut digest: impl Digest,
    ) -> io::Result<Reader> {
        let (end, hang_up) = io::pipe()?;
        let read = move || {
            let mut buffer = vec![0; READ_BYTES];
            while !is_hung_up(&end, Some(pause)) && has_events(&queue, &end) {
                drain(&queue, &mut buffer, &mut digest, &mut account);
            }
            drain(&queue, &mut buffer, &mut digest, &mut account);
            account
        };
        let thread = thread::Builder::new().name("tracker".to_owned()).spawn(read)?;
        Ok(Reader { hang_up: Some(hang_up), thread: Some(thread) })
    }

    /// Reads what is still there and ends.
    pub(super) fn finish(mut self) -> Account {
        self.join().unwrap_or_else(|| Account::of_nothing(LostTrack::ReaderDied))
    }

    fn join(&mut self) -> Option<Account> {
        drop(self.hang_up.take());
        self.thread.take()?.join().ok()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        drop(self.join());
    }
}

/// Waits for the end of watching, for `pause` or for ever.
fn is_hung_up(end: &PipeReader, pause: Option<Duration>) -> bool {
    poll(&mut [PollFd::new(end, PollFlags::IN)], pause)
}

/// Waits until there is something to read; `false` if watching ends before.
fn has_events(queue: &OwnedFd, end: &PipeReader) -> bool {
    let mut both = [PollFd::new(end, PollFlags::IN), PollFd::new(queue, PollFlags::IN)];
    poll(&mut both, None);
    both[0].revents().is_empty()
}

/// Waits for one of `polled`; `false` if nothing comes in time.
fn poll(polled: &mut [PollFd<'_>], timeout: Option<Duration>) -> bool {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    loop {
        match event::poll(polled, timeout.as_ref()) {
            Err(Errno::INTR) => {}
            ready => return !matches!(ready, Ok(0)),
        }
    }
}

/// Reads until the queue is empty. Once the account is lost, only so that the queue does not grow.
pub(super) fn drain(queue: &OwnedFd, buffer: &mut [u8], digest: &mut impl Digest, account: &mut Account) {
    loop {
        match sys::read(queue, &mut *buffer) {
            Ok(0) | Err(Errno::AGAIN) => return,
            Ok(filled) => {
                if !account.is_lost()
                    && let Err(lost) = digest(&buffer[..filled], account)
                {
                    account.lost(lost);
                }
            }
            Err(Errno::INTR) => {}
            Err(errno) => return account.lost(LostTrack::Refused(errno)),
        }
    }
}
