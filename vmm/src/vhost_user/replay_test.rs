//! What the rings prove, against rings whose whole history is known.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test, as it should")]
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A driver and a device on one ring, and what really is outstanding.
struct Model {
    contents: Contents,
    free: Vec<u16>,
    /// Outstanding chains in the order in which they were given.
    outstanding: Vec<Vec<u16>>,
}

impl Model {
    /// A ring of `size` that starts at index `start`, with `garbage` in its slots.
    fn new(size: u16, start: u16, garbage: u16) -> Self {
        let contents = Contents {
            avail_idx: start,
            used_idx: start,
            avail: (0..size).map(|slot| (slot * 7 + garbage) % size).collect(),
            used: (0..size).map(|slot| u32::from((slot * 5 + garbage) % size)).collect(),
            lengths: vec![0; size.into()],
            links: (0..size)
                .map(|slot| (garbage % 2 == 1).then_some((slot + garbage) % size))
                .collect(),
        };
        Self { contents, free: (0..size).rev().collect(), outstanding: Vec::new() }
    }

    /// The driver gives the free descriptor that it freed last, or `skip` before.
    fn give(&mut self, skip: usize) {
        self.give_chain(skip, 1);
    }

    /// The driver gives a chain of `len` descriptors.
    fn give_chain(&mut self, skip: usize, len: usize) {
        if self.free.len() < len {
            return;
        }
        let take = |_| self.free.remove((self.free.len() - 1).saturating_sub(skip));
        let chain: Vec<u16> = (0..len).map(take).collect();
        for (&at, next) in chain.iter().zip(chain.iter().skip(1).map(Some).chain([None])) {
            self.contents.lengths[usize::from(at)] = 512;
            self.contents.links[usize::from(at)] = next.copied();
        }
        let slot = usize::from(self.contents.avail_idx) % self.contents.avail.len();
        self.contents.avail[slot] = chain[0];
        self.contents.avail_idx = self.contents.avail_idx.wrapping_add(1);
        self.outstanding.push(chain);
    }

    /// The device uses the `nth` of what is outstanding.
    fn use_(&mut self, nth: usize) {
        if self.outstanding.is_empty() {
            return;
        }
        let chain = self.outstanding.remove(nth % self.outstanding.len());
        let slot = usize::from(self.contents.used_idx) % self.contents.used.len();
        self.contents.used[slot] = chain[0].into();
        self.contents.used_idx = self.contents.used_idx.wrapping_add(1);
        self.free.extend(chain.iter().rev());
    }

    /// Whether going on at `used_idx` does exactly what is outstanding.
    fn tail_is_outstanding(&self) -> bool {
        let depth = i32::from(self.contents.avail_idx.wrapping_sub(self.contents.used_idx));
        let tail = (0..depth).map(|position| self.contents.avail_at(position).unwrap());
        let truth: BTreeSet<u16> = self.outstanding.iter().map(|chain| chain[0]).collect();
        tail.collect::<BTreeSet<_>>() == truth
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Give(usize, usize),
    Use(usize),
}

/// Few descriptors are in use at a time as a rule, which is what is hard: the others were used long
/// ago or never.
fn steps(reorder: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..3_usize, 1..4_usize).prop_map(|(skip, len)| Step::Give(skip, len)),
        (0..=reorder).prop_map(Step::Use),
        (0..=reorder / 4).prop_map(Step::Use),
    ];
    prop::collection::vec(step, 0..300)
}

fn play(size: u16, start: u16, garbage: u16, steps: &[Step]) -> Model {
    let mut model = Model::new(size, start, garbage);
    for step in steps {
        match *step {
            Step::Give(skip, len) => model.give_chain(skip, len),
            Step::Use(nth) => model.use_(nth),
        }
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        // A failure says all that there is to know; no file is needed.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_proved_is_true_whatever_the_device_did(
        log in 1_u32..6, start: u16, garbage: u16, steps in steps(4)
    ) {
        let model = play(1 << log, start, garbage % 64, &steps);
        if prove(&model.contents, false).is_ok() {
            prop_assert!(model.tail_is_outstanding(), "{:?}", model.contents);
        }
    }

    #[test]
    fn a_device_that_keeps_the_order_is_always_proved_for_a_stream(
        log in 1_u32..6, start: u16, steps in steps(0)
    ) {
        // A driver gives a device rings that are empty.
        let mut model = Model::new(1 << log, start, 0);
        model.contents.avail.fill(0);
        model.contents.used.fill(0);
        for step in steps {
            match step {
                Step::Give(skip, len) => model.give_chain(skip, len),
                Step::Use(_) => model.use_(0),
            }
        }
        prop_assert_eq!(prove(&model.contents, true), Ok(()));
        prop_assert!(model.tail_is_outstanding());
    }

    #[test]
    fn no_contents_make_it_fail(
        avail_idx: u16, used_idx: u16, in_order: bool, log in 1_u32..6,
        numbers in prop::collection::vec(any::<u32>(), 32)
    ) {
        let size = 1 << log;
        let contents = Contents {
            avail_idx,
            used_idx,
            avail: numbers.iter().take(size).map(|&number| number as u16).collect(),
            used: numbers.iter().rev().take(size).copied().collect(),
            lengths: numbers.iter().take(size).copied().collect(),
            links: numbers.iter().skip(1).take(size).map(|&next| Some(next as u16)).collect(),
        };
        let _ = prove(&contents, in_order);
    }
}

#[test]
fn a_ring_with_nothing_outstanding_is_proved() {
    let mut model = Model::new(8, 65_530, 3);
    for _ in 0..20 {
        model.give(0);
        model.give(0);
        model.use_(1);
        model.use_(0);
    }
    assert_eq!(prove(&model.contents, false), Ok(()));
}

#[test]
fn descriptors_that_were_never_used_are_accounted_for() {
    let mut model = Model::new(8, 0, 0);
    for _ in 0..3 {
        model.give(0);
    }
    assert_eq!(prove(&model.contents, false), Ok(()));
    // One of them is done: the ring shows that it was.
    model.use_(0);
    assert_eq!(prove(&model.contents, false), Ok(()));
}

#[test]
fn descriptors_within_a_chain_are_accounted_for() {
    let mut model = Model::new(8, 0, 0);
    for _ in 0..50 {
        model.give_chain(0, 3);
        assert_eq!(prove(&model.contents, false), Ok(()));
        model.use_(0);
    }
    model.give_chain(0, 3);
    model.give_chain(0, 3);
    assert_eq!(prove(&model.contents, false), Ok(()));
    model.use_(1);
    // The second one overtook the first, and is certainly done.
    assert!(!model.tail_is_outstanding());
    assert!(prove(&model.contents, false).is_err());
}

#[test]
fn a_request_that_was_overtaken_is_noticed() {
    let mut model = Model::new(8, 0, 0);
    model.give(0);
    model.give(0);
    model.use_(1);
    // The tail is the second request, and the first is what is outstanding.
    assert!(!model.tail_is_outstanding());
    assert!(matches!(prove(&model.contents, false), Err(Unproven::Ambiguous { .. })));
    assert_eq!(prove(&model.contents, true), Err(Unproven::OutOfOrder));
}

#[test]
fn a_request_that_may_be_stuck_since_long_is_not_overlooked() {
    let stuck = |depth: usize| {
        let mut model = Model::new(8, 0, 0);
        // More requests at once than later, so that their descriptors were used long ago.
        (0..depth).for_each(|_| model.give(0));
        (1..depth).for_each(|_| model.use_(1));
        for _ in 0..20 {
            model.give(0);
            model.use_(1);
        }
        model
    };
    let model = stuck(2);
    // One request outstanding, and no trace of it in either ring.
    assert!(!model.tail_is_outstanding());
    assert_eq!(prove(&model.contents, false), Err(Unproven::Ambiguous { depth: 1, candidates: 2 }));
}

#[test]
fn a_descriptor_that_was_done_may_have_been_given_again_where_the_ring_shows_it_no_more() {
    let mut model = Model::new(4, 0, 0);
    model.give(0);
    model.use_(0);
    // Head 0 once more, and stuck from now on.
    model.give(0);
    for skip in [0, 0, 1] {
        model.give(skip);
        model.use_(1);
    }
    model.give(1);
    assert_eq!(model.outstanding, [[0], [1]]);
    assert!(!model.contents.avail.contains(&0), "the used ring still has it, this one has not");
    assert!(model.contents.used.contains(&0));
    assert!(!model.tail_is_outstanding());
    assert_eq!(prove(&model.contents, false), Err(Unproven::Ambiguous { depth: 2, candidates: 3 }));
}

#[test]
fn a_full_ring_leaves_no_doubt() {
    let mut model = Model::new(8, 40, 5);
    for _ in 0..100 {
        model.give(2);
        model.use_(0);
    }
    (0..8).for_each(|_| model.give(0));
    assert_eq!(prove(&model.contents, false), Ok(()));
}

#[test]
fn indices_further_apart_than_the_ring_is_long_prove_nothing() {
    let mut contents = Model::new(8, 0, 0).contents;
    contents.avail_idx = 9;
    assert!(matches!(prove(&contents, true), Err(Unproven::Broken { size: 8, .. })));
    contents.avail_idx = 65_535;
    assert!(matches!(prove(&contents, false), Err(Unproven::Broken { .. })));
}

#[test]
fn a_descriptor_given_twice_among_the_last_was_done_in_between() {
    let mut contents = Model::new(8, 0, 0).contents;
    contents.avail[..3].copy_from_slice(&[1, 2, 1]);
    contents.avail_idx = 3;
    assert_eq!(prove(&contents, true), Err(Unproven::Twice(1)));
}
