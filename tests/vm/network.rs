//! Networks: packets go both ways, and arrive as they were sent.

mod traffic;
mod user;

use atoll_tests::guest::Guest;
use atoll_tests::image::{Image, md5, pattern};
use atoll_tests::network::{Tap, iperf_server};
use atoll_tests::require;
use atoll_tests::requirement::Requirement::{Artifact, Program, Root, StockKvm};
use atoll_tests::scratch::Scratch;

const TRANSFER: usize = 64 << 20;
/// For each of several runs of iperf3.
const IPERF: usize = 32 << 20;

#[test]
fn a_large_transfer_arrives_whole_in_both_directions() {
    require!(StockKvm, Root);
    let tap = Tap::new();
    let mut guest = Guest::builder().net(&tap).boot();
    guest.check(&tap.guest_setup("eth0"));
    guest.check(&format!("ping -c 3 {}", tap.host()));

    let message = pattern(TRANSFER);
    let scratch = Scratch::new();
    let sum = md5(&scratch.write("sent", &message));
    let (port, sent) = tap.send_to_guest(message);
    let received = guest.check(&format!("nc {} {port} < /dev/null | md5sum", tap.host()));
    assert_eq!(received, format!("{sum}  -"), "from the host to the guest");
    sent.join().expect("the host's sender");

    let (port, heard) = tap.hear_from_guest();
    let sent = guest.check(&format!(
        "dd if=/dev/urandom of=/tmp/a bs=1M count=1 2> /dev/null && \
         for i in $(seq 64); do cat /tmp/a; echo $i; done > /tmp/b && \
         nc {} {port} < /tmp/b && md5sum < /tmp/b",
        tap.host()
    ));
    let heard = heard.join().expect("the host's receiver");
    assert!(heard.len() > TRANSFER, "{} bytes arrived", heard.len());
    let heard = md5(&scratch.write("heard", heard));
    assert_eq!(sent, format!("{heard}  -"), "from the guest to the host");
    guest.power_off();
}

#[test]
fn a_debian_system_runs_iperf3_over_one_pair_of_queues_and_over_four() {
    require!(StockKvm, Root, Program("iperf3"), Artifact("root.ext4"));
    let (root, tap) = (Image::debian(), Tap::of_many_queues());
    let mut guest = Guest::debian(&root).cpus(2).net_with(&tap, ",queue-pairs=4").boot();
    let device = guest.check("ls /sys/class/net | grep -v '^lo$'");
    guest.check(&tap.guest_setup(&device));

    let _server = iperf_server(&tap.host().to_string());
    for pairs in [1, 4] {
        guest.check(&format!("ethtool -L {device} combined {pairs}"));
        let shown = guest.check(&format!("ethtool -l {device} | grep Combined"));
        assert_eq!(
            shown.split_whitespace().collect::<Vec<_>>()[1..],
            ["4", "Combined:", &pairs.to_string()]
        );
        for direction in ["", "--reverse"] {
            let client = format!("iperf3 --json --parallel 4 --bytes 32M --client {}", tap.host());
            let report = guest.check(&format!("{client} {direction}"));
            let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
            let received = report["end"]["sum_received"]["bytes"].as_u64().expect("a count");
            // The client's clock stops before the last bytes are counted.
            assert!(received >= IPERF as u64 / 2, "{report:#}");
            assert!(report["error"].is_null(), "{report:#}");
        }
    }

    let message = pattern(IPERF);
    let scratch = Scratch::new();
    let sum = md5(&scratch.write("sent", &message));
    let (port, sent) = tap.send_to_guest(message);
    let received = guest.check(&format!("bash -c 'md5sum < /dev/tcp/{}/{port}'", tap.host()));
    assert_eq!(received, format!("{sum}  -"), "from the host to the guest");
    sent.join().expect("the host's sender");
    guest.power_off();
}

#[test]
fn the_network_driver_can_be_unbound_and_bound_again() {
    require!(StockKvm, Root);
    let tap = Tap::new();
    let mut guest = Guest::builder().net(&tap).boot();
    let backends = guest.backends();
    for _ in 0..3 {
        guest.check(&tap.guest_setup("eth0"));
        guest.check(&format!("ping -c 2 {}", tap.host()));
        guest.rebind("/sys/class/net/eth0/device");
    }
    assert_eq!(guest.backends(), backends, "a backend lives on through a reset");
    guest.power_off();
}
