//! What can be wrong with a TAP or macvtap: one sentence each, with its way out.

use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::link::LinkError;
use crate::tap::CLONE_DEVICE;

/// The TAP can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No interface of that name exists.
    #[error("TAP {name} does not exist; make it with `ip tuntap add dev {name} mode tap`")]
    Missing {
        /// Its name.
        name: String,
    },
    /// No interface can have that name.
    #[error("'{name}' cannot be an interface: a name has 1 to 15 bytes without '/' and spaces")]
    Name {
        /// The name.
        name: String,
    },
    /// The interface is something else.
    #[error("interface {name} is not a TAP (perhaps a TUN, or not made by `ip tuntap add`)")]
    NotTap {
        /// Its name.
        name: String,
    },
    /// Somebody else is attached.
    #[error("TAP {name} is in use by another process")]
    Busy {
        /// Its name.
        name: String,
    },
    /// It belongs to another user.
    #[error(
        "attaching to TAP {name} is not permitted; it has to be made for this user \
         (`ip tuntap add dev {name} mode tap user NAME`)"
    )]
    NotPermitted {
        /// Its name.
        name: String,
    },
    /// It was made for one queue.
    #[error(
        "TAP {name} has a single queue; make it with `ip tuntap add dev {name} mode tap multi_queue`"
    )]
    SingleQueue {
        /// Its name.
        name: String,
    },
    /// It has no more queues to give.
    #[error("TAP {name} does not have {pairs} free queues; other processes are attached to it")]
    QueuesInUse {
        /// Its name.
        name: String,
        /// How many were to be had.
        pairs: u16,
    },
    /// No macvtap of that name exists.
    #[error(
        "interface {name} does not exist; make it with \
         `ip link add link eth0 name {name} type macvtap mode bridge`"
    )]
    NoMacvtap {
        /// Its name.
        name: String,
    },
    /// The interface is something else.
    #[error("interface {name} is not a macvtap, which would have its device at {path}")]
    NotMacvtap {
        /// Its name.
        name: String,
        /// Where its device would be.
        path: PathBuf,
    },
    /// Its device belongs to another user.
    #[error("opening {path} is not permitted, which is macvtap {name}; give it to this user")]
    MacvtapNotPermitted {
        /// Its name.
        name: String,
        /// Its device.
        path: PathBuf,
    },
    /// One can't be made.
    #[error(
        "making a TAP for bridge {bridge} takes CAP_NET_ADMIN; run this as root, or make the TAP \
         first and use --tap"
    )]
    MakeNotPermitted {
        /// The bridge.
        bridge: String,
    },
    /// It can't be set up on the host's side.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The queues are of several TAPs.
    #[error("--tap-fd={fd} is of another TAP than the first one")]
    OtherTap {
        /// Its number.
        fd: RawFd,
    },
    /// There is no descriptor left to be told with.
    #[error("cannot make an event descriptor")]
    Event(#[source] io::Error),
    /// The kernel's driver is not there, or not for this user.
    #[error("cannot open {}, which attaching to a TAP takes (kernel module tun)", CLONE_DEVICE)]
    Driver(#[source] io::Error),
    /// Attaching failed in another way.
    #[error("cannot attach to TAP {name}")]
    Attach {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The descriptor is not open.
    #[error("--tap-fd={fd}: there is no such descriptor")]
    Descriptor {
        /// Its number.
        fd: RawFd,
        /// Why.
        source: io::Error,
    },
    /// The descriptor is of something else.
    #[error("--tap-fd={fd} is not a TAP that is attached to an interface")]
    NotTapDescriptor {
        /// Its number.
        fd: RawFd,
        /// Why.
        source: io::Error,
    },
    /// The descriptor was opened in another mode.
    #[error("--tap-fd={fd} was opened without {missing}")]
    Mode {
        /// Its number.
        fd: RawFd,
        /// The flags that it lacks.
        missing: &'static str,
    },
    /// The kernel does not take a setting.
    #[error("cannot set the {what} of TAP {name}")]
    Setting {
        /// The setting.
        what: &'static str,
        /// The TAP's name.
        name: String,
        /// Why.
        source: io::Error,
    },
}
