//! What guest memory promises.

use std::io::Write as _;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::unistd::ftruncate;
use vm_memory::Bytes;

use super::*;

const MIB: u64 = 1 << 20;

fn spec(size: u64) -> MemorySpec {
    MemorySpec { size, hugepages: None, prefault: false }
}

/// Past the test runner's capture, so that it is seen and counted.
fn skip(reason: &str) {
    let test = std::thread::current();
    let test = test.name().unwrap_or("a memory test");
    let _nobody_reads =
        std::io::stdout().write_all(format!("skipped: {test}: {reason}\n").as_bytes());
}

fn refused(spec: MemorySpec) -> String {
    GuestRam::new(&spec).unwrap_err().to_string()
}

#[test]
fn memory_reads_as_zeroes_and_keeps_what_is_written() {
    let ram = GuestRam::new(&spec(64 * MIB)).unwrap();
    let address = GuestAddress(64 * MIB - 8);
    assert_eq!(ram.memory().read_obj::<u64>(address).unwrap(), 0);
    ram.memory().write_obj(0x1234_u64, address).unwrap();
    assert_eq!(ram.memory().read_obj::<u64>(address).unwrap(), 0x1234);
}

#[test]
fn clearing_empties_it_for_every_mapping() {
    for prefault in [false, true] {
        let ram = GuestRam::new(&MemorySpec { prefault, ..spec(64 * MIB) }).unwrap();
        let place = FileOffset::new(ram.file.try_clone().unwrap(), 0);
        let other = backing::map(&spec(64 * MIB), MIB, place).unwrap();
        let other = GuestMemoryMmap::<()>::from_regions(vec![
            GuestRegionMmap::new(other, GuestAddress(0)).unwrap(),
        ])
        .unwrap();
        ram.memory().write_obj(7_u8, GuestAddress(0x5000)).unwrap();
        assert_eq!(other.read_obj::<u8>(GuestAddress(0x5000)).unwrap(), 7);
        ram.clear().unwrap();
        assert_eq!(ram.memory().read_obj::<u8>(GuestAddress(0x5000)).unwrap(), 0);
        assert_eq!(other.read_obj::<u8>(GuestAddress(0x5000)).unwrap(), 0);
    }
}

#[test]
fn the_memfd_is_sealed_against_everybody() {
    let ram = GuestRam::new(&spec(64 * MIB)).unwrap();
    let seals = SealFlag::from_bits_retain(fcntl(&ram.file, FcntlArg::F_GET_SEALS).unwrap());
    assert!(
        seals.contains(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL)
    );
    assert_eq!(ftruncate(&ram.file, 0), Err(Errno::EPERM));
    assert_eq!(ftruncate(&ram.file, 128 << 20), Err(Errno::EPERM));
}

#[test]
fn six_gib_are_two_regions_of_one_memfd() {
    let gib = 1 << 30;
    let Ok(ram) = GuestRam::new(&spec(6 * gib)) else {
        skip("this host has less than 6 GiB");
        return;
    };
    let regions: Vec<_> = ram.regions().collect();
    let guest: Vec<_> = regions.iter().map(|region| (region.guest_address, region.size)).collect();
    assert_eq!(guest, [(0, 3 * gib), (4 * gib, 3 * gib)]);
    assert_eq!(regions.iter().map(|region| region.file_offset).collect::<Vec<_>>(), [0, 3 * gib]);
    let high = GuestAddress(4 * gib);
    ram.memory().write_obj(5_u8, high).unwrap();
    let mut byte = [0];
    nix::sys::uio::pread(regions[1].fd, &mut byte, 3 << 30).unwrap();
    assert_eq!(byte, [5]);
}

#[test]
fn sizes_that_can_not_be_are_refused_with_the_limit() {
    assert_eq!(
        refused(spec(32 * MIB)),
        "32 MiB of memory is too small for a guest; the least is 64 MiB"
    );
    assert_eq!(
        refused(spec(64 * MIB + 512)),
        "67109376 bytes of memory is not a multiple of the page size, 4 KiB"
    );
    let huge = MemorySpec { hugepages: Some(2 * MIB), ..spec(65 * MIB) };
    assert_eq!(refused(huge), "65 MiB of memory is not a multiple of the page size, 2 MiB");
    let refusal = refused(spec(1 << 50));
    assert!(refusal.starts_with("1024 TiB of memory is too large for this host"), "{refusal}");
}

#[test]
fn prefaulting_more_than_is_available_is_refused_before_it_starts() {
    let host = host::memory();
    if host.available == u64::MAX || host.available / PAGE * PAGE + MIB > host.total {
        skip("all of this host's memory is available");
        return;
    }
    let size = host.available / PAGE * PAGE + MIB;
    let refusal = refused(MemorySpec { prefault: true, ..spec(size) });
    assert!(refusal.contains("can't be prefaulted"), "{refusal}");
}

#[test]
fn a_lack_of_huge_pages_is_said_with_their_number_and_the_way_out() {
    let hugepages = Some(2 * MIB);
    if host::free_hugepages(2 * MIB).is_none_or(|free| free > 0) {
        skip("this host has free huge pages, or none at all");
        return;
    }
    assert_eq!(
        refused(MemorySpec { hugepages, ..spec(64 * MIB) }),
        "32 free huge pages of 2 MiB are needed and this host has 0; reserve them by writing to \
         /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
    );
}

#[test]
fn huge_pages_of_no_processor_are_refused() {
    let refusal = refused(MemorySpec { hugepages: Some(8 * MIB), ..spec(64 * MIB) });
    assert_eq!(refusal, "this host has no huge pages of 8 MiB");
}
