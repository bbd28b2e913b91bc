//! [`Watch`]: the thread that reads the signals, and looks at the clock.

use std::io::{PipeReader, Read as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::state::State;
use super::{GRACE, HANG_UP, StopReason};
use crate::sys::{Errno, event};

/// How often orphans that have ended are reaped.
const REAP_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Watch<F> {
    pub(super) reader: PipeReader,
    pub(super) state: Arc<State>,
    /// Called with the first reason to end.
    pub(super) on_stop: Option<F>,
    /// When the time that all may take is over.
    pub(super) stop_at: Option<Instant>,
    /// When the patience with commands that were told to end is over.
    pub(super) kill_at: Option<Instant>,
}

impl<F: FnOnce(StopReason)> Watch<F> {
    pub(super) fn run(mut self) {
        loop {
            let next = [self.stop_at, self.kill_at, self.state.next_deadline()].into_iter().flatten().min();
            let left = next.map_or(REAP_INTERVAL, |next| next.saturating_duration_since(Instant::now()));
            let timeout = event::Timespec::try_from(left.min(REAP_INTERVAL)).ok();
            let mut polled = [event::PollFd::new(&self.reader, event::PollFlags::IN)];
            match event::poll(&mut polled, timeout.as_ref()) {
                Ok(0) => {}
                Err(Errno::INTR) => continue,
                Err(_) => return,
                Ok(_) => {
                    let mut byte = [HANG_UP];
                    if self.reader.read_exact(&mut byte).is_err() || byte == [HANG_UP] {
                        return;
                    }
                    self.stop(StopReason::Signal(byte[0].into()));
                }
            }
            let is_over = |at: &mut Instant| *at <= Instant::now();
            if self.stop_at.take_if(is_over).is_some() && self.state.stopped_by().is_none() {
                self.stop(StopReason::OutOfTime);
            }
            if self.kill_at.take_if(is_over).is_some() {
                self.state.give_up();
            }
            self.state.end_overdue();
            self.state.reap_orphans();
        }
    }

    fn stop(&mut self, reason: StopReason) {
        if !self.state.stop(reason) {
            return;
        }
        tracing::debug!(?reason, "asked to end");
        self.kill_at = Some(Instant::now() + GRACE);
        if let Some(on_stop) = self.on_stop.take() {
            on_stop(reason);
        }
    }
}
