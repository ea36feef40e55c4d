//! The driver's side of one queue: adds chains, kicks when asked to, waits for used buffers.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor, EVENT_IDX, Error, Memory, Ring};

/// One buffer of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Guest address.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// Whether the device writes it.
    pub writable: bool,
}

impl Buffer {
    /// A buffer that the device reads.
    pub fn readable(addr: u64, len: u32) -> Self {
        Self { addr, len, writable: false }
    }

    /// A buffer that the device writes.
    pub fn writable(addr: u64, len: u32) -> Self {
        Self { addr, len, writable: true }
    }

    fn flags(self) -> u16 {
        if self.writable { DESC_WRITE } else { 0 }
    }
}

/// A chain that the device has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The head, as [`Queue::submit`] returned it.
    pub head: u16,
    /// How many bytes the device says it wrote.
    pub len: u32,
}

/// A split virtqueue from the driver's side. It outlives the connection that serves it.
#[derive(Debug)]
pub struct Queue {
    index: usize,
    ring: Ring,
    event_idx: bool,
    /// The next available index; the ring shows it only after [`Queue::publish`].
    next_avail: u16,
    published: u16,
    next_used: u16,
    free: Vec<u16>,
    /// The descriptors of each outstanding chain, by head.
    chains: Vec<Option<Vec<u16>>>,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
    pub(crate) err: EventFd,
    calls: u64,
}

impl Queue {
    /// A queue with a fresh ring, which no device knows yet.
    ///
    /// # Errors
    /// No memory, or no eventfds.
    pub fn new(memory: &Memory, index: usize, size: u16, features: u64) -> Result<Self, Error> {
        let eventfd = || {
            EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
                .map_err(|source| Error::system("making an eventfd", source))
        };
        Ok(Self {
            index,
            ring: Ring::new(memory, size)?,
            event_idx: features & EVENT_IDX != 0,
            next_avail: 0,
            published: 0,
            next_used: 0,
            free: (0..size).rev().collect(),
            chains: vec![None; usize::from(size)],
            kick: eventfd()?,
            call: eventfd()?,
            err: eventfd()?,
            calls: 0,
        })
    }

    /// The queue's index in its device.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The ring's bytes, for hostile drivers.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// How many calls the device has made so far, as far as they were waited for.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// How many chains the device has not used yet.
    pub fn outstanding(&self) -> usize {
        self.chains.iter().filter(|chain| chain.is_some()).count()
    }

    /// How many descriptors are free.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Adds a chain, publishes it and kicks if the device wants to be kicked.
    ///
    /// # Errors
    /// [`Error::Full`] when too few descriptors are free.
    pub fn submit(&mut self, buffers: &[Buffer]) -> Result<u16, Error> {
        let head = self.add(buffers)?;
        self.publish()?;
        Ok(head)
    }

    /// Adds a chain without showing it to the device.
    ///
    /// # Errors
    /// [`Error::Full`] when too few descriptors are free.
    pub fn add(&mut self, buffers: &[Buffer]) -> Result<u16, Error> {
        let taken = self.take(buffers.len())?;
        for (place, (&index, buffer)) in taken.iter().zip(buffers).enumerate() {
            let next = taken.get(place + 1);
            let more = if next.is_some() { DESC_NEXT } else { 0 };
            let descriptor = Descriptor {
                addr: buffer.addr,
                len: buffer.len,
                flags: buffer.flags() | more,
                next: next.copied().unwrap_or(0),
            };
            self.ring.write_descriptor(index, descriptor)?;
        }
        self.make_available(taken)
    }

    /// Adds a chain as one indirect descriptor, without showing it to the device.
    ///
    /// # Errors
    /// [`Error::Full`] when no descriptor is free, [`Error::NoMemory`] when there is no room for the table.
    pub fn add_indirect(&mut self, buffers: &[Buffer]) -> Result<u16, Error> {
        let last = buffers.len().saturating_sub(1);
        let table: Vec<Descriptor> = (0_u16..)
            .zip(buffers)
            .map(|(place, buffer)| {
                let more = usize::from(place) < last;
                Descriptor {
                    addr: buffer.addr,
                    len: buffer.len,
                    flags: buffer.flags() | if more { DESC_NEXT } else { 0 },
                    next: if more { place + 1 } else { 0 },
                }
            })
            .collect();
        let taken = self.take(1)?;
        let descriptor = Descriptor {
            addr: self.ring.write_table(&table)?,
            len: u32::try_from(size_of_val(table.as_slice())).unwrap_or(u32::MAX),
            flags: DESC_INDIRECT,
            next: 0,
        };
        for &index in &taken {
            self.ring.write_descriptor(index, descriptor)?;
        }
        self.make_available(taken)
    }

    /// Shows everything added to the device, and kicks if it wants to be kicked.
    ///
    /// # Errors
    /// [`Error::Access`] when the ring is outside the memory.
    pub fn publish(&mut self) -> Result<(), Error> {
        let old = std::mem::replace(&mut self.published, self.next_avail);
        self.ring.set_avail_index(self.next_avail)?;
        // virtio 1.3 §2.7.13.4.1: the index must be visible before the device's wish is read.
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            // virtio 1.3 §2.7.10: a kick is wanted when the index moved past avail_event.
            let event = self.ring.avail_event()?;
            let new = self.next_avail;
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.ring.kick_wanted()?
        };
        if wanted { self.kick() } else { Ok(()) }
    }

    /// Kicks, wanted or not.
    ///
    /// # Errors
    /// The eventfd's.
    pub fn kick(&self) -> Result<(), Error> {
        self.kick.write(1).map_err(|source| Error::system("kicking", source))
    }

    /// Makes who reads the kick wait for one, as the flags of an open file are those of all who have it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_kick_block(&self) -> Result<(), Error> {
        make_block(&self.kick)
    }

    /// Has the call count no further, and the device wait when it makes it: until somebody takes it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_call_block(&self) -> Result<(), Error> {
        let failed = |source| Error::system("filling the call", source);
        // It may have counted nothing so far, and then there is nothing to take.
        let _none = self.call.read();
        self.call.write(u64::MAX - 1).map_err(failed)?;
        make_block(&self.call)
    }

    /// Takes the next used chain if there is one.
    ///
    /// # Errors
    /// [`Error::NotOutstanding`] when the device used what it was not given.
    pub fn take_used(&mut self) -> Result<Option<Used>, Error> {
        if self.ring.used_index()? == self.next_used {
            return Ok(None);
        }
        let (head, len) = self.ring.used(self.next_used)?;
        let wrong = Error::NotOutstanding { queue: self.index, head };
        let Ok(head) = u16::try_from(head) else {
            return Err(wrong);
        };
        let chain = self.chains.get_mut(usize::from(head)).and_then(Option::take);
        let Some(descriptors) = chain else {
            return Err(wrong);
        };
        self.free.extend(descriptors);
        self.next_used = self.next_used.wrapping_add(1);
        Ok(Some(Used { head, len }))
    }

    /// Waits for a used chain, asleep until the device calls.
    ///
    /// # Errors
    /// [`Error::Silent`] when none comes in time.
    pub fn wait(&mut self, timeout: Duration) -> Result<Used, Error> {
        let silent = Error::Silent { queue: self.index, timeout };
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(used) = self.take_used()? {
                return Ok(used);
            }
            // virtio 1.3 §2.7.7.1: say at which index to call, then look once more.
            self.ring.set_used_event(self.next_used)?;
            fence(Ordering::SeqCst);
            if self.ring.used_index()? != self.next_used {
                continue;
            }
            if !self.wait_call(deadline.saturating_duration_since(Instant::now()))? {
                return Err(silent);
            }
        }
    }

    /// Waits until the device has used `count` chains that were not taken yet, asleep until it calls
    /// for the last of them. They stay to be taken.
    ///
    /// # Errors
    /// [`Error::Silent`] when it does not in time.
    pub fn wait_until_used(&mut self, count: u16, timeout: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        let used = |queue: &Self| {
            Ok::<_, Error>(queue.ring.used_index()?.wrapping_sub(queue.next_used) >= count)
        };
        while !used(self)? {
            // virtio 1.3 §2.7.7.1: a call is wanted when the index goes past this one.
            self.ring.set_used_event(self.next_used.wrapping_add(count).wrapping_sub(1))?;
            fence(Ordering::SeqCst);
            let left = deadline.saturating_duration_since(Instant::now());
            if !used(self)? && !self.wait_call(left)? {
                return Err(Error::Silent { queue: self.index, timeout });
            }
        }
        Ok(())
    }

    /// Waits for a call, whatever the ring says, and takes it. `false` when none came in time.
    ///
    /// # Errors
    /// The eventfd's.
    pub fn wait_call(&mut self, timeout: Duration) -> Result<bool, Error> {
        let called = wait_eventfd(&self.call, timeout)?;
        self.calls += u64::from(called);
        Ok(called)
    }

    /// Waits for the device to report this ring as broken. `false` when it did not in time.
    ///
    /// # Errors
    /// The eventfd's.
    pub fn wait_broken(&self, timeout: Duration) -> Result<bool, Error> {
        wait_eventfd(&self.err, timeout)
    }

    /// Writes the first descriptors of the table as they stand, makes the chain of the first one
    /// available, and kicks. No other chain may be outstanding.
    ///
    /// # Errors
    /// [`Error::Access`] when there are more than the table has room for.
    pub fn submit_raw(&mut self, descriptors: &[Descriptor]) -> Result<(), Error> {
        for (index, descriptor) in (0..).zip(descriptors) {
            self.ring.write_descriptor(index, *descriptor)?;
        }
        self.ring.push_head(0)?;
        self.adopt(0);
        self.kick()
    }

    /// Registers a chain that a test has written by hand, so that its head counts as outstanding.
    pub fn adopt(&mut self, head: u16) {
        self.free.retain(|&index| index != head);
        if let Some(chain) = self.chains.get_mut(usize::from(head)) {
            *chain = Some(vec![head]);
        }
        self.next_avail = self.next_avail.wrapping_add(1);
        self.published = self.next_avail;
    }

    fn take(&mut self, needed: usize) -> Result<Vec<u16>, Error> {
        let free = self.free.len();
        if needed == 0 {
            return Err(Error::EmptyChain);
        }
        let Some(rest) = free.checked_sub(needed) else {
            return Err(Error::Full { needed, free });
        };
        let mut taken = self.free.split_off(rest);
        taken.reverse();
        Ok(taken)
    }

    fn make_available(&mut self, taken: Vec<u16>) -> Result<u16, Error> {
        let Some(&head) = taken.first() else {
            return Err(Error::EmptyChain);
        };
        self.ring.set_available(self.next_avail, head)?;
        self.next_avail = self.next_avail.wrapping_add(1);
        if let Some(chain) = self.chains.get_mut(usize::from(head)) {
            *chain = Some(taken);
        }
        Ok(head)
    }
}

fn wait_eventfd(eventfd: &EventFd, timeout: Duration) -> Result<bool, Error> {
    if !readable(eventfd, timeout)? {
        return Ok(false);
    }
    eventfd.read().map_err(|source| Error::system("reading an eventfd", source))?;
    Ok(true)
}

/// How an event is open belongs to all who have it.
fn make_block(event: &EventFd) -> Result<(), Error> {
    // SAFETY: the descriptor is open for as long as `event`, which is longer than this borrow.
    let event = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
    let set = fcntl(event, FcntlArg::F_SETFL(OFlag::empty()));
    set.map(drop).map_err(|source| Error::system("making an event block", source))
}

/// Whether `file` becomes readable (or hung up) in time.
pub(crate) fn readable(file: &impl AsRawFd, timeout: Duration) -> Result<bool, Error> {
    // SAFETY: `file` owns the descriptor and is borrowed for longer than the poll takes.
    let fd = unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) };
    // Rounded up: a wait must not end before its time.
    let millis = timeout.as_micros().div_ceil(1000);
    let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    let ready = poll(&mut fds, timeout).map_err(|errno| Error::system("polling", errno))?;
    Ok(ready > 0)
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod tests;
