//! Durations as Go writes them: `1m30s`, `1.5h`, `300ms`.

/// Nanoseconds in each unit, longer names first where one begins another.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration in nanoseconds, which are not negative.
pub fn parse(text: &str) -> Option<i64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (_, nanoseconds) = UNITS.into_iter().find(|(name, _)| *name == &after[..unit_end])?;
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(nanoseconds)?)?.checked_add(part_of(nanoseconds, fraction))?;
        rest = &after[unit_end..];
    }
    i64::try_from(total).ok()
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `0.fraction` of a unit, rounded down.
fn part_of(unit: u64, fraction: &str) -> u64 {
    let mut scaled: u128 = u128::from(unit) * 1_000_000_000_000_000_000;
    let mut total: u128 = 0;
    for digit in fraction.bytes().take(18) {
        scaled /= 10;
        total += scaled * u128::from(digit - b'0');
    }
    // Below one unit, so it fits where the unit does.
    u64::try_from(total / 1_000_000_000_000_000_000).unwrap_or(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanoseconds) in [
            ("0", Some(0)),
            ("+5s", Some(5_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("300ms", Some(300_000_000)),
            ("7us", Some(7_000)),
            ("7µs", Some(7_000)),
            ("1h2m3s4ms5us6ns", Some(3_723_004_005_006)),
            ("0.3333333333333333333333h", Some(1_200_000_000_000 - 1)),
            ("", None),
            ("+", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("-1s", None),
            ("5 s", None),
            ("5x", None),
            ("9999999999h", None),
            ("99999999999999999999999s", None),
        ] {
            assert_eq!(parse(text), nanoseconds, "{text}");
        }
    }
}
