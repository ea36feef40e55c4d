//! The keys that are for us and not for the guest: each is two, of which the first is Ctrl-]. Reads
//! and writes nothing.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

/// What is said of the keys to whoever has just been connected.
pub const HINT: &str = "Ctrl-] q leaves, Ctrl-] b sends a break, Ctrl-] Ctrl-] types Ctrl-] itself";

/// Ctrl-].
const PREFIX: u8 = 0x1d;

/// A virtio console has no break; Linux takes Ctrl-O on its system console for one
/// (drivers/tty/hvc/hvc_console.c), so that the next key is a SysRq command.
const BREAK: u8 = 0x0f;

/// Tells the user's keys for us from those for the guest.
#[derive(Debug, Default)]
pub struct Escape {
    /// The prefix was typed, and nothing behind it yet.
    prefixed: bool,
}

impl Escape {
    /// Adds to `keys` those of `typed` that are for the guest: at most one more than were typed. True
    /// when the user wants to leave; what was typed behind that is nobody's.
    pub fn take(&mut self, typed: &[u8], keys: &mut Vec<u8>) -> bool {
        for &key in typed {
            match (std::mem::take(&mut self.prefixed), key) {
                (false, PREFIX) => self.prefixed = true,
                (true, b'q' | b'Q') => return true,
                (true, b'b' | b'B') => keys.push(BREAK),
                (false, _) | (true, PREFIX) => keys.push(key),
                // Programs have uses of their own for the prefix.
                (true, _) => keys.extend([PREFIX, key]),
            }
        }
        false
    }
}

#[cfg(test)]
#[path = "escape_test.rs"]
mod tests;
