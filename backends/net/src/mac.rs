//! An Ethernet address, as written on a command line.

use std::fmt;
use std::str::FromStr;

/// The address of one network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac([u8; 6]);

/// Not the address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// It is not written like one.
    #[error("an address is six pairs of hexadecimal digits with colons, such as 52:54:00:12:34:56")]
    Form,
    /// It names a group.
    #[error("the lowest bit of its first byte makes it a group's address, not an interface's")]
    Multicast,
    /// It names nobody.
    #[error("an interface cannot have the address of all zeros")]
    Zero,
}

impl Mac {
    /// The six bytes, first on the wire first.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }

    /// The address of these six bytes.
    pub(crate) fn from_octets(octets: [u8; 6]) -> Result<Self, MacError> {
        let [first, ..] = octets;
        if first & 1 != 0 {
            Err(MacError::Multicast)
        } else if octets == [0; 6] {
            Err(MacError::Zero)
        } else {
            Ok(Self(octets))
        }
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut octets = [0; 6];
        let mut pairs = text.split(':');
        for octet in &mut octets {
            let pair = pairs.next().ok_or(MacError::Form)?;
            let digits = pair.bytes().filter(u8::is_ascii_hexdigit).count();
            if pair.len() != 2 || digits != 2 {
                return Err(MacError::Form);
            }
            *octet = u8::from_str_radix(pair, 16).map_err(|_too_large| MacError::Form)?;
        }
        if pairs.next().is_some() { Err(MacError::Form) } else { Self::from_octets(octets) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
#[path = "mac_test.rs"]
mod tests;
