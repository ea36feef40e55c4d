//! What passed a ring, counted.

/// Chains that were completed, and the bytes in them, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) chains: u32,
    pub(crate) bytes: u64,
}

impl Carried {
    /// And `more`.
    pub(crate) fn add(&mut self, more: Self) {
        self.chains = self.chains.saturating_add(more.chains);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}
