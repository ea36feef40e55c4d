//! A guest under QEMU to be, with QEMU's front-ends talking to our backends.

use std::path::Path;
use std::process::Command;

use crate::guest::{Guest, KERNEL_OPTIONS};
use crate::network::Tap;
use crate::process::Process;
use crate::requirement::Requirement;
use crate::scratch::Scratch;
use crate::{artifacts, program};

/// A guest under QEMU to be.
pub struct Builder {
    cmdline: String,
    args: Vec<String>,
    devices: u32,
}

/// A guest of one vCPU and 512 MiB that boots the stock kernel into a small initramfs.
pub fn builder() -> Builder {
    Builder { cmdline: KERNEL_OPTIONS.to_owned(), args: Vec::new(), devices: 0 }
}

impl Builder {
    /// Adds words to the kernel's command line.
    pub fn cmdline(mut self, words: &str) -> Self {
        self.cmdline = format!("{} {words}", self.cmdline);
        self
    }

    /// Adds a disk that an `atoll-blk` serves on `socket`.
    pub fn disk(self, socket: &Path) -> Self {
        let (builder, id) = self.chardev(socket);
        builder.arg("-device", format!("vhost-user-blk-pci,chardev={id}"))
    }

    /// Adds a disk that an `atoll-blk` serves on `socket`, and looks for it again when it is lost.
    pub fn reconnecting_disk(self, socket: &Path) -> Self {
        let (mut builder, id) = self.chardev(socket);
        builder.args.last_mut().into_iter().for_each(|chardev| chardev.push_str(",reconnect=1"));
        builder.arg("-device", format!("vhost-user-blk-pci,chardev={id},num-queues=1"))
    }

    /// Adds a network card that an `atoll-net` serves on `socket`.
    pub fn net(self, socket: &Path) -> Self {
        let (builder, id) = self.chardev(socket);
        builder
            .arg("-netdev", format!("vhost-user,id=n-{id},chardev={id}"))
            .arg("-device", format!("virtio-net-pci,netdev=n-{id}{}", net_vectors()))
    }

    /// Adds a network card on `tap` that QEMU serves itself, or has the kernel's vhost-net serve.
    pub fn tap(self, tap: &Tap, vhost: bool) -> Self {
        let (name, vhost) = (tap.name(), if vhost { "on" } else { "off" });
        self.arg(
            "-netdev",
            format!("tap,id=tap,ifname={name},script=no,downscript=no,vhost={vhost}"),
        )
        .arg("-device", format!("virtio-net-pci,netdev=tap{}", net_vectors()))
    }

    fn chardev(mut self, socket: &Path) -> (Self, String) {
        let id = format!("vhost{}", self.devices);
        self.devices += 1;
        let chardev = format!("socket,id={id},path={}", socket.display());
        (self.arg("-chardev", chardev), id)
    }

    /// Adds an option and its value.
    pub fn arg(mut self, option: &str, value: String) -> Self {
        self.args.extend([option.to_owned(), value]);
        self
    }

    /// Starts QEMU and waits for a shell in the guest.
    ///
    /// # Panics
    /// When QEMU ends or no shell answers.
    #[track_caller]
    pub fn boot(self) -> Guest {
        let scratch = Scratch::new();
        let (socket, serial) = (scratch.join("hvc0"), scratch.join("serial"));
        let mut command = Command::new(program::find("qemu-system-x86_64").expect("find QEMU"));
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            // KVM only where it can run a stock kernel.
            .args(["-machine", "q35,memory-backend=ram", "-accel", accelerator(), "-cpu", "max"])
            .args(["-object", "memory-backend-memfd,id=ram,size=512M,share=on", "-m", "512M"])
            .args(["-append", &self.cmdline])
            .arg("-kernel")
            .arg(artifacts::get("bzImage"))
            .arg("-initrd")
            .arg(artifacts::get("initramfs.cpio.gz"))
            .args(["-serial", &format!("file:{}", serial.display())])
            .args(["-device", "virtio-serial-pci"])
            .args([
                "-chardev",
                &format!("socket,id=hvc0,server=on,wait=off,path={}", socket.display()),
            ])
            .args(["-device", "virtconsole,chardev=hvc0"])
            .args(&self.args);
        let mut guest = Guest::attach(Process::spawn(command), &socket, serial, scratch);
        guest.wait_to_boot();
        guest
    }
}

/// QEMU 7.2 crashes when a vhost-user network card has MSI-X vectors and no KVM to route them.
fn net_vectors() -> &'static str {
    if accelerator() == "kvm" { "" } else { ",vectors=0" }
}

fn accelerator() -> &'static str {
    match Requirement::StockKvm.lacking() {
        None => "kvm",
        Some(_) => "tcg",
    }
}
