//! The block device: a disk image behind a virtio-blk device (virtio 1.3 §5.2). Sockets, rings
//! and signals are the shared crate's.
#![deny(unsafe_code)]

mod cache;
mod complaints;
mod device;
mod disk;
mod engine;
mod file;
mod format;
mod geometry;
mod image;
mod lock;
mod mark;
mod options;
mod ranges;
mod raw;
mod request;
mod space;
mod storage;
mod worker;

pub use cache::Cache;
pub use device::Block;
pub use disk::OnEnospc;
pub use format::Format;
pub use format::chain::ChainError;
#[cfg(feature = "fuzzing")]
pub use format::fuzz;
pub use format::header::Defect;
pub use geometry::GeometryError;
pub use image::{ImageError, ResizeError};
pub use lock::LockError;
pub use options::{Aio, CAPABILITIES, Options};
