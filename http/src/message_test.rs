//! Requests from bytes, and responses.

use super::*;

fn take(text: &str) -> Result<Option<Request>, Unserved> {
    take_request(&mut text.as_bytes().to_vec())
}

#[track_caller]
fn status_of(text: &str) -> Status {
    take(text).unwrap_err().status
}

#[test]
fn a_request_has_a_method_a_path_a_query_and_a_body() {
    let text =
        "PUT /api/v1/vm.events?since=3&follow HTTP/1.1\r\nHost: vm\r\nContent-Length: 2\r\n\r\n{}";
    let request = take(text).unwrap().unwrap();
    assert_eq!((request.method.as_str(), request.path.as_str()), ("PUT", "/api/v1/vm.events"));
    let pairs = [("since", "3"), ("follow", "true")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(request.query, pairs);
    assert_eq!(request.body, b"{}");
    assert!(request.keep_alive);
}

#[test]
fn a_request_is_taken_when_it_has_come_whole_and_not_before() {
    let text = "PUT /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    for end in 0..text.len() {
        assert_eq!(take(&text[..end]), Ok(None), "after {end} bytes");
    }
    assert_eq!(take(text).unwrap().unwrap().body, b"abc");
}

#[test]
fn requests_may_follow_each_other_on_one_connection() {
    let mut bytes = b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nConnection: Close\r\n\r\n".to_vec();
    let first = take_request(&mut bytes).unwrap().unwrap();
    assert_eq!((first.path.as_str(), first.keep_alive), ("/a", true));
    let second = take_request(&mut bytes).unwrap().unwrap();
    assert_eq!((second.path.as_str(), second.keep_alive), ("/b", false));
    assert_eq!(take_request(&mut bytes), Ok(None));
}

#[test]
fn an_absolute_target_is_its_path() {
    assert_eq!(take("GET http://vm/a?b=c HTTP/1.1\r\n\r\n").unwrap().unwrap().path, "/a");
    assert_eq!(take("GET http://vm HTTP/1.1\r\n\r\n").unwrap().unwrap().path, "/");
}

#[test]
fn http_1_0_gets_one_answer_a_connection() {
    assert!(!take("GET / HTTP/1.0\r\n\r\n").unwrap().unwrap().keep_alive);
}

#[test]
fn what_is_not_http_is_refused() {
    assert_eq!(status_of("{\"execute\": \"qmp_capabilities\"}\r\n\r\n"), Status::BadRequest);
    assert_eq!(status_of("\u{1}\u{2}\r\n\r\n"), Status::BadRequest);
}

#[test]
fn a_head_without_an_end_is_refused_at_16_kib() {
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD));
    assert_eq!(status_of(&endless), Status::HeadTooLarge);
    let ended = format!("{endless}\r\n\r\n");
    assert_eq!(status_of(&ended), Status::HeadTooLarge);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS + 1));
    assert_eq!(status_of(&many), Status::HeadTooLarge);
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_comes() {
    let text = |length| format!("PUT / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
    assert_eq!(take(&text(MAX_BODY)), Ok(None));
    assert_eq!(status_of(&text(MAX_BODY + 1)), Status::TooLarge);
    assert_eq!(status_of(&text(usize::MAX)), Status::TooLarge);
}

#[test]
fn a_body_without_one_clear_length_is_refused() {
    let text = |headers| format!("PUT / HTTP/1.1\r\n{headers}\r\n\r\n");
    assert_eq!(status_of(&text("Content-Length: -1")), Status::BadRequest);
    assert_eq!(status_of(&text("Content-Length: 99999999999999999999999")), Status::BadRequest);
    let two = "Content-Length: 1\r\nContent-Length: 2";
    assert_eq!(status_of(&text(two)), Status::BadRequest);
    assert_eq!(status_of(&text("Transfer-Encoding: chunked")), Status::NotImplemented);
}

#[test]
fn a_refusal_is_json_with_its_length() {
    let refusal = refuse(&Unserved::new(Status::NotFound, "no \"x\""), true);
    assert_eq!(
        String::from_utf8(refusal).unwrap(),
        "HTTP/1.1 404 Not Found\r\nServer: atoll\r\nContent-Type: application/json\r\n\
         Content-Length: 21\r\nConnection: close\r\n\r\n{\"error\":\"no \\\"x\\\"\"}\n"
    );
}

#[test]
fn done_has_no_body() {
    let response = String::from_utf8(done(false)).unwrap();
    assert_eq!(response, "HTTP/1.1 204 No Content\r\nServer: atoll\r\n\r\n");
}

proptest::proptest! {
    #[test]
    fn whatever_comes_is_a_request_a_refusal_or_the_start_of_one(bytes: Vec<u8>) {
        let mut rest = bytes.clone();
        if let Ok(Some(_)) = take_request(&mut rest) {
            proptest::prop_assert!(rest.len() < bytes.len());
        }
    }
}
