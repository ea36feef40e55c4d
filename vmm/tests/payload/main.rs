//! Small payloads, each a few instructions, on this machine's own `/dev/kvm` of whatever kind: what
//! no unit test can see of vCPUs and interrupts, in milliseconds.

#![expect(clippy::unwrap_used, reason = "tests say what they expect by panicking")]

mod code;
mod guest;
mod interrupts;
mod vcpus;
