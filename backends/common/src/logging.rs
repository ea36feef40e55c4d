//! Where log lines go: standard error, as much of them as `RUST_LOG` asks for, else warnings.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// Sets logging up, once in a process.
pub(crate) fn init() {
    let filter =
        EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env_lossy();
    let installed = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .try_init();
    if installed.is_err() {
        tracing::debug!("logging was set up before");
    }
}
