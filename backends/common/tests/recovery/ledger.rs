//! The device process: a ledger. A request is a number of four bytes, which it appends to a file.
//! It has several of them in flight, and completes the newest first.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use atoll_backend::{
    Args, Capabilities, Chain, ConfigRefused, Device, DeviceError, Identity, Vring, VringError,
    Wait, Worker, run,
};

/// Names the directory in which a device process has its socket and its file.
pub(crate) const DIRECTORY: &str = "ATOLL_LEDGER";

/// How many requests are in flight together.
const TOGETHER: usize = 4;

pub(crate) fn socket(dir: &Path) -> PathBuf {
    dir.join("socket")
}

pub(crate) fn file(dir: &Path) -> PathBuf {
    dir.join("ledger")
}

/// Serves until the process is ended, in one way or the other.
pub(crate) fn serve(dir: &Path) {
    // The test's own threads run already, and a sandbox wants to be first.
    let args = Args { socket_path: Some(socket(dir)), no_sandbox: true, ..Args::default() };
    let file = file(dir);
    run(&args, Capabilities { device_type: "ledger", features: &[] }, |_| Ok(Ledger { file }));
}

struct Ledger {
    file: PathBuf,
}

impl Device for Ledger {
    fn identity(&self) -> Identity {
        Identity { name: "ledger", device_type: 42, features: 0, queues: 1, max_queue_size: 64 }
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn write_config(&self, _offset: usize, _data: &[u8]) -> Result<(), ConfigRefused> {
        Err(ConfigRefused { field: "everything" })
    }

    fn open_queue(&self, _index: u16, _features: u64) -> Result<Box<dyn Worker>, DeviceError> {
        let file = OpenOptions::new().append(true).create(true).open(&self.file)?;
        Ok(Box::new(Clerk { file }))
    }

    fn reset(&self) {}
}

struct Clerk {
    file: File,
}

impl Worker for Clerk {
    fn serve(&mut self, vring: &mut Vring) -> Result<Wait<'_>, VringError> {
        let mut open = Vec::new();
        while let Some(chain) = vring.next()? {
            if open.len() == TOGETHER {
                // One too many. It comes again.
                vring.give_back(chain)?;
                close(vring, &mut open)?;
                continue;
            }
            self.enter(&chain)?;
            open.push(chain);
        }
        close(vring, &mut open)?;
        Ok(Wait::kick())
    }
}

impl Clerk {
    fn enter(&mut self, chain: &Chain) -> Result<(), VringError> {
        let mut number = [0; 4];
        let mut reader = chain.reader().map_err(|fault| VringError::Device(fault.into()))?;
        reader.copy_to(&mut number);
        self.file.write_all(&number).map_err(|error| VringError::Device(error.into()))
    }
}

/// Completes the newest of `open` by itself, and the others together, the newest first.
fn close(vring: &mut Vring, open: &mut Vec<Chain>) -> Result<(), VringError> {
    if let Some(newest) = open.pop() {
        vring.complete(newest, 0)?;
    }
    vring.complete_together(open.drain(..).rev().map(|chain| (chain, 0)))
}
