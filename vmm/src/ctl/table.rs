//! A machine's answers for people. What is missing in an answer, of a younger or an older machine,
//! is left out.

use serde_json::Value;

use crate::config::Size;

/// `vm.info`.
pub(super) fn info(info: &Value) -> String {
    let held = list(info, "paused_by");
    let state = match held.as_str() {
        "" => text(info, "state"),
        held => format!("{} (by {held})", text(info, "state")),
    };
    let memory = info.get("memory_bytes").and_then(Value::as_u64).unwrap_or_default();
    let rows = [
        ("state", state),
        ("vCPUs", text(info, "cpus")),
        ("memory", format!("{} MiB", memory >> 20)),
        ("kernel", text(info, "kernel")),
        ("devices", text(info, "devices")),
        ("boots", text(info, "boots")),
        ("up for", duration(info.get("uptime_ms"))),
        ("process", format!("atoll {}, pid {}", text(info, "version"), text(info, "pid"))),
    ];
    rows.iter().map(|(name, value)| format!("{name:<9}{value}\n")).collect()
}

/// A device's limits.
pub(super) fn limits(limits: &Value) -> String {
    let rows = limits.as_object().into_iter().flatten().map(|(name, value)| {
        let value = match (value.as_u64(), name.ends_with("_burst")) {
            (Some(0), false) => "off".to_owned(),
            // Nothing may go above what has no limit.
            (Some(0), true) => "-".to_owned(),
            _ => value.to_string(),
        };
        format!("{:<13} {value}\n", name.replace('_', "-"))
    });
    rows.collect()
}

/// A device's size, after it was changed.
pub(super) fn size(id: &str, now: &Value) -> String {
    let size = now.get("size").and_then(Value::as_u64).unwrap_or_default();
    format!("device {id} has {} now ({size} bytes)\n", Size(size))
}

/// Whether a device's cable is plugged in, after that was changed.
pub(super) fn link(id: &str, now: &Value) -> String {
    let up = now.get("up").and_then(Value::as_bool).unwrap_or_default();
    format!("device {id}: its cable is {}\n", if up { "plugged in" } else { "pulled" })
}

/// `devices`.
pub(super) fn devices(devices: &Value) -> String {
    let heads =
        ["ID", "TYPE", "STATE", "BACKEND", "POLICY", "DEPTH", "OLDEST", "OWES", "RECOVERIES"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(devices.as_array().into_iter().flatten().map(device));
    columns(&rows)
}

fn device(device: &Value) -> [String; 9] {
    let state = match device.get("lost_for_ms") {
        Some(lost) if !lost.is_null() => {
            format!("{} {}", text(device, "state"), duration(Some(lost)))
        }
        _ => text(device, "state"),
    };
    let queues: Vec<_> =
        device.get("queues").and_then(Value::as_array).into_iter().flatten().collect();
    let number = |queue: &Value, key: &str| queue.get(key).and_then(Value::as_u64).unwrap_or(0);
    let depth: u64 = queues.iter().map(|queue| number(queue, "depth")).sum();
    let oldest = queues.iter().map(|queue| number(queue, "oldest_ms")).max().unwrap_or(0);
    // Of all queues, who has been owing a step for longest.
    let owing = queues.iter().filter(|queue| text(queue, "owes") != "nobody");
    let owes = owing.max_by_key(|queue| number(queue, "oldest_ms"));
    [
        text(device, "id"),
        text(device, "type"),
        state,
        device.get("peer").map_or_else(String::new, peer),
        text(device, "policy"),
        depth.to_string(),
        if depth == 0 { "-".to_owned() } else { duration(Some(&oldest.into())) },
        owes.map_or_else(|| "nobody".to_owned(), |queue| text(queue, "owes")),
        text(device, "recoveries"),
    ]
}

fn peer(peer: &Value) -> String {
    match (text(peer, "command").as_str(), text(peer, "pid").as_str()) {
        ("", "") => text(peer, "name"),
        (command, "") => command.to_owned(),
        ("", pid) => format!("pid {pid}"),
        (command, pid) => format!("{command} ({pid})"),
    }
}

/// One of `vm.events`.
pub(super) fn event(event: &Value) -> String {
    let time = event.get("time_ms").and_then(Value::as_u64).unwrap_or_default();
    let (seconds, milliseconds) = (time / 1000, time % 1000);
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    let seconds = seconds % 60;
    let about = match text(event, "device").as_str() {
        "" => "machine".to_owned(),
        device => device.to_owned(),
    };
    let (kind, text) = (text(event, "kind"), text(event, "text"));
    format!(
        "{hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03}Z {about:<10} {kind:<14} {text}\n"
    )
}

fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => printable(text),
        Some(other) => other.to_string(),
    }
}

fn list(value: &Value, key: &str) -> String {
    let words = value.get(key).and_then(Value::as_array).into_iter().flatten();
    words.filter_map(Value::as_str).map(printable).collect::<Vec<_>>().join(", ")
}

/// Without what would drive the terminal: a backend's name is not ours.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn duration(milliseconds: Option<&Value>) -> String {
    let milliseconds = milliseconds.and_then(Value::as_u64).unwrap_or_default();
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        1000..60_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
        60_000..3_600_000 => {
            format!("{} min {} s", milliseconds / 60_000, milliseconds / 1000 % 60)
        }
        _ => format!("{} h {} min", milliseconds / 3_600_000, milliseconds / 60_000 % 60),
    }
}

/// Rows with each column as wide as its widest.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<_> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
#[path = "table_test.rs"]
mod tests;
