use std::fs::File;
use std::os::fd::AsRawFd;

use io_uring::{opcode, types};

use super::{AT_ONCE, FileRing, Transfer};
use crate::test_ring::TestRing;

/// What the kernel answers to an entry that is pushed past everything above.
fn answer(ring: &mut FileRing, entry: &io_uring::squeue::Entry) -> i32 {
    // SAFETY: what the entries below point to is static.
    unsafe { ring.ring.submission().push(entry) }.unwrap();
    ring.ring.submit_and_wait(1).unwrap();
    let completion = ring.ring.completion().next();
    completion.unwrap().result()
}

#[test]
fn a_ring_takes_reads_writes_and_syncs_and_nothing_else() {
    let file = tempfile::tempfile().unwrap();
    let Ok(mut ring) = FileRing::open(&file) else {
        eprintln!("skipped: a_ring_takes_reads_writes_and_syncs_and_nothing_else: no io_uring");
        return;
    };
    let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), c"/dev/null".as_ptr()).build();
    let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build();
    for entry in [open, socket, opcode::Nop::new().build()] {
        assert_eq!(answer(&mut ring, &entry), -libc::EACCES);
    }
    let sync = opcode::Fsync::new(types::Fd(file.as_raw_fd())).build();
    assert_eq!(answer(&mut ring, &sync), 0);
    // And it takes no other restrictions, or none, later.
    let again = ring.ring.submitter().register_restrictions(&mut []);
    assert!(again.is_err());
    let other = File::open("/dev/null").unwrap();
    assert!(ring.ring.submitter().register_files(&[other.as_raw_fd()]).is_err());
}

#[test]
fn the_kernel_gets_a_few_transfers_at_a_time_and_all_with_one_submission() {
    let file = tempfile::tempfile().unwrap();
    let Ok(mut ring) = FileRing::open(&file) else {
        eprintln!(
            "skipped: the_kernel_gets_a_few_transfers_at_a_time_and_all_with_one_submission: \
             no io_uring"
        );
        return;
    };
    let mut driver = TestRing::new();
    (0..7).for_each(|head| driver.make_available(head));
    let mut vring = driver.vring();
    while let Some(chain) = vring.next().unwrap() {
        ring.add(Transfer::Sync, chain, 0, 0);
    }
    ring.fill();
    assert_eq!(ring.ring.submission().len(), AT_ONCE);
    ring.submit().unwrap();
    assert!(!ring.is_stalled());
    let mut done = Vec::new();
    while ring.in_flight() > 0 {
        ring.wait().unwrap();
        ring.reap(&mut done);
    }
    assert!(done.iter().all(|transferred| transferred.result.is_ok()));
    assert_eq!(done.len(), 7);
}
