//! Chains that no device can do anything about but give them back: looped, overlong, out of range,
//! empty, in the wrong order, or behind an indirect table of every wrong kind.

use crate::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor, Error, Memory, Ring};

/// Far from any guest memory.
const OUTSIDE: u64 = 1 << 40;
/// The length of each descriptor.
const SIZE: u32 = 16;
/// More descriptors than a chain may have anywhere.
const OVERLONG: u16 = 1025;

/// A chain that starts at descriptor 0, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct HostileChain {
    /// What is wrong with it.
    pub name: String,
    /// The first descriptors of the table, from 0 on.
    pub descriptors: Vec<Descriptor>,
}

impl HostileChain {
    /// All of them, for a ring whose device accepted VIRTIO_F_INDIRECT_DESC.
    ///
    /// # Errors
    /// No memory for indirect tables.
    pub fn all(memory: &Memory, ring: &Ring) -> Result<Vec<Self>, Error> {
        let addr = memory.allocate(256, 16)?;
        let size = ring.size();
        let last = |addr, len| Descriptor { addr, len, flags: 0, next: 0 };
        let next = |next| Descriptor { addr, len: 64, flags: DESC_NEXT, next };
        let (read, write) =
            (Descriptor { flags: 0, ..next(0) }, Descriptor { flags: DESC_WRITE, ..next(0) });
        let first_writes = Descriptor { flags: DESC_NEXT | DESC_WRITE, ..next(1) };
        let most = Descriptor { len: u32::MAX, ..next(1) };
        let straight: Vec<(&str, Vec<Descriptor>)> = vec![
            ("a loop of one", vec![next(0)]),
            ("a loop of two", vec![next(1), next(0)]),
            ("a loop behind its start", vec![next(1), next(2), next(1)]),
            ("all of the table, and once more", (1..=size).map(|n| next(n % size)).collect()),
            ("an end outside the table", vec![next(size)]),
            ("an end far outside the table", vec![next(1), next(u16::MAX)]),
            ("nothing to read", vec![last(addr, 0)]),
            ("nothing to write", vec![Descriptor { len: 0, ..write }]),
            ("a buffer outside memory", vec![last(OUTSIDE, 64)]),
            ("a buffer over the end of memory", vec![last(memory.end() - 32, 64)]),
            ("a buffer over the end of addresses", vec![last(u64::MAX - 32, 64)]),
            ("a buffer of 4 GiB", vec![last(addr, u32::MAX)]),
            ("room outside memory", vec![Descriptor { addr: OUTSIDE, ..write }]),
            ("more than 4 GiB", vec![most, Descriptor { flags: 0, ..most }]),
            ("reading behind writing", vec![first_writes, read]),
        ];
        let indirect = |addr, len| Descriptor { addr, len, flags: DESC_INDIRECT, next: 0 };
        let table = |descriptors: &[Descriptor]| ring.write_table(descriptors);
        let good = table(&[read])?;
        let nested = table(&[indirect(good, SIZE)])?;
        let endless: Vec<_> = (1..=OVERLONG).map(|n| next(n % OVERLONG)).collect();
        let mut all = straight;
        for len in [0, 1, SIZE - 1, SIZE + 1, 2 * SIZE - 1, SIZE * 65536, u32::MAX] {
            all.push(("an indirect table of a wrong size", vec![indirect(good, len)]));
        }
        all.extend([
            ("an indirect table outside memory", vec![indirect(OUTSIDE, SIZE)]),
            ("an indirect table over the end", vec![indirect(memory.end() - 8, SIZE)]),
            ("an indirect table in an indirect table", vec![indirect(nested, SIZE)]),
            ("a loop in an indirect table", vec![indirect(table(&[next(0)])?, SIZE)]),
            ("an end outside an indirect table", vec![indirect(table(&[next(1)])?, SIZE)]),
            (
                "an endless indirect table",
                vec![indirect(table(&endless)?, SIZE * u32::from(OVERLONG))],
            ),
        ]);
        let named = |(name, descriptors): (&str, Vec<_>)| Self { name: name.into(), descriptors };
        Ok(all.into_iter().map(named).collect())
    }
}
