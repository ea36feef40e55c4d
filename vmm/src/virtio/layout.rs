//! What lies where in a virtio function's BAR, and the capabilities that say so
//! (virtio 1.3 §4.1.4).
//!
//! ```text
//! 0x0000  common configuration
//! 0x1000  ISR status
//! 0x2000  device-specific configuration
//! 0x3000  notification, 4 bytes per queue
//! 0x4000  MSI-X table, up to 512 vectors
//! 0x6000  MSI-X pending bits
//! 0x8000  end
//! ```

use super::transport::COMMON_CONFIG_SIZE;
use crate::pci::Msix;

/// Size of the BAR.
pub(super) const BAR_SIZE: u64 = 0x8000;
/// Bytes between the notification addresses of two queues.
pub(super) const NOTIFY_MULTIPLIER: u32 = 4;
/// The most queues a device can have: one more vector for configuration changes fits in the table,
/// and vhost-user has 8 bits for a queue's index.
pub(crate) const MAX_QUEUES: u16 = 255;

const COMMON: u64 = 0x0000;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const MSIX_TABLE: u64 = 0x4000;
const MSIX_PENDING: u64 = 0x6000;

/// PCI capability IDs.
pub(super) const CAPABILITY_VENDOR: u8 = 0x09;
pub(super) const CAPABILITY_MSIX: u8 = 0x11;

/// A structure in the BAR, with the offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Region {
    Common(u64),
    Isr(u64),
    Device(u64),
    Notify(u64),
    MsixTable(u64),
    MsixPending(u64),
}

impl Region {
    /// What lies at `offset`.
    pub(super) fn at(offset: u64) -> Self {
        match offset {
            MSIX_PENDING.. => Self::MsixPending(offset - MSIX_PENDING),
            MSIX_TABLE.. => Self::MsixTable(offset - MSIX_TABLE),
            NOTIFY.. => Self::Notify(offset - NOTIFY),
            DEVICE.. => Self::Device(offset - DEVICE),
            ISR.. => Self::Isr(offset - ISR),
            COMMON.. => Self::Common(offset - COMMON),
        }
    }
}

/// Where in the BAR a write notifies queue `index`.
pub(super) fn notify_offset(index: u16) -> u64 {
    NOTIFY + u64::from(index) * u64::from(NOTIFY_MULTIPLIER)
}

/// The body of a virtio PCI capability (virtio 1.3 §4.1.4): what follows ID and next pointer.
pub(super) struct VirtioCapability {
    pub(super) body: Vec<u8>,
    pub(super) writable: Vec<u8>,
}

const CFG_TYPE_COMMON: u8 = 1;
const CFG_TYPE_NOTIFY: u8 = 2;
const CFG_TYPE_ISR: u8 = 3;
const CFG_TYPE_DEVICE: u8 = 4;
const CFG_TYPE_PCI: u8 = 5;
/// Length of `struct virtio_pci_cap`, ID and next pointer included.
const CAPABILITY_LEN: u8 = 16;

fn capability(cfg_type: u8, offset: u64, length: u64, extra: &[u8]) -> VirtioCapability {
    let cap_len = CAPABILITY_LEN + extra.len() as u8;
    // cap_len, cfg_type, bar, id, padding[2], offset, length.
    let mut body = vec![cap_len, cfg_type, 0, 0, 0, 0];
    body.extend_from_slice(&(offset as u32).to_le_bytes());
    body.extend_from_slice(&(length as u32).to_le_bytes());
    body.extend_from_slice(extra);
    VirtioCapability { body, writable: Vec::new() }
}

/// The capabilities of the structures in the BAR; drivers take the first of each type.
pub(super) fn capabilities(queues: u16, config_len: usize) -> Vec<VirtioCapability> {
    let notify_len = u64::from(queues) * u64::from(NOTIFY_MULTIPLIER);
    let mut all = vec![
        capability(CFG_TYPE_COMMON, COMMON, COMMON_CONFIG_SIZE as u64, &[]),
        capability(CFG_TYPE_ISR, ISR, 1, &[]),
        capability(CFG_TYPE_NOTIFY, NOTIFY, notify_len, &NOTIFY_MULTIPLIER.to_le_bytes()),
    ];
    // virtio 1.3 §4.1.4.6: only for a device that has device-specific configuration.
    if config_len > 0 {
        all.push(capability(CFG_TYPE_DEVICE, DEVICE, config_len as u64, &[]));
    }
    all
}

/// The capability that reaches the BAR through configuration space (virtio 1.3 §4.1.4.9). The
/// driver writes bar, offset and length; the data that follows them is a window.
pub(super) fn pci_access_capability() -> VirtioCapability {
    let mut access = capability(CFG_TYPE_PCI, 0, 0, &[0; 4]);
    access.writable = vec![0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    access
}

/// Where the fields of [`pci_access_capability`] stand, from the capability's start.
pub(super) const PCI_ACCESS_BAR: u8 = 4;
pub(super) const PCI_ACCESS_OFFSET: u8 = 8;
pub(super) const PCI_ACCESS_LENGTH: u8 = 12;
pub(super) const PCI_ACCESS_DATA: u8 = 16;

/// Where message control stands in the MSI-X capability.
pub(super) const MSIX_CONTROL: u8 = 2;

/// Body of the MSI-X capability (PCI 3.0 §6.8.2), table and pending bits in BAR 0, and the bits of
/// it that the guest may change.
pub(super) fn msix_capability(vectors: u16) -> ([u8; 10], [u8; 2]) {
    let [c0, c1] = Msix::initial_control(vectors).to_le_bytes();
    let [t0, t1, t2, t3] = (MSIX_TABLE as u32).to_le_bytes();
    let [p0, p1, p2, p3] = (MSIX_PENDING as u32).to_le_bytes();
    ([c0, c1, t0, t1, t2, t3, p0, p1, p2, p3], Msix::CONTROL_WRITABLE.to_le_bytes())
}
