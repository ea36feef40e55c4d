//! `atoll-blk`: a disk image as a vhost-user block device.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use atoll_blk::{Block, CAPABILITIES, Options};

fn main() -> ExitCode {
    let options: Options = match atoll_backend::parse() {
        Ok(options) => options,
        Err(code) => return code,
    };
    atoll_backend::run(&options.backend, CAPABILITIES, |config_change| {
        Block::open(&options, config_change).map_err(Into::into)
    })
}
