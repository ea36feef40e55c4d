//! How fast a device may be: keys such as `bps=100M`, of a disk or a network card.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::Size;
use crate::control_line::{Limits, limit_name, lone_burst};

/// Reads limits from what a section has besides its own keys. A limit has a key of its name, with a
/// hyphen where the name has an underscore.
pub(super) fn limits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Limits, D::Error> {
    let mut limits = Limits::new();
    for (key, Size(value)) in BTreeMap::<String, Size>::deserialize(deserializer)? {
        let name = limit_name(&key.replace('-', "_"));
        let name = name.ok_or_else(|| D::Error::custom(format!("there is no key `{key}`")))?;
        limits.insert(name, value);
    }
    match lone_burst(&limits) {
        None => Ok(limits),
        Some((limit, burst)) => {
            let [limit, burst] = [limit, burst].map(|name| name.replace('_', "-"));
            Err(D::Error::custom(format!(
                "{burst} says how far above {limit} the device may go, and there is no {limit}"
            )))
        }
    }
}
