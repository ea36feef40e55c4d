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
//!    driver has never used. Or
//! 3. it is linked into the chain of a head that was given last at q, and not itself given after q.
//!    The links of that chain were written when q was given, or later, when h belonged to no
//!    request; to become a head after that it would have to be given after q.
//!
//! All outstanding heads are among those that are not free. If there are exactly d of these, they
//! are outstanding, all of them; and if each stands in the tail, which has d entries, they are the
//! tail. ∎ (Slots of a ring that is younger than N entries hold what was there before. They stand for
//! positions before the first, where all of this is still true: each real position is after them.)
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

/// What the rings of one queue hold. The lists have an entry for each descriptor.
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
    /// The descriptor that comes next in a chain, where one does.
    pub(super) links: Vec<Option<u16>>,
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
    /// What is outstanding is not what was given last.
    #[error("its requests were done out of order")]
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

/// What the rings say of one descriptor, by positions counted from `used_idx`.
#[derive(Clone, Copy, Default)]
struct Traces {
    /// Where it stands last in the available ring.
    given: Option<i32>,
    /// Where it stands last in the used ring.
    used: Option<i32>,
    /// Where the head was given last that it is linked to.
    linked: Option<i32>,
}

impl Traces {
    /// Whether it can't be the head of an outstanding request. `visible`: the first position whose
    /// successors are all visible in the available ring.
    fn is_free(self, visible: i32) -> bool {
        let not_given_after = |position| self.given.is_none_or(|given| given <= position);
        self.used.is_some_and(|used| used >= visible && not_given_after(used))
            || self.linked.is_some_and(not_given_after)
    }
}

/// The traces of each descriptor.
struct Heads(Vec<Traces>);

impl Heads {
    fn of(contents: &Contents, depth: u16) -> Result<Self, Unproven> {
        let mut heads = Self(vec![Traces::default(); contents.avail.len()]);
        let depth = i32::from(depth);
        let size = contents.size();
        for position in depth.saturating_sub(size)..depth {
            let head = contents.avail_at(position).unwrap_or_default();
            // A number that is no descriptor's is the driver's fault, and not outstanding.
            let Some(traces) = heads.0.get_mut(usize::from(head)) else { continue };
            if traces.given.replace(position).is_some_and(|before| before >= 0) {
                return Err(Unproven::Twice(head));
            }
        }
        for position in size.saturating_neg()..0 {
            let head = contents.used_at(position).and_then(|head| usize::try_from(head).ok());
            if let Some(traces) = head.and_then(|head| heads.0.get_mut(head)) {
                traces.used = Some(position);
            }
        }
        for head in 0..contents.links.len() {
            heads.follow(contents, head);
        }
        Ok(heads)
    }

    /// Marks what is linked to `head`.
    fn follow(&mut self, contents: &Contents, head: usize) {
        let Some(given) = self.0.get(head).and_then(|traces| traces.given) else { return };
        let mut at = head;
        // A chain that loops is the driver's fault, and has an end here.
        for _ in 0..contents.links.len() {
            let Some(next) = contents.links.get(at).copied().flatten() else { return };
            at = usize::from(next);
            let Some(traces) = self.0.get_mut(at) else { return };
            traces.linked = traces.linked.max(Some(given));
        }
    }

    fn account(&self, contents: &Contents, depth: u16) -> Result<(), Unproven> {
        let visible = i32::from(depth).saturating_sub(contents.size()).saturating_sub(1);
        let heads = self.0.iter().zip(&contents.lengths);
        let candidates: Vec<_> =
            heads.filter(|(head, len)| **len != 0 && !head.is_free(visible)).collect();
        if candidates.len() != usize::from(depth) {
            return Err(Unproven::Ambiguous { depth, candidates: candidates.len() });
        }
        let in_tail = |head: &Traces| head.given.is_some_and(|given| given >= 0);
        match candidates.iter().all(|(head, _)| in_tail(head)) {
            true => Ok(()),
            false => Err(Unproven::OutOfOrder),
        }
    }
}

#[cfg(test)]
#[path = "replay_test.rs"]
mod tests;
