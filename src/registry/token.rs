//! Tokens: what a token server gives for a credential, for a while (distribution spec, token authentication).

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::error::{Error, Fault};
use crate::credentials::Credential;
use crate::http::{self, expect_success, read_limited};

/// What the specification says where the server does not.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// A token that ends within this time is renewed first: the request with it is still to travel.
const SAFETY: Duration = Duration::from_secs(10);
/// Tokens have some kilobytes.
const TOKEN_ANSWER_BYTES: u64 = 1024 * 1024;

/// A bearer token and its end.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) secret: String,
    expires: Instant,
}

impl Token {
    pub(super) fn is_fresh(&self) -> bool {
        Instant::now() < self.expires
    }
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Asks `realm` for a token that opens `scopes`.
pub(super) async fn request(
    client: &reqwest::Client,
    realm: &str,
    service: Option<&str>,
    scopes: &[String],
    credential: &Credential,
) -> Result<Token, Error> {
    let what = format!("get a token from {}", without_query(realm));
    let scopes_joined = scopes.join(" ");
    let request = match credential {
        Credential::IdentityToken(token) => {
            let mut form = vec![
                ("grant_type", "refresh_token"),
                ("client_id", "kanna"),
                ("refresh_token", token),
                ("scope", &scopes_joined),
            ];
            form.extend(service.map(|service| ("service", service)));
            client.post(realm).form(&form)
        }
        credential => {
            let mut query: Vec<_> = service.map(|service| ("service", service)).into_iter().collect();
            query.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
            let request = client.get(realm).query(&query);
            match credential {
                Credential::Basic { username, password } => request.basic_auth(username, Some(password)),
                _ => request,
            }
        }
    };
    let response = request.send().await.map_err(|source| http::Error::request(&what, source))?;
    let response = expect_success(response, &what).await?;
    let body = read_limited(response, TOKEN_ANSWER_BYTES, &what).await?;
    // the parser's words are left out: they may quote the token
    let no_token = || Error::Answer { what: what.clone(), fault: Fault::NoToken };
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| no_token())?;
    let secret = answer.token.or(answer.access_token).filter(|token| !token.is_empty()).ok_or_else(no_token)?;
    let life = answer.expires_in.map_or(DEFAULT_LIFE, |seconds| Duration::from_secs(seconds.min(86_400)));
    Ok(Token { secret, expires: Instant::now() + life.saturating_sub(SAFETY) })
}

fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}
