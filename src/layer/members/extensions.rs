//! [`Extensions`]: what long names and PAX records add to a header, and the numbers of both.

use super::super::header::XATTR_PREFIX;
use super::{Broken, malformed};
use crate::rootfs::xattr;
use crate::tree::{Timestamp, Xattrs};

/// What the members before a header say about it.
#[derive(Default)]
pub(super) struct Extensions {
    pub(super) name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Xattrs,
    /// Size of the file with its holes (GNU's PAX form of sparse files).
    pub(super) sparse_size: Option<u64>,
}

impl Extensions {
    pub(super) fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.size.is_none() && self.mtime.is_none()
    }

    pub(super) fn pax(&mut self, mut records: &[u8]) -> Result<(), Broken> {
        let mut sparse_name = None;
        while !records.is_empty() {
            let (key, value, rest) = split_record(records).ok_or_else(|| malformed("a PAX record is malformed"))?;
            records = rest;
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(decimal(value)?),
                b"uid" => self.uid = Some(decimal(value)?),
                b"gid" => self.gid = Some(decimal(value)?),
                b"mtime" => self.mtime = Some(parse_time(value).ok_or_else(|| malformed("a PAX time is malformed"))?),
                b"GNU.sparse.name" => sparse_name = Some(value.to_vec()),
                b"GNU.sparse.realsize" => self.sparse_size = Some(decimal(value)?),
                b"GNU.sparse.map" | b"GNU.sparse.offset" | b"GNU.sparse.numblocks" => {
                    return Err(malformed("sparse files of PAX version 0 are not supported: use --sparse-version=1.0"));
                }
                _ => {
                    let name = key.strip_prefix(XATTR_PREFIX).filter(|name| xattr::is_portable(name));
                    if let Some(name) = name {
                        let value = xattr::portable_value(name, value.to_vec());
                        self.xattrs.push((name.into(), value.into()));
                    }
                }
            }
        }
        self.name = sparse_name.or(self.name.take());
        Ok(())
    }
}

/// `length key=value\n` into key, value and what follows.
fn split_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &records[length..]))
}

fn decimal<T: std::str::FromStr>(value: &[u8]) -> Result<T, Broken> {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| malformed("a PAX number is malformed"))
}

/// Up to the first NUL.
pub(super) fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A number of a header: octal digits, or base-256 (which may be negative) where the first bit is set.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let start = if field[0] & 0x40 != 0 { -1_i128 } else { 0 };
        let first = i128::from(field[0] & 0x3f) | (start << 6);
        let value = field[1..].iter().fold(first, |value, &byte| value << 8 | i128::from(byte));
        return i64::try_from(value).ok();
    }
    let digits = text(field).trim_ascii();
    digits.iter().try_fold(0_i64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// `1700000000.123456789`, with any number of decimals and maybe a sign.
fn parse_time(value: &[u8]) -> Option<Timestamp> {
    let value = std::str::from_utf8(value).ok()?;
    let (negative, amount) = match value.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    Some(match (negative, nanoseconds) {
        (false, nanoseconds) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp::from_seconds(-seconds),
        (true, nanoseconds) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_header() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"12x\0", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    #[test]
    fn times() {
        for (text, time) in [
            ("5", Some((5, 0))),
            ("5.25", Some((5, 250_000_000))),
            ("5.1234567899", Some((5, 123_456_789))),
            ("-0.5", Some((-1, 500_000_000))),
            ("-2", Some((-2, 0))),
            ("x", None),
            ("1.+5", None),
        ] {
            let expected = time.map(|(seconds, nanoseconds)| Timestamp { seconds, nanoseconds });
            assert_eq!(parse_time(text.as_bytes()), expected, "{text}");
        }
    }
}
