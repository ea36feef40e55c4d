//! The block device as the shared crate sees it: identity, configuration space, queues.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use atoll_backend::{
    ConfigChange, ConfigRefused, Device, DeviceError, Identity, Limited, Limiter, Panel, Resize,
    Sysno, SystemCall, Worker,
};
use nix::sys::signal::{SigSet, Signal};
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_FLUSH;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use crate::complaints::Complaints;
use crate::image::{Claim, Image, ImageError, Opening, ResizeError};
use crate::options::Options;
use crate::space;
use crate::worker::{BlockQueue, ID_LEN};

/// Of the thread that looks at sizes: a log line is the most it makes.
const STACK: usize = 128 * 1024;

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
    config_change: ConfigChange,
    limiter: Arc<Limiter>,
}

impl Block {
    /// Opens the disk image that the options name.
    ///
    /// # Errors
    /// [`ImageError`] when it can't serve as one.
    pub fn open(options: &Options, config_change: ConfigChange) -> Result<Self, ImageError> {
        let path = options.blk_file.as_deref().unwrap_or("".as_ref());
        let opening = Opening {
            read_only: options.read_only,
            format: options.format,
            snapshot: options.snapshot,
            backing_dirs: &options.backing_dir,
        };
        let image = Arc::new(Image::open(path, &opening)?);
        let claim = if options.takeover { None } else { Some(image.claim()?) };
        let mut id = [0; ID_LEN];
        // The option's length is checked; a shorter serial number ends with a zero.
        let serial = options.serial.iter().flat_map(|serial| serial.bytes());
        id.iter_mut().zip(serial).for_each(|(byte, given)| *byte = given);
        Ok(Self {
            image,
            idle_claim: Mutex::new(claim),
            id,
            queues: options.num_queues,
            config_change,
            limiter: Arc::new(Limiter::new(options.limits.into())),
        })
    }

    /// Looks at the image's size again at each SIGHUP from now on, and tells the driver when it has
    /// grown. To be called before other threads than the signals' are there.
    fn follow_hangups(&self) -> io::Result<()> {
        let hangup: SigSet = [Signal::SIGHUP].into_iter().collect();
        hangup.thread_block()?;
        let (image, config_change) = (Arc::clone(&self.image), self.config_change.clone());
        let follow = move || {
            while hangup.wait().is_ok() {
                match image.look_again() {
                    Ok(true) => {
                        tracing::info!("{} has {} bytes now", image.path().display(), image.len());
                        config_change.announce();
                    }
                    Ok(false) => {}
                    Err(error) => tracing::warn!(
                        "cannot look at the size of {}: {error}",
                        image.path().display()
                    ),
                }
            }
        };
        thread::Builder::new().name("resize".into()).stack_size(STACK).spawn(follow).map(drop)
    }
}

impl Resize for Block {
    fn size(&self) -> u64 {
        self.image.len()
    }

    fn resize(&self, size: Option<u64>) -> Result<(), DeviceError> {
        // Nobody else may be writing to it meanwhile.
        let _claim = self.image.claim()?;
        match size {
            Some(len) => self.image.grow(len)?,
            None => {
                let path = self.image.path().to_owned();
                self.image.look_again().map_err(|source| ResizeError::Io { path, source })?;
            }
        }
        self.config_change.announce();
        Ok(())
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
            limiter: Arc::clone(&self.limiter),
            flush_writes: features & 1 << VIRTIO_BLK_F_FLUSH == 0,
        }))
    }

    fn panel(&self) -> Panel<'_> {
        let limits = Limited { prefix: "", operations: "iops", limiter: &self.limiter };
        Panel { limits: vec![limits], disk: Some(self), ..Panel::default() }
    }

    fn system_calls(&self) -> Vec<SystemCall> {
        vec![
            // To discard, to zero, and to make room.
            SystemCall::any(Sysno::fallocate),
        ]
    }

    fn start(&self) -> Result<(), DeviceError> {
        self.follow_hangups().map_err(Into::into)
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
