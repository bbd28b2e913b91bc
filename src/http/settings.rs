//! [`Settings`]: whom to trust, who we are, how long to wait.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What holds for every request. Hosts are named with their port, where it is not the usual one.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Further certificate authorities (PEM), per host.
    pub authorities: BTreeMap<String, PathBuf>,
    /// Our certificate and its key (PEM), per host.
    pub identities: BTreeMap<String, (PathBuf, PathBuf)>,
    /// Directories of further certificate authorities (PEM) for all hosts; those that do not exist are no error.
    pub extra_ca_directories: Vec<PathBuf>,
    /// Who we say we are.
    pub user_agent: String,
    /// The pause before the second try; it doubles, and is spread by chance.
    pub retry_pause: Duration,
    /// A server that is silent for so long is given up.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            authorities: BTreeMap::new(),
            identities: BTreeMap::new(),
            extra_ca_directories: Vec::new(),
            user_agent: concat!("kanna/", env!("CARGO_PKG_VERSION")).to_owned(),
            // long enough for a restart behind a load balancer within the usual tries
            retry_pause: Duration::from_millis(500),
            // registries that check an upload before they answer take their time
            patience: Duration::from_secs(120),
        }
    }
}
