//! The block device as the shared crate sees it: identity, configuration space, queues.

use std::sync::{Arc, Mutex, PoisonError};

use atoll_backend::{ConfigRefused, Device, DeviceError, Identity, Worker};
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_FLUSH;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use crate::complaints::Complaints;
use crate::image::{Claim, Image, ImageError};
use crate::options::Options;
use crate::space;
use crate::worker::{BlockQueue, ID_LEN};

/// A disk.
///
/// It claims its image while rings run and while no front-end is there. When a front-end has stopped
/// the rings and stays, it may start them at another process, which then takes the image over.
pub struct Block {
    image: Arc<Image>,
    /// The claim on the image while no front-end is there.
    idle_claim: Mutex<Option<Claim>>,
    id: [u8; ID_LEN],
    queues: u16,
}

impl Block {
    /// Opens the disk image that the options name.
    ///
    /// # Errors
    /// [`ImageError`] when it can't serve as one.
    pub fn open(options: &Options) -> Result<Self, ImageError> {
        let path = options.blk_file.as_deref().unwrap_or("".as_ref());
        let image = Arc::new(Image::open(path, options.read_only)?);
        let claim = if options.takeover { None } else { Some(image.claim()?) };
        let mut id = [0; ID_LEN];
        // The option's length is checked; a shorter serial number ends with a zero.
        let serial = options.serial.iter().flat_map(|serial| serial.bytes());
        id.iter_mut().zip(serial).for_each(|(byte, given)| *byte = given);
        Ok(Self { image, idle_claim: Mutex::new(claim), id, queues: options.num_queues })
    }
}

impl Device for Block {
    fn identity(&self) -> Identity {
        Identity {
            name: "blk",
            device_type: VIRTIO_ID_BLOCK,
            features: space::features(&self.image, self.queues),
            queues: self.queues,
            max_queue_size: 1024,
        }
    }

    fn config(&self) -> Vec<u8> {
        space::space(&self.image, self.queues)
    }

    fn write_config(&self, _offset: usize, _data: &[u8]) -> Result<(), ConfigRefused> {
        // virtio 1.3 §5.2.5: only `writeback` may be written, and VIRTIO_BLK_F_CONFIG_WCE is not
        // offered.
        Err(ConfigRefused { field: "the configuration space" })
    }

    fn open_queue(&self, _index: u16, features: u64) -> Result<Box<dyn Worker>, DeviceError> {
        let claim = self.image.claim()?;
        // From here on the queues' own claims count.
        self.idle_claim.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(Box::new(BlockQueue {
            image: Arc::clone(&self.image),
            _claim: claim,
            id: self.id,
            complaints: Complaints::default(),
            flush_writes: features & 1 << VIRTIO_BLK_F_FLUSH == 0,
        }))
    }

    fn reset(&self) {
        let mut idle = self.idle_claim.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.is_none() {
            match self.image.claim() {
                Ok(claim) => *idle = Some(claim),
                // It has been taken over.
                Err(error) => tracing::info!("{error}"),
            }
        }
    }
}
