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
    // What the guest is told of the network does not change while it is served.
    atoll_backend::run(&options.backend, CAPABILITIES, |_config_change| {
        Net::open(&options).map_err(Into::into)
    })
}
