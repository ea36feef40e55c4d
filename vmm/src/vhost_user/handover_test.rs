//! What a back-end is told when it gets the rings, and when it gives them back.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::super::test_doubles::{Obedient, activation, memory, ports, start};
use super::*;
use crate::virtio::DeviceType;

struct Rig {
    session: Session,
    backend: Arc<Mutex<Obedient>>,
    thread: JoinHandle<()>,
}

fn rig(obedient: Obedient) -> Rig {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (backend, thread) = obedient.serve(theirs);
    let blk = DeviceType::by_name("blk").unwrap();
    let (session, _) = Session::open("disk0", ours, blk).unwrap();
    Rig { session, backend, thread }
}

impl Rig {
    fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Hangs up and answers what the back-end was told.
    fn log(self) -> Vec<String> {
        drop(self.session);
        self.thread.join().unwrap();
        std::mem::take(&mut self.backend.lock().unwrap().log)
    }
}

/// Hands the rings over where they went on before, with what record there is.
fn resume(rig: &mut Rig, base: u16, inflight: &mut Option<Inflight>) {
    let handover = Handover {
        activation: &activation(),
        bases: &[base],
        table: &Table::new(&memory()).unwrap(),
        ports: &ports(2),
        broken: &Event::new().unwrap(),
        queues: (2, 256),
    };
    rig.session.start(&handover, inflight).unwrap();
}

#[test]
fn rings_are_handed_over_in_the_order_that_every_back_end_takes() {
    let mut rig = rig(Obedient::new(2));
    start(rig.session()).unwrap();
    rig.session().stop(&activation().rings).unwrap();
    let log = rig.log();
    let expected = [
        "features 0x140000000",
        "make inflight 2 256",
        "inflight 4096 2 256",
        "memory 1 1",
        "num 1 64",
        "base 1 0",
        "addr 1 0x1000 0x2000 0x3000",
        "err 1",
        "call 1",
        "kick 1",
        "enable 1 true",
        "stop 1",
    ];
    assert_eq!(log[2..], expected);
}

#[test]
fn without_replies_the_rings_are_still_known_to_be_taken() {
    let mut obedient = Obedient::new(2);
    obedient.protocol.remove(Protocol::REPLY_ACK);
    let mut rig = rig(obedient);
    start(rig.session()).unwrap();
    assert_eq!(rig.backend.lock().unwrap().log.last().unwrap(), "enable 1 true");
}

#[test]
fn the_events_are_the_ones_that_were_given() {
    let mut rig = rig(Obedient::new(2));
    let table = Table::new(&memory()).unwrap();
    let (ports, broken) = (ports(2), Event::new().unwrap());
    let handover = Handover {
        activation: &activation(),
        bases: &[0],
        table: &table,
        ports: &ports,
        broken: &broken,
        queues: (2, 256),
    };
    rig.session().start(&handover, &mut None).unwrap();
    assert!(ports[1].kick.drain(), "a kick that came too early is made good for");
    assert!(!ports[0].kick.drain(), "not for a ring that was not started");
    let backend = rig.backend.lock().unwrap();
    for (file, event) in [
        (&backend.calls[1], &*ports[1].call),
        (&backend.kicks[1], &*ports[1].kick),
        (&backend.errs[1], &broken),
    ] {
        std::io::Write::write_all(&mut file.as_ref().unwrap(), &1_u64.to_ne_bytes()).unwrap();
        assert!(event.is_signalled());
    }
}

#[test]
fn a_successor_gets_the_record_and_goes_on_where_it_is_told() {
    let mut inflight = None;
    let mut first = rig(Obedient::new(2));
    resume(&mut first, 0, &mut inflight);
    let made = first.backend.lock().unwrap().inflight.unwrap();
    drop(first.log());
    let mut second = rig(Obedient::new(2));
    resume(&mut second, 7, &mut inflight);
    assert_eq!(second.backend.lock().unwrap().inflight, Some(made), "the same memory");
    let log = second.log();
    assert!(log.contains(&"base 1 7".to_owned()), "{log:?}");
    assert!(!log.iter().any(|line| line.starts_with("make")), "{log:?}");
}

#[test]
fn a_record_does_not_outlive_a_back_end_that_keeps_none() {
    let mut inflight = None;
    let mut first = rig(Obedient::new(2));
    resume(&mut first, 0, &mut inflight);
    assert!(inflight.is_some());
    let mut without = Obedient::new(2);
    without.protocol.remove(Protocol::INFLIGHT_SHMFD);
    let mut second = rig(without);
    resume(&mut second, 7, &mut inflight);
    assert!(inflight.is_none(), "what it does from now on is not in it");
    assert!(!second.log().iter().any(|line| line.contains("inflight")));
}

#[test]
fn a_back_end_says_where_it_would_have_gone_on() {
    let mut obedient = Obedient::new(2);
    obedient.base = 0x1_2345;
    let mut rig = rig(obedient);
    start(rig.session()).unwrap();
    assert_eq!(rig.session().stop(&activation().rings).unwrap(), [0x2345]);
}
