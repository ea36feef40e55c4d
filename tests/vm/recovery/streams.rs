//! Networks and consoles.

use std::time::Duration;

use atoll_tests::backend::Backend;
use atoll_tests::console::Console;
use atoll_tests::guest::Guest;
use atoll_tests::network::Tap;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::{Root, StockKvm};
use atoll_tests::scratch::Scratch;
use atoll_tests::{PATIENCE, wait_for};

use super::{kill_again_and_again, kills};

#[test]
fn tcp_streams_and_a_console_survive_the_deaths_of_their_processes() {
    require!(StockKvm, Root);
    let (tap, scratch) = (Tap::new(), Scratch::new());
    let terminal = scratch.join("hvc1");
    let (mut net, mut console) = (Backend::net(&tap), Backend::console(&terminal));
    let mut guest = Guest::builder()
        .device("net", net.socket(), "")
        .device("console", console.socket(), "")
        .boot();
    guest.check(&tap.guest_setup("eth0"));
    guest.check(&format!("ping -c 1 {}", tap.host()));

    // One stream each way, both on their way for as long as the process dies.
    let down = tap.stream_to_guest();
    let (up, heard) = tap.sum_from_guest();
    let host = tap.host();
    guest.check(&format!(
        "(nc {host} {} < /dev/null | md5sum > /tmp/down) 2> /dev/null &",
        down.port
    ));
    guest.check(&format!(
        "mkfifo /tmp/copy; (md5sum < /tmp/copy > /tmp/up) 2> /dev/null & \
         dd if=/dev/urandom of=/tmp/a bs=64k count=4 2> /dev/null; \
         (n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); echo $n; cat /tmp/a; done \
         | tee /tmp/copy | nc {host} {up}) > /dev/null 2>&1 &"
    ));
    kill_again_and_again(&mut net, kills(6));
    guest.check("touch /tmp/stop");
    let sum = |md5| format!("{md5}  -");
    let (heard, sent) = (heard.join().expect("the host's receiver"), down.end());
    wait_for("the guest's sums", || {
        std::thread::sleep(Duration::from_millis(300));
        (guest.run("[ -s /tmp/up ] && [ -s /tmp/down ]").status == 0).then_some(())
    });
    assert_eq!(guest.check("cat /tmp/up"), sum(heard), "from the guest to the host");
    assert_eq!(guest.check("cat /tmp/down"), sum(sent), "from the host to the guest");

    // A console's shell lives in the guest; the far end of the line has to connect again.
    guest.check("setsid sh -c 'exec sh < /dev/hvc1 > /dev/hvc1 2>&1' &");
    for round in 0..3 {
        let mut far = wait_for("the second console", || Console::connect(&terminal));
        let (from, word) = (far.position(), format!("still here {round}"));
        far.type_text(&format!("cd /tmp; echo still here {round}\n"));
        far.wait_for(from, PATIENCE, |heard| heard.contains(&format!("\n{word}")).then_some(()))
            .expect("the shell on the second console");
        console.kill();
        console.restart();
    }
    guest.power_off();
}
