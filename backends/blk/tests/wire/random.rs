//! Random requests on one and on four queues, many at a time, by a process that is killed again and
//! again: the disk holds what a simple model of it does, and `qemu-img` finds nothing wrong.

use std::collections::HashMap;
use std::fs::{self, File};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use atoll_driver::{BlkRequest, Buffer, FrontEnd, Memory, Process, Queue, TIMEOUT};
use nix::sys::signal::Signal;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserInflight;

use crate::disk::{FLUSH, SECTOR, USUAL};
use crate::qcow2::{Folder, assert_clean, qemu_img};

/// Of every disk here; it does not end with a cluster.
const SECTORS: u64 = (9 << 11) - 40;
const DEATHS: u64 = 5;
const ROUNDS: u64 = 40;
/// In flight at once, on each queue.
const DEPTH: usize = 6;
/// The longest read or write.
const LONGEST: u64 = 160;
const QUEUE_SIZE: u16 = 128;
const CACHED: &str = "--cache=writeback";
const UNCACHED: &str = "--cache=none";
const MQ: u64 = 1 << 12;
const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;

/// Numbers that look random, and are the same each time.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

/// A sector's number, and whether it may as well be zero because it was discarded.
type Sector = (u64, bool);

fn bytes_of(value: u64, sectors: u64) -> Vec<u8> {
    value.to_be_bytes().repeat(sectors as usize * SECTOR / 8)
}

#[derive(Debug)]
enum Kind {
    Read,
    Write(u64),
    Discard,
    Zero,
    Flush,
}

/// A request in flight.
struct Pending {
    kind: Kind,
    sectors: Range<u64>,
    place: usize,
}

/// Room for one request in guest memory.
struct Place {
    header: u64,
    status: u64,
    data: u64,
}

struct Guest {
    memory: Memory,
    queues: Vec<Queue>,
    record: Option<(VhostUserInflight, File)>,
    places: Vec<Place>,
    free: Vec<usize>,
    pending: Vec<HashMap<u16, Pending>>,
    disk: Vec<Sector>,
    dice: Dice,
    next: u64,
}

impl Guest {
    fn new(queues: usize, disk: Vec<Sector>, seed: u64) -> Self {
        let memory = Memory::new(32 << 20).unwrap();
        let features = USUAL | FLUSH | MQ | DISCARD | WRITE_ZEROES;
        let make = |index| Queue::new(&memory, index, QUEUE_SIZE, features).unwrap();
        let places = (0..queues * DEPTH).map(|_| Place {
            header: memory.put(&[0; 16]).unwrap(),
            status: memory.put(&[0]).unwrap(),
            data: memory.allocate(LONGEST as usize * SECTOR, 512).unwrap(),
        });
        Self {
            places: places.collect(),
            free: (0..queues * DEPTH).collect(),
            queues: (0..queues).map(make).collect(),
            pending: (0..queues).map(|_| HashMap::new()).collect(),
            memory: memory.clone(),
            record: None,
            disk,
            dice: Dice(seed),
            next: 1 << 40,
        }
    }

    fn attach(&mut self, socket: &Path) -> FrontEnd {
        let mut device = FrontEnd::connect(socket, self.memory.clone()).unwrap();
        device.negotiate(USUAL | FLUSH | MQ | DISCARD | WRITE_ZEROES).unwrap();
        let wanted = VhostUserInflight::new(0, 0, self.queues.len() as u16, QUEUE_SIZE);
        let (layout, file) = self.record.take().unwrap_or_else(|| {
            device.exchange("GET_INFLIGHT_FD", |inner| inner.get_inflight_fd(&wanted)).unwrap()
        });
        device
            .exchange("SET_INFLIGHT_FD", |inner| inner.set_inflight_fd(&layout, file.as_raw_fd()))
            .unwrap();
        self.record = Some((layout, file));
        for queue in &self.queues {
            device.attach(queue, queue.ring().used_index().unwrap()).unwrap();
        }
        device
    }

    /// Some sectors that no request in flight is about.
    fn choose(&mut self, most: u64) -> Option<Range<u64>> {
        let start = match self.dice.roll(8) {
            0 => SECTORS - 1 - self.dice.roll(64),
            _ => self.dice.roll(SECTORS),
        };
        // As file systems like it, or not.
        let start = if self.dice.roll(2) == 0 { start & !127 } else { start };
        let end = (start + 1 + self.dice.roll(most)).min(SECTORS);
        let mut all = self.pending.iter().flat_map(HashMap::values);
        let busy = |other: &Pending| other.sectors.start < end && start < other.sectors.end;
        (!all.any(busy)).then_some(start..end)
    }

    fn submit(&mut self, index: usize) {
        let kind = match self.dice.roll(12) {
            0 => Kind::Flush,
            1 => Kind::Discard,
            2 | 3 => Kind::Zero,
            4..7 => Kind::Read,
            _ => {
                self.next += 1;
                Kind::Write(self.next)
            }
        };
        let most = match kind {
            Kind::Read | Kind::Write(_) => LONGEST,
            _ => 2000,
        };
        let sectors = match kind {
            Kind::Flush => 0..0,
            _ => match self.choose(most) {
                Some(sectors) => sectors,
                None => return,
            },
        };
        let Some(place) = self.free.pop() else { return };
        let at = &self.places[place];
        let (memory, count) = (&self.memory, sectors.end - sectors.start);
        let len = (count as usize * SECTOR) as u32;
        let unmap = self.dice.roll(2) as u32;
        let (code, data) = match kind {
            Kind::Read => (BlkRequest::IN, vec![Buffer::writable(at.data, len)]),
            Kind::Write(value) => {
                memory.write(at.data, &bytes_of(value, count)).unwrap();
                (BlkRequest::OUT, vec![Buffer::readable(at.data, len)])
            }
            Kind::Flush => (BlkRequest::FLUSH, vec![]),
            Kind::Discard | Kind::Zero => {
                let flags = if let Kind::Zero = kind { unmap } else { 0 };
                let rest = u64::from(count as u32) | u64::from(flags) << 32;
                let range = [sectors.start.to_le_bytes(), rest.to_le_bytes()].concat();
                memory.write(at.data, &range).unwrap();
                let discard = matches!(kind, Kind::Discard);
                let code = if discard { BlkRequest::DISCARD } else { BlkRequest::WRITE_ZEROES };
                (code, vec![Buffer::readable(at.data, 16)])
            }
        };
        let sector = if data.len() == 1 && len > 0 { sectors.start } else { 0 };
        let header = [u64::from(code).to_le_bytes(), sector.to_le_bytes()].concat();
        memory.write(at.header, &header).unwrap();
        memory.write(at.status, &[BlkRequest::PENDING]).unwrap();
        let request = BlkRequest { header: at.header, status: at.status, data };
        let head = self.queues[index].add(&request.buffers()).unwrap();
        self.pending[index].insert(head, Pending { kind, sectors, place });
    }

    /// Takes what a queue has completed. With `wait`, waits for one.
    fn complete(&mut self, index: usize, wait: bool) {
        let queue = &mut self.queues[index];
        let mut used = match wait {
            true => Some(queue.wait(TIMEOUT).unwrap()),
            false => queue.take_used().unwrap(),
        };
        while let Some(done) = used {
            let Pending { kind, sectors, place } = self.pending[index].remove(&done.head).unwrap();
            let at = &self.places[place];
            let status = self.memory.get(at.status, 1).unwrap();
            assert_eq!(status, [BlkRequest::OK], "{kind:?} of {sectors:?}");
            let disk = &mut self.disk[sectors.start as usize..sectors.end as usize];
            match kind {
                Kind::Read => {
                    let bytes = self.memory.get(at.data, disk.len() * SECTOR).unwrap();
                    assert_same(sectors.start, disk, &bytes);
                }
                Kind::Write(value) => disk.fill((value, false)),
                Kind::Zero => disk.fill((0, false)),
                Kind::Discard => disk.iter_mut().for_each(|sector| sector.1 = true),
                Kind::Flush => {}
            }
            self.free.push(place);
            used = self.queues[index].take_used().unwrap();
        }
    }

    fn work(&mut self, rounds: u64) {
        for _ in 0..rounds {
            for index in 0..self.queues.len() {
                for _ in 0..self.dice.roll(DEPTH as u64) {
                    self.submit(index);
                }
                self.queues[index].publish().unwrap();
            }
            let index = self.dice.roll(self.queues.len() as u64) as usize;
            let wait = !self.pending[index].is_empty();
            self.complete(index, wait);
        }
    }

    fn finish(&mut self) {
        for index in 0..self.queues.len() {
            while !self.pending[index].is_empty() {
                self.complete(index, true);
            }
        }
    }
}

fn assert_same(start: u64, disk: &[Sector], bytes: &[u8]) {
    for (index, (bytes, (value, or_zero))) in bytes.chunks(SECTOR).zip(disk).enumerate() {
        let found = u64::from_be_bytes(bytes[..8].try_into().unwrap());
        assert!(bytes.chunks(8).all(|part| part == &bytes[..8]), "torn: {}", start + index as u64);
        let right = found == *value || *or_zero && found == 0;
        assert!(right, "sector {} holds {found:#x}, not {value:#x}", start + index as u64);
    }
}

/// A disk before its first request: where it is, its format, what it holds.
struct Made {
    folder: Folder,
    image: PathBuf,
    format: &'static str,
    disk: Vec<Sector>,
    /// How it is served.
    cache: &'static str,
}

fn empty() -> Vec<Sector> {
    vec![(0, false); SECTORS as usize]
}

fn numbered(folder: &Folder) -> (PathBuf, Vec<Sector>) {
    let disk: Vec<Sector> = (1..=SECTORS).map(|value| (value, false)).collect();
    let path = folder.path("base.raw");
    let bytes: Vec<u8> = disk.iter().flat_map(|(value, _)| bytes_of(*value, 1)).collect();
    fs::write(&path, bytes).unwrap();
    (path, disk)
}

fn raw() -> Made {
    let folder = Folder::in_memory();
    let image = folder.path("disk.raw");
    File::create(&image).unwrap().set_len(SECTORS * SECTOR as u64).unwrap();
    Made { folder, image, format: "raw", disk: empty(), cache: CACHED }
}

fn created(folder: Folder, options: &[&str], disk: Vec<Sector>) -> Made {
    let image = folder.path("disk.qcow2");
    let size = (SECTORS * SECTOR as u64).to_string();
    let mut args = vec!["create", "-q", "-f", "qcow2"];
    args.extend(options);
    args.extend([image.to_str().unwrap(), &size]);
    qemu_img(&args);
    Made { folder, image, format: "qcow2", disk, cache: CACHED }
}

fn plain(options: &str) -> Made {
    created(Folder::in_memory(), &["-o", options], empty())
}

/// Over a compressed image, over a raw one.
fn chain(folder: Folder, options: &str) -> Made {
    let (raw, disk) = numbered(&folder);
    let middle = folder.path("middle.qcow2");
    let [from, to] = [&raw, &middle].map(|path| path.to_str().unwrap());
    qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", from, to]);
    created(folder, &["-o", options, "-b", "middle.qcow2", "-F", "qcow2"], disk)
}

fn over_raw() -> Made {
    let folder = Folder::in_memory();
    let (_, disk) = numbered(&folder);
    created(folder, &["-b", "base.raw", "-F", "raw"], disk)
}

/// Written to itself, as the images are that come over the network.
fn compressed(folder: Folder) -> Made {
    let (raw, disk) = numbered(&folder);
    let image = folder.path("disk.qcow2");
    let [from, to] = [&raw, &image].map(|path| path.to_str().unwrap());
    qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", from, to]);
    Made { folder, image, format: "qcow2", disk, cache: CACHED }
}

fn serve(made: &Made, queues: usize) -> Process {
    let options = [
        format!("--format={}", made.format),
        format!("--num-queues={queues}"),
        made.cache.to_owned(),
    ];
    made.folder.serve(&made.image, &options.each_ref().map(String::as_str))
}

/// What a dead process leaves can be repaired by others, too.
fn assert_repairable(made: &Made) {
    let copy = made.folder.path("copy.qcow2");
    fs::copy(&made.image, &copy).unwrap();
    let path = copy.to_str().unwrap();
    qemu_img(&["check", "-q", "-r", "all", "-f", "qcow2", path]);
    assert_clean(&copy);
}

fn live(made: &Made, queues: usize, seed: u64) {
    println!("{} with {queues} queues, seed {seed}", made.image.display());

    let mut guest = Guest::new(queues, made.disk.clone(), seed);
    let socket = made.folder.path("sock");
    for _ in 0..DEATHS {
        let mut process = serve(made, queues);
        let device = guest.attach(&socket);
        let rounds = 1 + guest.dice.roll(ROUNDS);
        guest.work(rounds);
        process.signal(Signal::SIGKILL).unwrap();
        process.wait().unwrap();
        drop(device);
        if made.format == "qcow2" {
            assert_repairable(made);
        }
    }
    let mut process = serve(made, queues);
    let device = guest.attach(&socket);
    guest.work(ROUNDS);
    guest.finish();
    drop(device);
    assert!(process.terminate().unwrap().0.success());
    let path = made.image.to_str().unwrap();
    let out = made.folder.path("out.raw");
    let to = out.to_str().unwrap();
    qemu_img(&["convert", "-f", made.format, "-O", "raw", path, to]);
    assert_same(0, &guest.disk, &fs::read(&out).unwrap());
    if made.format == "qcow2" {
        assert_clean(&made.image);
    }
    qemu_img(&["compare", "-q", "-f", made.format, "-F", "raw", path, to]);
}

#[test]
fn a_raw_disk_is_as_its_model_says() {
    live(&raw(), 1, 11);
    live(&raw(), 4, 12);
}

#[test]
fn a_qcow2_disk_of_version_3_is_as_its_model_says() {
    live(&plain("compat=1.1"), 1, 21);
    live(&plain("compat=1.1"), 4, 22);
    live(&plain("compat=1.1,cluster_size=4k,refcount_bits=1"), 4, 23);
}

#[test]
fn a_qcow2_disk_of_version_2_is_as_its_model_says() {
    live(&plain("compat=0.10"), 1, 31);
    live(&plain("compat=0.10,cluster_size=4k"), 4, 32);
}

#[test]
fn a_disk_over_backing_files_is_as_its_model_says() {
    live(&chain(Folder::in_memory(), "compat=1.1"), 1, 41);
    live(&chain(Folder::in_memory(), "compat=1.1,cluster_size=4k"), 4, 42);
    live(&chain(Folder::in_memory(), "compat=0.10"), 4, 43);
    live(&over_raw(), 1, 44);
    live(&over_raw(), 4, 45);
}

#[test]
fn a_compressed_disk_is_as_its_model_says() {
    live(&compressed(Folder::in_memory()), 1, 51);
    live(&compressed(Folder::in_memory()), 4, 52);
}

/// Where requests can go past the page cache, which they can't everywhere in memory.
fn uncached(made: impl FnOnce(Folder) -> Made) -> Made {
    Made { cache: UNCACHED, ..made(Folder::new()) }
}

#[test]
fn a_disk_past_the_page_cache_is_as_its_model_says() {
    live(&uncached(|folder| created(folder, &["-o", "cluster_size=4k"], empty())), 4, 61);
    live(&uncached(|folder| created(folder, &["-o", "compat=0.10"], empty())), 1, 62);
    live(&uncached(|folder| chain(folder, "cluster_size=64k")), 4, 63);
    live(&uncached(compressed), 1, 64);
}
