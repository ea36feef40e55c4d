//! From `main` to the exit code: the order in which a device process comes up and goes down.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use sd_notify::NotifyState;
use tap::TapFallible;

use crate::args::{Args, Capabilities, WRONG_USAGE, program_name};
use crate::back_channel::ConfigChange;
use crate::device::{Device, DeviceError};
use crate::error::Because;
use crate::listen::{Endpoint, ListenError};
use crate::metrics::Metrics;
use crate::sandbox::{self, SandboxError, trespass};
use crate::signals::EndRequest;
use crate::{control, logging, lost_memory, preemption, serve, service};

/// Why a device process ends before it was asked to.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("cannot serve the front-end")]
    Serve(#[source] io::Error),
    #[error("cannot serve the control socket")]
    Control(#[source] io::Error),
    #[error("cannot print the capabilities")]
    Print(#[source] io::Error),
}

/// Runs a device process to its end and returns its exit code: 0 when it was asked to end, or its
/// only front-end left; 1 when something failed, which is then said on standard error; 2 when the
/// command line was wrong.
///
/// `open` makes the device. It keeps the [`ConfigChange`] if its configuration may change.
pub fn run<D: Device>(
    args: &Args,
    capabilities: Capabilities,
    open: impl FnOnce(ConfigChange) -> Result<D, DeviceError>,
) -> ExitCode {
    logging::init();
    let result = if args.print_capabilities { print(capabilities) } else { run_device(args, open) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {}", program_name(), Because(&error));
            match error {
                RunError::Listen(error) if error.is_wrong_usage() => ExitCode::from(WRONG_USAGE),
                RunError::Sandbox(error) if error.is_wrong_usage() => ExitCode::from(WRONG_USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run_device<D: Device>(
    args: &Args,
    open: impl FnOnce(ConfigChange) -> Result<D, DeviceError>,
) -> Result<(), RunError> {
    sandbox::check(args)?;
    // A running ring takes five descriptors and what its worker opens: the usual 1024 would not do for
    // all queues that a device can have. The sandbox allows to look at limits only. Who has few queues
    // needs no more.
    let _few = rlimit::increase_nofile_limit(u64::MAX)
        .tap_err(|error| tracing::debug!("the limit of open files stays as it is: {error}"));
    // Before any thread, so that all threads leave the signals to one.
    let end = EndRequest::listen().map_err(RunError::Signals)?;
    lost_memory::survive().map_err(RunError::Signals)?;
    // Before the socket, so that who finds a socket finds a device behind it.
    let config_change = ConfigChange::default();
    let device: Arc<dyn Device> = Arc::new(open(config_change.clone())?);
    let endpoint = Endpoint::open(args)?;
    let control = Endpoint::control(args)?;
    service::connect();
    let (mut needed, pairs) = (device.system_calls(), device.pairs_queues());
    if pairs {
        needed.extend(preemption::system_calls());
    }
    sandbox::enter(args, needed)?;
    if pairs {
        preemption::rehearse();
    }
    // Here the only thread begins to have others.
    end.watch().map_err(RunError::Signals)?;
    device.start()?;
    // Nothing is counted where nobody can ask.
    let (metrics, _control) = match control {
        Some(control) => {
            let metrics = Arc::new(Metrics::new(device.identity().queues));
            let started = control::start(control, Arc::clone(&device), Arc::clone(&metrics));
            (Some(metrics), Some(started.map_err(RunError::Control)?))
        }
        None => (None, None),
    };
    let serve = |connection| {
        let served = serve::serve(&device, metrics.as_ref(), connection, &config_change, &end);
        served.map_err(RunError::Serve)
    };
    trespass::attempt();
    service::notify(&NotifyState::Ready);
    match endpoint {
        Endpoint::Connected(connection) => serve(connection),
        Endpoint::Listening(listener) => {
            while let Some(connection) = listener.accept(&end)? {
                serve(connection)?;
                if args.once {
                    break;
                }
            }
            Ok(())
        }
    }
}

fn print(capabilities: Capabilities) -> Result<(), RunError> {
    let failed = |error| RunError::Print(error);
    let json = serde_json::to_string_pretty(&capabilities).map_err(io::Error::from);
    writeln!(io::stdout(), "{}", json.map_err(failed)?).map_err(failed)
}
