//! Requests and what they ask for.

use super::*;

fn request(line: &str, body: &str) -> Request {
    let (method, target) = line.split_once(' ').unwrap();
    let length = body.len();
    let text = format!("{method} {target} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}");
    atoll_http::take_request(&mut text.into_bytes()).unwrap().unwrap()
}

fn asked(line: &str) -> Wish {
    wish(&request(line, "")).unwrap()
}

#[track_caller]
fn refused(line: &str, body: &str, status: Status, word: &str) {
    let unserved = wish(&request(line, body)).unwrap_err();
    assert_eq!(unserved.status, status, "{}", unserved.why);
    assert!(unserved.why.contains(word), "{}", unserved.why);
}

#[test]
fn each_documented_request_is_known() {
    assert_eq!(asked("GET /api/v1/vm.info"), Wish::Info);
    assert_eq!(asked("PUT /api/v1/vm.pause"), Wish::Act(Action::Pause));
    assert_eq!(asked("PUT /api/v1/vm.resume"), Wish::Act(Action::Resume));
    assert_eq!(asked("PUT /api/v1/vm.power-button"), Wish::Act(Action::PowerButton));
    assert_eq!(asked("GET /api/v1/devices"), Wish::Devices);
    assert_eq!(asked("GET /api/v1/devices/disk0"), Wish::Device("disk0".to_owned()));
    let reattach = Wish::Act(Action::Reattach { id: "disk0".to_owned() });
    assert_eq!(asked("PUT /api/v1/devices/disk0/reattach"), reattach);
    let swap = request("PUT /api/v1/devices/disk0/swap", r#"{"socket": "/run/new"}"#);
    let action = Action::Swap { id: "disk0".to_owned(), socket: "/run/new".into() };
    assert_eq!(wish(&swap), Ok(Wish::Act(action)));
}

#[test]
fn events_are_followed_from_where_the_client_says() {
    let events = |since, follow| Wish::Events { since, follow };
    assert_eq!(asked("GET /api/v1/vm.events"), events(None, true));
    assert_eq!(asked("GET /api/v1/vm.events?since=7"), events(Some(7), true));
    assert_eq!(asked("GET /api/v1/vm.events?follow=false"), events(None, false));
    refused("GET /api/v1/vm.events?since=x", "", Status::BadRequest, "since=x");
    refused("GET /api/v1/vm.events?from=7", "", Status::BadRequest, "from=7");
}

#[test]
fn a_path_that_does_not_exist_is_named() {
    refused("GET /", "", Status::NotFound, "nothing at /;");
    refused("GET /api/v1/", "", Status::NotFound, "/api/v1/");
    refused("GET /api/v2/vm.info", "", Status::NotFound, "/api/v2/vm.info");
    refused("PUT /api/v1/devices/disk0/explode", "", Status::NotFound, "explode");
}

#[test]
fn a_wrong_method_is_told_the_right_one() {
    refused("PUT /api/v1/vm.info", "", Status::MethodNotAllowed, "takes GET");
    refused("GET /api/v1/vm.pause", "", Status::MethodNotAllowed, "takes PUT");
    refused("GET /api/v1/devices/disk0/swap", "", Status::MethodNotAllowed, "takes PUT");
}

#[test]
fn a_swap_without_its_socket_is_told_what_it_takes() {
    let swap = "PUT /api/v1/devices/disk0/swap";
    for body in ["", "{}", "[]", r#"{"socket": 3}"#, r#"{"socket": "/a", "force": true}"#] {
        refused(swap, body, Status::BadRequest, r#"{"socket": "PATH"}"#);
    }
}

#[test]
fn what_is_turned_on_a_device_is_understood_and_what_is_wrong_is_named() {
    let id = || "disk0".to_owned();
    let patch = |what: &str, body: &str| {
        wish(&request(&format!("PATCH /api/v1/devices/disk0/{what}"), body)).unwrap()
    };
    assert_eq!(asked("GET /metrics"), Wish::Act(Action::Metrics));
    assert_eq!(asked("GET /api/v1/metrics"), Wish::Act(Action::Metrics));
    let limits = Wish::Act(Action::Limits { id: id() });
    assert_eq!(asked("GET /api/v1/devices/disk0/limits"), limits);
    let limit = Action::Limit { id: id(), change: [("bps", 7), ("iops", 0)].into() };
    assert_eq!(patch("limits", r#"{"iops": 0, "bps": 7}"#), Wish::Act(limit));
    let resize = |size| Wish::Act(Action::Resize { id: id(), size });
    assert_eq!(patch("size", r#"{"size": 512}"#), resize(Some(512)));
    assert_eq!(patch("size", "{}"), resize(None));
    let link = Wish::Act(Action::Link { id: id(), up: false });
    assert_eq!(patch("link", r#"{"up": false}"#), link);
    let wrong = |what: &str, body, word| {
        let line = format!("PATCH /api/v1/devices/disk0/{what}");
        refused(&line, body, Status::BadRequest, word);
    };
    wrong("limits", r#"{"evil": 7}"#, "`evil`; there are bps, bps_burst");
    wrong("limits", r#"{"bps": -7}"#, "numbers");
    wrong("size", r#"{"size": "big"}"#, "BYTES");
    wrong("link", "", "true");
    for (line, allowed) in [
        ("PUT /api/v1/devices/disk0/limits", "GET or PATCH"),
        ("GET /api/v1/devices/disk0/size", "PATCH"),
        ("POST /metrics", "GET"),
    ] {
        refused(line, "", Status::MethodNotAllowed, allowed);
    }
}
