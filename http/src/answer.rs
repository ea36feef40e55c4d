//! What goes the other way than in [`crate::message`]: a request to bytes, an answer from bytes. Who
//! answers is believed as little as who asks.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

/// The most an answer's first line and headers may have.
const MAX_HEAD: usize = 16 << 10;
/// The most its body may have.
const MAX_BODY: usize = 1 << 20;
/// The most headers it may have.
const MAX_HEADERS: usize = 32;

/// An answer that has come whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Such as 200.
    pub code: u16,
    /// What follows the head.
    pub body: Vec<u8>,
}

impl Answer {
    /// Whether it is a yes.
    #[must_use]
    pub fn is_yes(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

/// No answer can come of what has come.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// It is something else.
    #[error("it does not speak HTTP")]
    NotHttp(#[source] httparse::Error),
    /// The head does not end.
    #[error("the head of its answer has more than {MAX_HEAD} bytes")]
    HeadTooLong,
    /// It does not say how long the body is.
    #[error("its answer does not say how long it is")]
    NoLength,
    /// The body is longer than anything that was asked for.
    #[error("its answer has {length} bytes, and at most {MAX_BODY} are taken")]
    TooLong {
        /// What it says of its length.
        length: u64,
    },
}

/// A request, to be answered on a connection that stays.
#[must_use]
pub fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: device\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Takes the first answer out of `bytes`; `None` when more of it is to come.
///
/// # Errors
/// [`BadAnswer`], when none can come of them.
pub fn take_answer(bytes: &mut Vec<u8>) -> Result<Option<Answer>, BadAnswer> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let start = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() <= MAX_HEAD => return Ok(None),
        Ok(_) => return Err(BadAnswer::HeadTooLong),
        Err(error) => return Err(BadAnswer::NotHttp(error)),
    };
    let length =
        head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length =
        length.and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse().ok());
    // RFC 9112 §6.3: a 204 has no body, whatever it says.
    let length = if head.code == Some(204) { Some(0) } else { length };
    let length: u64 = length.ok_or(BadAnswer::NoLength)?;
    let body = usize::try_from(length).ok().filter(|length| *length <= MAX_BODY);
    let end = start.saturating_add(body.ok_or(BadAnswer::TooLong { length })?);
    let Some(body) = bytes.get(start..end).map(<[u8]>::to_vec) else { return Ok(None) };
    let answer = Answer { code: head.code.unwrap_or_default(), body };
    bytes.drain(..end);
    Ok(Some(answer))
}

#[cfg(test)]
#[path = "answer_test.rs"]
mod tests;
