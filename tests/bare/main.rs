//! How the VMM takes what its backends do: guests of some hundred instructions drive disks, on any
//! /dev/kvm, and backends come, go and lie.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "what tests share says what went wrong as they do")]

mod churn;
mod hostile;
mod policy;
mod recovery;
mod rig;
