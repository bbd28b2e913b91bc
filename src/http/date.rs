//! The three forms of a date in a header (RFC 9110, section 5.6.7).

use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc2822;
use time::macros::format_description;
use time::parsing::Parsed;
use time::{OffsetDateTime, PrimitiveDateTime};

const RFC850: &[BorrowedFormatItem<'_>] = format_description!(
    "[weekday repr:long], [day]-[month repr:short]-[year repr:last_two] [hour]:[minute]:[second] GMT"
);
const ASCTIME: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short] [month repr:short] [day padding:space] [hour]:[minute]:[second] [year]");
/// The first of the years that two digits stand for.
const FIRST_YEAR: i32 = 1969;

/// Reads a date; the obsolete forms too.
pub(super) fn parse(text: &str) -> Option<OffsetDateTime> {
    let text = text.trim();
    let obsolete = || Some(PrimitiveDateTime::parse(text, ASCTIME).ok().or_else(|| parse_rfc850(text))?.assume_utc());
    OffsetDateTime::parse(text, &Rfc2822).ok().or_else(obsolete)
}

fn parse_rfc850(text: &str) -> Option<PrimitiveDateTime> {
    let mut parsed = Parsed::new();
    let rest = parsed.parse_items(text.as_bytes(), RFC850).ok()?;
    let past_first = (i32::from(parsed.year_last_two()?) - FIRST_YEAR).rem_euclid(100);
    parsed.set_year(FIRST_YEAR + past_first)?;
    rest.is_empty().then(|| parsed.try_into().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_forms() {
        for (text, seconds) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Sunday, 06-Nov-11 08:49:37 GMT", Some(1_320_569_377)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Wednesday, 31-Dec-69 23:59:59 GMT", Some(-1)),
            (" Sun, 06 Nov 1994 08:49:37 GMT ", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT+1", None),
            ("1994-11-06T08:49:37Z", None),
            ("784111777", None),
            ("", None),
        ] {
            assert_eq!(parse(text).map(OffsetDateTime::unix_timestamp), seconds, "{text}");
        }
    }
}
