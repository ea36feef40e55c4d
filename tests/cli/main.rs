//! What the commands say to bad input: one clear sentence that names the thing, the right exit
//! code, and nothing lost. Real binaries, no guest.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "what tests share says what went wrong as they do")]

mod attach;
mod backends;
mod boot_files;
mod control;
mod disks;
mod kvm;
mod leaving;
mod networks;
mod options;
mod peers;
mod refusal;
mod sockets;
mod supervision;
mod turning;
