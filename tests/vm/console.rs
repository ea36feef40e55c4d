//! Consoles: what is typed is read, what is written is seen.

use atoll_tests::PATIENCE;
use atoll_tests::console::Console;
use atoll_tests::guest::Guest;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::StockKvm;
use atoll_tests::scratch::Scratch;
use atoll_tests::wait_for;

#[test]
fn a_console_carries_text_both_ways_and_survives_its_driver() {
    require!(StockKvm);
    let scratch = Scratch::new();
    let socket = scratch.join("hvc1");
    let mut guest = Guest::builder().console(&format!("socket={}", socket.display())).boot();
    let mut console = wait_for("the second console", || Console::connect(&socket));
    let backends = guest.backends();

    for round in 0..2 {
        guest.check("stty -F /dev/hvc1 raw -echo");

        // Typed here, read there, and more than one buffer's worth of it.
        let typed: String = (0..2000).map(|line| format!("line {line}\n")).collect();
        guest.check(&format!("head -c {} < /dev/hvc1 > /tmp/typed & sleep 1", typed.len()));
        console.type_text(&typed);
        guest.check("wait");
        assert_eq!(guest.check("cat /tmp/typed"), typed.trim(), "round {round}");

        // Written there, seen here.
        let from = console.position();
        guest.check("cat /tmp/typed > /dev/hvc1");
        console
            .wait_for(from, PATIENCE, |heard| heard.contains(&typed).then_some(()))
            .expect("the guest's text on the console");

        guest.rebind("$(ls -d /sys/class/virtio-ports/* | tail -n 1)/device");
    }
    assert_eq!(guest.backends(), backends, "a backend lives on through a reset");
    guest.power_off();
}

#[test]
fn a_named_port_answers_beside_its_console() {
    require!(StockKvm);
    let scratch = Scratch::new();
    let (socket, agent) = (scratch.join("hvc1"), scratch.join("agent"));
    let to = format!("socket={},port=org.atoll.echo:socket={}", socket.display(), agent.display());
    let mut guest = Guest::builder().console(&to).boot();
    let console = wait_for("the second console", || Console::connect(&socket));
    guest.check("echo beside > /dev/hvc1");
    let beside = |heard: &str| heard.contains("beside").then_some(());
    console.wait_for(0, PATIENCE, beside).expect("text on the console");

    // Without udev a port has its number only; the name is what the device told.
    guest.check(
        "port=$(basename $(dirname $(grep -l org.atoll.echo /sys/class/virtio-ports/*/name))) && \
         (exec 3<> /dev/$port; while read line <&3; do echo \"heard $line\" >&3; done) &",
    );
    let mut outside = Console::connect(&agent).expect("the port's socket");
    for round in 0..3 {
        outside.type_text(&format!("round {round}\n"));
        let answer = format!("heard round {round}\n");
        outside
            .wait_for(0, PATIENCE, |heard| heard.contains(&answer).then_some(()))
            .expect("an answer from the port");
    }
    guest.power_off();
}
