//! The Ethernet address of a network card that was given none: the same at each start, and another
//! one for each card on a network. What is given on a command line is not looked at here.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use siphasher::sip::SipHasher24;

use crate::config::NetTo;

/// machine-id(5): 128 random bits in hexadecimal, the host's own.
const HOST: &str = "/etc/machine-id";
const HOST_DIGITS: usize = 32;

/// What tells a card from all others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    /// What tells the host from others.
    pub(super) host: Option<&'a str>,
    /// What tells the machine from others of the host: where its control socket is.
    pub(super) vm: Option<&'a Path>,
    /// What tells the device from others of the machine.
    pub(super) id: &'a str,
}

/// What tells this host from others, if it has that.
pub(super) fn host() -> Option<String> {
    // A host may do without, and then its cards have to.
    let text = fs::read_to_string(HOST).ok()?;
    let text = text.trim();
    let is_id = text.len() == HOST_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_id.then(|| text.to_owned())
}

/// The address of the card that is attached to `to`; `None` where nothing tells it from others on
/// its network, and the guest has to make one up.
pub(super) fn derived(to: &NetTo, origin: Origin<'_>) -> Option<String> {
    let Origin { host, vm, id } = origin;
    let vm = vm.and_then(|vm| std::path::absolute(vm).ok());
    let place;
    let parts: [&[u8]; 4] = match to {
        // The host has one of that name, and one card is attached to it.
        NetTo::Tap(name) => [b"tap", host?.as_bytes(), name.as_bytes(), b""],
        // So of a socket that is bound there, whichever kind it is.
        NetTo::Datagrams(here, _) | NetTo::StreamServer(here) => {
            place = std::path::absolute(here).ok()?;
            [b"dgram", host?.as_bytes(), place.as_os_str().as_bytes(), b""]
        }
        // Its network has nobody else.
        NetTo::User(_) => [b"user", host.unwrap_or_default().as_bytes(), b"", id.as_bytes()],
        NetTo::Bridge(_) | NetTo::Stream(_) => {
            [b"vm", host?.as_bytes(), vm.as_ref()?.as_os_str().as_bytes(), id.as_bytes()]
        }
        // It has one of its own, and gets packets to no other.
        NetTo::Macvtap(_) => return None,
    };
    // No part has a zero in it.
    let [first, b, c, d, e, last, ..] = SipHasher24::new().hash(&parts.join(&0)).to_le_bytes();
    // IEEE 802: locally administered, and not a group's.
    let first = first & !1 | 2;
    Some(format!("{first:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{last:02x}"))
}

#[cfg(test)]
#[path = "address_test.rs"]
mod tests;
