//! What lies in the mailbox.

use std::time::Instant;

use super::*;
use crate::virtio::Ring;

fn mailbox() -> Mailbox {
    Mailbox::new(Event::new().unwrap(), vec![0; 8])
}

fn activation(index: u16) -> Activation {
    let ring = Ring { index, size: 2, desc: 0, avail: 0, used: 0 };
    Activation { features: 0, rings: vec![ring] }
}

#[test]
fn everything_put_in_wakes_and_is_taken_once() {
    let mailbox = mailbox();
    mailbox.start(activation(1));
    assert!(mailbox.wake().is_signalled());
    let orders = mailbox.take();
    assert_eq!(orders.start, Some(activation(1)));
    assert!(!mailbox.wake().is_signalled());
    assert!(mailbox.take().start.is_none());
}

#[test]
fn a_reset_takes_back_the_start_before_it_but_not_the_one_after() {
    let mailbox = mailbox();
    mailbox.start(activation(1));
    mailbox.reset();
    assert!(mailbox.take().start.is_none());
    mailbox.reset();
    mailbox.start(activation(2));
    let orders = mailbox.take();
    assert!(orders.reset && orders.start == Some(activation(2)));
}

#[test]
fn configuration_writes_melt_into_runs_of_the_latest_bytes() {
    let mailbox = mailbox();
    for round in 0..1000_u32 {
        mailbox.write_config(1, &[round as u8, 2]);
        mailbox.write_config(6, &[round as u8]);
    }
    mailbox.write_config(7, &[9, 9, 9]);
    mailbox.write_config(100, &[1]);
    assert_eq!(mailbox.take().config, [(1, vec![231, 2]), (6, vec![231, 9])]);
    assert!(mailbox.take().config.is_empty());
    assert_eq!(mailbox.config(), [0, 231, 2, 0, 0, 0, 231, 9]);
}

#[test]
fn what_the_driver_wrote_meanwhile_survives_a_refresh() {
    let mailbox = mailbox();
    mailbox.write_config(2, &[7]);
    assert_eq!(mailbox.set_config(vec![5; 8]), [5, 5, 7, 5, 5, 5, 5, 5]);
    assert_eq!(mailbox.take().config, [(2, vec![7])]);
    assert_eq!(mailbox.set_config(vec![5; 8]), [5; 8]);
}

#[test]
fn waiting_for_a_reset_ends_when_it_is_done_or_patience_is() {
    let mailbox = mailbox();
    let start = Instant::now();
    assert!(!mailbox.reset_and_wait(Duration::from_millis(20)));
    assert!(start.elapsed() >= Duration::from_millis(20));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !mailbox.take().reset {
                std::thread::yield_now();
            }
            mailbox.reset_done();
        });
        // The first reset may be what the other thread finds; the second is then done with it.
        assert!(mailbox.reset_and_wait(Duration::from_secs(10)) || mailbox.take().reset);
    });
}
