//! Networks and consoles.

use std::time::Duration;

use atoll_tests::backend::Backend;
use atoll_tests::console::Console;
use atoll_tests::guest::Guest;
use atoll_tests::image::{md5, pattern};
use atoll_tests::network::Tap;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::{Root, StockKvm};
use atoll_tests::scratch::Scratch;
use atoll_tests::{PATIENCE, wait_for};

use super::{kill_again_and_again, kills};

const TRANSFER: usize = 8 << 20;

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

    let message = pattern(TRANSFER);
    let sum = format!("{}  -", md5(&scratch.write("sent", &message)));
    let (port, sent) = tap.send_to_guest(message);
    guest.check(&format!(
        "(nc {} {port} < /dev/null | md5sum > /tmp/sum; touch /tmp/over) > /dev/null 2>&1 &",
        tap.host()
    ));
    kill_again_and_again(&mut net, kills(6));
    wait_for("the end of the stream", || {
        std::thread::sleep(Duration::from_millis(300));
        (guest.run("[ -e /tmp/over ]").status == 0).then_some(())
    });
    assert_eq!(guest.check("cat /tmp/sum"), sum, "from the host to the guest");
    sent.join().expect("the host's sender");

    let (port, heard) = tap.hear_from_guest();
    guest.check(&format!(
        "dd if=/dev/urandom of=/tmp/a bs=1M count=4 2> /dev/null; md5sum < /tmp/a > /tmp/sum; \
         (nc {} {port} < /tmp/a) > /dev/null 2>&1 &",
        tap.host()
    ));
    kill_again_and_again(&mut net, kills(6).div_ceil(2));
    let heard = heard.join().expect("the host's receiver");
    let heard = format!("{}  -", md5(&scratch.write("heard", heard)));
    assert_eq!(guest.check("cat /tmp/sum"), heard, "from the guest to the host");

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
