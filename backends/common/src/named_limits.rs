//! Limits by the names that users know, as JSON says them. What they do is the limiters'.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![warn(clippy::panic, clippy::unreachable)]

use std::collections::BTreeMap;

use crate::limits::{LimitChange, LimitError, Limits};
use crate::panel::Limited;

/// Limits by their names; zero stands for none.
pub(crate) type NamedLimits = BTreeMap<String, u64>;

/// The limits don't change.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unchanged {
    #[error("limits are numbers named {names}: {source}")]
    Body { names: String, source: serde_json::Error },
    #[error("a {device} device has no limits")]
    NoLimits { device: String },
    #[error("a {device} device has no limit `{name}`, only {names}")]
    Unknown { device: String, name: String, names: String },
    #[error("{burst} says how far above {limit} it may go, and there is no {limit}")]
    BurstAlone { burst: String, limit: String },
}

impl Limited<'_> {
    /// The names of bytes, their burst, operations and their burst.
    fn names(&self) -> [String; 4] {
        let (bytes, operations) = (format!("{}bps", self.prefix), [self.prefix, self.operations]);
        let operations = operations.concat();
        let bursts = [&bytes, &operations].map(|name| format!("{name}_burst"));
        let [bytes_burst, operations_burst] = bursts;
        [bytes, bytes_burst, operations, operations_burst]
    }

    fn read(&self) -> [u64; 4] {
        let Limits { bps, bps_burst, iops, iops_burst } = self.limiter.limits();
        [bps, bps_burst, iops, iops_burst]
    }
}

/// Those that apply.
pub(crate) fn read(limited: &[Limited<'_>]) -> NamedLimits {
    limited.iter().flat_map(|one| one.names().into_iter().zip(one.read())).collect()
}

/// Changes those that are in `body`, all of them or none; returns all that apply.
pub(crate) fn change(
    device: &str,
    limited: &[Limited<'_>],
    body: &[u8],
) -> Result<NamedLimits, Unchanged> {
    if limited.is_empty() {
        return Err(Unchanged::NoLimits { device: device.to_owned() });
    }
    let names = || limited.iter().flat_map(Limited::names).collect::<Vec<_>>().join(", ");
    let mut asked: NamedLimits = serde_json::from_slice(body)
        .map_err(|source| Unchanged::Body { names: names(), source })?;
    let mut changes = Vec::new();
    for one in limited {
        let names = one.names();
        let [bps, bps_burst, iops, iops_burst] = names.each_ref().map(|name| asked.remove(name));
        let change = LimitChange { bps, bps_burst, iops, iops_burst };
        let [bytes, bytes_burst, operations, operations_burst] = names;
        let after = one.limiter.limits().changed(change).map_err(|error| match error {
            LimitError::Bytes => Unchanged::BurstAlone { burst: bytes_burst, limit: bytes },
            LimitError::Operations => {
                Unchanged::BurstAlone { burst: operations_burst, limit: operations }
            }
        })?;
        changes.push((one, change, after));
    }
    if let Some((name, _)) = asked.pop_first() {
        return Err(Unchanged::Unknown { device: device.to_owned(), name, names: names() });
    }
    for (one, change, after) in changes {
        // A bucket that is not asked for keeps its debts.
        if change != LimitChange::default() {
            one.limiter.set(after);
        }
    }
    Ok(read(limited))
}

#[cfg(test)]
#[path = "named_limits_test.rs"]
mod tests;
