use super::{MOST, OneByOne};

/// How often a packet is read, and how often there is none, until all of `bursts` are there: each so
/// many packets, before the next of which all of them are read.
fn reads(packets: &mut OneByOne, bursts: &[u32]) -> (u32, u32) {
    let (mut waits, mut in_vain) = (0, 0);
    for burst in bursts {
        let mut left = *burst;
        while left > 0 {
            waits += 1;
            let mut found = 0;
            while !packets.is_all(found) {
                if left == 0 {
                    packets.ended(found);
                    in_vain += 1;
                    break;
                }
                left -= 1;
                found += 1;
            }
        }
    }
    (waits, in_vain)
}

#[test]
fn where_packets_come_one_by_one_few_reads_are_in_vain() {
    let (waits, in_vain) = reads(&mut OneByOne::default(), &[1; 900]);
    assert_eq!(waits, 900);
    assert!((100..105).contains(&in_vain), "{in_vain}");
}

#[test]
fn bursts_are_read_at_once() {
    assert_eq!(reads(&mut OneByOne::default(), &[32; 100]), (100, 100));
}

#[test]
fn a_burst_after_single_packets_is_read_at_once_but_for_its_first() {
    let mut packets = OneByOne::default();
    reads(&mut packets, &[1; 100]);
    let (waits, _) = reads(&mut packets, &[100]);
    assert!(waits <= MOST + 1, "{waits}");
    assert_eq!(reads(&mut packets, &[100]), (1, 1));
}

#[test]
fn a_packet_between_bursts_changes_little() {
    let mut packets = OneByOne::default();
    let (waits, in_vain) = reads(&mut packets, &[8, 1].repeat(100));
    // The one after it is taken for another of its kind, if that is the first of a burst.
    assert_eq!((waits, in_vain), (299, 200));
}

#[test]
fn waking_for_something_else_says_nothing() {
    let mut packets = OneByOne::default();
    packets.ended(1);
    packets.ended(0);
    assert!(packets.is_all(1));
    packets.ended(2);
    packets.ended(0);
    assert!(!packets.is_all(1));
}
