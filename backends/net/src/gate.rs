//! What packets pass on their way, whatever the device is attached to: a cable that may be pulled, a
//! limit for each direction, and the count of those that get no further. Which packets pass, and
//! what waits, is the queues'.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use atoll_backend::{ConfigChange, Counter, Limited, Limiter, Limits, Link, Panel};

/// Why a packet for the guest gets no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreceived {
    /// The driver's buffers are too small for it, or there are too few.
    NoRoom,
    /// No packet has this length.
    Length,
    /// The driver does not want it.
    Unwanted,
    /// The cable is pulled.
    LinkDown,
}

/// Why a packet of the guest gets no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untransmitted {
    /// The driver's buffers or header are not as they should be.
    Malformed,
    /// The host's interface is down.
    HostDown,
    /// The host's kernel does not take it.
    Refused,
    /// The user-mode network is not there.
    NoNetwork,
    /// The cable is pulled.
    LinkDown,
}

const UNRECEIVED: [(Unreceived, &str); 4] = [
    (Unreceived::NoRoom, "no-room"),
    (Unreceived::Length, "length"),
    (Unreceived::Unwanted, "unwanted"),
    (Unreceived::LinkDown, "link-down"),
];
const UNTRANSMITTED: [(Untransmitted, &str); 5] = [
    (Untransmitted::Malformed, "malformed"),
    (Untransmitted::HostDown, "host-down"),
    (Untransmitted::Refused, "refused"),
    (Untransmitted::NoNetwork, "no-network"),
    (Untransmitted::LinkDown, "link-down"),
];

/// The gate of one device, which all its queues share.
#[derive(Debug)]
pub(crate) struct Gate {
    up: AtomicBool,
    /// To the guest.
    pub(crate) receive: Limiter,
    /// From the guest.
    pub(crate) transmit: Limiter,
    unreceived: [AtomicU64; UNRECEIVED.len()],
    untransmitted: [AtomicU64; UNTRANSMITTED.len()],
    config_change: ConfigChange,
}

impl Gate {
    pub(crate) fn new(
        up: bool,
        receive: Limits,
        transmit: Limits,
        config_change: ConfigChange,
    ) -> Self {
        Self {
            up: AtomicBool::new(up),
            receive: Limiter::new(receive),
            transmit: Limiter::new(transmit),
            unreceived: Default::default(),
            untransmitted: Default::default(),
            config_change,
        }
    }

    /// A packet for the guest is dropped.
    pub(crate) fn not_received(&self, why: Unreceived) {
        count(&UNRECEIVED, &self.unreceived, &why);
    }

    /// A packet of the guest is dropped.
    pub(crate) fn not_transmitted(&self, why: Untransmitted) {
        count(&UNTRANSMITTED, &self.untransmitted, &why);
    }

    /// What users can read and turn.
    pub(crate) fn panel(&self) -> Panel<'_> {
        let limited = |prefix, limiter| Limited { prefix, operations: "pps", limiter };
        let received = UNRECEIVED.iter().zip(&self.unreceived).map(|((_, why), count)| Counter {
            name: "rx_dropped",
            help: "Packets for the guest that were dropped.",
            label: Some(("reason", why)),
            value: count.load(Ordering::Relaxed),
        });
        let transmitted =
            UNTRANSMITTED.iter().zip(&self.untransmitted).map(|((_, why), count)| Counter {
                name: "tx_dropped",
                help: "Packets of the guest that were dropped.",
                label: Some(("reason", why)),
                value: count.load(Ordering::Relaxed),
            });
        Panel {
            limits: vec![limited("rx_", &self.receive), limited("tx_", &self.transmit)],
            link: Some(self),
            counters: received.chain(transmitted).collect(),
            ..Panel::default()
        }
    }
}

impl Link for Gate {
    fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    fn set(&self, up: bool) {
        if self.up.swap(up, Ordering::Relaxed) != up {
            tracing::info!("the cable is {}", if up { "plugged in" } else { "pulled" });
            self.config_change.announce();
        }
    }
}

fn count<T: PartialEq>(names: &[(T, &str)], counts: &[AtomicU64], what: &T) {
    let found = names.iter().zip(counts).find(|((name, _), _)| name == what);
    if let Some((_, count)) = found {
        count.fetch_add(1, Ordering::Relaxed);
    }
}
