//! What `--port` takes.

use super::*;

#[test]
fn a_port_has_a_name_and_a_way_out() {
    let port: PortOption = "org.qemu.guest_agent.0:unix=/run/a:b=c".parse().unwrap();
    assert_eq!(port.name, "org.qemu.guest_agent.0");
    assert_eq!(port.to, To::Unix("/run/a:b=c".into()));
    let to = |text: &str| text.parse::<PortOption>().map(|port| port.to);
    assert_eq!(to("a:socket=b"), Ok(To::Unix("b".into())));
    assert_eq!(to("a:pty"), Ok(To::Pty(None)));
    assert_eq!(to("a:pty=b"), Ok(To::Pty(Some("b".into()))));
    assert_eq!(to("a:file=b"), Ok(To::File("b".into())));
}

#[test]
fn anything_else_is_refused_with_what_would_do() {
    for wrong in ["a", ":pty", "a/b:pty", "a b:pty", "a:", "a:stdio", "a:unix", "a:unix=", "a:x=y"]
    {
        let complaint = wrong.parse::<PortOption>().unwrap_err();
        assert!(
            complaint.contains("1 to 128") || complaint.contains("pty"),
            "{wrong}: {complaint}"
        );
    }
    assert!(format!("{}:pty", "x".repeat(129)).parse::<PortOption>().is_err());
}
