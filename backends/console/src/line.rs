//! The thread between a port's pipes and its outlet: it takes what the guest prints, keeps the
//! newest of it for who comes later, and passes keys on.
//!
//! It sleeps unless there is something to move. Only its own buffers are in its memory: the history
//! and as much as a pipe holds of keys.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::{read, write};

use crate::history::{CAPACITY, History};
use crate::keys::Keys;
use crate::outlet::{Outlet, ReaderId};
use crate::readers::Readers;
use crate::window::Size;

/// What the guest prints is taken when there is room for this much of it.
const LEAST_ROOM: usize = CAPACITY / 4;
/// How long what the guest printed last may take to get out when the process ends.
const FLUSH: Duration = Duration::from_secs(1);
const STACK: usize = 256 * 1024;

/// Who is told what happens at the outlet.
pub(crate) trait Watcher: Send {
    /// Somebody is attached, or nobody is any more.
    fn attached(&self, attached: bool);
    /// The window is of this size.
    fn window(&self, size: Size);
    /// A reader has missed so many bytes of output.
    fn missed(&self, bytes: u64);
}

/// The running thread.
pub(crate) struct Line {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    /// What the thread is to do, until it is started.
    carrier: Option<Carrier>,
}

impl Line {
    /// Is to carry bytes from `output` to `outlet`, and from there to `keys`.
    pub(crate) fn new(
        outlet: Box<dyn Outlet>,
        output: OwnedFd,
        keys: OwnedFd,
        watcher: Box<dyn Watcher>,
        replay: bool,
    ) -> io::Result<Self> {
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let stop = Arc::new(stop);
        let carrier = Carrier {
            outlet,
            output,
            keys,
            watcher,
            attached: false,
            stop: Arc::clone(&stop),
            history: History::new(),
            readers: Readers::new(replay),
            typed: Keys::new(),
        };
        Ok(Self { stop, thread: None, carrier: Some(carrier) })
    }

    /// Starts the thread, once.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        if let Some(mut carrier) = self.carrier.take() {
            let thread = Builder::new().name("line".into()).stack_size(STACK);
            self.thread = Some(thread.spawn(move || carrier.run())?);
        }
        Ok(())
    }

    /// Lets out what the guest printed last, and ends the thread.
    pub(crate) fn stop(&mut self) {
        // A full counter wakes as well as any.
        let _full = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            // The loop does not panic; if it did, the process is gone.
            let _ended = thread.join();
        }
    }
}

struct Carrier {
    outlet: Box<dyn Outlet>,
    output: OwnedFd,
    keys: OwnedFd,
    watcher: Box<dyn Watcher>,
    /// What the watcher was told last.
    attached: bool,
    stop: Arc<EventFd>,
    history: History,
    readers: Readers,
    typed: Keys,
}

/// What happened while the thread slept.
struct Woken {
    stop: bool,
    events: bool,
    /// The outlet has keys, or came to its end.
    input: bool,
    hung_up: Vec<ReaderId>,
}

impl Carrier {
    fn run(&mut self) {
        self.follow_outlet();
        while let Ok(woken) = self.sleep() {
            if woken.events {
                self.outlet.check();
            }
            if woken.input
                && self.outlet.input().is_some()
                && !self.typed.read_from(self.outlet.as_mut())
            {
                self.outlet.input_ended();
            }
            for reader in woken.hung_up {
                self.outlet.reader_left(reader, "the other end hung up");
            }
            self.typed.write_to(self.keys.as_fd());
            self.follow_outlet();
            self.move_output();
            if woken.stop {
                return self.flush();
            }
        }
    }

    /// Waits for something to do. The order of the descriptors is that of [`Woken`].
    fn sleep(&self) -> Result<Woken, Errno> {
        let want = |wanted, event| if wanted { event } else { PollFlags::empty() };
        let nothing = (self.stop.as_fd(), PollFlags::empty());
        let (readers, events) = (self.outlet.readers(), self.outlet.events());
        let input = self.outlet.input().filter(|_| self.typed.is_empty());
        let (has_events, has_input) = (events.is_some(), input.is_some());
        let waits = [
            (self.stop.as_fd(), PollFlags::POLLIN),
            events.map_or(nothing, |fd| (fd, PollFlags::POLLIN)),
            input.map_or(nothing, |fd| (fd, PollFlags::POLLIN)),
            (self.output.as_fd(), want(self.room() > 0, PollFlags::POLLIN)),
            (self.keys.as_fd(), want(!self.typed.is_empty(), PollFlags::POLLOUT)),
        ];
        let behind =
            |&(id, fd)| (fd, want(self.readers.is_behind(id, &self.history), PollFlags::POLLOUT));
        let waits = waits.into_iter().chain(readers.iter().map(behind));
        let mut fds: Vec<_> = waits.map(|(fd, flags)| PollFd::new(fd, flags)).collect();
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let mut happened = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let mut next = || happened.next().unwrap_or(PollFlags::empty());
        let (stop, events, input, _output, _keys) = (next(), next(), next(), next(), next());
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        let hung_up = readers.iter().zip(happened).filter(|(_, how)| how.intersects(gone));
        Ok(Woken {
            stop: stop.contains(PollFlags::POLLIN),
            events: !events.is_empty() && has_events,
            input: !input.is_empty() && has_input,
            hung_up: hung_up.map(|(&(id, _), _)| id).collect(),
        })
    }

    /// Wakes up to find that a reader's patience has run out.
    fn timeout(&self) -> PollTimeout {
        let left = self.readers.patience().map(|left| left + Duration::from_millis(1));
        left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        })
    }

    /// How much of the output may be taken. It is left in the pipe, and behind it in the guest,
    /// only for readers who take what they have.
    fn room(&self) -> usize {
        let room = self.history.room_before(self.readers.needed(&self.history));
        if room >= LEAST_ROOM { room } else { 0 }
    }

    /// Who is there now, and the window.
    fn follow_outlet(&mut self) {
        let readers = self.outlet.readers();
        let present: Vec<_> = readers.iter().map(|&(id, _)| id).collect();
        self.readers.follow(&present, &self.history);
        let attached = !present.is_empty() || self.outlet.input().is_some();
        if attached != self.attached {
            self.attached = attached;
            self.watcher.attached(attached);
        }
        if let Some(size) = self.outlet.window() {
            self.watcher.window(size);
        }
    }

    fn move_output(&mut self) {
        let room = self.room();
        if room > 0
            && let Ok(count) = read(&self.output, self.history.room(room))
        {
            self.history.add(count);
        }
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

    /// The rings have stopped, so the pipe fills no more.
    fn flush(&mut self) {
        let deadline = Instant::now() + FLUSH;
        while Instant::now() < deadline {
            self.follow_outlet();
            self.move_output();
            let more = PollFd::new(self.output.as_fd(), PollFlags::POLLIN);
            let empty = poll(&mut [more], PollTimeout::ZERO) == Ok(0);
            let readers = self.outlet.readers();
            if readers.is_empty() || (empty && !self.readers.any_behind(&self.history)) {
                return;
            }
            let behind =
                readers.iter().filter(|(id, _)| self.readers.is_behind(*id, &self.history));
            let mut room: Vec<_> =
                behind.map(|&(_, fd)| PollFd::new(fd, PollFlags::POLLOUT)).collect();
            // It fails only when interrupted, and then the deadline still stands.
            let _woken = poll(&mut room, PollTimeout::from(100_u8));
        }
        tracing::warn!("the console's last output found no reader");
    }
}
