//! What of the driver's choice a process leaves to the one after it, which the driver does not know
//! of and will not tell again: one number. Pure.

/// The choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeptChoice {
    /// How many pairs are in use; `None` for all.
    pub(crate) pairs: Option<u16>,
    /// TUNSETOFFLOAD's flags; `None` for all that were accepted.
    pub(crate) offload: Option<u32>,
}

/// Tells a choice from memory that nobody has written.
const THERE: u64 = 1 << 63;
/// There are flags, which may be none.
const CHOSEN: u64 = 1 << 62;
const FLAGS_AT: u32 = 16;

impl KeptChoice {
    pub(crate) fn to_word(self) -> u64 {
        // No pair is no choice. The flags are below the bits on top.
        let pairs = u64::from(self.pairs.unwrap_or(0));
        let offload = self.offload.map_or(0, |flags| CHOSEN | u64::from(flags) << FLAGS_AT);
        THERE | offload | pairs
    }

    pub(crate) fn from_word(word: u64) -> Option<Self> {
        let pairs = Some((word & 0xffff) as u16).filter(|pairs| *pairs > 0);
        let flags = (word & !(THERE | CHOSEN)) >> FLAGS_AT;
        // What is cut off was never there.
        let offload = (word & CHOSEN != 0).then_some(flags as u32);
        (word & THERE != 0).then_some(Self { pairs, offload })
    }
}

#[cfg(test)]
#[path = "kept_choice_test.rs"]
mod tests;
