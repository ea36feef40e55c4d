//! What is asked of a card: the cells of the table; and what a run comes to.

use std::time::Duration;

use anyhow::Result;

/// How long each is watched, and how long it goes on before that.
pub(super) const RUN: Duration = Duration::from_millis(250);
pub(super) const WARM_UP: Duration = Duration::from_millis(40);

/// Which way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// As many as it can send.
    FromGuest,
    /// All that wait in the TAP's queue.
    ToGuest,
    /// One to it and back, again and again.
    RoundTrip,
}

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) way: Way,
    /// The length of a frame in bytes.
    pub(super) len: usize,
}

impl Cell {
    pub(super) fn name(&self) -> String {
        let way = match self.way {
            Way::FromGuest => "from-guest",
            Way::ToGuest => "to-guest",
            Way::RoundTrip => "round-trip",
        };
        format!("{way} {}-bytes", self.len)
    }
}

/// All of them.
pub(super) fn cells() -> impl Iterator<Item = Cell> {
    let ways = [Way::FromGuest, Way::ToGuest, Way::RoundTrip];
    ways.into_iter().flat_map(|way| [64, 1500].map(|len| Cell { way, len }))
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    /// Frames, or round trips, a second.
    pub(super) rate: f64,
    /// Of round trips, us.
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// Time on a CPU for each frame, ns.
    pub(super) cpu: f64,
}

impl Figures {
    /// So many frames in so many seconds, and nanoseconds on a CPU.
    pub(super) fn of_frames(count: u64, seconds: f64, cpu: f64) -> Self {
        let count = count as f64;
        Self { rate: count / seconds, p50: f64::NAN, p99: f64::NAN, cpu: cpu / count }
    }

    /// Round trips of so many nanoseconds each, and on a CPU for each.
    pub(super) fn of_round_trips(mut times: Vec<u32>, cpu: f64) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            times.get(index).map_or(f64::NAN, |&time| f64::from(time) / 1e3)
        };
        let count = times.len() as f64;
        let seconds = times.iter().copied().map(f64::from).sum::<f64>() / 1e9;
        Self { rate: count / seconds, p50: at(50), p99: at(99), cpu }
    }
}

/// Who plays the guest, on a wire of its own.
pub(super) trait Contender {
    fn name(&self) -> &'static str;

    /// Sends frames of that length for a while.
    fn send(&mut self, len: usize) -> Result<Figures>;

    /// Takes all frames of that length that wait.
    fn take(&mut self, len: usize) -> Result<Figures>;

    /// Sends back what it is asked, for as long as somebody asks.
    fn answer(&mut self, len: usize) -> Result<Figures>;

    fn run(&mut self, cell: Cell) -> Result<Figures> {
        match cell.way {
            Way::FromGuest => self.send(cell.len),
            Way::ToGuest => self.take(cell.len),
            Way::RoundTrip => self.answer(cell.len),
        }
    }
}
