//! Real guests under the real VMM: a stock Linux kernel, and device processes of their own.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "what tests share says what went wrong as they do")]

mod boot;
mod console;
mod disk;
mod interop;
mod lifecycle;
mod machine;
mod network;
mod recovery;
mod scale;
mod steady_state;
mod systemd;
mod turning;
