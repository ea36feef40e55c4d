//! Whether the rings alone say what a back-end left undone when it died without a record of it.
//! Pure: from what the rings hold to a proof or the lack of one.
//!
//! A successor told to go on at `used_idx` does again what the driver made available last, as many
//! buffers as are outstanding: the *tail* `avail[used_idx..avail_idx)`. That is right if the tail is
//! what is outstanding. If it is not, a request that was done is done again, into memory that the
//! guest may have given to something else, and one that was not is never done. So this is proved or
//! not done.
//!
//! **What the rings say.** Positions in both rings are counted from the ring's start; a ring of N
//! entries shows the last N of them. The number of outstanding buffers is
//! d = avail_idx − used_idx ≤ N, and each has a descriptor of its own as its head (virtio 1.3
//! §2.7.13: a descriptor is the device's until it is used).
//!
//! **Proof by accounting**, for any device. A head h is *free* if
//!
//! 1. it stands in the used ring at c, and not in the available ring at any position after c. When c
//!    was written, the driver had made at least c + 1 buffers available, so it can have given h
//!    again only at c + 1 or later; and it has not. All those positions must be visible:
//!    c + 1 ≥ avail_idx − N. Or
//! 2. its descriptor has length zero: no request begins with nothing. So are descriptors that the
//!    driver has never used.
//!
//! All outstanding heads are among those that are not free. If there are exactly d of these, they
//! are outstanding, all of them. No head of the tail is free by 1, as its position is not before
//! used_idx, and c is. So if the d heads of the tail differ and no other is left, the tail is what
//! is outstanding. ∎ (Slots of a ring that is younger than N entries hold what was there before.
//! They stand for positions before the first, where 1 is still true: each real position is after
//! them.)
//!
//! **Proof by order**, for devices that carry a stream (net, console, vsock) and so complete in the
//! order in which they were given. Then what is outstanding is the tail, and what is left to check
//! is that this back-end kept the order: wherever both rings are visible they are the same.
//! Nothing of the kind holds for disks or file systems, where a slow request is overtaken by any
//! number of others; to take an unbroken order for a proof there would be a guess.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

/// What the rings of one queue hold. The three lists have an entry for each descriptor.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    pub(super) avail_idx: u16,
    pub(super) used_idx: u16,
    /// Heads by slot of the available ring.
    pub(super) avail: Vec<u16>,
    /// Heads by slot of the used ring.
    pub(super) used: Vec<u32>,
    /// Lengths of the descriptors.
    pub(super) lengths: Vec<u32>,
}

/// Why it is not known what is outstanding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unproven {
    /// The rings can't be read.
    #[error("its rings are not in guest memory")]
    Unreadable,
    /// The ring can't be.
    #[error("the ring's indices, {avail_idx} and {used_idx}, can't be those of {size} entries")]
    Broken { avail_idx: u16, used_idx: u16, size: usize },
    /// The driver has given a descriptor twice in the tail, so one of the two was done.
    #[error("descriptor {0} was given twice since, so requests were done out of order")]
    Twice(u16),
    /// More may be outstanding than are.
    #[error("{depth} requests are outstanding, and {candidates} may be the ones")]
    Ambiguous { depth: u16, candidates: usize },
    /// A stream's device did not keep the order.
    #[error("the requests before were done out of order")]
    OutOfOrder,
}

/// Whether what is outstanding is exactly the tail, so that a successor can go on at `used_idx`.
/// `in_order`: whether such a device completes in order.
///
/// # Errors
/// [`Unproven`].
pub(super) fn prove(contents: &Contents, in_order: bool) -> Result<(), Unproven> {
    let Contents { avail_idx, used_idx, .. } = *contents;
    let size = contents.avail.len();
    let depth = avail_idx.wrapping_sub(used_idx);
    if usize::from(depth) > size {
        return Err(Unproven::Broken { avail_idx, used_idx, size });
    }
    if depth == 0 {
        return Ok(());
    }
    let heads = Heads::of(contents, depth)?;
    match in_order {
        true if contents.kept_order(depth) => Ok(()),
        true => Err(Unproven::OutOfOrder),
        false => heads.account(contents, depth),
    }
}

impl Contents {
    /// The head at a position, counted from `used_idx`.
    fn avail_at(&self, position: i32) -> Option<u16> {
        self.avail.get(self.slot(position)?).copied()
    }

    fn used_at(&self, position: i32) -> Option<u32> {
        self.used.get(self.slot(position)?).copied()
    }

    fn slot(&self, position: i32) -> Option<usize> {
        let index = i32::from(self.used_idx).wrapping_add(position).rem_euclid(0x1_0000);
        // A size is a power of two, so the index modulo 65536 is as good as the whole.
        usize::try_from(index).ok()?.checked_rem(self.avail.len())
    }

    fn size(&self) -> i32 {
        i32::try_from(self.avail.len()).unwrap_or(i32::MAX)
    }

    /// Where both rings are visible, they are the same.
    fn kept_order(&self, depth: u16) -> bool {
        let first = i32::from(depth).saturating_sub(self.size());
        (first..0).all(|at| self.avail_at(at).map(u32::from) == self.used_at(at))
    }
}

/// Where each head stands last in the available and the used ring, counted from `used_idx`.
struct Heads(Vec<(Option<i32>, Option<i32>)>);

impl Heads {
    fn of(contents: &Contents, depth: u16) -> Result<Self, Unproven> {
        let mut heads = vec![(None, None); contents.avail.len()];
        let depth = i32::from(depth);
        let size = contents.size();
        for position in depth.saturating_sub(size)..depth {
            let head = contents.avail_at(position).unwrap_or_default();
            // A number that is no descriptor's is the driver's fault, and not outstanding.
            let Some((given, _)) = heads.get_mut(usize::from(head)) else { continue };
            if given.replace(position).is_some_and(|before| before >= 0) {
                return Err(Unproven::Twice(head));
            }
        }
        for position in size.saturating_neg()..0 {
            let head = contents.used_at(position).and_then(|head| usize::try_from(head).ok());
            if let Some((_, used)) = head.and_then(|head| heads.get_mut(head)) {
                *used = Some(position);
            }
        }
        Ok(Self(heads))
    }

    fn account(&self, contents: &Contents, depth: u16) -> Result<(), Unproven> {
        // The first position whose successors are all visible in the available ring.
        let visible = i32::from(depth).saturating_sub(contents.size()).saturating_sub(1);
        let is_free = |&(given, used): &(Option<i32>, Option<i32>)| {
            used.is_some_and(|used| used >= visible && given.is_none_or(|given| given <= used))
        };
        let candidates = self.0.iter().zip(&contents.lengths);
        let candidates = candidates.filter(|(head, len)| **len != 0 && !is_free(head)).count();
        if candidates == usize::from(depth) {
            Ok(())
        } else {
            Err(Unproven::Ambiguous { depth, candidates })
        }
    }
}

#[cfg(test)]
#[path = "replay_test.rs"]
mod tests;
