//! A device process dies at each step of its requests' way, and others go on from the record that it
//! left: each request is done, in its order, and none again that the driver has seen done.
//!
//! The device keeps several requests in flight and completes them out of their order, alone and
//! together, because it is then that nothing but the record tells what is left to do. The tests
//! prove their worth on devices that make mistakes in keeping it.

// Only a debug build can be told where to die.
#![cfg(debug_assertions)]
#![expect(clippy::panic, clippy::unwrap_used, reason = "tests say what they expect by panicking")]

mod ledger;
mod life;

use std::env;

use atoll_backend::kill_point::{Mistake, Step};

use crate::life::{Fault, Life};

/// Lives of two deaths each: the first at `step` for the `count`th time, the second at another step.
fn live(step: Step, count: u32, mistake: Option<Mistake>) -> Result<(), Fault> {
    let at = Step::ALL.iter().position(|&known| known == step).unwrap();
    for turn in [1, 6] {
        let next = Step::ALL[(at + turn * count as usize) % Step::ALL.len()];
        let mut life = Life::new(mistake);
        life.submit(12);
        life.serve_until_death(Some((step, count)))?;
        // The driver uses again, for new requests, the descriptors that are free.
        life.submit(3);
        life.serve_until_death(Some((next, count.div_ceil(2))))?;
        life.submit(3);
        life.serve_until_death(None)?;
    }
    Ok(())
}

#[test]
fn a_death_at_any_step_loses_and_repeats_nothing() {
    for step in Step::ALL {
        for count in 1..=4 {
            live(step, count, None).unwrap_or_else(|fault| panic!("{step:?}:{count}: {fault}"));
        }
    }
}

#[test]
fn each_step_is_on_the_way() {
    for step in Step::ALL {
        let mut life = Life::new(None);
        life.submit(12);
        assert!(life.serve_until_death(Some((step, 1))).unwrap(), "{step:?} was never reached");
    }
}

/// The fault that shows with a device that makes `mistake`.
fn fault_of(mistake: Mistake) -> Fault {
    let lives = Step::ALL.into_iter().flat_map(|step| [(step, 2), (step, 3)]);
    lives
        .map(|(step, count)| live(step, count, Some(mistake)))
        .find_map(Result::err)
        .unwrap_or_else(|| panic!("{mistake:?} goes unnoticed"))
}

#[test]
fn a_device_that_skips_the_record_is_found_out() {
    let fault = fault_of(Mistake::Unrecorded);
    assert!(matches!(fault, Fault::Lost | Fault::Again(_) | Fault::Answered(_)), "{fault}");
}

#[test]
fn a_device_that_does_not_clear_the_record_is_found_out() {
    let fault = fault_of(Mistake::Uncleared);
    assert!(matches!(fault, Fault::Lost | Fault::Again(_) | Fault::Answered(_)), "{fault}");
}

#[test]
fn a_device_that_forgets_the_order_is_found_out() {
    let fault = fault_of(Mistake::Unordered);
    assert!(matches!(fault, Fault::Order { .. }), "{fault}");
}

/// Not a test: the device process, when one of the others has started it.
#[test]
fn device_process() {
    if let Some(dir) = env::var_os(ledger::DIRECTORY) {
        ledger::serve(dir.as_ref());
    }
}
