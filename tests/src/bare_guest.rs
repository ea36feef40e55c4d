//! A guest of some hundred instructions that drives disks over virtio-pci: what a kernel's driver
//! does, in milliseconds and on any KVM, with no kernel.
//!
//! Each disk is read from again and again, one sector at a time, and each round says on the serial
//! port how it went. A disk whose device asks for a reset is reset and set up anew. There is one
//! queue a disk and one request in flight, without interrupts.

use crate::machine_code::{Code, JNZ};
use crate::payload;

/// What the guest says when the disk with this number has answered a read: `a` for the first one.
pub const ANSWERED: u8 = b'a';
/// What it says when it has reset that disk: `A` for the first one.
pub const RESET: u8 = b'A';

/// Where the VMM puts BARs: 32 KiB each, in the order of the devices.
const FIRST_BAR: u32 = 0xc000_0000;
const BAR_SIZE: u32 = 0x8000;
/// PCI configuration space, 32 KiB a device, of which the first is the host bridge.
const ECAM: u32 = 0xe000_0000;
/// Where the rings of the first disk are; those of the next one are `STRIDE` further.
const RINGS: u32 = 0x40_0000;
const STRIDE: u32 = 0x1_0000;
const AVAIL: u32 = 0x1000;
const USED: u32 = 0x2000;
const HEADER: u32 = 0x3000;
const STATUS: u32 = 0x3010;
const SECTOR: u32 = 0x4000;
/// Descriptors in each ring.
const QUEUE_SIZE: u16 = 8;

/// In the BAR: device_status, and where queue 0 is kicked (virtio 1.3 §4.1.4.3).
const DEVICE_STATUS: u32 = 20;
const NOTIFY: u32 = 0x3000;
const DRIVER: u8 = 1 | 2;
const FEATURES_OK: u8 = 8;
const DRIVER_OK: u8 = 4;
const NEEDS_RESET: u8 = 64;

/// A kernel that drives `disks` disks, the first devices on the bus.
pub fn kernel(disks: u32) -> Vec<u8> {
    let mut code = Code::default();
    for disk in 0..disks {
        // Memory decoding and bus mastering.
        code.store16(ECAM + (disk + 1) * 0x8000 + 4, 6);
        code.write_descriptors(disk);
        code.set_up(disk);
        code.submit(disk);
    }
    let round = code.here();
    for disk in 0..disks {
        code.reset_if_asked(disk);
        code.harvest(disk);
    }
    code.jump(round);
    payload::kernel(code.bytes())
}

impl Code {
    /// `mov al, [device_status]; test al, bits`
    fn test_status(&mut self, disk: u32, bits: u8) {
        self.push(&[&[0xa0], &(bar(disk) + DEVICE_STATUS).to_le_bytes(), &[0xa8, bits]]);
    }

    /// A chain for reading the first sector: request header, data, status (virtio 1.3 §5.2.6).
    fn write_descriptors(&mut self, disk: u32) {
        let rings = rings(disk);
        let chain = [(HEADER, 16, 1, 1), (SECTOR, 512, 1 | 2, 2), (STATUS, 1, 2, 0)];
        for ((address, length, flags, next), index) in chain.into_iter().zip(0..) {
            let descriptor = rings + 16 * index;
            self.store32(descriptor, rings + address);
            self.store32(descriptor + 8, length);
            self.store16(descriptor + 12, flags);
            self.store16(descriptor + 14, next);
        }
    }

    /// Initialises device and queue (virtio 1.3 §3.1.1), from an empty ring.
    fn set_up(&mut self, disk: u32) {
        let (bar, rings) = (bar(disk), rings(disk));
        // No interrupts; the ring's entries are all the chain at 0, as memory is zero.
        self.store32(rings + AVAIL, 1);
        self.store32(rings + USED, 0);
        self.store8(bar + DEVICE_STATUS, DRIVER);
        // VIRTIO_F_VERSION_1 alone.
        self.store32(bar + 8, 1);
        self.store32(bar + 12, 1);
        self.store8(bar + DEVICE_STATUS, DRIVER | FEATURES_OK);
        self.store16(bar + 22, 0);
        self.store16(bar + 24, QUEUE_SIZE);
        for (field, offset) in [(32, 0), (40, AVAIL), (48, USED)] {
            self.store32(bar + field, rings + offset);
            self.store32(bar + field + 4, 0);
        }
        self.store16(bar + 28, 1);
        self.store8(bar + DEVICE_STATUS, DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// Makes the chain available once more, and kicks: `inc word [avail.idx]`.
    fn submit(&mut self, disk: u32) {
        self.store8(rings(disk) + STATUS, 0xff);
        self.push(&[&[0x66, 0xff, 0x05], &(rings(disk) + AVAIL + 2).to_le_bytes()]);
        self.store16(bar(disk) + NOTIFY, 0);
    }

    fn reset_if_asked(&mut self, disk: u32) {
        self.test_status(disk, NEEDS_RESET);
        self.if_any(|code| {
            code.store8(bar(disk) + DEVICE_STATUS, 0);
            // A device is reset once its status reads 0 (virtio 1.3 §2.4.2).
            let wait = code.here();
            code.test_status(disk, 0xff);
            code.relative(&JNZ, wait);
            code.say(RESET + u8::try_from(disk).expect("few disks"));
            code.set_up(disk);
            code.submit(disk);
        });
    }

    /// If the request has been answered, says so and submits the next:
    /// `mov ax, [used.idx]; cmp ax, [avail.idx]`, then `cmp byte [status], 0`.
    fn harvest(&mut self, disk: u32) {
        let rings = rings(disk);
        self.push(&[&[0x66, 0xa1], &(rings + USED + 2).to_le_bytes()]);
        self.push(&[&[0x66, 0x3b, 0x05], &(rings + AVAIL + 2).to_le_bytes()]);
        self.if_equal(|code| {
            code.push(&[&[0x80, 0x3d], &(rings + STATUS).to_le_bytes(), &[0]]);
            code.if_equal(|code| {
                code.say(ANSWERED + u8::try_from(disk).expect("few disks"));
            });
            code.submit(disk);
        });
    }
}

fn bar(disk: u32) -> u32 {
    FIRST_BAR + disk * BAR_SIZE
}

fn rings(disk: u32) -> u32 {
    RINGS + disk * STRIDE
}
