//! [`Stop`]: has this process been asked to end?

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

/// Tells those who work long that they should not. All clones tell the same, and what was asked once stays asked.
///
/// Whoever holds one gives up with an error of his own, and so removes what he had half done.
#[derive(Clone, Default)]
pub struct Stop(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Beside the token, whose every look takes a lock.
    is_asked: AtomicBool,
    token: CancellationToken,
}

/// The process has been asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("asked to end")]
pub struct Stopped;

impl Stop {
    /// One that nobody has asked yet.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Asks everybody to end.
    pub fn ask(&self) {
        self.0.is_asked.store(true, Ordering::Release);
        self.0.token.cancel();
    }

    /// An error once somebody has asked.
    pub fn check(&self) -> Result<(), Stopped> {
        if self.0.is_asked.load(Ordering::Acquire) { Err(Stopped) } else { Ok(()) }
    }

    /// For those who look for themselves: true once somebody has asked.
    pub fn flag(&self) -> &AtomicBool {
        &self.0.is_asked
    }

    /// Does `work`, or drops it half-way when somebody asks.
    pub async fn interrupting<T>(&self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        self.0.token.run_until_cancelled(work).await.ok_or(Stopped)
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stop").field(&self.0.is_asked).finish()
    }
}

impl From<Stopped> for std::io::Error {
    fn from(stopped: Stopped) -> std::io::Error {
        std::io::Error::other(stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clones_hear_of_it() {
        let stop = Stop::new();
        let clone = stop.clone();
        assert_eq!(clone.check(), Ok(()));
        stop.ask();
        stop.ask();
        assert_eq!(clone.check(), Err(Stopped));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let endless = std::future::pending::<()>();
        assert_eq!(runtime.block_on(clone.interrupting(endless)), Err(Stopped));
    }
}
