//! The ports' control as threads share it: who has to do something next is woken. What the messages
//! mean is not known here.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::control::{Control, HEADER};
use crate::window::Size;

/// Control of all ports; clones are the same.
#[derive(Clone)]
pub(crate) struct Ports {
    control: Arc<Mutex<Control>>,
    /// Readable while messages may be due.
    due: Arc<EventFd>,
    /// Readable while the port is open in the guest; by port.
    open: Arc<[EventFd]>,
}

/// One port's gate to the guest.
#[derive(Clone)]
pub(crate) struct Gate {
    ports: Ports,
    id: usize,
}

impl Ports {
    pub(crate) fn new(names: impl ExactSizeIterator<Item = String>) -> Result<Self, Errno> {
        let event = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let count = names.len().saturating_add(1);
        Ok(Self {
            control: Arc::new(Mutex::new(Control::new(names))),
            due: Arc::new(event()?),
            open: std::iter::repeat_with(event).take(count).collect::<Result<_, _>>()?,
        })
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the control, and lets the descriptors say what has become of it.
    fn change<T>(&self, change: impl FnOnce(&mut Control) -> T) -> T {
        let mut control = self.control();
        let result = change(&mut control);
        // While nobody else can change it again.
        for (id, open) in self.open.iter().enumerate() {
            set(open, control.is_open(id));
        }
        set(&self.due, control.is_due());
        result
    }

    pub(crate) fn reset(&self) {
        self.change(Control::reset);
    }

    pub(crate) fn resume(&self) {
        self.change(Control::resume);
    }

    pub(crate) fn take(&self, message: [u8; HEADER]) -> bool {
        self.change(|control| control.take(message))
    }

    pub(crate) fn attached(&self, id: usize, attached: bool) {
        self.change(|control| control.attached(id, attached));
    }

    pub(crate) fn resized(&self, size: Size) {
        self.change(|control| control.resized(size));
    }

    /// The message that is due next.
    pub(crate) fn next(&self) -> Option<Vec<u8>> {
        self.change(Control::next)
    }

    /// Readable while messages may be due.
    pub(crate) fn due(&self) -> BorrowedFd<'_> {
        self.due.as_fd()
    }

    /// The gate of port `id`.
    pub(crate) fn gate(&self, id: usize) -> Gate {
        Gate { ports: self.clone(), id }
    }
}

impl Gate {
    /// What becomes readable when the guest opens the port, if it is not open now.
    pub(crate) fn closed(&self) -> Option<BorrowedFd<'_>> {
        let open = self.ports.control().is_open(self.id);
        self.ports.open.get(self.id).filter(|_| !open).map(AsFd::as_fd)
    }
}

/// Makes an eventfd readable, or not.
fn set(event: &EventFd, readable: bool) {
    // One fails when the counter is full, the other when it is empty: as wanted.
    if readable {
        let _full = event.write(1);
    } else {
        let _empty = event.read();
    }
}
