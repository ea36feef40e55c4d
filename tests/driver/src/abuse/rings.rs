//! Rings: of impossible sizes, outside of memory, misaligned, over each other, of queues that do not
//! exist; their descriptors what can't be waited for or signalled.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::handshake::{
    Handshake, MEMORY, SET_VRING_ADDR, SET_VRING_BASE, SET_VRING_CALL, SET_VRING_ENABLE,
    SET_VRING_ERR, SET_VRING_KICK, SET_VRING_NUM, vring_addr, vring_state,
};
use super::{Abuse, Told, strange_files, words};
use crate::Error;

/// In the message of a descriptor: there is none.
const NO_FD: u64 = 1 << 8;

pub(super) fn all(handshake: &Handshake) -> Result<Vec<Abuse>, Error> {
    let mut all = numbers(handshake);
    all.extend(addresses(handshake)?);
    all.extend(descriptors(handshake)?);
    all.extend(full_events(handshake)?);
    Ok(all)
}

fn numbers(handshake: &Handshake) -> Vec<Abuse> {
    let wrong = [
        (SET_VRING_NUM, 0, 0),
        (SET_VRING_NUM, 0, 3),
        (SET_VRING_NUM, 0, 2048),
        (SET_VRING_NUM, 0, 65536),
        (SET_VRING_NUM, 0, u32::MAX),
        (SET_VRING_NUM, 200, 64),
        (SET_VRING_NUM, 65536, 64),
        (SET_VRING_NUM, u32::MAX, 64),
        // Larger than the record has room for.
        (SET_VRING_NUM, 0, 128),
        (SET_VRING_BASE, 0, 1),
        (SET_VRING_BASE, 0, 65535),
        (SET_VRING_BASE, 0, 65536),
        (SET_VRING_BASE, 200, 0),
        (SET_VRING_ENABLE, 0, 2),
        (SET_VRING_ENABLE, 200, 1),
        (SET_VRING_ENABLE, 65536, 1),
    ];
    let abuse = |(request, index, number)| {
        handshake.with(format!("ring {index}: request {request} says {number}"), request, |told| {
            told.with_payload(vring_state(index, number))
        })
    };
    wrong.into_iter().map(abuse).collect()
}

fn addresses(handshake: &Handshake) -> Result<Vec<Abuse>, Error> {
    let [guest_descriptors, guest_avail, guest_used] = handshake.queue.ring().addresses();
    let user = |guest| handshake.memory.user_address(guest);
    let (descriptors, avail, used) =
        (user(guest_descriptors)?, user(guest_avail)?, user(guest_used)?);
    let end = descriptors - guest_descriptors + handshake.memory.end();
    let wrong = [
        ("nowhere", [0, 0, 0]),
        ("at the end of addresses", [u64::MAX - 15, u64::MAX - 1, u64::MAX - 3]),
        ("behind memory", [end, avail, used]),
        ("before memory", [end - MEMORY - 16, avail, used]),
        ("with its table over the end of memory", [end - 16, avail, used]),
        ("with its available part over the end of memory", [descriptors, end - 4, used]),
        ("with its used part over the end of memory", [descriptors, avail, end - 8]),
        ("with its table at an odd address", [descriptors + 1, avail, used]),
        ("with its available part at an odd address", [descriptors, avail + 1, used]),
        ("with its used part at an odd address", [descriptors, avail, used + 2]),
        ("of which all parts are one", [descriptors; 3]),
    ];
    let abuse = |(what, addresses)| {
        handshake.with(format!("ring {what}"), SET_VRING_ADDR, move |told| {
            told.with_payload(vring_addr(0, addresses))
        })
    };
    let mut all: Vec<_> = wrong.into_iter().map(abuse).collect();
    all.push(handshake.with("addresses of ring 200", SET_VRING_ADDR, |told| {
        told.with_payload(vring_addr(200, [descriptors, avail, used]))
    }));
    Ok(all)
}

fn descriptors(handshake: &Handshake) -> Result<Vec<Abuse>, Error> {
    let mut all = Vec::new();
    for request in [SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR] {
        for (what, file) in strange_files()? {
            all.push(handshake.with(
                format!("ring: request {request} with {what}"),
                request,
                |told| told.with_fds(vec![file.clone()]),
            ));
        }
        all.push(handshake.with(format!("ring: request {request} without"), request, |told| {
            told.with_payload(words(&[NO_FD])).with_fds(Vec::new())
        }));
        all.push(handshake.with(format!("ring 200: request {request}"), request, |told| {
            told.with_payload(words(&[200]))
        }));
    }
    Ok(all)
}

/// Events that count no further, and block who signals them.
fn full_events(handshake: &Handshake) -> Result<[Abuse; 2], Error> {
    let full = || -> Result<Arc<File>, Error> {
        let failed = |errno| Error::system("making an event", errno);
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(failed)?;
        event.write(u64::MAX - 1).map_err(failed)?;
        Ok(Arc::new(OwnedFd::from(event).into()))
    };
    let handed_over = |abuse: &mut Abuse, request, times| {
        let event = full()?;
        let told = |told: Told| match told.header {
            [this, ..] if this == request => vec![told.with_fds(vec![event.clone()]); times],
            _ => vec![told],
        };
        abuse.messages = std::mem::take(&mut abuse.messages).into_iter().flat_map(told).collect();
        abuse.blocks = Some(event);
        Ok(())
    };
    let mut call =
        handshake.with("ring: a call that is full and blocks", SET_VRING_CALL, Told::clone);
    // Often enough for it to be signalled while it does.
    handed_over(&mut call, SET_VRING_CALL, 100)?;
    let nowhere = |told: &Told| told.with_payload(vring_addr(0, [0, 0, 0]));
    let mut error =
        handshake.with("ring nowhere: an error that is full and blocks", SET_VRING_ADDR, nowhere);
    handed_over(&mut error, SET_VRING_ERR, 1)?;
    Ok([call, error])
}
