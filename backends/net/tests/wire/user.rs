//! The user-mode network: passt answers, and may die.

use std::fs;
use std::io::Read as _;
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use atoll_driver::{NetHeader, TIMEOUT, VERSION_1};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::network::{self, GUEST_MAC, checksum};
use crate::rig::{CSUM, GUEST_CSUM, MRG_RXBUF, Rig};

/// DHCP's request for an offer (RFC 2131), from the guest to everybody.
fn discover() -> Vec<u8> {
    let mut dhcp = vec![0; 236];
    dhcp[..8].copy_from_slice(&[1, 1, 6, 0, 0, 0, 0x12, 0x34]);
    dhcp[28..34].copy_from_slice(&GUEST_MAC);
    dhcp.extend_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    let udp_len = (8 + dhcp.len() as u16).to_be_bytes();
    let udp = [&[0, 68, 0, 67], udp_len.as_slice(), &[0, 0], &dhcp].concat();
    let ip_len = (20 + udp.len() as u16).to_be_bytes();
    let mut ip = [0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
    ip[2..4].copy_from_slice(&ip_len);
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [&[0xff; 6], GUEST_MAC.as_slice(), &[8, 0], &ip, &udp].concat()
}

/// Whether `frame` is TCP's first, to `port`.
fn is_syn(frame: &[u8], port: u16) -> bool {
    frame[12..14] == [8, 0]
        && frame[23] == 6
        && frame[36..38] == port.to_be_bytes()
        && frame[47] == 2
}

/// Whether `frame` is DHCP's offer, for the guest.
fn is_offer(frame: &[u8]) -> bool {
    frame[..6] == GUEST_MAC && frame[12..14] == [8, 0] && frame[36..38] == [0, 68] && frame[42] == 2
}

/// A user-mode network to the outside by the TAP, and a driver.
fn start(forward: &str) -> Option<Rig> {
    if Command::new("passt").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: there is no passt");
        return None;
    }
    network::enter()?;
    network::ip("route add default via 192.0.2.2 dev tap0");
    let features = VERSION_1 | MRG_RXBUF;
    let mut rig = Rig::serve(features, &["--user-net".into(), format!("--hostfwd={forward}")]);
    assert_eq!(rig.device.offered() & (CSUM | GUEST_CSUM), 0, "nobody could finish a packet");
    rig.post(64, 1536);
    Some(rig)
}

/// Asks for an address until there is an offer.
fn await_offer(rig: &mut Rig) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        assert!(Instant::now() < deadline, "no offer");
        rig.send(NetHeader::default(), &discover());
        while let Some((header, frame)) = rig.packet_within(Duration::from_millis(200)) {
            assert_eq!((header.flags, header.gso_type, header.num_buffers), (0, 0, 1));
            if is_offer(&frame) {
                return;
            }
        }
    }
}

pub(crate) fn children(parent: u32) -> Vec<u32> {
    let is_child = |folder: &PathBuf| {
        let stat = fs::read_to_string(folder.join("stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields.to_owned());
        fields.and_then(|fields| fields.split(' ').nth(1)?.parse().ok()) == Some(parent)
    };
    let folders = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let name = |folder: PathBuf| folder.file_name()?.to_str()?.parse().ok();
    folders.filter(is_child).filter_map(name).collect()
}

pub(crate) fn has_ended(pid: u32) -> bool {
    let stat = Path::new("/proc").join(pid.to_string()).join("stat");
    let mut text = String::new();
    let read = fs::File::open(stat).and_then(|mut file| file.read_to_string(&mut text));
    // Whom nobody waits for stays as a zombie.
    read.is_err() || text.contains(") Z ")
}

/// The process that keeps passt, and passt.
fn processes(rig: &Rig) -> (u32, Vec<u32>) {
    let keepers = children(rig.process.id());
    assert_eq!(keepers.len(), 1, "one process keeps passt");
    (keepers[0], children(keepers[0]))
}

#[test]
fn passt_gives_an_address_and_forwards_a_port() {
    let Some(mut rig) = start("tcp:127.0.0.1:2222:22") else { return };
    await_offer(&mut rig);
    // The guest does not answer, so that the connection only begins.
    let host = TcpStream::connect("127.0.0.1:2222").unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while !rig.packet_within(Duration::from_secs(1)).is_some_and(|(_, frame)| is_syn(&frame, 22)) {
        assert!(Instant::now() < deadline, "the guest saw no connection to its port");
    }
    host.shutdown(Shutdown::Both).unwrap();
}

#[test]
fn a_killed_passt_comes_back_and_the_guest_keeps_its_device() {
    let Some(mut rig) = start("tcp:2222:22") else { return };
    await_offer(&mut rig);
    for _ in 0..3 {
        let (_, passt) = processes(&rig);
        for pid in passt {
            kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        }
        await_offer(&mut rig);
    }
    rig.reattach(VERSION_1 | MRG_RXBUF);
    rig.post(64, 1536);
    await_offer(&mut rig);
}

#[test]
fn nothing_outlives_the_device_even_if_it_is_killed() {
    let Some(mut rig) = start("tcp:2222:22") else { return };
    await_offer(&mut rig);
    let (keeper, passt) = processes(&rig);
    rig.process.signal(Signal::SIGKILL).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while !passt.iter().chain([&keeper]).all(|pid| has_ended(*pid)) {
        assert!(Instant::now() < deadline, "passt or its keeper lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}
