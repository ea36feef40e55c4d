//! The power goes at any moment: what was not on stable storage then is there in part, sector by
//! sector, or not at all.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use atoll_backend::DirectAlignment;

use super::super::host::Event;
use super::*;
use crate::format::chain;

const SECTOR: usize = 512;
/// Of the disk.
const LEN: u64 = 3 << 20;
const SECTORS: u64 = LEN / SECTOR as u64;
const OPERATIONS: u64 = 50;

/// Numbers that look random, and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

/// What each sector may hold; the values of the last flush come first.
struct Model(Vec<BTreeSet<u64>>);

impl Model {
    fn written(&mut self, sectors: Span, value: u64) {
        self.0[sectors].iter_mut().for_each(|values| {
            values.insert(value);
        });
    }

    fn flushed(&mut self, now: &[u64]) {
        self.0.iter_mut().zip(now).for_each(|(values, now)| *values = BTreeSet::from([*now]));
    }
}

type Span = std::ops::Range<usize>;

fn bytes_of(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes().repeat(SECTOR / 8)).collect()
}

fn qemu_img(args: &[&str]) {
    let output = Command::new("qemu-img").args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "qemu-img {args:?}: {stderr}");
}

fn open(path: &Path, direct: Option<DirectAlignment>) -> Qcow2 {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let file = ImageFile::with_alignment(file, direct);
    let image = Qcow2::new(Arc::new(chain::open(file, path, &[]).unwrap()), false);
    image.begin().unwrap();
    image
}

fn contents(image: &Qcow2) -> Vec<u64> {
    let mut bytes = vec![0; LEN as usize];
    image.with(|clusters| clusters.get(0, &mut bytes)).unwrap();
    let sectors = bytes.as_chunks::<SECTOR>().0.iter();
    sectors
        .enumerate()
        .map(|(sector, bytes)| {
            let value = *bytes.first_chunk().unwrap();
            assert!(
                bytes.as_chunks().0.iter().all(|part| *part == value),
                "sector {sector} is torn"
            );
            u64::from_be_bytes(value)
        })
        .collect()
}

/// The file as the power cut leaves it, of what it was and what happened to it.
fn remains(before: &[u8], events: &[Event], dice: &mut Dice) -> Vec<u8> {
    let settled = events.iter().rposition(|event| matches!(event, Event::Settled)).unwrap_or(0);
    let mut file = before.to_vec();
    // None, all, or about so many of four.
    let luck = dice.roll(5);
    for (index, event) in events.iter().enumerate() {
        let mut stays = || index < settled || dice.roll(4) < luck;
        match event {
            Event::Write(offset, bytes) => {
                let mut at = *offset as usize;
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (sector, after) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
                    if stays() && at + sector.len() <= file.len() {
                        file[at..at + sector.len()].copy_from_slice(sector);
                    }
                    at += sector.len();
                    rest = after;
                }
            }
            Event::Zero(offset, len) if stays() => {
                let end = file.len().min((offset + len) as usize);
                file[(*offset as usize).min(end)..end].fill(0);
            }
            Event::Len(len) if stays() => file.resize(*len as usize, 0),
            _ => {}
        }
    }
    file
}

struct Life {
    image: Qcow2,
    now: Vec<u64>,
    model: Model,
    dice: Dice,
    next: u64,
}

impl Life {
    fn step(&mut self) {
        let dice = &mut self.dice;
        let start = dice.roll(SECTORS) as usize;
        let most = [8, 8, 64, 600][dice.roll(4) as usize];
        let end = (start + 1 + dice.roll(most) as usize).min(SECTORS as usize);
        let (start, end) = if dice.roll(3) == 0 { (start & !127, end | 127) } else { (start, end) };
        let sectors = start..end.min(SECTORS as usize);
        let offset = (sectors.start * SECTOR) as u64;
        let range =
            Range { offset, len: (sectors.len() * SECTOR) as u64, unmap: dice.roll(2) == 0 };
        match dice.roll(12) {
            0 => {
                self.image.flush().unwrap();
                self.model.flushed(&self.now);
            }
            1 | 2 => {
                self.image.write_zeroes(range).unwrap();
                self.now[sectors.clone()].fill(0);
                self.model.written(sectors, 0);
            }
            3 | 4 => {
                self.image.discard(range).unwrap();
                self.model.written(sectors, 0);
                self.now = contents(&self.image);
            }
            _ => {
                let value = self.next;
                self.next += 1;
                let bytes = bytes_of(&vec![value; sectors.len()]);
                self.image.with(|clusters| clusters.put(offset, &bytes)).unwrap();
                self.now[sectors.clone()].fill(value);
                self.model.written(sectors, value);
            }
        }
    }
}

/// Lives with the image `path`, and looks at what cuts leave of it.
fn live(path: &Path, seed: u64) {
    live_in_blocks(path, seed, None);
}

/// As above, with a file that is read and written in blocks of its own.
fn live_in_blocks(path: &Path, seed: u64, direct: Option<DirectAlignment>) {
    let image = open(path, direct);
    let now = contents(&image);
    let model = Model(now.iter().map(|value| BTreeSet::from([*value])).collect());
    let mut life = Life { image, now, model, dice: Dice(seed), next: 1_000_000 };
    let before = fs::read(path).unwrap();
    let mut events = Vec::new();
    let cut = path.with_file_name("cut.qcow2");
    for step in 0..OPERATIONS {
        let cuts = step % 5 == seed % 5;
        let kept = if cuts { life.model.0.clone() } else { Vec::new() };
        life.step();
        let happened = life.image.with(|clusters| Ok(clusters.host().take_journal())).unwrap();
        // Somewhere within this step.
        let until = events.len() + life.dice.roll(happened.len() as u64 + 1) as usize;
        let whole = until == events.len() + happened.len();
        events.extend(happened);
        if !cuts {
            continue;
        }
        assert!(contents(&life.image) == life.now, "step {step} of {seed}");
        let rest = remains(&before, &events[..until], &mut life.dice);
        let used = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        fs::write(&cut, &rest[..used]).unwrap();
        File::options().write(true).open(&cut).unwrap().set_len(rest.len() as u64).unwrap();
        let image = open(&cut, direct);
        let found = contents(&image);
        for (sector, found) in found.iter().enumerate() {
            let allowed = life.model.0[sector].contains(found)
                // A flush that has not returned promises nothing.
                || !whole && kept[sector].contains(found);
            assert!(allowed, "sector {sector} holds {found} after step {step} of {seed}");
        }
        image.end();
        qemu_img(&["check", "-q", "-f", "qcow2", cut.to_str().unwrap()]);
    }
    life.image.end();
    qemu_img(&["check", "-q", "-f", "qcow2", path.to_str().unwrap()]);
    let image = open(path, direct);
    assert!(contents(&image) == life.now, "{seed}");
    image.end();
}

/// Where nothing is as slow as stable storage is: when it is settled is our own doing.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A raw file whose sectors have numbers from one on.
fn numbered(dir: &Path) -> PathBuf {
    let path = dir.join("base.raw");
    fs::write(&path, bytes_of(&(1..=SECTORS).collect::<Vec<_>>())).unwrap();
    path
}

fn create(dir: &Path, options: &[&str]) -> PathBuf {
    let path = dir.join("disk.qcow2");
    let len = LEN.to_string();
    let mut args = vec!["create", "-q", "-f", "qcow2"];
    args.extend(options);
    args.extend([path.to_str().unwrap(), &len]);
    qemu_img(&args);
    path
}

fn compressed(dir: &Path, options: &str) -> PathBuf {
    let base = numbered(dir);
    let path = dir.join("disk.qcow2");
    let [from, to] = [&base, &path].map(|path| path.to_str().unwrap());
    qemu_img(&["convert", "-c", "-O", "qcow2", "-f", "raw", "-o", options, from, to]);
    path
}

#[test]
fn no_flushed_byte_is_lost_to_a_power_cut() {
    for (index, options) in
        ["cluster_size=64k", "compat=0.10", "cluster_size=512", "cluster_size=4k,refcount_bits=1"]
            .iter()
            .enumerate()
    {
        for seed in 1..3 {
            let dir = in_memory();
            live(&create(dir.path(), &["-o", options]), seed + 10 * index as u64);
        }
    }
}

#[test]
fn no_byte_of_a_backing_file_is_lost_to_a_power_cut() {
    for (index, options) in
        ["cluster_size=64k", "compat=0.10", "cluster_size=4k"].iter().enumerate()
    {
        for seed in 1..3 {
            let dir = in_memory();
            numbered(dir.path());
            let more = ["-o", options, "-b", "base.raw", "-F", "raw"];
            live(&create(dir.path(), &more), seed + 100 * (index as u64 + 1));
        }
    }
}

#[test]
fn no_compressed_byte_is_lost_to_a_power_cut() {
    for (index, options) in
        ["cluster_size=64k", "compat=0.10", "cluster_size=4k"].iter().enumerate()
    {
        for seed in 1..3 {
            let dir = in_memory();
            live(&compressed(dir.path(), options), seed + 1000 * (index as u64 + 1));
        }
    }
}

#[test]
fn no_byte_is_lost_to_a_power_cut_where_the_host_takes_whole_blocks() {
    let direct = |offset| Some(DirectAlignment { memory: 512, offset });
    let behind = |dir: &Path, options| {
        numbered(dir);
        create(dir, &["-o", options, "-b", "base.raw", "-F", "raw"])
    };
    let dir = in_memory();
    live_in_blocks(&behind(dir.path(), "cluster_size=64k"), 10_000, direct(512));
    let dir = in_memory();
    live_in_blocks(&behind(dir.path(), "compat=0.10"), 20_000, direct(4096));
    let dir = in_memory();
    live_in_blocks(&compressed(dir.path(), "cluster_size=4k"), 30_000, direct(4096));
    // Several clusters, and with them tables, in one block.
    let dir = in_memory();
    live_in_blocks(&create(dir.path(), &["-o", "cluster_size=512"]), 40_000, direct(4096));
}
