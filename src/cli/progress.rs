//! [`Bars`]: on a terminal, how far downloads, unpacking and pushes are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::oci::{Descriptor, Digest};
use crate::registry::Progress;

/// Blobs smaller than this are there before a bar could be read.
const SMALLEST_SHOWN_BYTES: u64 = 1024 * 1024;

/// One bar per blob on its way, below the log. Draws nothing where standard error is no terminal.
#[derive(Clone)]
pub(super) struct Bars {
    all: MultiProgress,
    /// What happens to the blobs.
    verb: &'static str,
    running: Arc<Mutex<Running>>,
}

/// The bars that are drawn, each with the number of those who are at work on its blob: several stages can unpack one.
type Running = HashMap<Digest, (ProgressBar, usize)>;

impl Bars {
    /// Bars on standard error.
    pub(super) fn on_stderr() -> Bars {
        Bars::on(ProgressDrawTarget::stderr())
    }

    /// No bars: the log is for a program to read.
    pub(super) fn hidden() -> Bars {
        Bars::on(ProgressDrawTarget::hidden())
    }

    fn on(target: ProgressDrawTarget) -> Bars {
        Bars { all: MultiProgress::with_draw_target(target), verb: "", running: Arc::default() }
    }

    /// Bars beside these, for blobs to which `verb` happens.
    pub(super) fn of(&self, verb: &'static str) -> Bars {
        Bars { all: self.all.clone(), verb, running: Arc::default() }
    }

    /// Takes away what a transfer that was given up has left.
    pub(super) fn clear(&self) {
        // nobody is left to see it when standard error is closed
        drop(self.all.clear());
    }

    /// Does `work`, which writes to the terminal, while no bar is in the way.
    pub(super) fn suspended<T>(&self, work: impl FnOnce() -> T) -> T {
        self.all.suspend(work)
    }

    fn with_running<T>(&self, work: impl FnOnce(&mut Running) -> T) -> T {
        // bars are for the eye: a thread that panicked while holding them leaves nothing that matters
        work(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Progress for Bars {
    fn started(&self, blob: &Descriptor) {
        if blob.size < SMALLEST_SHOWN_BYTES {
            return;
        }
        let is_drawn =
            |running: &mut Running| running.get_mut(&blob.digest).map(|(_, at_work)| *at_work += 1).is_some();
        if self.with_running(is_drawn) {
            return;
        }
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {bytes:>10} of {total_bytes:>10} {eta:>4}")
            .expect("the template is well formed");
        let prefix = format!("{:>6} {}", self.verb, short(&blob.digest.to_string()));
        let bar = self.all.add(ProgressBar::new(blob.size).with_style(style).with_prefix(prefix));
        self.with_running(|running| running.insert(blob.digest, (bar, 1)));
    }

    fn advanced(&self, blob: &Descriptor, bytes: u64) {
        self.with_running(|running| running.get(&blob.digest).inspect(|(bar, _)| bar.set_position(bytes)).is_some());
    }

    fn finished(&self, blob: &Descriptor) {
        let is_last = |running: &mut Running| {
            let (_, at_work) = running.get_mut(&blob.digest)?;
            *at_work -= 1;
            if *at_work == 0 { running.remove(&blob.digest) } else { None }
        };
        if let Some((bar, _)) = self.with_running(is_last) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }
}

/// The twelve digits that tools show of a digest.
fn short(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(size: u64) -> Descriptor {
        Descriptor::new("application/octet-stream", Digest::of(b"blob"), size)
    }

    #[test]
    fn a_bar_lives_as_long_as_its_transfer() {
        let bars = Bars::hidden();
        let blob = blob(4 * SMALLEST_SHOWN_BYTES);
        let state =
            || bars.with_running(|running| running.get(&blob.digest).map(|(bar, _)| (bar.position(), bar.length())));
        bars.started(&blob);
        bars.advanced(&blob, 2 * SMALLEST_SHOWN_BYTES);
        assert_eq!(state(), Some((2 * SMALLEST_SHOWN_BYTES, Some(4 * SMALLEST_SHOWN_BYTES))));
        // an attempt began anew
        bars.advanced(&blob, SMALLEST_SHOWN_BYTES);
        assert_eq!(state(), Some((SMALLEST_SHOWN_BYTES, Some(4 * SMALLEST_SHOWN_BYTES))));
        // a second stage unpacks the same
        bars.started(&blob);
        bars.finished(&blob);
        assert!(state().is_some());
        bars.finished(&blob);
        assert_eq!(state(), None);
    }

    #[test]
    fn small_blobs_and_those_that_did_not_travel_have_none() {
        let bars = Bars::hidden();
        bars.started(&blob(SMALLEST_SHOWN_BYTES - 1));
        assert!(bars.with_running(|running| running.is_empty()));
        bars.finished(&blob(SMALLEST_SHOWN_BYTES));
    }
}
