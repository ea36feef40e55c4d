//! What a guest reads of its processors.

use super::*;

fn leaf(function: u32, index: u32) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, index, ..Default::default() }
}

fn host(vendor: &[u8; 4]) -> Vec<kvm_cpuid_entry2> {
    let mut leaves = vec![
        kvm_cpuid_entry2 { eax: 0x1f, ebx: u32::from_le_bytes(*vendor), ..leaf(0, 0) },
        kvm_cpuid_entry2 { ebx: 0x1234_0800, ..leaf(1, 0) },
        // An L1 data cache, an L3, and the end of the list.
        kvm_cpuid_entry2 { eax: 0x1c00_4121, ..leaf(4, 0) },
        kvm_cpuid_entry2 { eax: 0xfc0f_c163, ..leaf(4, 1) },
        leaf(4, 2),
        leaf(0xb, 0),
        leaf(0x1f, 0),
        leaf(0x8000_0001, 0),
        kvm_cpuid_entry2 { eax: 0x3028, ecx: 0x7fff, ..leaf(0x8000_0008, 0) },
        kvm_cpuid_entry2 { eax: 0x0c163, ..leaf(0x8000_001d, 3) },
        leaf(0x8000_001e, 0),
    ];
    leaves[1].edx = HTT;
    leaves
}

fn find(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
    let mut found =
        cpuid.as_slice().iter().filter(|leaf| (leaf.function, leaf.index) == (function, index));
    let leaf = *found.next().unwrap();
    assert!(found.next().is_none(), "leaf {function:#x}.{index} is there twice");
    leaf
}

fn guest(vendor: &[u8; 4], cpus: u8, index: u8) -> CpuId {
    Cpuid::from_leaves(host(vendor), cpus, true).of_vcpu(index).unwrap()
}

#[test]
fn every_vcpu_has_the_apic_id_of_its_number_in_every_leaf() {
    for index in [0, 1, 63] {
        let cpuid = guest(b"Auth", 64, index);
        let id = u32::from(index);
        assert_eq!(find(&cpuid, 1, 0).ebx >> 24, id);
        assert_eq!(find(&cpuid, 0xb, 0).edx, id);
        assert_eq!(find(&cpuid, 0xb, 1).edx, id);
        assert_eq!(find(&cpuid, 0x8000_001e, 0).eax, id);
        assert_eq!(find(&cpuid, 0x8000_001e, 0).ebx, id, "core id, one thread");
    }
}

#[test]
fn the_extended_topology_has_one_thread_a_core_and_enough_bits_for_all_cores() {
    for (cpus, bits) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (63, 6), (64, 6)] {
        let cpuid = guest(b"Genu", cpus, 0);
        let (threads, cores, end) =
            (find(&cpuid, 0xb, 0), find(&cpuid, 0xb, 1), find(&cpuid, 0xb, 2));
        assert_eq!((threads.eax, threads.ebx, threads.ecx), (0, 1, 0x100));
        assert_eq!((cores.eax, cores.ebx, cores.ecx), (bits, u32::from(cpus), 0x201), "{cpus}");
        assert_eq!((end.eax, end.ebx, end.ecx), (0, 0, 2));
    }
}

#[test]
fn intel_guests_count_cores_in_the_cache_leaf_and_share_the_last_level_only() {
    let cpuid = guest(b"Genu", 6, 0);
    let (l1, l3) = (find(&cpuid, 4, 0).eax, find(&cpuid, 4, 1).eax);
    assert_eq!((l1 >> 26, l3 >> 26), (7, 7));
    assert_eq!((l1 >> 14 & 0xfff, l3 >> 14 & 0xfff), (0, 7));
    assert_eq!(find(&cpuid, 4, 2).eax, 0, "the end of the list stays the end");
    assert_eq!(find(&cpuid, 0x8000_0001, 0).ecx & CMP_LEGACY, 0);
}

#[test]
fn amd_guests_count_cores_in_leaf_8() {
    let cpuid = guest(b"Auth", 6, 0);
    assert_eq!(find(&cpuid, 0x8000_0008, 0).ecx, 3 << 12 | 5);
    assert_eq!(find(&cpuid, 0x8000_0001, 0).ecx & CMP_LEGACY, CMP_LEGACY);
    assert_eq!(find(&cpuid, 0x8000_001d, 3).eax >> 14 & 0xfff, 7);
}

#[test]
fn one_vcpu_is_a_package_without_siblings() {
    let cpuid = guest(b"Auth", 1, 0);
    let leaf = find(&cpuid, 1, 0);
    assert_eq!((leaf.edx & HTT, leaf.ebx >> 16 & 0xff), (0, 1));
    assert_eq!(find(&cpuid, 0x8000_0008, 0).ecx, 0);
    assert_eq!(find(&cpuid, 0x8000_0001, 0).ecx & CMP_LEGACY, 0);
}

#[test]
fn the_deadline_timer_is_there_if_kvm_has_it_and_the_hypervisor_always() {
    for deadline_timer in [false, true] {
        let cpuid = Cpuid::from_leaves(host(b"Genu"), 1, deadline_timer).of_vcpu(0).unwrap();
        let ecx = find(&cpuid, 1, 0).ecx;
        assert_eq!(ecx & TSC_DEADLINE != 0, deadline_timer);
        assert_ne!(ecx & HYPERVISOR, 0);
    }
}

#[test]
fn a_processor_without_extended_topology_gets_none() {
    let mut leaves = host(b"Auth");
    leaves[0].eax = 0xa;
    let cpuid = Cpuid::from_leaves(leaves, 4, true).of_vcpu(0).unwrap();
    assert!(cpuid.as_slice().iter().all(|leaf| leaf.function != 0xb && leaf.function != 0x1f));
}

#[test]
fn address_bits_are_the_processors_or_the_smallest() {
    assert_eq!(Cpuid::from_leaves(host(b"Auth"), 1, true).address_bits(), 0x28);
    assert_eq!(Cpuid::from_leaves(vec![leaf(0, 0)], 1, true).address_bits(), 36);
}
