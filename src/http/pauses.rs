//! [`Pauses`]: is it tried again, and when?

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::Error;

/// Tries after the first, whatever the flags say: a server's restart takes some seconds.
const USUAL_RETRIES: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A server that wants a longer pause does not expect this build to wait for it.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// The pauses between the tries of one request.
pub struct Pauses {
    backoff: ExponentialBackoff,
}

impl Pauses {
    /// The first pause is `first`; there are `more_retries` beyond the usual ones.
    pub(super) fn new(first: Duration, more_retries: u32) -> Pauses {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(first)
            .with_max_delay(LONGEST_PAUSE.max(first))
            .with_max_times(USUAL_RETRIES.saturating_add(more_retries) as usize)
            .with_jitter()
            .build();
        Pauses { backoff }
    }

    /// Waits before the next try; gives the error back if there is to be none.
    pub async fn after(&mut self, error: Error) -> Result<(), Error> {
        if !error.is_temporary() {
            return Err(error);
        }
        let wanted = error.retry_after().unwrap_or_default();
        match self.backoff.next() {
            Some(pause) if wanted <= LONGEST_RETRY_AFTER => {
                let pause = pause.max(wanted);
                tracing::warn!("{}; trying again in {:.1} s", chain(&error), pause.as_secs_f32());
                tokio::time::sleep(pause).await;
                Ok(())
            }
            _ => Err(error),
        }
    }
}

/// An error and its causes in one line, for logs of errors that end there. A cause that its error's own text ends with is
/// not told again.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source()).map(ToString::to_string);
    causes.fold(error.to_string(), |text, cause| if text.ends_with(&cause) { text } else { format!("{text}: {cause}") })
}
