//! The life of a remote device as a pure state machine: (state, event) → (state, effects), no I/O.
//!
//! ```text
//!                 PeerReady                    Start → StartRings
//!   Connecting ──────────────► Negotiated ──────────────────────────► Active
//!                               ▲  ▲   │                              │   │
//!                               │  │   │      Reset → StopRings       │   │
//!                               │  └───│──────────────────────────────┘   │
//!                     PeerReady │      │ PeerLost                         │ PeerLost
//!                               │      ▼                                  │ → NeedsReset
//!                               └──── Lost ◄──────────────────────────────┘
//!                                      │ PeerReady → StartRings, when the driver
//!                                      ▼ started afresh while the back-end was away
//!                                    Active
//!
//!   any state ── Close ──► Closed (→ StopRings if Active)
//! ```
//!
//! What the driver knows is kept beside the state of the connection: rings that ran on a back-end
//! that died are stale, and nothing runs on them again before the driver has reset the device.

/// Where a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No back-end yet.
    Connecting,
    /// A back-end is there and idle.
    Negotiated,
    /// The back-end works on the guest's rings.
    Active,
    /// The back-end has gone.
    Lost,
    /// The VMM ends.
    Closed,
}

/// What the driver has the device do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    /// It has not started the device.
    Idle,
    /// It has started the device, with rings that no back-end has lost.
    Started,
    /// Its rings ran on a back-end that is gone.
    Stale,
}

/// What happens to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A back-end is connected, and fits.
    PeerReady,
    /// The back-end is gone, or is not to be trusted.
    PeerLost,
    /// The driver set DRIVER_OK.
    Start,
    /// The driver, or a new boot, resets the device.
    Reset,
    /// The VMM ends.
    Close,
}

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Hand the rings to the back-end.
    StartRings,
    /// Take them back.
    StopRings,
    /// Tell the transport that the device has stopped.
    ResetDone,
    /// Tell the driver that the device needs a reset.
    NeedsReset,
}

/// A device's life.
#[derive(Debug)]
pub(super) struct Life {
    state: State,
    driver: Driver,
}

impl Life {
    pub(super) fn new() -> Self {
        Self { state: State::Connecting, driver: Driver::Idle }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Takes `event` and says what is to be done about it.
    pub(super) fn on(&mut self, event: Event) -> &'static [Effect] {
        let (state, driver, effects) = next(self.state, self.driver, event);
        self.state = state;
        self.driver = driver;
        effects
    }
}

fn next(state: State, driver: Driver, event: Event) -> (State, Driver, &'static [Effect]) {
    use {Driver as D, Effect as F, Event as E, State as S};
    match (state, event) {
        (S::Closed, _) => (S::Closed, driver, &[]),
        (S::Active, E::Close) => (S::Closed, driver, &[F::StopRings]),
        (_, E::Close) => (S::Closed, driver, &[]),

        (S::Connecting | S::Lost, E::PeerReady) if driver == D::Started => {
            (S::Active, driver, &[F::StartRings])
        }
        (S::Connecting | S::Lost, E::PeerReady) => (S::Negotiated, driver, &[]),
        (S::Negotiated | S::Active, E::PeerReady) => (state, driver, &[]),

        (S::Active, E::PeerLost) => (S::Lost, D::Stale, &[F::NeedsReset]),
        (_, E::PeerLost) => (S::Lost, driver, &[]),

        // A driver can't start twice without a reset between.
        (_, E::Start) if driver != D::Idle => (state, driver, &[]),
        (S::Negotiated, E::Start) => (S::Active, D::Started, &[F::StartRings]),
        (_, E::Start) => (state, D::Started, &[]),

        (S::Active, E::Reset) => (S::Negotiated, D::Idle, &[F::StopRings, F::ResetDone]),
        (_, E::Reset) => (state, D::Idle, &[F::ResetDone]),
    }
}

#[cfg(test)]
#[path = "life_test.rs"]
mod tests;
