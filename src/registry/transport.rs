//! Requests: to the right address, with the right to be there, again where it makes sense.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode, Url};

use super::challenge::{self, Challenge};
use super::endpoint::{Access, Place, Scheme};
use super::error::{Error, Fault};
use super::settings::Settings;
use super::token::{self, Token};
use crate::credentials::{Credential, Keychain};
use crate::http::{self, Pauses, REDIRECTS, Trust, expect_success, host_and_port, is_followed, is_loopback, within};
use crate::sys::Stop;

/// All connections, of all registries.
pub(super) struct Transport {
    pub(super) settings: Settings,
    pub(super) http: Arc<http::Client>,
    keychain: Arc<Keychain>,
    connections: tokio::sync::Mutex<HashMap<ConnectionKey, Arc<Connection>>>,
}

/// A registry, the scheme that its address prescribes, and what it is asked for.
type ConnectionKey = (String, Option<Scheme>, Access);

/// What has been learnt about a registry.
struct Connection {
    scheme: Scheme,
    challenge: Mutex<Option<Challenge>>,
    /// By scopes. Locked while one is fetched, so that transfers that start together share it.
    tokens: tokio::sync::Mutex<HashMap<Vec<String>, Token>>,
}

/// A registry that answered, and the repository in it that we mean.
pub(super) struct Session<'a> {
    pub(super) transport: &'a Transport,
    pub(super) place: Place,
    access: Access,
    connection: Arc<Connection>,
}

/// A request that can be sent more than once.
pub(super) struct Ask<'a> {
    /// What is asked of whom, for errors.
    pub(super) what: String,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Body<'a>,
    /// A second repository that must be readable.
    pub(super) mount_from: Option<&'a str>,
}

pub(super) enum Body<'a> {
    None,
    Bytes(Bytes),
    /// Makes the body anew for every try; whoever makes it watches over its progress.
    Streamed(&'a (dyn Fn() -> Result<reqwest::Body, Error> + Sync)),
}

/// Waits before the next try; gives the error back if there is to be none.
pub(super) async fn pause(pauses: &mut Pauses, error: Error) -> Result<(), Error> {
    match error {
        Error::Http(error) => Ok(pauses.after(error).await?),
        other => Err(other),
    }
}

impl Transport {
    pub(super) fn new(settings: Settings, keychain: Keychain, http: Arc<http::Client>) -> Result<Transport, Error> {
        keychain.load()?;
        let keychain = Arc::new(keychain);
        Ok(Transport { settings, http, keychain, connections: Default::default() })
    }

    pub(super) fn pauses(&self, access: Access) -> Pauses {
        self.http.pauses(match access {
            Access::Pull => self.settings.download_retry,
            Access::Push => self.settings.push_retry,
        })
    }

    /// Finds out how a registry is reached, once per registry; `patient` if there is no other place to turn to.
    pub(super) async fn session(&self, place: &Place, access: Access, patient: bool) -> Result<Session<'_>, Error> {
        let key = (place.registry.clone(), place.scheme, access);
        let mut connections = self.connections.lock().await;
        let connection = match connections.get(&key) {
            Some(connection) => connection.clone(),
            None => {
                let mut pauses = self.pauses(access);
                let connection = loop {
                    match self.connect(place, access).await {
                        Ok(connection) => break Arc::new(connection),
                        Err(error) if patient => pause(&mut pauses, error).await?,
                        Err(error) => return Err(error),
                    }
                };
                connections.insert(key, connection.clone());
                connection
            }
        };
        Ok(Session { transport: self, place: place.clone(), access, connection })
    }

    /// Distribution spec, "Determining Support"; the first scheme that answers at all is taken.
    async fn connect(&self, place: &Place, access: Access) -> Result<Connection, Error> {
        let mut first_error = None;
        for scheme in place.schemes(access, &self.settings) {
            let what = format!("reach registry {}", place.registry);
            let url = base_url(place, scheme, "")?;
            let client = self.client(place, access, &url)?;
            match within(self.http.patience(), &what, client.get(url).send()).await {
                Ok(response) if response.status().is_server_error() || response.status().as_u16() == 429 => {
                    return Err(http::refusal(response, &what).await.into());
                }
                // so servers answer that want TLS: why that failed is what matters
                Ok(response) if first_error.is_some() && response.status() == StatusCode::BAD_REQUEST => break,
                Ok(response) => {
                    let challenge = Mutex::new(challenge_of(&response));
                    return Ok(Connection { scheme, challenge, tokens: Default::default() });
                }
                // that https was refused tells more than that http was, too
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.expect("there is always a scheme to try").into())
    }

    fn client(&self, place: &Place, access: Access, url: &Url) -> Result<reqwest::Client, Error> {
        let host = host_and_port(url);
        Ok(self.http.trusting(Trust {
            authorities_of: place.registry.clone(),
            host: if host == place.api_host() { place.registry.clone() } else { host },
            skips_verify: place.skips_tls_verify(access, &self.settings),
        })?)
    }
}

/// Asks those who work for us to end when we are dropped.
struct Waiting(Stop);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.ask();
    }
}

impl Session<'_> {
    /// The address of something in the repository: `blobs/…`, `manifests/…`.
    pub(super) fn url(&self, path: &str) -> Result<Url, Error> {
        base_url(&self.place, self.connection.scheme, &format!("{}/{path}", self.place.repository))
    }

    /// Sends until an answer comes that is a success, or a refusal for good.
    pub(super) async fn send(&self, ask: &Ask<'_>) -> Result<Response, Error> {
        let mut pauses = self.transport.pauses(self.access);
        loop {
            match self.send_once(ask).await {
                Ok(response) => return Ok(response),
                Err(error) => pause(&mut pauses, error).await?,
            }
        }
    }

    /// One try: redirects are followed, and a token or a way to authenticate that is out of date is renewed once.
    pub(super) async fn send_once(&self, ask: &Ask<'_>) -> Result<Response, Error> {
        let mut url = ask.url.clone();
        let mut renewed = false;
        let mut redirects = 0;
        loop {
            let at_home = self.is_home(&url);
            let response = self.send_to(ask, url.clone(), at_home).await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && at_home && !renewed {
                renewed = true;
                self.learn(&response).await;
            } else if is_followed(status, &ask.method) {
                redirects += 1;
                if redirects > REDIRECTS {
                    return Err(http::Error::Redirects { what: ask.what.clone() }.into());
                }
                url = http::location(&response, &ask.what)?;
            } else {
                return Ok(expect_success(response, &ask.what).await?);
            }
        }
    }

    async fn send_to(&self, ask: &Ask<'_>, url: Url, at_home: bool) -> Result<Response, Error> {
        let client = self.transport.client(&self.place, self.access, &url)?;
        let mut request = client.request(ask.method.clone(), url).headers(ask.headers.clone());
        if at_home {
            request = self.authorize(request, ask.mount_from).await?;
        }
        let patience = self.transport.http.patience();
        let sent = match &ask.body {
            Body::None => within(patience, &ask.what, request.send()).await,
            Body::Bytes(bytes) => within(patience, &ask.what, request.body(bytes.clone()).send()).await,
            Body::Streamed(make) => {
                let sent = request.body(make()?).send().await;
                sent.map_err(|source| http::Error::request(&ask.what, source))
            }
        };
        Ok(sent?)
    }

    /// Is this the registry itself? Credentials go nowhere else.
    fn is_home(&self, url: &Url) -> bool {
        base_url(&self.place, self.connection.scheme, "").is_ok_and(|home| home.origin() == url.origin())
    }

    async fn learn(&self, response: &Response) {
        let challenge = challenge_of(response);
        self.connection.tokens.lock().await.clear();
        if challenge.is_some() {
            *self.connection.challenge.lock().unwrap_or_else(PoisonError::into_inner) = challenge;
        }
    }

    async fn authorize(
        &self,
        request: reqwest::RequestBuilder,
        mount_from: Option<&str>,
    ) -> Result<reqwest::RequestBuilder, Error> {
        let challenge = self.connection.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(challenge) = challenge else { return Ok(request) };
        if let Challenge::Bearer { realm, service, .. } = &challenge {
            let scopes = self.scopes(mount_from);
            let mut tokens = self.connection.tokens.lock().await;
            if let Some(token) = tokens.get(&scopes).filter(|token| token.is_fresh()) {
                return Ok(request.bearer_auth(&token.secret));
            }
            let credential = self.credential().await?;
            if let Credential::RegistryToken(token) = credential {
                return Ok(request.bearer_auth(token));
            }
            let client = self.realm_client(realm, &credential)?;
            let mut pauses = self.transport.pauses(self.access);
            let token = loop {
                let requested = token::request(&client, realm, service.as_deref(), &scopes, &credential);
                let what = format!("get a token for {}", self.place.name());
                let patience = self.transport.http.patience();
                match tokio::time::timeout(patience, requested).await {
                    Ok(Ok(token)) => break token,
                    Ok(Err(error)) => pause(&mut pauses, error).await?,
                    Err(_) => pauses.after(http::Error::Stalled { what, patience }).await?,
                }
            };
            let request = request.bearer_auth(&token.secret);
            tokens.insert(scopes, token);
            return Ok(request);
        }
        Ok(match self.credential().await? {
            Credential::Basic { username, password } => request.basic_auth(username, Some(password)),
            Credential::RegistryToken(token) => request.bearer_auth(token),
            Credential::Anonymous | Credential::IdentityToken(_) => request,
        })
    }

    /// Helpers are programs, and slow ones: they are waited for beside the transfers that run, and only while somebody waits
    /// for us.
    async fn credential(&self) -> Result<Credential, Error> {
        let keychain = Arc::clone(&self.transport.keychain);
        let Place { registry, repository, .. } = self.place.clone();
        let waiting = Waiting(Stop::new());
        let gone = waiting.0.clone();
        let asked = tokio::task::spawn_blocking(move || keychain.for_registry_until(&gone, &registry, &repository));
        Ok(asked.await.expect("a keychain does not panic, and nobody aborts its task")?)
    }

    /// A registry that we reach by HTTPS cannot have our password sent in the clear.
    fn realm_client(&self, realm: &str, credential: &Credential) -> Result<reqwest::Client, Error> {
        let bad = || Error::Answer {
            what: format!("authenticate at {}", self.place.registry),
            fault: Fault::BadRealm(realm.chars().take(200).collect()),
        };
        let url = Url::parse(realm).map_err(|_| bad())?;
        let clear = url.scheme() != "https" && self.connection.scheme == Scheme::Https;
        let tells = *credential != Credential::Anonymous && !is_loopback(&host_and_port(&url));
        if !matches!(url.scheme(), "http" | "https") || (clear && tells) {
            return Err(bad());
        }
        self.transport.client(&self.place, self.access, &url)
    }

    fn scopes(&self, mount_from: Option<&str>) -> Vec<String> {
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let own = format!("repository:{}:{actions}", self.place.repository);
        std::iter::once(own).chain(mount_from.map(|source| format!("repository:{source}:pull"))).collect()
    }
}

fn base_url(place: &Place, scheme: Scheme, path: &str) -> Result<Url, Error> {
    let text = format!("{}://{}/v2/{path}", scheme.as_str(), place.api_host());
    Url::parse(&text).map_err(|_| Error::BadMirror { mirror: place.registry.clone() })
}

fn challenge_of(response: &Response) -> Option<Challenge> {
    if response.status() != StatusCode::UNAUTHORIZED {
        return None;
    }
    let headers = response.headers().get_all(WWW_AUTHENTICATE);
    challenge::choose(headers.iter().filter_map(|value| value.to_str().ok()))
}
