//! [`Clock`]: what times an image carries.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Request;
use crate::layer::Times;
use crate::tree::Timestamp;

/// Whose clock the image shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// That of the build.
    Real,
    /// It stands at this second (`--reproducible`, without and with SOURCE_DATE_EPOCH).
    Still(i64),
}

impl Clock {
    pub(super) fn of(request: &Request) -> Clock {
        match (request.reproducible, request.source_date_epoch) {
            (false, None) => Clock::Real,
            (_, Some(seconds)) => Clock::Still(seconds),
            (true, None) => Clock::Still(0),
        }
    }

    /// The time of the build.
    pub(super) fn now(self) -> Timestamp {
        match self {
            Clock::Still(seconds) => Timestamp::from_seconds(seconds),
            Clock::Real => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp { seconds: now.as_secs() as i64, nanoseconds: now.subsec_nanos() }
            }
        }
    }

    /// The time of the build in RFC 3339, for config and history.
    pub(super) fn now_text(self) -> String {
        let now = self.now();
        let nanoseconds = i128::from(now.seconds) * 1_000_000_000 + i128::from(now.nanoseconds);
        time::OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
            .ok()
            .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
            .unwrap_or_else(|| "1970-01-01T00:00:00Z".into())
    }

    /// The times of a layer's entries: zero, or none later than SOURCE_DATE_EPOCH.
    pub(super) fn times(self) -> Times {
        match self {
            Clock::Real => Times::AsTheyAre,
            Clock::Still(0) => Times::All(Timestamp::EPOCH),
            Clock::Still(seconds) => Times::ClampedTo(Timestamp::from_seconds(seconds)),
        }
    }
}
