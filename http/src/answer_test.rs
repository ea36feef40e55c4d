//! Answers in pieces, wrong ones, and endless ones.

use proptest::prelude::*;

use super::*;
use crate::message::{self, Status};

#[test]
fn an_answer_is_taken_when_it_has_come_whole_and_not_before() {
    let whole = message::json(Status::Ok, &[1, 2], false);
    for length in 0..whole.len() {
        assert_eq!(take_answer(&mut whole[..length].to_vec()), Ok(None));
    }
    let mut two = [whole, message::done(false)].concat();
    let first = take_answer(&mut two).unwrap().unwrap();
    assert_eq!((first.code, first.body.as_slice()), (200, b"[1,2]\n".as_slice()));
    let second = take_answer(&mut two).unwrap().unwrap();
    assert!(second.is_yes() && second.body.is_empty() && two.is_empty());
}

#[test]
fn what_is_no_answer_or_too_long_is_refused() {
    let refused = |text: &str| take_answer(&mut text.as_bytes().to_vec()).unwrap_err();
    assert!(matches!(refused("EHLO there\r\n\r\n"), BadAnswer::NotHttp(_)));
    assert_eq!(refused("HTTP/1.1 200 OK\r\n\r\n"), BadAnswer::NoLength);
    assert_eq!(refused("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), BadAnswer::NoLength);
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
    assert_eq!(refused(long), BadAnswer::TooLong { length: 99_999_999_999 });
    let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(MAX_HEAD));
    assert_eq!(refused(&endless), BadAnswer::HeadTooLong);
}

proptest! {
    #[test]
    fn no_bytes_are_too_bad(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _any = take_answer(&mut bytes.clone());
        let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n".to_vec();
        answer.extend(bytes);
        let _any = take_answer(&mut answer);
    }

    #[test]
    fn a_request_is_understood_by_who_answers(path in "/[a-z]{0,20}", body in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = request("PATCH", &path, &body);
        let understood = message::take_request(&mut bytes).unwrap().unwrap();
        prop_assert_eq!((understood.method.as_str(), understood.path), ("PATCH", path));
        prop_assert_eq!(understood.body, body);
        prop_assert!(understood.keep_alive && bytes.is_empty());
    }
}
