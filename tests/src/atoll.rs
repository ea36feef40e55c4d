//! A guest under Atoll to be: its `atoll run` command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::artifacts;
use crate::guest::{Guest, KERNEL_OPTIONS};
use crate::image::Image;
use crate::network::Tap;
use crate::process::Process;
use crate::scratch::Scratch;

/// A guest under Atoll to be.
pub struct Builder {
    kernel: PathBuf,
    initrd: PathBuf,
    cmdline: String,
    cpus: u32,
    memory: String,
    devices: Vec<OsString>,
    options: Vec<OsString>,
}

impl Builder {
    /// A guest of one vCPU and 256 MiB that boots the stock kernel from its ELF file into a small
    /// initramfs.
    #[track_caller]
    pub(crate) fn new() -> Self {
        Self {
            kernel: artifacts::get("vmlinux"),
            initrd: artifacts::get("initramfs.cpio.gz"),
            cmdline: KERNEL_OPTIONS.to_owned(),
            cpus: 1,
            memory: "256M".to_owned(),
            devices: Vec::new(),
            options: Vec::new(),
        }
    }

    /// Boots `name` of the guest directory: `vmlinux`, as usual, or `bzImage`.
    #[track_caller]
    pub fn kernel(mut self, name: &str) -> Self {
        self.kernel = artifacts::get(name);
        self
    }

    /// Adds words to the kernel's command line.
    pub fn cmdline(mut self, words: &str) -> Self {
        self.cmdline = format!("{} {words}", self.cmdline);
        self
    }

    /// Gives it `count` vCPUs instead of one.
    pub fn cpus(mut self, count: u32) -> Self {
        self.cpus = count;
        self
    }

    /// Gives it memory as `--memory` takes it.
    pub fn memory(mut self, memory: &str) -> Self {
        memory.clone_into(&mut self.memory);
        self
    }

    /// Adds `image` as a disk of its own `atoll-blk`.
    pub fn disk(self, image: &Image) -> Self {
        self.disk_with(image, "")
    }

    /// Adds `image` as a disk, with further keys (`,readonly=on`).
    pub fn disk_with(self, image: &Image, keys: &str) -> Self {
        let path = image.path().display();
        self.device_option("--disk", format!("path={path}{keys}"))
    }

    /// Adds a network card on `tap` with its own `atoll-net`.
    pub fn net(self, tap: &Tap) -> Self {
        self.net_with(tap, "")
    }

    /// Adds a network card on `tap`, with further keys (`,queue-pairs=4`).
    pub fn net_with(self, tap: &Tap, keys: &str) -> Self {
        self.device_option("--net", format!("tap={}{keys}", tap.name()))
    }

    /// Adds a network card on a user-mode network, with further keys (`,hostfwd=tcp:2222:22`).
    pub fn user_net(self, keys: &str) -> Self {
        self.device_option("--net", format!("user{keys}"))
    }

    /// Adds a console besides the shell's, as `--console` takes it.
    pub fn console(self, to: &str) -> Self {
        self.device_option("--console", to.to_owned())
    }

    /// Adds a device of type `kind` that somebody else serves on `socket`, with further keys.
    pub fn device(self, kind: &str, socket: &Path, keys: &str) -> Self {
        self.device_option("--device", format!("{kind},socket={}{keys}", socket.display()))
    }

    fn device_option(mut self, option: &str, value: String) -> Self {
        self.devices.extend([option.into(), value.into()]);
        self
    }

    /// Adds an option that is not a device, and its value.
    pub fn option(mut self, option: &str, value: &str) -> Self {
        self.options.extend([option.into(), value.into()]);
        self
    }

    /// Starts the VMM and waits for a shell in the guest.
    ///
    /// # Panics
    /// When the VMM ends, the kernel panics or no shell answers.
    #[track_caller]
    pub fn boot(self) -> Guest {
        let mut guest = self.launch();
        guest.wait_to_boot();
        guest
    }

    /// Starts the VMM and does not wait for the guest to boot.
    ///
    /// # Panics
    /// When the VMM ends before the guest has a console.
    #[track_caller]
    pub fn launch(self) -> Guest {
        self.launch_behind(|_| {})
    }

    /// Like [`launch`](Self::launch), with something to do before the guest's console is there,
    /// which is not before all of its backends are.
    ///
    /// # Panics
    /// When the VMM ends before the guest has a console.
    #[track_caller]
    pub fn launch_behind(self, act: impl FnOnce(&mut Process)) -> Guest {
        let scratch = Scratch::new();
        let (serial, socket) = (scratch.join("serial"), scratch.join("hvc0"));
        let cpus = self.cpus.to_string();
        // hvc0 is the shell's: its device is named, and comes after the devices under test.
        let mut args: Vec<OsString> = ["run", "--cpus", &cpus, "--memory", &self.memory]
            .into_iter()
            .map(OsString::from)
            .collect();
        args.extend(["--kernel".into(), self.kernel.into(), "--initrd".into(), self.initrd.into()]);
        args.extend(["--cmdline".into(), self.cmdline.into()]);
        args.extend(["--serial".into(), format!("file={}", serial.display()).into()]);
        args.extend(["--console".into(), format!("socket={},id=shell", socket.display()).into()]);
        args.extend(self.devices);
        args.extend(self.options);
        let mut vmm = Process::ours("atoll", args);
        act(&mut vmm);
        Guest::attach(vmm, &socket, serial, scratch)
    }
}
