//! A proxy in front of a real registry, which does to chosen requests what networks and servers do to them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::http::{Reply, Request, read_head};

/// What is done to a request.
#[derive(Clone)]
pub enum Fault {
    /// The proxy answers itself, and the registry hears nothing.
    Answer(Reply),
    /// The same path at another host and port, by 307.
    SentTo(String),
    /// The request's body suffers.
    Request(Harm),
    /// The answer's body suffers.
    Response(Harm),
    /// The answer announces so many bytes more, or fewer, than there are.
    Announced(i64),
    /// The request goes nowhere until its client does.
    Held,
}

/// What is done to a body.
#[derive(Clone, Copy)]
pub enum Harm {
    /// The connection ends after so many bytes.
    CutAfter(u64),
    /// Nothing comes after so many bytes until the client goes.
    HeldAfter(u64),
    /// The byte at this place is another.
    Damaged(u64),
    /// It comes in so many pieces, each with a pause before it.
    Dripping(u64, Duration),
}

/// The proxy. Its threads end with the process; they hold nothing but the port.
pub struct Proxy {
    host: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Request>>,
    holds: AtomicBool,
}

impl Proxy {
    /// A proxy of `upstream` (host and port). `fault` says what is done to a request, of which it sees the head, and before
    /// which there were so many others.
    pub fn start(upstream: &str, fault: impl Fn(&Request, usize) -> Option<Fault> + Send + Sync + 'static) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let host = listener.local_addr().expect("its address").to_string();
        let shared = Arc::new(Shared::default());
        let (fault, own, upstream) = (Arc::new(fault), Arc::clone(&shared), upstream.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (fault, shared, upstream) = (Arc::clone(&fault), Arc::clone(&own), upstream.clone());
                // a side that hangs up has what it wanted
                thread::spawn(move || drop(serve(&client, &upstream, &*fault, &shared)));
            }
        });
        Proxy { host, shared }
    }

    /// A proxy that does the same to the first requests of a kind.
    pub fn failing(
        upstream: &str,
        times: usize,
        which: impl Fn(&Request) -> bool + Send + Sync + 'static,
        fault: Fault,
    ) -> Proxy {
        Proxy::start(upstream, first(times, which, fault))
    }

    /// `127.0.0.1:<port>`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The heads of all requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.shared.seen.lock().expect("not poisoned").clone()
    }

    /// Is there a request that is held?
    pub fn holds(&self) -> bool {
        self.shared.holds.load(Ordering::Acquire)
    }
}

/// The same fault for the first `times` requests of a kind.
pub fn first(
    times: usize,
    which: impl Fn(&Request) -> bool + Send + Sync + 'static,
    fault: Fault,
) -> impl Fn(&Request, usize) -> Option<Fault> + Send + Sync + 'static {
    let left = Mutex::new(times);
    move |request, _| {
        let mut left = left.lock().expect("not poisoned");
        let is_its_turn = *left > 0 && which(request);
        *left -= usize::from(is_its_turn);
        is_its_turn.then(|| fault.clone())
    }
}

/// Handles the one request of a connection.
fn serve(
    client: &TcpStream,
    upstream: &str,
    fault: &dyn Fn(&Request, usize) -> Option<Fault>,
    shared: &Shared,
) -> io::Result<()> {
    let mut reader = BufReader::new(client);
    let Some(request) = read_head(&mut reader) else { return Ok(()) };
    let before = {
        let mut seen = shared.seen.lock().expect("not poisoned");
        seen.push(request.clone());
        seen.len() - 1
    };
    let hold = |mut rest: &mut dyn Read| {
        shared.holds.store(true, Ordering::Release);
        io::copy(&mut rest, &mut io::sink()).map(drop)
    };
    let length = request.header("content-length").map_or(0, |length| length.parse().expect("a length"));
    let (mut for_request, mut for_response, mut announced) = (None, None, 0);
    match fault(&request, before) {
        None => {}
        Some(Fault::Held) => return hold(&mut reader),
        Some(Fault::Answer(reply)) => return answer(client, &mut reader, length, &reply),
        Some(Fault::SentTo(host)) => {
            let reply = Reply::new(307, "").header("Location", format!("http://{host}{}", request.path));
            return answer(client, &mut reader, length, &reply);
        }
        Some(Fault::Request(harm)) => for_request = Some(harm),
        Some(Fault::Response(harm)) => for_response = Some(harm),
        Some(Fault::Announced(difference)) => announced = difference,
    }

    let registry = TcpStream::connect(upstream)?;
    let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", request.method, request.path);
    for (name, value) in request.headers().filter(|(name, _)| *name != "connection") {
        head += &format!("{name}: {value}\r\n");
    }
    (&registry).write_all(format!("{head}\r\n").as_bytes())?;
    match pass(&mut (&mut reader).take(length), &mut &registry, length, for_request)? {
        Passed::Whole => {}
        Passed::Cut => return Ok(()),
        Passed::Held => return hold(&mut reader),
    }

    let mut response = BufReader::new(&registry);
    let (head, length) = response_head(&mut response, announced)?;
    (&mut &*client).write_all(head.as_bytes())?;
    if let Passed::Held = pass(&mut response, &mut &*client, length, for_response)? {
        return hold(&mut reader);
    }
    client.shutdown(Shutdown::Write)
}

/// Hears the request to its end first: an answer must not be lost because bytes were left unread.
fn answer(client: &TcpStream, reader: &mut impl Read, length: u64, reply: &Reply) -> io::Result<()> {
    io::copy(&mut reader.take(length), &mut io::sink())?;
    reply.send(&mut &*client)?;
    client.shutdown(Shutdown::Write)
}

/// The head of an answer as the client shall see it, and how long the body really is.
fn response_head(response: &mut impl BufRead, announced: i64) -> io::Result<(String, u64)> {
    let (mut head, mut length) = (String::new(), u64::MAX);
    loop {
        let mut line = String::new();
        response.read_line(&mut line)?;
        let name = line.split(':').next().unwrap_or_default().to_lowercase();
        if name == "content-length" {
            length = line.rsplit(':').next().unwrap_or_default().trim().parse().map_err(io::Error::other)?;
            line = format!("Content-Length: {}\r\n", length.saturating_add_signed(announced));
        }
        head += &line;
        if line.trim_end().is_empty() {
            return Ok((head, length));
        }
    }
}

enum Passed {
    Whole,
    Cut,
    Held,
}

/// Passes a body of `length` bytes, or of all there are, on as `harm` has it.
fn pass(from: &mut dyn Read, to: &mut dyn Write, length: u64, harm: Option<Harm>) -> io::Result<Passed> {
    let mut piece = |bytes: u64| io::copy(&mut (&mut *from).take(bytes), to);
    match harm {
        None => piece(length).map(|_| Passed::Whole),
        Some(Harm::CutAfter(bytes)) => piece(bytes).map(|_| Passed::Cut),
        Some(Harm::HeldAfter(bytes)) => piece(bytes).map(|_| Passed::Held),
        Some(Harm::Dripping(pieces, pause)) => {
            for _ in 0..=pieces {
                thread::sleep(pause);
                piece(length / pieces)?;
            }
            Ok(Passed::Whole)
        }
        Some(Harm::Damaged(at)) => {
            piece(at)?;
            let mut byte = [0];
            from.read_exact(&mut byte)?;
            to.write_all(&[byte[0] ^ 1])?;
            io::copy(&mut from.take(length - at - 1), to).map(|_| Passed::Whole)
        }
    }
}
