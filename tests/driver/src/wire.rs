//! vhost-user messages by hand, for peers that do not follow the protocol.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::{Error, TIMEOUT};

/// "Header": request, flags, size; all in the machine's own byte order.
const HEADER: usize = 12;
/// The protocol's version, in the lowest two bits of the flags.
const VERSION: u32 = 1;

/// A message with its descriptors.
#[derive(Debug)]
pub struct Message {
    /// The request's number.
    pub request: u32,
    /// Version, reply and need-reply bits.
    pub flags: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// What came along.
    pub fds: Vec<OwnedFd>,
}

/// One end of a vhost-user socket that says whatever it is told to.
#[derive(Debug)]
pub struct Wire(UnixStream);

impl Wire {
    /// Speaks over `stream`.
    ///
    /// # Errors
    /// When the stream takes no deadline.
    pub fn over(stream: UnixStream) -> Result<Self, Error> {
        stream
            .set_read_timeout(Some(TIMEOUT))
            .map_err(|source| Error::system("setting a deadline on the socket", source))?;
        Ok(Self(stream))
    }

    /// The stream itself, for half messages.
    pub fn stream(&self) -> &UnixStream {
        &self.0
    }

    /// Sends a well-framed message.
    ///
    /// # Errors
    /// The socket's.
    pub fn send(&self, request: u32, payload: &[u8], fds: &[RawFd]) -> Result<(), Error> {
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.send_raw([request, VERSION, size], payload, fds)
    }

    /// Sends any header with any payload.
    ///
    /// # Errors
    /// The socket's.
    pub fn send_raw(&self, header: [u32; 3], payload: &[u8], fds: &[RawFd]) -> Result<(), Error> {
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend_from_slice(payload);
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
        let iov = [IoSlice::new(&bytes)];
        sendmsg::<()>(self.0.as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None)
            .map_err(|errno| Error::system("sending a message", errno))?;
        Ok(())
    }

    /// Receives the next message; `None` when the peer has closed.
    ///
    /// # Errors
    /// The socket's, and a message that ends early.
    pub fn receive(&self) -> Result<Option<Message>, Error> {
        let mut header = [0; HEADER];
        let mut fds = Vec::new();
        let Some(()) = self.fill(&mut header, &mut fds)? else {
            return Ok(None);
        };
        let mut words = header
            .chunks_exact(4)
            .map(|word| word.try_into().map(u32::from_ne_bytes).unwrap_or_default());
        let mut word = || words.next().unwrap_or_default();
        let (request, flags, size) = (word(), word(), word());
        let mut payload = vec![0; usize::try_from(size).unwrap_or(0)];
        if self.fill(&mut payload, &mut fds)?.is_none() {
            let source = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(Error::system("receiving a payload", source));
        }
        Ok(Some(Message { request, flags, payload, fds }))
    }

    fn fill(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<Option<()>, Error> {
        let mut rest = buffer;
        while !rest.is_empty() {
            let mut control = nix::cmsg_space!([RawFd; 8]);
            let mut iov = [IoSliceMut::new(rest)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = recvmsg::<()>(self.0.as_raw_fd(), &mut iov, Some(&mut control), flags)
                .map_err(|errno| Error::system("receiving a message", errno))?;
            let len = message.bytes;
            let received =
                message.cmsgs().map_err(|errno| Error::system("receiving descriptors", errno))?;
            for control in received {
                if let ControlMessageOwned::ScmRights(raw) = control {
                    // SAFETY: the kernel has just made these descriptors for us alone.
                    fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            if len == 0 {
                return Ok(None);
            }
            rest = rest.get_mut(len..).unwrap_or_default();
        }
        Ok(Some(()))
    }
}
