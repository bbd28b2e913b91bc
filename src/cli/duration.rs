//! Durations as Go writes them: `336h`, `1h30m`, `1.5s`.

/// Gives back a text that is a duration.
pub(super) fn checked(text: &str) -> Result<String, String> {
    if is_duration(text) { Ok(text.to_owned()) } else { Err("not a duration such as 336h or 1h30m".to_owned()) }
}

fn is_duration(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return true;
    }
    let mut rest = unsigned;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let is_number = number.contains(|c: char| c.is_ascii_digit()) && number.matches('.').count() <= 1;
        if !is_number || !["ns", "us", "µs", "μs", "ms", "s", "m", "h"].contains(&unit) {
            return false;
        }
        rest = next;
    }
    !unsigned.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        for good in ["336h", "1h30m", "1.5s", ".5s", "0", "-1h", "+2m", "10ms", "1h0m0s", "3µs"] {
            assert!(is_duration(good), "{good}");
        }
        for bad in ["", "-", "336", "h", "1d", "1h30", "1.2.3s", ".s", "1 h"] {
            assert!(!is_duration(bad), "{bad}");
        }
    }
}
