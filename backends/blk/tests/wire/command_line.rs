//! What is wrong with a command line or an image is one sentence that names it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use atoll_driver::Process;

use crate::disk::{Driver, Image, PROGRAM};

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().unwrap()
}

/// One line on standard error that starts with the program's name and contains `words`.
fn assert_one_sentence(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("atoll-blk: "), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in {stderr:?}");
    }
    assert!(output.stdout.is_empty());
}

fn assert_image_refused(image: &Image, more: &[&str], words: &[&str]) {
    let args = image.args();
    let args: Vec<_> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let path = image.path().display().to_string();
    let words: Vec<_> = words.iter().copied().chain([path.as_str()]).collect();
    assert_one_sentence(&run(&args), 1, &words);
    assert!(!image.socket().exists(), "no socket without a disk behind it");
}

#[test]
fn capabilities_are_json() {
    let output = run(&["--print-capabilities"]);
    assert!(output.status.success());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = serde_json::json!({"type": "block", "features": ["read-only", "blk-file"]});
    assert_eq!(json, expected);
}

#[test]
fn help_shows_examples() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for word in
        ["Examples:", "--socket-path", "--fd", "--blk-file", "--format", "--serial", "Exit codes"]
    {
        assert!(help.contains(word), "{word:?} is not in {help}");
    }
}

#[test]
fn wrong_options_are_named() {
    for (args, words) in [
        (&["--socket-path=s"][..], &["--blk-file"][..]),
        (&["--socket-path=s", "--blk-file=f", "--blkfile=g"], &["--blkfile", "--blk-file"]),
        (&["--socket-path=s", "--fd=3", "--blk-file=f"], &["--socket-path", "--fd"]),
        (&["--fd=x", "--blk-file=f"], &["--fd", "x"]),
        (&["--fd=3", "--blk-file=f", "--num-queues=0"], &["--num-queues", "0"]),
        (&["--fd=3", "--blk-file=f", "--num-queues=257"], &["--num-queues", "257"]),
        (&["--fd=3", "--blk-file=f", "--serial=123456789012345678901"], &["20 ASCII"]),
        (&["--fd=3", "--blk-file=f", "extra"], &["extra"]),
    ] {
        assert_one_sentence(&run(args), 2, words);
    }
}

#[test]
fn no_socket_and_bad_sockets_are_named() {
    let image = Image::new();
    let blk_file = format!("--blk-file={}", image.path().display());
    assert_one_sentence(&run(&[&blk_file]), 2, &["--socket-path", "--fd"]);
    let long = format!("--socket-path=/tmp/{}", "x".repeat(120));
    assert_one_sentence(&run(&[&blk_file, &long]), 2, &["has 125 bytes", "107"]);
    let nowhere = "--socket-path=/nonexistent/dir/blk.sock";
    assert_one_sentence(&run(&[&blk_file, nowhere]), 1, &["/nonexistent/dir/blk.sock"]);
    assert_one_sentence(&run(&[&blk_file, "--fd=77"]), 1, &["descriptor 77 is not open"]);
    assert_one_sentence(&run(&[&blk_file, "--fd=0"]), 1, &["descriptor 0 is not a Unix socket"]);
}

#[test]
fn bad_images_are_named() {
    let image = Image::new();
    fs::remove_file(image.path()).unwrap();
    assert_image_refused(&image, &[], &["cannot open", "No such file"]);

    fs::create_dir(image.path()).unwrap();
    assert_image_refused(&image, &[], &["a directory"]);
    fs::remove_dir(image.path()).unwrap();

    nix::unistd::mkfifo(&image.path(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_image_refused(&image, &[], &["a pipe"]);
    fs::remove_file(image.path()).unwrap();

    fs::write(image.path(), b"").unwrap();
    assert_image_refused(&image, &[], &["is empty"]);

    fs::write(image.path(), [0; 1000]).unwrap();
    assert_image_refused(&image, &[], &["1000 bytes", "multiple of 512"]);
}

#[test]
fn an_image_that_may_not_be_written_is_named() {
    if nix::unistd::geteuid().is_root() {
        // Permissions do not bind root; a read-only device does.
        let output = run(&["--socket-path=s", "--blk-file=/proc/version"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr.contains("/proc/version"), "{stderr}");
        return;
    }
    let image = Image::new();
    fs::set_permissions(image.path(), fs::Permissions::from_mode(0o444)).unwrap();
    assert_image_refused(&image, &[], &["cannot write to", "--read-only"]);
}

#[test]
fn an_image_in_use_is_refused_with_the_process_that_uses_it() {
    let image = Image::new();
    let holder = image.serve(&[]);
    Driver::attach(&image).assert_serves();
    let path = image.path().display().to_string();
    let other = image.dir().join("other.sock").display().to_string();
    for read_only in [None, Some("--read-only")] {
        let socket = format!("--socket-path={other}");
        let blk_file = format!("--blk-file={path}");
        let args: Vec<_> = [socket.as_str(), &blk_file].into_iter().chain(read_only).collect();
        let by = format!("already in use by process {}", holder.id());
        assert_one_sentence(&run(&args), 1, &[&path, &by]);
    }
}

#[test]
fn a_successor_takes_the_image_over_once_the_front_end_has_stopped_the_rings() {
    let image = Image::new();
    let _holder = image.serve(&[]);
    let mut first = Driver::attach(&image);
    first.assert_serves();

    let other = image.dir().join("other.sock");
    let socket = format!("--socket-path={}", other.display());
    let blk_file = format!("--blk-file={}", image.path().display());
    let mut successor = Process::spawn(PROGRAM, [&socket, &blk_file, "--takeover"]).unwrap();

    // While the rings run elsewhere it gets none.
    assert!(Driver::try_attach(&other).is_err());
    first.assert_serves();
    // Stopped, and the front-end stays.
    first.device.stop_queue(&first.queue).unwrap();
    let mut second = Driver::try_attach(&other).unwrap();
    second.assert_serves();
    // Now it is the first that gets none, also when its front-end has left.
    drop(first);
    assert!(Driver::try_attach(&image.socket()).is_err());
    second.assert_serves();
    drop(second);
    successor.terminate().unwrap();
    Driver::attach(&image).assert_serves();
}

#[test]
fn readers_share_an_image_and_keep_writers_out() {
    let image = Image::new();
    let _first = image.serve(&["--read-only"]);
    Driver::attach(&image).assert_serves();
    let socket = format!("--socket-path={}", image.dir().join("second.sock").display());
    let blk_file = format!("--blk-file={}", image.path().display());
    let mut second = Process::spawn(PROGRAM, [&socket, &blk_file, "--read-only"]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(second.running().unwrap());
    second.terminate().unwrap();
    assert_one_sentence(&run(&[&socket, &blk_file]), 1, &["already in use"]);
}

#[test]
fn a_socket_that_is_served_is_refused_with_the_process_that_serves_it() {
    let image = Image::new();
    let holder = image.serve(&["--read-only"]);
    Driver::attach(&image).assert_serves();
    let args = image.args();
    let output = run(&[&args[0], &args[1], "--read-only"]);
    let by = format!("already served by process {}", holder.id());
    assert_one_sentence(&output, 1, &["blk.sock", &by]);
    Driver::attach(&image).assert_serves();
}
