use std::os::fd::AsFd;

use nix::sys::eventfd::{EfdFlags, EventFd};
use vm_memory::Bytes;

use super::*;
use crate::inflight::InflightRegion;
use crate::test_ring::{AVAIL, MEMORY, NEXT, SIZE, TABLE, TestRing, USED, WRITE};

/// A ring whose descriptors are chains of one writable byte each, of which `count` are available.
fn ring_with(count: u16) -> TestRing {
    let mut ring = TestRing::new();
    for index in 0..SIZE {
        ring.descriptor(TABLE, index, (0x4000 + u64::from(index), 1, WRITE, 0));
    }
    (0..count).for_each(|n| ring.make_available(n % SIZE));
    ring
}

fn heads(vring: &mut Vring) -> Vec<u16> {
    let mut heads = Vec::new();
    while let Some(chain) = vring.next().unwrap() {
        heads.push(chain.head());
        vring.complete(chain, 1).unwrap();
    }
    heads
}

#[test]
fn chains_come_in_the_order_in_which_they_were_made_available() {
    let ring = ring_with(5);
    let mut vring = ring.vring();
    assert_eq!(heads(&mut vring), [0, 1, 2, 3, 4]);
    assert_eq!(ring.used(), [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)]);
    assert_eq!((vring.in_flight(), vring.next_avail(), vring.index()), (0, 5, 3));
}

#[test]
fn chains_complete_in_any_order() {
    let ring = ring_with(3);
    let mut vring = ring.vring();
    let chains: Vec<_> = (0..3).map(|_| vring.next().unwrap().unwrap()).collect();
    assert_eq!(vring.in_flight(), 3);
    for chain in chains.into_iter().rev() {
        vring.complete(chain, 0).unwrap();
    }
    assert_eq!(ring.used(), [(2, 0), (1, 0), (0, 0)]);
}

#[test]
fn indices_wrap_around() {
    let mut ring = ring_with(0);
    ring.set_avail(u16::MAX - 1);
    ring.store(USED + 2, u16::MAX - 1);
    let setup = RingSetup { next_avail: u16::MAX - 1, ..ring.setup() };
    let mut vring = Vring::new(setup, &ring.memory).unwrap();
    assert!(vring.next().unwrap().is_none());
    for position in [u16::MAX - 1, u16::MAX, 0, 1] {
        ring.store(AVAIL + 4 + 2 * u64::from(position % SIZE), 5);
        ring.set_avail(position.wrapping_add(1));
        assert_eq!(heads(&mut vring), [5]);
    }
    assert_eq!(ring.load(USED + 2), 2);
    assert_eq!(vring.next_avail(), 2);
    ring.make_available(0);
}

#[test]
fn more_is_never_claimed_than_there_is_room() {
    let ring = ring_with(1);
    let mut vring = ring.vring();
    let chain = vring.next().unwrap().unwrap();
    vring.complete(chain, 1000).unwrap();
    assert_eq!(ring.used(), [(0, 1)]);
}

#[test]
fn chains_share_the_time_of_taking_until_one_completes_or_a_round_begins() {
    let ring = ring_with(6);
    let mut vring = ring.vring();
    vring.count_in(Some(Arc::new(Metrics::new(4))));
    let later = |time: Moment| while Moment::now() <= time {};
    let mut take = || vring.next().unwrap().unwrap();
    let (first, second) = (take(), take());
    let taken = first.taken().unwrap();
    later(taken);
    let third = take();
    assert_eq!([second.taken(), third.taken()], [Some(taken); 2]);
    vring.complete(second, 0).unwrap();
    let fourth = vring.next().unwrap().unwrap();
    let since_completion = fourth.taken().unwrap();
    assert!(since_completion > taken);
    later(since_completion);
    vring.begin_round().unwrap();
    let fifth = vring.next().unwrap().unwrap();
    assert!(fifth.taken().unwrap() > since_completion);
}

#[test]
fn each_chain_that_completes_is_counted_once_with_its_time() {
    let ring = ring_with(5);
    let mut vring = ring.vring();
    let metrics = Arc::new(Metrics::new(4));
    vring.count_in(Some(Arc::clone(&metrics)));
    let taken: Vec<_> = (0..3).map(|_| (vring.next().unwrap().unwrap(), 1)).collect();
    vring.complete_together(taken).unwrap();
    assert_eq!(heads(&mut vring).len(), 2);
    let text = metrics.text("net", &[]);
    for name in ["requests_total", "written_bytes_total", "request_seconds_count"] {
        let line = format!("atoll_{name}{{device=\"net\",queue=\"3\"}} 5");
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

#[test]
fn a_round_has_carried_the_chains_that_it_completed_and_their_bytes_both_ways() {
    let mut ring = ring_with(1);
    ring.descriptor(TABLE, 1, (0x4000, 100, NEXT, 2));
    ring.descriptor(TABLE, 2, (0x5000, 30, WRITE, 0));
    ring.make_available(1);
    let mut vring = ring.vring();
    for (chains, bytes) in [(2, 1 + 101), (0, 0)] {
        vring.begin_round().unwrap();
        heads(&mut vring);
        assert_eq!(vring.carried_in_round(), Carried { chains, bytes });
    }
}

#[test]
fn a_chain_in_the_room_of_another_has_nothing_of_it() {
    let mut ring = ring_with(0);
    ring.descriptor(TABLE, 0, (0x5000, 3, NEXT, 1));
    ring.descriptor(TABLE, 1, (0x6000, 4, NEXT | WRITE, 2));
    ring.descriptor(TABLE, 2, (MEMORY, 5, WRITE, 0));
    ring.make_available(0);
    ring.make_available(3);
    let mut vring = ring.vring();
    let broken = vring.next().unwrap().unwrap();
    assert!(broken.buffers().is_err());
    vring.complete(broken, 0).unwrap();
    let chain = vring.next().unwrap().unwrap();
    let (reader, mut writer) = chain.buffers().unwrap();
    assert_eq!((reader.len(), writer.len(), chain.writable_bytes()), (0, 1, 1));
    assert_eq!(writer.copy_from(b"x"), 1);
    assert_eq!(ring.memory.read_obj::<u8>(GuestAddress(0x4003)).unwrap(), b'x');
    vring.complete(chain, 1).unwrap();
}

#[test]
fn the_newest_chain_can_be_given_back_and_no_other() {
    let ring = ring_with(3);
    let mut vring = ring.vring();
    let first = vring.next().unwrap().unwrap();
    let second = vring.next().unwrap().unwrap();
    vring.give_back(second).unwrap();
    assert_eq!(vring.next().unwrap().unwrap().head(), 1);
    let error = vring.give_back(first).unwrap_err();
    assert!(matches!(error, VringError::NotNewest { head: 0 }));
}

#[test]
fn a_chain_that_was_overtaken_can_only_be_completed() {
    let ring = ring_with(3);
    let mut vring = ring.vring();
    let [first, second, third] = std::array::from_fn(|_| vring.next().unwrap().unwrap());
    vring.complete(second, 0).unwrap();
    assert!(vring.takes_back(&third) && !vring.takes_back(&first));
    vring.give_back(third).unwrap();
    // The second must not be taken again.
    assert!(!vring.takes_back(&first));
    vring.complete(first, 0).unwrap();
    assert_eq!((vring.in_flight(), vring.next_avail()), (0, 2));
    assert_eq!(heads(&mut vring), [2]);
}

#[test]
fn who_gave_back_waits_for_more_than_that() {
    let mut ring = ring_with(2);
    let mut vring = ring.vring();
    vring.begin_round().unwrap();
    let first = vring.next().unwrap().unwrap();
    let second = vring.next().unwrap().unwrap();
    assert!(vring.next().unwrap().is_none());
    vring.give_back(second).unwrap();
    vring.give_back(first).unwrap();
    assert!(!vring.want_kicks(0).unwrap(), "two chains are not enough; sleep");
    ring.make_available(2);
    assert!(vring.want_kicks(0).unwrap(), "a third came; look again");
    assert_eq!(heads(&mut vring), [0, 1, 2]);
}

#[test]
fn kicks_are_asked_for_and_silenced_by_flag_and_by_event() {
    let ring = ring_with(0);
    let mut vring = ring.vring();
    vring.begin_round().unwrap();
    assert_eq!(ring.load(USED), 1);
    assert!(vring.next().unwrap().is_none());
    assert!(!vring.want_kicks(0).unwrap());
    assert_eq!(ring.load(USED), 0);

    let ring = ring_with(3);
    let setup = RingSetup { event_idx: true, ..ring.setup() };
    let mut vring = Vring::new(setup, &ring.memory).unwrap();
    assert_eq!(heads(&mut vring), [0, 1, 2]);
    assert!(!vring.want_kicks(0).unwrap());
    assert_eq!(ring.load(USED + 4 + 8 * u64::from(SIZE)), 3);
}

#[test]
fn a_kick_can_be_asked_for_when_several_chains_are_there() {
    let mut ring = ring_with(3);
    let setup = RingSetup { event_idx: true, ..ring.setup() };
    let mut vring = Vring::new(setup, &ring.memory).unwrap();
    assert_eq!(heads(&mut vring), [0, 1, 2]);
    assert!(!vring.want_kicks(2).unwrap());
    assert_eq!(ring.load(USED + 4 + 8 * u64::from(SIZE)), 5);
    ring.make_available(0);
    ring.make_available(1);
    assert!(!vring.want_kicks(2).unwrap(), "two are not enough");
    ring.make_available(2);
    assert!(vring.want_kicks(2).unwrap(), "a third came; look again");
    assert!(vring.want_kicks(0).unwrap());
}

#[test]
fn a_worker_that_stops_early_is_called_again_without_a_kick() {
    let ring = ring_with(2);
    let mut vring = ring.vring();
    let chain = vring.next().unwrap().unwrap();
    vring.complete(chain, 0).unwrap();
    assert!(vring.want_kicks(0).unwrap());
}

#[test]
fn a_round_ends_under_a_driver_that_never_pauses() {
    let mut ring = ring_with(0);
    let mut vring = ring.vring();
    vring.begin_round().unwrap();
    let mut taken = 0;
    loop {
        ring.make_available(0);
        let Some(chain) = vring.next().unwrap() else { break };
        vring.complete(chain, 0).unwrap();
        taken += 1;
        assert!(taken < 10_000);
    }
    assert!(vring.want_kicks(0).unwrap(), "there is more, so it goes on at once");
    vring.begin_round().unwrap();
    assert!(vring.next().unwrap().is_some());
}

fn call_event() -> (EventFd, File) {
    let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
    let copy = event.as_fd().try_clone_to_owned().unwrap();
    (event, copy.into())
}

fn complete_one(ring: &mut TestRing, vring: &mut Vring) {
    ring.make_available(0);
    let chain = vring.next().unwrap().unwrap();
    vring.complete(chain, 0).unwrap();
    vring.call_if_wanted().unwrap();
}

#[test]
fn the_driver_is_called_unless_its_flag_says_no() {
    let mut ring = ring_with(0);
    let (event, call) = call_event();
    let mut vring =
        Vring::new(RingSetup { call: Some(Arc::new(call)), ..ring.setup() }, &ring.memory).unwrap();
    vring.call_if_wanted().unwrap();
    assert!(event.read().is_err(), "nothing completed");
    complete_one(&mut ring, &mut vring);
    assert_eq!(event.read().unwrap(), 1);
    ring.store(AVAIL, 1);
    complete_one(&mut ring, &mut vring);
    assert!(event.read().is_err());
}

#[test]
fn the_driver_is_called_at_the_index_it_names() {
    let mut ring = ring_with(0);
    let (event, call) = call_event();
    let setup = RingSetup { call: Some(Arc::new(call)), event_idx: true, ..ring.setup() };
    let mut vring = Vring::new(setup, &ring.memory).unwrap();
    ring.store(AVAIL + 4 + 2 * u64::from(SIZE), 2);
    for expected in [false, false, true, false] {
        complete_one(&mut ring, &mut vring);
        assert_eq!(event.read().is_ok(), expected);
    }
}

#[test]
fn a_broken_ring_is_an_error_with_values() {
    let ring = ring_with(0);
    ring.set_avail(SIZE + 1);
    let error = ring.vring().next().unwrap_err();
    assert!(matches!(error, VringError::AvailJumped { from: 0, to: 9, size: SIZE }));

    let mut ring = ring_with(0);
    ring.make_available(SIZE);
    let error = ring.vring().next().unwrap_err();
    assert!(matches!(error, VringError::HeadOutOfTable { head: SIZE, size: SIZE }));

    let mut ring = ring_with(SIZE);
    let mut vring = ring.vring();
    let held: Vec<_> = (0..SIZE).map(|_| vring.next().unwrap().unwrap()).collect();
    ring.make_available(0);
    assert!(matches!(vring.next().unwrap_err(), VringError::TooManyInFlight { size: SIZE }));
    drop(held);
}

#[test]
fn a_ring_that_cannot_be_is_refused() {
    let ring = ring_with(0);
    let refused = |change: fn(&mut RingSetup)| {
        let mut setup = ring.setup();
        change(&mut setup);
        Vring::new(setup, &ring.memory).err()
    };
    let misplaced = |change| match refused(change) {
        Some(VringError::Misplaced(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert!(matches!(misplaced(|ring| ring.size = 3), RingPlaceError::Misplaced(_)));
    assert!(matches!(misplaced(|ring| ring.used.0 += 1), RingPlaceError::Misplaced(_)));
    let outside: [fn(&mut RingSetup); 5] = [
        |ring| ring.used.0 = MEMORY - 8,
        |ring| ring.avail.0 = MEMORY,
        |ring| ring.descriptors.0 = !0xf,
        |ring| ring.used.0 = MEMORY - 4 - 8 * u64::from(SIZE),
        // The next region is elsewhere in this process.
        |ring| ring.used.0 = 0x8000 - 8,
    ];
    for place in outside {
        assert!(matches!(misplaced(place), RingPlaceError::Outside { .. }));
    }
    assert!(refused(|ring| ring.used.0 = 0x8000 - 8 - 8 * u64::from(SIZE)).is_none());
}

#[test]
fn what_a_dead_process_took_comes_first_and_in_order() {
    let ring = ring_with(6);
    let (file, len) = InflightRegion::make(4, SIZE).unwrap();
    let region = InflightRegion::map(file, 0, len, 4, SIZE).unwrap();
    let start = |next_avail| {
        let inflight = Some(region.queue(3, SIZE).unwrap());
        let setup = RingSetup { next_avail, inflight, ..ring.setup() };
        Vring::new(setup, &ring.memory).unwrap()
    };
    let mut first = start(0);
    let mut taken: Vec<_> = (0..4).map(|_| first.next().unwrap().unwrap()).collect();
    first.complete(taken.remove(1), 1).unwrap();
    drop((first, taken));

    // The front-end knows no better than the used index.
    let mut second = start(1);
    let chain = second.next().unwrap().unwrap();
    assert_eq!(chain.head(), 0);
    second.give_back(chain).unwrap();
    drop(second);

    let mut third = start(1);
    assert_eq!(heads(&mut third), [0, 2, 3, 4, 5]);
    assert_eq!(ring.used().len(), 6);
    assert!(heads(&mut start(6)).is_empty());
}
