use super::*;

const SIZE: u16 = 16;

fn region() -> InflightRegion {
    let (file, len) = InflightRegion::make(2, SIZE).unwrap();
    InflightRegion::map(file, 0, len, 2, SIZE).unwrap()
}

/// The record as the next process finds it.
fn recover(region: &InflightRegion, used: u16) -> (Option<u16>, Vec<u16>) {
    let recovered = region.queue(1, SIZE).unwrap().recover(used).unwrap();
    (recovered.next_avail, recovered.resubmit.into())
}

/// A record in which the chains were taken in this order, after the used index had come to `used`.
fn taken(region: &InflightRegion, used: u16, heads: &[u16]) -> InflightQueue {
    let mut queue = region.queue(1, SIZE).unwrap();
    queue.recover(used).unwrap();
    heads.iter().for_each(|&head| queue.take(head).unwrap());
    queue
}

#[test]
fn the_layout_is_that_of_the_specification() {
    assert_eq!(queue_len(1), 64);
    assert_eq!(queue_len(3), 64);
    assert_eq!(queue_len(4), 128);
    assert_eq!(queue_len(128), 2112);
    let (file, len) = InflightRegion::make(3, 128).unwrap();
    assert_eq!((len, file.metadata().unwrap().len()), (3 * 2112 + 64, 3 * 2112 + 64));
    let region = InflightRegion::map(file, 0, len, 3, 128).unwrap();
    let mut queue = region.queue(2, 128).unwrap();
    queue.recover(0x1234).unwrap();
    queue.take(5).unwrap();
    queue.take(6).unwrap();
    let mut bytes = vec![0; 3 * 2112];
    region.mapped.region.as_volatile_slice().read_slice(&mut bytes, 0).unwrap();
    let queue = &bytes[2 * 2112..];
    assert_eq!(queue[8..16], [1, 0, 128, 0, 0, 0, 0x34, 0x12]);
    assert_eq!(queue[16 + 6 * 16..16 + 7 * 16], [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert!(bytes[..2 * 2112].iter().all(|&byte| byte == 0));
}

#[test]
fn a_word_of_the_device_is_behind_the_queues_where_there_is_room_for_it() {
    let (file, len) = InflightRegion::make(2, SIZE).unwrap();
    let map = |len| InflightRegion::map(file.try_clone().unwrap(), 0, len, 2, SIZE).unwrap();
    let kept = map(len).kept().unwrap();
    assert_eq!(kept.load(), 0);
    kept.store(0x1122_3344_5566_7788);
    assert_eq!(map(len).kept().unwrap().load(), 0x1122_3344_5566_7788);
    let region = map(len);
    assert_eq!(recover(&region, 7), (None, vec![]));
    assert!(map(2 * queue_len(SIZE) as u64).kept().is_none(), "another's region ends there");
}

#[test]
fn a_fresh_record_leaves_the_position_to_the_front_end() {
    let region = region();
    assert_eq!(recover(&region, 7), (None, vec![]));
    assert_eq!(recover(&region, 7), (Some(7), vec![]));
}

#[test]
fn a_fresh_record_that_is_not_empty_is_emptied() {
    let region = region();
    region.queue(1, SIZE).unwrap().take(3).unwrap();
    assert_eq!(recover(&region, 7), (None, vec![]));
    assert_eq!(recover(&region, 7), (Some(7), vec![]));
}

#[test]
fn what_was_taken_is_resubmitted_in_its_order() {
    let region = region();
    taken(&region, 100, &[9, 3, 12, 0]);
    assert_eq!(recover(&region, 100), (Some(104), vec![9, 3, 12, 0]));
    // Again, by a process that dies before it does anything; and one that takes more.
    assert_eq!(recover(&region, 100), (Some(104), vec![9, 3, 12, 0]));
    taken(&region, 100, &[1]);
    assert_eq!(recover(&region, 100), (Some(105), vec![9, 3, 12, 0, 1]));
}

#[test]
fn a_death_at_each_step_of_a_completion_is_recovered_exactly() {
    // Of 4, 5 and 6 the middle one completes. Each store is a step; the one in the middle is the
    // used ring's index.
    for steps in 0..=4 {
        let region = region();
        let mut queue = taken(&region, 10, &[4, 5, 6]);
        let used = 10 + u16::from(steps >= 2);
        if steps >= 1 {
            queue.before_used(5).unwrap();
        }
        if steps >= 3 {
            queue.store(entry(5, INFLIGHT_IN_ENTRY), 0u8).unwrap();
        }
        if steps >= 4 {
            queue.store(USED_IDX_AT, used).unwrap();
        }
        let expected = if steps >= 2 { vec![4, 6] } else { vec![4, 5, 6] };
        assert_eq!(recover(&region, used), (Some(13), expected), "after {steps} steps");
    }
}

#[test]
fn a_death_in_a_step_of_several_chains_is_recovered_exactly() {
    for published in [false, true] {
        let region = region();
        let mut queue = taken(&region, 65535, &[4, 5, 6, 7]);
        [5, 7, 4].iter().for_each(|&head| queue.before_used(head).unwrap());
        let (used, left) = if published { (2, vec![6]) } else { (65535, vec![4, 5, 6, 7]) };
        assert_eq!(recover(&region, used), (Some(3), left));
    }
}

#[test]
fn what_was_given_back_is_not_in_flight() {
    let region = region();
    let mut queue = taken(&region, 0, &[4, 5]);
    queue.give_back(5).unwrap();
    assert_eq!(recover(&region, 0), (Some(1), vec![4]));
}

#[test]
fn a_record_full_of_nonsense_ends_the_walk() {
    let region = region();
    let mut queue = taken(&region, 0, &[1]);
    queue.store(LAST_BATCH_HEAD_AT, 7u16).unwrap();
    queue.store(entry(7, NEXT_IN_ENTRY), 7u16).unwrap();
    assert_eq!(recover(&region, 5000), (Some(5001), vec![1]));
    queue.store(LAST_BATCH_HEAD_AT, 60000u16).unwrap();
    assert_eq!(recover(&region, 9), (Some(10), vec![1]));
    queue.store(VERSION_AT, 2u16).unwrap();
    let error = region.queue(1, SIZE).unwrap().recover(0).unwrap_err();
    assert!(matches!(error, InflightError::Version { version: 2 }));
    queue.counter = 0;
}

#[test]
fn a_region_of_the_wrong_shape_is_refused() {
    assert!(matches!(InflightRegion::make(0, 8), Err(InflightError::Shape { .. })));
    assert!(matches!(InflightRegion::make(1, 0), Err(InflightError::Shape { .. })));
    assert!(matches!(InflightRegion::make(1, 2048), Err(InflightError::Shape { .. })));
    let (file, len) = InflightRegion::make(2, 8).unwrap();
    let copy = || file.try_clone().unwrap();
    let small = InflightRegion::map(copy(), 0, len - 65, 2, 8);
    assert!(matches!(small, Err(InflightError::TooSmall { .. })));
    assert!(matches!(InflightRegion::map(copy(), 0, len * 2, 4, 8), Err(InflightError::Map(_))));
    assert!(matches!(InflightRegion::map(copy(), 1, len, 1, 8), Err(InflightError::Map(_))));
    let region = InflightRegion::map(copy(), 0, len, 2, 8).unwrap();
    assert!(matches!(region.queue(2, 8), Err(InflightError::NoQueue { .. })));
    assert!(matches!(region.queue(0, 16), Err(InflightError::NoQueue { .. })));
    file.set_len(0).unwrap_err();
}
