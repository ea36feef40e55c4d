//! What is turned on a network card while packets run: its cable, and a limit for each direction.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use atoll_driver::{Buffer, NetHeader, TIMEOUT};

use crate::network::{self, GUEST_MAC, HOST_MAC, frame};
use crate::rig::{MOMENT, RECEIVE, Rig, TRANSMIT, USUAL};

const STATUS: u64 = 1 << 16;

/// A card with a control socket.
pub(crate) struct Card {
    pub(crate) rig: Rig,
    control: PathBuf,
    pub(crate) dir: tempfile::TempDir,
}

impl Card {
    pub(crate) fn start(features: u64, more: &[&str]) -> Option<Self> {
        network::enter()?;
        Some(Self::serve(features, |_| [&["--tap=tap0"], more].concat().join("\n")))
    }

    /// Serves what `args` says of a directory of its own, an option a line, in a network that was entered.
    pub(crate) fn serve(features: u64, args: impl FnOnce(&Path) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let control = dir.path().join("control.sock");
        let args = format!("{}\n--control-socket={}", args(dir.path()), control.display());
        let args: Vec<_> = args.lines().map(str::to_owned).collect();
        Self { rig: Rig::serve(features, &args), control, dir }
    }

    /// The body of a yes.
    #[track_caller]
    pub(crate) fn ask(&self, what: &str, body: &str) -> String {
        let mut client = UnixStream::connect(&self.control).unwrap();
        client.set_read_timeout(Some(TIMEOUT)).unwrap();
        let length = body.len();
        write!(
            client,
            "{what} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.trim_end().to_owned()
    }

    fn counted(&self, what: &str) -> u64 {
        let metrics = self.ask("GET /metrics", "");
        let line = metrics.lines().find_map(|line| line.strip_prefix(what));
        assert!(line.is_some(), "{what} in {metrics}");
        line.unwrap().trim().parse().unwrap()
    }

    pub(crate) fn dropped(&self, direction: &str, reason: &str) -> u64 {
        let labels = format!("{{device=\"net\",reason=\"{reason}\"}}");
        self.counted(&format!("atoll_{direction}_dropped_total{labels}"))
    }

    pub(crate) fn wait_until(&self, what: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !what(self) {
            assert!(start.elapsed() < TIMEOUT, "it does not happen");
        }
    }

    fn wait_until_throttled(&self, queue: usize) {
        let name = format!("atoll_throttled_total{{device=\"net\",queue=\"{queue}\"}}");
        self.wait_until(|card| card.counted(&name) > 0);
    }

    /// The status field of configuration space (virtio 1.3 §5.1.4).
    fn status(&mut self) -> Vec<u8> {
        self.rig.device.config(6, 2).unwrap()
    }

    /// Makes a packet available to be sent.
    fn submit(&mut self, frame: &[u8]) {
        let packet = [NetHeader::default().to_bytes().as_slice(), frame].concat();
        let address = self.rig.memory().put(&packet).unwrap();
        self.rig.transmit.submit(&[Buffer::readable(address, packet.len() as u32)]).unwrap();
    }
}

pub(crate) fn to_host(number: u8) -> Vec<u8> {
    frame(HOST_MAC, GUEST_MAC, &[number; 64])
}

pub(crate) fn to_guest(number: u8) -> Vec<u8> {
    frame(GUEST_MAC, HOST_MAC, &[number; 64])
}

#[test]
fn a_pulled_cable_is_seen_by_the_driver_and_carries_nothing() {
    let Some(mut card) = Card::start(USUAL | STATUS, &[]) else { return };
    card.rig.post(16, 1536);
    card.rig.check_alive();
    assert_eq!(card.status(), [1, 0]);

    assert_eq!(card.ask("PATCH /link", r#"{"up": false}"#), r#"{"up":false}"#);
    card.rig.device.wait_config_change(TIMEOUT).unwrap();
    assert_eq!(card.status(), [0, 0]);
    card.rig.send(NetHeader::default(), &to_host(1));
    assert_eq!(card.dropped("tx", "link-down"), 1);
    assert_eq!(card.rig.wire.receive(MOMENT), None);
    card.rig.wire.send(&to_guest(1));
    card.wait_until(|card| card.dropped("rx", "link-down") > 0);
    assert!(card.rig.packet_within(MOMENT).is_none());

    assert_eq!(card.ask("PATCH /link", r#"{"up": true}"#), r#"{"up":true}"#);
    card.rig.device.wait_config_change(TIMEOUT).unwrap();
    assert_eq!(card.status(), [1, 0]);
    card.rig.check_alive();
}

#[test]
fn a_cable_may_be_pulled_from_the_start() {
    let Some(mut card) = Card::start(USUAL | STATUS, &["--link=down"]) else { return };
    assert_eq!(card.status(), [0, 0]);
    assert!(card.ask("GET /", "").contains(r#""up":false"#));
    card.rig.send(NetHeader::default(), &to_host(1));
    assert_eq!(card.rig.wire.receive(MOMENT), None);
}

#[test]
fn packets_of_the_guest_wait_for_their_limit_and_keep_their_order() {
    let Some(mut card) = Card::start(USUAL, &["--limit-tx-bps=1", "--limit-rx-pps=1000"]) else {
        return;
    };
    for number in 0..8 {
        card.submit(&to_host(number));
    }
    assert_eq!(card.rig.wire.receive(TIMEOUT), Some(to_host(0)));
    card.wait_until_throttled(TRANSMIT);
    assert_eq!(card.rig.wire.receive(MOMENT), None);
    // The ring stops with what waits still to be done, and goes on with it.
    let base = card.rig.device.stop_queue(&card.rig.transmit).unwrap();
    assert_eq!(base, 1);
    card.rig.device.attach(&card.rig.transmit, base).unwrap();
    assert_eq!(card.rig.wire.receive(MOMENT), None);
    let limits = card.ask("PATCH /limits", r#"{"tx_bps": 0}"#);
    assert!(limits.contains(r#""rx_pps":1000"#) && limits.contains(r#""tx_bps":0"#), "{limits}");
    for number in 1..8 {
        assert_eq!(card.rig.wire.receive(TIMEOUT), Some(to_host(number)));
    }
    assert_eq!(card.dropped("tx", "refused"), 0);
}

#[test]
fn packets_for_the_guest_wait_for_their_limit_and_keep_their_order() {
    let Some(mut card) = Card::start(USUAL, &["--limit-rx-bps=1"]) else { return };
    card.rig.post(64, 1536);
    for number in 0..8 {
        card.rig.wire.send(&to_guest(number));
    }
    assert_eq!(card.rig.next_packet().1, to_guest(0));
    card.wait_until_throttled(RECEIVE);
    assert!(card.rig.packet_within(MOMENT).is_none());
    // The other direction has no limit.
    for number in 0..8 {
        card.rig.send(NetHeader::default(), &to_host(number));
        assert_eq!(card.rig.wire.receive(TIMEOUT), Some(to_host(number)));
    }
    card.ask("PATCH /limits", r#"{"rx_bps": 0, "rx_pps": 1000000}"#);
    for number in 1..8 {
        assert_eq!(card.rig.next_packet().1, to_guest(number));
    }
}

#[test]
fn a_burst_is_so_many_bytes_of_frames_or_so_many_of_them() {
    let long = |to, from, number| frame(to, from, &[number; 600 - 14]);
    let bytes = ["--limit-rx-bps=1", "--limit-rx-bps-burst=1000"];
    let bytes = [bytes, ["--limit-tx-bps=1", "--limit-tx-bps-burst=1000"]].concat();
    let Some(mut card) = Card::start(USUAL, &bytes) else { return };
    card.rig.post(64, 1536);
    for number in 0..3 {
        card.rig.wire.send(&long(GUEST_MAC, HOST_MAC, number));
        card.submit(&long(HOST_MAC, GUEST_MAC, number));
    }
    // The second is paid for by those after it, which takes minutes.
    for number in 0..2 {
        assert_eq!(card.rig.next_packet().1, long(GUEST_MAC, HOST_MAC, number));
        let sent = card.rig.wire.receive(TIMEOUT);
        assert_eq!(sent, Some(long(HOST_MAC, GUEST_MAC, number)));
    }
    card.wait_until_throttled(RECEIVE);
    card.wait_until_throttled(TRANSMIT);
    assert!(card.rig.packet_within(MOMENT).is_none());
    assert_eq!(card.rig.wire.receive(MOMENT), None);
    drop(card);

    let packets = ["--limit-rx-pps=1", "--limit-rx-pps-burst=64"];
    let packets = [packets, ["--limit-tx-pps=1", "--limit-tx-pps-burst=64"]].concat();
    let Some(mut card) = Card::start(USUAL, &packets) else { return };
    card.rig.post(64, 1536);
    for number in 0..64 {
        card.rig.wire.send(&to_guest(number));
        card.submit(&to_host(number));
    }
    for number in 0..64 {
        assert_eq!(card.rig.next_packet().1, to_guest(number));
        assert_eq!(card.rig.wire.receive(TIMEOUT), Some(to_host(number)));
    }
}

#[test]
fn nothing_waits_for_a_limit_while_the_cable_is_pulled() {
    let limits = ["--limit-rx-bps=1", "--limit-tx-bps=1"];
    let Some(mut card) = Card::start(USUAL | STATUS, &limits) else { return };
    card.rig.post(64, 1536);
    for number in 0..8 {
        card.rig.wire.send(&to_guest(number));
        card.submit(&to_host(number));
    }
    assert_eq!(card.rig.next_packet().1, to_guest(0));
    assert_eq!(card.rig.wire.receive(TIMEOUT), Some(to_host(0)));
    card.wait_until_throttled(RECEIVE);
    card.wait_until_throttled(TRANSMIT);
    card.ask("PATCH /link", r#"{"up": false}"#);
    card.wait_until(|card| card.dropped("rx", "link-down") == 7);
    (0..8).for_each(|_| assert_eq!(card.rig.transmit.wait(TIMEOUT).unwrap().len, 0));
    assert_eq!(card.dropped("tx", "link-down"), 7);
}

#[test]
fn a_card_whose_queues_wait_for_a_limit_is_reset_and_ends_when_it_is_asked_to() {
    let Some(mut card) = Card::start(USUAL, &["--limit-rx-bps=1", "--limit-tx-pps=1"]) else {
        return;
    };
    card.rig.post(64, 1536);
    for number in 0..4 {
        card.rig.wire.send(&to_guest(number));
        card.submit(&to_host(number));
    }
    card.wait_until_throttled(RECEIVE);
    card.wait_until_throttled(TRANSMIT);
    card.rig.reattach(USUAL);
    let (status, stderr) = card.rig.process.terminate().unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}
