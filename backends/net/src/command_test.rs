use proptest::prelude::*;

use super::{Addresses, Command, MAX_ADDRESSES, Mode, NotCommand};
use crate::mac::MacError;
use crate::offload::{Features, bit_of};

const ALL: Features = Features::new(u64::MAX);

fn parse(message: &[u8]) -> Result<Command, NotCommand> {
    Command::parse(message, ALL)
}

fn table(addresses: usize) -> Vec<u8> {
    [(addresses as u32).to_le_bytes().to_vec(), [[2; 6]].repeat(addresses).into_flattened()]
        .concat()
}

#[test]
fn each_command_is_read_as_the_specification_writes_it() {
    let modes = [
        Mode::Promiscuous,
        Mode::AllMulticast,
        Mode::AllUnicast,
        Mode::NoMulticast,
        Mode::NoUnicast,
        Mode::NoBroadcast,
    ];
    for (number, mode) in (0u8..).zip(modes) {
        assert_eq!(parse(&[0, number, 1]), Ok(Command::Receive(mode, true)));
        assert_eq!(parse(&[0, number, 0]), Ok(Command::Receive(mode, false)));
    }
    let (one, two) = (Addresses::These(vec![[2; 6]]), Addresses::These(vec![[2; 6]; 2]));
    let message = [vec![1, 0], table(1), table(2)].concat();
    assert_eq!(parse(&message), Ok(Command::Table { unicast: one, multicast: two }));
    let mac = "02:00:00:00:00:07".parse().unwrap();
    assert_eq!(parse(&[1, 1, 2, 0, 0, 0, 0, 7]), Ok(Command::Address(mac)));
    assert_eq!(parse(&[2, 0, 0xff, 0x0f]), Ok(Command::Vlan { id: 4095, passes: true }));
    assert_eq!(parse(&[2, 1, 5, 0]), Ok(Command::Vlan { id: 5, passes: false }));
    assert_eq!(parse(&[3, 0]), Ok(Command::Announced));
    assert_eq!(parse(&[4, 0, 4, 0]), Ok(Command::Pairs(4)));
    let tso4 = Features::new(bit_of(1) | bit_of(7));
    let chosen = Command::parse(&[5, 0, 0x82, 0, 0, 0, 0, 0, 0, 0], Features::new(tso4.bits() | 4));
    assert_eq!(chosen, Ok(Command::Offloads(Features::new(tso4.bits() | 4))));
}

#[test]
fn a_message_of_another_length_is_refused() {
    let messages: [&[u8]; 13] = [
        &[0, 0],
        &[0, 0, 1, 1],
        &[1, 0],
        &[1, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
        &[1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        &[1, 1, 2, 0, 0, 0, 0],
        &[1, 1, 2, 0, 0, 0, 0, 0, 0],
        &[2, 0, 1],
        &[2, 1, 1, 0, 0],
        &[3, 0, 0],
        &[4, 0, 1],
        &[5, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    for message in messages {
        assert!(matches!(parse(message), Err(NotCommand::Data { .. })), "{message:?}");
    }
    assert_eq!(parse(&[]), Err(NotCommand::Length { len: 0 }));
    assert_eq!(parse(&[0]), Err(NotCommand::Length { len: 1 }));
}

#[test]
fn values_that_mean_nothing_are_refused() {
    assert_eq!(parse(&[0, 0, 2]), Err(NotCommand::Switch { value: 2 }));
    assert_eq!(parse(&[1, 1, 1, 0, 0, 0, 0, 7]), Err(NotCommand::Address(MacError::Multicast)));
    assert_eq!(parse(&[1, 1, 0, 0, 0, 0, 0, 0]), Err(NotCommand::Address(MacError::Zero)));
    assert_eq!(parse(&[2, 0, 0, 0x10]), Err(NotCommand::Vlan { id: 4096 }));
    let offloads = [5, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(parse(&offloads), Err(NotCommand::Offloads { offloads: 1 }));
}

#[test]
fn commands_that_do_not_exist_or_were_not_accepted_are_refused() {
    for (class, command) in
        [(0, 6), (1, 2), (2, 2), (3, 1), (4, 1), (4, 2), (5, 1), (6, 0), (255, 255)]
    {
        assert_eq!(parse(&[class, command, 0]), Err(NotCommand::Unknown { class, command }));
    }
    let messages: [&[u8]; 7] = [
        &[0, 0, 1],
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[1, 1, 2, 0, 0, 0, 0, 7],
        &[2, 0, 1, 0],
        &[3, 0],
        &[4, 0, 1, 0],
        &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    for message in messages {
        assert!(parse(message).is_ok(), "{message:?}");
        let refused = Command::parse(message, Features::new(0));
        assert!(matches!(refused, Err(NotCommand::Unknown { .. })), "{message:?}");
    }
}

#[test]
fn a_table_keeps_so_many_addresses_and_no_more() {
    let table_of = |addresses| match parse(&[vec![1, 0], table(addresses), table(0)].concat()) {
        Ok(Command::Table { unicast, .. }) => unicast,
        other => panic!("{other:?}"),
    };
    assert_eq!(table_of(MAX_ADDRESSES), Addresses::These(vec![[2; 6]; MAX_ADDRESSES]));
    assert_eq!(table_of(MAX_ADDRESSES + 1), Addresses::All);
}

proptest! {
    #[test]
    fn any_message_is_read_or_refused(
        class in 0u8..8,
        command in 0u8..8,
        data in prop::collection::vec(any::<u8>(), 0..64),
        features: u64,
    ) {
        let message = [vec![class, command], data].concat();
        let _either = Command::parse(&message, Features::new(features));
    }
}
