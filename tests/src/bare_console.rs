//! A guest of a few instructions that moves bytes through a console as fast as it can, over virtio-pci:
//! it neither makes nor looks at them, so that what is measured is who carries them.
//!
//! It drives the device in slot 1, without interrupts, and says with `VIRTIO_F_EVENT_IDX` when it kicks, as
//! Linux does. It has `BUFFERS` buffers, and makes all that the device is done with available again at once: where
//! KVM emulates its instructions, fewer of them for each buffer leave the time to who is measured.

use crate::machine_code::{Code, JAE, JZ};
use crate::payload;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The guest prints.
    FromGuest,
    /// The guest reads.
    ToGuest,
}

/// Where a VMM's devices have their virtio registers: the number of the BAR. What is where in it is the same for
/// all that are known here (virtio 1.3 §4.1.4 lets them choose).
#[derive(Clone, Copy, Debug)]
pub enum Registers {
    /// Atoll's.
    Bar0,
    /// QEMU's.
    Bar4,
}

/// Where the registers are to be.
const BAR: u32 = 0xc000_0000;
/// Queue 0 receives, queue 1 transmits (virtio 1.3 §5.3.2). Where the first one's parts are in memory, and how
/// far from them the next one's.
const RINGS: u32 = 0x40_0000;
const STRIDE: u32 = 0x1_0000;
const AVAIL: u32 = 0x1000;
const USED: u32 = 0x2000;
const BUFFER_AREA: u32 = 0x100_0000;
/// Descriptors in each ring.
const BUFFERS: u16 = 64;
/// virtio 1.3 §2.7.10: behind the used ring.
const AVAIL_EVENT: u32 = USED + 4 + 8 * BUFFERS as u32;

/// In the BAR (virtio 1.3 §4.1.4.3): device_status, and where the queues are kicked.
const DEVICE_STATUS: u32 = 20;
const NOTIFY: u32 = 0x3000;
const DRIVER: u8 = 1 | 2;
const FEATURES_OK: u8 = 8;
const DRIVER_OK: u8 = 4;
const EVENT_IDX: u32 = 1 << 29;
const WRITE: u16 = 2;

const PCI_ADDRESS: u16 = 0xcf8;
const PCI_DATA: u16 = 0xcfc;

/// The guest's code, with buffers of `length` bytes, for a kernel or a firmware.
pub fn code(direction: Direction, length: u32, registers: Registers) -> Vec<u8> {
    let mut code = Code::default();
    code.place_registers(registers);
    code.set_up_console();
    let (queue, flags) = match direction {
        Direction::FromGuest => (1, 0),
        Direction::ToGuest => (0, WRITE),
    };
    code.fill_ring(queue, length, flags);
    code.circulate(queue);
    code.bytes().to_vec()
}

/// The same as a kernel.
pub fn kernel(direction: Direction, length: u32, registers: Registers) -> Vec<u8> {
    payload::kernel(&code(direction, length, registers))
}

impl Code {
    fn configure(&mut self, register: u32, value: u32) {
        // Bus 0, slot 1, function 0.
        self.out32(PCI_ADDRESS, 0x8000_0800 | register);
        self.out32(PCI_DATA, value);
    }

    fn place_registers(&mut self, registers: Registers) {
        let bar = match registers {
            Registers::Bar0 => 0x10,
            Registers::Bar4 => 0x20,
        };
        self.configure(bar, BAR);
        self.configure(bar + 4, 0);
        // Memory decoding and bus mastering.
        self.configure(4, 6);
    }

    /// Initialises device and queues (virtio 1.3 §3.1.1).
    fn set_up_console(&mut self) {
        self.store8(BAR + DEVICE_STATUS, 0);
        self.store8(BAR + DEVICE_STATUS, DRIVER);
        // VIRTIO_F_VERSION_1 is the first bit of the second half.
        for (half, features) in [(0, EVENT_IDX), (1, 1)] {
            self.store32(BAR + 8, half);
            self.store32(BAR + 12, features);
        }
        self.store8(BAR + DEVICE_STATUS, DRIVER | FEATURES_OK);
        for queue in [0, 1] {
            self.store16(BAR + 22, queue);
            self.store16(BAR + 24, BUFFERS);
            for (field, offset) in [(32, 0), (40, AVAIL), (48, USED)] {
                self.store32(BAR + field, ring(queue) + offset);
                self.store32(BAR + field + 4, 0);
            }
            self.store16(BAR + 28, 1);
        }
        self.store8(BAR + DEVICE_STATUS, DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// One buffer for each entry of the ring, which stays its own.
    fn fill_ring(&mut self, queue: u16, length: u32, flags: u16) {
        for index in 0..BUFFERS {
            let number = u32::from(index);
            let descriptor = ring(queue) + 16 * number;
            self.store32(descriptor, BUFFER_AREA + number * length);
            self.store32(descriptor + 8, length);
            self.store16(descriptor + 12, flags);
            self.store16(ring(queue) + AVAIL + 4 + 2 * number, index);
        }
    }

    /// Makes all buffers available, and again all that the device is done with, for ever. BX is the available
    /// index.
    fn circulate(&mut self, queue: u16) {
        self.push(&[&[0x31, 0xdb]]); // xor ebx, ebx
        let round = self.here();
        // mov cx, [used.idx]; add cx, BUFFERS; cmp cx, bx
        self.push(&[&[0x66, 0x8b, 0x0d], &(ring(queue) + USED + 2).to_le_bytes()]);
        self.push(&[&[0x66, 0x83, 0xc1, BUFFERS as u8], &[0x66, 0x39, 0xd9]]);
        self.relative(&JZ, round);
        // mov dx, cx; sub dx, bx; mov bx, cx; mov ax, cx
        self.push(&[&[0x66, 0x89, 0xca], &[0x66, 0x29, 0xda]]);
        self.push(&[&[0x66, 0x89, 0xcb], &[0x66, 0x89, 0xc8]]);
        // xchg [avail.idx], cx, which is a barrier, too
        self.push(&[&[0x66, 0x87, 0x0d], &(ring(queue) + AVAIL + 2).to_le_bytes()]);
        // virtio 1.3 §2.7.10: sub ax, [avail_event]; dec ax; cmp ax, dx
        self.push(&[&[0x66, 0x2b, 0x05], &(ring(queue) + AVAIL_EVENT).to_le_bytes()]);
        self.push(&[&[0x66, 0x48], &[0x66, 0x39, 0xd0]]);
        self.relative(&JAE, round);
        self.store16(BAR + NOTIFY + 4 * u32::from(queue), queue);
        self.jump(round);
    }
}

fn ring(queue: u16) -> u32 {
    RINGS + u32::from(queue) * STRIDE
}
