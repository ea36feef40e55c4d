//! Room for chains, of chains that were completed: so that most chains take no memory of their own, and
//! no turn at the counter of those who hold the guest's. It never holds a piece of that.

use std::sync::Arc;

use crate::chain::Walked;
use crate::memory::Memory;

/// For how many chains room is kept, and for how many pieces of each at most: a driver's unusual
/// chains are not to cost memory for ever. The longest packet of Linux has 19 (a header, what is behind
/// it, and MAX_SKB_FRAGS pages), for which room grows to 32; so a ring keeps 32 KiB of it at most.
const SPARE: usize = 64;
const USUAL_PIECES: usize = 32;

/// Room for one chain.
///
/// Invariant: there are no pieces in it.
pub(crate) struct Room(Box<Walked>);

impl Room {
    /// Room for a chain in `memory`.
    #[cold]
    pub(crate) fn new(memory: &Arc<Memory>) -> Self {
        Self(Box::new(Walked::nothing(Arc::clone(memory))))
    }

    /// Forgets a chain.
    pub(crate) fn of(mut walked: Box<Walked>) -> Self {
        walked.forget();
        Self(walked)
    }

    pub(crate) fn into_walked(self) -> Box<Walked> {
        self.0
    }
}

/// What is kept of it, for chains in one memory.
#[derive(Default)]
pub(crate) struct Rooms(Vec<Room>);

impl Rooms {
    /// Room for a chain in `memory`, which is always the same.
    pub(crate) fn take(&mut self, memory: &Arc<Memory>) -> Room {
        self.0.pop().unwrap_or_else(|| Room::new(memory))
    }

    pub(crate) fn keep(&mut self, room: Room) {
        if self.0.len() < SPARE && room.0.pieces_room() <= USUAL_PIECES {
            self.0.push(room);
        }
    }
}

#[cfg(test)]
#[path = "room_test.rs"]
mod tests;
