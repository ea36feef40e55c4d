//! A back-end's own record of what it has in flight, kept for its successor (vhost-user, "Inflight
//! I/O tracking").
//!
//! It is the back-ends' memory: it is never mapped here, so nothing they do to it can hurt.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// "An inflight description", with the padding that every implementation has at its end.
pub(super) const DESCRIPTION_SIZE: usize = 24;

/// The record, as a back-end made it.
#[derive(Debug)]
pub(super) struct Inflight {
    description: [u8; DESCRIPTION_SIZE],
    region: OwnedFd,
}

impl Inflight {
    /// Body of GET_INFLIGHT_FD: a record for that many queues of that size.
    pub(super) fn wanted(queues: u16, queue_size: u16) -> [u8; DESCRIPTION_SIZE] {
        let mut body = [0; DESCRIPTION_SIZE];
        let words = [queues, queue_size].into_iter().flat_map(u16::to_le_bytes);
        for (byte, value) in body.iter_mut().skip(16).zip(words) {
            *byte = value;
        }
        body
    }

    /// The record that a back-end made; none if it says that it has made none.
    ///
    /// # Errors
    /// What contradicts itself in it.
    pub(super) fn new(
        description: [u8; DESCRIPTION_SIZE],
        region: Option<OwnedFd>,
    ) -> Result<Option<Self>, String> {
        let has_size = description.iter().take(8).any(|&byte| byte != 0);
        match (has_size, region) {
            (true, Some(region)) => Ok(Some(Self { description, region })),
            (false, None) => Ok(None),
            (true, None) => Err("its record of what is in flight has no memory".to_owned()),
            (false, Some(_)) => Err("its record of what is in flight has size 0".to_owned()),
        }
    }

    /// Body of SET_INFLIGHT_FD.
    pub(super) fn body(&self) -> &[u8] {
        &self.description
    }
}

impl AsFd for Inflight {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.region.as_fd()
    }
}
