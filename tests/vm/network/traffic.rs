//! One stock guest on a TAP, and all that networks carry and go through in a day: offloads on and
//! off, small and large MTUs, both families, VLANs, groups, a driver that is taken away, a TAP that
//! is.
//!
//! A boot costs more than most of this, so it is one guest.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use atoll_tests::guest::Guest;
use atoll_tests::image::{md5, pattern};
use atoll_tests::network::{Tap, iperf_server};
use atoll_tests::process::{run, tool};
use atoll_tests::requirement::Requirement::{Artifact, Program, Root, StockKvm};
use atoll_tests::scratch::Scratch;
use atoll_tests::{artifacts, load, require, wait_for};

/// Sends datagrams of many sizes to whom sends each back, and wants them as they were.
const DATAGRAMS: &str = r#"
import os, socket, sys
host, port = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
lost = 0
for size in list(range(8, 1500, 97)) + [1472, 1473, 8000, 8972, 8973, 20000, 60000]:
    data = os.urandom(size)
    for attempt in range(5):
        s.sendto(data, (host, port))
        try:
            back = s.recv(65535)
        except TimeoutError:
            lost += 1
            continue
        assert back == data, (size, len(back))
        break
    else:
        sys.exit(f"no datagram of {size} bytes came back")
sys.exit(f"{lost} were lost" if lost > 3 else 0)
"#;

/// Sends as many copies of a file as it is told, or else prints the MD5 sum of what it hears. By far
/// faster than busybox, which reads and writes by the kilobyte.
const TRANSFER: &str = r#"
import hashlib, socket, sys
host, port, copies = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
s = socket.create_connection((host, port))
if copies:
    file = open("/tmp/a", "rb").read()
    for _ in range(copies):
        s.sendall(file)
    s.shutdown(socket.SHUT_WR)
    s.recv(1)
else:
    sum = hashlib.md5()
    while piece := s.recv(1 << 20):
        sum.update(piece)
    print(sum.hexdigest())
"#;

/// Joins a group and says what it hears there.
const MEMBER: &str = r#"
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 9000))
member = socket.inet_aton(sys.argv[1]) + socket.inet_aton(sys.argv[2])
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
print(s.recv(100).decode())
"#;

const GROUP: &str = "239.1.2.3";
const OTHER_GROUP: &str = "239.7.7.7";

#[test]
fn a_guest_keeps_its_network_through_all_that_can_be_done_to_it() {
    require!(StockKvm, Root, Program("iperf3"), Artifact("root.ext4"));
    let (tap, scratch) = (Tap::of_many_queues(), Scratch::new());
    tap.add_v6();
    tool("ip", ["link", "set", tap.name(), "mtu", "9000"]);
    let control = scratch.join("control");
    let mut guest = Guest::builder()
        .memory("384M")
        .cpus(2)
        .option("--disk", &load::tools(&artifacts::get("root.ext4")))
        .net_with(&tap, ",queue-pairs=4,mtu=9000")
        .option("--control", control.to_str().expect("scratch paths are text"))
        .boot();
    load::prepare(&mut guest);
    guest.check(&tap.guest_setup("eth0"));
    guest.check(&format!("busybox chroot /mnt /bin/{}", tap.guest_setup_v6("eth0")));
    assert_eq!(guest.check("cat /sys/class/net/eth0/mtu"), "9000", "as the device says");
    guest.check(&format!("busybox chroot /mnt /bin/ping -c 2 -M do -s 8972 {}", tap.host()));
    deliver(&mut guest, &tap, &pattern(1 << 20), "a");
    deliver(&mut guest, &tap, TRANSFER.as_bytes(), "transfer.py");

    let (v4, v6) = (tap.host().to_string(), tap.host_v6().to_string());
    for (pairs, offloads, mtu, host) in
        [(4, "on", 9000, &v4), (4, "off", 9000, &v6), (1, "on", 1500, &v6), (1, "off", 1500, &v4)]
    {
        let what = format!("{pairs} pairs, offloads {offloads}, MTU {mtu}, {host}");
        guest
            .check(&format!("busybox chroot /mnt /usr/sbin/ethtool -L eth0 combined {pairs} 2>&1"));
        set_offloads(&mut guest, offloads);
        guest.check(&format!("ip link set eth0 mtu {mtu}"));
        tool("ip", ["link", "set", tap.name(), "mtu", &mtu.to_string()]);
        transfer_both_ways(&mut guest, &tap, host, &what);
        datagrams_both_ways(&mut guest, host, &tap, &what);
    }
    set_offloads(&mut guest, "on");

    iperf_of_datagrams(&mut guest, &tap);
    vlans(&mut guest, &tap, &control);
    groups(&mut guest, &tap, &control);
    unbound_mid_traffic(&mut guest, &tap);
    tap_taken_away(&mut guest, &tap);
    guest.power_off();
}

/// Both of what the guest's kernel leaves undone for the device, and what the device for it.
#[track_caller]
fn set_offloads(guest: &mut Guest, to: &str) {
    let switches = ["tx", "sg", "tso", "gso", "gro", "rx-gro-hw"];
    let all: String = switches.map(|switch| format!(" {switch} {to}")).concat();
    guest.check(&format!("busybox chroot /mnt /usr/sbin/ethtool -K eth0{all} 2>&1"));
    let shown = guest.check("busybox chroot /mnt /usr/sbin/ethtool -k eth0");
    for name in ["tx-checksumming", "tcp-segmentation-offload", "rx-gro-hw"] {
        assert!(shown.contains(&format!("{name}: {to}\n")), "{shown}");
    }
}

/// Bytes from the host's `host` to the guest, then as many to it.
#[track_caller]
fn transfer_both_ways(guest: &mut Guest, tap: &Tap, host: &str, what: &str) {
    let message = pattern(load::transfer());
    let sum = md5(&Scratch::new().write("sent", &message));
    let (port, sent) = tap.send_to_guest(message);
    let begun = Instant::now();
    let received = guest.check(&transfer(host, port, 0));
    let down = begun.elapsed();
    assert_eq!(received, sum, "from the host to the guest: {what}");
    sent.join().expect("the host's sender");

    let (port, heard) = tap.sum_from_guest();
    let begun = Instant::now();
    let count = load::transfer() >> 20;
    guest.check(&transfer(host, port, count));
    let heard = heard.join().expect("the host's receiver");
    let up = begun.elapsed();
    let sum = md5(&Scratch::new().write("sent", pattern(1 << 20).repeat(count)));
    assert_eq!(heard, sum, "from the guest to the host: {what}");
    println!("{what}: {count} MiB in {down:.1?} to the guest, in {up:.1?} from it");
}

/// The guest's side of a transfer.
fn transfer(host: &str, port: u16, copies: usize) -> String {
    format!("busybox chroot /mnt python3 /tmp/transfer.py {host} {port} {copies}")
}

/// Datagrams from the guest to the host's `host` and back, many of them in fragments.
#[track_caller]
fn datagrams_both_ways(guest: &mut Guest, host: &str, tap: &Tap, what: &str) {
    let socket = UdpSocket::bind((host, 0)).expect("listen on a TAP's address");
    let port = socket.local_addr().expect("a socket has an address").port();
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("set a timeout");
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    let echo = std::thread::spawn(move || {
        let mut datagram = vec![0; 1 << 16];
        while !told.load(Ordering::Relaxed) {
            if let Ok((len, from)) = socket.recv_from(&mut datagram) {
                socket.send_to(&datagram[..len], from).expect("answer the guest");
            }
        }
    });
    deliver(guest, tap, DATAGRAMS.as_bytes(), "datagrams.py");
    let said =
        guest.run(&format!("busybox chroot /mnt python3 /tmp/datagrams.py {host} {port} 2>&1"));
    ended.store(true, Ordering::Relaxed);
    echo.join().expect("the host's echo");
    assert_eq!((said.status, said.stdout.as_str()), (0, ""), "{what}");
}

/// Puts `file` on the guest's `/tmp`, if it is not there yet.
#[track_caller]
fn deliver(guest: &mut Guest, tap: &Tap, file: &[u8], name: &str) {
    if guest.run(&format!("[ -s /tmp/{name} ]")).status != 0 {
        let (port, sent) = tap.send_to_guest(file.to_vec());
        guest.check(&format!("nc {} {port} < /dev/null > /tmp/{name}", tap.host()));
        sent.join().expect("the host's sender");
    }
}

#[track_caller]
fn iperf_of_datagrams(guest: &mut Guest, tap: &Tap) {
    for host in [tap.host().to_string(), tap.host_v6().to_string()] {
        let _server = iperf_server(&host);
        for direction in ["", "--reverse"] {
            let report = guest.check(&format!(
                "busybox chroot /mnt iperf3 --json --udp --bitrate 20M --bytes 1M --client {host} {direction}"
            ));
            let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
            let count = |name: &str| report["end"]["sum"][name].as_u64().expect("a count");
            assert!(
                count("packets") > 0 && count("lost_packets") < count("packets") / 2,
                "{report:#}"
            );
            assert!(report["error"].is_null(), "{report:#}");
        }
    }
}

/// How many frames for the guest the device has kept from it.
#[track_caller]
fn unwanted(control: &Path) -> u64 {
    let control = control.to_str().expect("scratch paths are text");
    let metrics = run("atoll", ["ctl", "--socket", control, "metrics"]).stdout;
    let name = "atoll_rx_dropped_total{device=\"net0\",reason=\"unwanted\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(name));
    count.and_then(|count| count.parse().ok()).expect("a count of unwanted frames")
}

/// Sends 20 datagrams to `to`, none of which the guest wants.
#[track_caller]
fn check_unwanted(control: &Path, from: &str, to: &str) {
    let before = unwanted(control);
    let socket = UdpSocket::bind((from, 0)).expect("a socket");
    socket.set_broadcast(true).expect("send to all");
    for _ in 0..20 {
        socket.send_to(b"nobody", (to, 9000)).expect("send to nobody");
    }
    wait_for("frames that nobody wants to be kept from the guest", || {
        (unwanted(control) >= before + 20).then_some(())
    });
}

/// The guest gets the packets of the VLANs that it is in, and no others.
#[track_caller]
fn vlans(guest: &mut Guest, tap: &Tap, control: &Path) {
    for id in [5, 6] {
        let (name, id) = (format!("{}.{id}", tap.name()), id.to_string());
        tool("ip", ["link", "add", "link", tap.name(), "name", &name, "type", "vlan", "id", &id]);
        tool("ip", ["address", "add", &format!("10.78.{id}.1/24"), "dev", &name]);
        tool("ip", ["link", "set", &name, "up"]);
    }
    guest.check("busybox chroot /mnt modprobe 8021q");
    let join = |id| {
        format!(
            "ip link add link eth0 name eth0.{id} type vlan id {id} && \
             ip address add 10.78.{id}.2/24 dev eth0.{id} && ip link set eth0.{id} up && \
             ping -c 3 10.78.{id}.1"
        )
    };
    guest.check(&join(5));
    transfer_both_ways(guest, tap, "10.78.5.1", "a VLAN");
    check_unwanted(control, "10.78.6.1", "10.78.6.255");
    guest.check(&join(6));
    guest.check("ip link delete eth0.5 && ip link delete eth0.6");
    check_unwanted(control, "10.78.5.1", "10.78.5.255");
}

/// The guest gets the packets of the groups that it has joined, and no others.
#[track_caller]
fn groups(guest: &mut Guest, tap: &Tap, control: &Path) {
    tool("ip", ["route", "add", "239.0.0.0/8", "dev", tap.name()]);
    deliver(guest, tap, MEMBER.as_bytes(), "member.py");
    let address = tap.guest();
    guest.check(&format!(
        "(busybox chroot /mnt python3 /tmp/member.py {GROUP} {address} > /tmp/heard 2>&1) &"
    ));
    let host = tap.host().to_string();
    let socket = UdpSocket::bind((host.as_str(), 0)).expect("a socket");
    wait_for("the group's member to hear", || {
        socket.send_to(b"hello group", (GROUP, 9000)).expect("send to a group");
        (guest.run("[ -s /tmp/heard ]").status == 0).then_some(())
    });
    assert_eq!(guest.check("cat /tmp/heard"), "hello group");
    check_unwanted(control, &host, OTHER_GROUP);
}

/// The driver goes and comes back, and a stream goes on where it was.
#[track_caller]
fn unbound_mid_traffic(guest: &mut Guest, tap: &Tap) {
    let backends = guest.backends();
    let stream = tap.stream_to_guest();
    let (host, port) = (tap.host(), stream.port);
    guest.check(&format!("(nc {host} {port} < /dev/null | md5sum > /tmp/down) 2> /dev/null &"));
    for _ in 0..3 {
        guest.rebind("/sys/class/net/eth0/device");
        guest.check(&tap.guest_setup("eth0"));
        guest.check(&format!("ping -c 1 -w 20 {host}"));
    }
    let sent = stream.end();
    wait_for("the end of the guest's stream", || {
        (guest.run("[ -s /tmp/down ]").status == 0).then_some(())
    });
    assert_eq!(guest.check("cat /tmp/down"), format!("{sent}  -"), "from the host to the guest");
    assert_eq!(guest.backends(), backends, "a backend lives on through a reset");
}

/// The TAP is gone for good: the guest lives without it.
#[track_caller]
fn tap_taken_away(guest: &mut Guest, tap: &Tap) {
    tool("ip", ["link", "delete", tap.name()]);
    guest.vmm().wait_to_say("is gone");
    for _ in 0..3 {
        guest.run(&format!("ping -c 1 -W 1 {}", tap.host()));
    }
    guest.check("dd if=/dev/urandom of=/tmp/b bs=1M count=1 2> /dev/null && md5sum /tmp/b");
    let said = guest.vmm().stderr();
    let complaints: Vec<_> = said.lines().filter(|line| line.contains("is gone")).collect();
    for vring in 0..complaints.len() {
        let of_it = format!("vring {vring} stopped");
        let times = complaints.iter().filter(|line| line.contains(&of_it)).count();
        assert_eq!(times, 1, "once for each queue in use:\n{said}");
    }
}
