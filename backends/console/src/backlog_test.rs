//! What is kept, and for how long.

use super::*;

fn all(backlog: &mut Backlog) -> Vec<u8> {
    let mut all = Vec::new();
    while !backlog.is_empty() {
        all.extend(backlog.front());
        let count = backlog.front().len();
        backlog.consume(count);
    }
    all
}

#[test]
fn bytes_come_out_in_order() {
    let mut backlog = Backlog::default();
    backlog.push(b"hello ");
    backlog.push(b"world");
    backlog.consume(3);
    assert_eq!(all(&mut backlog), b"lo world");
    assert_eq!(backlog.take_lost(), 0);
}

#[test]
fn the_newest_bytes_stay_when_it_is_full() {
    let mut backlog = Backlog::default();
    backlog.push(b"old");
    backlog.push(&vec![b'x'; LIMIT - 3]);
    backlog.push(b"new");
    let kept = all(&mut backlog);
    assert_eq!(kept.len(), LIMIT);
    assert!(kept.starts_with(b"xxx") && kept.ends_with(b"xnew"));
    assert_eq!((backlog.take_lost(), backlog.take_lost()), (3, 0));
}
