//! The real `atoll-blk` process, driven over its socket by software drivers. No virtual machine.

#![expect(clippy::unwrap_used, reason = "tests say what they expect by panicking")]

mod bad_images;
mod cache;
mod command_line;
mod control;
mod discard;
mod disk;
mod engines;
mod front_ends;
mod geometry;
mod hostile;
mod independent;
#[cfg(debug_assertions)]
mod kill_points;
mod lifecycle;
mod memory;
mod power;
mod qcow2;
mod random;
mod recovery;
mod requests;
mod sandbox;
mod space;
