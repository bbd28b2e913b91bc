//! An HTTP server in this process that answers whatever a test wants, also what no proper server would.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request, as far as tests look at it.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// A header's value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// All headers, their names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// An answer; the connection is closed after it.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub ending: Ending,
}

/// How an answer ends.
#[derive(Clone, Copy, PartialEq)]
pub enum Ending {
    /// With all of the body.
    Whole,
    /// After so many bytes of the body, with the connection.
    CutAfter(usize),
    /// After so many bytes of the body, with the connection left open for a while.
    SilentAfter(usize, Duration),
    /// With the body's end, which nothing announced.
    Unannounced,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply { status, headers: Vec::new(), body: body.into(), ending: Ending::Whole }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn ending(self, ending: Ending) -> Reply {
        Reply { ending, ..self }
    }

    pub fn send(&self, stream: &mut impl Write) -> std::io::Result<()> {
        write!(stream, "HTTP/1.1 {} Test\r\nConnection: close\r\n", self.status)?;
        if self.ending != Ending::Unannounced {
            write!(stream, "Content-Length: {}\r\n", self.body.len())?;
        }
        for (name, value) in &self.headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        write!(stream, "\r\n")?;
        match self.ending {
            Ending::Whole | Ending::Unannounced => stream.write_all(&self.body),
            Ending::CutAfter(bytes) => stream.write_all(&self.body[..bytes]),
            Ending::SilentAfter(bytes, pause) => {
                stream.write_all(&self.body[..bytes])?;
                thread::sleep(pause);
                Ok(())
            }
        }
    }
}

/// The server. Its threads end with the process; they hold nothing but the port.
pub struct Server {
    host: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers every request with what `answer` makes of it and of the number of equal ones (method, path) before.
    pub fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Server {
        Server::start_with(None, answer)
    }

    /// The same over TLS, with a certificate and its key (PEM).
    pub fn start_tls(
        certificate: &Path,
        key: &Path,
        answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).expect("a file").collect();
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain.expect("a certificate"), key);
        Server::start_with(Some(Arc::new(config.expect("they fit"))), answer)
    }

    fn start_with(
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let host = listener.local_addr().expect("its address").to_string();
        let seen = Arc::new(Mutex::new(Vec::<Request>::new()));
        let (answer, list) = (Arc::new(answer), seen.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, list, tls) = (answer.clone(), list.clone(), tls.clone());
                thread::spawn(move || match tls {
                    None => {
                        serve(&mut &stream, &*answer, &list);
                        let _ = stream.shutdown(Shutdown::Write);
                    }
                    Some(tls) => {
                        let mut stream = StreamOwned::new(ServerConnection::new(tls).expect("a good config"), stream);
                        serve(&mut stream, &*answer, &list);
                        stream.conn.send_close_notify();
                        let _ = stream.flush();
                    }
                });
            }
        });
        Server { host, seen }
    }

    /// `127.0.0.1:<port>`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

/// Answers the one request that comes.
fn serve(stream: &mut (impl Read + Write), answer: &dyn Fn(&Request, usize) -> Reply, list: &Mutex<Vec<Request>>) {
    let Some(request) = read_request(stream) else { return };
    let before = {
        let mut list = list.lock().expect("not poisoned");
        let same = |other: &&Request| other.method == request.method && other.path == request.path;
        let before = list.iter().filter(same).count();
        list.push(request.clone());
        before
    };
    // a client that hangs up has what it wanted
    let _ = answer(&request, before).send(stream);
}

fn read_request(stream: &mut impl Read) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let request = read_head(&mut reader)?;
    let mut body = vec![0; request.header("content-length").map_or(0, |length| length.parse().expect("a length"))];
    reader.read_exact(&mut body).ok()?;
    Some(Request { body, ..request })
}

/// A request without its body. `None` for what is not HTTP, such as the first bytes of TLS.
pub fn read_head(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    words.next().filter(|version| version.starts_with("HTTP/1"))?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    Some(Request { method, path, headers, body: Vec::new() })
}
