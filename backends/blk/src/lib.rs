//! The block device: a disk image behind a virtio-blk device (virtio 1.3 §5.2). Sockets, rings
//! and signals are the shared crate's.
#![forbid(unsafe_code)]

mod complaints;
mod device;
mod image;
mod lock;
mod options;
mod ranges;
mod request;
mod space;
mod worker;

pub use device::Block;
pub use image::ImageError;
pub use lock::LockError;
pub use options::{CAPABILITIES, Options};
