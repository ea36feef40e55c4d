//! Memory tables: of regions that are empty, overlap, wrap around, lack a file, or are in files that
//! can't be mapped so.

use super::handshake::{ADD_MEM_REG, Handshake, SET_MEM_TABLE};
use super::{Abuse, Told, file, strange_files, words};
use crate::Error;

/// Guest address, size, the front-end's address, offset.
type Region = [u64; 4];

/// How many regions it says it has, those that it has, and its files.
type Table = (u32, Vec<Region>, usize);

fn table(count: u32, regions: &[Region]) -> Vec<u8> {
    let head = [count, 0].map(u32::to_ne_bytes).concat();
    [head, words(regions.as_flattened())].concat()
}

pub(super) fn all(handshake: &Handshake) -> Result<Vec<Abuse>, Error> {
    let page = file(4096)?;
    let one = |region: Region| (1, vec![region], 1);
    let tables: [(&str, Table); 14] = [
        ("no regions", (0, Vec::new(), 0)),
        ("fewer regions than said", (2, vec![[0, 4096, 0, 0]], 1)),
        ("more regions than said", (1, vec![[0, 4096, 0, 0], [4096, 4096, 4096, 0]], 2)),
        ("as many regions as a number can say", (u32::MAX, vec![[0, 4096, 0, 0]], 1)),
        ("a file short", (2, vec![[0, 4096, 0, 0], [4096, 4096, 4096, 0]], 1)),
        ("overlapping", (2, vec![[0, 4096, 0, 0], [0, 4096, 4096, 0]], 2)),
        ("of no size", one([0, 0, 0, 0])),
        ("larger than its file", one([0, 1 << 30, 0, 0])),
        ("larger than memory", one([0, u64::MAX, 0, 0])),
        ("behind its file", one([0, 4096, 0, 1 << 40])),
        ("at an offset within a page", one([0, 2048, 0, 3])),
        ("at an offset that wraps around", one([0, 4096, 0, u64::MAX - 4095])),
        ("wrapping around", one([u64::MAX - 4095, 4096, 0, 0])),
        ("wrapping around for the front-end", one([0, 4096, u64::MAX - 4095, 0])),
    ];
    let mut all: Vec<_> = tables
        .into_iter()
        .map(|(what, (count, regions, fds))| {
            handshake.with(format!("memory table: {what}"), SET_MEM_TABLE, |told: &Told| {
                let fds = vec![page.clone(); fds];
                told.with_payload(table(count, &regions)).with_fds(fds)
            })
        })
        .collect();
    for (what, strange) in strange_files()? {
        for request in [SET_MEM_TABLE, ADD_MEM_REG] {
            let name = format!("memory: request {request} with {what}");
            all.push(handshake.with(name, request, |told| told.with_fds(vec![strange.clone()])));
        }
    }
    // The table's own region again, and one that overlaps it by a page.
    for region in handshake.memory.table() {
        let (guest, size) = (region.guest_phys_addr, region.memory_size);
        for (what, at) in [("the same", guest), ("an overlapping", guest + size - 4096)] {
            all.push(handshake.with(format!("memory: {what} region added"), ADD_MEM_REG, |told| {
                told.with_payload(words(&[0, at, 4096, 0x1000, 0]))
            }));
        }
    }
    Ok(all)
}
