//! The three areas of a split virtqueue (virtio 1.3 §2.7) as bytes in guest memory.
//!
//! It reads and writes what it is told to, valid or not; [`crate::Queue`] is the polite user.

use vm_memory::ByteValued;

use crate::{Error, Memory};

/// The chain goes on at `next`.
pub const DESC_NEXT: u16 = 1;
/// The device writes this buffer.
pub const DESC_WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub const DESC_INDIRECT: u16 = 4;

/// The driver's flag that it wants no call (virtio 1.3 §2.7.6), without event indices.
const AVAIL_NO_INTERRUPT: u16 = 1;
/// The device's flag that it wants no kick (virtio 1.3 §2.7.8), without event indices.
const USED_NO_NOTIFY: u16 = 1;

/// virtio 1.3 §2.7.5.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest address of the buffer.
    pub addr: u64,
    /// Its length.
    pub len: u32,
    /// [`DESC_NEXT`], [`DESC_WRITE`], [`DESC_INDIRECT`].
    pub flags: u16,
    /// The next descriptor, where [`DESC_NEXT`] says so.
    pub next: u16,
}

// SAFETY: four integers in C layout without padding; any bytes are a valid value.
unsafe impl ByteValued for Descriptor {}

/// A split virtqueue's memory.
#[derive(Clone, Debug)]
pub struct Ring {
    memory: Memory,
    size: u16,
    desc: u64,
    avail: u64,
    used: u64,
}

impl Ring {
    /// Allocates the areas for `size` descriptors.
    ///
    /// # Errors
    /// [`Error::NoMemory`] when they do not fit.
    pub fn new(memory: &Memory, size: u16) -> Result<Self, Error> {
        let entries = usize::from(size);
        // virtio 1.3 §2.7: alignments 16, 2 and 4; each ring has flags, idx and an event word.
        let desc = memory.allocate(entries * size_of::<Descriptor>(), 16)?;
        let avail = memory.allocate(6 + 2 * entries, 2)?;
        let used = memory.allocate(6 + 8 * entries, 4)?;
        Ok(Self { memory: memory.clone(), size, desc, avail, used })
    }

    /// The number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Guest addresses of the descriptor, available and used areas. A test that changes them
    /// before the queue starts sends the device elsewhere.
    pub fn addresses(&self) -> [u64; 3] {
        [self.desc, self.avail, self.used]
    }

    /// Writes descriptor `index` of the table.
    ///
    /// # Errors
    /// [`Error::Access`] outside the memory.
    pub fn write_descriptor(&self, index: u16, descriptor: Descriptor) -> Result<(), Error> {
        self.memory.write(self.desc + 16 * u64::from(index), descriptor.as_slice())
    }

    /// Writes `descriptors` as an indirect table somewhere, and returns where.
    ///
    /// # Errors
    /// [`Error::NoMemory`] when there is no room.
    pub fn write_table(&self, descriptors: &[Descriptor]) -> Result<u64, Error> {
        let table = self.memory.allocate(size_of_val(descriptors), 16)?;
        for (address, descriptor) in (table..).step_by(16).zip(descriptors) {
            self.memory.write(address, descriptor.as_slice())?;
        }
        Ok(table)
    }

    /// Writes the available ring's entry for a running index.
    ///
    /// # Errors
    /// [`Error::Access`] outside the memory.
    pub fn set_available(&self, index: u16, head: u16) -> Result<(), Error> {
        self.memory.store(self.avail + 4 + 2 * self.slot(index), head)
    }

    /// The available ring's index.
    ///
    /// # Errors
    /// [`Error::Access`] outside the memory.
    pub fn avail_index(&self) -> Result<u16, Error> {
        self.memory.load(self.avail + 2)
    }

    /// Publishes everything up to a running index.
    ///
    /// # Errors
    /// [`Error::Access`] outside the memory.
    pub fn set_avail_index(&self, index: u16) -> Result<(), Error> {
        self.memory.store(self.avail + 2, index)
    }

    /// Makes `head` available, whatever it is.
    ///
    /// # Errors
    /// [`Error::Access`] outside the memory.
    pub fn push_head(&self, head: u16) -> Result<(), Error> {
        let index = self.avail_index()?;
        self.set_available(index, head)?;
        self.set_avail_index(index.wrapping_add(1))
    }

    /// Asks for calls, or for none, by the available ring's flags.
    ///
    /// # Errors
    /// [`Error::Access`] outside the memory.
    pub fn set_call_wanted(&self, wanted: bool) -> Result<(), Error> {
        self.memory.store(self.avail, if wanted { 0 } else { AVAIL_NO_INTERRUPT })
    }

    /// Asks for a call once the used index passes `index` (VIRTIO_RING_F_EVENT_IDX).
    ///
    /// # Errors
    /// [`Error::Access`] outside the memory.
    pub fn set_used_event(&self, index: u16) -> Result<(), Error> {
        self.memory.store(self.avail + 4 + 2 * u64::from(self.size), index)
    }

    /// The used ring's index.
    ///
    /// # Errors
    /// [`Error::Access`] outside the memory.
    pub fn used_index(&self) -> Result<u16, Error> {
        self.memory.load(self.used + 2)
    }

    /// The used ring's entry (head, bytes written) for a running index.
    ///
    /// # Errors
    /// [`Error::Access`] outside the memory.
    pub fn used(&self, index: u16) -> Result<(u32, u32), Error> {
        let entry = self.memory.get(self.used + 4 + 8 * self.slot(index), 8)?;
        let mut words = entry
            .chunks_exact(4)
            .map(|word| word.try_into().map(u32::from_le_bytes).unwrap_or_default());
        Ok((words.next().unwrap_or_default(), words.next().unwrap_or_default()))
    }

    /// Whether the device's flags say that it wants kicks.
    ///
    /// # Errors
    /// [`Error::Access`] outside the memory.
    pub fn kick_wanted(&self) -> Result<bool, Error> {
        Ok(self.memory.load(self.used)? & USED_NO_NOTIFY == 0)
    }

    /// The available index at which the device wants a kick (VIRTIO_RING_F_EVENT_IDX).
    ///
    /// # Errors
    /// [`Error::Access`] outside the memory.
    pub fn avail_event(&self) -> Result<u16, Error> {
        self.memory.load(self.used + 4 + 8 * u64::from(self.size))
    }

    fn slot(&self, index: u16) -> u64 {
        u64::from(index) % u64::from(self.size.max(1))
    }
}
