//! What the network device tells the shared code: its features, configuration and queues.

use atoll_backend::{
    Capabilities, ConfigRefused, Device, DeviceError, Identity, Sysno, SystemCall, Worker,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_MAC, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS};

use crate::attachment::Attachment;
use crate::config_space::ConfigSpace;
use crate::offload::{Features, bit_of};
use crate::passt::Keeper;
use crate::receive::Receive;
use crate::stream::UserNet;
use crate::transmit::Transmit;
use crate::{Options, PasstError, Tap, TapError};

/// What `--print-capabilities` says.
pub const CAPABILITIES: Capabilities = Capabilities { device_type: "net", features: &[] };

/// The largest queue size, as of other devices of its kind.
const MAX_QUEUE_SIZE: u16 = 1024;

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
}

/// A network device.
pub struct Net {
    attachment: Attachment,
    space: ConfigSpace,
}

impl Net {
    /// Attaches to what the command line names.
    ///
    /// # Errors
    /// [`OpenError`] when it can't be used.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let attachment = match (options.tap_fd, &options.tap) {
            _ if options.user_net => {
                Attachment::User(UserNet::new(Keeper::start(&options.hostfwd)?))
            }
            (Some(fd), _) => Attachment::Tap(Tap::inherit(fd)?),
            (None, name) => Attachment::Tap(Tap::attach(name.as_deref().unwrap_or_default())?),
        };
        tracing::info!("attached to {attachment}");
        let space = ConfigSpace { mac: options.mac, mtu: options.mtu, queue_pairs: 1 };
        Ok(Self { attachment, space })
    }

    fn features(&self) -> u64 {
        let optional = [
            (VIRTIO_NET_F_MAC, self.space.mac.is_some()),
            (VIRTIO_NET_F_MTU, self.space.mtu.is_some()),
            (VIRTIO_NET_F_STATUS, true),
        ];
        let offered = optional.iter().filter(|(_, offered)| *offered);
        offered.fold(self.attachment.offload_features(), |bits, &(bit, _)| bits | bit_of(bit))
    }
}

impl Device for Net {
    fn identity(&self) -> Identity {
        Identity {
            name: "net",
            device_type: VIRTIO_ID_NET,
            features: self.features(),
            queues: self.space.queue_pairs.saturating_mul(2),
            max_queue_size: MAX_QUEUE_SIZE,
        }
    }

    fn config(&self) -> Vec<u8> {
        self.space.to_bytes()
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
        // virtio 1.3 §5.1.2: queue 0 receives and 1 transmits.
        let attachment = self.attachment.clone();
        match index {
            0 => {
                attachment.set_offload(features)?;
                Ok(Box::new(Receive::new(attachment, features)))
            }
            1 => Ok(Box::new(Transmit::new(attachment, features))),
            _ => Err(format!("there is no queue {index}").into()),
        }
    }

    fn reset(&self) {
        // Nothing is kept between two rings' lives but what is queued in the TAP or socket.
    }

    fn system_calls(&self) -> Vec<SystemCall> {
        // The guest's choice of offloads reaches the TAP when a ring starts. All else about the
        // TAP is settled, and what would attach to another (TUNSETIFF) is not among these.
        vec![SystemCall::any(Sysno::ioctl).with(1, libc::TUNSETOFFLOAD)]
    }
}
