//! A device's life, event by event.

use super::*;
use Effect as F;
use Event as E;
use State as S;

/// Plays events from the beginning and answers the last effects and the state they lead to.
fn play(events: &[Event]) -> (Vec<Effect>, State) {
    let mut life = Life::new();
    let mut effects: &[Effect] = &[];
    for event in events {
        effects = life.on(*event);
    }
    (effects.to_vec(), life.state())
}

#[test]
fn a_guest_boots_reboots_and_the_vmm_ends() {
    assert_eq!(play(&[E::PeerReady]), (vec![], S::Negotiated));
    assert_eq!(play(&[E::PeerReady, E::Start]), (vec![F::StartRings], S::Active));
    let reset = [E::PeerReady, E::Start, E::Reset];
    assert_eq!(play(&reset), (vec![F::StopRings, F::ResetDone], S::Negotiated));
    let again = [E::PeerReady, E::Start, E::Reset, E::Start];
    assert_eq!(play(&again), (vec![F::StartRings], S::Active));
    let end = [E::PeerReady, E::Start, E::Close];
    assert_eq!(play(&end), (vec![F::StopRings], S::Closed));
}

#[test]
fn a_reset_is_answered_in_every_state() {
    for before in [&[][..], &[E::PeerReady], &[E::PeerReady, E::PeerLost]] {
        let mut events = before.to_vec();
        let state = play(&events).1;
        events.push(E::Reset);
        assert_eq!(play(&events), (vec![F::ResetDone], state), "{before:?}");
    }
}

#[test]
fn starting_twice_starts_once() {
    assert_eq!(play(&[E::PeerReady, E::Start, E::Start]), (vec![], S::Active));
}

#[test]
fn rings_of_a_back_end_that_died_go_on_with_the_next() {
    let lost = [E::PeerReady, E::Start, E::PeerLost];
    assert_eq!(play(&lost), (vec![], S::Lost));
    let back = [E::PeerReady, E::Start, E::PeerLost, E::PeerReady];
    assert_eq!(play(&back), (vec![F::ResumeRings], S::Active));
    let again = [E::PeerReady, E::Start, E::PeerLost, E::PeerReady, E::PeerLost, E::PeerReady];
    assert_eq!(play(&again), (vec![F::ResumeRings], S::Active));
    assert_eq!(play(&[E::PeerReady, E::PeerLost]), (vec![], S::Lost));
    assert_eq!(play(&[E::PeerReady, E::PeerLost, E::PeerReady]), (vec![], S::Negotiated));
}

#[test]
fn a_reset_while_the_back_end_is_away_starts_afresh() {
    let fresh = [E::PeerReady, E::Start, E::PeerLost, E::Reset, E::Start, E::PeerReady];
    assert_eq!(play(&fresh), (vec![F::StartRings], S::Active));
    let idle = [E::PeerReady, E::Start, E::PeerLost, E::Reset, E::PeerReady];
    assert_eq!(play(&idle), (vec![], S::Negotiated));
}

#[test]
fn rings_that_were_given_up_wait_for_a_reset() {
    let gave_up = [E::PeerReady, E::Start, E::PeerLost, E::GiveUp];
    assert_eq!(play(&gave_up), (vec![F::NeedsReset], S::Lost));
    let play_on = |more: &[Event]| play(&[&gave_up, more].concat());
    assert_eq!(play_on(&[E::GiveUp]), (vec![], S::Lost), "the driver is told once");
    assert_eq!(play_on(&[E::PeerReady]), (vec![], S::Negotiated));
    assert_eq!(play_on(&[E::PeerReady, E::Start]), (vec![], S::Negotiated), "not before a reset");
    let revived = [E::PeerReady, E::Reset, E::Start];
    assert_eq!(play_on(&revived), (vec![F::StartRings], S::Active));
    let revived = [E::Reset, E::Start, E::PeerReady];
    assert_eq!(play_on(&revived), (vec![F::StartRings], S::Active));
}

#[test]
fn rings_that_cannot_go_on_leave_the_back_end_idle() {
    let unknown = [E::PeerReady, E::Start, E::PeerLost, E::PeerReady, E::GiveUp];
    assert_eq!(play(&unknown), (vec![F::NeedsReset], S::Negotiated));
    let reset = [E::PeerReady, E::Start, E::PeerLost, E::PeerReady, E::GiveUp, E::Reset];
    assert_eq!(play(&reset), (vec![F::ResetDone], S::Negotiated), "there is nothing to stop");
}

#[test]
fn a_driver_that_lost_nothing_is_not_told() {
    assert_eq!(play(&[E::PeerReady, E::PeerLost, E::GiveUp]), (vec![], S::Lost));
    assert_eq!(play(&[E::PeerReady, E::PeerLost, E::Start, E::GiveUp]), (vec![], S::Lost));
}

#[test]
fn a_driver_that_starts_while_the_back_end_is_away_runs_when_it_comes() {
    let away = [E::PeerReady, E::PeerLost, E::Start];
    assert_eq!(play(&away), (vec![], S::Lost));
    let back = [E::PeerReady, E::PeerLost, E::Start, E::PeerReady];
    assert_eq!(play(&back), (vec![F::StartRings], S::Active));
    let gave_up = [E::PeerReady, E::PeerLost, E::Start, E::Reset, E::PeerReady];
    assert_eq!(play(&gave_up), (vec![], S::Negotiated));
    assert_eq!(play(&[E::Start, E::PeerReady]), (vec![F::StartRings], S::Active));
}

#[test]
fn closed_is_the_end() {
    for event in [E::PeerReady, E::PeerLost, E::GiveUp, E::Start, E::Reset, E::Close] {
        assert_eq!(play(&[E::PeerReady, E::Close, event]), (vec![], S::Closed));
    }
}
