//! vCPUs: what they do reaches the buses, they stop when told to, and their end is reported.

use std::thread;
use std::time::{Duration, Instant};

use atoll::arch::layout;
use atoll::vcpu::{CpuStop, Crash, Exit};

use crate::code::{
    count_for_ever, in_ax, load_eax, out_eax, out8, rep_out, set_eax, stop, store, store_eax,
    undefined,
};
use crate::guest::{CODE, MMIO, PATIENCE, PORTS, POWER, guest};

const COUNTER: u32 = 0x20_0000;

#[test]
fn port_accesses_reach_the_bus_with_their_width() {
    let payload = [
        out8(PORTS, 0x11),
        set_eax(0x4433_2211),
        out_eax(PORTS + 4),
        set_eax(0),
        in_ax(PORTS + 8),
        out_eax(PORTS),
        out8(POWER, 0),
    ];
    let Some(guest) = guest(&payload) else { return };
    let running = guest.start(1);
    assert_eq!(running.end(), Exit::PowerOff);
    let writes: Vec<_> = running.ports.try_iter().collect();
    assert_eq!(writes, [(0, vec![0x11]), (4, vec![0x11, 0x22, 0x33, 0x44]), (0, vec![8, 9, 0, 0])]);
}

#[test]
fn string_output_reaches_the_bus_one_access_after_the_other() {
    let text = COUNTER;
    let payload = [rep_out(PORTS, text, 5, false), rep_out(PORTS, text, 2, true), out8(POWER, 0)];
    let Some(guest) = guest(&payload) else { return };
    guest.write(text, b"atoll");
    let running = guest.start(1);
    assert_eq!(running.end(), Exit::PowerOff);
    let writes: Vec<_> = running.ports.try_iter().map(|(_offset, data)| data).collect();
    assert_eq!(writes, [&b"a"[..], b"t", b"o", b"l", b"l", b"at", b"ol"]);
}

#[test]
fn accesses_where_no_memory_is_reach_the_bus() {
    let payload = [
        store(MMIO, 0x1234_5678),
        load_eax(MMIO + 0x10),
        store_eax(MMIO + 4),
        // Beyond the recorder nobody answers: all ones.
        load_eax(MMIO + 0x1000),
        store_eax(MMIO + 8),
        out8(POWER, 0),
    ];
    let Some(guest) = guest(&payload) else { return };
    let running = guest.start(1);
    assert_eq!(running.end(), Exit::PowerOff);
    let writes: Vec<_> = running.mmio.try_iter().collect();
    let expected = [[0x78, 0x56, 0x34, 0x12], [0x10, 0x11, 0x12, 0x13], [0xff; 4]];
    assert_eq!(writes, [0, 4, 8].into_iter().zip(expected.map(Vec::from)).collect::<Vec<_>>());
}

#[test]
fn nothing_runs_after_the_write_that_powered_off() {
    let payload = [out8(POWER, 0), out8(PORTS, 1), stop()];
    let Some(guest) = guest(&payload) else { return };
    let running = guest.start(1);
    assert_eq!(running.end(), Exit::PowerOff);
    drop(running.vcpus);
    assert!(running.ports.try_recv().is_err());
}

#[test]
fn a_triple_fault_is_reported_with_vcpu_rip_and_reason() {
    // The IDT has no entries, so the first exception is the last.
    let Some(guest) = guest(&[out8(PORTS, 1), undefined()]) else { return };
    let running = guest.start(1);
    let Exit::Crash(Crash { vcpu: 0, rip, reason: CpuStop::TripleFault }) = running.end() else {
        panic!("not a triple fault");
    };
    // Some kinds of KVM have reset the vCPU's registers by then.
    let fault = u64::from(CODE) + 7;
    assert!(rip == Some(fault) || rip == Some(0xfff0), "{rip:x?}");
}

#[test]
fn a_spinning_vcpu_stops_at_once_when_dropped() {
    for _ in 0..20 {
        let Some(guest) = guest(&[count_for_ever(COUNTER)]) else { return };
        let running = guest.start_counting();
        assert_eq!(running.exit(), None);
        let began = Instant::now();
        drop(running.vcpus);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

#[test]
fn a_halted_vcpu_and_those_that_never_started_stop_when_dropped() {
    let Some(guest) = guest(&[out8(PORTS, 1), stop()]) else { return };
    let running = guest.start(4);
    running.ports.recv_timeout(PATIENCE).unwrap();
    drop(running.vcpus);
}

#[test]
fn a_paused_vcpu_stands_still_and_goes_on_when_resumed() {
    let Some(guest) = guest(&[count_for_ever(COUNTER)]) else { return };
    let running = guest.start_counting();
    for _ in 0..20 {
        running.vcpus.pause();
        let stood = guest.read(COUNTER);
        thread::sleep(Duration::from_millis(2));
        assert_eq!(guest.read(COUNTER), stood);
        running.vcpus.resume();
        guest.wait_until_it_counts_on(stood);
    }
    running.vcpus.pause();
    // A paused machine can be dropped as well.
}

#[test]
fn init_and_sipi_start_another_vcpu_in_real_mode() {
    const ICR: u32 = layout::LOCAL_APIC as u32 + 0x300;
    const TRAMPOLINE: u32 = 0x8000;
    let payload = [
        // To APIC 1: INIT, then a start-up IPI for the page 8.
        store(ICR + 0x10, 1 << 24),
        store(ICR, 0x4500),
        store(ICR, 0x4608),
        stop(),
    ];
    let Some(guest) = guest(&payload) else { return };
    // mov dx, PORTS + 2; mov al, 0x5a; out dx, al; cli; hlt
    let [low, high] = (PORTS + 2).to_le_bytes();
    guest.write(TRAMPOLINE, &[0xba, low, high, 0xb0, 0x5a, 0xee, 0xfa, 0xf4]);
    let running = guest.start(2);
    assert_eq!(running.ports.recv_timeout(PATIENCE), Ok((2, vec![0x5a])));
}

impl crate::guest::Guest {
    fn start_counting(&self) -> crate::guest::Running {
        let before = self.read(COUNTER);
        let running = self.start(1);
        self.wait_until_it_counts_on(before);
        running
    }

    fn wait_until_it_counts_on(&self, from: u32) {
        let deadline = Instant::now() + PATIENCE;
        while self.read(COUNTER) == from {
            assert!(Instant::now() < deadline, "the guest does not run");
            thread::yield_now();
        }
    }
}
