//! What fuzzers call, with bytes of theirs: in the place of a front-end's messages, of a driver's
//! rings, of a record that a dead process left. It finds out by crashing.

use std::cell::Cell;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use vm_memory::{Bytes, GuestAddress};

use crate::back_channel::ConfigChange;
use crate::device::{ConfigRefused, Device, DeviceError, Identity, Wait, Worker};
use crate::inflight::InflightRegion;
use crate::memory::Memory;
use crate::serve;
use crate::signals::EndRequest;
use crate::vring::{RingSetup, Vring, VringError};

/// So many messages, because nobody reads the replies.
const MESSAGES: usize = 24;
/// So many rounds of a ring, which may describe itself and so never end.
const ROUNDS: usize = 64;
const MEMORY: u64 = 0x1_0000;
const RING: u64 = 0x1000;

/// Bytes that are consumed from the front, and then are zeroes.
struct Input<'a>(Cell<&'a [u8]>);

impl<'a> Input<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self(Cell::new(data))
    }

    fn bytes(&self, count: usize) -> &'a [u8] {
        let all = self.0.get();
        let (taken, left) = all.split_at(count.min(all.len()));
        self.0.set(left);
        taken
    }

    fn word<const N: usize>(&self) -> [u8; N] {
        let mut word = [0; N];
        word.iter_mut().zip(self.bytes(N)).for_each(|(byte, given)| *byte = *given);
        word
    }

    fn u8(&self) -> u8 {
        u8::from_le_bytes(self.word())
    }

    fn u16(&self) -> u16 {
        u16::from_le_bytes(self.word())
    }

    fn is_empty(&self) -> bool {
        self.0.get().is_empty()
    }
}

/// A front-end's session: for each message its number, its kind (the low bits say which descriptors
/// come with it, the high ones whether its frame is right), a length and a payload.
pub fn session(data: &[u8]) {
    static END: OnceLock<Option<Arc<EndRequest>>> = OnceLock::new();
    let prepare = || {
        // As in any Rust program, which a fuzzer's is not.
        // SAFETY: there is no handler to be wrong.
        let _ignored = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
        EndRequest::listen().ok()
    };
    let Some(end) = END.get_or_init(prepare) else { return };
    let Ok((front_end, connection)) = UnixStream::pair() else { return };
    let (Ok(memory), Ok(event)) = (shared_memory(), EventFd::from_flags(EfdFlags::EFD_NONBLOCK))
    else {
        return;
    };
    let fds = [memory.as_raw_fd(), event.as_raw_fd(), front_end.as_raw_fd()];
    let input = Input::new(data);
    for _ in 0..MESSAGES {
        if input.is_empty() || !send(&front_end, &input, fds) {
            break;
        }
    }
    let _closed = front_end.shutdown(std::net::Shutdown::Write);
    let device: Arc<dyn Device> = Arc::new(Echo);
    let _served = serve::serve(&device, None, connection, &ConfigChange::default(), end);
}

/// Sends a message. False when it does not fit into the socket any more.
fn send(socket: &UnixStream, input: &Input<'_>, [memory, event, other]: [RawFd; 3]) -> bool {
    let (request, kind, len) = (u32::from(input.u8()), input.u8(), usize::from(input.u8()));
    let payload = input.bytes(len);
    let fds: &[RawFd] = match kind & 7 {
        0 | 1 => &[],
        2 | 3 => &[memory],
        4 | 5 => &[event],
        6 => &[other],
        _ => &[memory; 9],
    };
    let flags = if kind & 0xc0 == 0xc0 { u32::from(kind) } else { 1 | u32::from(kind & 8) };
    let size = if kind & 0x30 == 0x30 { u32::from(kind) << 4 } else { payload.len() as u32 };
    let header = [request, flags, size].map(u32::to_ne_bytes);
    let iov = [IoSlice::new(header.as_flattened()), IoSlice::new(payload)];
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &iov, control, flags, None).is_ok()
}

fn shared_memory() -> std::io::Result<std::fs::File> {
    let file = std::fs::File::from(memfd_create(c"fuzz", MFdFlags::MFD_CLOEXEC)?);
    file.set_len(MEMORY)?;
    Ok(file)
}

/// A device that gives back what it reads.
struct Echo;

impl Device for Echo {
    fn identity(&self) -> Identity {
        Identity { name: "echo", device_type: 42, features: 0xff, queues: 2, max_queue_size: 128 }
    }

    fn config(&self) -> Vec<u8> {
        vec![7; 24]
    }

    fn write_config(&self, offset: usize, _data: &[u8]) -> Result<(), ConfigRefused> {
        if offset == 8 { Ok(()) } else { Err(ConfigRefused { field: "all but one byte" }) }
    }

    fn open_queue(&self, _index: u16, _features: u64) -> Result<Box<dyn Worker>, DeviceError> {
        Ok(Box::new(EchoQueue))
    }

    fn pairs_queues(&self) -> bool {
        true
    }

    fn reset(&self) {}
}

struct EchoQueue;

impl Worker for EchoQueue {
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError> {
        let mut kept = Vec::new();
        while let Some(chain) = vring.next()? {
            let written = chain.buffers().map_or(0, |(mut reader, mut writer)| {
                let mut bytes = [0; 300];
                let count = reader.copy_to(&mut bytes);
                writer.copy_from(bytes.get(..count).unwrap_or_default())
            });
            let _status = chain.last_byte().is_some_and(|mut byte| byte.write_obj(&1u8));
            match written % 4 {
                // More than there is room for.
                0 => vring.complete(chain, u32::MAX)?,
                1 => kept.push((chain, 1)),
                2 => {
                    vring.complete_together(kept.drain(..))?;
                    vring.complete(chain, 2)?;
                }
                _ => {
                    vring.give_back(chain)?;
                    break;
                }
            }
        }
        vring.complete_together(kept)?;
        Ok(Wait::kick())
    }
}

/// A ring in memory that is all the driver's to describe, and a device that gives back what it reads.
pub fn chains(data: &[u8]) {
    serve_queue(data, &Echo, 0);
}

/// Queue `index` of a device, whose ring is in memory that is all the driver's to describe: a byte
/// for size and features, the index to start at, the bytes of the record if there is one, and the
/// memory from the descriptor table on, behind which are the available and the used ring.
pub fn serve_queue(data: &[u8], device: &dyn Device, index: u16) {
    let input = Input::new(data);
    let Some(mut vring) = ring(&input, index) else { return };
    let Ok(mut worker) = device.open_queue(index, u64::MAX) else { return };
    let mut round = || -> Result<bool, VringError> {
        vring.begin_round()?;
        worker.serve(&mut vring)?;
        vring.call_if_wanted()?;
        vring.want_kicks(0)
    };
    let mut rounds = (0..ROUNDS).map(|_| round());
    // Until there is no more to do, or the ring breaks.
    let _end = rounds.find(|more| !matches!(more, Ok(true)));
    drop(rounds);
    let _drained = worker.drain(&mut vring);
}

fn ring(input: &Input<'_>, index: u16) -> Option<Vring> {
    let (kind, next_avail) = (input.u8(), input.u16());
    let size = 1u16 << (kind & 7);
    let entries = u64::from(size);
    let descriptors = RING;
    let avail = descriptors.saturating_add(entries.saturating_mul(16));
    let used = avail.saturating_add(entries.saturating_mul(2)).saturating_add(6);
    let used = used.next_multiple_of(4);
    let inflight = if kind & 0x80 == 0 { None } else { Some(record_of(input, size)?) };
    // Neighbours for the guest, and not here.
    let half = MEMORY / 2;
    let regions = [(GuestAddress(0), half as usize), (GuestAddress(half), half as usize)];
    let memory = Memory::from_ranges(&regions).ok()?;
    let rest = input.bytes((MEMORY - RING) as usize);
    memory.write_slice(rest, GuestAddress(RING)).ok()?;
    let setup = RingSetup {
        index,
        size,
        descriptors: GuestAddress(descriptors),
        avail: GuestAddress(avail),
        used: GuestAddress(used),
        next_avail,
        event_idx: kind & 0x20 != 0,
        indirect: kind & 0x40 != 0,
        call: None,
        call_due: false,
        inflight: inflight.map(|region| region.queue(0, size)).transpose().ok()?,
    };
    Vring::new(setup, &memory).ok()
}

fn record_of(input: &Input<'_>, size: u16) -> Option<InflightRegion> {
    let (file, len) = InflightRegion::make(1, size).ok()?;
    file.write_all_at(input.bytes(usize::from(size).saturating_mul(16).saturating_add(16)), 0)
        .ok()?;
    InflightRegion::map(file, 0, len, 1, size).ok()
}

/// A record that a dead process left, or somebody else: read, and then gone on with.
pub fn record(data: &[u8]) {
    let input = Input::new(data);
    let size = 1u16 << (input.u8() & 7);
    let used = input.u16();
    let Some(region) = record_of(&input, size) else { return };
    let Ok(mut queue) = region.queue(0, size) else { return };
    let Ok(recovered) = queue.recover(used) else { return };
    assert!(recovered.resubmit.len() <= usize::from(size));
    let mut left = recovered.resubmit;
    assert!(left.iter().all(|&head| head < size));
    let mut used = used;
    while let Some(head) = left.pop_front() {
        let done = queue.before_used(head).and_then(|()| {
            used = used.wrapping_add(1);
            queue.after_used(used)
        });
        assert!(done.is_ok());
    }
    let Ok(mut next) = region.queue(0, size) else { return };
    let Ok(recovered) = next.recover(used) else { return };
    assert!(recovered.resubmit.is_empty(), "what is done is not in flight");
    assert_eq!(recovered.next_avail, Some(used));
}
