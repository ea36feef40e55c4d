//! The host's side: a network namespace with a TAP, and packets in and out of it.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{SockaddrLike, SockaddrStorage, bind};

/// An EtherType for local experiments, which no host speaks by itself.
pub(crate) const EXPERIMENT: u16 = 0x88b5;
pub(crate) const TAP: &str = "tap0";
pub(crate) const HOST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
pub(crate) const GUEST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
pub(crate) const HOST_IP: [u8; 4] = [192, 0, 2, 1];
pub(crate) const GUEST_IP: [u8; 4] = [192, 0, 2, 2];

/// Moves this thread, and the processes it starts, to an empty network with one TAP. `None`, said
/// once on the way, where this user may not.
pub(crate) fn enter() -> Option<()> {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("skipped: a network namespace with a TAP needs CAP_NET_ADMIN ({error})");
        return None;
    }
    if !fs::exists("/dev/net/tun").unwrap_or(false) {
        eprintln!("skipped: there is no /dev/net/tun");
        return None;
    }
    if Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: there is no `ip`, which is in Debian's iproute2");
        return None;
    }
    // The host's own chatter would only get between the frames that tests look for.
    let _no_ipv6 = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    ip("link set lo up");
    ip("tuntap add dev tap0 mode tap");
    ip("link set tap0 address 02:00:00:00:00:01");
    ip("address add 192.0.2.1/24 dev tap0");
    ip("link set tap0 up");
    ip("neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev tap0");
    Some(())
}

/// Runs `ip` with words.
pub(crate) fn ip(words: &str) {
    let status = Command::new("ip")
        .args(words.split(' '))
        .stdin(Stdio::null())
        .status()
        .expect("iproute2's ip");
    assert!(status.success(), "ip {words}");
}

/// A queue of the TAP, to be inherited.
pub(crate) fn tap_queue() -> OwnedFd {
    use libc::{IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_VNET_HDR};
    queue_of(TAP, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE)
}

/// A queue of the interface `name`, opened in the mode that `flags` say.
pub(crate) fn queue_of(name: &str, flags: libc::c_int) -> OwnedFd {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    let driver = fs::File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: zeros are a value of all its fields.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the kernel reads an `ifreq`.
    let attached = unsafe { libc::ioctl(driver.as_raw_fd(), TUNSETIFF, &raw const request) };
    assert_eq!(attached, 0, "{}", io::Error::last_os_error());
    // Over exec as well.
    let inherited = nix::fcntl::fcntl(&driver, nix::fcntl::FcntlArg::F_DUPFD(100)).unwrap();
    // SAFETY: the descriptor was made just now.
    unsafe { OwnedFd::from_raw_fd(inherited) }
}

/// A packet socket on the TAP: sees what the guest sends and sends what the guest sees.
pub(crate) struct Wiretap(OwnedFd);

impl Wiretap {
    /// Each packet has a virtio_net_hdr of 10 bytes before it.
    pub(crate) const HEADER: usize = 10;

    pub(crate) fn open() -> Self {
        Self::on(TAP)
    }

    /// On another interface than the TAP.
    pub(crate) fn on(interface: &str) -> Self {
        let all = libc::ETH_P_ALL as u16;
        // SAFETY: a system call with numbers.
        let fd = unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, all.to_be().into())
        };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptor was made just now.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let one: libc::c_int = 1;
        // SAFETY: the option is an int.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_VNET_HDR,
                (&raw const one).cast(),
                4,
            )
        };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
        // SAFETY: zeros are a value of all its fields.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = all.to_be();
        address.sll_ifindex = nix::net::if_::if_nametoindex(interface).unwrap() as i32;
        // SAFETY: a sockaddr_ll with its length.
        let address = unsafe {
            SockaddrStorage::from_raw(
                (&raw const address).cast(),
                Some(size_of::<libc::sockaddr_ll>() as u32),
            )
        };
        bind(socket.as_raw_fd(), &address.unwrap()).unwrap();
        Self(socket)
    }

    /// Sends a frame to the guest.
    pub(crate) fn send(&self, frame: &[u8]) {
        self.send_with([0; Self::HEADER], frame);
    }

    /// Sends a frame with a header, such as one to be segmented.
    pub(crate) fn send_with(&self, header: [u8; Self::HEADER], frame: &[u8]) {
        let packet = [&header, frame].concat();
        nix::unistd::write(&self.0, &packet).unwrap();
    }

    /// The next frame of the experiment's EtherType that the guest has sent, in time.
    pub(crate) fn receive(&self, timeout: Duration) -> Option<Vec<u8>> {
        self.receive_of(EXPERIMENT, timeout)
    }

    /// As [`Wiretap::receive`], of another EtherType.
    pub(crate) fn receive_of(&self, ether_type: u16, timeout: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        let mut packet = vec![0; 70_000];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let fd = std::os::fd::AsFd::as_fd(&self.0);
            let mut fds = [nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)];
            let millis = nix::poll::PollTimeout::try_from(left.as_millis()).unwrap();
            if nix::poll::poll(&mut fds, millis).unwrap() == 0 {
                return None;
            }
            let len = nix::unistd::read(&self.0, &mut packet).unwrap();
            let frame = &packet[Self::HEADER..len];
            // A packet socket sees what it sends as well.
            if frame[6..12] == GUEST_MAC && frame[12..14] == ether_type.to_be_bytes() {
                return Some(frame.to_vec());
            }
        }
    }
}

/// A frame of the experiment between guest and host.
pub(crate) fn frame(to: [u8; 6], from: [u8; 6], payload: &[u8]) -> Vec<u8> {
    [&to, &from, EXPERIMENT.to_be_bytes().as_slice(), payload].concat()
}

/// The checksum of an IPv4 header, or of anything else made of 16-bit words.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An Ethernet frame with IPv4 around `payload`.
pub(crate) fn ipv4(to_guest: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (from, to) = if to_guest { (HOST_IP, GUEST_IP) } else { (GUEST_IP, HOST_IP) };
    let (from_mac, to_mac) = if to_guest { (HOST_MAC, GUEST_MAC) } else { (GUEST_MAC, HOST_MAC) };
    let len = (20 + payload.len()) as u16;
    let mut header = [0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0].to_vec();
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header.extend_from_slice(&from);
    header.extend_from_slice(&to);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&to_mac, &from_mac, [8, 0].as_slice(), &header, payload].concat()
}

/// The sum over the pseudo-header, which is what a sender leaves where the checksum goes.
pub(crate) fn pseudo_sum(protocol: u8, len: usize) -> u16 {
    let len = (len as u16).to_be_bytes();
    let pseudo = [HOST_IP.as_slice(), &GUEST_IP, &[0, protocol], &len].concat();
    !checksum(&pseudo)
}
