//! The command line.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::Parser;

use crate::{Forward, LimitOptions, Mac};

/// As many as vhost-user can number the queues of, with the control queue.
const MAX_PAIRS: i64 = 127;
/// The largest speed that is one (virtio 1.3 §5.1.4).
const MAX_SPEED: i64 = 0x7fff_ffff;

const EXAMPLES: &str = "\
Examples:
  Make a TAP for user 1000, and serve it:
    ip tuntap add dev tap0 mode tap user 1000
    ip link set tap0 up
    atoll-net --socket-path=/run/vm/net.sock --tap=tap0 --mac=52:54:00:12:34:56

  Serve a TAP with four pairs of queues:
    ip tuntap add dev tap0 mode tap multi_queue
    atoll-net --socket-path=/run/vm/net.sock --tap=tap0 --queue-pairs=4

  Join a new TAP to a bridge, as root, and give up all rights but those it needs:
    atoll-net --socket-path=/run/vm/net.sock --bridge=br0

  Serve a TAP that somebody else has opened as descriptor 3, over a connected socket 4:
    atoll-net --fd=4 --tap-fd=3

  Connect to another VMM's network, or to a switch in user space:
    atoll-net --socket-path=/run/vm/net.sock --stream=/run/switch.sock
    atoll-net --socket-path=/run/vm/net.sock --stream-server=/run/cable.sock
    atoll-net --socket-path=/run/vm/net.sock --dgram /run/a.sock /run/b.sock

  Give the guest a network without any privilege, and its ssh a port of the host's:
    atoll-net --socket-path=/run/vm/net.sock --user-net --hostfwd=tcp:2222:22

  Let no more than 10 MiB a second reach the guest, and pull its cable:
    atoll-net --socket-path=net.sock --tap=tap0 --limit-rx-bps=10M --control-socket=control.sock
    curl --unix-socket control.sock -X PATCH -d '{\"up\": false}' http://net/link

Exit codes: 0 asked to end, or the only front-end left; 1 failure; 2 wrong command line.
RUST_LOG=info (or debug) says more on standard error.";

/// What becomes of a cable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LinkState {
    /// It is plugged in.
    #[default]
    Up,
    /// It is pulled.
    Down,
}

/// Serves a TAP interface, or a user-mode network, as a vhost-user network device.
#[derive(Clone, Debug, Parser)]
#[command(name = "atoll-net", version, after_help = EXAMPLES)]
pub struct Options {
    /// TAP interface to attach to; it has to exist
    #[arg(
        long,
        value_name = "NAME",
        group = "network",
        required_unless_present_any = [
            "tap_fd", "bridge", "macvtap", "stream", "stream_server", "dgram", "user_net",
            "print_capabilities", "keep_passt"
        ]
    )]
    pub tap: Option<String>,

    /// Inherited descriptor of an open TAP (IFF_TAP, IFF_NO_PI, IFF_VNET_HDR); repeated, one for
    /// each pair of queues (IFF_MULTI_QUEUE)
    #[arg(long, value_name = "N", group = "network")]
    pub tap_fd: Vec<RawFd>,

    /// Bridge to join a new TAP to, which is removed at the end; this takes CAP_NET_ADMIN
    #[arg(long, value_name = "NAME", group = "network")]
    pub bridge: Option<String>,

    /// macvtap interface to attach to; it has to exist, and its address is the guest's
    #[arg(long, value_name = "NAME", group = "network")]
    pub macvtap: Option<String>,

    /// Pairs of queues, each with threads and a queue of the TAP of its own; the TAP has to be made
    /// for several (`ip tuntap add … multi_queue`)
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        conflicts_with_all = ["tap_fd", "stream", "stream_server", "dgram", "user_net"],
        value_parser = clap::value_parser!(u16).range(1..=MAX_PAIRS)
    )]
    pub queue_pairs: u16,

    /// Unix stream socket to connect to, such as that of QEMU's -netdev stream,server=on or of
    /// passt --socket; connected to again when it closes
    #[arg(long, value_name = "PATH", group = "network")]
    pub stream: Option<PathBuf>,

    /// Unix stream socket to make, for one at a time to connect to, such as QEMU's -netdev stream
    #[arg(long, value_name = "PATH", group = "network")]
    pub stream_server: Option<PathBuf>,

    /// Unix datagram socket to make, and the one to send to, as of QEMU's -netdev dgram
    #[arg(long, value_names = ["LOCAL", "REMOTE"], num_args = 2, group = "network")]
    pub dgram: Vec<PathBuf>,

    /// User-mode network through passt, which has to be installed: DHCP, DNS, IPv4 and IPv6; the
    /// guest reaches what this user reaches, and this host under the gateway's address
    #[arg(long, group = "network")]
    pub user_net: bool,

    /// With --user-net: port of the host's that leads to one of the guest's, such as tcp:2222:22 or
    /// udp:127.0.0.1:5353:53; may be repeated
    #[arg(long, value_name = "PROTOCOL:[ADDRESS:]PORT:PORT", conflicts_with_all = ["tap", "tap_fd", "bridge", "macvtap", "stream", "stream_server", "dgram"])]
    pub hostfwd: Vec<Forward>,

    /// To be the process that keeps passt running, with its front on standard input.
    #[arg(long, hide = true)]
    pub keep_passt: bool,

    /// To be the process that keeps the stream socket connected.
    #[arg(long, hide = true)]
    pub keep_stream: bool,

    /// Address of the guest's interface, such as 52:54:00:12:34:56 [default: the guest makes one]
    #[arg(long, value_name = "MAC")]
    pub mac: Option<Mac>,

    /// Largest packet that the guest should send, without the Ethernet header
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(68..))]
    pub mtu: Option<u16>,

    /// Speed that the guest is told, in millions of bits a second
    #[arg(long, value_name = "MBITS", value_parser = clap::value_parser!(u32).range(1..=MAX_SPEED))]
    pub speed: Option<u32>,

    /// Whether the guest's cable is plugged in at the start; the control socket changes it
    #[arg(
        long,
        value_enum,
        value_name = "up|down",
        default_value = "up",
        hide_possible_values = true
    )]
    pub link: LinkState,

    /// How long a queue that has been busy is looked at for packets, or room for them, before its thread
    /// goes to sleep, in microseconds; 0 never looks
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub poll_us: u32,

    /// How fast each direction may be.
    #[command(flatten)]
    pub limits: LimitOptions,

    /// What every device process takes.
    #[command(flatten)]
    pub backend: atoll_backend::Args,
}
