//! What carries a port's bytes between the guest and the outlet, without waiting for either: the newest
//! of what the guest printed, how far each reader has come in it, and what was typed. Who calls it,
//! and when, is the line's.

use std::sync::Arc;
use std::time::Duration;

use atoll_backend::{Reader, Writer};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

use crate::history::{CAPACITY, History};
use crate::keys::Keys;
use crate::outlet::{Outlet, ReaderId};
use crate::readers::Readers;
use crate::watch::Watch;
use crate::window::Size;

/// What the guest prints is taken when there is room for this much of it.
const LEAST_ROOM: usize = CAPACITY / 4;

/// How often in a row input is read that holds no keys, such as the size of a window.
const TRIES: usize = 64;

/// The number of what is not a reader.
const NO_READER: ReaderId = ReaderId::MAX;

/// Who is told what happens at the outlet.
pub(crate) trait Watcher: Send {
    /// Somebody is attached, or nobody is any more.
    fn attached(&self, attached: bool);
    /// The window is of this size.
    fn window(&self, size: Size);
    /// A reader has missed so many bytes of output.
    fn missed(&self, bytes: u64);
}

/// What there is to wait for at an outlet, whoever waits.
pub(crate) struct Watches {
    /// Somebody came, or a window changed.
    pub(crate) events: Watch,
    /// A reader hung up.
    pub(crate) hang_ups: Watch,
    /// There is something to read, or an end.
    pub(crate) input: Watch,
    /// A reader that took no more takes some now.
    pub(crate) full: Watch,
}

impl Watches {
    pub(crate) fn new() -> nix::Result<Self> {
        Ok(Self {
            events: Watch::new(PollFlags::POLLIN)?,
            hang_ups: Watch::new(PollFlags::empty())?,
            input: Watch::new(PollFlags::POLLIN)?,
            full: Watch::new(PollFlags::POLLOUT)?,
        })
    }
}

/// What is between the two sides.
pub(crate) struct Carrier {
    outlet: Box<dyn Outlet>,
    watcher: Box<dyn Watcher>,
    /// What the watcher was told last.
    attached: bool,
    watches: Arc<Watches>,
    history: History,
    readers: Readers,
    typed: Keys,
}

impl Carrier {
    pub(crate) fn new(
        outlet: Box<dyn Outlet>,
        watcher: Box<dyn Watcher>,
        watches: Arc<Watches>,
        replay: bool,
    ) -> Self {
        let (history, readers, typed) = (History::new(), Readers::new(replay), Keys::new());
        Self { outlet, watcher, attached: false, watches, history, readers, typed }
    }

    /// How much the guest may print now. It is left in the guest only for readers who take what they
    /// have.
    pub(crate) fn room(&self) -> usize {
        let room = self.history.room_before(self.readers.needed(&self.history));
        if room >= LEAST_ROOM { room } else { 0 }
    }

    /// Takes as much of what the guest prints as there is room for.
    pub(crate) fn print(&mut self, bytes: &mut Reader<'_>) -> usize {
        let mut room = self.room().min(bytes.len());
        let all = room;
        while room > 0 {
            let count = bytes.copy_to(self.history.room(room));
            self.history.add(count);
            room = room.saturating_sub(count);
        }
        all
    }

    /// Whether there are keys that were read and not passed on.
    pub(crate) fn has_keys(&self) -> bool {
        !self.typed.is_empty()
    }

    /// Whether more keys may be read.
    pub(crate) fn has_room_for_keys(&self) -> bool {
        self.typed.has_room()
    }

    /// Reads keys, as far as there is room for them.
    pub(crate) fn read_keys(&mut self) {
        for _ in 0..TRIES {
            if !self.typed.has_room() || self.outlet.input().is_none() {
                return;
            }
            match self.typed.fill(|buffer| self.outlet.read(buffer)) {
                Ok(Some(count)) => {
                    // Whoever gets what is typed next may ask for the size that came before it.
                    self.tell_size();
                    if count > 0 {
                        return;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Ok(None) | Err(_) => self.outlet.input_ended(),
            }
        }
    }

    /// Passes on keys as far as there are any, and room. Returns how many.
    pub(crate) fn pass_keys(&mut self, room: &mut Writer<'_>) -> usize {
        let mut passed = 0_usize;
        loop {
            passed = passed.saturating_add(self.typed.copy_to(room));
            if room.is_empty() {
                return passed;
            }
            self.read_keys();
            if !self.has_keys() {
                return passed;
            }
        }
    }

    /// Looks for who came and who left.
    pub(crate) fn look(&mut self) {
        self.outlet.check();
        let readers = self.outlet.readers();
        let nothing = PollFlags::empty();
        let mut fds: Vec<_> = readers.iter().map(|&(_, fd)| PollFd::new(fd, nothing)).collect();
        // It fails only when interrupted, and then they are looked at again.
        let _happened = poll(&mut fds, PollTimeout::ZERO);
        let hung_up = readers.iter().zip(&fds).filter(|(_, fd)| fd.any().unwrap_or(false));
        for id in Vec::from_iter(hung_up.map(|(&(id, _), _)| id)) {
            self.outlet.reader_left(id, "the other end hung up");
        }
    }

    /// Writes to all readers what there is for them, as far as they take it, and follows whatever has
    /// changed at the outlet: the end of every turn.
    pub(crate) fn settle(&mut self) {
        self.follow_readers();
        self.deliver();
        self.follow_readers();
        let (outlet, watches) = (&self.outlet, &self.watches);
        let (readers, input) = (outlet.readers(), outlet.input());
        let attached = !readers.is_empty() || input.is_some();
        if attached != self.attached {
            self.attached = attached;
            self.watcher.attached(attached);
        }
        self.tell_size();
        watches.events.follow(outlet.events().map(|fd| (NO_READER, fd)));
        watches.input.follow(input);
        let behind = |(id, _): &(ReaderId, _)| self.readers.is_behind(*id, &self.history);
        watches.full.follow(readers.iter().copied().filter(behind));
        watches.hang_ups.follow(readers);
    }

    fn tell_size(&self) {
        if let Some(size) = self.outlet.window() {
            self.watcher.window(size);
        }
    }

    fn follow_readers(&mut self) {
        let present = self.outlet.readers().into_iter().map(|(id, _)| id);
        self.readers.follow(&Vec::from_iter(present), &self.history);
    }

    fn deliver(&mut self) {
        let mut left = Vec::new();
        for (id, output) in self.outlet.readers() {
            let (mut at, lost) = self.readers.position(id, &self.history);
            if lost > 0 {
                tracing::info!("a reader missed {lost} bytes of output");
                self.watcher.missed(lost);
            }
            while at < self.history.end() {
                match write(output, self.history.from(at)) {
                    Ok(count) => {
                        self.readers.took(id, count);
                        at = at.saturating_add(count as u64);
                    }
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => {
                        self.readers.is_full(id);
                        break;
                    }
                    Err(errno) => {
                        left.push((id, errno));
                        break;
                    }
                }
            }
        }
        for (id, errno) in left {
            self.outlet.reader_left(id, errno.desc());
        }
    }

    /// When the patience with a reader runs out.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.readers.patience()
    }

    /// Whether somebody is there who has not got everything.
    pub(crate) fn is_awaited(&self) -> bool {
        self.readers.any_behind(&self.history)
    }
}
