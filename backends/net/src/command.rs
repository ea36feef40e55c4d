//! What the driver asks for on the control queue (virtio 1.3 §5.1.6.5), read from bytes and checked
//! before anything comes of it. It knows no state: whether it can be done is another's to say.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, VIRTIO_NET_CTRL_GUEST_OFFLOADS,
    VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET,
    VIRTIO_NET_CTRL_MAC_TABLE_SET, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
    VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, VIRTIO_NET_CTRL_RX_ALLUNI,
    VIRTIO_NET_CTRL_RX_NOBCAST, VIRTIO_NET_CTRL_RX_NOMULTI, VIRTIO_NET_CTRL_RX_NOUNI,
    VIRTIO_NET_CTRL_RX_PROMISC, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD,
    VIRTIO_NET_CTRL_VLAN_DEL, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_MAC_ADDR,
    VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_VLAN,
    VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_MQ,
};

use crate::mac::{Mac, MacError};
use crate::offload::Features;

/// The longest message that is read: tables of some ten thousand addresses.
pub(crate) const MAX_MESSAGE: usize = 64 * 1024;
/// VLANs that there can be (IEEE 802.1Q).
pub(crate) const VLANS: u16 = 4096;
/// Addresses that a table keeps. A longer one lets every address of its kind pass.
const MAX_ADDRESSES: usize = 64;

/// The driver asked for what there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotCommand {
    #[error("a message of {len} bytes")]
    Length { len: usize },
    #[error("command {command} of class {class}, which does not exist or was not accepted")]
    Unknown { class: u8, command: u8 },
    #[error("{len} bytes for command {command} of class {class}")]
    Data { class: u8, command: u8, len: usize },
    #[error("a switch that is neither on nor off but {value}")]
    Switch { value: u8 },
    #[error("the address of no interface")]
    Address(#[from] MacError),
    #[error("VLAN {id}")]
    Vlan { id: u16 },
    #[error("offloads {offloads:#x}, not all of which were accepted")]
    Offloads { offloads: u64 },
}

/// Which packets the driver wants, besides those that it names (§5.1.6.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Promiscuous,
    AllMulticast,
    AllUnicast,
    NoMulticast,
    NoUnicast,
    NoBroadcast,
}

/// Addresses of one kind; all there are when the driver named more than are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Addresses {
    All,
    These(Vec<[u8; 6]>),
}

impl Addresses {
    pub(crate) fn none() -> Self {
        Self::These(Vec::new())
    }

    pub(crate) fn contain(&self, address: [u8; 6]) -> bool {
        match self {
            Self::All => true,
            Self::These(addresses) => addresses.contains(&address),
        }
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// VIRTIO_NET_CTRL_RX
    Receive(Mode, bool),
    /// VIRTIO_NET_CTRL_MAC_TABLE_SET
    Table { unicast: Addresses, multicast: Addresses },
    /// VIRTIO_NET_CTRL_MAC_ADDR_SET
    Address(Mac),
    /// VIRTIO_NET_CTRL_VLAN_ADD and _DEL
    Vlan { id: u16, passes: bool },
    /// VIRTIO_NET_CTRL_ANNOUNCE_ACK
    Announced,
    /// VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET
    Pairs(u16),
    /// VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET
    Offloads(Features),
}

impl Command {
    /// Reads a message: class, command and what belongs to it.
    pub(crate) fn parse(message: &[u8], features: Features) -> Result<Self, NotCommand> {
        let Some((&[class, command], data)) = message.split_first_chunk() else {
            return Err(NotCommand::Length { len: message.len() });
        };
        let wrong = NotCommand::Data { class, command, len: data.len() };
        let accepted = |bit| features.has(bit);
        match (u32::from(class), u32::from(command)) {
            (VIRTIO_NET_CTRL_RX, mode) => {
                let mode = self::mode(mode, features);
                let mode = mode.ok_or(NotCommand::Unknown { class, command })?;
                let [value] = exactly(data).ok_or(wrong)?;
                match value {
                    0 | 1 => Ok(Self::Receive(mode, value == 1)),
                    value => Err(NotCommand::Switch { value }),
                }
            }
            (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET)
                if accepted(VIRTIO_NET_F_CTRL_RX) =>
            {
                let (unicast, rest) = table(data).ok_or(wrong)?;
                let (multicast, rest) = table(rest).ok_or(wrong)?;
                let whole = rest.is_empty().then_some(Self::Table { unicast, multicast });
                whole.ok_or(wrong)
            }
            (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET)
                if accepted(VIRTIO_NET_F_CTRL_MAC_ADDR) =>
            {
                Ok(Self::Address(Mac::from_octets(exactly(data).ok_or(wrong)?)?))
            }
            (
                VIRTIO_NET_CTRL_VLAN,
                what @ (VIRTIO_NET_CTRL_VLAN_ADD | VIRTIO_NET_CTRL_VLAN_DEL),
            ) if accepted(VIRTIO_NET_F_CTRL_VLAN) => {
                let id = u16::from_le_bytes(exactly(data).ok_or(wrong)?);
                if id >= VLANS {
                    return Err(NotCommand::Vlan { id });
                }
                Ok(Self::Vlan { id, passes: what == VIRTIO_NET_CTRL_VLAN_ADD })
            }
            (VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK)
                if accepted(VIRTIO_NET_F_GUEST_ANNOUNCE) =>
            {
                exactly(data).map(|[]| Self::Announced).ok_or(wrong)
            }
            (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) if accepted(VIRTIO_NET_F_MQ) => {
                Ok(Self::Pairs(u16::from_le_bytes(exactly(data).ok_or(wrong)?)))
            }
            (VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET)
                if accepted(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) =>
            {
                let offloads = u64::from_le_bytes(exactly(data).ok_or(wrong)?);
                let chosen = features.guest_offloads(offloads);
                chosen.map(Self::Offloads).ok_or(NotCommand::Offloads { offloads })
            }
            _ => Err(NotCommand::Unknown { class, command }),
        }
    }
}

impl Command {
    /// Whether it takes a lock of the host's kernel that all networks there share.
    pub(crate) fn reaches_host(&self) -> bool {
        matches!(self, Self::Pairs(_) | Self::Offloads(_))
    }
}

fn mode(command: u32, features: Features) -> Option<Mode> {
    let (mode, feature) = match command {
        VIRTIO_NET_CTRL_RX_PROMISC => (Mode::Promiscuous, VIRTIO_NET_F_CTRL_RX),
        VIRTIO_NET_CTRL_RX_ALLMULTI => (Mode::AllMulticast, VIRTIO_NET_F_CTRL_RX),
        VIRTIO_NET_CTRL_RX_ALLUNI => (Mode::AllUnicast, VIRTIO_NET_F_CTRL_RX_EXTRA),
        VIRTIO_NET_CTRL_RX_NOMULTI => (Mode::NoMulticast, VIRTIO_NET_F_CTRL_RX_EXTRA),
        VIRTIO_NET_CTRL_RX_NOUNI => (Mode::NoUnicast, VIRTIO_NET_F_CTRL_RX_EXTRA),
        VIRTIO_NET_CTRL_RX_NOBCAST => (Mode::NoBroadcast, VIRTIO_NET_F_CTRL_RX_EXTRA),
        _ => return None,
    };
    features.has(feature).then_some(mode)
}

/// The data, if it is that long.
fn exactly<const LEN: usize>(data: &[u8]) -> Option<[u8; LEN]> {
    data.try_into().ok()
}

/// virtio 1.3 §5.1.6.5.2: a 32-bit count and that many addresses; and what is behind them.
fn table(data: &[u8]) -> Option<(Addresses, &[u8])> {
    let (count, data) = data.split_first_chunk()?;
    let count = u32::from_le_bytes(*count) as usize;
    let (addresses, rest) = data.split_at_checked(count.checked_mul(6)?)?;
    if count > MAX_ADDRESSES {
        return Some((Addresses::All, rest));
    }
    let (addresses, _) = addresses.as_chunks();
    Some((Addresses::These(addresses.to_vec()), rest))
}

#[cfg(test)]
#[path = "command_test.rs"]
mod tests;
