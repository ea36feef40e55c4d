//! The handshake as it should be: every message up to a ring that runs and is stopped again.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use super::{Abuse, Told, file, words};
use crate::{Error, Memory, PROTOCOL_FEATURES, Queue, VERSION_1};

pub(super) const SET_MEM_TABLE: u32 = 5;
pub(super) const SET_VRING_NUM: u32 = 8;
pub(super) const SET_VRING_ADDR: u32 = 9;
pub(super) const SET_VRING_BASE: u32 = 10;
pub(super) const SET_VRING_KICK: u32 = 12;
pub(super) const SET_VRING_CALL: u32 = 13;
pub(super) const SET_VRING_ERR: u32 = 14;
pub(super) const SET_VRING_ENABLE: u32 = 18;
pub(super) const SET_BACKEND_REQ_FD: u32 = 21;
pub(super) const GET_INFLIGHT_FD: u32 = 31;
pub(super) const SET_INFLIGHT_FD: u32 = 32;
pub(super) const ADD_MEM_REG: u32 = 37;

/// VHOST_USER_F_PROTOCOL_FEATURES.
const PROTOCOL: u64 = 1 << 30;

pub(super) const QUEUE_SIZE: u16 = 64;
/// The part of a queue of that size in the record of what is in flight.
pub(super) const RECORD: u64 = 16 + 16 * QUEUE_SIZE as u64 + 48;
/// The bytes of guest memory.
pub(super) const MEMORY: u64 = 1 << 20;

/// All messages of a front-end that behaves.
pub(super) struct Handshake {
    pub(super) memory: Memory,
    pub(super) queue: Queue,
    messages: Vec<Told>,
}

impl Handshake {
    pub(super) fn new() -> Result<Self, Error> {
        let memory = Memory::new(MEMORY)?;
        let queue = Queue::new(&memory, 0, QUEUE_SIZE, VERSION_1)?;
        let messages = messages(&memory, &queue)?;
        Ok(Self { memory, queue, messages })
    }

    pub(super) fn messages(&self) -> &[Told] {
        &self.messages
    }

    /// The handshake in which `change` is made to each message `request`.
    pub(super) fn with(
        &self,
        name: impl Into<String>,
        request: u32,
        change: impl Fn(&Told) -> Told,
    ) -> Abuse {
        let changed = |told: &Told| {
            if told.header.first() == Some(&request) { change(told) } else { told.clone() }
        };
        let messages = self.messages.iter().map(changed).collect();
        Abuse { name: name.into(), messages, abrupt: false, blocks: None }
    }
}

/// The payload of SET_VRING_ADDR with these addresses of the front-end's.
pub(super) fn vring_addr(index: u32, [descriptors, avail, used]: [u64; 3]) -> Vec<u8> {
    words(&[u64::from(index), descriptors, used, avail, 0])
}

/// The payload of GET_INFLIGHT_FD and SET_INFLIGHT_FD.
pub(super) fn inflight(size: u64, offset: u64, queues: u16, queue_size: u16) -> Vec<u8> {
    let shape = u64::from(queues) | u64::from(queue_size) << 16;
    words(&[size, offset, shape])
}

/// The payload of the messages that say a number about a ring.
pub(super) fn vring_state(index: u32, number: u32) -> Vec<u8> {
    [index, number].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn duplicate(fd: &impl AsRawFd) -> Result<Arc<File>, Error> {
    // SAFETY: who lends the descriptor keeps it open for longer than this takes.
    let fd = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
    let copy = fd.try_clone_to_owned();
    copy.map(|fd| Arc::new(File::from(fd)))
        .map_err(|source| Error::system("duplicating a descriptor", source))
}

fn messages(memory: &Memory, queue: &Queue) -> Result<Vec<Told>, Error> {
    let told = |request, payload: Vec<u8>| Told::new(request, payload, Vec::new());
    let with = |request, payload: Vec<u8>, fd| Told::new(request, payload, vec![fd]);
    let (back_channel, _ours) = std::os::unix::net::UnixStream::pair()
        .map_err(|source| Error::system("making a socket pair", source))?;

    let mut table = [1_u32, 0].iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
    let mut files = Vec::new();
    let mut extra = Vec::new();
    for region in memory.table() {
        let guest = region.guest_phys_addr;
        table.extend(words(&[
            guest,
            region.memory_size,
            region.userspace_addr,
            region.mmap_offset,
        ]));
        files.push(duplicate(&region.mmap_handle)?);
        extra = words(&[0, guest + (1 << 32), 4096, 0x1000, 0]);
    }
    let mut addresses = [0; 3];
    for (address, guest) in addresses.iter_mut().zip(queue.ring().addresses()) {
        *address = memory.user_address(guest)?;
    }
    let config = [[0_u32, 8, 0].map(u32::to_ne_bytes).concat(), vec![0; 8]].concat();
    Ok(vec![
        told(3, Vec::new()),
        told(1, Vec::new()),
        told(15, Vec::new()),
        told(16, words(&[PROTOCOL_FEATURES.bits()])),
        told(17, Vec::new()),
        with(SET_BACKEND_REQ_FD, Vec::new(), duplicate(&back_channel)?),
        told(2, words(&[VERSION_1 | PROTOCOL])),
        told(36, Vec::new()),
        Told::new(SET_MEM_TABLE, table, files),
        with(ADD_MEM_REG, extra, file(4096)?),
        told(24, config),
        told(GET_INFLIGHT_FD, inflight(0, 0, 1, QUEUE_SIZE)),
        with(SET_INFLIGHT_FD, inflight(RECORD, 0, 1, QUEUE_SIZE), file(RECORD)?),
        told(SET_VRING_NUM, vring_state(0, QUEUE_SIZE.into())),
        told(SET_VRING_BASE, vring_state(0, 0)),
        told(SET_VRING_ADDR, vring_addr(0, addresses)),
        with(SET_VRING_ERR, words(&[0]), duplicate(&queue.err)?),
        with(SET_VRING_CALL, words(&[0]), duplicate(&queue.call)?),
        with(SET_VRING_KICK, words(&[0]), duplicate(&queue.kick)?),
        told(SET_VRING_ENABLE, vring_state(0, 1)),
        told(11, vring_state(0, 0)),
    ])
}
