//! `atoll-blk`: a disk image as a vhost-user block device.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use atoll_blk::{Block, CAPABILITIES, Options};

fn main() -> ExitCode {
    let options: Options = match atoll_backend::parse() {
        Ok(options) => options,
        Err(code) => return code,
    };
    // A disk's configuration does not change while it is served, so nothing is ever announced.
    atoll_backend::run(&options.backend, CAPABILITIES, |_config_change| {
        Block::open(&options).map_err(Into::into)
    })
}
