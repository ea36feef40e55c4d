//! `atoll-console` as a process: a software driver on one side, a person's terminal, client or file
//! on the other. No KVM.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test says what it expects by panicking"
)]

mod commands;
mod file;
mod front_ends;
mod hostile;
mod long_chains;
mod ports;
mod pty;
mod readers;
mod rig;
mod sandbox;
mod socket;
mod stdio;
mod window;
