//! `atoll-net` as a process, driven over its socket by a software driver, with a real TAP in a
//! network namespace of each test's own. No KVM.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test says what it expects by panicking"
)]

mod attachments;
mod bursts;
mod commands;
mod control;
mod dpdk;
mod dropped;
mod frames;
mod front_ends;
mod hostile;
mod line;
mod network;
mod pairs;
mod process;
mod rig;
mod sandbox;
mod slow_peers;
mod sockets;
mod streams;
mod successors;
mod turning;
mod user;
