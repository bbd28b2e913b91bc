//! [`Registry`]: a docker-registry on loopback, and the images in it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::Error;
use super::command::{end_of, run};

/// A start takes a tenth of a second on an idle machine.
const START_PATIENCE: Duration = Duration::from_secs(60);
const PROGRAM: &str = "docker-registry";

/// A registry that runs; it and all that it has are gone when it is dropped.
pub(super) struct Registry {
    /// `127.0.0.1:PORT`.
    pub(super) address: String,
    process: Child,
    folder: TempDir,
}

impl Registry {
    /// An empty registry with its files in a folder of its own in `work`.
    pub(super) fn start(work: &Path) -> Result<Registry, Error> {
        let folder = tempfile::tempdir_in(work).map_err(|source| Error::file("make a folder in", work, source))?;
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info, formatter: json}}\n\
             storage: {{filesystem: {{rootdirectory: {}/storage}}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n",
            folder.path().display()
        );
        fs::write(&config, text).map_err(|source| Error::file("write", &config, source))?;
        let path = folder.path().join("log");
        let log = File::create(&path).map_err(|source| Error::file("create", &path, source))?;
        let second = log.try_clone().map_err(|source| Error::file("share", &path, source))?;
        let mut command = Command::new(PROGRAM);
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(log).stderr(second);
        let process = command.spawn().map_err(|source| Error::Start { program: PROGRAM.to_owned(), source })?;
        let mut registry = Registry { address: String::new(), process, folder };
        registry.address = registry.wait_for_address(&path)?;
        Ok(registry)
    }

    /// What it listens on, once it says so.
    fn wait_for_address(&mut self, log: &Path) -> Result<String, Error> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let text = fs::read_to_string(log).map_err(|source| Error::file("read", log, source))?;
            if let Some(address) = address_in(&text) {
                return Ok(address);
            }
            let ended =
                self.process.try_wait().map_err(|source| Error::file("wait for", Path::new(PROGRAM), source))?;
            if ended.is_some() || Instant::now() > deadline {
                let ending = ended.map_or_else(|| "it does not listen".to_owned(), |status| status.to_string());
                return Err(Error::Command { command: PROGRAM.to_owned(), ending, output: end_of(&text) });
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Pushes the image of an OCI layout; layers travel compressed.
    pub(super) fn push(&self, layout: &Path, image: &str) -> Result<(), Error> {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--quiet", "--dest-tls-verify=false", "--dest-compress"]);
        run(skopeo.arg(format!("oci:{}", layout.display())).arg(format!("docker://{image}"))).map(drop)
    }

    /// Pulls an image into an OCI layout, which is in a folder of this registry's.
    pub(super) fn pull(&self, image: &str) -> Result<(TempDir, PathBuf), Error> {
        let folder = tempfile::tempdir_in(self.folder.path());
        let folder = folder.map_err(|source| Error::file("make a folder in", self.folder.path(), source))?;
        let layout = folder.path().join("layout");
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--quiet", "--src-tls-verify=false"]).arg(format!("docker://{image}"));
        run(skopeo.arg(format!("oci:{}", layout.display())))?;
        Ok((folder, layout))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // it may have ended by itself; then there is nothing to end
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The address in a log that says `listening on …`.
fn address_in(log: &str) -> Option<String> {
    let rest = log.split("listening on ").nth(1)?;
    let address: String = rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
    // a line that is not written to its end may lack digits
    (address.starts_with("127.0.0.1:") && rest.len() > address.len()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_the_address() {
        let log = "{\"level\":\"info\",\"msg\":\"listening on 127.0.0.1:41234\",\"time\":\"x\"}\n";
        assert_eq!(address_in(log).as_deref(), Some("127.0.0.1:41234"));
        let cut = log.find("1234\"").expect("it is there") + 3;
        assert_eq!(address_in(&log[..cut]), None);
        assert_eq!(address_in("starting\n"), None);
    }
}
