use std::ffi::OsString;
use std::io::{self, Read};

use super::{COMPLAINT, arguments, last_words};
use crate::Forward;

#[test]
fn what_passt_says_each_time_is_no_complaint() {
    let said = "Don't run as root. Changing to nobody...\nFailed to send 42 bytes to syslog\n\n\
                Couldn't open PID file\nno route\n";
    assert_eq!(last_words(said.as_bytes()), "Couldn't open PID file; no route");
}

#[test]
fn a_passt_that_talks_without_end_is_heard_out_and_its_beginning_kept() {
    let mut endless = io::repeat(b'x').take(10 * COMPLAINT);
    assert_eq!(last_words(&mut endless), "x".repeat(COMPLAINT as usize));
    assert_eq!(endless.limit(), 0, "else it would wait for somebody to read the rest");
}

#[test]
fn no_port_leads_to_the_guest_but_those_that_were_asked_for() {
    let of = |forwards: &[&str]| {
        let forwards: Vec<Forward> = forwards.iter().map(|text| text.parse().unwrap()).collect();
        arguments(&forwards).into_iter().map(OsString::into_string).map(Result::unwrap)
    };
    let none: Vec<_> = of(&[]).collect();
    assert_eq!(none, ["--tcp-ports", "none", "--udp-ports", "none"]);
    let some: Vec<_> = of(&["udp:53:5353", "udp:[::1]:54:54"]).collect();
    let expected = ["--udp-ports", "53:5353", "--udp-ports", "::1/54:54", "--tcp-ports", "none"];
    assert_eq!(some, expected);
}
