//! Answers: success, refusal and why, or somewhere else.

use std::time::Duration;

use reqwest::header::{LOCATION, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};

use super::{Error, date};

/// Refusals are a line or two; proxies answer with whole pages.
const REFUSAL_BYTES: u64 = 64 * 1024;
/// The reason for a refusal is worth waiting for, but not long: the refusal itself is known.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(10);

/// The answer if it is a success, else why it is not.
pub async fn expect_success(response: Response, what: &str) -> Result<Response, Error> {
    if response.status().is_success() { Ok(response) } else { Err(refusal(response, what).await) }
}

/// What a refusal says.
pub async fn refusal(response: Response, what: &str) -> Error {
    let status = response.status();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| parse_retry_after(value.to_str().ok()?));
    let body = tokio::time::timeout(REFUSAL_PATIENCE, read_limited(response, REFUSAL_BYTES, what)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
    let detail = format!("{reason}{}", refusal_detail(&body));
    Error::Refused { what: what.to_owned(), status: status.as_u16(), detail, retry_after }
}

/// Registries speak JSON (distribution spec, "Error Codes"); other bodies in short, web pages not at all.
fn refusal_detail(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<OneError>,
    }
    #[derive(serde::Deserialize)]
    struct OneError {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let printable = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    if let Ok(Errors { errors }) = serde_json::from_slice(body) {
        return errors.iter().map(|error| printable(&format!(": {} {}", error.code, error.message))).collect();
    }
    let text: String = printable(&String::from_utf8_lossy(body)).chars().take(200).collect();
    if text.trim().is_empty() || text.trim_start().starts_with('<') {
        String::new()
    } else {
        format!(": {}", text.trim())
    }
}

/// RFC 9110, section 10.2.3: seconds, or a date.
fn parse_retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    Some(Duration::try_from(date::parse(value)? - time::OffsetDateTime::now_utc()).unwrap_or_default())
}

/// Reads a small body. It may never end: the caller has to limit the time.
pub async fn read_limited(mut response: Response, limit_bytes: u64, what: &str) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|source| Error::request(what, source))? {
        if (body.len() + chunk.len()) as u64 > limit_bytes {
            return Err(Error::TooLarge { what: what.to_owned(), limit_bytes });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// RFC 9110, section 15.4: 307 and 308 keep the method; the others are meant for reading.
pub fn is_followed(status: StatusCode, method: &Method) -> bool {
    match status.as_u16() {
        307 | 308 => true,
        301..=303 => matches!(*method, Method::GET | Method::HEAD),
        _ => false,
    }
}

/// An address that the server gave, possibly relative to where it was asked.
pub fn location(response: &Response, what: &str) -> Result<Url, Error> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    (location.and_then(|location| response.url().join(location).ok()))
        .ok_or_else(|| Error::NoLocation { what: what.to_owned() })
}

/// What was sent is answered, or goes on, within `patience`.
pub async fn within<T>(
    patience: Duration,
    what: &str,
    sent: impl Future<Output = Result<T, reqwest::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(patience, sent).await {
        Ok(answer) => answer.map_err(|source| Error::request(what, source)),
        Err(_) => Err(Error::Stalled { what: what.to_owned(), patience }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::pauses::LONGEST_RETRY_AFTER;
    use super::*;

    #[test]
    fn retry_after_in_seconds_and_as_a_date() {
        assert_eq!(parse_retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(parse_retry_after("Fri, 31 Dec 2300 23:59:59 GMT").is_some_and(|pause| pause > LONGEST_RETRY_AFTER));
        assert_eq!(parse_retry_after("soon"), None);
    }

    #[test]
    fn refusals_in_the_registry_s_words() {
        let spoken = br#"{"errors":[{"code":"DENIED","message":"n\no","detail":{"x":1}},{"code":"UNKNOWN"}]}"#;
        assert_eq!(refusal_detail(spoken), ": DENIED no: UNKNOWN ");
        assert_eq!(refusal_detail(b"too many\n"), ": too many");
        assert_eq!(refusal_detail(b"<html>"), "");
        assert_eq!(refusal_detail(b""), "");
    }
}
