//! Which packets the driver wants to get (virtio 1.3 §5.1.6.5.1 to §5.1.6.5.3). Pure: it looks at
//! the first bytes of a frame.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use virtio_bindings::virtio_net::VIRTIO_NET_F_CTRL_VLAN;

use crate::Mac;
use crate::command::{Addresses, Mode, VLANS};
use crate::offload::Features;

/// As much of a frame as is looked at: addresses, EtherType and one VLAN tag.
pub(crate) const LOOKED_AT: usize = 18;

const BROADCAST: [u8; 6] = [0xff; 6];
/// The EtherType of a VLAN tag (IEEE 802.1Q).
const TAG: [u8; 2] = [0x81, 0x00];
const WORD: usize = u64::BITS as usize;

/// The VLANs whose packets pass: a bit each.
#[derive(Clone, Debug)]
struct Vlans(Box<[u64; VLANS as usize / WORD]>);

impl Vlans {
    fn none() -> Self {
        Self(Box::new([0; VLANS as usize / WORD]))
    }

    fn set(&mut self, id: u16, passes: bool) {
        let (word, bit) = place(id);
        if let Some(word) = self.0.get_mut(word) {
            *word = if passes { *word | bit } else { *word & !bit };
        }
    }

    fn contain(&self, id: u16) -> bool {
        let (word, bit) = place(id);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

fn place(id: u16) -> (usize, u64) {
    let id = usize::from(id);
    (id / WORD, 1 << (id % WORD))
}

/// The driver's wishes.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    promiscuous: bool,
    all_multicast: bool,
    all_unicast: bool,
    no_multicast: bool,
    no_unicast: bool,
    no_broadcast: bool,
    /// The interface's own address; as long as it is not known every interface's passes.
    own: Option<Mac>,
    unicast: Addresses,
    multicast: Addresses,
    /// `None` where all pass.
    vlans: Option<Vlans>,
}

impl Filter {
    /// Lets everything pass until the driver says what it wants, as it finds a device after a reset.
    pub(crate) fn new(features: Features, own: Option<Mac>) -> Self {
        let vlans = features.has(VIRTIO_NET_F_CTRL_VLAN).then(Vlans::none);
        Self { vlans, ..Self::open(own) }
    }

    /// Lets everything pass until the driver says what it wants, and every VLAN for ever: for a
    /// driver that has said which it wants to somebody who can't be asked any more.
    pub(crate) fn open(own: Option<Mac>) -> Self {
        Self {
            promiscuous: true,
            all_multicast: false,
            all_unicast: false,
            no_multicast: false,
            no_unicast: false,
            no_broadcast: false,
            own,
            unicast: Addresses::none(),
            multicast: Addresses::none(),
            vlans: None,
        }
    }

    pub(crate) fn set_mode(&mut self, mode: Mode, on: bool) {
        let field = match mode {
            Mode::Promiscuous => &mut self.promiscuous,
            Mode::AllMulticast => &mut self.all_multicast,
            Mode::AllUnicast => &mut self.all_unicast,
            Mode::NoMulticast => &mut self.no_multicast,
            Mode::NoUnicast => &mut self.no_unicast,
            Mode::NoBroadcast => &mut self.no_broadcast,
        };
        *field = on;
    }

    pub(crate) fn set_own(&mut self, own: Mac) {
        self.own = Some(own);
    }

    pub(crate) fn set_table(&mut self, unicast: Addresses, multicast: Addresses) {
        (self.unicast, self.multicast) = (unicast, multicast);
    }

    pub(crate) fn set_vlan(&mut self, id: u16, passes: bool) {
        if let Some(vlans) = &mut self.vlans {
            vlans.set(id, passes);
        }
    }

    /// Whether all there is passes, so that nothing needs to be looked at.
    pub(crate) fn is_open(&self) -> bool {
        self.promiscuous
    }

    /// Whether the driver wants the frame that begins so.
    pub(crate) fn passes(&self, frame: &[u8]) -> bool {
        let Some((&destination, rest)) = frame.split_first_chunk::<6>() else { return true };
        self.promiscuous || (self.passes_vlan(rest) && self.passes_address(destination))
    }

    /// `rest` begins with the sender's address.
    fn passes_vlan(&self, rest: &[u8]) -> bool {
        let Some(vlans) = &self.vlans else { return true };
        match rest.get(6..10) {
            Some(&[t0, t1, high, low]) if [t0, t1] == TAG => {
                vlans.contain(u16::from_be_bytes([high, low]) & (VLANS.saturating_sub(1)))
            }
            _ => true,
        }
    }

    fn passes_address(&self, destination: [u8; 6]) -> bool {
        let [first, ..] = destination;
        if destination == BROADCAST {
            !self.no_broadcast
        } else if first & 1 != 0 {
            !self.no_multicast && (self.all_multicast || self.multicast.contain(destination))
        } else {
            let own = self.own.is_none_or(|own| own.octets() == destination);
            !self.no_unicast && (self.all_unicast || own || self.unicast.contain(destination))
        }
    }
}

#[cfg(test)]
#[path = "filter_test.rs"]
mod tests;
