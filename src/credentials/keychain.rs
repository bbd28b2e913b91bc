//! [`Keychain`]: all configuration files together, and the helpers that they name.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::config::{ConfigFile, Found};
use super::helper::{self, Helper};
use super::{Credential, Error};
use crate::sys::Stop;

/// How long a helper may take. Those of the clouds ask servers of their own, and some of them several, each for seconds.
const HELPER_PATIENCE: Duration = Duration::from_secs(60);

/// Answers for every registry who we are.
pub struct Keychain {
    config_files: Vec<PathBuf>,
    helper_path: OsString,
    helper_patience: Duration,
    loaded: OnceLock<Vec<ConfigFile>>,
    /// What a helper said last. It is asked anew each time, since its tokens expire, but the image under
    /// construction may meanwhile stand where the helper stood.
    helper_answers: Mutex<HashMap<(String, String), Credential>>,
}

impl Keychain {
    /// A keychain of these `config.json` files, the first that knows a registry deciding. Files that do not exist
    /// are no error; they are read when first needed.
    pub fn new(config_files: Vec<PathBuf>) -> Keychain {
        Keychain {
            config_files,
            helper_path: OsString::new(),
            helper_patience: HELPER_PATIENCE,
            loaded: OnceLock::new(),
            helper_answers: Mutex::default(),
        }
    }

    /// The directories, in the form of `PATH`, where `docker-credential-*` programs are.
    pub fn with_helper_path(self, helper_path: impl Into<OsString>) -> Keychain {
        Keychain { helper_path: helper_path.into(), ..self }
    }

    /// How long a helper may take to answer, other than a minute.
    pub fn with_helper_patience(self, helper_patience: Duration) -> Keychain {
        Keychain { helper_patience, ..self }
    }

    /// Reads the files now, while they are where they were said to be.
    pub fn load(&self) -> Result<(), Error> {
        self.files().map(drop)
    }

    /// Who we are for a repository.
    pub fn for_registry(&self, registry: &str, repository: &str) -> Result<Credential, Error> {
        self.for_registry_until(&Stop::new(), registry, repository)
    }

    /// The same, but no helper is waited for once `stop` is asked.
    pub fn for_registry_until(&self, stop: &Stop, registry: &str, repository: &str) -> Result<Credential, Error> {
        for file in self.files()? {
            match file.find(registry, repository)? {
                Found::Nothing => {}
                Found::Credential(credential) => return Ok(credential),
                Found::Helper { name, server } => match self.ask(&name, &server, stop)? {
                    Credential::Anonymous => {}
                    credential => return Ok(credential),
                },
            }
        }
        Ok(Credential::Anonymous)
    }

    fn files(&self) -> Result<&[ConfigFile], Error> {
        if let Some(files) = self.loaded.get() {
            return Ok(files);
        }
        let read = self.config_files.iter().filter_map(|path| ConfigFile::read(path).transpose());
        let files = read.collect::<Result<Vec<_>, _>>()?;
        Ok(self.loaded.get_or_init(|| files))
    }

    fn ask(&self, name: &str, server: &str, stop: &Stop) -> Result<Credential, Error> {
        let program = format!("docker-credential-{name}");
        let key = (program.clone(), server.to_owned());
        let answer = match helper::find(&program, &self.helper_path) {
            None => Err(Error::NoHelper { program, server: server.to_owned() }),
            Some(path) => Helper { path, program }.ask(server, self.helper_patience, stop),
        };
        let mut answers = self.helper_answers.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(credential) => {
                answers.insert(key, credential.clone());
                Ok(credential)
            }
            Err(error @ (Error::NoHelper { .. } | Error::RunHelper { .. })) => answers.get(&key).cloned().ok_or(error),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn helper(directory: &Path, name: &str, script: &str) {
        let path = directory.join(format!("docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made executable");
    }

    #[test]
    fn helpers_answer_and_are_remembered() {
        let place = tempfile::tempdir().expect("a directory");
        let config = place.path().join("config.json");
        fs::write(
            &config,
            r#"{"credHelpers": {"echo.example": "echo", "token.example": "token", "none.example": "none",
                "broken.example": "broken", "odd.example": "odd", "gone.example": "gone"}}"#,
        )
        .expect("written");
        helper(place.path(), "echo", r#"read server; printf '{"Username":"me","Secret":"%s %s"}' "$1" "$server""#);
        helper(place.path(), "token", r#"echo '{"Username":"<token>","Secret":"id"}'"#);
        helper(place.path(), "none", "echo credentials not found in native keychain; exit 1");
        helper(place.path(), "broken", "echo no permission; exit 3");
        helper(place.path(), "odd", "echo SECRET");
        let keychain = Keychain::new(vec![place.path().join("absent.json"), config]).with_helper_path(place.path());

        let me = Credential::Basic { username: "me".into(), password: "get echo.example".into() };
        assert_eq!(keychain.for_registry("echo.example", "x").expect("known"), me);
        let token = keychain.for_registry("token.example", "x").expect("known");
        assert_eq!(token, Credential::IdentityToken("id".into()));
        assert_eq!(keychain.for_registry("none.example", "x").expect("known"), Credential::Anonymous);
        let error = keychain.for_registry("broken.example", "x").expect_err("an error");
        assert!(error.to_string().ends_with("docker-credential-broken for broken.example: no permission"), "{error}");
        let error = keychain.for_registry("odd.example", "x").expect_err("an error");
        assert!(!format!("{error:?}").contains("SECRET"), "{error:?}");
        assert!(matches!(keychain.for_registry("gone.example", "x"), Err(Error::NoHelper { .. })));

        fs::remove_file(place.path().join("docker-credential-echo")).expect("removed");
        assert_eq!(keychain.for_registry("echo.example", "x").expect("remembered"), me);
    }

    #[test]
    fn the_first_file_that_knows_decides() {
        let place = tempfile::tempdir().expect("a directory");
        let [first, second, bad] = ["first", "second", "bad"].map(|name| place.path().join(name));
        fs::write(&first, r#"{"auths": {"a.example": {"username": "first", "password": "p"}}}"#).expect("written");
        fs::write(&second, r#"{"auths": {"a.example": {"username": "second"}, "b.example": {"username": "second"}}}"#)
            .expect("written");
        fs::write(&bad, "{").expect("written");
        let keychain = Keychain::new(vec![first, second]);
        let name = |registry| match keychain.for_registry(registry, "x").expect("known") {
            Credential::Basic { username, .. } => username,
            other => panic!("{other:?}"),
        };
        assert_eq!((name("a.example").as_str(), name("b.example").as_str()), ("first", "second"));

        let error = Keychain::new(vec![bad]).load().expect_err("an error").to_string();
        assert!(error.contains("bad"), "{error}");
    }

    #[test]
    fn secrets_are_not_printed() {
        for credential in [
            Credential::Basic { username: "SECRET".into(), password: "SECRET".into() },
            Credential::IdentityToken("SECRET".into()),
            Credential::RegistryToken("SECRET".into()),
        ] {
            assert!(!format!("{credential:?}").contains("SECRET"));
        }
    }
}
