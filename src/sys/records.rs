//! Bytes of an event queue as records, whatever the records are.

/// Bytes that are no records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bytes that are no records of events")]
pub struct Malformed;

/// What `first` reads off `bytes`, again and again; it gives a record and what comes after it. Ends with the first that is
/// malformed.
pub(super) fn one_after_another<'a, R>(
    bytes: &'a [u8],
    first: impl Fn(&'a [u8]) -> Option<(R, &'a [u8])>,
) -> impl Iterator<Item = Result<R, Malformed>> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest.take().filter(|bytes| !bytes.is_empty())?;
        let read = first(bytes);
        rest = read.as_ref().map(|(_, after)| *after);
        Some(read.map(|(record, _)| record).ok_or(Malformed))
    })
}
