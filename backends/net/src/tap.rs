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
    /// Attaches to the TAP `name`, which has to exist: one that the kernel would make here would
    /// be down, in no bridge, and gone at the end.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn attach(name: &str) -> Result<Self, TapError> {
        let mut request = interface(name)?;
        let missing = TapError::Missing { name: name.into() };
        // An error can only mean that there is none.
        if if_nametoindex(name).is_err() {
            return Err(missing);
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(CLONE_DEVICE)
            .map_err(TapError::Driver)?;
        let mut attached = set_interface(&file, &mut request, FLAGS);
        if attached == Err(Errno::EINVAL) {
            // The kernel wants to hear whether a TAP has several queues.
            attached = set_interface(&file, &mut request, FLAGS | IFF_MULTI_QUEUE);
        }
        let name = || name.to_owned();
        attached.map_err(|errno| match errno {
            Errno::EINVAL => TapError::NotTap { name: name() },
            Errno::EBUSY => TapError::Busy { name: name() },
            Errno::EPERM => TapError::NotPermitted { name: name() },
            errno => TapError::Attach { name: name(), source: errno.into() },
        })?;
        Self::set_up(file, name())
    }

    /// Takes over a TAP that was opened by somebody else.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn inherit(fd: RawFd) -> Result<Self, TapError> {
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
