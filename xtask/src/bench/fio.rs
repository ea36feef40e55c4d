//! `cargo xtask bench fio`: what a guest's own fio makes of its disk, under Atoll with `atoll-blk`
//! and under QEMU with its virtio-blk, in one boot of the place where guests run. Both guests are
//! there all the time and work in turn; figures are medians, ratios those of the median pair.

use std::process::ExitCode;

use anyhow::{Context, Result};
use atoll_tests::guest::Guest;
use atoll_tests::image::{Image, MIB};
use atoll_tests::qemu;

use super::median::median;
use super::report::Report;

/// Runs of each.
const ROUNDS: usize = 5;

/// How long a run takes and how long it warms up before, in s.
const RUN: u32 = 3;
const WARM_UP: u32 = 1;

/// What is asked of the disk: fio's pattern, the side of its report, block, depth.
const CELLS: [(&str, &str, &str, u32); 3] = [
    ("randread", "read", "4k", 1),
    ("randread", "read", "4k", 32),
    ("randwrite", "write", "4k", 32),
];

/// A disk as one of the guests has it.
struct Lane {
    name: &'static str,
    /// Which of the two guests: Atoll's is the first.
    guest: usize,
    device: &'static str,
}

/// Ratios are against the second.
const LANES: [Lane; 3] = [
    Lane { name: "atoll, atoll-blk", guest: 0, device: "/dev/vdb" },
    Lane { name: "QEMU, virtio-blk", guest: 1, device: "/dev/vdb" },
    Lane { name: "QEMU, virtio-blk, iothread", guest: 1, device: "/dev/vdc" },
];

/// A run's figures.
#[derive(Clone, Copy)]
struct Figures {
    rate: f64,
    /// us.
    p50: f64,
    p99: f64,
}

/// Measures and prints the table.
pub(crate) fn measure() -> Result<ExitCode> {
    let root = Image::debian();
    let other_root = Image::debian();
    let disks = [(); LANES.len()].map(|()| Image::patterned(64 * MIB));
    let [ours, plain, threaded] = &disks;
    let mut guests = [
        Guest::debian(&root).disk(ours).boot(),
        qemu::builder()
            .cmdline("root=/dev/vda rw")
            .arg("-object", "iothread,id=thread".to_owned())
            .arg("-drive", drive("root", &other_root))
            .arg("-device", "virtio-blk-pci,drive=root".to_owned())
            .arg("-drive", drive("plain", plain))
            .arg("-device", "virtio-blk-pci,drive=plain".to_owned())
            .arg("-drive", drive("threaded", threaded))
            .arg("-device", "virtio-blk-pci,drive=threaded,iothread=thread".to_owned())
            .boot(),
    ];
    println!("a guest's fio, O_DIRECT, its disk in the host's page cache; {ROUNDS} runs in turn");
    for cell in CELLS {
        let mut runs = [(); LANES.len()].map(|()| Vec::new());
        for _ in 0..ROUNDS {
            for (lane, runs) in LANES.iter().zip(&mut runs) {
                let guest = guests.get_mut(lane.guest).context("no such guest")?;
                runs.push(run(guest, lane, cell)?);
            }
        }
        print(cell, &runs);
    }
    for mut guest in guests {
        guest.power_off();
    }
    Ok(ExitCode::SUCCESS)
}

fn drive(id: &str, image: &Image) -> String {
    let path = image.path().display();
    format!("if=none,id={id},format=raw,aio=io_uring,cache=writeback,file={path}")
}

fn run(guest: &mut Guest, lane: &Lane, cell: (&str, &str, &str, u32)) -> Result<Figures> {
    let (pattern, side, block, depth) = cell;
    guest.check(&format!(
        "fio --name=bench --filename={} --rw={pattern} --bs={block} --iodepth={depth} --direct=1 \
         --ioengine=libaio --norandommap --randrepeat=0 --time_based --runtime={RUN} \
         --ramp_time={WARM_UP} --output-format=json --output=/tmp/fio > /dev/null",
        lane.device
    ));
    let report = Report::of(&guest.check("cat /tmp/fio"))?;
    let percentile = |at: &str| report.number(&format!("/{side}/clat_ns/percentile/{at}"));
    Ok(Figures {
        rate: report.number(&format!("/{side}/iops"))?,
        p50: percentile("50.000000")? / 1e3,
        p99: percentile("99.000000")? / 1e3,
    })
}

fn print((pattern, _, block, depth): (&str, &str, &str, u32), runs: &[Vec<Figures>; LANES.len()]) {
    println!("\n{block} {pattern} depth-{depth}");
    println!("{:<32}{:>10}{:>10}{:>10}{:>10}", "", "IOPS", "ratio", "p50 us", "p99 us");
    let [_, peer, _] = runs;
    for (lane, runs) in LANES.iter().zip(runs) {
        let of = |figure: fn(&Figures) -> f64| median(runs.iter().map(figure));
        let (rate, p50, p99) = (of(|run| run.rate), of(|run| run.p50), of(|run| run.p99));
        let ratio = median(runs.iter().zip(peer).map(|(run, peer)| run.rate / peer.rate));
        println!("{:<32}{rate:>10.0}{ratio:>10.2}{p50:>10.0}{p99:>10.0}", lane.name);
    }
}
