//! A TAP interface of the host: attaching to it, by name or by descriptor, and setting it up so
//! that it speaks the virtio header. Packets pass elsewhere.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use libc::{IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, c_int, c_uint, ifreq};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::net::if_::if_nametoindex;

use crate::header::HEADER;
use crate::offload::USO;

const CLONE_DEVICE: &str = "/dev/net/tun";
/// What is asked of the kernel: whole Ethernet frames, each behind a virtio header.
const FLAGS: c_int = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;

mod ioctl {
    //! include/uapi/linux/if_tun.h. Some encode a type that is not the argument's.
    use std::mem::size_of;

    use nix::{
        ioctl_read_bad, ioctl_write_int_bad, ioctl_write_ptr, ioctl_write_ptr_bad,
        request_code_read, request_code_write,
    };

    ioctl_write_ptr_bad!(
        set_iff,
        request_code_write!(b'T', 202, size_of::<libc::c_int>()),
        libc::ifreq
    );
    ioctl_read_bad!(get_iff, request_code_read!(b'T', 210, size_of::<libc::c_uint>()), libc::ifreq);
    ioctl_write_int_bad!(set_offload, request_code_write!(b'T', 208, size_of::<libc::c_uint>()));
    ioctl_write_ptr_bad!(
        set_queue,
        request_code_write!(b'T', 217, size_of::<libc::c_int>()),
        libc::ifreq
    );
    ioctl_write_ptr!(set_header_size, b'T', 216, libc::c_int);
    ioctl_write_ptr!(set_little_endian, b'T', 220, libc::c_int);
}

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
    #[error("cannot open {CLONE_DEVICE}, which attaching to a TAP takes (kernel module tun)")]
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

/// A TAP that is attached: one queue of it. Clones are the same queue.
#[derive(Clone, Debug)]
pub struct Tap {
    file: Arc<File>,
    name: Arc<str>,
    uso: bool,
}

impl Tap {
    /// Attaches to the TAP `name` with a queue of it for each of `pairs`. It has to exist: one that
    /// the kernel would make here would be down, in no bridge, and gone at the end.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn attach(name: &str, pairs: u16) -> Result<Vec<Self>, TapError> {
        let mut request = interface(name)?;
        let missing = TapError::Missing { name: name.into() };
        // An error can only mean that there is none.
        if if_nametoindex(name).is_err() {
            return Err(missing);
        }
        let queues = (0..pairs).map(|_| {
            let file = open_driver()?;
            let mut attached = match pairs {
                1 => set_interface(&file, &mut request, FLAGS),
                _ => set_interface(&file, &mut request, FLAGS | IFF_MULTI_QUEUE),
            };
            if attached == Err(Errno::EINVAL) && pairs == 1 {
                // The kernel wants to hear whether a TAP has several queues.
                attached = set_interface(&file, &mut request, FLAGS | IFF_MULTI_QUEUE);
            }
            attached.map_err(|errno| not_attached(name, pairs, &file, errno))?;
            Self::set_up(file, name.to_owned())
        });
        queues.collect()
    }

    /// Takes over the queues of a TAP that were opened by somebody else.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn inherit(fds: &[RawFd]) -> Result<Vec<Self>, TapError> {
        let several = fds.len() > 1;
        let taps = fds.iter().map(|fd| Self::inherit_one(*fd, several));
        let taps: Vec<_> = taps.collect::<Result<_, _>>()?;
        let first = taps.first().map(Self::name);
        match taps.iter().position(|tap| Some(tap.name()) != first) {
            Some(other) => Err(TapError::OtherTap { fd: fds.get(other).copied().unwrap_or(-1) }),
            None => Ok(taps),
        }
    }

    fn inherit_one(fd: RawFd, several: bool) -> Result<Self, TapError> {
        let no_descriptor = |errno: Errno| TapError::Descriptor { fd, source: errno.into() };
        // SAFETY: a borrow for one call, which reports descriptors that are not open.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd.max(0)) };
        if fd < 0 {
            return Err(no_descriptor(Errno::EBADF));
        }
        let flags = fcntl(borrowed, FcntlArg::F_GETFL).map_err(no_descriptor)?;
        // SAFETY: the descriptor is open, and the command line says that it is ours.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        fcntl(&file, FcntlArg::F_SETFL(flags)).map_err(no_descriptor)?;
        let mut request = empty_request();
        // SAFETY: the kernel writes an `ifreq`, which `request` is.
        let got = unsafe { ioctl::get_iff(file.as_raw_fd(), &raw mut request) };
        got.map_err(|errno| TapError::NotTapDescriptor { fd, source: errno.into() })?;
        // SAFETY: the kernel wrote the flags, and any bits are valid ones.
        let mode = c_int::from(unsafe { request.ifr_ifru.ifru_flags });
        let lacks = |flag| mode & flag == 0;
        let missing = [
            (lacks(IFF_TAP), "IFF_TAP, so it is a TUN"),
            (lacks(IFF_NO_PI), "IFF_NO_PI"),
            (lacks(IFF_VNET_HDR), "IFF_VNET_HDR"),
            (several && lacks(IFF_MULTI_QUEUE), "IFF_MULTI_QUEUE, which several queues take"),
        ];
        if let Some((_, missing)) = missing.into_iter().find(|(missing, _)| *missing) {
            return Err(TapError::Mode { fd, missing });
        }
        let name = request.ifr_name.map(c_char_to_byte);
        let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
        Self::set_up(file, name.to_string_lossy().into_owned())
    }

    fn set_up(file: File, name: String) -> Result<Self, TapError> {
        let failed = |what| {
            let name = name.clone();
            move |errno: Errno| TapError::Setting { what, name, source: errno.into() }
        };
        let fd = file.as_raw_fd();
        // SAFETY: the kernel reads an int.
        unsafe { ioctl::set_header_size(fd, &(HEADER as c_int)) }.map_err(failed("header size"))?;
        // virtio 1.3 §1.4: little-endian, whatever the host is.
        // SAFETY: the kernel reads an int.
        unsafe { ioctl::set_little_endian(fd, &1) }.map_err(failed("byte order"))?;
        let uso = set_offload(&file, libc::TUN_F_CSUM | USO).is_ok();
        set_offload(&file, 0).map_err(failed("offloads"))?;
        Ok(Self { file: Arc::new(file), name: name.into(), uso })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the kernel knows UDP segmentation offload (Linux 6.2).
    pub(crate) fn knows_uso(&self) -> bool {
        self.uso
    }

    /// Lets the kernel spread packets over this queue as well, or no more (TUNSETQUEUE).
    pub(crate) fn set_queue(&self, attached: bool) -> Result<(), TapError> {
        let mut request = empty_request();
        let flag = if attached { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
        // The flags are the low bits of a short.
        request.ifr_ifru.ifru_flags = flag as libc::c_short;
        // SAFETY: the kernel reads an `ifreq`, with its flags set.
        let set = unsafe { ioctl::set_queue(self.file.as_raw_fd(), &raw const request) };
        set.map(drop).map_err(|errno| TapError::Setting {
            what: "queues in use",
            name: self.name.to_string(),
            source: errno.into(),
        })
    }

    /// Whether the interface of this queue, which is in use, was deleted.
    pub(crate) fn is_gone(&self) -> bool {
        let mut request = empty_request();
        // SAFETY: the kernel writes an `ifreq`, which `request` is.
        unsafe { ioctl::get_iff(self.file.as_raw_fd(), &raw mut request) }.is_err()
    }

    /// Says what may be left undone in packets that are read (TUNSETOFFLOAD).
    pub(crate) fn set_offload(&self, flags: c_uint) -> Result<(), TapError> {
        set_offload(&self.file, flags).map_err(|errno| TapError::Setting {
            what: "offloads",
            name: self.name.to_string(),
            source: errno.into(),
        })
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open_driver() -> Result<File, TapError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(CLONE_DEVICE)
        .map_err(TapError::Driver)
}

/// What it means that `file` can't be attached to a TAP.
fn not_attached(name: &str, pairs: u16, file: &File, errno: Errno) -> TapError {
    let name = name.to_owned();
    match errno {
        Errno::EINVAL => {
            // One with a single queue, in use or not, is told from what is no TAP by trying.
            let single =
                interface(&name).map(|mut request| set_interface(file, &mut request, FLAGS));
            match single {
                Ok(Ok(()) | Err(Errno::EBUSY)) if pairs > 1 => TapError::SingleQueue { name },
                _ => TapError::NotTap { name },
            }
        }
        Errno::EBUSY => TapError::Busy { name },
        Errno::EPERM => TapError::NotPermitted { name },
        Errno::E2BIG => TapError::QueuesInUse { name, pairs },
        errno => TapError::Attach { name, source: errno.into() },
    }
}

fn set_interface(file: &File, request: &mut ifreq, flags: c_int) -> Result<(), Errno> {
    // The flags are bits of a short, and IFF_NO_PI and IFF_VNET_HDR are within it.
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the kernel reads an `ifreq`, with name and flags set.
    unsafe { ioctl::set_iff(file.as_raw_fd(), &raw const *request) }.map(drop)
}

fn set_offload(file: &File, flags: c_uint) -> Result<(), Errno> {
    // SAFETY: the argument is a number.
    unsafe { ioctl::set_offload(file.as_raw_fd(), flags.cast_signed()) }.map(drop)
}

fn interface(name: &str) -> Result<ifreq, TapError> {
    let mut request = empty_request();
    // One byte is left for the zero at the end.
    let room = request.ifr_name.len().saturating_sub(1);
    let refused = |byte: u8| byte == b'/' || byte == 0 || byte.is_ascii_whitespace();
    if name.is_empty() || name.len() > room || name.bytes().any(refused) {
        return Err(TapError::Name { name: name.into() });
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte.cast_signed();
    }
    Ok(request)
}

fn empty_request() -> ifreq {
    // SAFETY: an `ifreq` is made of numbers and pointers, for all of which zeros are a value.
    unsafe { std::mem::zeroed() }
}

fn c_char_to_byte(char: libc::c_char) -> u8 {
    char.cast_unsigned()
}

#[cfg(test)]
#[path = "tap_test.rs"]
mod tests;
