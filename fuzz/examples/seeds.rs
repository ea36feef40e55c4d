//! Makes a corpus to begin with, in the directory that is named: what well-behaved front-ends and
//! drivers send, for each target.

use std::fs;
use std::io;
use std::path::Path;

// It has what instrumented code calls.
use libfuzzer_sys as _;

fn main() -> io::Result<()> {
    let corpus = std::env::args().nth(1).unwrap_or_else(|| "corpus".into());
    let disk = [blk_request(0, 1, 512), blk_request(1, 1, 512), blk_request(4, 0, 0)];
    let rings: Vec<_> = disk.iter().flat_map(|memory| all_kinds(memory)).collect();
    write(&corpus, "messages", &[handshake(false), handshake(true)])?;
    write(&corpus, "chains", &rings)?;
    write(&corpus, "blk", &rings)?;
    let of = |queue: u8| rings.iter().map(move |ring| [&[queue], ring.as_slice()].concat());
    write(&corpus, "console", &of(0).chain(of(1)).collect::<Vec<_>>())?;
    write(&corpus, "record", &[record(0), record(1), record(2)])?;
    let images = [(2, false), (3, false), (3, true)].map(|(version, dirty)| image(version, dirty));
    write(&corpus, "image", &images)?;
    write(&corpus, "net", &[net(0, 0), net(1, 0), net(1, 1), net(1, 4)])
}

fn write(corpus: &str, target: &str, seeds: &[Vec<u8>]) -> io::Result<()> {
    let dir = Path::new(corpus).join(target);
    fs::create_dir_all(&dir)?;
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(dir.join(format!("seed-{number}")), seed)?;
    }
    Ok(())
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// One message, with the kind that says which descriptor comes with it.
fn message(request: u8, kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[request, kind, payload.len() as u8], payload].concat()
}

/// A handshake up to a ring that runs, is stopped, and runs again.
fn handshake(record: bool) -> Vec<u8> {
    const MEMORY: u8 = 2;
    const EVENT: u8 = 4;
    let number = |index: u64, number: u64| words(&[index | number << 32]);
    // Guest address, size, the front-end's address, offset.
    let table = [words(&[1]), words(&[0, 0x1_0000, 0x10_0000, 0])].concat();
    let mut messages = vec![
        message(3, 0, &[]),
        message(1, 0, &[]),
        message(15, 0, &[]),
        message(16, 0, &words(&[0x9_f6d9 & 0xb229])),
        message(2, 0, &words(&[1 << 32 | 1 << 30 | 1 << 29 | 1 << 28])),
        message(5, MEMORY, &table),
        message(24, 0, &[0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    if record {
        messages.push(message(31, 0, &words(&[0, 0, 2 | 64 << 16])));
        messages.push(message(32, MEMORY, &words(&[2 * 1088, 0, 2 | 64 << 16])));
    }
    messages.extend([
        message(8, 0, &number(0, 8)),
        message(10, 0, &number(0, 0)),
        message(9, 0, &words(&[0, 0x10_1000, 0x10_3000, 0x10_2000, 0])),
        message(14, EVENT, &words(&[0])),
        message(13, EVENT, &words(&[0])),
        message(12, EVENT, &words(&[0])),
        message(18, 0, &number(0, 1)),
        message(11, 0, &number(0, 0)),
        message(12, EVENT, &words(&[0])),
        message(37, MEMORY, &words(&[0, 0x10_0000, 0x1000, 0x90_0000, 0])),
        message(38, 0, &words(&[0, 0x10_0000, 0x1000, 0x90_0000, 0])),
        message(34, 0, &[]),
    ]);
    messages.concat()
}

/// A disk of 64 KiB in qcow2 with clusters of 512 bytes: header, refcount table, its only block, L1
/// table, an L2 table, a cluster of data.
fn image(version: u32, dirty: bool) -> Vec<u8> {
    const CLUSTER: u64 = 512;
    let mut bytes = vec![0; 6 * CLUSTER as usize];
    let mut put = |at: u64, number: &[u8]| {
        let place = bytes.iter_mut().skip(at as usize);
        place.zip(number).for_each(|(byte, given)| *byte = *given);
    };
    put(0, b"QFI\xfb");
    for (at, word) in [(4, version), (20, 9), (36, 2), (56, 1)] {
        put(at, &word.to_be_bytes());
    }
    for (at, long) in [(24, 64 << 10), (40, 3 * CLUSTER), (48, CLUSTER)] {
        put(at, &u64::to_be_bytes(long));
    }
    if version == 3 {
        put(72, &u64::from(dirty).to_be_bytes());
        put(96, &4u32.to_be_bytes());
        put(100, &104u32.to_be_bytes());
    }
    // The refcount table, counts of one, L1 and L2.
    put(CLUSTER, &(2 * CLUSTER).to_be_bytes());
    (0..6).for_each(|cluster| put(2 * CLUSTER + 2 * cluster, &[0, 1]));
    put(3 * CLUSTER, &(1 << 63 | 4 * CLUSTER).to_be_bytes());
    put(4 * CLUSTER + 16, &(1 << 63 | 5 * CLUSTER).to_be_bytes());
    put(5 * CLUSTER, &[7; CLUSTER as usize]);
    bytes
}

/// The address of a ring's memory, of eight descriptors.
const RING: u64 = 0x1000;

/// A request to a disk in a ring of eight: the memory from the descriptor table on.
fn blk_request(kind: u32, sector: u64, len: u32) -> Vec<u8> {
    let (header, data, status) = (RING + 0x200, RING + 0x400, RING + 0x300);
    let descriptor = |at: u64, len: u32, flags: u16, next: u16| {
        [&at.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()]
            .concat()
    };
    let write = if kind == 0 { 2 } else { 0 };
    let mut memory = vec![0; 0x600];
    let mut put = |at: usize, bytes: &[u8]| {
        memory.iter_mut().skip(at).zip(bytes).for_each(|(byte, given)| *byte = *given);
    };
    put(0, &descriptor(header, 16, 1, 1));
    put(16, &descriptor(data, len, 1 | write, 2));
    put(32, &descriptor(status, 1, 2, 0));
    // The same behind an indirect table.
    put(48, &descriptor(RING + 0x280, 48, 4, 0));
    put(0x280, &descriptor(header, 16, 1, 1));
    put(0x290, &descriptor(data, len, 1 | write, 2));
    put(0x2a0, &descriptor(status, 1, 2, 0));
    // The available ring: flags, index, heads.
    put(128, &[0, 0, 2, 0, 0, 0, 3, 0]);
    put(0x200, &[&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat());
    memory
}

/// `memory` in rings of eight with and without event indices, indirect tables and a record.
fn all_kinds(memory: &[u8]) -> Vec<Vec<u8>> {
    let record = [&[0; 8][..], &[1, 0, 8, 0, 0, 0, 0, 0], &[0; 128]].concat();
    [0x03, 0x23, 0x43, 0x63, 0xe3]
        .iter()
        .map(|&kind| {
            let record = if kind & 0x80 == 0 { &[] } else { record.as_slice() };
            [&[kind, 0, 0], record, memory].concat()
        })
        .collect()
}

/// A record of eight with so many in flight, of which the last batch has not been cleared.
fn record(in_flight: u8) -> Vec<u8> {
    let mut bytes = vec![3, 5, 0];
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 8, 0, 0, 0, 4, 0]);
    for head in 0..8 {
        let taken = u8::from(head < in_flight);
        bytes.extend([taken, 0, 0, 0, 0, 0, head, 0]);
        bytes.extend(words(&[u64::from(8 - head)]));
    }
    bytes
}

/// A packet's header, with all features accepted.
fn net(flags: u8, segmentation: u8) -> Vec<u8> {
    let header = [flags, segmentation, 54, 0, 100, 0, 34, 0, 16, 0, 0, 0];
    [&words(&[u64::MAX])[..], &1000_u32.to_le_bytes(), &header].concat()
}
