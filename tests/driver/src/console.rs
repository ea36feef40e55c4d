//! A console's driver: it prints, and takes what is typed. It knows no ports but the console itself.

use std::path::Path;

use crate::{Buffer, EVENT_IDX, Error, FrontEnd, Memory, Queue, TIMEOUT, VERSION_1};

/// virtio 1.3 §5.3.2
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// virtio 1.3 §5.3.3: the window's size is in the configuration.
const F_SIZE: u64 = 1 << 0;

/// The guest's side of a console.
pub struct ConsoleGuest {
    /// The connection, for what is not done here.
    pub device: FrontEnd,
    receive: Queue,
    transmit: Queue,
    /// The length of a buffer.
    buffer: usize,
    /// Addresses of transmit buffers that are free.
    free: Vec<u64>,
    /// Addresses of the outstanding buffers of each queue, by head.
    printing: Vec<(u16, u64)>,
    posted: Vec<(u16, u64)>,
}

impl ConsoleGuest {
    /// Connects to the process that serves `socket`, with `count` buffers of `buffer` bytes each way.
    ///
    /// # Errors
    /// [`Error::Exchange`] with the message that failed.
    pub fn attach(socket: &Path, buffer: usize, count: u16) -> Result<Self, Error> {
        let room = buffer.next_power_of_two() as u64 * u64::from(count) * 2;
        let mut device = FrontEnd::connect(socket, Memory::new(room + (1 << 20))?)?;
        device.negotiate(VERSION_1 | EVENT_IDX | F_SIZE)?;
        let size = count.next_power_of_two();
        let receive = device.start_queue(RECEIVE, size)?;
        let transmit = device.start_queue(TRANSMIT, size)?;
        let buffers = || (0..count).map(|_| device.memory().allocate(buffer, 1));
        let free = buffers().collect::<Result<Vec<_>, _>>()?;
        let posts = buffers().collect::<Result<Vec<_>, _>>()?;
        let (printing, posted) = (Vec::new(), Vec::new());
        let mut guest = Self { device, receive, transmit, buffer, free, printing, posted };
        posts.into_iter().try_for_each(|address| guest.post(address))?;
        guest.receive.publish()?;
        Ok(guest)
    }

    fn post(&mut self, address: u64) -> Result<(), Error> {
        let head = self.receive.add(&[Buffer::writable(address, self.buffer as u32)])?;
        self.posted.push((head, address));
        Ok(())
    }

    /// Prints `bytes`, and waits until the device has taken them all.
    ///
    /// # Errors
    /// [`Error::Silent`] when it does not.
    pub fn print(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for piece in bytes.chunks(self.buffer) {
            let address = match self.free.pop() {
                Some(address) => address,
                None => {
                    self.transmit.publish()?;
                    self.reap()?
                }
            };
            self.device.memory().write(address, piece)?;
            let head = self.transmit.add(&[Buffer::readable(address, piece.len() as u32)])?;
            self.printing.push((head, address));
        }
        self.transmit.publish()?;
        while !self.printing.is_empty() {
            let address = self.reap()?;
            self.free.push(address);
        }
        Ok(())
    }

    fn reap(&mut self) -> Result<u64, Error> {
        let used = self.transmit.wait(TIMEOUT)?;
        Ok(take(&mut self.printing, used.head))
    }

    /// Reads until `len` bytes were typed.
    ///
    /// # Errors
    /// [`Error::Silent`] when they are not.
    pub fn read(&mut self, len: usize) -> Result<Vec<u8>, Error> {
        let mut typed = Vec::with_capacity(len);
        while typed.len() < len {
            let used = self.receive.wait(TIMEOUT)?;
            let address = take(&mut self.posted, used.head);
            typed.extend(self.device.memory().get(address, used.len as usize)?);
            self.post(address)?;
            self.receive.publish()?;
        }
        Ok(typed)
    }

    /// Columns and rows, as the driver reads them.
    ///
    /// # Errors
    /// [`Error::Exchange`].
    pub fn size(&mut self) -> Result<(u16, u16), Error> {
        let config = self.device.config(0, 4)?;
        let field = |at: usize| {
            let bytes = config.get(at..).and_then(|rest| rest.first_chunk());
            u16::from_le_bytes(bytes.copied().unwrap_or_default())
        };
        Ok((field(0), field(2)))
    }
}

/// The address that went out as `head`; a device that returns another is found out by what it says.
fn take(outstanding: &mut Vec<(u16, u64)>, head: u16) -> u64 {
    let at = outstanding.iter().position(|&(known, _)| known == head).unwrap_or(0);
    outstanding.swap_remove(at).1
}
