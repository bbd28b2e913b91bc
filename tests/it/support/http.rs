//! An HTTP server in this process that answers whatever a test wants, also what no proper server would.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

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
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// An answer; the connection is closed after it.
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

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
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
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let host = listener.local_addr().expect("its address").to_string();
        let seen = Arc::new(Mutex::new(Vec::<Request>::new()));
        let (answer, list) = (Arc::new(answer), seen.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, list) = (answer.clone(), list.clone());
                thread::spawn(move || {
                    let Some(request) = read_request(&stream) else { return };
                    let before = {
                        let mut list = list.lock().expect("not poisoned");
                        let same = |other: &&Request| other.method == request.method && other.path == request.path;
                        let before = list.iter().filter(same).count();
                        list.push(request.clone());
                        before
                    };
                    let mut stream = stream;
                    // a client that hangs up has what it wanted
                    let _ = answer(&request, before).send(&mut stream);
                    let _ = stream.shutdown(Shutdown::Write);
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

/// `None` for what is not HTTP, such as the first bytes of TLS.
fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
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
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().expect("a length"))];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body })
}
