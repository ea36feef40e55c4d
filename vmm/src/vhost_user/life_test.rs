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
fn losing_an_active_back_end_needs_a_reset() {
    let lost = [E::PeerReady, E::Start, E::PeerLost];
    assert_eq!(play(&lost), (vec![F::NeedsReset], S::Lost));
    assert_eq!(play(&[E::PeerReady, E::PeerLost]), (vec![], S::Lost));
}

#[test]
fn a_back_end_that_returns_gets_no_stale_rings() {
    let back = [E::PeerReady, E::Start, E::PeerLost, E::PeerReady];
    assert_eq!(play(&back), (vec![], S::Negotiated));
    let start = [E::PeerReady, E::Start, E::PeerLost, E::PeerReady, E::Start];
    assert_eq!(play(&start), (vec![], S::Negotiated), "not before a reset");
    let fresh = [E::PeerReady, E::Start, E::PeerLost, E::PeerReady, E::Reset, E::Start];
    assert_eq!(play(&fresh), (vec![F::StartRings], S::Active));
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
    for event in [E::PeerReady, E::PeerLost, E::Start, E::Reset, E::Close] {
        assert_eq!(play(&[E::PeerReady, E::Close, event]), (vec![], S::Closed));
    }
}
