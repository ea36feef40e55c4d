//! What the network device tells the shared code: its features, configuration and queues.

use atoll_backend::{Capabilities, ConfigRefused, Device, DeviceError, Identity, Worker};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_MAC, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS};

use crate::config_space::ConfigSpace;
use crate::offload::{self, Features, bit_of};
use crate::receive::Receive;
use crate::transmit::Transmit;
use crate::{Options, Tap, TapError};

/// What `--print-capabilities` says.
pub const CAPABILITIES: Capabilities = Capabilities { device_type: "net", features: &[] };

/// The largest queue size, as of other devices of its kind.
const MAX_QUEUE_SIZE: u16 = 1024;

/// A driver that only knows devices from before virtio 1.0.
#[derive(Debug, thiserror::Error)]
#[error("the driver did not accept VIRTIO_F_VERSION_1, and older ones are not served")]
struct LegacyDriver;

/// A network device on a TAP.
pub struct Net {
    /// One for each pair of queues. virtio 1.3 §5.1.2: pair N is queues 2N (receive) and 2N + 1.
    taps: Vec<Tap>,
    space: ConfigSpace,
}

impl Net {
    /// Attaches to the TAP that the command line names.
    ///
    /// # Errors
    /// [`TapError`] when it can't be used.
    pub fn open(options: &Options) -> Result<Self, TapError> {
        let tap = match (options.tap_fd, &options.tap) {
            (Some(fd), _) => Tap::inherit(fd)?,
            (None, name) => Tap::attach(name.as_deref().unwrap_or_default())?,
        };
        tracing::info!("attached to TAP {}", tap.name());
        let space = ConfigSpace { mac: options.mac, mtu: options.mtu, queue_pairs: 1 };
        Ok(Self { taps: vec![tap], space })
    }

    fn features(&self) -> u64 {
        let optional = [
            (VIRTIO_NET_F_MAC, self.space.mac.is_some()),
            (VIRTIO_NET_F_MTU, self.space.mtu.is_some()),
            (VIRTIO_NET_F_STATUS, true),
        ];
        let uso = self.taps.iter().all(Tap::knows_uso);
        let offered = optional.iter().filter(|(_, offered)| *offered);
        offered.fold(offload::offered(uso), |bits, &(bit, _)| bits | bit_of(bit))
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
        let pair = usize::from(index / 2);
        let Some(tap) = self.taps.get(pair) else {
            return Err(format!("there is no queue {index}").into());
        };
        if index.is_multiple_of(2) {
            tap.set_offload(features.tap_offload())?;
            Ok(Box::new(Receive::new(tap.clone(), features)))
        } else {
            Ok(Box::new(Transmit::new(tap.clone(), features)))
        }
    }

    fn reset(&self) {
        // Nothing is kept between two rings' lives but what the kernel has queued in the TAP.
    }
}
