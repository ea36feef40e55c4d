//! Somebody at the other end of a socket who takes nothing for a while: the guest waits for him, and no
//! frame is lost.

use std::io::Read as _;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Instant;

use atoll_driver::{Buffer, NetHeader, TIMEOUT, VERSION_1};
use nix::sys::socket::{setsockopt, sockopt::SndBuf};

use crate::frames::pattern;
use crate::network::{self, GUEST_MAC, HOST_MAC, frame};
use crate::rig::{MOMENT, MRG_RXBUF, Rig};

const FEATURES: u64 = VERSION_1 | MRG_RXBUF;
/// More frames, and bytes in them, than waits in any socket.
const FRAMES: u16 = 120;

fn to_host(number: u16, len: usize) -> Vec<u8> {
    frame(HOST_MAC, GUEST_MAC, &[&number.to_be_bytes(), pattern(len).as_slice()].concat())
}

/// Makes all frames available to be sent.
fn submit_all(rig: &mut Rig, len: usize) {
    let memory = rig.memory();
    for number in 0..FRAMES {
        let packet = [NetHeader::default().to_bytes().as_slice(), &to_host(number, len)].concat();
        let address = memory.put(&packet).unwrap();
        rig.transmit.add(&[Buffer::readable(address, packet.len() as u32)]).unwrap();
    }
    rig.transmit.publish().unwrap();
}

/// Waits until the device sleeps, though there is more to send.
fn wait_until_it_sleeps(rig: &Rig) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let before = rig.process.cpu_nanoseconds().unwrap();
        std::thread::sleep(MOMENT);
        let spent = rig.process.cpu_nanoseconds().unwrap() - before;
        // It may look again now and then.
        if spent < 20_000_000 {
            break;
        }
        assert!(Instant::now() < deadline, "it does not sleep: {spent} ns in {MOMENT:?}");
    }
    let left = rig.transmit.ring().used_index().unwrap() % FRAMES;
    assert_ne!(left, 0, "nothing has left, or all");
}

fn wait_until_all_are_sent(rig: &mut Rig) {
    for _ in 0..FRAMES {
        rig.transmit.wait(TIMEOUT).unwrap();
    }
}

#[test]
fn a_slow_reader_of_datagrams_gets_every_frame_and_costs_no_processor_time() {
    if network::enter().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (local, remote) = (dir.path().join("card.sock"), dir.path().join("peer.sock"));
    let args = ["--dgram".into(), local.display().to_string(), remote.display().to_string()];
    let peer = UnixDatagram::bind(&remote).unwrap();
    peer.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut rig = Rig::serve(FEATURES, &args);
    // So many small ones or so many bytes: either fills a socket, and only one can be waited for.
    for len in [46, 9000] {
        submit_all(&mut rig, len);
        wait_until_it_sleeps(&rig);
        let mut heard = vec![0; 70_000];
        for number in 0..FRAMES {
            let received = peer.recv(&mut heard).unwrap();
            assert!(heard[..received] == to_host(number, len), "frame {number} is another");
        }
        wait_until_all_are_sent(&mut rig);
    }
}

/// The descriptors of a process, as its own.
fn descriptors(pid: u32) -> Vec<OwnedFd> {
    // SAFETY: system calls with numbers.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as RawFd;
    assert!(process >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the descriptor was made just now.
    let process = unsafe { OwnedFd::from_raw_fd(process) };
    let numbers = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let numbers = numbers.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse());
    let theirs = numbers.filter_map(|number: Result<RawFd, _>| {
        // SAFETY: as above.
        let copy = unsafe {
            libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number.unwrap(), 0)
        } as RawFd;
        // SAFETY: as above. One that was closed meanwhile is of no interest.
        (copy >= 0).then(|| unsafe { OwnedFd::from_raw_fd(copy) })
    });
    theirs.collect()
}

#[test]
fn a_slow_reader_of_a_stream_gets_every_frame_to_its_last_byte() {
    if network::enter().is_none() {
        return;
    }
    for whole in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cable.sock");
        let mut rig = Rig::serve(FEATURES, &[format!("--stream-server={}", path.display())]);
        let mut peer = UnixStream::connect(&path).unwrap();
        peer.set_read_timeout(Some(TIMEOUT)).unwrap();
        let first = frame(HOST_MAC, GUEST_MAC, b"who is there?");
        rig.send(NetHeader::default(), &first);
        peer.read_exact(&mut vec![0; 4 + first.len()]).unwrap();
        if !whole {
            // As on a host whose sockets have little room: they take frames in part.
            for socket in descriptors(rig.process.id()) {
                let _not_a_socket = setsockopt(&socket, SndBuf, &4096);
            }
        }
        submit_all(&mut rig, 9000);
        wait_until_it_sleeps(&rig);
        for number in 0..FRAMES {
            let expected = to_host(number, 9000);
            let mut heard = vec![0; 4 + expected.len()];
            peer.read_exact(&mut heard).unwrap();
            assert_eq!(heard[..4], (expected.len() as u32).to_be_bytes());
            assert!(heard[4..] == expected, "frame {number} is another");
        }
        wait_until_all_are_sent(&mut rig);
    }
}
