//! A running guest with one good disk, the witness, and others whose backends are the test's.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use atoll_tests::bare_guest::{self, ANSWERED, RESET};
use atoll_tests::image::Image;
use atoll_tests::process::{Finished, Process, run};
use atoll_tests::procfs;
use atoll_tests::scratch::Scratch;
use atoll_tests::wait_for;

/// What a process has in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footprint {
    pub(crate) files: usize,
    pub(crate) threads: usize,
    pub(crate) memory_kib: u64,
}

/// A running guest. Disk 0 is the witness, served by its own `atoll-blk`.
pub(crate) struct Rig {
    pub(crate) vmm: Process,
    serial: PathBuf,
    scratch: Scratch,
    _witness: Image,
}

impl Rig {
    /// Starts a guest with further disks at `sockets`, named `disk1`, `disk2` and so on, each with
    /// `keys` besides. Waits for nothing.
    #[track_caller]
    pub(crate) fn start(sockets: &[&Path], keys: &str) -> Self {
        let (scratch, witness) = (Scratch::new(), Image::blank(1 << 20));
        let disks = 1 + u32::try_from(sockets.len()).expect("few disks");
        let kernel = scratch.write("kernel", bare_guest::kernel(disks));
        let serial = scratch.join("serial");
        let mut args = vec!["run".to_owned(), "--kernel".to_owned(), kernel.display().to_string()];
        args.extend(["--memory".to_owned(), "128M".to_owned(), "--serial".to_owned()]);
        // Nobody in this guest heeds the power button.
        args.extend([format!("file={}", serial.display()), "--grace".to_owned(), "0".to_owned()]);
        let control = scratch.join("control").display().to_string();
        args.extend(["--control".to_owned(), control]);
        args.extend(["--disk".to_owned(), format!("path={},id=witness", witness.path().display())]);
        for (socket, number) in sockets.iter().zip(1..) {
            let device = format!("blk,socket={},id=disk{number}{keys}", socket.display());
            args.extend(["--device".to_owned(), device]);
        }
        Self { vmm: Process::ours("atoll", &args), serial, scratch, _witness: witness }
    }

    /// How often the guest has said `word`.
    pub(crate) fn said(&self, word: u8) -> usize {
        let bytes = std::fs::read(&self.serial).unwrap_or_default();
        bytes.iter().filter(|byte| **byte == word).count()
    }

    /// How many reads of disk `number` were answered.
    pub(crate) fn answered(&self, number: u8) -> usize {
        self.said(ANSWERED + number)
    }

    /// How often the guest has reset disk `number`.
    pub(crate) fn resets(&self, number: u8) -> usize {
        self.said(RESET + number)
    }

    /// Waits until disk `number` answers, from now on.
    #[track_caller]
    pub(crate) fn wait_for_answers(&mut self, number: u8) {
        // One may have been under way.
        let enough = self.answered(number) + 2;
        wait_for(&format!("answers of disk {number}"), || {
            assert!(self.vmm.is_running(), "the VMM has ended: {}", self.vmm.stderr());
            (self.answered(number) >= enough).then_some(())
        });
    }

    /// Neither the VMM nor the guest's other disk has noticed anything.
    #[track_caller]
    pub(crate) fn check_witness(&mut self) {
        self.wait_for_answers(0);
    }

    /// What the VMM has in use.
    pub(crate) fn footprint(&self) -> Footprint {
        let pid = self.vmm.pid();
        Footprint {
            files: procfs::open_files(pid),
            threads: procfs::threads(pid).len(),
            memory_kib: procfs::own_memory(pid),
        }
    }

    /// The lines that the VMM has said of a device.
    pub(crate) fn lines_about(&self, id: &str) -> Vec<String> {
        let log = self.vmm.stderr();
        log.lines().filter(|line| line.contains(id)).map(str::to_owned).collect()
    }

    /// Has `atoll ctl` do something, and returns what it prints.
    #[track_caller]
    pub(crate) fn ctl(&self, args: &[&str]) -> String {
        let finished = self.run_ctl(args);
        assert_eq!(finished.code, 0, "atoll ctl {args:?}: {}", finished.stderr);
        finished.stdout
    }

    /// Has `atoll ctl` ask for something that is refused, and returns why.
    #[track_caller]
    pub(crate) fn ctl_refused(&self, args: &[&str]) -> String {
        let finished = self.run_ctl(args);
        assert_eq!(finished.code, 1, "atoll ctl {args:?}: {}", finished.stderr);
        finished.stderr
    }

    #[track_caller]
    fn run_ctl(&self, args: &[&str]) -> Finished {
        let socket = self.scratch.join("control").display().to_string();
        run("atoll", ["ctl", "--socket", &socket].iter().chain(args))
    }

    /// Ends the VMM, which must do so at once and well.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        let finished = self.vmm.stop();
        assert_eq!(finished.code, 0, "{}", finished.stderr);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.vmm.stderr();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            eprintln!("$ {}\n--- the VMM:\n{}", self.vmm.command_line(), tail.join("\n"));
        }
    }
}

/// A number from the environment, or what is usual.
pub(crate) fn from_environment(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Numbers without a pattern, other ones in each run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        let now = UNIX_EPOCH.elapsed().expect("a clock after 1970");
        // An odd seed is never 0.
        Self(u64::from(now.subsec_nanos()) << 1 | 1)
    }

    /// A while.
    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        // xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        most.mul_f64((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }
}
