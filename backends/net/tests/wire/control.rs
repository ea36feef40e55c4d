//! The control queue: what the driver asks for is done, and what it may not ask for is refused.

use atoll_driver::{Buffer, HostileChain, TIMEOUT, VERSION_1, assert_steady};

use crate::frames::{pattern, segmented, tcp_segment};
use crate::line::{CONTROL, CTRL_GUEST_OFFLOADS, CTRL_RX, CTRL_VLAN, CTRL_VQ, ERR, Line, OK};
use crate::network::{self, EXPERIMENT, GUEST_MAC, HOST_MAC, frame};
use crate::rig::{CSUM, Rig, USUAL};

const CONTROL_QUEUE: usize = 2;
const PROMISCUOUS: u8 = 0;
const ALL_MULTICAST: u8 = 1;
const NO_BROADCAST: u8 = 5;
const STRANGER: [u8; 6] = [2, 0, 0, 0, 0, 9];
const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 9];
const EVERYBODY: [u8; 6] = [0xff; 6];

/// A device that knows its address, with a driver that accepts `features`.
fn start(features: u64) -> Option<(Rig, Line)> {
    network::enter()?;
    let mut rig = Rig::serve(features, &["--tap=tap0".into(), "--mac=02:00:00:00:00:02".into()]);
    let line = Line::open(&mut rig.device, CONTROL_QUEUE);
    rig.post(128, 1536);
    Some((rig, line))
}

fn table(addresses: &[[u8; 6]]) -> Vec<u8> {
    [&(addresses.len() as u32).to_le_bytes(), addresses.as_flattened()].concat()
}

fn tagged(vlan: u16) -> Vec<u8> {
    let tag = [[0x81, 0], vlan.to_be_bytes(), EXPERIMENT.to_be_bytes()];
    [&GUEST_MAC, &HOST_MAC, tag.as_flattened(), &[9; 60]].concat()
}

/// Sends frames to the guest; which of them it gets.
fn passing(rig: &mut Rig, frames: &[Vec<u8>]) -> Vec<bool> {
    // What passes always tells when all before it have come.
    let last = frame(GUEST_MAC, HOST_MAC, b"the last of them");
    frames.iter().chain([&last]).for_each(|frame| rig.wire.send(frame));
    let mut got = Vec::new();
    loop {
        let (header, frame) = rig.next_packet();
        assert_eq!(header.num_buffers, 1);
        if frame == last {
            break;
        }
        got.push(frame);
    }
    rig.post(got.len() + 1, 1536);
    let passing: Vec<_> = frames.iter().map(|frame| got.contains(frame)).collect();
    assert_eq!(passing.iter().filter(|passes| **passes).count(), got.len(), "each comes once");
    passing
}

fn to(destinations: &[[u8; 6]]) -> Vec<Vec<u8>> {
    let numbered = destinations.iter().zip(0u8..);
    numbered.map(|(to, number)| frame(*to, HOST_MAC, &[number; 60])).collect()
}

#[test]
fn each_feature_is_offered_and_a_command_of_one_that_was_not_accepted_is_refused() {
    let Some((mut rig, mut line)) = start(USUAL | CONTROL) else { return };
    assert_eq!(rig.device.queue_count().unwrap(), 3);
    let commands: [(&[u8], u64); 7] = [
        (&[0, 0, 1], 1 << 18),
        (&[0, 5, 0], 1 << 20),
        (&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1 << 18),
        (&[1, 1, 2, 0, 0, 0, 0, 2], 1 << 23),
        (&[2, 0, 7, 0], 1 << 19),
        (&[3, 0], 1 << 21),
        (&[5, 0, 2, 0, 0, 0, 0, 0, 0, 0], 1 << 2),
    ];
    for (command, _) in commands {
        assert_eq!(line.ask(command), OK, "{command:?}");
    }
    for (command, feature) in commands {
        rig.reattach((USUAL | CONTROL) & !feature);
        let mut line = Line::open(&mut rig.device, CONTROL_QUEUE);
        assert_eq!(line.ask(command), ERR, "{command:?}");
    }
    rig.check_alive();
}

#[test]
fn the_guest_gets_everything_until_it_says_what_it_wants() {
    let Some((mut rig, mut line)) = start(USUAL | CONTROL) else { return };
    let frames = to(&[GUEST_MAC, STRANGER, GROUP, EVERYBODY]);
    assert_eq!(passing(&mut rig, &frames), [true; 4]);
    assert_eq!(line.ask(&[0, PROMISCUOUS, 0]), OK);
    assert_eq!(passing(&mut rig, &frames), [true, false, false, true]);
    assert_eq!(line.ask(&[0, ALL_MULTICAST, 1]), OK);
    assert_eq!(passing(&mut rig, &frames), [true, false, true, true]);
    assert_eq!(line.ask(&[0, ALL_MULTICAST, 0]), OK);
    assert_eq!(line.ask(&[0, NO_BROADCAST, 1]), OK);
    assert_eq!(passing(&mut rig, &frames), [true, false, false, false]);
    // Another driver finds it as it was at first.
    rig.reattach(USUAL | CONTROL);
    rig.post(64, 1536);
    assert_eq!(passing(&mut rig, &frames), [true; 4]);
}

#[test]
fn a_table_of_addresses_passes_and_one_that_is_too_long_passes_all() {
    let Some((mut rig, mut line)) = start(USUAL | CONTROL) else { return };
    assert_eq!(line.ask(&[0, PROMISCUOUS, 0]), OK);
    let frames = to(&[STRANGER, [2, 0, 0, 0, 0, 8], GROUP, [1, 0, 0x5e, 0, 0, 8]]);
    assert_eq!(line.ask(&[vec![1, 0], table(&[STRANGER]), table(&[GROUP])].concat()), OK);
    assert_eq!(passing(&mut rig, &frames), [true, false, true, false]);
    assert_eq!(line.ask(&[vec![1, 0], table(&[]), table(&[GROUP; 5000])].concat()), OK);
    assert_eq!(passing(&mut rig, &frames), [false, false, true, true]);
    assert_eq!(line.ask(&[vec![1, 0], table(&[]), table(&[])].concat()), OK);
    assert_eq!(passing(&mut rig, &frames), [false; 4]);
}

#[test]
fn only_vlans_that_were_added_pass() {
    let Some((mut rig, mut line)) = start(USUAL | CONTROL) else { return };
    assert_eq!(line.ask(&[0, PROMISCUOUS, 0]), OK);
    let frames = [5, 6, 4095].map(tagged);
    assert_eq!(passing(&mut rig, &frames), [false; 3]);
    assert_eq!(line.ask(&[2, 0, 5, 0]), OK);
    assert_eq!(line.ask(&[2, 0, 0xff, 0x0f]), OK);
    assert_eq!(passing(&mut rig, &frames), [true, false, true]);
    assert_eq!(line.ask(&[2, 1, 5, 0]), OK);
    assert_eq!(passing(&mut rig, &frames), [false, false, true]);
    // A driver that does not filter gets them all.
    rig.reattach(USUAL | CTRL_VQ | CTRL_RX);
    let mut line = Line::open(&mut rig.device, CONTROL_QUEUE);
    rig.post(64, 1536);
    assert_eq!(line.ask(&[0, PROMISCUOUS, 0]), OK);
    assert_eq!(passing(&mut rig, &frames), [true; 3]);
}

#[test]
fn a_packet_in_many_small_buffers_is_filtered_too() {
    let Some((mut rig, _)) = start(USUAL | CONTROL) else { return };
    rig.reattach(USUAL | CONTROL & !CTRL_VLAN);
    let mut line = Line::open(&mut rig.device, CONTROL_QUEUE);
    assert_eq!(line.ask(&[0, PROMISCUOUS, 0]), OK);
    // The first has room for the header and a part of an address.
    rig.post(40, 15);
    rig.wire.send(&frame(STRANGER, HOST_MAC, &[1; 60]));
    let wanted = frame(GUEST_MAC, HOST_MAC, &[2; 60]);
    rig.wire.send(&wanted);
    let (header, got) = rig.next_packet();
    assert_eq!((header.num_buffers, got), (6, wanted));
}

#[test]
fn a_new_address_is_told_and_filtered_by() {
    let Some((mut rig, mut line)) = start(USUAL | CONTROL) else { return };
    assert_eq!(line.ask(&[0, PROMISCUOUS, 0]), OK);
    assert_eq!(line.ask(&[[1, 1].as_slice(), &STRANGER].concat()), OK);
    rig.device.wait_config_change(TIMEOUT).unwrap();
    assert_eq!(rig.device.config(0, 6).unwrap(), STRANGER);
    for wrong in [GROUP, [0; 6]] {
        assert_eq!(line.ask(&[[1, 1].as_slice(), &wrong].concat()), ERR);
    }
    rig.wire.send(&frame(GUEST_MAC, HOST_MAC, &[1; 60]));
    let wanted = frame(STRANGER, HOST_MAC, &[2; 60]);
    rig.wire.send(&wanted);
    assert_eq!(rig.next_packet().1, wanted);
    rig.reattach(USUAL | CONTROL);
    assert_eq!(rig.device.config(0, 6).unwrap(), GUEST_MAC, "another driver finds the first one");
}

#[test]
fn offloads_go_off_and_on_again() {
    let Some((mut rig, mut line)) = start(USUAL | CONTROL) else { return };
    let offloads = |bits: u64| [[5, 0].as_slice(), &bits.to_le_bytes()].concat();
    let (csum, tso4) = (1 << 1, 1 << 7);
    for _ in 0..2 {
        assert_eq!(line.ask(&offloads(0)), OK);
        rig.wire.send_with(segmented(), &tcp_segment(&pattern(4 * 1448)));
        for _ in 0..4 {
            let (header, _) = rig.next_packet();
            assert_eq!((header.flags & 1, header.gso_type), (0, 0), "it is finished");
        }
        assert_eq!(line.ask(&offloads(csum | tso4)), OK);
        rig.wire.send_with(segmented(), &tcp_segment(&pattern(4 * 1448)));
        let (header, _) = rig.next_packet();
        assert_eq!((header.flags & 1, header.gso_type), (1, 1), "it is left to the guest");
        rig.post(64, 1536);
    }
    for wrong in [1, tso4 << 1, 1 << 63, u64::MAX] {
        assert_eq!(line.ask(&offloads(wrong)), ERR, "{wrong:#x}");
    }
}

#[test]
fn another_driver_gets_unfinished_what_it_accepts_whatever_the_one_before_chose() {
    let Some((mut rig, mut line)) = start(USUAL | CONTROL) else { return };
    assert_eq!(line.ask(&[5, 0, 0, 0, 0, 0, 0, 0, 0, 0]), OK);
    rig.reattach(USUAL | CONTROL);
    rig.post(64, 1536);
    rig.wire.send_with(segmented(), &tcp_segment(&pattern(4 * 1448)));
    let (header, _) = rig.next_packet();
    assert_eq!((header.flags & 1, header.gso_type), (1, 1), "it is left to the guest");
}

#[test]
fn messages_that_mean_nothing_are_refused_and_cost_nothing() {
    let Some((mut rig, mut line)) = start(USUAL | CONTROL) else { return };
    let messages: [&[u8]; 16] = [
        &[0],
        &[0, 0],
        &[0, 0, 2],
        &[0, 0, 1, 1],
        &[0, 6, 1],
        &[1, 0],
        &[1, 0, 0xff, 0xff, 0xff, 0xff],
        &[1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f],
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &[1, 1, 2, 0, 0],
        &[2, 0, 0, 0x10],
        &[2, 2, 1, 0],
        &[3, 0, 1],
        &[4, 0, 1, 0],
        &[5, 0, 0],
        &[255; 100],
    ];
    let longest = vec![1; 1 << 20];
    assert_steady(3, || {
        for _ in 0..50 {
            for message in messages {
                assert_eq!(line.ask(message), ERR, "{message:?}");
            }
        }
        assert_eq!(line.ask(&longest), ERR, "a message that is too long");
        rig.process.footprint().unwrap()
    });
    rig.check_alive();
    let (status, stderr) = rig.process.terminate().unwrap();
    assert!(status.success() && stderr.lines().count() < 5, "{status}: {stderr}");
}

#[test]
fn hostile_chains_come_back() {
    let Some((mut rig, mut line)) = start(USUAL | CONTROL) else { return };
    let memory = rig.memory();
    for chain in HostileChain::all(&memory, line.queue.ring()).unwrap() {
        line.queue.submit_raw(&chain.descriptors).unwrap();
        let used = line.queue.wait(TIMEOUT).unwrap();
        assert!(used.len <= 1, "{}: {used:?}", chain.name);
    }
    // Nobody would know that it was done.
    let message = memory.put(&[0, PROMISCUOUS, 0]).unwrap();
    line.queue.submit(&[Buffer::readable(message, 3)]).unwrap();
    assert_eq!(line.queue.wait(TIMEOUT).unwrap().len, 0);
    assert_eq!(passing(&mut rig, &to(&[STRANGER])), [true]);
    rig.check_alive();
}

#[test]
fn a_driver_without_the_queue_is_served_as_before() {
    let Some(mut rig) = Rig::start(VERSION_1 | CSUM) else { return };
    assert_eq!(rig.device.offered() & CTRL_GUEST_OFFLOADS, CTRL_GUEST_OFFLOADS);
    rig.check_alive();
    assert!(rig.device.start_queue(CONTROL_QUEUE, 64).is_err(), "there is no such queue");
    rig.reattach(VERSION_1 | CSUM);
    rig.check_alive();
}
