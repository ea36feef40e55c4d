//! `atoll-console`: a terminal, pty, socket or file as a vhost-user console.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use atoll_console::{CAPABILITIES, Console, Options, exit_code};

fn main() -> ExitCode {
    let options: Options = match atoll_backend::parse() {
        Ok(options) => options,
        Err(code) => return code,
    };
    exit_code(atoll_backend::run(&options.backend, CAPABILITIES, |config_change| {
        Console::open(&options, config_change).map_err(Into::into)
    }))
}
