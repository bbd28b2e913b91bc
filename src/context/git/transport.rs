//! [`Line`]: git's questions over our own HTTP: its trust, its proxies, its patience, and its names after the root was replaced.

use std::cell::RefCell;
use std::io::{self, BufRead, Cursor, Read, Write};
use std::rc::Rc;

use gix::protocol::transport::client::blocking_io::http::{GetResponse, Http, PostBodyDataKind, PostResponse};

use crate::http::{self, Address, Answer, Question};

/// The way to a repository.
pub(super) struct Line<'a> {
    http: &'a http::Client,
    /// Where the repository is, as far as redirects have told.
    base: Address,
    skips_verify: bool,
    fault: Fault,
}

/// What went wrong on the way, for whoever asked: through git's hands comes a text.
#[derive(Clone, Default)]
pub(super) struct Fault(Rc<RefCell<Option<Happened>>>);

enum Happened {
    /// There was no answer, and it is useless to ask again.
    Final(http::Error),
    /// An answer broke off.
    Broken(http::Error),
}

impl Fault {
    /// Keeps the error; what it says goes git's way.
    fn tell(&self, error: http::Error, happened: fn(http::Error) -> Happened) -> io::Error {
        let told = io::Error::other(error.to_string());
        *self.0.borrow_mut() = Some(happened(error));
        told
    }

    /// The error of an answer that broke off.
    pub(super) fn take_broken(&self) -> Option<http::Error> {
        match self.0.take() {
            Some(Happened::Broken(error)) => Some(error),
            other => {
                *self.0.borrow_mut() = other;
                None
            }
        }
    }

    /// The error of a question that was not answered.
    pub(super) fn take_final(&self) -> Option<http::Error> {
        match self.0.take() {
            Some(Happened::Final(error)) => Some(error),
            other => {
                *self.0.borrow_mut() = other;
                None
            }
        }
    }
}

impl<'a> Line<'a> {
    pub(super) fn new(http: &'a http::Client, base: Address, skips_verify: bool, fault: Fault) -> Line<'a> {
        Line { http, base, skips_verify, fault }
    }

    /// A question to the part of the repository that `url` has behind `base_url`.
    fn question(
        &self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> (String, Question) {
        let tail = url.strip_prefix(base_url).unwrap_or(url).trim_start_matches('/');
        let (tail, query) = tail.split_once('?').map_or((tail, None), |(tail, query)| (tail, Some(query.to_owned())));
        let address = self.base.with_path(&format!("{}/{tail}", self.base.path().trim_end_matches('/')));
        let pair = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        let headers = headers.into_iter().filter_map(|line| pair(line.as_ref())).collect();
        (tail.to_owned(), Question { address, query, headers, body: None, skips_verify: self.skips_verify })
    }

    fn exchange(&self, question: Question) -> Rc<RefCell<Exchange<'a>>> {
        let fault = self.fault.clone();
        Rc::new(RefCell::new(Exchange { http: self.http, question, sent: Vec::new(), answer: None, fault }))
    }
}

/// A question that is asked once somebody wants to read the answer, since until then it is being written.
struct Exchange<'a> {
    http: &'a http::Client,
    question: Question,
    sent: Vec<u8>,
    answer: Option<Answer<'a>>,
    fault: Fault,
}

impl<'a> Exchange<'a> {
    fn answer(&mut self) -> io::Result<&mut Option<Answer<'a>>> {
        if self.answer.is_none() {
            if self.question.body.is_some() {
                self.question.body = Some(std::mem::take(&mut self.sent).into());
            }
            self.answer = Some(self.http.ask(&self.question).map_err(|error| self.fault.tell(error, Happened::Final))?);
        }
        Ok(&mut self.answer)
    }
}

/// What git writes.
pub(super) struct Written<'a>(Rc<RefCell<Exchange<'a>>>);

impl Write for Written<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().sent.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The one header that git looks at, as a line.
pub(super) struct Headers<'a> {
    exchange: Rc<RefCell<Exchange<'a>>>,
    lines: Option<Cursor<Vec<u8>>>,
}

impl Headers<'_> {
    fn lines(&mut self) -> io::Result<&mut Cursor<Vec<u8>>> {
        if self.lines.is_none() {
            let mut exchange = self.exchange.borrow_mut();
            let content_type = exchange.answer()?.as_ref().and_then(|answer| answer.header("content-type"));
            let line = format!("content-type: {}\n", content_type.unwrap_or_default());
            self.lines = Some(Cursor::new(line.into_bytes()));
        }
        Ok(self.lines.get_or_insert_default())
    }
}

impl Read for Headers<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.lines()?.read(into)
    }
}

impl BufRead for Headers<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.lines()?.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        if let Some(lines) = &mut self.lines {
            lines.consume(bytes);
        }
    }
}

/// The body of an answer. It is taken out of the exchange by its first reader, after the headers.
pub(super) struct Body<'a> {
    exchange: Rc<RefCell<Exchange<'a>>>,
    answer: Option<Answer<'a>>,
    fault: Fault,
}

impl<'a> Body<'a> {
    fn answer(&mut self) -> io::Result<Option<&mut Answer<'a>>> {
        if self.answer.is_none() {
            self.answer = self.exchange.borrow_mut().answer()?.take();
        }
        Ok(self.answer.as_mut())
    }
}

/// An answer that broke off is told of.
fn broken(fault: &Fault, error: io::Error) -> io::Error {
    match error.downcast::<http::Error>() {
        Ok(error) => fault.tell(error, Happened::Broken),
        Err(error) => error,
    }
}

impl Read for Body<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let fault = self.fault.clone();
        let Some(answer) = self.answer()? else { return Ok(0) };
        answer.read(into).map_err(|error| broken(&fault, error))
    }
}

impl BufRead for Body<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let fault = self.fault.clone();
        let Some(answer) = self.answer()? else { return Ok(&[]) };
        answer.fill_buf().map_err(|error| broken(&fault, error))
    }

    fn consume(&mut self, bytes: usize) {
        if let Some(answer) = &mut self.answer {
            answer.consume(bytes);
        }
    }
}

impl<'a> Http for Line<'a> {
    type Headers = Headers<'a>;
    type ResponseBody = Body<'a>;
    type PostBody = Written<'a>;

    /// Asked at once: a redirect tells where the repository is.
    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::Result<GetResponse<Headers<'a>, Body<'a>>> {
        let (tail, question) = self.question(url, base_url, headers);
        let exchange = self.exchange(question);
        let answered =
            exchange.borrow_mut().answer().map_err(gix::Error::from_error)?.as_ref().and_then(Answer::address);
        if let Some(answered) = answered
            && let Some(path) = answered.path().strip_suffix(tail.as_str())
        {
            self.base = answered.with_path(path.trim_end_matches('/')).with_login_of(&self.base);
        }
        let headers = Headers { exchange: Rc::clone(&exchange), lines: None };
        Ok(GetResponse { headers, body: Body { exchange, answer: None, fault: self.fault.clone() } })
    }

    fn post(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _body: PostBodyDataKind,
    ) -> gix::Result<PostResponse<Headers<'a>, Body<'a>, Written<'a>>> {
        let (_, mut question) = self.question(url, base_url, headers);
        question.body = Some(bytes::Bytes::new());
        let exchange = self.exchange(question);
        Ok(PostResponse {
            post_body: Written(Rc::clone(&exchange)),
            headers: Headers { exchange: Rc::clone(&exchange), lines: None },
            body: Body { exchange, answer: None, fault: self.fault.clone() },
        })
    }

    fn configure(&mut self, _config: &dyn std::any::Any) -> gix::Result {
        Ok(())
    }
}
