use super::*;

fn event() -> Option<Arc<File>> {
    Some(Arc::new(tempfile::tempfile().unwrap()))
}

fn complete() -> QueueSetup {
    let addresses = RingAddresses { descriptors: 1, avail: 2, used: 3 };
    QueueSetup {
        size: Some(64),
        addresses: Some(addresses),
        base: 7,
        kick: event(),
        enabled: true,
        ..QueueSetup::default()
    }
}

#[test]
fn a_ring_runs_once_everything_is_known_and_it_is_enabled() {
    assert!(complete().runnable().is_some_and(|ring| ring.size == 64));
    assert!(QueueSetup::default().runnable().is_none());
    assert!(QueueSetup { size: None, ..complete() }.runnable().is_none());
    assert!(QueueSetup { addresses: None, ..complete() }.runnable().is_none());
    assert!(QueueSetup { kick: None, ..complete() }.runnable().is_none());
    assert!(QueueSetup { enabled: false, ..complete() }.runnable().is_none());
}

#[test]
fn a_broken_ring_runs_again_only_after_a_stop() {
    let mut setup = QueueSetup { broken: true, ..complete() };
    assert!(setup.runnable().is_none());
    assert_eq!(setup.stop(), 7);
    setup.kick = event();
    assert!(setup.runnable().is_some());
}

#[test]
fn a_stopped_ring_waits_for_its_next_kick_descriptor() {
    let mut setup = QueueSetup { call: event(), ..complete() };
    setup.stop();
    assert!(setup.runnable().is_none());
    assert!(setup.call.is_none());
}
