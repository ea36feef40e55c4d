//! All clients of one socket: a bounded number, each with its deadlines. The thread that has them
//! sleeps here, and hears who did something.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::connection::{Connection, Phase};
use crate::message::{Status, Unserved};

/// The most clients at once.
pub const MAX_CONNECTIONS: usize = 32;
/// How long no client is accepted after the system refused one.
const DEAF: Duration = Duration::from_millis(500);

/// The name of a client; none is given twice.
pub type Key = u64;

/// The clients of one socket.
#[derive(Default)]
pub struct Clients {
    connections: BTreeMap<Key, Connection>,
    next: Key,
    /// No client is accepted before, since there are no descriptors for it.
    deaf_until: Option<Instant>,
}

impl Clients {
    /// One of them, if it is still there.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut Connection> {
        self.connections.get_mut(&key)
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.connections.values_mut()
    }

    /// Whether nobody is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Whether something is on its way to any of them.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        self.connections.values().any(|connection| !connection.is_drained())
    }

    /// Sleeps until a client comes to `listener` or does something, one of `others` is readable, or
    /// the time `until` has come. Returns the clients that did something.
    pub fn sleep(
        &self,
        listener: Option<BorrowedFd<'_>>,
        others: &[BorrowedFd<'_>],
        until: Option<Instant>,
    ) -> Vec<(Key, PollFlags)> {
        let mut fds: Vec<_> = others.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        if self.deaf_until.is_none() {
            fds.extend(listener.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        }
        let strangers = fds.len();
        let clients = self.connections.values();
        fds.extend(clients.map(|client| PollFd::new(client.as_fd(), client.interest())));
        let deadlines = self.connections.values().filter_map(Connection::deadline);
        let timeout = match deadlines.chain(until).chain(self.deaf_until).min() {
            None => PollTimeout::NONE,
            Some(deadline) => {
                // Rounded up, so as not to wake too early again and again.
                let left = deadline.saturating_duration_since(Instant::now());
                let left = left.saturating_add(Duration::from_millis(1));
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        // EINTR and the like are a wake-up for nothing.
        let _ = poll(&mut fds, timeout);
        let how = fds.iter().skip(strangers).map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let clients = self.connections.keys().copied().zip(how);
        clients.filter(|(_, how)| !how.is_empty()).collect()
    }

    /// Takes in all who wait at the socket, of which `next` gives one after the other.
    ///
    /// # Errors
    /// When the system can't let one in; none is then for a while.
    pub fn accept(
        &mut self,
        mut next: impl FnMut() -> io::Result<Option<UnixStream>>,
    ) -> io::Result<()> {
        if self.deaf_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        self.deaf_until = None;
        loop {
            match next() {
                Ok(Some(stream)) => self.welcome(stream),
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.deaf_until = Some(Instant::now() + DEAF);
                    return Err(error);
                }
            }
        }
    }

    /// Takes in a client that was there from the start, and may be silent for as long as it likes.
    ///
    /// # Errors
    /// When its socket can't be made not to block.
    pub fn adopt(&mut self, stream: UnixStream) -> io::Result<()> {
        self.connections.insert(self.next, Connection::patient(stream)?);
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    fn welcome(&mut self, stream: UnixStream) {
        let Ok(mut connection) = Connection::new(stream) else { return };
        if self.connections.len() >= MAX_CONNECTIONS {
            let why = format!("{MAX_CONNECTIONS} clients are connected already");
            connection.give_up(&Unserved::new(Status::Busy, why));
            // It takes this little at once, or not at all.
            let _sent = connection.write();
            return;
        }
        self.connections.insert(self.next, connection);
        self.next = self.next.wrapping_add(1);
    }

    /// Takes what a client has sent, for [`Connection::take_request`] to find. One that has left is
    /// forgotten.
    pub fn hear(&mut self, key: Key, how: PollFlags) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let here = match connection.phase {
            // There is room for the answer to what it asked already, or it has left.
            _ if connection.is_blocked() => connection.write(),
            Phase::Asking | Phase::Following { .. } => connection.read(),
            Phase::Waiting { .. } => !how.intersects(PollFlags::POLLHUP | PollFlags::POLLERR),
            // Its end is found by writing to it.
            Phase::Closing => true,
        };
        if !here {
            self.connections.remove(&key);
        }
    }

    /// Forgets a client that has said its last word, with none that is still to be answered.
    pub fn dismiss_if_done(&mut self, key: Key) {
        if self.connections.get(&key).is_some_and(Connection::is_done) {
            self.connections.remove(&key);
        }
    }

    /// Sends what can be sent, and lets those go that are through or too late.
    pub fn settle(&mut self) {
        let now = Instant::now();
        self.connections.retain(|_, connection| {
            let late = connection.deadline().is_some_and(|deadline| deadline <= now);
            // One that is blocked goes on when it is heard next.
            let here = connection.is_blocked() || connection.write();
            here && (!late || connection.expire())
        });
    }
}

#[cfg(test)]
#[path = "clients_test.rs"]
mod tests;
