//! A TAP or macvtap interface of the host: attaching to it, by name or by descriptor, or making it,
//! and setting it up so that it speaks the virtio header. Packets pass elsewhere.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libc::{IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, c_int, c_uint, ifreq};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::net::if_::if_nametoindex;

use crate::header::HEADER;
use crate::link::{self, Link};
use crate::offload::USO;
use crate::{Mac, TapError};

pub(crate) const CLONE_DEVICE: &str = "/dev/net/tun";
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

    /// Makes a TAP that lasts as long as it is attached to, and joins it to `bridge`.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn make(bridge: &str, mtu: Option<u16>, pairs: u16) -> Result<Vec<Self>, TapError> {
        let bridge = Link::bridge(bridge)?;
        let several = if pairs > 1 { IFF_MULTI_QUEUE } else { 0 };
        // The kernel puts a number there that makes it a new one.
        let mut request = interface("atoll%d")?;
        let queues = (0..pairs).map(|_| {
            let file = open_driver()?;
            set_interface(&file, &mut request, FLAGS | several).map_err(|errno| match errno {
                Errno::EPERM => TapError::MakeNotPermitted { bridge: bridge.name().to_owned() },
                errno => TapError::Attach { name: link::name_of(&request), source: errno.into() },
            })?;
            // All others are queues of the same.
            request = get_interface(&file).map_err(|errno| TapError::Event(errno.into()))?;
            Self::set_up(file, link::name_of(&request))
        });
        let taps: Vec<Self> = queues.collect::<Result<_, _>>()?;
        if let Some(first) = taps.first() {
            Link::named(first.name())?.plug_into(&bridge, mtu)?;
        }
        Ok(taps)
    }

    /// Attaches to the macvtap `name` with a queue of it for each of `pairs`. Returns its address as
    /// well, the only one whose packets it gets.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn macvtap(name: &str, pairs: u16) -> Result<(Vec<Self>, Option<Mac>), TapError> {
        interface(name)?;
        let Ok(index) = if_nametoindex(name) else {
            return Err(TapError::NoMacvtap { name: name.into() });
        };
        let path = PathBuf::from(format!("/dev/tap{index}"));
        let several = if pairs > 1 { IFF_MULTI_QUEUE } else { 0 };
        let name = || name.to_owned();
        let queues = (0..pairs).map(|_| {
            let file = open(&path).map_err(|source| match source.kind() {
                ErrorKind::NotFound => TapError::NotMacvtap { name: name(), path: path.clone() },
                ErrorKind::PermissionDenied => {
                    TapError::MacvtapNotPermitted { name: name(), path: path.clone() }
                }
                ErrorKind::ResourceBusy => TapError::QueuesInUse { name: name(), pairs },
                _ => TapError::Attach { name: name(), source },
            })?;
            let attached = set_interface(&file, &mut link::empty_request(), FLAGS | several);
            let request = attached.and_then(|()| get_interface(&file));
            // The device of an interface of that number in another network namespace, perhaps.
            match request.map(|request| link::name_of(&request)) {
                Ok(own) if own == name() => Self::set_up(file, own),
                _ => Err(TapError::NotMacvtap { name: name(), path: path.clone() }),
            }
        });
        let taps = queues.collect::<Result<_, _>>()?;
        Ok((taps, Link::named(&name())?.address()))
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
        let request = get_interface(&file)
            .map_err(|errno| TapError::NotTapDescriptor { fd, source: errno.into() })?;
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
        Self::set_up(file, link::name_of(&request))
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
        let mut request = link::empty_request();
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

    /// The queue's open file.
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Whether the interface of this queue, which is in use, was deleted.
    pub(crate) fn is_gone(&self) -> bool {
        get_interface(&self.file).is_err()
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
    open(Path::new(CLONE_DEVICE)).map_err(TapError::Driver)
}

fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}

/// The interface that `file` is attached to, by name and flags.
fn get_interface(file: &File) -> Result<ifreq, Errno> {
    let mut request = link::empty_request();
    // SAFETY: the kernel writes an `ifreq`, which `request` is.
    unsafe { ioctl::get_iff(file.as_raw_fd(), &raw mut request) }?;
    Ok(request)
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
    link::request(name).ok_or_else(|| TapError::Name { name: name.into() })
}

#[cfg(test)]
#[path = "tap_test.rs"]
mod tests;
