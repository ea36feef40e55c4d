//! The control socket of a disk: what it tells, limits that change while requests wait, and clients
//! that do wrong.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use atoll_driver::{BlkRequest, Memory, Process, Survivor, TIMEOUT, pass_fd};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::disk::{Driver, Image, PROGRAM, USUAL};

/// A limit that lets one request through and the next not before the test is long over.
const ONE_REQUEST: &str = "--limit-bps=1";

fn socket(image: &Image) -> PathBuf {
    image.dir().join("control.sock")
}

fn serve_bare(image: &Image, more: &[&str]) -> Process {
    let control = format!("--control-socket={}", socket(image).display());
    image.serve(&[&[control.as_str()], more].concat())
}

fn serve(image: &Image, more: &[&str]) -> Process {
    let process = serve_bare(image, more);
    // The control socket is there as soon as the other is used.
    Driver::attach(image);
    process
}

/// The code and the body of the answer to `request`.
fn exchange(mut client: &UnixStream, request: &[u8]) -> (u16, String) {
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    // It may be refused before it is all sent.
    let _refused = client.write_all(request);
    let mut answer = Vec::new();
    let _reset = client.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (code, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn ask(image: &Image, what: &str, body: &str) -> (u16, String) {
    let client = UnixStream::connect(socket(image)).unwrap();
    let length = body.len();
    let request =
        format!("{what} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    exchange(&client, request.as_bytes())
}

fn json(image: &Image, what: &str, body: &str) -> Value {
    let (code, answer) = ask(image, what, body);
    assert_eq!(code, 200, "{answer}");
    serde_json::from_str(&answer).unwrap()
}

#[track_caller]
fn refused(image: &Image, what: &str, body: &str, code: u16, word: &str) {
    let (found, answer) = ask(image, what, body);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(found, code, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains(word), "{word:?} is not in {answer}");
}

/// Prometheus' text format, strictly: each sample behind the help and the type of its family, each
/// once, its labels quoted, its value a number; a histogram's buckets rise up to its count.
fn metrics(image: &Image) -> BTreeMap<String, f64> {
    let (code, text) = ask(image, "GET /metrics", "");
    assert_eq!(code, 200);
    assert!(text.ends_with('\n'));
    let mut samples = BTreeMap::new();
    let (mut helped, mut family, mut kind) = (String::new(), String::new(), String::new());
    let mut families = Vec::new();
    let mut bucket = 0.0;
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split_once(' ').unwrap().0.to_owned();
            continue;
        }
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, its_kind) = typed.split_once(' ').unwrap();
            assert_eq!(name, helped);
            assert!(["counter", "histogram"].contains(&its_kind), "{line}");
            assert!(!families.contains(&name.to_owned()), "{name} is there twice");
            families.push(name.to_owned());
            (family, kind) = (name.to_owned(), its_kind.to_owned());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.strip_suffix('}').unwrap().split_once('{').unwrap();
        for label in labels.split(',') {
            let (key, value) = label.split_once('=').unwrap();
            assert!(key.chars().all(|c| c.is_ascii_lowercase()), "{line}");
            assert!(value.len() > 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
        }
        let value: f64 = value.parse().unwrap();
        match kind.as_str() {
            "counter" => assert!(name == family && name.ends_with("_total"), "{line}"),
            _ => match name.strip_prefix(&family).unwrap() {
                "_bucket" => {
                    let first = labels.contains("le=\"0.00001\"");
                    assert!(first || value >= bucket, "{line}");
                    bucket = value;
                }
                "_count" => assert_eq!(value, bucket, "{line}"),
                other => assert_eq!(other, "_sum", "{line}"),
            },
        }
        assert!(samples.insert(series.to_owned(), value).is_none(), "{series} is there twice");
    }
    samples
}

fn counted(image: &Image, name: &str) -> f64 {
    metrics(image)[&format!("atoll_{name}{{device=\"blk\",queue=\"0\"}}")]
}

fn wait_until_throttled(image: &Image) {
    let start = Instant::now();
    while counted(image, "throttled_total") == 0.0 {
        assert!(start.elapsed() < TIMEOUT, "nothing is throttled");
    }
}

#[test]
fn a_disk_tells_what_it_is_and_what_it_has_done() {
    let image = Image::new();
    let mut process = serve(&image, &["--num-queues=2"]);
    let mut driver = Driver::attach(&image);
    driver.write(0, &[1; 1024]);
    driver.read(0, 512);
    driver.read(1 << 40, 512);
    let about = json(&image, "GET /", "");
    assert_eq!((&about["device"], &about["queues"]), (&json!("blk"), &json!(2)));
    assert_eq!(about["pid"], process.id());
    assert_eq!(counted(&image, "requests_total"), 3.0);
    assert_eq!(counted(&image, "request_errors_total"), 1.0);
    assert_eq!(counted(&image, "readable_bytes_total"), 3.0 * 16.0 + 1024.0);
    assert_eq!(counted(&image, "written_bytes_total"), 1.0 + 513.0);
    assert_eq!(counted(&image, "throttled_total"), 0.0);
    assert_eq!(counted(&image, "request_seconds_count"), 3.0);
    assert!(counted(&image, "request_seconds_sum") > 0.0);
    let mode = std::fs::metadata(socket(&image)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    process.terminate().unwrap();
    assert!(!socket(&image).exists());
}

#[test]
fn what_waits_for_a_limit_goes_on_when_the_limit_goes() {
    let image = Image::new();
    let _process = serve(&image, &[ONE_REQUEST]);
    let mut driver = Driver::attach(&image);
    driver.assert_serves();
    let request = BlkRequest::read(driver.device.memory(), 0, 512).unwrap();
    driver.queue.submit(&request.buffers()).unwrap();
    wait_until_throttled(&image);
    assert_eq!(counted(&image, "requests_total"), 1.0);
    let limits = json(&image, "PATCH /limits", r#"{"bps": 0, "iops": 1000000}"#);
    assert_eq!(limits, json!({"bps": 0, "bps_burst": 0, "iops": 1_000_000, "iops_burst": 0}));
    driver.queue.wait(TIMEOUT).unwrap();
    assert_eq!(json(&image, "GET /limits", ""), limits);
    assert_eq!(counted(&image, "requests_total"), 2.0);
}

#[test]
fn a_process_whose_queue_waits_for_a_limit_ends_when_it_is_asked_to() {
    let image = Image::new();
    let mut process = serve(&image, &[ONE_REQUEST]);
    let mut driver = Driver::attach(&image);
    driver.assert_serves();
    let request = BlkRequest::read(driver.device.memory(), 0, 512).unwrap();
    driver.queue.submit(&request.buffers()).unwrap();
    wait_until_throttled(&image);
    let (status, stderr) = process.terminate().unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_limit_can_be_set_while_requests_run() {
    let image = Image::new();
    let _process = serve(&image, &[]);
    let mut driver = Driver::attach(&image);
    (0..100).for_each(|_| driver.assert_serves());
    assert_eq!(counted(&image, "throttled_total"), 0.0);
    json(&image, "PATCH /limits", r#"{"bps": 1}"#);
    driver.assert_serves();
    let request = BlkRequest::read(driver.device.memory(), 0, 512).unwrap();
    driver.queue.submit(&request.buffers()).unwrap();
    wait_until_throttled(&image);
    assert_eq!(counted(&image, "requests_total"), 101.0);
}

#[test]
fn a_throttled_queue_keeps_its_order_through_stops_and_gives_back_what_waits() {
    let image = Image::new();
    let _process = serve(&image, &[ONE_REQUEST]);
    let mut driver = Driver::attach(&image);
    driver.assert_serves();
    let memory = driver.device.memory().clone();
    let requests: Vec<_> = (0..4).map(|_| BlkRequest::read(&memory, 0, 512).unwrap()).collect();
    let heads: Vec<_> =
        requests.iter().map(|request| driver.queue.submit(&request.buffers()).unwrap()).collect();
    wait_until_throttled(&image);
    // The ring stops with all of them still to be done, and goes on with them.
    let base = driver.device.stop_queue(&driver.queue).unwrap();
    assert_eq!(base, 1);
    assert!(driver.queue.take_used().unwrap().is_none());
    driver.device.attach(&driver.queue, base).unwrap();
    driver.device.enable(&driver.queue, true).unwrap();
    json(&image, "PATCH /limits", r#"{"bps": 0}"#);
    let done: Vec<_> = heads.iter().map(|_| driver.queue.wait(TIMEOUT).unwrap().head).collect();
    assert_eq!(done, heads);
}

#[test]
fn what_waits_for_a_limit_when_its_process_is_killed_is_done_by_the_next() {
    let image = Image::new();
    let memory = Memory::new(16 << 20).unwrap();
    let mut survivor = Survivor::new(memory.clone(), 16, USUAL).unwrap();
    let mut process = serve_bare(&image, &[ONE_REQUEST]);
    let first = survivor.attach(image.socket()).unwrap();
    let writes: Vec<_> = (0..4_u8)
        .map(|number| BlkRequest::write(&memory, number.into(), &[number; 512]).unwrap())
        .collect();
    for write in &writes {
        survivor.queue.submit(&write.buffers()).unwrap();
    }
    survivor.queue.wait(TIMEOUT).unwrap();
    wait_until_throttled(&image);
    process.signal(Signal::SIGKILL).unwrap();
    process.wait().unwrap();
    drop(first);
    let _next = serve_bare(&image, &["--limit-iops=1000"]);
    let _device = survivor.attach(image.socket()).unwrap();
    for _ in 1..4 {
        survivor.queue.wait(TIMEOUT).unwrap();
    }
    for (number, write) in (0..4_u8).zip(&writes) {
        assert_eq!(write.status(&memory).unwrap(), BlkRequest::OK);
        assert_eq!(image.read(number.into(), 512), [number; 512]);
    }
}

#[test]
fn a_disk_is_made_longer_and_the_driver_is_told() {
    let image = Image::new();
    let _process = serve(&image, &[]);
    let mut driver = Driver::attach(&image);
    let capacity = |driver: &mut Driver| {
        u64::from_le_bytes(driver.device.config(0, 8).unwrap().try_into().unwrap())
    };
    let before = json(&image, "GET /", "")["size"].as_u64().unwrap();
    assert_eq!(capacity(&mut driver), before / 512);
    assert_eq!(driver.write(before / 512, &[2; 512]), BlkRequest::IOERR);
    let longer = before + 4096;
    let now = json(&image, "PATCH /size", &format!("{{\"size\": {longer}}}"));
    assert_eq!(now, json!({ "size": longer }));
    driver.device.wait_config_change(TIMEOUT).unwrap();
    assert_eq!(capacity(&mut driver), longer / 512);
    assert_eq!(driver.write(before / 512, &[2; 512]), BlkRequest::OK);
    // As long as the image has become by somebody else.
    std::fs::File::options().write(true).open(image.path()).unwrap().set_len(2 * longer).unwrap();
    assert_eq!(json(&image, "PATCH /size", "{}"), json!({ "size": 2 * longer }));
    driver.device.wait_config_change(TIMEOUT).unwrap();
    assert_eq!(capacity(&mut driver), 2 * longer / 512);
    refused(&image, "PATCH /size", "{\"size\": 512}", 409, "shorter");
    refused(&image, "PATCH /size", "{\"size\": 99999999}", 409, "multiple of 512");
    refused(&image, "PATCH /size", "{\"length\": 1}", 400, "BYTES");
    refused(&image, "PATCH /link", "{\"up\": false}", 409, "blk device has no link");
    assert_eq!(capacity(&mut driver), 2 * longer / 512);
}

#[test]
fn wrong_requests_are_told_what_is_wrong() {
    let image = Image::new();
    let _process = serve(&image, &[]);
    refused(&image, "GET /nothing", "", 404, "/metrics");
    refused(&image, "PUT /metrics", "", 405, "takes GET");
    refused(&image, "DELETE /limits", "", 405, "PATCH");
    for body in ["", "7", "{\"bps\": -1}", "{\"bps\": \"fast\"}", "{\"bandwidth\": 1}"] {
        refused(&image, "PATCH /limits", body, 400, "bps_burst");
    }
    refused(&image, "PATCH /limits", "{\"iops_burst\": 5}", 400, "there is no iops");
    assert_eq!(json(&image, "GET /limits", "")["iops_burst"], 0);
}

#[test]
fn rude_clients_cost_nothing_and_the_disk_goes_on() {
    let image = Image::new();
    let process = serve(&image, &[]);
    let mut driver = Driver::attach(&image);
    driver.assert_serves();
    let client = || UnixStream::connect(socket(&image)).unwrap();
    assert_eq!(exchange(&client(), b"\x16\x03\x01\r\n\r\n").0, 400);
    assert_eq!(exchange(&client(), &vec![b'x'; 1 << 20]).0 / 100, 4);
    assert_eq!(
        exchange(&client(), b"PATCH /limits HTTP/1.1\r\nContent-Length: 99999\r\n\r\n").0,
        413
    );
    let before = process.anonymous_kib().unwrap();
    // Much is asked and nothing read.
    let mut greedy = client();
    greedy.set_nonblocking(true).unwrap();
    let asked = "GET /metrics HTTP/1.1\r\n\r\n".repeat(40_000);
    let _as_much_as_fits = greedy.write(asked.as_bytes());
    let silent: Vec<_> = (0..64).map(|_| client()).collect();
    assert_eq!(exchange(&client(), b"GET / HTTP/1.1\r\n\r\n").0, 503);
    driver.assert_serves();
    let after = process.anonymous_kib().unwrap();
    assert!(after < before + 2048, "{before} KiB, then {after} KiB");
    drop((silent, greedy));
    let start = Instant::now();
    while ask(&image, "GET /", "").0 != 200 {
        assert!(start.elapsed() < TIMEOUT, "no place becomes free");
    }
}

#[test]
fn a_control_connection_may_be_inherited() {
    let image = Image::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(image.args()).arg("--control-fd=3");
    pass_fd(&mut command, &theirs, 3).unwrap();
    let mut process = Process::run(&mut command).unwrap();
    drop(theirs);
    let request = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
    let (code, about) = exchange(&ours, request);
    assert_eq!(code, 200);
    assert!(about.contains("\"device\":\"blk\""), "{about}");
    drop(ours);
    Driver::attach(&image).assert_serves();
    assert!(process.running().unwrap());
}

#[test]
fn wrong_limits_are_refused_at_the_start() {
    for (option, word) in [
        ("--limit-bps=0", "above zero"),
        ("--limit-iops=fast", "above zero"),
        ("--limit-bps=99999999999G", "above zero"),
        ("--limit-iops-burst=5", "--limit-iops"),
    ] {
        let args = ["--socket-path=s", "--blk-file=f", option];
        let output = Command::new(PROGRAM).args(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.lines().count() == 1 && stderr.contains(word), "{stderr}");
    }
}
