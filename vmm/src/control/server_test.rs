//! Clients of a control socket: polite, slow, rude, and many.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex};

use atoll_http::MAX_CONNECTIONS;
use serde_json::{Value, json};

use super::*;
use crate::control::{Info, MachineState};
use crate::vhost_user::DeviceStatus;

/// A machine that does what it is asked, when it is let.
#[derive(Default)]
struct Double {
    acted: Mutex<Vec<Action>>,
    held: Mutex<bool>,
    let_go: Condvar,
}

impl Machine for Double {
    fn info(&self) -> Info {
        Info {
            version: "0",
            pid: 1,
            state: MachineState::Running,
            paused_by: Vec::new(),
            cpus: 1,
            memory_bytes: 0,
            kernel: "/kernel".into(),
            boots: 1,
            uptime_ms: 0,
            devices: 0,
            consoles: Vec::new(),
        }
    }

    fn is_known_elsewhere(&self) -> bool {
        false
    }

    fn devices(&self) -> Vec<DeviceStatus> {
        Vec::new()
    }

    fn act(&self, action: Action) -> Result<Outcome, Refusal> {
        let held = self.held.lock().unwrap();
        let _held = self.let_go.wait_while(held, |held| *held).unwrap();
        if action == Action::PowerButton {
            return Err(Refusal::Conflict("the machine has ended".to_owned()));
        }
        self.acted.lock().unwrap().push(action);
        Ok(Outcome::Done)
    }
}

struct Rig {
    server: Option<Server>,
    machine: Arc<Double>,
    events: Arc<EventLog>,
    directory: tempfile::TempDir,
}

fn rig() -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let socket = Socket::open(Some(&directory.path().join("control"))).unwrap().unwrap();
    let (machine, events) = (Arc::new(Double::default()), Arc::new(EventLog::new().unwrap()));
    let server = Server::start(socket, machine.clone(), events.clone()).unwrap();
    Rig { server: Some(server), machine, events, directory }
}

impl Rig {
    fn client(&self) -> UnixStream {
        let client = UnixStream::connect(self.directory.path().join("control")).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client
    }

    /// Whether `text` is answered with `status` and a body that is this value.
    #[track_caller]
    fn ask(&self, request: &str) -> (String, Value) {
        let mut client = self.client();
        write!(client, "{request} HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        parse(&answer)
    }

    fn hold(&self, hold: bool) {
        *self.machine.held.lock().unwrap() = hold;
        self.machine.let_go.notify_all();
    }
}

fn parse(answer: &str) -> (String, Value) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.lines().next().unwrap().trim_start_matches("HTTP/1.1 ");
    (status.to_owned(), serde_json::from_str(body).unwrap_or(Value::Null))
}

/// Reads until `text` has come.
#[track_caller]
fn read_until(client: &mut UnixStream, text: &str) -> String {
    let mut heard = String::new();
    while !heard.contains(text) {
        let mut chunk = [0; 512];
        let count = client.read(&mut chunk).unwrap();
        assert_ne!(count, 0, "closed after: {heard}");
        heard.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
    }
    heard
}

#[test]
fn a_question_is_answered_with_json() {
    let (status, info) = rig().ask("GET /api/v1/vm.info");
    assert_eq!(status, "200 OK");
    assert_eq!((&info["state"], &info["cpus"]), (&json!("running"), &json!(1)));
}

#[test]
fn an_action_is_done_and_a_refused_one_says_why() {
    let rig = rig();
    assert_eq!(rig.ask("PUT /api/v1/vm.pause").0, "204 No Content");
    assert_eq!(*rig.machine.acted.lock().unwrap(), [Action::Pause]);
    let (status, body) = rig.ask("PUT /api/v1/vm.power-button");
    assert_eq!(
        (status.as_str(), &body["error"]),
        ("409 Conflict", &json!("the machine has ended"))
    );
}

#[test]
fn a_device_that_does_not_exist_is_not_found() {
    let (status, body) = rig().ask("GET /api/v1/devices/disk9");
    assert_eq!(status, "404 Not Found");
    assert!(body["error"].as_str().unwrap().contains("disk9"));
}

#[test]
fn several_requests_go_over_one_connection_in_their_order() {
    let rig = rig();
    let mut client = rig.client();
    let requests = "PUT /api/v1/vm.pause HTTP/1.1\r\n\r\nGET /api/v1/vm.info HTTP/1.1\r\n\r\n\
                    PUT /api/v1/vm.resume HTTP/1.1\r\nConnection: close\r\n\r\n";
    client.write_all(requests.as_bytes()).unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).unwrap();
    let statuses: Vec<_> = answers.lines().filter(|line| line.starts_with("HTTP/1.1")).collect();
    assert_eq!(statuses, ["HTTP/1.1 204 No Content", "HTTP/1.1 200 OK", "HTTP/1.1 204 No Content"]);
    assert_eq!(*rig.machine.acted.lock().unwrap(), [Action::Pause, Action::Resume]);
}

#[test]
fn a_client_that_closes_its_own_direction_still_gets_its_answer() {
    let rig = rig();
    let mut client = rig.client();
    client.write_all(b"PUT /api/v1/vm.pause HTTP/1.1\r\n\r\n").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(parse(&answer).0, "204 No Content");
}

#[test]
fn an_action_that_takes_long_keeps_nobody_else_waiting() {
    let rig = rig();
    rig.hold(true);
    let mut slow = rig.client();
    slow.write_all(b"PUT /api/v1/vm.pause HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(rig.ask("GET /api/v1/vm.info").0, "200 OK");
    rig.hold(false);
    read_until(&mut slow, "204 No Content");
}

#[test]
fn no_more_than_eight_actions_are_done_at_once() {
    let rig = rig();
    rig.hold(true);
    let mut clients: Vec<_> = (0..MAX_ACTIONS + 1).map(|_| rig.client()).collect();
    for client in &mut clients {
        client.write_all(b"PUT /api/v1/vm.pause HTTP/1.1\r\n\r\n").unwrap();
    }
    read_until(clients.last_mut().unwrap(), "503 Service Unavailable");
    rig.hold(false);
    read_until(clients.first_mut().unwrap(), "204 No Content");
}

#[test]
fn what_is_not_http_is_refused_and_the_connection_closed() {
    let rig = rig();
    let mut client = rig.client();
    client.write_all(b"\x00\x01\x02\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(parse(&answer).0, "400 Bad Request");
}

#[test]
fn a_request_without_end_is_refused_after_so_many_bytes() {
    let rig = rig();
    let mut client = rig.client();
    let endless = vec![b'x'; 1 << 20];
    // Refused long before the last of it is taken.
    let _closed = client.write_all(&endless);
    let mut answer = Vec::new();
    let _reset = client.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn one_client_too_many_is_told_so_and_the_others_stay() {
    let rig = rig();
    let mut clients: Vec<_> = (0..MAX_CONNECTIONS).map(|_| rig.client()).collect();
    let mut one_more = rig.client();
    let mut answer = String::new();
    one_more.read_to_string(&mut answer).unwrap();
    assert_eq!(parse(&answer).0, "503 Service Unavailable");
    for client in &mut clients {
        client.write_all(b"GET /api/v1/vm.info HTTP/1.1\r\n\r\n").unwrap();
        read_until(client, "200 OK");
    }
}

#[test]
fn followers_get_what_was_and_what_comes() {
    let rig = rig();
    rig.events.publish(&json!({ "kind": "first" }));
    let mut client = rig.client();
    client.write_all(b"GET /api/v1/vm.events HTTP/1.1\r\n\r\n").unwrap();
    let heard = read_until(&mut client, "first");
    assert!(heard.contains("Content-Type: application/x-ndjson"), "{heard}");
    rig.events.publish(&json!({ "kind": "second" }));
    read_until(&mut client, "\"seq\":2");
}

#[test]
fn who_does_not_follow_gets_what_was_and_the_end() {
    let rig = rig();
    rig.events.publish(&json!({ "kind": "first" }));
    rig.events.publish(&json!({ "kind": "second" }));
    let mut client = rig.client();
    client.write_all(b"GET /api/v1/vm.events?since=1&follow=false HTTP/1.1\r\n\r\n").unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    let lines: Vec<_> = heard.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(lines.len(), 1, "{heard}");
    assert!(lines[0].contains("second"));
}

#[test]
fn a_follower_that_does_not_read_is_let_go_and_keeps_nobody_waiting() {
    let rig = rig();
    let mut lazy = rig.client();
    lazy.write_all(b"GET /api/v1/vm.events HTTP/1.1\r\n\r\n").unwrap();
    read_until(&mut lazy, "\r\n\r\n");
    let text = "x".repeat(4096);
    for _ in 0..2000 {
        rig.events.publish(&json!({ "kind": "much", "text": text }));
    }
    assert_eq!(rig.ask("GET /api/v1/vm.info").0, "200 OK");
    // What was on its way comes, and then the end: less than there was.
    let mut heard = Vec::new();
    lazy.read_to_end(&mut heard).unwrap();
    assert!(heard.len() < 2000 * text.len(), "{} bytes", heard.len());
}

#[test]
fn the_last_event_reaches_followers_before_the_server_ends() {
    let mut rig = rig();
    let mut client = rig.client();
    client.write_all(b"GET /api/v1/vm.events HTTP/1.1\r\n\r\n").unwrap();
    read_until(&mut client, "\r\n\r\n");
    rig.events.publish(&json!({ "kind": "ended" }));
    drop(rig.server.take());
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    assert!(heard.contains("ended"), "{heard}");
    assert!(!rig.directory.path().join("control").exists());
}
