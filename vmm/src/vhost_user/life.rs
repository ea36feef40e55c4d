//! The life of a remote device as a pure state machine: (state, event) → (state, effects), no I/O.
//!
//! ```text
//!                 PeerReady                    Start → StartRings
//!   Connecting ──────────────► Negotiated ──────────────────────────► Active ──┐ swap: stop here,
//!                               ▲  ▲   │       Reset → StopRings      │ ▲  ▲   │ go on there
//!                               │  │   │       GiveUp → NeedsReset    │ │  └───┘
//!                               │  └───│──────────────────────────────┘ │
//!                     PeerReady │      │ PeerLost              PeerLost │ PeerReady
//!                               │      ▼                          │     │ → ResumeRings
//!                               └──── Lost ◄──────────────────────┘     │ (→ StartRings, when the
//!                                    │  ▲ │                             │ driver started while no
//!                                    └──┘ └─────────────────────────────┘ back-end was there)
//!                      GiveUp → NeedsReset
//!
//!   any state ── Close ──► Closed (→ StopRings if Active)
//! ```
//!
//! What the driver knows is kept beside the state of the connection. Rings that ran on a back-end
//! that died go on with the next one, unless they are given up, by the user's policy or because
//! nobody can know what was left undone. Then they are stale, and nothing runs on them before the
//! driver has reset the device.

use super::report::DeviceState as State;

/// What the driver has the device do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    /// It has not started the device.
    Idle,
    /// It has started the device, with rings that no back-end has had yet.
    Started,
    /// A back-end has, or had, its rings.
    Running,
    /// Its rings were given up.
    Stale,
}

/// What happens to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A back-end is connected, and fits.
    PeerReady,
    /// The back-end is gone, or is not to be trusted.
    PeerLost,
    /// The rings that ran on a lost back-end won't go on.
    GiveUp,
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
    /// Hand it the rings that another one had.
    ResumeRings,
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

        (S::Connecting | S::Lost, E::PeerReady) => match driver {
            D::Started => (S::Active, D::Running, &[F::StartRings]),
            D::Running => (S::Active, driver, &[F::ResumeRings]),
            D::Idle | D::Stale => (S::Negotiated, driver, &[]),
        },
        (S::Negotiated | S::Active, E::PeerReady) => (state, driver, &[]),

        (_, E::PeerLost) => (S::Lost, driver, &[]),

        (S::Active, E::GiveUp) => (S::Negotiated, D::Stale, &[F::NeedsReset]),
        (_, E::GiveUp) if driver == D::Running => (state, D::Stale, &[F::NeedsReset]),
        (_, E::GiveUp) => (state, driver, &[]),

        // A driver can't start twice without a reset between.
        (_, E::Start) if driver != D::Idle => (state, driver, &[]),
        (S::Negotiated, E::Start) => (S::Active, D::Running, &[F::StartRings]),
        (_, E::Start) => (state, D::Started, &[]),

        (S::Active, E::Reset) => (S::Negotiated, D::Idle, &[F::StopRings, F::ResetDone]),
        (_, E::Reset) => (state, D::Idle, &[F::ResetDone]),
    }
}

#[cfg(test)]
#[path = "life_test.rs"]
mod tests;
