//! Durations as Go writes them: `336h`, `1h30m`, `1.5s`.

use std::time::Duration;

use crate::dockerfile::parse_duration;

/// Gives back a text that is a duration, be it negative.
pub(super) fn checked(text: &str) -> Result<String, String> {
    let unsigned = text.strip_prefix('-').filter(|rest| !rest.starts_with('+'));
    parse(unsigned.unwrap_or(text)).map(|_| text.to_owned())
}

/// How long something may take; 0 stands for as long as it likes.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let nanoseconds = parse_duration(text).ok_or("not a duration such as 90s or 1h30m")?;
    Ok(Duration::from_nanos(nanoseconds.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        for good in ["336h", "1h30m", "1.5s", ".5s", "0", "-1h", "+2m", "10ms", "1h0m0s", "3µs"] {
            assert_eq!(checked(good).as_deref(), Ok(good));
            assert_eq!(parse(good).is_ok(), !good.starts_with('-'), "{good}");
        }
        for bad in ["", "-", "336", "h", "1d", "1h30", "1.2.3s", ".s", "1 h", "-+5m"] {
            assert!(checked(bad).is_err() && parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("1h0m1.5s"), Ok(Duration::from_millis(3_601_500)));
    }
}
