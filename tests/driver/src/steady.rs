//! Whether a process stays as it is, whatever it is put through.

use crate::Footprint;

/// Runs `round` so many times, which says how large the process then is.
///
/// # Panics
/// When it has grown since the end of the first round, in which the allocator takes what it then
/// keeps.
#[track_caller]
pub fn assert_steady(rounds: usize, mut round: impl FnMut() -> Footprint) {
    let mut first = None;
    for _ in 0..rounds {
        let now = round();
        let first = first.get_or_insert(now);
        assert!(!first.is_exceeded_by(&now), "{first:?} became {now:?}");
    }
}
