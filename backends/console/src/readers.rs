//! How far each reader has come in what the guest printed, and who may hold it back. It writes to
//! none of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::history::History;
use crate::outlet::ReaderId;

/// How long a reader may take nothing before it counts as absent. A guest's kernel may wait for
/// its console with interrupts off, so a reader that sleeps must not stop it for ever.
const PATIENCE: Duration = Duration::from_secs(2);

/// One reader.
struct Reader {
    /// The position of what it gets next.
    at: u64,
    /// Since when it has taken nothing of what there is for it.
    stuck_since: Option<Instant>,
}

impl Reader {
    fn is_absent(&self) -> bool {
        self.stuck_since.is_some_and(|since| since.elapsed() >= PATIENCE)
    }
}

/// All who read.
pub(crate) struct Readers {
    readers: BTreeMap<ReaderId, Reader>,
    /// Up to where somebody has read.
    read: u64,
    /// Whether whoever comes gets what others have read before, too.
    replay: bool,
}

impl Readers {
    pub(crate) fn new(replay: bool) -> Self {
        Self { readers: BTreeMap::new(), read: 0, replay }
    }

    /// Takes in who has come, and forgets who has left.
    ///
    /// Who comes while nobody reads gets what nobody has read, so that detaching and attaching again
    /// neither loses nor doubles a byte. Who joins others gets all that is kept, as its terminal
    /// has nothing of it.
    pub(crate) fn follow(&mut self, present: &[ReaderId], history: &History) {
        let (readers, read) = (&mut self.readers, &mut self.read);
        readers.retain(|id, reader| {
            *read = (*read).max(reader.at);
            present.contains(id)
        });
        let alone = readers.is_empty();
        for id in present {
            let at = if alone && !self.replay { self.read } else { history.oldest() };
            readers.entry(*id).or_insert(Reader { at, stuck_since: None });
        }
    }

    /// Where `id` goes on reading, and how much was forgotten before it came to it.
    pub(crate) fn position(&mut self, id: ReaderId, history: &History) -> (u64, u64) {
        let Some(reader) = self.readers.get_mut(&id) else { return (history.end(), 0) };
        let lost = history.oldest().saturating_sub(reader.at);
        reader.at = reader.at.saturating_add(lost);
        (reader.at, lost)
    }

    /// `id` has taken `count` bytes.
    pub(crate) fn took(&mut self, id: ReaderId, count: usize) {
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.at = reader.at.saturating_add(count as u64);
            reader.stuck_since = None;
        }
    }

    /// `id` takes nothing now.
    pub(crate) fn is_full(&mut self, id: ReaderId) {
        if let Some(reader) = self.readers.get_mut(&id) {
            reader.stuck_since.get_or_insert_with(Instant::now);
        }
    }

    /// Whether there is something for `id`.
    pub(crate) fn is_behind(&self, id: ReaderId, history: &History) -> bool {
        self.readers.get(&id).is_some_and(|reader| reader.at < history.end())
    }

    /// Whether anybody has not got everything.
    pub(crate) fn any_behind(&self, history: &History) -> bool {
        self.readers.values().any(|reader| reader.at < history.end())
    }

    /// The position from which on bytes are still to be kept for somebody who takes them.
    pub(crate) fn needed(&self, history: &History) -> u64 {
        let patient = self.readers.values().filter(|reader| !reader.is_absent());
        patient.map(|reader| reader.at).min().unwrap_or(history.end())
    }

    /// When the patience with somebody runs out.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let waiting = self.readers.values().filter(|reader| !reader.is_absent());
        let left = |since: Instant| PATIENCE.saturating_sub(since.elapsed());
        waiting.filter_map(|reader| reader.stuck_since).map(left).min()
    }
}

#[cfg(test)]
#[path = "readers_test.rs"]
mod tests;
