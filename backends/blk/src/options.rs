//! The command line of `atoll-blk`.

use std::path::PathBuf;

use atoll_backend::{Args, Capabilities, LimitArgs};

use crate::cache::Cache;
use crate::disk::OnEnospc;
use crate::format::Format;

/// What `--print-capabilities` says.
pub const CAPABILITIES: Capabilities =
    Capabilities { device_type: "block", features: &["read-only", "blk-file"] };

const EXAMPLES: &str = "\
Examples:
  A disk for one guest; the socket's file is removed at the end:
      atoll-blk --socket-path=/run/vm/blk.sock --blk-file=disk.img

  A read-only disk with a serial number, which the guest sees under /dev/disk/by-id:
      atoll-blk --socket-path=blk.sock --blk-file=base.img --read-only --serial=BASE1

  A block device of the host with a queue for each of four CPUs of the guest:
      atoll-blk --socket-path=blk.sock --blk-file=/dev/vg0/guest --num-queues=4

  A qcow2 image whose backing file is elsewhere:
      atoll-blk --socket-path=blk.sock --blk-file=vm.qcow2 --format=qcow2 --backing-dir=/srv/base

  A disk past the host's page cache, whose blocks have 4096 bytes:
      atoll-blk --socket-path=blk.sock --blk-file=/dev/vg0/guest --cache=none \\
                --logical-block-size=4096
      atoll-blk --socket-path=blk.sock --blk-file=vm.qcow2 --format=qcow2 --cache=none

  One of several guests that start from the same image and keep nothing:
      atoll-blk --socket-path=blk.sock --blk-file=base.qcow2 --format=qcow2 --snapshot

  A new version of a running disk, for `atoll ctl device swap ID socket=new.sock`:
      atoll-blk --socket-path=new.sock --blk-file=disk.img --takeover

  A disk of at most 100 MiB and 2000 requests a second, which can be counted and changed:
      atoll-blk --socket-path=blk.sock --blk-file=disk.img --limit-bps=100M --limit-iops=2000 \\
                --control-socket=control.sock
      curl --unix-socket control.sock http://disk/metrics
      curl --unix-socket control.sock -X PATCH -d '{\"iops\": 500}' http://disk/limits

SIGHUP lets it look at the size of its image again, which the guest then sees.
Exit codes: 0 asked to end, or the only front-end left; 1 failure; 2 wrong command line.
RUST_LOG=info (or debug) says more on standard error.";

/// Serves a disk image as a vhost-user block device.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "atoll-blk", version, after_help = EXAMPLES, next_help_heading = "Disk")]
pub struct Options {
    /// Disk image, or block device
    #[arg(long, value_name = "FILE", required_unless_present = "print_capabilities")]
    pub blk_file: Option<PathBuf>,

    /// Format of the disk image; without it the image is raw, and one that begins as qcow2 does is
    /// refused. `auto` looks, which is not for images that a guest could write to as raw ones
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: Option<Format>,

    /// Folder in which backing files of a qcow2 image may be, beside the image's own; may be
    /// repeated
    #[arg(long, value_name = "DIR")]
    pub backing_dir: Vec<PathBuf>,

    /// Leave the image as it is: what the guest writes goes to a temporary file (in TMPDIR, or
    /// /var/tmp) and is lost when this process ends; several processes may serve the same image
    #[arg(long)]
    pub snapshot: bool,

    /// Let the guest read only; several processes may then serve the same image
    #[arg(long)]
    pub read_only: bool,

    /// Start although another process has the image: it must have let go of it when the front-end
    /// starts this disk, as `atoll ctl device swap` sees to
    #[arg(long, conflicts_with = "snapshot")]
    pub takeover: bool,

    /// Serial number that the guest sees, of up to 20 ASCII characters
    #[arg(long, value_name = "SERIAL", value_parser = serial)]
    pub serial: Option<String>,

    /// Number of queues, each with a thread of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub num_queues: u16,

    /// How fast it may work.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// What may keep what the guest wrote before it is on stable storage. `none`: the disk's own
    /// cache, requests go past the host's page cache, to backing files too; `writeback`: the page cache, until the guest
    /// flushes; `writethrough`: nothing, a write that is done is stable; `unsafe`: the page cache,
    /// and flushes are ignored. The guest may switch between the second and the third
    #[arg(long, value_name = "MODE", value_enum, default_value = "writeback")]
    pub cache: Cache,

    /// Size of the blocks that the guest's requests are multiples of [default: 512, or what
    /// --cache=none needs of a raw image]
    #[arg(long, value_name = "BYTES", value_parser = block_size)]
    pub logical_block_size: Option<u32>,

    /// Size of the blocks that the disk is best at [default: the logical blocks']
    #[arg(long, value_name = "BYTES", value_parser = block_size)]
    pub physical_block_size: Option<u32>,

    /// The smallest request that the disk does well
    #[arg(long, value_name = "BYTES")]
    pub min_io_size: Option<u32>,

    /// The size of requests that the disk does best
    #[arg(long, value_name = "BYTES")]
    pub opt_io_size: Option<u32>,

    /// How requests run at once: by io_uring, or by threads; `auto` takes io_uring where the kernel
    /// permits it. Images other than raw ones are always served by threads
    #[arg(long, value_name = "ENGINE", value_enum, default_value = "auto")]
    pub aio: Aio,

    /// How long a queue whose requests follow closely upon each other is looked at before its thread
    /// goes to sleep, in microseconds, as long as that meets them sooner than sleep would; 0 never
    /// looks
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub poll_us: u32,

    /// What becomes of a request for which the host has no space: `report` an error to the guest, or
    /// `pause` it and try again each second, while others go on
    #[arg(long, value_name = "POLICY", value_enum, default_value = "report")]
    pub on_enospc: OnEnospc,

    /// What every device process takes.
    #[command(flatten)]
    pub backend: Args,
}

/// What runs requests at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Aio {
    /// io_uring where the kernel permits it, threads elsewhere.
    #[default]
    Auto,
    /// io_uring, or nothing.
    // As the system and QEMU's `aio=` spell it.
    #[value(name = "io_uring", alias = "io-uring")]
    IoUring,
    /// Threads.
    Threads,
}

/// No driver takes larger ones everywhere.
fn block_size(text: &str) -> Result<u32, String> {
    let size = text.parse().ok().filter(|size: &u32| size.is_power_of_two());
    size.filter(|size| (512..=4096).contains(size))
        .ok_or_else(|| "blocks have 512, 1024, 2048 or 4096 bytes".into())
}

/// virtio 1.3 §5.2.6: the string is at most 20 bytes long.
fn serial(text: &str) -> Result<String, String> {
    if text.len() <= 20 && text.is_ascii() {
        Ok(text.into())
    } else {
        Err("a serial number has at most 20 ASCII characters".into())
    }
}
