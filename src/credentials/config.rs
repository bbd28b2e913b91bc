//! One `config.json`: which entry, or which helper, speaks for a repository.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::{Credential, Error};
use crate::oci::parse_object;
use crate::sys::read_regular;

/// The longest file that is read. Those of large firms have some hundred kilobytes; a secret of Kubernetes has a mebibyte.
const FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Docker pads; some tools that write the file do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The names of Docker Hub, and the key that `docker login` files its credentials under.
const DOCKER_HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// A file that was read.
pub(super) struct ConfigFile {
    path: PathBuf,
    content: Content,
}

/// Go reads `null` as what is not there.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Content {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

/// `None` fields and empty ones mean the same.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// What a file says about a repository.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    Credential(Credential),
    /// Ask `docker-credential-<name>` about `server`.
    Helper {
        name: String,
        server: String,
    },
    Nothing,
}

impl ConfigFile {
    /// `None` where there is no such file, or an empty one (a mount that nobody filled).
    pub(super) fn read(path: &Path) -> Result<Option<ConfigFile>, Error> {
        let bytes = match read_regular(path, FILE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(source) => return Err(Error::Read { path: path.to_path_buf(), source }),
        };
        if bytes.trim_ascii().is_empty() {
            return Ok(None);
        }
        let content = parse_object(&bytes).map_err(|error| Error::Malformed {
            path: path.to_path_buf(),
            line: error.line(),
            column: error.column(),
        })?;
        Ok(Some(ConfigFile { path: path.to_path_buf(), content }))
    }

    /// A helper for this very registry first, then the entries, then the store for all registries: docker's order,
    /// but a store that knows nothing does not hide an entry.
    pub(super) fn find(&self, registry: &str, repository: &str) -> Result<Found, Error> {
        let names = names_of(registry);
        let helper = self.content.cred_helpers.iter().flatten().find(|(key, _)| names.contains(&host_of(key)));
        if let Some((_, name)) = helper {
            return self.helper(name, registry);
        }
        let entry = (self.content.auths.iter().flatten())
            .filter_map(|(key, entry)| Some((match_length(key, &names, repository)?, key, entry.as_ref()?)))
            .filter(|(_, _, entry)| !entry.is_empty())
            .max_by_key(|(length, key, _)| (*length, std::cmp::Reverse(key.len())));
        if let Some((_, key, entry)) = entry {
            return self.credential(key, entry).map(Found::Credential);
        }
        match filled(&self.content.creds_store) {
            None => Ok(Found::Nothing),
            Some(name) => self.helper(name, registry),
        }
    }

    fn helper(&self, name: &str, registry: &str) -> Result<Found, Error> {
        if name.is_empty() || name.contains(['/', '\0']) {
            return Err(Error::BadHelperName { path: self.path.clone(), name: name.to_owned() });
        }
        let hub = DOCKER_HUB_HOSTS.contains(&registry);
        let server = if hub { DOCKER_HUB_KEY } else { registry };
        Ok(Found::Helper { name: name.to_owned(), server: server.to_owned() })
    }

    fn credential(&self, key: &str, entry: &Entry) -> Result<Credential, Error> {
        if let Some(token) = filled(&entry.registrytoken) {
            return Ok(Credential::RegistryToken(token.to_owned()));
        }
        if let Some(token) = filled(&entry.identitytoken) {
            return Ok(Credential::IdentityToken(token.to_owned()));
        }
        let Some(auth) = filled(&entry.auth) else {
            let text = |field| filled(field).unwrap_or_default().to_owned();
            return Ok(Credential::Basic { username: text(&entry.username), password: text(&entry.password) });
        };
        let bad = || Error::BadAuth { path: self.path.clone(), entry: key.to_owned() };
        let decoded = String::from_utf8(BASE64.decode(auth.trim()).map_err(|_| bad())?).map_err(|_| bad())?;
        let (username, password) = decoded.split_once(':').ok_or_else(bad)?;
        // docker's own writer pads the password with zeros
        let password = password.trim_end_matches('\0');
        Ok(Credential::Basic { username: username.to_owned(), password: password.to_owned() })
    }
}

impl Entry {
    /// `docker login` with a store leaves `{}` behind.
    fn is_empty(&self) -> bool {
        let fields = [&self.auth, &self.username, &self.password, &self.identitytoken, &self.registrytoken];
        fields.into_iter().all(|field| filled(field).is_none())
    }
}

fn filled(field: &Option<String>) -> Option<&str> {
    field.as_deref().filter(|text| !text.is_empty())
}

fn names_of(registry: &str) -> Vec<&str> {
    match DOCKER_HUB_HOSTS.contains(&registry) {
        true => DOCKER_HUB_HOSTS.to_vec(),
        false => vec![registry],
    }
}

/// A key without scheme and without what docker puts behind the host.
fn stripped(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    match key.split_once('/') {
        Some((host, "v1" | "v2")) => host,
        _ => key,
    }
}

fn host_of(key: &str) -> &str {
    let key = stripped(key);
    key.split_once('/').map_or(key, |(host, _)| host)
}

/// How many characters of the repository a key names, if it speaks for it: `host` none, `host/team` those of `team`.
fn match_length(key: &str, names: &[&str], repository: &str) -> Option<usize> {
    if !names.contains(&host_of(key)) {
        return None;
    }
    match stripped(key).split_once('/') {
        None => Some(0),
        Some((_, namespace)) => {
            let rest = repository.strip_prefix(namespace)?;
            (rest.is_empty() || rest.starts_with('/')).then_some(namespace.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str) -> ConfigFile {
        let content = serde_json::from_str(json).expect("a config file");
        ConfigFile { path: "config.json".into(), content }
    }

    fn basic(username: &str, password: &str) -> Found {
        Found::Credential(Credential::Basic { username: username.into(), password: password.into() })
    }

    #[test]
    fn the_entry_that_names_most_of_the_repository_wins() {
        let config = file(
            r#"{"auths": {
                "r.example": {"auth": "aG9zdDpw"},
                "r.example/team": {"auth": "dGVhbTpw"},
                "https://r.example/team/app": {"username": "app", "password": "p:q"},
                "https://index.docker.io/v1/": {"auth": "aHViOnA"},
                "localhost:5000": {"identitytoken": "id"},
                "token.example": {"registrytoken": "reg", "auth": "aG9zdDpw"},
                "empty.example": {}
            }}"#,
        );
        for (registry, repository, expected) in [
            ("r.example", "other/app", basic("host", "p")),
            ("r.example", "teams/app", basic("host", "p")),
            ("r.example", "team", basic("team", "p")),
            ("r.example", "team/tool", basic("team", "p")),
            ("r.example", "team/app/sub", basic("app", "p:q")),
            ("docker.io", "library/debian", basic("hub", "p")),
            ("registry-1.docker.io", "library/debian", basic("hub", "p")),
            ("localhost:5000", "x", Found::Credential(Credential::IdentityToken("id".into()))),
            ("localhost", "x", Found::Nothing),
            ("token.example", "x", Found::Credential(Credential::RegistryToken("reg".into()))),
            ("empty.example", "x", Found::Nothing),
            ("evil-r.example", "team/app", Found::Nothing),
        ] {
            assert_eq!(config.find(registry, repository).expect("found"), expected, "{registry}/{repository}");
        }
    }

    #[test]
    fn helpers_and_the_store() {
        let config = file(
            r#"{"credHelpers": {"r.example": "own", "bad.example": "../sh"}, "credsStore": "all",
                "auths": {"r.example": {"auth": "aG9zdDpw"}, "entry.example": {"auth": "aG9zdDpw"}}}"#,
        );
        let helper = |name: &str, server: &str| Found::Helper { name: name.into(), server: server.into() };
        assert_eq!(config.find("r.example", "x").expect("found"), helper("own", "r.example"));
        assert_eq!(config.find("entry.example", "x").expect("found"), basic("host", "p"));
        assert_eq!(config.find("any.example", "x").expect("found"), helper("all", "any.example"));
        assert_eq!(config.find("docker.io", "x").expect("found"), helper("all", DOCKER_HUB_KEY));
        assert!(matches!(config.find("bad.example", "x"), Err(Error::BadHelperName { .. })));
    }

    #[test]
    fn bad_entries_are_named_without_their_secret() {
        for auth in ["!!!", "bm9jb2xvbg==", "/w=="] {
            let config = file(&format!(r#"{{"auths": {{"r.example": {{"auth": "{auth}"}}}}}}"#));
            let error = config.find("r.example", "x").expect_err("an error").to_string();
            assert!(error.contains("r.example") && !error.contains(auth), "{error}");
        }
    }
}
