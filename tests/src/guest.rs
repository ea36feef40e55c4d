//! A guest: the VMM it runs in, its life, and a shell in it.
//!
//! Which VMM, and with which devices, is said by a builder: [`atoll`](crate::atoll) or
//! [`qemu`](crate::qemu).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::atoll;
use crate::console::{Console, Silence};
use crate::image::Image;
use crate::process::{Finished, Process};
use crate::procfs;
use crate::scratch::Scratch;
use crate::shell::{Output, Shell};
use crate::{PATIENCE, wait_for};

/// What every guest's kernel is told: its messages go to the serial port, and few of them.
pub(crate) const KERNEL_OPTIONS: &str = "console=ttyS0 quiet";

/// How many lines of each log a failed test prints.
const TAIL: usize = 60;

/// A guest, with its VMM and a shell on its first console.
pub struct Guest {
    vmm: Process,
    shell: Shell,
    serial: PathBuf,
    scratch: Scratch,
}

impl Guest {
    /// A guest under Atoll: of one vCPU and 256 MiB, booting the stock kernel from its ELF file
    /// into a small initramfs, unless the builder is told otherwise.
    ///
    /// # Panics
    /// When there is no kernel or initramfs to boot.
    #[track_caller]
    pub fn builder() -> atoll::Builder {
        atoll::Builder::new()
    }

    /// A guest that boots the Debian system on `root`.
    ///
    /// # Panics
    /// When there is no kernel or initramfs to boot.
    #[track_caller]
    pub fn debian(root: &Image) -> atoll::Builder {
        Self::builder().memory("512M").cmdline("root=/dev/vda rw").disk(root)
    }

    /// The guest that `vmm` runs, whose first console listens, or will, on `socket`.
    ///
    /// # Panics
    /// When the VMM ends before the console listens.
    #[track_caller]
    pub fn attach(mut vmm: Process, socket: &Path, serial: PathBuf, scratch: Scratch) -> Self {
        let console = wait_for("the guest's console", || {
            let running = vmm.is_running();
            assert!(running, "`{}` ended:\n{}", vmm.command_line(), vmm.stderr());
            Console::connect(socket)
        });
        Self { vmm, shell: Shell::new(console), serial, scratch }
    }

    /// Waits until the shell answers.
    ///
    /// # Panics
    /// When the VMM ends, the kernel panics or the shell stays silent.
    #[track_caller]
    pub fn wait_to_boot(&mut self) {
        let interval = Duration::from_secs(5);
        for _ in 0..PATIENCE.as_secs() / interval.as_secs() {
            match self.shell.wait_ready(interval) {
                Ok(()) => return,
                Err(Silence::Closed) => panic!("the guest's console was closed before it booted"),
                Err(Silence::TimeUp) => {}
            }
            assert!(self.vmm.is_running(), "the VMM ended before the guest booted");
            assert!(!self.serial().contains("Kernel panic"), "the guest's kernel panicked");
        }
        panic!("the guest has not booted in {PATIENCE:?}");
    }

    /// Runs `command` in the guest.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn run(&mut self, command: &str) -> Output {
        self.shell.run(command)
    }

    /// Runs `command` in the guest and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn check(&mut self, command: &str) -> String {
        let output = self.run(command);
        assert_eq!(output.status, 0, "`{command}` in the guest failed: {}", output.stdout);
        output.stdout
    }

    /// How often each interrupt of a virtio device has fired, by its name in `/proc/interrupts`
    /// (`virtio0-req.0`).
    #[track_caller]
    pub fn virtio_interrupts(&mut self) -> BTreeMap<String, u64> {
        let table = self.check("cat /proc/interrupts");
        let lines = table.lines().filter(|line| line.contains("virtio"));
        lines
            .map(|line| {
                let mut words = line.split_whitespace().skip(1);
                let fired = words.by_ref().map_while(|word| word.parse::<u64>().ok()).sum();
                (line.split_whitespace().last().unwrap_or_default().to_owned(), fired)
            })
            .collect()
    }

    /// Takes the driver off the device whose directory in sysfs is `device`, and gives it back.
    ///
    /// # Panics
    /// When the driver refuses either.
    #[track_caller]
    pub fn rebind(&mut self, device: &str) {
        self.check(&format!(
            "d=$(readlink -f {device}) && r=$(readlink -f $d/driver) && \
             echo ${{d##*/}} > $r/unbind && echo ${{d##*/}} > $r/bind"
        ));
    }

    /// Switches the guest off from inside and waits for the VMM to end.
    ///
    /// # Panics
    /// When the VMM ends with anything but 0.
    #[track_caller]
    pub fn power_off(&mut self) -> Finished {
        // Debian's own way lets its services end; the initramfs has no services.
        self.leave_by(
            "[ -d /run/systemd/system ] && poweroff || { umount -a; sync; poweroff -f; }",
        );
        let finished = self.vmm.wait();
        assert_eq!(finished.code, 0, "the VMM's exit code after a power-off: {}", finished.stderr);
        finished
    }

    /// Restarts the guest from inside and waits until it has booted again.
    ///
    /// # Panics
    /// When it does not come back.
    #[track_caller]
    pub fn reboot(&mut self) {
        let boot_id = "cat /proc/sys/kernel/random/boot_id";
        let before = self.check(boot_id);
        self.leave_by("[ -d /run/systemd/system ] && reboot || { umount -a; sync; reboot -f; }");
        wait_for("the guest's next boot", || {
            self.wait_to_boot();
            // The old shell may answer a last time, and not live to the end of this.
            let after = self.shell.try_run(boot_id, Duration::from_secs(10))?;
            (after.stdout != before).then_some(())
        });
    }

    #[track_caller]
    fn leave_by(&mut self, command: &str) {
        self.shell.console().type_text(&format!("{command}\n"));
    }

    /// The VMM.
    pub fn vmm(&mut self) -> &mut Process {
        &mut self.vmm
    }

    /// The shell's console.
    pub fn shell_console(&mut self) -> &mut Console {
        self.shell.console()
    }

    /// The VMM's process id.
    pub fn pid(&self) -> u32 {
        self.vmm.pid()
    }

    /// The backends that the VMM has started, by process id.
    pub fn backends(&self) -> BTreeMap<u32, String> {
        procfs::children(self.pid())
    }

    /// Presses the power button, as SIGTERM to the VMM does.
    #[track_caller]
    pub fn press_power_button(&self) {
        self.vmm.signal(Signal::SIGTERM);
    }

    /// What the guest has written to its serial port.
    pub fn serial(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.serial).unwrap_or_default()).into_owned()
    }

    /// The directory that the guest's own sockets are in.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// What is to be read after a failure.
    fn report(&mut self) -> String {
        let mut report = format!("\n$ {}\n", self.vmm.command_line());
        let logs = [
            ("the VMM and its backends", self.vmm.stderr()),
            ("the serial port", self.serial()),
            ("the console", self.shell.console().transcript()),
        ];
        for (name, log) in logs {
            let skipped = log.lines().count().saturating_sub(TAIL);
            let tail: Vec<_> = log.lines().skip(skipped).collect();
            // Writing to a string cannot fail.
            let _written = write!(report, "--- {name}:\n{}\n", tail.join("\n"));
        }
        report
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.report());
        }
    }
}
