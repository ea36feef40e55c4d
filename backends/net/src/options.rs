//! The command line.

use std::os::fd::RawFd;

use clap::Parser;

use crate::{Forward, Mac};

const EXAMPLES: &str = "\
Examples:
  Make a TAP for user 1000, and serve it:
    ip tuntap add dev tap0 mode tap user 1000
    ip link set tap0 up
    atoll-net --socket-path=/run/vm/net.sock --tap=tap0 --mac=52:54:00:12:34:56

  Serve a TAP that somebody else has opened as descriptor 3, over a connected socket 4:
    atoll-net --fd=4 --tap-fd=3

  Give the guest a network without any privilege, and its ssh a port of the host's:
    atoll-net --socket-path=/run/vm/net.sock --user-net --hostfwd=tcp:2222:22

Exit codes: 0 asked to end, or the only front-end left; 1 failure; 2 wrong command line.
RUST_LOG=info (or debug) says more on standard error.";

/// Serves a TAP interface, or a user-mode network, as a vhost-user network device.
#[derive(Clone, Debug, Parser)]
#[command(name = "atoll-net", version, after_help = EXAMPLES)]
pub struct Options {
    /// TAP interface to attach to; it has to exist
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["tap_fd", "user_net"],
        required_unless_present_any = ["tap_fd", "user_net", "print_capabilities", "keep_passt"]
    )]
    pub tap: Option<String>,

    /// Inherited descriptor of an open TAP (IFF_TAP, IFF_NO_PI, IFF_VNET_HDR)
    #[arg(long, value_name = "N", conflicts_with = "user_net")]
    pub tap_fd: Option<RawFd>,

    /// User-mode network through passt, which has to be installed: DHCP, DNS, IPv4 and IPv6; the
    /// guest reaches what this user reaches, and this host under the gateway's address
    #[arg(long)]
    pub user_net: bool,

    /// With --user-net: port of the host's that leads to one of the guest's, such as tcp:2222:22 or
    /// udp:127.0.0.1:5353:53; may be repeated
    #[arg(long, value_name = "PROTOCOL:[ADDRESS:]PORT:PORT", conflicts_with_all = ["tap", "tap_fd"])]
    pub hostfwd: Vec<Forward>,

    /// To be the process that keeps passt running, with its front on standard input.
    #[arg(long, hide = true)]
    pub keep_passt: bool,

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
