//! What the driver has asked for on the control queue, as all queues of the device see it: which
//! packets pass, how many pairs are in use, what may be left unfinished. How it is asked for is the
//! command's business.
//!
//! ```text
//!  control queue ── Command ──► Control ──► Filter ──► receive queues, before the next packet
//!                                  │  ├──► Pair ────► TAP queues attached or detached
//!                                  │  └──► TAP ─────► offloads
//!                                  └─────► Kept ────► the process after this one
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atoll_backend::{ConfigChange, Kept};
use virtio_bindings::virtio_net::{VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_MQ};

use crate::command::Command;
use crate::filter::Filter;
use crate::kept_choice::KeptChoice;
use crate::offload::Features;
use crate::pair::Pair;
use crate::{Mac, TapError};

/// A command can't be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotDone {
    #[error("{asked} pairs of queues, where there are {most}")]
    Pairs { asked: u16, most: u16 },
    #[error(transparent)]
    Tap(#[from] TapError),
}

/// The driver's wishes, shared by all queues of a device.
#[derive(Debug)]
pub(crate) struct Control {
    /// The TAP's, where there is one.
    pairs: Vec<Arc<Pair>>,
    /// The address that the command line gives.
    given: Option<Mac>,
    config_change: ConfigChange,
    /// Counts the changes of the filter.
    changes: AtomicU64,
    wishes: Mutex<Wishes>,
}

#[derive(Debug)]
struct Wishes {
    /// Whether they are the driver's, and not those of a device that nobody has spoken to.
    known: bool,
    filter: Arc<Filter>,
    mac: Option<Mac>,
    /// How many pairs are in use; all that are served where the driver can't say.
    in_use: Option<u16>,
    /// TUNSETOFFLOAD's flags, where the driver has chosen.
    offload: Option<u32>,
    /// The driver is to announce itself to its network.
    announce: Announce,
    /// It accepted VIRTIO_NET_F_GUEST_ANNOUNCE, and has the queue to say that it has done so.
    announces: bool,
    kept: Option<Kept>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Announce {
    No,
    /// As soon as it can be told.
    Due,
    /// It has been told, and has not done so yet.
    Asked,
}

impl Wishes {
    fn none(given: Option<Mac>) -> Self {
        Self {
            known: false,
            filter: Arc::new(Filter::open(given)),
            mac: given,
            in_use: None,
            offload: None,
            announce: Announce::No,
            announces: false,
            kept: None,
        }
    }

    fn keep(&self) {
        if let Some(kept) = &self.kept {
            let choice = KeptChoice { pairs: self.in_use, offload: self.offload };
            kept.store(choice.to_word());
        }
    }
}

impl Control {
    pub(crate) fn new(
        pairs: Vec<Arc<Pair>>,
        given: Option<Mac>,
        config_change: ConfigChange,
    ) -> Self {
        let wishes = Mutex::new(Wishes::none(given));
        Self { pairs, given, config_change, changes: AtomicU64::new(0), wishes }
    }

    /// The driver's address, and whether it is to announce itself.
    pub(crate) fn address(&self) -> (Option<Mac>, bool) {
        let wishes = self.wishes();
        (wishes.mac, wishes.announce == Announce::Asked)
    }

    /// Changes whenever the filter does.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Which packets pass.
    pub(crate) fn filter(&self) -> Arc<Filter> {
        Arc::clone(&self.wishes().filter)
    }

    /// TUNSETOFFLOAD's flags for a driver that accepted `features`.
    pub(crate) fn offload(&self, features: Features) -> u32 {
        // What was kept may be anybody's; nobody gets what it did not accept.
        let accepted = features.tap_offload();
        self.wishes().offload.map_or(accepted, |chosen| chosen & accepted)
    }

    /// Forgets the driver.
    pub(crate) fn reset(&self) {
        let mut wishes = self.wishes();
        *wishes = Wishes::none(self.given);
        self.settle(&wishes);
    }

    /// Takes the place where the choice is kept, and the one kept there by a process before this.
    pub(crate) fn keep(&self, kept: Kept) {
        let mut wishes = self.wishes();
        let word = kept.load();
        wishes.kept = Some(kept);
        if let (false, Some(choice)) = (wishes.known, KeptChoice::from_word(word)) {
            let most = self.most();
            wishes.known = true;
            wishes.in_use = choice.pairs.filter(|pairs| (1..=most).contains(pairs));
            wishes.offload = choice.offload;
            wishes.announce = Announce::Due;
            self.settle(&wishes);
        }
    }

    /// The driver has set up the device without a control queue.
    pub(crate) fn without_queue(&self) {
        let mut wishes = self.wishes();
        let kept = wishes.kept.take();
        *wishes = Wishes { kept, known: true, ..Wishes::none(self.given) };
        self.settle(&wishes);
        wishes.keep();
    }

    /// The control queue runs; `used` if the driver has had answers in it, from whomever.
    pub(crate) fn begin(&self, features: Features, used: bool) {
        let mut wishes = self.wishes();
        if !used {
            let kept = wishes.kept.take();
            let first = Wishes::none(self.given);
            *wishes = Wishes {
                kept,
                known: true,
                filter: Arc::new(Filter::new(features, self.given)),
                // virtio 1.3 §5.1.6.5.5: "Multiqueue is disabled by default".
                in_use: features.has(VIRTIO_NET_F_MQ).then_some(1),
                ..first
            };
            self.settle(&wishes);
            wishes.keep();
        } else if !wishes.known {
            // Nobody kept what it said.
            wishes.known = true;
            wishes.announce = Announce::Due;
        }
        let can = features.has(VIRTIO_NET_F_GUEST_ANNOUNCE);
        wishes.announces = can;
        if wishes.announce == Announce::Due {
            // virtio 1.3 §5.1.6.5.4: what lies between may have forgotten where the guest is.
            wishes.announce = if can { Announce::Asked } else { Announce::No };
        }
        let asked = wishes.announce == Announce::Asked;
        drop(wishes);
        if asked {
            self.config_change.announce();
        }
    }

    /// The network does not know the driver, which is to announce itself if it can.
    pub(crate) fn ask_to_announce(&self) {
        let mut wishes = self.wishes();
        if !wishes.announces {
            return;
        }
        wishes.announce = Announce::Asked;
        drop(wishes);
        self.config_change.announce();
    }

    /// Does what the driver asks for.
    pub(crate) fn carry_out(&self, command: Command) -> Result<(), NotDone> {
        let mut wishes = self.wishes();
        match command {
            Command::Receive(mode, on) => {
                self.change(&mut wishes, |filter| filter.set_mode(mode, on));
            }
            Command::Table { unicast, multicast } => {
                self.change(&mut wishes, |filter| filter.set_table(unicast, multicast));
            }
            Command::Vlan { id, passes } => {
                self.change(&mut wishes, |filter| filter.set_vlan(id, passes));
            }
            Command::Address(mac) => {
                wishes.mac = Some(mac);
                self.change(&mut wishes, |filter| filter.set_own(mac));
                drop(wishes);
                self.config_change.announce();
            }
            Command::Announced => wishes.announce = Announce::No,
            Command::Pairs(pairs) => {
                let most = self.most();
                if !(1..=most).contains(&pairs) {
                    return Err(NotDone::Pairs { asked: pairs, most });
                }
                let before = wishes.in_use.replace(pairs);
                if let Err(error) = self.allow(wishes.in_use) {
                    wishes.in_use = before;
                    // As it was, as far as that goes.
                    let _failed_too = self.allow(before);
                    return Err(error.into());
                }
                wishes.keep();
            }
            Command::Offloads(features) => {
                let flags = features.tap_offload();
                if let Some(first) = self.pairs.first() {
                    first.tap().set_offload(flags)?;
                }
                wishes.offload = Some(flags);
                wishes.keep();
            }
        }
        Ok(())
    }

    fn most(&self) -> u16 {
        // As many as the command line says, which is 16 bits.
        self.pairs.len().max(1) as u16
    }

    fn change(&self, wishes: &mut Wishes, change: impl FnOnce(&mut Filter)) {
        change(Arc::make_mut(&mut wishes.filter));
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Makes the queues do as `wishes` say.
    fn settle(&self, wishes: &Wishes) {
        self.changes.fetch_add(1, Ordering::Release);
        if let Err(error) = self.allow(wishes.in_use) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot set the pairs in use"
            );
        }
    }

    fn allow(&self, in_use: Option<u16>) -> Result<(), TapError> {
        let in_use = in_use.map_or(usize::MAX, usize::from);
        let mut pairs = self.pairs.iter().enumerate();
        pairs.try_for_each(|(index, pair)| pair.allow(index < in_use))
    }

    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
