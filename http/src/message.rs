//! HTTP/1.1 as far as a control socket needs it: a request from bytes, bytes from a response.
//!
//! Pure: reads and writes nothing. A client is believed nothing; what it sends is bounded.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use serde::Serialize;

/// The most a request's first line and headers may have.
const MAX_HEAD: usize = 16 << 10;
/// The most its body may have.
const MAX_BODY: usize = 64 << 10;
/// The most headers it may have.
const MAX_HEADERS: usize = 64;
/// The most bytes of a request that are worth reading.
pub const MAX_REQUEST: usize = MAX_HEAD + MAX_BODY;

/// The content type of Prometheus' text format.
pub const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The response codes that are used (RFC 9110 §15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is done; here is what was asked for.
    Ok,
    /// It is done.
    NoContent,
    /// The request is wrong.
    BadRequest,
    /// There is no such thing.
    NotFound,
    /// The thing takes another method.
    MethodNotAllowed,
    /// The request took too long to arrive.
    Timeout,
    /// It can't be done now.
    Conflict,
    /// The body is too long.
    TooLarge,
    /// The head is too long.
    HeadTooLarge,
    /// The transfer coding is not understood.
    NotImplemented,
    /// There are too many others.
    Busy,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::NoContent => "204 No Content",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::Timeout => "408 Request Timeout",
            Self::Conflict => "409 Conflict",
            Self::TooLarge => "413 Content Too Large",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::NotImplemented => "501 Not Implemented",
            Self::Busy => "503 Service Unavailable",
        }
    }
}

/// A request that has come whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// Such as `GET`.
    pub method: String,
    /// What it is about, without what is behind the question mark.
    pub path: String,
    /// What is behind the question mark, as `key=value` pairs.
    pub query: Vec<(String, String)>,
    /// What follows the head.
    pub body: Vec<u8>,
    /// Whether the client wants to ask more on this connection.
    pub keep_alive: bool,
}

/// A request that can't be served, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Unserved {
    /// The kind of no.
    pub status: Status,
    /// One sentence.
    pub why: String,
}

impl Unserved {
    /// A no, and why.
    pub fn new(status: Status, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

/// Takes the first request out of `bytes`; `None` when more of it is to come.
///
/// # Errors
/// [`Unserved`], when no request can come of them.
pub fn take_request(bytes: &mut Vec<u8>) -> Result<Option<Request>, Unserved> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() <= MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            let why = format!("the head has more than {MAX_HEAD} bytes or {MAX_HEADERS} fields");
            return Err(Unserved::new(Status::HeadTooLarge, why));
        }
        Err(error) => {
            let why = format!("this is not an HTTP request: {error}");
            return Err(Unserved::new(Status::BadRequest, why));
        }
    };
    let body = length..length.saturating_add(body_length(head.headers)?);
    let Some(body) = bytes.get(body.clone()).map(|found| (found.to_vec(), body.end)) else {
        return Ok(None);
    };
    let target = head.path.unwrap_or_default();
    // An absolute form names the host, of which there is one.
    let target = target
        .strip_prefix("http://")
        .map_or(target, |rest| rest.find('/').and_then(|start| rest.get(start..)).unwrap_or("/"));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: pairs(query),
        body: body.0,
        keep_alive: keeps_alive(head.version, head.headers),
    };
    bytes.drain(..body.1);
    Ok(Some(request))
}

/// RFC 9112 §6.3, without transfer codings.
fn body_length(headers: &[httparse::Header<'_>]) -> Result<usize, Unserved> {
    if header(headers, "transfer-encoding").next().is_some() {
        let why = "a body needs a Content-Length here; transfer codings are not understood";
        return Err(Unserved::new(Status::NotImplemented, why));
    }
    let mut lengths = header(headers, "content-length");
    let Some(length) = lengths.next() else { return Ok(0) };
    if lengths.any(|other| other != length) {
        return Err(Unserved::new(Status::BadRequest, "two lengths are given for the body"));
    }
    match length.parse::<usize>() {
        Ok(length) if length <= MAX_BODY => Ok(length),
        Ok(length) => {
            let why = format!("the body has {length} bytes, and at most {MAX_BODY} are taken");
            Err(Unserved::new(Status::TooLarge, why))
        }
        Err(_not_a_number) => {
            let why = format!("`{length}` is not the length of a body");
            Err(Unserved::new(Status::BadRequest, why))
        }
    }
}

/// RFC 9112 §9.3.
fn keeps_alive(version: Option<u8>, headers: &[httparse::Header<'_>]) -> bool {
    let mut options = header(headers, "connection").flat_map(|value| value.split(','));
    version == Some(1) && !options.any(|option| option.trim().eq_ignore_ascii_case("close"))
}

fn header<'a>(
    headers: &'a [httparse::Header<'_>],
    name: &'a str,
) -> impl Iterator<Item = &'a str> + 'a {
    let named = headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    // What is no text is none of the values that are looked for.
    named.map(|header| std::str::from_utf8(header.value).unwrap_or("\u{fffd}").trim())
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let words = query.split('&').filter(|word| !word.is_empty());
    words
        .map(|word| word.split_once('=').unwrap_or((word, "true")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The head of a response whose body, if any, has `length` bytes; without a length it ends with the
/// connection.
#[must_use]
pub fn head(status: Status, content: &str, length: Option<usize>, close: bool) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {}\r\nServer: atoll\r\n", status.line());
    if status != Status::NoContent {
        head.push_str(&format!("Content-Type: {content}\r\n"));
        if let Some(length) = length {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
    }
    if close || length.is_none() {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// A response with `body` as JSON.
#[must_use]
pub fn json(status: Status, body: &impl Serialize, close: bool) -> Vec<u8> {
    // Plain data with text keys, which JSON has words for.
    let mut body = serde_json::to_vec(body).unwrap_or_default();
    body.push(b'\n');
    let mut response = head(status, "application/json", Some(body.len()), close);
    response.append(&mut body);
    response
}

/// A response with `body` as text of the type `content`.
#[must_use]
pub fn text(content: &str, body: &str, close: bool) -> Vec<u8> {
    let mut response = head(Status::Ok, content, Some(body.len()), close);
    response.extend_from_slice(body.as_bytes());
    response
}

/// A response that says that it is done.
#[must_use]
pub fn done(close: bool) -> Vec<u8> {
    head(Status::NoContent, "", Some(0), close)
}

/// A response that says why not.
#[must_use]
pub fn refuse(unserved: &Unserved, close: bool) -> Vec<u8> {
    json(unserved.status, &serde_json::json!({ "error": unserved.why }), close)
}

#[cfg(test)]
#[path = "message_test.rs"]
mod tests;
