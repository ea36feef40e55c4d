//! How the requests of one queue run at once: by io_uring where an image is a file of its bytes and
//! the kernel permits it, otherwise by threads. It knows no ring of the driver's.

mod page_cache;
mod ring;
mod threads;

use std::io;
use std::os::fd::BorrowedFd;

use atoll_backend::Chain;

use crate::disk::Answered;

pub(crate) use page_cache::PageCache;
pub(crate) use ring::{KeptRing, Ring};
pub(crate) use threads::Threads;

/// What runs the requests of one queue.
pub(crate) trait Engine: Send {
    /// Begins with the request in `chain`, or answers it at once. `alone` says that no other is in
    /// flight or waits, so that none is kept from its turn.
    fn begin(&mut self, chain: Chain, alone: bool) -> Option<Answered>;

    /// Hands over to the kernel what was begun.
    ///
    /// # Errors
    /// The kernel's.
    fn submit(&mut self) -> io::Result<()>;

    /// Whether the kernel could not take all of it.
    fn is_stalled(&mut self) -> bool {
        false
    }

    /// Whether all that was begun has been taken back.
    fn is_idle(&self) -> bool;

    /// Takes what is done.
    fn finished(&mut self, done: &mut Vec<Answered>);

    /// Waits until something is done, while something is begun.
    ///
    /// # Errors
    /// The kernel's.
    fn wait(&mut self) -> io::Result<()>;

    /// Readable when something is done.
    fn events(&self) -> [Option<BorrowedFd<'_>>; 2];
}
