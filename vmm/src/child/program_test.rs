//! Which arguments a backend gets.

use super::*;
use crate::config::Section;

fn arguments(config: &BackendConfig) -> Vec<OsString> {
    let origin = Origin { host: None, vm: Some(Path::new("/run/vm")), id: "net0" };
    command_line(config, 1, origin).unwrap().1
}

#[test]
fn each_backend_is_confined_unless_its_sandbox_is_off() {
    let disk = |text| BackendConfig::Disk(DiskConfig::from_text(text).unwrap());
    let net = |text| BackendConfig::Net(NetConfig::from_text(text).unwrap());
    let console = |text| BackendConfig::Console(ConsoleConfig::from_text(text).unwrap());
    let off = OsString::from("--no-sandbox");
    for confined in [disk("path=a"), net("tap=t"), net("user"), console("pty")] {
        assert!(!arguments(&confined).contains(&off), "{confined:?}");
    }
    for free in [
        disk("path=a,sandbox=off"),
        net("tap=t,sandbox=off"),
        net("user,sandbox=off"),
        console("pty,sandbox=off"),
    ] {
        assert!(arguments(&free).contains(&off), "{free:?}");
    }
}

#[test]
fn a_network_card_is_told_what_it_is_attached_to() {
    let told: [(&str, &[&str]); 7] = [
        ("tap=tap0", &["--tap=tap0"]),
        ("bridge=br0", &["--bridge=br0"]),
        ("macvtap=mv0", &["--macvtap=mv0"]),
        ("stream=/run/a", &["--stream=/run/a"]),
        ("stream=/run/a,server=on", &["--stream-server=/run/a"]),
        ("dgram=/run/a,remote=/run/b", &["--dgram", "/run/a", "/run/b"]),
        ("user,hostfwd=tcp:1:2+udp:3:4", &["--user-net", "--hostfwd=tcp:1:2", "--hostfwd=udp:3:4"]),
    ];
    for (text, expected) in told {
        let arguments = arguments(&BackendConfig::Net(NetConfig::from_text(text).unwrap()));
        assert_eq!(arguments[..expected.len()], *expected, "{text}");
    }
}

#[test]
fn a_card_has_the_address_it_was_given_and_else_one_of_its_own() {
    let macs = |text| {
        let arguments = arguments(&BackendConfig::Net(NetConfig::from_text(text).unwrap()));
        let macs = arguments.into_iter().filter_map(|argument| argument.into_string().ok());
        macs.filter(|argument| argument.starts_with("--mac=")).collect::<Vec<_>>()
    };
    assert_eq!(macs("user,mac=52:54:00:12:34:56"), ["--mac=52:54:00:12:34:56"]);
    assert_eq!(macs("user").len(), 1);
    assert_eq!(macs("user"), macs("user,mtu=1400"), "it is where it is attached to that counts");
    assert!(macs("tap=tap0").is_empty(), "a host that nothing tells from others");
}
