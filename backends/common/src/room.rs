//! Room for the pieces of chains, of chains that were completed: so that most chains take no memory of
//! their own. It never holds a piece.

use libc::iovec;

/// For how many chains room is kept, and for how many pieces of each at most: a driver's unusual
/// chains are not to cost memory for ever.
const SPARE: usize = 64;
const USUAL_PIECES: usize = 8;

/// Room for the pieces of one chain.
///
/// Invariant: it is empty.
#[derive(Default)]
pub(crate) struct Room(Vec<iovec>);

// SAFETY: what keeps `iovec` on its thread is the pointer in it, and there is no `iovec` here
// (invariant); the memory of an empty vector is as good for one thread as for another.
unsafe impl Send for Room {}

impl Room {
    /// Forgets the pieces.
    pub(crate) fn of(mut pieces: Vec<iovec>) -> Self {
        pieces.clear();
        Self(pieces)
    }

    pub(crate) fn into_pieces(self) -> Vec<iovec> {
        self.0
    }
}

/// What is kept of it.
#[derive(Default)]
pub(crate) struct Rooms(Vec<Room>);

impl Rooms {
    pub(crate) fn take(&mut self) -> Room {
        self.0.pop().unwrap_or_default()
    }

    pub(crate) fn keep(&mut self, room: Room) {
        if self.0.len() < SPARE && room.0.capacity() <= USUAL_PIECES {
            self.0.push(room);
        }
    }
}
