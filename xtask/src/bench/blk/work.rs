//! What is asked of a disk: the cells of the table.

/// What the disk's bytes are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Backing {
    /// A file, all of it in the page cache.
    Cached,
    /// The same past the page cache.
    Direct,
    /// A file in memory that was never written: nothing but zeroes to copy, in place of a device
    /// that does nothing.
    Memory,
}

impl Backing {
    pub(super) const ALL: [Self; 3] = [Self::Cached, Self::Direct, Self::Memory];
}

/// What kind of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pattern {
    RandomRead,
    RandomWrite,
    SequentialRead,
}

impl Pattern {
    /// A request's length in bytes.
    pub(super) fn block(self) -> u32 {
        match self {
            Self::RandomRead | Self::RandomWrite => 4 << 10,
            Self::SequentialRead => 128 << 10,
        }
    }

    pub(super) fn writes(self) -> bool {
        self == Self::RandomWrite
    }
}

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) backing: Backing,
    pub(super) pattern: Pattern,
    pub(super) queues: u16,
    /// Requests in flight in each queue.
    pub(super) depth: u16,
}

impl Cell {
    /// Whether its requests take little but their own cost.
    pub(super) fn is_small(&self) -> bool {
        self.pattern.block() <= 4 << 10
    }

    pub(super) fn name(&self) -> String {
        let backing = match self.backing {
            Backing::Cached => "cached",
            Backing::Direct => "O_DIRECT",
            Backing::Memory => "memory",
        };
        let pattern = match self.pattern {
            Pattern::RandomRead => "4k random-read",
            Pattern::RandomWrite => "4k random-write",
            Pattern::SequentialRead => "128k sequential-read",
        };
        format!("{backing} {pattern} depth-{} queues-{}", self.depth, self.queues)
    }
}

/// All of them.
pub(super) fn cells() -> impl Iterator<Item = Cell> {
    let cell = |backing, pattern, queues, depth| Cell { backing, pattern, queues, depth };
    Backing::ALL.into_iter().flat_map(move |backing| {
        let mut cells = vec![
            cell(backing, Pattern::RandomRead, 1, 1),
            cell(backing, Pattern::RandomRead, 1, 32),
            cell(backing, Pattern::RandomRead, 1, 128),
            cell(backing, Pattern::RandomRead, 2, 1),
        ];
        if backing != Backing::Memory {
            cells.extend([
                cell(backing, Pattern::RandomRead, 2, 32),
                cell(backing, Pattern::SequentialRead, 1, 1),
                cell(backing, Pattern::SequentialRead, 1, 32),
                cell(backing, Pattern::RandomWrite, 1, 1),
                cell(backing, Pattern::RandomWrite, 1, 32),
                cell(backing, Pattern::RandomWrite, 1, 128),
            ]);
        }
        cells
    })
}
