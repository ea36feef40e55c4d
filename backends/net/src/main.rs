//! `atoll-net`: a TAP interface, or a user-mode network, as a vhost-user network device.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use atoll_net::{CAPABILITIES, Net, Options};

fn main() -> ExitCode {
    let options: Options = match atoll_backend::parse() {
        Ok(options) => options,
        Err(code) => return code,
    };
    if options.keep_passt {
        return match atoll_net::keep_passt(&options.hostfwd) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("atoll-net: cannot keep passt running: {error}");
                ExitCode::FAILURE
            }
        };
    }
    atoll_backend::run(&options.backend, CAPABILITIES, |config_change| {
        Net::open(&options, config_change).map_err(Into::into)
    })
}
