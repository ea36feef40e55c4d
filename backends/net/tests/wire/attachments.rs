//! What else than a TAP by its name a network card can be attached to.

use std::os::fd::AsRawFd;
use std::process::Command;

use atoll_driver::{TIMEOUT, VERSION_1};
use nix::net::if_::if_nametoindex;
use nix::sys::signal::Signal;

use crate::network::{self, GUEST_MAC};
use crate::rig::{MRG_RXBUF, Rig, USUAL};

/// A network with a cable, whose end `far` is the outside and whose end `near` is joined to a
/// bridge or a macvtap.
fn enter() -> Option<()> {
    network::enter()?;
    network::ip("link add near type veth peer name far");
    network::ip("link set near up");
    network::ip("link set far up");
    Some(())
}

fn add_bridge() {
    network::ip("link add br0 type bridge");
    network::ip("link set near master br0");
    network::ip("link set br0 up");
}

fn exists(interface: &str) -> bool {
    if_nametoindex(interface).is_ok()
}

/// Waits until an interface is gone.
fn await_removal(interface: &str) {
    let deadline = std::time::Instant::now() + TIMEOUT;
    while exists(interface) {
        assert!(std::time::Instant::now() < deadline, "{interface} is still there");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_tap_is_made_for_a_bridge_and_removed_at_the_end() {
    if enter().is_none() {
        return;
    }
    add_bridge();
    for (pairs, end) in [(1, Signal::SIGTERM), (4, Signal::SIGKILL)] {
        let args = ["--bridge=br0".into(), "--mtu=1400".into(), format!("--queue-pairs={pairs}")];
        let mut rig = Rig::serve_on("far", USUAL, &args);
        assert!(exists("atoll0"));
        rig.post(64, 1536);
        rig.check_alive();
        rig.reattach(USUAL);
        rig.check_alive();
        rig.process.signal(end).unwrap();
        rig.process.wait().unwrap();
        await_removal("atoll0");
    }
}

#[test]
fn a_bridge_keeps_its_address_whatever_card_joins_it() {
    if enter().is_none() {
        return;
    }
    add_bridge();
    let _rig = Rig::serve_on("far", USUAL, &["--bridge=br0".into()]);
    // A bridge takes the lowest address among its ports for its own.
    let shown = Command::new("ip").args(["-o", "link", "show", "atoll0"]).output().unwrap().stdout;
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("link/ether fe:"), "{shown}");
}

#[test]
fn two_cards_on_a_bridge_have_taps_of_their_own() {
    if enter().is_none() {
        return;
    }
    add_bridge();
    let mut first = Rig::serve_on("far", USUAL, &["--bridge=br0".into()]);
    let second = Rig::serve_on("far", USUAL, &["--bridge=br0".into()]);
    assert!(exists("atoll0") && exists("atoll1"));
    drop(second);
    await_removal("atoll1");
    first.check_alive();
}

#[test]
fn a_macvtap_carries_frames_and_says_the_guests_address() {
    if enter().is_none() {
        return;
    }
    network::ip("link add link near name mv0 address 02:00:00:00:00:02 type macvtap mode bridge");
    network::ip("link set mv0 up");
    for pairs in [1, 4] {
        let args = ["--macvtap=mv0".into(), format!("--queue-pairs={pairs}")];
        let mut rig = Rig::serve_on("far", USUAL, &args);
        assert_eq!(rig.device.config(0, 6).unwrap(), GUEST_MAC);
        rig.post(64, 1536);
        rig.check_alive();
        rig.reattach(USUAL);
        rig.check_alive();
        let (status, stderr) = rig.process.terminate().unwrap();
        assert!(status.success(), "{status}: {stderr}");
    }
}

/// A TAP for several queues in the place of the one for a single queue.
fn make_multi_queue() {
    network::ip("link delete tap0");
    network::ip("tuntap add dev tap0 mode tap multi_queue");
    network::ip("link set tap0 up");
}

#[test]
fn a_tap_of_several_queues_serves_a_single_pair() {
    if network::enter().is_none() {
        return;
    }
    make_multi_queue();
    let mut rig = Rig::serve(USUAL, &["--tap=tap0".into()]);
    rig.check_alive();
}

#[test]
fn queues_of_a_tap_may_be_inherited() {
    if network::enter().is_none() {
        return;
    }
    make_multi_queue();
    let queues = [network::tap_queue(), network::tap_queue()];
    let args = queues.each_ref().map(|queue| format!("--tap-fd={}", queue.as_raw_fd()));
    let mut rig = Rig::serve(VERSION_1 | MRG_RXBUF, &args);
    assert_eq!(rig.device.config(8, 2).unwrap(), [2, 0]);
    drop(queues);
    rig.check_alive();
}
