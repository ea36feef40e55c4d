//! What it costs `atoll-blk` to keep the record of what is in flight: the same load with and without,
//! in turn. The ratio is the median of those of neighbours, because a busy machine is busy for both.
//!
//! `cargo run --release -p atoll-driver --example inflight_cost -- target/release/atoll-blk [DEPTH]`
//! prints one line of JSON. The image is a sparse file in /dev/shm, so that the disk costs little.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use atoll_driver::{BlkLoad, Measured, Process};

const ROUNDS: usize = 41;
const ROUND: Duration = Duration::from_millis(100);

struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        // It is in memory, and gone with the machine at the latest.
        let _left = fs::remove_dir_all(&self.0);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let program = args.next().ok_or("inflight_cost PROGRAM [DEPTH]: no program is given")?;
    let depth = args.next().map_or(Ok(32), |depth| depth.parse())?;
    let place = Place(format!("/dev/shm/inflight_cost.{}", std::process::id()).into());
    fs::create_dir(&place.0)?;
    let (image, socket) = (place.0.join("image"), place.0.join("socket"));
    File::create(&image)?.set_len(64 << 20)?;
    let process = Process::spawn(
        &program,
        [format!("--socket-path={}", socket.display()), format!("--blk-file={}", image.display())],
    )?;
    let measure = |tracked| -> Result<Measured, atoll_driver::Error> {
        let mut load = BlkLoad::new(depth)?;
        let _device = load.attach(&socket, tracked)?;
        load.run(&process, ROUND)
    };
    measure(true)?;
    let mut pairs = Vec::new();
    for _ in 0..ROUNDS {
        pairs.push((measure(true)?, measure(false)?));
    }
    let of = |value: fn(&(Measured, Measured)) -> f64| median(pairs.iter().map(value));
    println!(
        "{{\"depth\":{depth},\"tracked_per_s\":{:.0},\"untracked_per_s\":{:.0},\
         \"throughput_ratio\":{:.4},\"tracked_cpu_ns\":{:.0},\"untracked_cpu_ns\":{:.0},\
         \"cpu_ratio\":{:.4}}}",
        of(|(with, _)| with.rate()),
        of(|(_, without)| without.rate()),
        of(|(with, without)| with.rate() / without.rate()),
        of(|(with, _)| with.cpu_each()),
        of(|(_, without)| without.cpu_each()),
        of(|(with, without)| with.cpu_each() / without.cpu_each()),
    );
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
