//! A console's further port as a user writes it: `NAME:socket=PATH`, `NAME:pty[=LINK]`, `NAME:file=F`.
//! What a name may be is the backend's to say.

use std::path::PathBuf;
use std::str::FromStr;

use super::ConsoleTo;

/// A named port of a console.
#[derive(Clone, Debug, PartialEq)]
pub struct PortConfig {
    /// Its name in the guest, below `/dev/virtio-ports`.
    pub name: String,
    /// Where its bytes go and come from; never the terminal.
    pub to: ConsoleTo,
}

/// Such a port can't be.
#[derive(Debug, thiserror::Error)]
#[error("a port is NAME:socket=PATH, NAME:pty, NAME:pty=LINK or NAME:file=FILE")]
pub struct WrongPort;

impl FromStr for PortConfig {
    type Err = WrongPort;

    fn from_str(text: &str) -> Result<Self, WrongPort> {
        let (name, to) =
            text.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or(WrongPort)?;
        let to = match to.split_once('=') {
            Some(("socket", path)) if !path.is_empty() => ConsoleTo::Socket(path.into()),
            Some(("file", path)) if !path.is_empty() => ConsoleTo::File(path.into()),
            Some(("pty", link)) if !link.is_empty() => ConsoleTo::Pty(Some(PathBuf::from(link))),
            None if to == "pty" => ConsoleTo::Pty(None),
            _ => return Err(WrongPort),
        };
        Ok(Self { name: name.to_owned(), to })
    }
}

#[cfg(test)]
#[path = "port_test.rs"]
mod tests;
