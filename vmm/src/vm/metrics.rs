//! What a machine has counted, and what the processes of its devices have, as one text.

use std::sync::Arc;
use std::thread;

use super::devices::Lines;
use super::error::sentence;
use crate::control::{Info, MachineState};
use crate::control_line::ControlLine;
use crate::metrics::Exposition;
use crate::vhost_user::{DeviceState, DeviceStatus};

const STATES: [DeviceState; 5] = [
    DeviceState::Connecting,
    DeviceState::Negotiated,
    DeviceState::Active,
    DeviceState::Lost,
    DeviceState::Closed,
];

/// The metrics of the machine `info` with `devices`, whose processes are asked over `lines`, all at the
/// same time: one that hangs costs its own deadline and no other's.
pub(super) fn text(info: &Info, devices: &[DeviceStatus], lines: &Lines) -> String {
    let mut all = Exposition::default();
    machine(&mut all, info);
    for device in devices {
        state(&mut all, device);
    }
    let answers: Vec<_> = thread::scope(|scope| {
        let ask = |(id, line)| {
            let line: &Arc<ControlLine> = line;
            let asked = thread::Builder::new().spawn_scoped(scope, || line.metrics());
            (id, asked)
        };
        let asked: Vec<_> = lines.iter().map(ask).collect();
        let answer = |(id, asked): (_, std::io::Result<thread::ScopedJoinHandle<'_, _>>)| {
            // Without a thread, or with one that panicked, there is no answer.
            Some((id, asked.ok()?.join().ok()?))
        };
        asked.into_iter().filter_map(answer).collect()
    });
    for (id, answer) in answers {
        let taken = match answer {
            Ok(said) => all.absorb(id, &said).map_err(|error| sentence(&error)),
            Err(error) => Err(sentence(&error)),
        };
        if let Err(why) = &taken {
            tracing::info!("device {id}: no metrics: {why}");
        }
        let told = (
            "atoll_device_metrics",
            "gauge",
            "Whether the metrics of the device's process are here.",
        );
        all.add(told, &[("device", id)], u8::from(taken.is_ok()));
    }
    all.text()
}

fn machine(all: &mut Exposition, info: &Info) {
    let up = info.uptime_ms as f64 / 1000.0;
    all.add(("atoll_uptime_seconds", "gauge", "Since the VMM began."), &[], up);
    all.add(("atoll_boots_total", "counter", "Times that the guest was started."), &[], info.boots);
    let paused = u8::from(info.state == MachineState::Paused);
    all.add(("atoll_paused", "gauge", "Whether the vCPUs are held."), &[], paused);
    all.add(("atoll_vcpus", "gauge", "vCPUs of the guest."), &[], info.cpus);
    all.add(("atoll_memory_bytes", "gauge", "Memory of the guest."), &[], info.memory_bytes);
}

fn state(all: &mut Exposition, device: &DeviceStatus) {
    let id = ("device", device.id.as_str());
    for state in STATES {
        let about = ("atoll_device_state", "gauge", "1 at the state that the device is in.");
        let labels = [id, ("type", device.r#type), ("state", &state.to_string())];
        all.add(about, &labels, u8::from(device.state == state));
    }
    let recoveries =
        ("atoll_device_recoveries_total", "counter", "Times that a lost backend was replaced.");
    all.add(recoveries, &[id], device.recoveries);
    for queue in &device.queues {
        let index = queue.index.to_string();
        let depth = ("atoll_device_queue_depth", "gauge", "Requests that the queue has now.");
        all.add(depth, &[id, ("queue", &index)], queue.depth);
    }
}
