//! What a service manager is told: that the guest runs, and that it is over (sd_notify(3)). Nothing
//! where there is none.

use sd_notify::NotifyState;

/// The guest's vCPUs run.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The machine is about to end.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    // The guest is none the worse for a service manager that does not listen.
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("can't notify the service manager at NOTIFY_SOCKET: {error}");
    }
}
