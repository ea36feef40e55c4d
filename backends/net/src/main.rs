//! `atoll-net`: a TAP interface, or a user-mode network, as a vhost-user network device.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use atoll_net::{CAPABILITIES, Net, Options};

fn main() -> ExitCode {
    let options: Options = match atoll_backend::parse() {
        Ok(options) => options,
        Err(code) => return code,
    };
    let (kept, peer) = match &options.stream {
        _ if options.keep_passt => (atoll_net::keep_passt(&options.hostfwd), "passt running"),
        Some(path) if options.keep_stream => (atoll_net::keep_stream(path), "a socket connected"),
        _ => return serve(&options),
    };
    match kept {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("atoll-net: cannot keep {peer}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> ExitCode {
    atoll_backend::run(&options.backend, CAPABILITIES, |config_change| {
        Net::open(options, config_change).map_err(Into::into)
    })
}
