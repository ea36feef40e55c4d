//! Network interfaces of the host, as they are named and set up (netdevice(7)): no packets.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use libc::ifreq;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::Mac;

/// include/uapi/linux/sockios.h
const SIOCBRADDIF: u16 = 0x89a2;
/// The highest first byte of an address that an interface can have: a bridge takes the lowest of
/// its ports' for its own, which would change with each guest.
const HIGHEST: libc::c_char = 0xfe_u8.cast_signed();

mod ioctl {
    use nix::{ioctl_read_bad, ioctl_write_ptr_bad};

    ioctl_write_ptr_bad!(join_bridge, super::SIOCBRADDIF, libc::ifreq);
    ioctl_read_bad!(get_flags, libc::SIOCGIFFLAGS, libc::ifreq);
    ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, libc::ifreq);
    ioctl_write_ptr_bad!(set_mtu, libc::SIOCSIFMTU, libc::ifreq);
    ioctl_read_bad!(get_address, libc::SIOCGIFHWADDR, libc::ifreq);
    ioctl_write_ptr_bad!(set_address, libc::SIOCSIFHWADDR, libc::ifreq);
}

/// An interface can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no such bridge.
    #[error("bridge {name} does not exist; make it with `ip link add {name} type bridge`")]
    NoBridge {
        /// Its name.
        name: String,
    },
    /// The interface is something else.
    #[error("interface {name} is not a bridge")]
    NotBridge {
        /// Its name.
        name: String,
    },
    /// It may not be changed.
    #[error("joining bridge {bridge} takes CAP_NET_ADMIN; run this as root, or use --tap")]
    NotPermitted {
        /// The bridge.
        bridge: String,
    },
    /// It can't have that MTU.
    #[error("TAP {name} cannot have an MTU of {mtu}")]
    Mtu {
        /// Its name.
        name: String,
        /// The MTU.
        mtu: u16,
    },
    /// Setting it up failed in another way.
    #[error("cannot set the {what} of interface {name}")]
    Setting {
        /// The setting.
        what: &'static str,
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// An interface, and a socket to set it up with.
#[derive(Debug)]
pub(crate) struct Link {
    name: String,
    socket: OwnedFd,
}

impl Link {
    /// The interface of that name.
    pub(crate) fn named(name: &str) -> Result<Self, LinkError> {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
        let socket = socket.map_err(|errno| LinkError::Setting {
            what: "state",
            name: name.to_owned(),
            source: errno.into(),
        })?;
        Ok(Self { name: name.to_owned(), socket })
    }

    /// The bridge of that name, as far as it can be seen before something joins it.
    pub(crate) fn bridge(name: &str) -> Result<Self, LinkError> {
        // An error can only mean that there is none.
        if request(name).is_none() || if_nametoindex(name).is_err() {
            return Err(LinkError::NoBridge { name: name.into() });
        }
        Self::named(name)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its Ethernet address, if it has one.
    pub(crate) fn address(&self) -> Option<Mac> {
        let mut request = request(&self.name)?;
        // SAFETY: the kernel reads the name and writes an address.
        unsafe { ioctl::get_address(self.socket.as_raw_fd(), &raw mut request) }.ok()?;
        // SAFETY: the kernel wrote an address there.
        let [a, b, c, d, e, f, ..] = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
        Mac::from_octets([a, b, c, d, e, f].map(libc::c_char::cast_unsigned)).ok()
    }

    /// Joins it to `bridge`, and brings it up.
    pub(crate) fn plug_into(&self, bridge: &Self, mtu: Option<u16>) -> Result<(), LinkError> {
        self.change("address", |socket, mut request| {
            // SAFETY: the kernel reads the name and writes an address.
            unsafe { ioctl::get_address(socket, &raw mut request) }?;
            // SAFETY: the kernel wrote an address there.
            let mut address = unsafe { request.ifr_ifru.ifru_hwaddr };
            let [first, ..] = &mut address.sa_data;
            *first = HIGHEST;
            request.ifr_ifru.ifru_hwaddr = address;
            // SAFETY: the kernel reads the name and the address.
            unsafe { ioctl::set_address(socket, &raw const request) }
        })?;
        if let Some(mtu) = mtu {
            let set = self.change("MTU", |socket, mut request| {
                request.ifr_ifru.ifru_mtu = mtu.into();
                // SAFETY: the kernel reads the name and the MTU.
                unsafe { ioctl::set_mtu(socket, &raw const request) }
            });
            set.map_err(|error| match error {
                LinkError::Setting { source, name, .. } if is(&source, Errno::EINVAL) => {
                    LinkError::Mtu { name, mtu }
                }
                error => error,
            })?;
        }
        self.join(bridge)?;
        self.change("state", |socket, mut request| {
            // SAFETY: the kernel reads the name and writes the flags.
            unsafe { ioctl::get_flags(socket, &raw mut request) }?;
            // SAFETY: the kernel wrote the flags, and any bits are valid ones.
            let flags = unsafe { request.ifr_ifru.ifru_flags };
            // One of the low bits.
            request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
            // SAFETY: the kernel reads the name and the flags.
            unsafe { ioctl::set_flags(socket, &raw const request) }
        })
    }

    fn join(&self, bridge: &Self) -> Result<(), LinkError> {
        // An interface that is gone by now has no number, and joins nothing.
        let index = if_nametoindex(self.name.as_str()).unwrap_or_default();
        let joined = bridge.change("ports", |socket, mut request| {
            // Numbers of interfaces are positive.
            request.ifr_ifru.ifru_ifindex = index.cast_signed();
            // SAFETY: the kernel reads the name and the number.
            unsafe { ioctl::join_bridge(socket, &raw const request) }
        });
        joined.map_err(|error| match error {
            LinkError::Setting { source, name, .. } if is(&source, Errno::EOPNOTSUPP) => {
                LinkError::NotBridge { name }
            }
            LinkError::Setting { source, name: bridge, .. } if is(&source, Errno::EPERM) => {
                LinkError::NotPermitted { bridge }
            }
            error => error,
        })
    }

    fn change(
        &self,
        what: &'static str,
        change: impl FnOnce(libc::c_int, ifreq) -> nix::Result<libc::c_int>,
    ) -> Result<(), LinkError> {
        let request = request(&self.name).ok_or(Errno::ENODEV);
        let changed = request.and_then(|request| change(self.socket.as_raw_fd(), request));
        changed.map(drop).map_err(|errno| LinkError::Setting {
            what,
            name: self.name.clone(),
            source: errno.into(),
        })
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

/// A request about the interface of that name; `None` if none can have it: a name has 1 to 15 bytes
/// without '/' and spaces.
pub(crate) fn request(name: &str) -> Option<ifreq> {
    let mut request = empty_request();
    // One byte is left for the zero at the end.
    let room = request.ifr_name.len().saturating_sub(1);
    let refused = |byte: u8| byte == b'/' || byte == 0 || byte.is_ascii_whitespace();
    if name.is_empty() || name.len() > room || name.bytes().any(refused) {
        return None;
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte.cast_signed();
    }
    Some(request)
}

pub(crate) fn empty_request() -> ifreq {
    // SAFETY: an `ifreq` is made of numbers and pointers, for all of which zeros are a value.
    unsafe { std::mem::zeroed() }
}

/// The name in a request.
pub(crate) fn name_of(request: &ifreq) -> String {
    let name = request.ifr_name.map(libc::c_char::cast_unsigned);
    let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
    name.to_string_lossy().into_owned()
}
