//! Whether the thread of a pair takes the CPU from others when it wakes: not while a stream passes and
//! more comes with each wake-up for it.

use std::process::Command;
use std::thread;
use std::time::Instant;

use atoll_driver::{Buffer, NetHeader, Refusal, TIMEOUT, without};
use libc::{SCHED_BATCH, SCHED_OTHER};

use crate::frames::pattern;
use crate::network::{self, GUEST_MAC, HOST_MAC, frame};
use crate::rig::{MOMENT, Rig, USUAL};

/// A thread has its name once it runs.
fn start() -> Option<Rig> {
    let mut rig = Rig::start(USUAL)?;
    rig.burst(1);
    Some(rig)
}

/// More wake-ups than it takes to decide.
const MANY: usize = 100;

impl Rig {
    fn class(&self) -> i32 {
        self.process.scheduling_class("vrings0-1").unwrap()
    }

    /// Sends `count` small packets with one kick, which all have been taken then.
    fn burst(&mut self, count: usize) {
        let to_host = frame(HOST_MAC, GUEST_MAC, &pattern(46));
        let packet = [NetHeader::default().to_bytes().as_slice(), &to_host].concat();
        for _ in 0..count {
            let address = self.memory().put(&packet).unwrap();
            self.transmit.add(&[Buffer::readable(address, packet.len() as u32)]).unwrap();
        }
        self.transmit.publish().unwrap();
        for _ in 0..count {
            self.transmit.wait(TIMEOUT).unwrap();
        }
    }

    /// Sends packets one by one until the thread is of this class.
    fn send_until(&mut self, class: i32) {
        let began = Instant::now();
        while self.class() != class {
            assert!(began.elapsed() < TIMEOUT, "its class stays {}", self.class());
            // To look takes longer than to send.
            (0..8).for_each(|_| self.burst(1));
        }
    }
}

#[test]
fn a_stream_waits_for_others_while_more_comes_for_it() {
    let Some(mut rig) = start() else { return };
    assert_eq!(rig.class(), SCHED_OTHER);
    let began = Instant::now();
    loop {
        rig.send_until(SCHED_BATCH);
        (0..MANY).for_each(|_| rig.burst(64));
        if rig.class() == SCHED_BATCH {
            break;
        }
        // On a machine that is busy elsewhere this is no stream.
        assert!(began.elapsed() < TIMEOUT, "it does not wait though that pays");
    }
    // Nothing more comes for it.
    rig.send_until(SCHED_OTHER);
}

#[test]
fn what_comes_after_a_stream_waits_for_nobody() {
    let Some(mut rig) = start() else { return };
    rig.send_until(SCHED_BATCH);
    thread::sleep(MOMENT * 2);
    rig.burst(1);
    assert_eq!(rig.class(), SCHED_OTHER);
}

#[test]
fn one_ring_alone_waits_for_nobody() {
    let Some(mut rig) = start() else { return };
    rig.send_until(SCHED_BATCH);
    rig.device.stop_queue(&rig.receive).unwrap();
    thread::sleep(MOMENT * 2);
    rig.burst(1);
    assert_eq!(rig.class(), SCHED_OTHER);
}

#[test]
fn where_that_is_refused_packets_pass_as_ever() {
    if network::enter().is_none() {
        return;
    }
    let calls = [libc::SYS_sched_setscheduler];
    let start = || Rig::serve(USUAL, &["--tap=tap0".into()]);
    let mut rig = without(&calls, Refusal::Errno(libc::EPERM), start).unwrap();
    (0..4 * MANY).for_each(|_| rig.burst(1));
    assert_eq!((rig.class(), rig.process.log().as_str()), (SCHED_OTHER, ""));
}

#[test]
fn questions_and_answers_wait_for_nobody() {
    let Some(mut rig) = Rig::start(USUAL) else { return };
    for _ in 0..2 * MANY {
        rig.check_alive();
        assert_eq!(rig.class(), SCHED_OTHER);
    }
}

#[test]
fn a_class_that_somebody_else_chose_stays() {
    let Some(mut rig) = start() else { return };
    let process = rig.process.id().to_string();
    let mut chosen = Command::new("chrt");
    chosen.args(["--all-tasks", "--batch", "--pid", "0", &process]);
    assert!(chosen.status().unwrap().success());
    for _ in 0..4 * MANY {
        rig.burst(1);
        assert_eq!(rig.class(), SCHED_BATCH);
    }
}
