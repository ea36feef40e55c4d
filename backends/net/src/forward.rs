//! A port of the host's that leads to the guest, as written on a command line. Nothing listens here.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// One forwarded port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    udp: bool,
    address: Option<IpAddr>,
    host: u16,
    guest: u16,
}

/// Not a forwarded port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write tcp or udp, the host's port and the guest's, such as tcp:2222:22 or tcp:127.0.0.1:2222:22"
)]
pub struct NotForward;

impl Forward {
    /// passt's option for it.
    pub(crate) fn option(&self) -> &'static str {
        if self.udp { "--udp-ports" } else { "--tcp-ports" }
    }

    /// The value of that option.
    pub(crate) fn specification(&self) -> String {
        let ports = format!("{}:{}", self.host, self.guest);
        self.address.map_or_else(|| ports.clone(), |address| format!("{address}/{ports}"))
    }
}

impl FromStr for Forward {
    type Err = NotForward;

    fn from_str(text: &str) -> Result<Self, NotForward> {
        let (protocol, rest) = text.split_once(':').ok_or(NotForward)?;
        let udp = match protocol {
            "tcp" => false,
            "udp" => true,
            _ => return Err(NotForward),
        };
        let (rest, guest) = rest.rsplit_once(':').ok_or(NotForward)?;
        let (address, host) = match rest.rsplit_once(':') {
            Some((address, host)) => {
                let bare = address.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
                (Some(bare.unwrap_or(address)), host)
            }
            None => (None, rest),
        };
        let port = |text: &str| text.parse().ok().filter(|port| *port > 0).ok_or(NotForward);
        let address = address.map(|text| text.parse().map_err(|_other| NotForward)).transpose()?;
        Ok(Self { udp, address, host: port(host)?, guest: port(guest)? })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.udp { "udp" } else { "tcp" };
        write!(f, "{protocol}:")?;
        match self.address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            None => {}
        }
        write!(f, "{}:{}", self.host, self.guest)
    }
}

#[cfg(test)]
#[path = "forward_test.rs"]
mod tests;
