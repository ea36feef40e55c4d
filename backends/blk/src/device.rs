//! The block device as the shared crate sees it: identity, configuration space, queues.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use atoll_backend::{
    ConfigChange, ConfigRefused, Device, DeviceError, FileRing, Identity, Kept, Limited, Limiter,
    Panel, Resize, Sysno, SystemCall, Worker,
};
use nix::sys::signal::{SigSet, Signal};
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_FLUSH;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use crate::cache::Caching;
use crate::disk::{Disk, ID_LEN, OnEnospc};
use crate::engine::{Engine, KeptRing, PageCache, Ring, Threads};
use crate::image::{Claim, Image, ImageError, ResizeError};
use crate::options::{Aio, Options};
use crate::space;
use crate::worker::BlockQueue;

/// The most threads of a queue whose requests run by threads.
const THREADS: usize = 16;

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
    on_enospc: OnEnospc,
    config_change: ConfigChange,
    limiter: Arc<Limiter>,
    caching: Arc<Caching>,
    /// Which record of what is in flight the front-end has, while it has one.
    record: Mutex<Option<u64>>,
    /// An io_uring for each queue, where they are used.
    rings: Vec<KeptRing>,
    polling: Duration,
}

impl Block {
    /// Opens the disk image that the options name.
    ///
    /// # Errors
    /// [`ImageError`] when it can't serve as one.
    pub fn open(options: &Options, config_change: ConfigChange) -> Result<Self, ImageError> {
        let path = options.blk_file.as_deref().unwrap_or("".as_ref());
        let image = Arc::new(Image::open(path, options)?);
        let claim = if options.takeover { None } else { Some(image.claim()?) };
        let mut id = [0; ID_LEN];
        // The option's length is checked; a shorter serial number ends with a zero.
        let serial = options.serial.iter().flat_map(|serial| serial.bytes());
        id.iter_mut().zip(serial).for_each(|(byte, given)| *byte = given);
        let rings = rings(&image, options)?;
        Ok(Self {
            rings,
            caching: Arc::new(Caching::new(options.cache)),
            polling: Duration::from_micros(options.poll_us.into()),
            image,
            idle_claim: Mutex::new(claim),
            id,
            queues: options.num_queues,
            config_change,
            limiter: Arc::new(Limiter::new(options.limits.into())),
            on_enospc: options.on_enospc,
            record: Mutex::default(),
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

impl Block {
    fn engine(&self, index: u16, disk: Arc<Disk>) -> io::Result<Box<dyn Engine>> {
        let kept = self.rings.get(usize::from(index)).zip(self.image.storage().raw());
        if let Some((kept, raw)) = kept
            && let Some(ring) = Ring::new(Arc::clone(&disk), raw.clone(), kept)?
        {
            return Ok(Box::new(ring));
        }
        let cache = self.image.storage().raw().cloned().map(PageCache::new);
        Ok(Box::new(Threads::new(disk, THREADS, cache)?))
    }
}

/// An io_uring for each queue, made while this process is not confined; none where threads do it.
fn rings(image: &Image, options: &Options) -> Result<Vec<KeptRing>, ImageError> {
    let Some(raw) = image.storage().raw().filter(|_| options.aio != Aio::Threads) else {
        return Ok(Vec::new());
    };
    let make = |_| FileRing::open(raw.file()).map(|ring| Arc::new(Mutex::new(Some(ring))));
    let rings: io::Result<Vec<KeptRing>> = (0..options.num_queues).map(make).collect();
    rings.or_else(|source| match options.aio {
        Aio::IoUring => Err(ImageError::NoUring { source }),
        _ => {
            tracing::warn!("no io_uring, so that threads serve the disk: {source}");
            Ok(Vec::new())
        }
    })
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
        space::space(&self.image, self.queues, self.caching.is_writeback())
    }

    fn write_config(&self, offset: usize, data: &[u8]) -> Result<(), ConfigRefused> {
        // virtio 1.3 §5.2.5: `writeback` is all that may be written.
        match (offset, data) {
            (space::WRITEBACK, &[writeback]) if !self.image.is_read_only() => {
                self.caching.set_writeback(writeback != 0);
                Ok(())
            }
            _ => Err(ConfigRefused { field: "the configuration space, but for `writeback`," }),
        }
    }

    fn open_queue(&self, index: u16, features: u64) -> Result<Box<dyn Worker>, DeviceError> {
        let claim = self.image.claim()?;
        // From here on the queues' own claims count.
        self.idle_claim.lock().unwrap_or_else(PoisonError::into_inner).take();
        let record = *self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = record.map(|record| self.image.mark(record)).transpose()?.flatten();
        let disk = Arc::new(Disk {
            image: Arc::clone(&self.image),
            _claim: claim,
            _mark: mark,
            id: self.id,
            complaints: Mutex::default(),
            caching: Arc::clone(&self.caching),
            driver_flushes: features & 1 << VIRTIO_BLK_F_FLUSH != 0,
            on_enospc: self.on_enospc,
        });
        let engine = self.engine(index, disk)?;
        Ok(Box::new(BlockQueue {
            engine,
            limiter: Arc::clone(&self.limiter),
            polling: self.polling,
            done: Vec::new(),
            waiting: Default::default(),
        }))
    }

    fn panel(&self) -> Panel<'_> {
        let limits = Limited { prefix: "", operations: "iops", limiter: &self.limiter };
        Panel { limits: vec![limits], disk: Some(self), ..Panel::default() }
    }

    fn system_calls(&self) -> Vec<SystemCall> {
        vec![
            // The rings that there are.
            SystemCall::any(Sysno::io_uring_enter),
            // To discard, to zero, and to make room.
            SystemCall::any(Sysno::fallocate),
        ]
    }

    fn start(&self) -> Result<(), DeviceError> {
        self.follow_hangups().map_err(Into::into)
    }

    fn keep(&self, kept: Kept) {
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept.identity());
    }

    fn reset(&self) {
        self.caching.reset();
        self.record.lock().unwrap_or_else(PoisonError::into_inner).take();
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
