//! What the network device tells the shared code: its features, configuration and queues.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use atoll_backend::{
    Capabilities, ConfigChange, ConfigRefused, Device, DeviceError, Identity, Kept, Link, Panel,
    Sysno, SystemCall, Worker,
};
use atoll_unix_socket::SocketError;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_RX_EXTRA,
    VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_MQ, VIRTIO_NET_F_MTU, VIRTIO_NET_F_SPEED_DUPLEX, VIRTIO_NET_F_STATUS,
};

use crate::attachment::Attachment;
use crate::config_space::ConfigSpace;
use crate::control::Control;
use crate::control_queue::ControlQueue;
use crate::datagrams::Datagrams;
use crate::gate::Gate;
use crate::offload::{Features, bit_of};
use crate::pair::Pair;
use crate::receive::Receive;
use crate::stream::{Connections, StreamNet};
use crate::stream_server::StreamServer;
use crate::transmit::Transmit;
use crate::{DatagramError, LinkState, Mac, Options, PasstError, Tap, TapError, passt, plug};

/// What `--print-capabilities` says.
pub const CAPABILITIES: Capabilities = Capabilities { device_type: "net", features: &[] };

/// The largest queue size, as of other devices of its kind.
const MAX_QUEUE_SIZE: u16 = 1024;

/// What is offered whatever the device is attached to.
const ALWAYS: [u32; 7] = [
    VIRTIO_NET_F_STATUS,
    VIRTIO_NET_F_CTRL_VQ,
    VIRTIO_NET_F_CTRL_RX,
    VIRTIO_NET_F_CTRL_RX_EXTRA,
    VIRTIO_NET_F_CTRL_VLAN,
    VIRTIO_NET_F_CTRL_MAC_ADDR,
    VIRTIO_NET_F_GUEST_ANNOUNCE,
];

/// A driver that only knows devices from before virtio 1.0.
#[derive(Debug, thiserror::Error)]
#[error("the driver did not accept VIRTIO_F_VERSION_1, and older ones are not served")]
struct LegacyDriver;

/// What the network device is to be attached to can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A TAP.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The user-mode network.
    #[error(transparent)]
    Passt(#[from] PasstError),
    /// A datagram socket.
    #[error(transparent)]
    Datagrams(#[from] DatagramError),
    /// The socket that somebody else connects to.
    #[error(transparent)]
    Server(#[from] SocketError),
    /// The process that connects.
    #[error("cannot start the process that connects to the network's socket")]
    Keeper(#[source] io::Error),
    /// The event that says that it has connected.
    #[error("cannot make the event of the network's connections")]
    Event(#[source] io::Error),
}

/// A network device.
pub struct Net {
    /// What each pair of queues is attached to.
    attachments: Vec<Attachment>,
    control: Arc<Control>,
    gate: Arc<Gate>,
    space: ConfigSpace,
    /// How long a queue is looked at before its thread sleeps.
    polling: Duration,
}

/// What a queue is there for (virtio 1.3 §5.1.2).
enum Role<'net> {
    Receive(&'net Attachment),
    Transmit(&'net Attachment),
    Control,
}

impl Net {
    /// Attaches to what the command line names.
    ///
    /// # Errors
    /// [`OpenError`] when it can't be used.
    pub fn open(options: &Options, config_change: ConfigChange) -> Result<Self, OpenError> {
        let mut mac = options.mac;
        let (attachments, pairs) = match socket(options)? {
            Some(socket) => (vec![socket], Vec::new()),
            None => {
                let (taps, address) = taps(options)?;
                mac = mac.or(address);
                let pairs = Pair::of(taps)?;
                (pairs.iter().cloned().map(Attachment::Tap).collect(), pairs)
            }
        };
        if let Some(first) = attachments.first() {
            tracing::info!("attached to {first}");
        }
        let space = ConfigSpace {
            mac,
            mtu: options.mtu,
            // At most as many as the command line may say.
            queue_pairs: attachments.len() as u16,
            speed: options.speed,
            link_up: true,
            announce: false,
        };
        let limits = options.limits;
        let (up, change) = (options.link == LinkState::Up, config_change.clone());
        let gate = Gate::new(up, limits.receive(), limits.transmit(), change);
        let control = Arc::new(Control::new(pairs, mac, config_change));
        let polling = Duration::from_micros(options.poll_us.into());
        Ok(Self { attachments, control, gate: Arc::new(gate), space, polling })
    }

    fn features(&self) -> u64 {
        let optional = [
            (VIRTIO_NET_F_MAC, self.space.mac.is_some()),
            (VIRTIO_NET_F_MTU, self.space.mtu.is_some()),
            (VIRTIO_NET_F_MQ, self.space.queue_pairs > 1),
            (VIRTIO_NET_F_SPEED_DUPLEX, self.space.speed.is_some()),
        ];
        let offered = optional.iter().filter(|(_, offered)| *offered).map(|(bit, _)| bit);
        let offload = self.attachments.first().map_or(0, Attachment::offload_features);
        offered.chain(&ALWAYS).fold(offload, |bits, &bit| bits | bit_of(bit))
    }

    /// virtio 1.3 §5.1.2: a pair of queues after the other, receive first; then the control queue,
    /// behind the first pair for a driver that knows no more of them.
    fn role(&self, index: u16, features: Features) -> Option<Role<'_>> {
        let pairs = if features.has(VIRTIO_NET_F_MQ) { self.attachments.len() } else { 1 };
        match self.attachments.get(..pairs)?.get(usize::from(index / 2)) {
            Some(attachment) if index.is_multiple_of(2) => Some(Role::Receive(attachment)),
            Some(attachment) => Some(Role::Transmit(attachment)),
            None => {
                let control = features.has(VIRTIO_NET_F_CTRL_VQ);
                (control && usize::from(index) == pairs.saturating_mul(2)).then_some(Role::Control)
            }
        }
    }
}

/// The socket that the command line names in place of a TAP, if it does.
fn socket(options: &Options) -> Result<Option<Attachment>, OpenError> {
    let at = |path: &Path| format!("the network at {}", path.display());
    let (what, source): (_, Box<dyn Connections>) =
        match (&options.stream, &options.stream_server, options.dgram.as_slice()) {
            _ if options.user_net => {
                let passt = passt::start(&options.hostfwd)?;
                ("the user-mode network of passt".to_owned(), Box::new(passt))
            }
            (Some(path), ..) => (at(path), Box::new(plug::start(path).map_err(OpenError::Keeper)?)),
            (None, Some(path), _) => (at(path), Box::new(StreamServer::bind(path)?)),
            (None, None, [local, remote]) => {
                let socket = Datagrams::bind(local, remote)?;
                return Ok(Some(Attachment::Datagrams(Arc::new(socket))));
            }
            (None, None, _) => return Ok(None),
        };
    let stream = StreamNet::new(what, source).map_err(OpenError::Event)?;
    Ok(Some(Attachment::Stream(stream)))
}

/// Attaches to the TAP that the command line names; with the address that the guest has to have, if
/// there is one.
fn taps(options: &Options) -> Result<(Vec<Tap>, Option<Mac>), TapError> {
    let pairs = options.queue_pairs;
    match (&options.bridge, &options.macvtap, options.tap_fd.as_slice()) {
        (Some(bridge), ..) => Ok((Tap::make(bridge, options.mtu, pairs)?, None)),
        (_, Some(name), _) => Tap::macvtap(name, pairs),
        (.., []) => Ok((Tap::attach(options.tap.as_deref().unwrap_or_default(), pairs)?, None)),
        (.., fds) => Ok((Tap::inherit(fds)?, None)),
    }
}

impl Device for Net {
    fn identity(&self) -> Identity {
        Identity {
            name: "net",
            device_type: VIRTIO_ID_NET,
            features: self.features(),
            queues: self.space.queue_pairs.saturating_mul(2).saturating_add(1),
            max_queue_size: MAX_QUEUE_SIZE,
        }
    }

    fn config(&self) -> Vec<u8> {
        let (mac, announce) = self.control.address();
        let link_up = self.gate.is_up();
        ConfigSpace { mac, announce, link_up, ..self.space }.to_bytes()
    }

    fn write_config(&self, _offset: usize, _data: &[u8]) -> Result<(), ConfigRefused> {
        // virtio 1.3 §5.1.4.1: a device of VERSION_1 has no writable field.
        Err(ConfigRefused { field: "network configuration" })
    }

    fn open_queue(&self, index: u16, accepted: u64) -> Result<Box<dyn Worker>, DeviceError> {
        let features = Features::new(accepted);
        if !features.has(VIRTIO_F_VERSION_1) {
            return Err(LegacyDriver.into());
        }
        let (control, gate) = (Arc::clone(&self.control), Arc::clone(&self.gate));
        let polling = self.polling;
        match self.role(index, features) {
            Some(Role::Receive(attachment)) => {
                if index == 0 {
                    if !features.has(VIRTIO_NET_F_CTRL_VQ) {
                        control.without_queue();
                    }
                    attachment.set_offload(control.offload(features))?;
                }
                Ok(Box::new(Receive::new(attachment.clone(), control, gate, features, polling)?))
            }
            Some(Role::Transmit(attachment)) => {
                Ok(Box::new(Transmit::new(attachment.clone(), gate, features, polling)))
            }
            Some(Role::Control) => Ok(Box::new(ControlQueue::new(control, features))),
            None => Err(format!("there is no queue {index}").into()),
        }
    }

    fn pairs_queues(&self) -> bool {
        // What the host answers is in a TAP before a write to it returns. At a socket it takes another
        // process, and the other direction has nothing to do until then.
        self.attachments.iter().all(|to| matches!(to, Attachment::Tap(_)))
    }

    fn keep(&self, kept: Kept) {
        self.control.keep(kept);
    }

    fn panel(&self) -> Panel<'_> {
        self.gate.panel()
    }

    fn reset(&self) {
        self.control.reset();
    }

    fn system_calls(&self) -> Vec<SystemCall> {
        // The guest's choice of offloads and of pairs in use reaches the TAP, which is asked whether
        // it is there. All else about it is settled, and what would attach to another (TUNSETIFF)
        // is not among these.
        let requests = [libc::TUNSETOFFLOAD, libc::TUNSETQUEUE, libc::TUNGETIFF];
        let mut calls =
            requests.map(|request| SystemCall::any(Sysno::ioctl).with(1, request)).to_vec();
        if self.attachments.iter().any(|to| matches!(to, Attachment::Datagrams(_))) {
            // Its other end has no connection, and is named each time.
            calls.push(SystemCall::any(Sysno::sendto));
        }
        calls
    }
}
