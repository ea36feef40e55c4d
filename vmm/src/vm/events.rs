//! What happens to a running machine from outside and inside, as one stream for the main thread.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::controls::Controls;
use super::devices::{Devices, Remotes};
use super::error::VmError;
use super::machine::Machine;
use super::signals;
use crate::vcpu::{Exit, Exits};

/// One thing that happened.
pub(super) enum Event {
    /// The guest ended.
    Guest(Exit),
    /// Somebody wants the machine to end.
    Signal(Signal),
    /// A backend of ours may have ended.
    Child,
    /// Somebody presses the guest's power button.
    PowerButton,
    /// A device's policy ends the machine, for this reason.
    DeviceStop(String),
    /// Every device has its backend, or one can't.
    Connected(Box<Result<Remotes, VmError>>),
}

/// How a boot ended.
pub(super) enum End {
    /// By the guest's doing.
    Guest(Exit),
    /// By a signal, and why not sooner.
    Stopped(&'static str),
    /// By a device's policy.
    Device(VmError),
}

/// The stream of events.
pub(super) struct Events {
    sender: Sender<Event>,
    receiver: Receiver<Event>,
}

impl Events {
    /// Starts to watch for signals.
    pub(super) fn watch() -> Result<Self, VmError> {
        let (sender, receiver) = channel();
        let signalled = sender.clone();
        signals::watch(move |signal| {
            let event = match signal {
                Signal::SIGCHLD => Event::Child,
                signal => Event::Signal(signal),
            };
            // Fails only when the main thread is past caring.
            let _ended = signalled.send(event);
        })
        .map_err(|source| VmError::System { doing: "watch for signals", source })?;
        Ok(Self { sender, receiver })
    }

    /// Where other threads send events.
    pub(super) fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// Where one boot's vCPUs and devices report its end.
    pub(super) fn exits(&self) -> Exits {
        let sender = self.sender.clone();
        Exits::new(move |exit| {
            let _ended = sender.send(Event::Guest(exit));
        })
    }

    /// Waits until every device is there. `None` when a signal came first, or the user at the terminal
    /// left.
    pub(super) fn wait_for_devices(
        &self,
        has_left: impl Fn() -> bool,
    ) -> Option<Result<Remotes, VmError>> {
        loop {
            match self.receiver.recv() {
                Ok(Event::Connected(result)) => return Some(*result),
                Ok(Event::Signal(_)) | Err(_) => return None,
                Ok(Event::DeviceStop(why)) => return Some(Err(VmError::DeviceStop(why))),
                Ok(Event::Child) if has_left() => return None,
                Ok(Event::Child | Event::PowerButton | Event::Guest(_)) => {}
            }
        }
    }

    /// Waits for the end of a boot. The first signal presses the power button; a second one, or
    /// `grace` after the first, ends the boot at once.
    pub(super) fn wait_for_end(
        &self,
        machine: &Machine,
        grace: Option<Duration>,
        controls: &Controls,
        devices: &Devices,
    ) -> End {
        let mut pressed = false;
        let mut deadline: Option<Instant> = None;
        loop {
            let event = match deadline {
                None => self.receiver.recv().map_err(|_ended| RecvTimeoutError::Disconnected),
                Some(deadline) => {
                    self.receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()))
                }
            };
            let event = match event {
                Ok(Event::Child) => match devices.user_left() {
                    // By the keys that are there for it, as Ctrl-C is the guest's.
                    true => Ok(Event::Signal(Signal::SIGINT)),
                    false => continue,
                },
                other => other,
            };
            match event {
                Ok(Event::Guest(exit)) => return End::Guest(exit),
                Ok(Event::Signal(signal)) if !pressed => {
                    tracing::info!("{signal}: pressing the guest's power button");
                    controls.pressed(signal.as_str());
                    machine.press_power_button();
                    pressed = true;
                    deadline = grace.and_then(|grace| Instant::now().checked_add(grace));
                }
                Ok(Event::Signal(_)) => return End::Stopped("by a second signal"),
                Ok(Event::PowerButton) => {
                    controls.pressed("the user");
                    machine.press_power_button();
                }
                Ok(Event::DeviceStop(why)) => return End::Device(VmError::DeviceStop(why)),
                Ok(Event::Child | Event::Connected(_)) => {}
                Err(RecvTimeoutError::Timeout) => return End::Stopped("when --grace had passed"),
                // Never, as `self` holds a sender.
                Err(RecvTimeoutError::Disconnected) => return End::Stopped("without a cause"),
            }
        }
    }
}
