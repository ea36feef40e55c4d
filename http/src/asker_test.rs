//! Somebody who answers late, wrongly, or no more.

use super::*;
use crate::answer::request;
use crate::message::{self, Status};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(10);

fn pair() -> (Asker, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Asker::new(ours).unwrap(), theirs)
}

fn answer(mut theirs: &UnixStream, number: u32) {
    theirs.write_all(&message::json(Status::Ok, &number, false)).unwrap();
}

#[test]
fn an_answer_that_is_late_is_not_taken_for_the_answer_to_the_next_question() {
    let (mut asker, theirs) = pair();
    for _ in 0..3 {
        assert!(matches!(asker.ask(&request("GET", "/", b""), SHORT), Err(AskError::Late { .. })));
    }
    for number in 0..4 {
        answer(&theirs, number);
    }
    assert_eq!(asker.ask(&request("GET", "/", b""), LONG).unwrap().body, b"3\n");
    answer(&theirs, 4);
    assert_eq!(asker.ask(&request("GET", "/", b""), LONG).unwrap().body, b"4\n");
}

#[test]
fn who_never_answers_is_not_asked_for_ever() {
    let (mut asker, mut theirs) = pair();
    for _ in 0..100 {
        let late = asker.ask(&request("GET", "/", b""), Duration::from_millis(1));
        assert!(matches!(late, Err(AskError::Late { .. })));
    }
    drop(asker);
    let mut asked = String::new();
    theirs.read_to_string(&mut asked).unwrap();
    assert_eq!(asked.matches("GET").count(), MAX_OWED as usize);
}

#[test]
fn who_leaves_or_talks_nonsense_is_asked_no_more() {
    let (mut asker, theirs) = pair();
    drop(theirs);
    assert!(matches!(asker.ask(&request("GET", "/", b""), LONG), Err(AskError::Left)));
    let (mut asker, mut theirs) = pair();
    theirs.write_all(b"nonsense\r\n\r\n").unwrap();
    assert!(matches!(asker.ask(&request("GET", "/", b""), LONG), Err(AskError::Bad(_))));
    assert!(matches!(asker.ask(&request("GET", "/", b""), LONG), Err(AskError::Left)));
}
