//! The command line.

use std::os::fd::RawFd;

use clap::Parser;

use crate::Mac;

const EXAMPLES: &str = "\
Examples:
  Make a TAP for user 1000, and serve it:
    ip tuntap add dev tap0 mode tap user 1000
    ip link set tap0 up
    atoll-net --socket-path=/run/vm/net.sock --tap=tap0 --mac=52:54:00:12:34:56

  Serve a TAP that somebody else has opened as descriptor 3, over a connected socket 4:
    atoll-net --fd=4 --tap-fd=3

Exit codes: 0 asked to end, or the only front-end left; 1 failure; 2 wrong command line.
RUST_LOG=info (or debug) says more on standard error.";

/// Serves a TAP interface as a vhost-user network device.
#[derive(Clone, Debug, Parser)]
#[command(name = "atoll-net", version, after_help = EXAMPLES)]
pub struct Options {
    /// TAP interface to attach to; it has to exist
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "tap_fd",
        required_unless_present_any = ["tap_fd", "print_capabilities"]
    )]
    pub tap: Option<String>,

    /// Inherited descriptor of an open TAP (IFF_TAP, IFF_NO_PI, IFF_VNET_HDR)
    #[arg(long, value_name = "N")]
    pub tap_fd: Option<RawFd>,

    /// Address of the guest's interface, such as 52:54:00:12:34:56 [default: the guest makes one]
    #[arg(long, value_name = "MAC")]
    pub mac: Option<Mac>,

    /// Largest packet that the guest should send, without the Ethernet header
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(68..))]
    pub mtu: Option<u16>,

    /// What every device process takes.
    #[command(flatten)]
    pub backend: atoll_backend::Args,
}
