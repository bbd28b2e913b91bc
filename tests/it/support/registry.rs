//! A real registry (Debian's `docker-registry`) on a free loopback port, gone when it is dropped.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::scratch;

/// A start takes a tenth of a second on an idle machine.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// A registry that runs.
pub struct Registry {
    host: String,
    directory: TempDir,
    process: Child,
}

/// What the registry is to be like; plain HTTP for everybody without anything.
#[derive(Default)]
pub struct Options<'a> {
    /// Certificate and key (PEM).
    pub tls: Option<(&'a Path, &'a Path)>,
    /// With `tls`: who must have signed the clients' certificates (PEM).
    pub client_authority: Option<&'a Path>,
    /// A file made by `htpasswd -B`.
    pub htpasswd: Option<&'a Path>,
    /// Realm and the certificate that tokens are signed with; service and issuer are both `test`.
    pub token: Option<(&'a str, &'a Path)>,
}

impl Registry {
    /// A registry for everybody, by plain HTTP.
    pub fn start() -> Registry {
        Registry::start_with(&Options::default())
    }

    /// A registry of a certain kind.
    pub fn start_with(options: &Options<'_>) -> Registry {
        let directory = scratch();
        // another process may take the port between our looking and the registry's listening
        for _ in 0..5 {
            let port = free_port();
            let config = directory.path().join("config.yml");
            fs::write(&config, config_text(directory.path(), port, options)).expect("written");
            let log = File::create(directory.path().join("log")).expect("created");
            // a test that is killed ends nothing: the registry goes with the thread that started it
            let mut process = Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
                .arg(&config)
                .env_remove("OTEL_TRACES_EXPORTER")
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a second handle"))
                .stderr(log)
                .spawn()
                .expect("docker-registry is installed");
            if wait_until_it_listens(&mut process, port) {
                return Registry { host: format!("127.0.0.1:{port}"), directory, process };
            }
        }
        panic!(
            "docker-registry does not start: {}",
            fs::read_to_string(directory.path().join("log")).unwrap_or_default()
        );
    }

    /// `127.0.0.1:<port>`, for references.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What the registry has said so far: a line for every request.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).expect("a log")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // it may have ended by itself; then there is nothing to end
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that nobody listens on at the moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

fn wait_until_it_listens(process: &mut Child, port: u16) -> bool {
    let deadline = Instant::now() + START_PATIENCE;
    while Instant::now() < deadline {
        if process.try_wait().expect("a child of ours").is_some() {
            return false;
        }
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _ = process.kill();
    let _ = process.wait();
    false
}

fn config_text(directory: &Path, port: u16, options: &Options<'_>) -> String {
    let storage = directory.join("storage");
    let mut text = format!(
        "version: 0.1\nlog:\n  level: info\n  accesslog:\n    disabled: false\nstorage:\n  filesystem:\n    \
         rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n",
        storage.display()
    );
    let mut line = |line: String| writeln!(text, "{line}").expect("a String takes all");
    if let Some((certificate, key)) = options.tls {
        line(format!("  tls:\n    certificate: {}\n    key: {}", certificate.display(), key.display()));
    }
    if let Some(authority) = options.client_authority {
        line(format!("    clientcas:\n      - {}", authority.display()));
    }
    if let Some(file) = options.htpasswd {
        line(format!("auth:\n  htpasswd:\n    realm: test\n    path: {}", file.display()));
    }
    if let Some((realm, certificate)) = options.token {
        let certificate = certificate.display();
        line(format!(
            "auth:\n  token:\n    realm: {realm}\n    service: test\n    issuer: test\n    rootcertbundle: {certificate}"
        ));
    }
    text
}
