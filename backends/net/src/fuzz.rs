//! What fuzzers call, with bytes of theirs in the place of a driver's. It finds out by crashing.

use crate::command::Command;
use crate::filter::Filter;
use crate::header::{HEADER, TransmitHeader};
use crate::offload::Features;

/// The header of a packet: the features that were accepted, the length of the frame, the header.
/// What passes must say of the frame only what is true, and pass again as it is.
pub fn headers(data: &[u8]) {
    let Some((features, data)) = data.split_first_chunk() else { return };
    let Some((len, data)) = data.split_first_chunk() else { return };
    let Some((header, _)) = data.split_first_chunk::<HEADER>() else { return };
    let features = Features::new(u64::from_le_bytes(*features));
    let len = u32::from_le_bytes(*len) as usize;
    let Ok(passed) = TransmitHeader::parse(*header, len, features) else { return };
    let bytes = passed.to_bytes();
    assert_eq!(TransmitHeader::parse(bytes, len, features), Ok(passed));
    let [flags, _, h0, h1, _, _, c0, c1, o0, o1, ..] = bytes;
    let word = |low, high| usize::from(u16::from_le_bytes([low, high]));
    assert!(word(h0, h1) <= len, "headers end within the frame");
    assert!(flags == 0 || word(c0, c1) + word(o0, o1) + 2 <= len, "so does the checksum");
}

/// A message on the control queue, behind the features that were accepted. What it says of packets
/// must be said of every frame.
pub fn commands(data: &[u8]) {
    let Some((features, message)) = data.split_first_chunk() else { return };
    let features = Features::new(u64::from_le_bytes(*features));
    let mut filter = Filter::new(features, None);
    match Command::parse(message, features) {
        Ok(Command::Receive(mode, on)) => filter.set_mode(mode, on),
        Ok(Command::Table { unicast, multicast }) => filter.set_table(unicast, multicast),
        Ok(Command::Vlan { id, passes }) => filter.set_vlan(id, passes),
        Ok(Command::Address(mac)) => filter.set_own(mac),
        _ => return,
    }
    let _either = filter.passes(message);
}
