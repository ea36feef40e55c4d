//! Block requests (virtio 1.3 §5.2.6) as chains.

use crate::{Buffer, Error, Memory};

/// A block request in guest memory: header, data, status byte.
#[derive(Clone, Debug)]
pub struct BlkRequest {
    /// Where the 16 bytes of type, reserved and sector are.
    pub header: u64,
    /// The data buffers.
    pub data: Vec<Buffer>,
    /// Where the device puts the status.
    pub status: u64,
}

impl BlkRequest {
    /// VIRTIO_BLK_T_IN: read.
    pub const IN: u32 = 0;
    /// VIRTIO_BLK_T_OUT: write.
    pub const OUT: u32 = 1;
    /// VIRTIO_BLK_T_FLUSH.
    pub const FLUSH: u32 = 4;
    /// VIRTIO_BLK_T_GET_ID.
    pub const GET_ID: u32 = 8;

    /// VIRTIO_BLK_T_DISCARD.
    pub const DISCARD: u32 = 11;
    /// VIRTIO_BLK_T_WRITE_ZEROES.
    pub const WRITE_ZEROES: u32 = 13;
    /// VIRTIO_BLK_T_SECURE_ERASE.
    pub const SECURE_ERASE: u32 = 14;

    /// VIRTIO_BLK_S_OK.
    pub const OK: u8 = 0;
    /// VIRTIO_BLK_S_IOERR.
    pub const IOERR: u8 = 1;
    /// VIRTIO_BLK_S_UNSUPP.
    pub const UNSUPP: u8 = 2;
    /// What the status byte holds until the device writes it.
    pub const PENDING: u8 = 0xff;

    /// Writes a request's header and status into guest memory.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn new(memory: &Memory, kind: u32, sector: u64, data: Vec<Buffer>) -> Result<Self, Error> {
        let mut header = Vec::with_capacity(16);
        header.extend_from_slice(&kind.to_le_bytes());
        header.extend_from_slice(&0_u32.to_le_bytes());
        header.extend_from_slice(&sector.to_le_bytes());
        let header = memory.put(&header)?;
        let status = memory.put(&[Self::PENDING])?;
        Ok(Self { header, data, status })
    }

    /// A read of `len` bytes into a new buffer.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn read(memory: &Memory, sector: u64, len: u32) -> Result<Self, Error> {
        let address = memory.allocate(usize::try_from(len).unwrap_or(usize::MAX), 512)?;
        Self::new(memory, Self::IN, sector, vec![Buffer::writable(address, len)])
    }

    /// A write of `bytes`.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn write(memory: &Memory, sector: u64, bytes: &[u8]) -> Result<Self, Error> {
        let address = memory.allocate(bytes.len(), 512)?;
        memory.write(address, bytes)?;
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self::new(memory, Self::OUT, sector, vec![Buffer::readable(address, len)])
    }

    /// A flush.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn flush(memory: &Memory) -> Result<Self, Error> {
        Self::new(memory, Self::FLUSH, 0, Vec::new())
    }

    /// A request of a `kind` that names ranges: sector, number of sectors, flags.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn ranges(memory: &Memory, kind: u32, ranges: &[(u64, u32, u32)]) -> Result<Self, Error> {
        let bytes: Vec<u8> = ranges
            .iter()
            .flat_map(|(sector, sectors, flags)| {
                let rest = [sectors.to_le_bytes(), flags.to_le_bytes()];
                sector.to_le_bytes().into_iter().chain(rest.into_iter().flatten())
            })
            .collect();
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let data = vec![Buffer::readable(memory.put(&bytes)?, len)];
        Self::new(memory, kind, 0, data)
    }

    /// The chain to submit.
    pub fn buffers(&self) -> Vec<Buffer> {
        let mut buffers = vec![Buffer::readable(self.header, 16)];
        buffers.extend_from_slice(&self.data);
        buffers.push(Buffer::writable(self.status, 1));
        buffers
    }

    /// The status that the device wrote, or [`BlkRequest::PENDING`].
    ///
    /// # Errors
    /// [`Error::Access`].
    pub fn status(&self, memory: &Memory) -> Result<u8, Error> {
        Ok(memory.get(self.status, 1)?.first().copied().unwrap_or(Self::PENDING))
    }

    /// The bytes of all data buffers.
    ///
    /// # Errors
    /// [`Error::Access`].
    pub fn bytes(&self, memory: &Memory) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        for buffer in &self.data {
            bytes.extend(memory.get(buffer.addr, usize::try_from(buffer.len).unwrap_or(0))?);
        }
        Ok(bytes)
    }
}
