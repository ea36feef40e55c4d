//! What is kept, and for how long.

use super::*;

fn add(history: &mut History, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let room = history.room(bytes.len());
        let count = room.len();
        room.copy_from_slice(&bytes[..count]);
        history.add(count);
        bytes = &bytes[count..];
    }
}

fn all_from(history: &History, mut position: u64) -> Vec<u8> {
    let mut all = Vec::new();
    while position < history.end() {
        let bytes = history.from(position);
        all.extend_from_slice(bytes);
        position += bytes.len() as u64;
    }
    all
}

#[test]
fn bytes_are_found_by_their_position() {
    let mut history = History::new();
    add(&mut history, b"hello ");
    add(&mut history, b"world");
    assert_eq!((history.oldest(), history.end()), (0, 11));
    assert_eq!(all_from(&history, 3), b"lo world");
    assert_eq!(all_from(&history, 11), b"");
}

#[test]
fn the_newest_bytes_stay_when_it_is_full() {
    let mut history = History::new();
    add(&mut history, b"old");
    add(&mut history, &vec![b'x'; CAPACITY - 3]);
    assert_eq!(history.room_before(0), 0);
    assert_eq!(history.room_before(3), 3);
    add(&mut history, b"new");
    assert_eq!(history.oldest(), 3);
    let kept = all_from(&history, history.oldest());
    assert_eq!(kept.len(), CAPACITY);
    assert!(kept.starts_with(b"xxx") && kept.ends_with(b"xnew"));
}
