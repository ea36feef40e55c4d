use super::{Forward, NotForward};

#[test]
fn a_forwarded_port_reads_as_it_prints_and_is_told_to_passt() {
    for (text, specification) in [
        ("tcp:2222:22", "2222:22"),
        ("udp:127.0.0.1:53:5353", "127.0.0.1/53:5353"),
        ("tcp:[::1]:8080:80", "::1/8080:80"),
    ] {
        let forward: Forward = text.parse().unwrap();
        assert_eq!(forward.to_string(), text);
        assert_eq!(forward.specification(), specification);
    }
}

#[test]
fn what_is_no_forwarded_port_is_refused() {
    let wrong = ["", "2222:22", "tcp:22", "tcp:0:22", "tcp:65536:22", "tcp:x:1:2", "icmp:1:2"];
    for text in wrong {
        assert_eq!(text.parse::<Forward>(), Err(NotForward), "{text}");
    }
}
