//! The demo's tour: what a person would look at in the guest and around it, printed as it is
//! found. A thing that is not as promised ends the tour.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use atoll_tests::guest::Guest;
use atoll_tests::image::Image;

/// What the host says to the guest.
const GREETING: &str = "Hello from the host, through a network that takes no privilege.\n";
/// A file that both sides look at.
const FILE: &str = "/usr/bin/fio";

/// Plays it.
pub(crate) fn play() -> Result<ExitCode> {
    let _way_out = super::way_out();
    let root = Image::debian();
    let expected = root.md5_of_file(FILE);
    let vcpus = super::vcpus();
    println!(
        "Booting Debian on {vcpus} vCPU(s); its disk, network and console are processes of their own."
    );
    let mut guest = Guest::debian(&root).user_net("").cpus(vcpus).cmdline("net=dhcp").boot();

    show(&mut guest, "uname -a");
    show(&mut guest, "lsblk");
    show(&mut guest, "findmnt /");
    let seen = show(&mut guest, &format!("md5sum {FILE}"));
    ensure!(seen.starts_with(&expected), "the host reads the sum {expected} in the image");
    println!("(the same sum as the host reads in the image: {expected})");
    show(&mut guest, "ip -brief link");
    show(&mut guest, "ip -brief address");
    show(&mut guest, "ip route");
    show(&mut guest, "cat /etc/resolv.conf");
    greet(&mut guest)?;
    println!("\nguest's virtio devices, and how often each MSI-X vector has fired:");
    show(&mut guest, "ls -l /sys/bus/virtio/devices | sed -n 's/.*devices/devices/p'");
    for (vector, count) in guest.virtio_interrupts() {
        println!("{count:>8}  {vector}");
    }

    println!("\nhost's processes:");
    println!("{:>8}  {:<14} {:>10}  {:>10}", "pid", "process", "own KiB", "guest's KiB");
    let mut processes = guest.backends();
    processes.insert(guest.pid(), "atoll".to_owned());
    for (pid, name) in &processes {
        let (own, shared) = resident(*pid)?;
        println!("{pid:>8}  {name:<14} {own:>10}  {shared:>10}");
    }
    ensure!(processes.len() == 4, "there should be four processes");

    println!("\nguest# poweroff");
    guest.power_off();
    println!("The guest is off, and atoll has ended with 0.");
    Ok(ExitCode::SUCCESS)
}

/// The gateway's address is this host's loopback: the guest fetches a greeting there.
fn greet(guest: &mut Guest) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen for the guest")?;
    let port = listener.local_addr()?.port();
    let greeter = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut guest, _) = listener.accept()?;
        guest.write_all(GREETING.as_bytes())
    });
    let gateway = guest.check("ip -4 route show default | cut -d ' ' -f 3");
    let heard = show(guest, &format!("bash -c 'cat < /dev/tcp/{gateway}/{port}'"));
    ensure!(heard == GREETING.trim_end(), "the guest hears what the host says");
    greeter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok(())
}

/// Runs a command in the guest and prints it and what it said.
fn show(guest: &mut Guest, command: &str) -> String {
    println!("\nguest# {command}");
    let output = guest.check(command);
    println!("{output}");
    output
}

/// Resident memory of a process in KiB: what is its own (and its binary's), and what it has
/// touched of memory that others share, which is the guest's.
fn resident(pid: u32) -> Result<(u64, u64)> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let field = |name: &str| -> Result<u64> {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_suffix("kB")?.trim().parse().ok())
            .with_context(|| format!("{path} has no {name}"))
    };
    Ok((field("RssAnon:")? + field("RssFile:")?, field("RssShmem:")?))
}
