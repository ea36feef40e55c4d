//! A connection, against a back-end that does everything right and against those that don't.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test, as it should")]

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::super::STOP_DEADLINE;
use super::super::test_doubles::{EVERY_WRONG, Obedient, Wrong, activation, misbehave, start};
use super::*;

fn blk() -> DeviceType {
    DeviceType::by_name("blk").unwrap()
}

struct Rig {
    session: Option<Session>,
    found: Found,
    backend: Arc<Mutex<Obedient>>,
    thread: Option<JoinHandle<()>>,
}

fn rig(obedient: Obedient) -> Rig {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (backend, thread) = obedient.serve(theirs);
    let (session, found) = Session::open("disk0", ours, blk()).unwrap();
    Rig { session: Some(session), found, backend, thread: Some(thread) }
}

impl Rig {
    fn session(&mut self) -> &mut Session {
        self.session.as_mut().unwrap()
    }

    /// Hangs up and answers what the back-end was told.
    fn log(mut self) -> Vec<String> {
        self.session = None;
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut self.backend.lock().unwrap().log)
    }
}

#[test]
fn the_handshake_finds_out_what_there_is() {
    let rig = rig(Obedient::new(2));
    assert_eq!(rig.found.features, 1 << 32 | 1 << 29 | 1 << 12 | 1 << 9);
    assert_eq!(rig.found.queues, Some(2));
    assert_eq!(rig.found.config.as_ref().unwrap().len(), 36);
    // MQ, REPLY_ACK, BACKEND_REQ, CONFIG and INFLIGHT_SHMFD.
    assert_eq!(rig.log(), ["owner", "protocol 0x1229"]);
}

#[test]
fn rings_may_be_stopped_with_requests_in_flight_where_these_are_recorded() {
    for (records, accepted) in [(true, "protocol 0x101229"), (false, "protocol 0x229")] {
        let mut obedient = Obedient::new(2);
        obedient.protocol |= Protocol::GET_VRING_BASE_INFLIGHT;
        obedient.protocol.set(Protocol::INFLIGHT_SHMFD, records);
        assert_eq!(rig(obedient).log(), ["owner", accepted]);
    }
}

#[test]
fn a_plain_back_end_is_driven_without_the_extensions() {
    let mut obedient = Obedient::new(2);
    obedient.features &= !PROTOCOL_FEATURES;
    let mut rig = rig(obedient);
    assert_eq!((rig.found.queues, rig.found.config.clone()), (None, None));
    start(rig.session()).unwrap();
    rig.session().stop(&activation().rings).unwrap();
    assert_eq!(rig.session().read_config(4).unwrap(), [0; 4]);
    let log = rig.log();
    assert!(log.contains(&"features 0x100000000".to_owned()), "{log:?}");
    assert!(!log.iter().any(|line| line.starts_with("enable")), "{log:?}");
}

#[test]
fn configuration_is_read_and_written() {
    let mut rig = rig(Obedient::new(2));
    rig.session().write_config(32, &[1, 2]).unwrap();
    let config = rig.session().read_config(36).unwrap();
    assert_eq!(config[32..], [1, 2, 2, 0]);
    assert!(rig.log().contains(&"config 32 [1, 2]".to_owned()));
}

#[test]
fn a_refused_configuration_write_is_told_apart() {
    let mut obedient = Obedient::new(2);
    obedient.read_only = true;
    let mut rig = rig(obedient);
    let error = rig.session().write_config(0, &[1]).unwrap_err();
    assert!(matches!(error, VhostUserError::Refused { request: FrontendReq::SET_CONFIG, .. }));
}

#[test]
fn too_little_configuration_space_is_another_type() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut obedient = Obedient::new(2);
    obedient.config.truncate(12);
    let (_backend, _thread) = obedient.serve(theirs);
    let error = Session::open("disk0", ours, blk()).err().unwrap();
    assert!(
        matches!(error, VhostUserError::OtherType { .. } | VhostUserError::Closed { .. }),
        "{error}"
    );
}

/// A session with a channel whose other end is here.
fn with_channel(obedient: Obedient) -> (Rig, Wire) {
    let mut rig = rig(obedient);
    let (back, theirs) = BackChannel::new().unwrap();
    rig.session().back = Some(back);
    (rig, Wire::new(theirs).unwrap())
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[test]
fn a_back_end_that_asks_first_is_answered_first() {
    let (mut rig, channel) = with_channel(Obedient::new(2));
    let lock = Arc::clone(&rig.backend);
    let (begun, begin) = std::sync::mpsc::channel();
    let asking = std::thread::spawn(move || {
        // It replies to nothing before it has its answer.
        let _held = lock.lock().unwrap();
        begun.send(()).unwrap();
        channel.send(2, FLAG_NEED_REPLY, &[], &[], later()).unwrap();
        channel.receive(later()).unwrap()
    });
    begin.recv().unwrap();
    rig.session().read_config(36).unwrap();
    let answer = asking.join().unwrap();
    assert_eq!((answer.request, answer.body), (2, vec![0; 8]));
    assert!(rig.session().take_config_changed());
    assert!(!rig.session().take_config_changed());
}

#[test]
fn what_is_not_served_on_the_back_channel_is_refused_there() {
    let (mut rig, channel) = with_channel(Obedient::new(2));
    for request in [1, 3, 9, 77, u32::MAX] {
        channel.send(request, FLAG_NEED_REPLY, &[0; 16], &[], later()).unwrap();
        rig.session().serve_back();
        let answer = channel.receive(later()).unwrap();
        assert_ne!(answer.body, [0; 8], "{request}");
    }
    assert!(!rig.session().take_config_changed());
}

#[test]
fn garbage_on_the_back_channel_closes_only_that() {
    let (mut rig, channel) = with_channel(Obedient::new(2));
    channel.send(2, 3, &[], &[], later()).unwrap();
    rig.session().serve_back();
    assert!(rig.session().back().is_none());
    rig.session().read_config(36).unwrap();
}

/// Opens, starts and stops against a back-end that goes wrong at its `nth` reply. None once it has
/// no such reply to give.
fn play(nth: usize, wrong: Wrong) -> Option<VhostUserError> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let backend = misbehave(theirs, nth, wrong);
    let result = Session::open("disk0", ours, blk()).and_then(|(mut session, _)| {
        start(&mut session)?;
        session.stop(&activation().rings).map(drop)
    });
    let replies = backend.join().unwrap();
    match result {
        Ok(()) => {
            assert!(replies <= nth, "{wrong:?} at {nth} went unnoticed");
            None
        }
        Err(error) => Some(error),
    }
}

#[test]
fn whatever_goes_wrong_at_any_step_is_an_error_within_the_deadline() {
    let patience = REPLY_DEADLINE + STOP_DEADLINE + Duration::from_secs(1);
    std::thread::scope(|scope| {
        for wrong in EVERY_WRONG {
            scope.spawn(move || {
                let mut steps = 0;
                loop {
                    let start = Instant::now();
                    let Some(error) = play(steps, wrong) else { break };
                    assert!(start.elapsed() < patience, "{wrong:?} at {steps}: too late");
                    let fits = match wrong {
                        Wrong::Close => matches!(error, VhostUserError::Closed { .. }),
                        Wrong::Silence | Wrong::HalfHeader | Wrong::HalfBody => {
                            matches!(error, VhostUserError::NoAnswer { .. })
                        }
                        Wrong::Empty | Wrong::OtherSize => matches!(
                            error,
                            VhostUserError::Garbage { .. } | VhostUserError::OtherType { .. }
                        ),
                        _ => matches!(error, VhostUserError::Garbage { .. }),
                    };
                    assert!(fits, "{wrong:?} at {steps}: {}", error.sentence());
                    steps += 1;
                }
                assert!(steps >= 12, "{wrong:?}: only {steps} steps were seen");
            });
        }
    });
}

#[test]
fn what_is_said_unasked_ends_the_connection() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut session = Session {
        id: "disk0".into(),
        wire: Wire::new(ours).unwrap(),
        back: None,
        protocol: Protocol::empty(),
        extended: false,
        config_changed: false,
        deadline: Instant::now(),
    };
    std::io::Write::write_all(&mut theirs, &super::super::test_doubles::message(1, 5, 0, &[]))
        .unwrap();
    assert!(matches!(session.unasked(), VhostUserError::Unasked(_)));
    drop(theirs);
    assert!(matches!(session.unasked(), VhostUserError::Gone));
}

#[test]
fn a_flood_on_the_back_channel_does_not_put_off_the_deadline() {
    let (mut rig, channel) = with_channel(Obedient::new(2));
    let held = Arc::clone(&rig.backend);
    let held = held.lock().unwrap();
    let flood = std::thread::spawn(move || while channel.send(2, 0, &[], &[], later()).is_ok() {});
    let begun = Instant::now();
    let error = rig.session().read_config(36).unwrap_err();
    assert!(matches!(error, VhostUserError::NoAnswer { .. }), "{error}");
    assert!(begun.elapsed() < REPLY_DEADLINE * 4);
    drop(held);
    rig.session = None;
    flood.join().unwrap();
}
