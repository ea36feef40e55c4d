//! Bytes a second through `atoll-console` without a guest: a software driver prints and reads with
//! buffers as long as Linux's, beside what two of this machine's threads get through a bare socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use atoll_driver::{ConsoleGuest, Process};
use atoll_tests::scratch::Scratch;
use atoll_tests::{program, wait_for};

/// What goes through for a figure.
const BYTES: usize = 512 << 20;

/// Figures of each kind; the median counts.
const RUNS: usize = 5;

/// The length of Linux's buffers: of a terminal and of what is typed, and of what is written to a port.
const BUFFERS: [usize; 2] = [4 << 10, 32 << 10];

const MIB: f64 = (1 << 20) as f64;

/// Measures all and prints the table.
pub(crate) fn measure() -> Result<ExitCode> {
    println!("MiB/s without a guest, median of {RUNS} (least to most)");
    row("a bare Unix socket", || {
        let (ours, theirs) = UnixStream::pair()?;
        let began = Instant::now();
        let reading = read_all(theirs);
        write_all(&ours)?;
        reading.join().ok().context("the reader has failed")??;
        Ok(began.elapsed().as_secs_f64())
    })?;
    for buffer in BUFFERS {
        let scratch = Scratch::new();
        let [front_end, tty] = ["front-end", "tty"].map(|name| scratch.join(name));
        let mut process = Process::spawn(
            &program::ours("atoll-console").to_string_lossy(),
            [format!("--socket-path={}", front_end.display()), format!("--unix={}", tty.display())],
        )?;
        wait_for("the process", || front_end.exists().then_some(()));
        let mut guest = ConsoleGuest::attach(&front_end, buffer, 64)?;
        let mut stream = UnixStream::connect(&tty)?;
        // What is printed before it is attached is not all kept.
        guest.print(b"!")?;
        stream.read_exact(&mut [0])?;
        row(&format!("from the driver, {} KiB buffers", buffer >> 10), || {
            let began = Instant::now();
            let reading = read_all(stream.try_clone()?);
            let piece = vec![b'x'; 1 << 20];
            for _ in 0..BYTES / piece.len() {
                guest.print(&piece)?;
            }
            reading.join().ok().context("the reader has failed")??;
            Ok(began.elapsed().as_secs_f64())
        })?;
        row(&format!("to the driver, {} KiB buffers", buffer >> 10), || {
            let began = Instant::now();
            let typed = stream.try_clone()?;
            let typing = thread::spawn(move || write_all(&typed));
            let mut read = 0;
            while read < BYTES {
                read += guest.read((BYTES - read).min(1 << 20))?.len();
            }
            typing.join().ok().context("the writer has failed")??;
            Ok(began.elapsed().as_secs_f64())
        })?;
        process.terminate()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(name: &str, mut measure: impl FnMut() -> Result<f64>) -> Result<()> {
    let mut rates = Vec::new();
    for _ in 0..RUNS {
        rates.push(BYTES as f64 / MIB / measure()?);
    }
    rates.sort_by(f64::total_cmp);
    let at = |index: usize| rates.get(index).copied().unwrap_or(f64::NAN);
    let (least, median, most) = (at(0), at(RUNS / 2), at(RUNS - 1));
    println!("{name:<40}{median:>10.0} ({least:.0} to {most:.0})");
    Ok(())
}

fn read_all(mut stream: UnixStream) -> thread::JoinHandle<Result<()>> {
    thread::spawn(move || {
        let (mut piece, mut left) = (vec![0; 256 << 10], BYTES);
        while left > 0 {
            let count = stream.read(&mut piece)?;
            anyhow::ensure!(count > 0, "the socket was closed");
            left -= count;
        }
        Ok(())
    })
}

fn write_all(mut stream: &UnixStream) -> Result<()> {
    let piece = vec![b'x'; 64 << 10];
    for _ in 0..BYTES / piece.len() {
        stream.write_all(&piece)?;
    }
    Ok(())
}
