//! What hostile front-ends do: connections that go wrong in one way each, the same for every device
//! process. It commits them; what the process makes of it is for tests to judge.

mod chains;
mod frames;
mod handshake;
mod memory;
mod records;
mod rings;

use std::fs::File;
use std::io::Read;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

pub use chains::HostileChain;

use crate::{Error, Wire};
use handshake::Handshake;

/// A message, in whatever shape.
#[derive(Clone, Debug)]
struct Told {
    /// Request, flags, size.
    header: [u32; 3],
    payload: Vec<u8>,
    fds: Vec<Arc<File>>,
}

impl Told {
    /// A message as it should be.
    fn new(request: u32, payload: Vec<u8>, fds: Vec<Arc<File>>) -> Self {
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        Self { header: [request, 1, size], payload, fds }
    }

    fn with_payload(&self, payload: Vec<u8>) -> Self {
        let [request, ..] = self.header;
        Self::new(request, payload, self.fds.clone())
    }

    fn with_fds(&self, fds: Vec<Arc<File>>) -> Self {
        Self { fds, ..self.clone() }
    }
}

/// A connection that goes wrong.
#[derive(Clone, Debug)]
pub struct Abuse {
    /// What is wrong with it.
    pub name: String,
    messages: Vec<Told>,
    /// Leaves at once instead of when everything is answered.
    abrupt: bool,
    /// An event that is made to block its writers again and again meanwhile: how it is open belongs to
    /// all who have it.
    blocks: Option<Arc<File>>,
}

impl Abuse {
    /// All of them.
    ///
    /// # Errors
    /// No memory or descriptors.
    pub fn all() -> Result<Vec<Self>, Error> {
        let handshake = Handshake::new()?;
        let kinds = [
            frames::all(&handshake)?,
            memory::all(&handshake)?,
            records::all(&handshake)?,
            rings::all(&handshake)?,
        ];
        Ok(kinds.concat())
    }

    /// Commits all of them, one after the other. Returns how many there are.
    ///
    /// # Errors
    /// As of [`commit`](Self::commit), with the name of the one.
    pub fn commit_all(socket: &Path) -> Result<usize, (String, Error)> {
        let all = Self::all().map_err(|error| (String::new(), error))?;
        for abuse in &all {
            abuse.commit(socket).map_err(|error| (abuse.name.clone(), error))?;
        }
        Ok(all.len())
    }

    /// Commits it against whoever serves `socket`, and returns when that one is done with it.
    ///
    /// # Errors
    /// When there is nobody, or it hangs.
    pub fn commit(&self, socket: &Path) -> Result<(), Error> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if let Some(event) = &self.blocks {
                let over = &over;
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        // The event is open, and this can't fail with one.
                        let _set = fcntl(event, FcntlArg::F_SETFL(OFlag::empty()));
                    }
                });
            }
            let committed = self.exchange(socket);
            over.store(true, Ordering::Relaxed);
            committed
        })
    }

    fn exchange(&self, socket: &Path) -> Result<(), Error> {
        let stream = UnixStream::connect(socket)
            .map_err(|source| Error::Connect { path: socket.to_owned(), source })?;
        let wire = Wire::over(stream)?;
        for Told { header, payload, fds } in &self.messages {
            let fds: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
            // It fails once the other side has had enough.
            if wire.send_raw(*header, payload, &fds).is_err() {
                break;
            }
        }
        if self.abrupt {
            return Ok(());
        }
        // It fails when the other side has closed first.
        let _closed = wire.stream().shutdown(Shutdown::Write);
        let mut answers = [0; 4096];
        loop {
            match wire.stream().read(&mut answers) {
                Ok(1..) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return Err(Error::system("waiting for the end of a connection", error));
                }
                // Closed, or reset because it left without reading all.
                Ok(0) | Err(_) => return Ok(()),
            }
        }
    }
}

/// A file of `len` bytes in memory, that may be cut.
fn file(len: u64) -> Result<Arc<File>, Error> {
    let failed = |source| Error::CreateMemory { len, source };
    let fd = memfd_create(c"abuse", MFdFlags::MFD_CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let file = File::from(fd);
    file.set_len(len).map_err(failed)?;
    Ok(Arc::new(file))
}

/// What no message is about: a pipe that nobody writes to, a directory, and a device.
fn strange_files() -> Result<[(&'static str, Arc<File>); 3], Error> {
    let open = |path: &str| {
        File::open(path).map(Arc::new).map_err(|source| Error::system("opening a file", source))
    };
    let (reader, _writer) =
        nix::unistd::pipe().map_err(|errno| Error::system("making a pipe", errno))?;
    Ok([
        ("a closed pipe", Arc::new(File::from(reader))),
        ("a directory", open("/")?),
        ("/dev/null", open("/dev/null")?),
    ])
}

/// 64-bit words, as messages hold them.
fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
