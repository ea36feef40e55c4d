//! The thread between the pipes and the outlet: it takes what the guest prints, keeps it while
//! nobody is there to read it, and passes keys on.
//!
//! It sleeps unless there is something to move. Only its own buffers are in its memory: 64 KiB of
//! backlog at most, and as much in each pipe.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use atoll_backend::ConfigChange;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::{read, write};

use crate::backlog::Backlog;
use crate::outlet::Outlet;
use crate::window::Window;

/// What is read from the guest at once: all that a pipe holds.
const OUTPUT_CHUNK: usize = 64 * 1024;
/// Keys read at once.
const INPUT_CHUNK: usize = 4096;
/// How long a reader may take nothing before it counts as absent. A guest's kernel may wait for
/// its console with interrupts off, so a reader that sleeps must not stop it for ever.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long what the guest printed last may take to get out when the process ends.
const FLUSH: Duration = Duration::from_secs(1);
const STACK: usize = 256 * 1024;

/// The running thread.
pub(crate) struct Line {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Line {
    /// Starts to carry bytes from `output` to `outlet`, and from there to `keys`.
    pub(crate) fn start(
        outlet: Box<dyn Outlet>,
        output: OwnedFd,
        keys: OwnedFd,
        window: Option<Arc<Window>>,
        config_change: ConfigChange,
    ) -> io::Result<Self> {
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let stop = Arc::new(stop);
        let mut carrier = Carrier {
            outlet,
            output,
            keys,
            window,
            config_change,
            stop: Arc::clone(&stop),
            backlog: Backlog::default(),
            typed: Vec::new(),
            stuck_since: None,
            chunk: vec![0; OUTPUT_CHUNK].into_boxed_slice(),
        };
        let thread =
            Builder::new().name("line".into()).stack_size(STACK).spawn(move || carrier.run())?;
        Ok(Self { stop, thread: Some(thread) })
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
    window: Option<Arc<Window>>,
    config_change: ConfigChange,
    stop: Arc<EventFd>,
    backlog: Backlog,
    /// Keys that the pipe had no room for.
    typed: Vec<u8>,
    /// Since when whoever is attached has taken nothing of the backlog.
    stuck_since: Option<Instant>,
    chunk: Box<[u8]>,
}

/// What happened while the thread slept.
struct Woken {
    stop: bool,
    events: bool,
    /// The outlet's output hung up.
    hung_up: bool,
    /// The outlet has keys, or came to its end.
    input: bool,
}

impl Carrier {
    fn run(&mut self) {
        while let Ok(woken) = self.sleep() {
            if woken.events {
                self.outlet.check();
            }
            if woken.input {
                self.read_keys();
            }
            if woken.hung_up {
                self.outlet.output_failed("the other end hung up");
            }
            self.pass_keys();
            self.move_output();
            self.follow_window();
            if woken.stop {
                return self.flush();
            }
        }
    }

    /// Waits for something to do. The order of the descriptors is that of [`Woken`].
    fn sleep(&self) -> Result<Woken, Errno> {
        let want = |wanted, event| if wanted { event } else { PollFlags::empty() };
        let nothing = (self.stop.as_fd(), PollFlags::empty());
        let pending = !self.backlog.is_empty();
        let output = self.outlet.output();
        let input = self.outlet.input().filter(|_| self.typed.is_empty());
        let events = self.outlet.events();
        let waits = [
            (self.stop.as_fd(), PollFlags::POLLIN),
            events.map_or(nothing, |fd| (fd, PollFlags::POLLIN)),
            output.map_or(nothing, |fd| (fd, want(pending, PollFlags::POLLOUT))),
            input.map_or(nothing, |fd| (fd, PollFlags::POLLIN)),
            (self.output.as_fd(), want(self.takes_output(), PollFlags::POLLIN)),
            (self.keys.as_fd(), want(!self.typed.is_empty(), PollFlags::POLLOUT)),
        ];
        let mut fds = waits.map(|(fd, flags)| PollFd::new(fd, flags));
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let [stop, events, output, input, ..] =
            fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        Ok(Woken {
            stop: stop.contains(PollFlags::POLLIN),
            events: !events.is_empty() && self.outlet.events().is_some(),
            hung_up: output.intersects(gone) && self.outlet.output().is_some(),
            input: !input.is_empty() && self.outlet.input().is_some(),
        })
    }

    /// Wakes up to find that a reader's patience has run out.
    fn timeout(&self) -> PollTimeout {
        match self.stuck_since {
            Some(since) if !self.is_stuck() => {
                let left = PATIENCE.saturating_sub(since.elapsed()) + Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
            _ => PollTimeout::NONE,
        }
    }

    fn is_stuck(&self) -> bool {
        self.stuck_since.is_some_and(|since| since.elapsed() >= PATIENCE)
    }

    /// Output is left in the pipe, and behind it in the guest, only for a reader who takes it.
    fn takes_output(&self) -> bool {
        self.backlog.is_empty() || self.outlet.output().is_none() || self.is_stuck()
    }

    fn move_output(&mut self) {
        if self.takes_output()
            && let Ok(count) = read(&self.output, &mut self.chunk)
        {
            self.backlog.push(self.chunk.get(..count).unwrap_or_default());
        }
        let Some(output) = self.outlet.output() else {
            self.stuck_since = None;
            return;
        };
        let lost = self.backlog.take_lost();
        if lost > 0 {
            tracing::info!("{lost} bytes of output went unread before these");
        }
        while !self.backlog.is_empty() {
            match write(output, self.backlog.front()) {
                Ok(count) => {
                    self.backlog.consume(count);
                    self.stuck_since = None;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    self.stuck_since.get_or_insert_with(Instant::now);
                    return;
                }
                Err(errno) => return self.outlet.output_failed(errno.desc()),
            }
        }
    }

    fn read_keys(&mut self) {
        let Some(input) = self.outlet.input() else { return };
        let mut keys = [0; INPUT_CHUNK];
        match read(input, &mut keys) {
            Ok(count @ 1..) => self.typed.extend(keys.get(..count).unwrap_or_default()),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(_) | Err(_) => self.outlet.input_ended(),
        }
    }

    fn pass_keys(&mut self) {
        if !self.typed.is_empty()
            && let Ok(count) = write(&self.keys, &self.typed)
        {
            self.typed.drain(..count);
        }
    }

    fn follow_window(&self) {
        if let (Some(window), Some(size)) = (&self.window, self.outlet.window())
            && window.set(size)
        {
            self.config_change.announce();
        }
    }

    /// The rings have stopped, so the pipe fills no more.
    fn flush(&mut self) {
        let deadline = Instant::now() + FLUSH;
        while Instant::now() < deadline {
            self.move_output();
            let Some(output) = self.outlet.output() else { return };
            let more = PollFd::new(self.output.as_fd(), PollFlags::POLLIN);
            let empty = poll(&mut [more], PollTimeout::ZERO) == Ok(0);
            if empty && self.backlog.is_empty() {
                return;
            }
            let room = PollFd::new(output, PollFlags::POLLOUT);
            // It fails only when interrupted, and then the deadline still stands.
            let _woken = poll(&mut [room], PollTimeout::from(100_u8));
        }
        tracing::warn!("the console's last output found no reader");
    }
}
