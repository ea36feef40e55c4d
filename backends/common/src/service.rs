//! What a service manager is told of this process (sd_notify(3)), where one wants to know.

use sd_notify::NotifyState;

/// Says that this process is ready, or is about to end.
pub(crate) fn notify(state: &NotifyState<'_>) {
    // It does nothing without a service manager, and what it can't tell it can't tell.
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!("the service manager does not hear {state}: {error}");
    }
}
