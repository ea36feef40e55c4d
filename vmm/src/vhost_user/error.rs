//! What can go wrong between a device and its back-end.

use std::io;
use std::time::Duration;

use vhost::vhost_user::message::FrontendReq;

/// Why a device has no back-end, or lost it.
#[derive(Debug, thiserror::Error)]
pub enum VhostUserError {
    /// The failure, with the device and the back-end it is about.
    #[error("device {id} ({device_type}) at {peer}")]
    Device {
        /// The device.
        id: String,
        /// Its type.
        device_type: &'static str,
        /// Its back-end.
        peer: String,
        /// What went wrong.
        source: Box<VhostUserError>,
    },
    /// Nobody served the socket in time.
    #[error(
        "no back-end came within {} s; start one, or wait longer with --connect-timeout: {why}",
        timeout.as_secs()
    )]
    NobodyThere {
        /// How long was waited.
        timeout: Duration,
        /// What the last attempt met.
        why: String,
    },
    /// There will be no back-end.
    #[error("there is no back-end any more: {0}")]
    GivenUp(String),
    /// The path is something else.
    #[error("it is not a socket")]
    NotASocket,
    /// The path does not fit in a socket address.
    #[error("the path has {len} bytes, but the kernel takes at most {max}")]
    PathTooLong {
        /// Its length.
        len: usize,
        /// The most there can be.
        max: usize,
    },
    /// Connecting failed for a reason that won't pass.
    #[error("connecting")]
    Connect(#[source] io::Error),
    /// The socket failed in the middle of a request.
    #[error("{request:?}: the connection failed")]
    Io {
        /// The request.
        request: FrontendReq,
        /// What the kernel says.
        source: io::Error,
    },
    /// The back-end closed the connection.
    #[error("{request:?}: the back-end closed the connection")]
    Closed {
        /// The request.
        request: FrontendReq,
    },
    /// The back-end closed the connection while nothing was asked of it.
    #[error("the back-end closed the connection")]
    Gone,
    /// The back-end sent something while nothing was asked of it.
    #[error("the back-end sent what nobody had asked for: {0}")]
    Unasked(String),
    /// No answer in time.
    #[error("{request:?}: the back-end did not answer in time")]
    NoAnswer {
        /// The request.
        request: FrontendReq,
    },
    /// The answer is not one.
    #[error("{request:?}: the back-end does not speak vhost-user: {reason}")]
    Garbage {
        /// The request.
        request: FrontendReq,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The back-end says that it failed.
    #[error("{request:?}: the back-end refused it with code {code}")]
    Refused {
        /// The request.
        request: FrontendReq,
        /// What it answered.
        code: u64,
    },
    /// A feature without which the device can't be used.
    #[error("the back-end lacks {feature}, which {needed_for}")]
    MissingFeature {
        /// Its name.
        feature: String,
        /// What it is for.
        needed_for: &'static str,
    },
    /// The back-end does not look like the type that was asked for.
    #[error("the back-end does not look like a {device_type} device: {reason}")]
    OtherType {
        /// The type asked for.
        device_type: &'static str,
        /// What speaks against it.
        reason: String,
    },
    /// More queues than the back-end has.
    #[error("{asked} queues were asked for, but {limit}")]
    TooManyQueues {
        /// Asked for.
        asked: u16,
        /// What stands against it.
        limit: String,
    },
    /// A queue size that virtio does not have.
    #[error("queue size {0} is not a power of two from 2 to 32768")]
    QueueSize(u16),
    /// A ring that is not in guest memory.
    #[error("queue {queue}: its ring at {address:#x} is outside guest memory")]
    RingOutsideMemory {
        /// The queue.
        queue: u16,
        /// The first address that is outside.
        address: u64,
    },
    /// What came back after a loss differs from what the guest was told.
    #[error("the back-end that came back differs: {0}")]
    Changed(String),
    /// A hung back-end still has the rings.
    #[error(
        "the back-end before it (pid {0}) hangs with the guest's rings and could still write to \
         them; end that process"
    )]
    NotGone(u32),
    /// Another back-end can't take over.
    #[error("it can't take over: {0}")]
    SwapFailed(String),
    /// The connection was closed from this end, as it was wanted.
    #[error("it was let go, to be attached anew")]
    LetGo,
    /// The device did not come to it in time.
    #[error("the device is busy and did not answer within {} s; see its state", .0.as_secs())]
    Busy(Duration),
    /// The device has ended.
    #[error("the device has ended")]
    Ended,
    /// Memory that can't be shared with another process.
    #[error("guest memory at {0:#x} is not backed by a file")]
    PrivateMemory(u64),
    /// The device's thread could not be started.
    #[error("starting thread dev-{id}")]
    Thread {
        /// The device.
        id: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// An eventfd or a socket pair could not be made.
    #[error("creating {what}")]
    Descriptor {
        /// What.
        what: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
}

impl VhostUserError {
    /// Whether the other end is just gone, and its next life may do better.
    pub(super) fn is_disconnect(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Gone | Self::Io { .. })
    }

    /// The error and all that caused it, in one sentence.
    pub(super) fn sentence(&self) -> String {
        let first: &dyn std::error::Error = self;
        let chain = std::iter::successors(Some(first), |error| error.source());
        chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }
}
