//! A Unix stream socket that somebody else serves with QEMU's framing: connected to, and connected
//! to again when it closes. What is said over it is the stream's business.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use crate::keeper::{Keeper, Pauses, await_end, hand_over, is_wanted};

/// The hidden option with which this program is started as the keeper.
const KEEPER: &str = "--keep-stream";

/// Starts what keeps connecting to `path`.
pub(crate) fn start(path: &Path) -> io::Result<Keeper> {
    Keeper::start([KEEPER.into(), "--stream".into(), path.into()])
}

/// The keeper's `main`: connects to `path` again and again until the device process ends.
///
/// # Errors
/// When the device process can't be watched.
pub fn keep(path: &Path) -> io::Result<()> {
    let mut pauses = Pauses::new();
    let mut told = false;
    while is_wanted()? {
        let started = Instant::now();
        match UnixStream::connect(path) {
            Ok(stream) => {
                told = false;
                if hand_over(stream.as_fd()).is_err() || !await_end(stream.as_fd())? {
                    break;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    let path = path.display();
                    eprintln!(
                        "atoll-net: waiting for {path}, which cannot be connected to: {error}"
                    );
                }
            }
        }
        pauses.wait(started);
    }
    Ok(())
}
