//! Handing rings to a back-end and taking them back (vhost-user "Ring states").
//!
//! A ring goes on where it is told to; where that is, is decided elsewhere.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unreachable
)]

use std::os::fd::AsFd;

use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::message::FrontendReq;

use super::error::VhostUserError;
use super::inflight::{DESCRIPTION_SIZE, Inflight};
use super::memory::Table;
use super::session::{PROTOCOL_FEATURES, Session, fixed, state};
use super::{REPLY_DEADLINE, STOP_DEADLINE};
use crate::irq::Event;
use crate::virtio::{Activation, QueuePort, Ring};

/// All that a back-end gets when it starts.
pub(super) struct Handover<'a> {
    pub(super) activation: &'a Activation,
    /// Where each ring of `activation` goes on, in the same order.
    pub(super) bases: &'a [u16],
    pub(super) table: &'a Table,
    pub(super) ports: &'a [QueuePort],
    /// Signalled by the back-end when it gives up on a ring.
    pub(super) broken: &'a Event,
    /// Queues of the device and their largest size, for a new record of what is in flight.
    pub(super) queues: (u16, u16),
}

impl Handover<'_> {
    /// The rings with the ports of their queues.
    fn rings(&self) -> impl Iterator<Item = (&Ring, &QueuePort)> {
        let port = |ring: &Ring| self.ports.get(usize::from(ring.index));
        self.activation.rings.iter().filter_map(move |ring| Some((ring, port(ring)?)))
    }
}

impl Session {
    /// Hands the rings to the back-end and lets it run. It gets `inflight`, the record of what its
    /// predecessor had in flight, or makes one if there is none yet.
    ///
    /// # Errors
    /// [`VhostUserError`]; the connection is then of no use any more.
    pub(super) fn start(
        &mut self,
        handover: &Handover<'_>,
        inflight: &mut Option<Inflight>,
    ) -> Result<(), VhostUserError> {
        self.begin(REPLY_DEADLINE);
        let protocol = if self.extended { PROTOCOL_FEATURES } else { 0 };
        self.tell_u64(FrontendReq::SET_FEATURES, handover.activation.features | protocol)?;
        self.pass_inflight(handover.queues, inflight)?;
        let table = handover.table;
        self.tell(FrontendReq::SET_MEM_TABLE, &table.body(), &table.fds())?;
        for ((ring, port), base) in handover.rings().zip(handover.bases) {
            self.start_ring(ring, port, *base, handover.broken)?;
        }
        // With PROTOCOL_FEATURES a ring starts disabled.
        if self.extended {
            for ring in &handover.activation.rings {
                self.tell_state(FrontendReq::SET_VRING_ENABLE, ring.index, 1)?;
            }
        }
        self.settle()?;
        for (_, port) in handover.rings() {
            // The driver may have kicked already, and a back-end that reads the kick of a ring that
            // is not enabled yet may forget it (vhost-user-backend does). A kick too many is
            // harmless.
            port.kick.signal();
        }
        Ok(())
    }

    fn pass_inflight(
        &mut self,
        (queues, queue_size): (u16, u16),
        inflight: &mut Option<Inflight>,
    ) -> Result<(), VhostUserError> {
        if !self.tracks_inflight() {
            // What it does from now on is in no record.
            *inflight = None;
            return Ok(());
        }
        if inflight.is_none() {
            let request = FrontendReq::GET_INFLIGHT_FD;
            let reply = self.ask_for(request, &Inflight::wanted(queues, queue_size), 1)?;
            let description = fixed::<DESCRIPTION_SIZE>(request, &reply.body)?;
            *inflight = Inflight::new(description, reply.fds.into_iter().next())
                .map_err(|reason| VhostUserError::Garbage { request, reason })?;
        }
        match inflight {
            Some(inflight) => {
                self.tell(FrontendReq::SET_INFLIGHT_FD, inflight.body(), &[inflight.as_fd()])
            }
            None => Ok(()),
        }
    }

    fn start_ring(
        &mut self,
        ring: &Ring,
        port: &QueuePort,
        base: u16,
        broken: &Event,
    ) -> Result<(), VhostUserError> {
        let index = u64::from(ring.index);
        self.tell_state(FrontendReq::SET_VRING_NUM, ring.index, u32::from(ring.size))?;
        self.tell_state(FrontendReq::SET_VRING_BASE, ring.index, u32::from(base))?;
        self.tell(FrontendReq::SET_VRING_ADDR, &addresses(ring), &[])?;
        // The kick starts the ring, so it comes last.
        let events = [
            (FrontendReq::SET_VRING_ERR, broken),
            (FrontendReq::SET_VRING_CALL, &*port.call),
            (FrontendReq::SET_VRING_KICK, &*port.kick),
        ];
        for (request, event) in events {
            self.tell(request, &index.to_le_bytes(), &[event.as_fd()])?;
        }
        Ok(())
    }

    /// Takes the rings back: on return the back-end touches no guest memory any more. Answers where
    /// it would have gone on in each.
    ///
    /// # Errors
    /// [`VhostUserError`]; whether it still touches memory is then unknown.
    pub(super) fn stop(&mut self, rings: &[Ring]) -> Result<Vec<u16>, VhostUserError> {
        self.begin(STOP_DEADLINE);
        rings.iter().map(|ring| self.stop_ring(ring)).collect()
    }

    fn stop_ring(&mut self, ring: &Ring) -> Result<u16, VhostUserError> {
        // GET_VRING_BASE stops the ring.
        let request = FrontendReq::GET_VRING_BASE;
        let body = self.ask(request, &state(ring.index, 0), &[])?;
        let [i0, i1, i2, i3, b0, b1, ..] = fixed::<8>(request, &body)?;
        let index = u32::from_le_bytes([i0, i1, i2, i3]);
        if index != u32::from(ring.index) {
            let reason = format!("asked about queue {}, it answered about {index}", ring.index);
            return Err(VhostUserError::Garbage { request, reason });
        }
        // The rest of the number is for packed rings.
        Ok(u16::from_le_bytes([b0, b1]))
    }

    /// Whether the back-end keeps a record of what it has in flight.
    pub(super) fn tracks_inflight(&self) -> bool {
        self.protocol.contains(Protocol::INFLIGHT_SHMFD)
    }
}

/// "A vring address description", without a log.
fn addresses(ring: &Ring) -> Vec<u8> {
    let mut body = state(ring.index, 0);
    for address in [ring.desc, ring.used, ring.avail, 0] {
        body.extend_from_slice(&address.to_le_bytes());
    }
    body
}

#[cfg(test)]
#[path = "handover_test.rs"]
mod tests;
