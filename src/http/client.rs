//! [`Client`]: the connections, and the runtime that they live on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::Url;
use tokio::runtime::{Builder, Runtime};

use super::names::Names;
use super::pauses::Pauses;
use super::tls::{Certificates, Trust};
use super::{Error, Settings};
use crate::sys::Stop;

/// Threads that serve transfers besides the one that waits for them: TLS of several streams fills one.
const RUNTIME_THREADS: usize = 2;

/// How long what runs on beside the transfers may take to end when the client is dropped. It takes some milliseconds.
const ENDING: Duration = Duration::from_secs(1);

/// Speaks HTTP. Make it before the root is replaced: certificates and what is known of names are read now.
pub struct Client {
    settings: Settings,
    certificates: Certificates,
    names: Names,
    by_trust: Mutex<HashMap<Trust, reqwest::Client>>,
    /// There until the client is dropped.
    runtime: Option<Runtime>,
    stop: Stop,
}

impl Client {
    /// Reads certificates, and where to ask for names; nothing is sent yet.
    pub fn new(settings: Settings) -> Result<Client, Error> {
        let certificates = Certificates::load(&settings)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(|source| Error::Start { source: source.into() })?;
        let names = runtime.block_on(async { Names::load() })?;
        Ok(Client {
            settings,
            certificates,
            names,
            by_trust: Mutex::default(),
            runtime: Some(runtime),
            stop: Stop::new(),
        })
    }

    /// The same client, which gives up whatever it waits for once `stop` is asked.
    pub fn until(mut self, stop: Stop) -> Client {
        self.stop = stop;
        self
    }

    /// Waits for what awaits. What is given up half-way takes its connections and its half of a file with it.
    pub fn block_on<T, E: From<Error>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let runtime = self.runtime.as_ref().expect("there until the client is dropped");
        runtime.block_on(self.stop.interrupting(work)).unwrap_or_else(|stopped| Err(Error::Stopped(stopped).into()))
    }

    /// A server that is silent for so long is given up.
    pub fn patience(&self) -> Duration {
        self.settings.patience
    }

    /// The pauses between the tries of a request: `more_retries` beyond the usual ones.
    pub fn pauses(&self, more_retries: u32) -> Pauses {
        Pauses::new(self.settings.retry_pause, more_retries)
    }

    /// The connections that a trust allows; they follow no redirects.
    pub fn trusting(&self, trust: Trust) -> Result<reqwest::Client, Error> {
        let mut clients = self.by_trust.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&trust) {
            return Ok(client.clone());
        }
        let client = self.certificates.client(&trust, &self.names, &self.settings)?;
        clients.insert(trust, client.clone());
        Ok(client)
    }
}

impl Drop for Client {
    /// Whoever asks a credential helper ends it once nobody waits for the answer, and is given the time for that.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(ENDING);
        }
    }
}

/// The host that an address names, with its port where it is not the usual one.
pub fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Is `host[:port]` this machine itself?
pub fn is_loopback(host: &str) -> bool {
    let name = host_without_port(host);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The host of `host[:port]`, an IPv6 address without its brackets.
pub fn host_without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}
