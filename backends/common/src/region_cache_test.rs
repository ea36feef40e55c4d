use proptest::prelude::*;

use super::*;

proptest! {
    /// Whatever was looked up before.
    #[test]
    fn a_slice_is_the_one_that_the_table_of_regions_has(
        wanted in prop::collection::vec((0u64..0x7000, 1usize..0x2800), 1..24),
    ) {
        // Two neighbours, and one behind a gap.
        let regions = [(0x1000, 0x1000), (0x2000, 0x2000), (0x5000, 0x1000)];
        let regions = regions.map(|(start, len)| (GuestAddress(start), len));
        let memory = CachedMemory::new(Memory::from_ranges(&regions).unwrap());
        for (address, len) in wanted {
            let address = GuestAddress(address);
            let place = |slice: VolatileSlice<'_>| (slice.ptr_guard().as_ptr(), slice.len());
            let found = memory.slice(address, len).map(place);
            prop_assert_eq!(found, memory.memory().get_slice(address, len).ok().map(place));
        }
    }
}

#[test]
fn no_address_is_too_high_to_be_looked_up() {
    let memory = Memory::from_ranges(&[(GuestAddress(0x1000), 0x1000)]).unwrap();
    let memory = CachedMemory::new(memory);
    for address in [0x1fff, u64::MAX, 0x1000 + (1 << 63), 0] {
        let found = memory.slice(GuestAddress(address), 1).is_some();
        assert_eq!(found, address == 0x1fff, "{address:#x}");
        assert!(memory.slice(GuestAddress(address), usize::MAX).is_none(), "{address:#x}");
    }
}
