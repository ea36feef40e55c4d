//! Ports on the command line and in a file.

use super::*;
use crate::config::{ConsoleConfig, Section as _};

fn names(console: &ConsoleConfig) -> Vec<&str> {
    console.ports.iter().map(|port| port.name.as_str()).collect()
}

#[test]
fn a_console_has_as_many_ports_as_are_named() {
    let console = ConsoleConfig::from_text(
        "pty,port=org.qemu.guest_agent.0:socket=/run/qga,port=log:file=l,id=c,port=t:pty=x",
    );
    let console = console.unwrap();
    assert_eq!(names(&console), ["org.qemu.guest_agent.0", "log", "t"]);
    assert_eq!(console.ports[0].to, ConsoleTo::Socket("/run/qga".into()));
    assert_eq!(console.ports[2].to, ConsoleTo::Pty(Some("x".into())));
    assert!(ConsoleConfig::from_text("pty").unwrap().ports.is_empty());
}

#[test]
fn a_file_has_one_port_or_an_array_of_them() {
    for (text, expected) in [
        ("socket = 's'\nport = 'a:pty'", vec!["a"]),
        ("socket = 's'\nport = ['a:pty', 'b:file=f']", vec!["a", "b"]),
    ] {
        let console = ConsoleConfig::from_table(text.parse().unwrap()).unwrap();
        assert_eq!(names(&console), expected);
    }
}

#[test]
fn what_is_no_port_is_refused_with_what_is() {
    for wrong in ["a", ":pty", "a:stdio", "a:socket", "a:socket=", "a:unix=b"] {
        let error = ConsoleConfig::from_text(&format!("pty,port={wrong}")).unwrap_err().to_string();
        assert!(error.contains("NAME:socket=PATH") && error.contains(wrong), "{error}");
    }
    assert!(ConsoleConfig::from_text("pty,port=a:pty,id=b,id=c").is_err(), "only ports repeat");
}
