//! A network without privileges, as a stock guest and the host see it: an address for the asking, a
//! way out, a way in, and a passt that dies.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;

use atoll_tests::backend::Backend;
use atoll_tests::guest::Guest;
use atoll_tests::image::{md5, pattern};
use atoll_tests::network::Tap;
use atoll_tests::requirement::Requirement::{Program, Root, StockKvm};
use atoll_tests::scratch::Scratch;
use atoll_tests::{procfs, program, qemu, require, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Through a network without offloads.
const TRANSFER: usize = 4 << 20;

/// What busybox's DHCP client runs with what it was offered.
const LEASE: &str = concat!(
    r#"printf '%s\n' '#!/bin/sh' '[ "$1" = bound ] || exit 0' "#,
    r#"'ip address add $ip/$mask dev $interface' 'ip route add default via $router' > /tmp/lease && "#,
    "chmod +x /tmp/lease && ip link set eth0 up && ",
    "busybox udhcpc -f -n -q -i eth0 -s /tmp/lease 2>&1",
);

/// The gateway's address is the host's loopback.
const GATEWAY: &str = "$(ip route | awk '/^default/ { print $3 }')";

#[test]
fn a_network_without_privileges_comes_back_when_passt_dies() {
    require!(StockKvm, Root, Program("passt"));
    // passt gives the guest what the host has, which must then have a way out.
    let tap = Tap::new();
    tap.be_way_out();
    let mut guest = Guest::builder().user_net(",hostfwd=tcp:127.0.0.1:20022:22").boot();
    let backends = guest.backends();
    lease(&mut guest);
    fetch(&mut guest);
    be_asked(&mut guest);

    let keeper = keeper(&guest);
    for (passt, _) in procfs::children(keeper) {
        kill(Pid::from_raw(i32::try_from(passt).expect("a pid")), Signal::SIGKILL).expect("kill");
    }
    guest.vmm().wait_to_say("lost the user-mode network of passt");
    wait_for("another passt", || (!procfs::children(keeper).is_empty()).then_some(()));
    // The new one has not heard of the guest, which says nothing of its own accord.
    be_asked(&mut guest);
    fetch(&mut guest);
    assert_eq!(guest.backends(), backends, "no device process died of it");
    guest.power_off();
}

/// The process that keeps passt.
#[track_caller]
fn keeper(guest: &Guest) -> u32 {
    let backends = guest.backends().into_keys();
    let keepers: Vec<_> = backends.flat_map(procfs::children).map(|(pid, _)| pid).collect();
    assert_eq!(keepers.len(), 1, "one device has a process that keeps another");
    keepers[0]
}

// Under QEMU it runs where the kernel's KVM can't run a stock guest.
#[test]
fn a_network_without_privileges_gives_an_address_and_passes_both_ways_under_qemu() {
    require!(Root, Program("qemu-system-x86_64"), Program("passt"));
    // passt gives the guest what the host has, which must then have a way out.
    let tap = Tap::new();
    tap.be_way_out();
    let mut net = Backend::start(|socket| {
        let mut command = Command::new(program::ours("atoll-net"));
        command.arg("--socket-path").arg(socket);
        command.args(["--user-net", "--hostfwd=tcp:127.0.0.1:20022:22"]);
        command
    });
    let mut guest = qemu::builder().net(net.socket()).boot();
    lease(&mut guest);
    fetch(&mut guest);
    be_asked(&mut guest);
    be_asked(&mut guest);
    guest.power_off();
    assert_eq!(net.stop().code, 0);
}

/// The guest takes an address, and makes what the transfers need.
#[track_caller]
fn lease(guest: &mut Guest) {
    guest.check(LEASE);
    guest.check(&format!(
        "dd if=/dev/urandom of=/tmp/a bs=1M count={} 2> /dev/null; \
         mkfifo /tmp/silence; sleep 1000 > /tmp/silence &",
        TRANSFER >> 20
    ));
}

/// The guest gets a file from a service on the host.
#[track_caller]
fn fetch(guest: &mut Guest) {
    let message = pattern(TRANSFER);
    let sum = md5(&Scratch::new().write("sent", &message));
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen on the host");
    let port = listener.local_addr().expect("a listener has an address").port();
    let sent = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept the guest");
        stream.write_all(&message).expect("send to the guest");
        stream.shutdown(Shutdown::Write).expect("say the end to the guest");
        let _nothing = stream.read(&mut [0]);
    });
    // Debian 12's passt stalls what the guest has still to hear once it has said its end.
    let received = guest.check(&format!("nc {GATEWAY} {port} < /tmp/silence | md5sum"));
    assert_eq!(received, format!("{sum}  -"), "from the host to the guest");
    sent.join().expect("the host's sender");
}

/// The host gets a file from a service in the guest, through the port that leads there.
#[track_caller]
fn be_asked(guest: &mut Guest) {
    guest.check("(nc -l -p 22 < /tmp/a > /tmp/asked) &");
    guest.check("until grep -q ':0016 .* 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done");
    let mut stream = TcpStream::connect("127.0.0.1:20022").expect("the forwarded port");
    // Debian 12's passt lets the guest begin when the host has said something.
    stream.write_all(b"send\n").expect("ask the guest");
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).expect("hear from the guest");
    drop(stream);
    let sent = guest.check("md5sum < /tmp/a");
    let heard = md5(&Scratch::new().write("heard", heard));
    assert_eq!(sent, format!("{heard}  -"), "from the guest to the host");
    wait_for("the guest's service to end", || {
        (guest.run("grep -q send /tmp/asked && ! ps | grep -q '[n]c -l'").status == 0).then_some(())
    });
}
