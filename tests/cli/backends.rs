//! What every backend says of itself, and how it ends.

use atoll_tests::image::Image;
use atoll_tests::process::run;
use atoll_tests::scratch::Scratch;
use serde_json::Value;

use crate::refusal::{FAILURE, USAGE, assert_refuses};

const BACKENDS: [(&str, &str); 3] =
    [("atoll-blk", "block"), ("atoll-net", "net"), ("atoll-console", "console")];

#[test]
fn capabilities_are_json_as_qemu_s_conventions_have_it() {
    for (program, kind) in BACKENDS {
        let finished = run(program, ["--print-capabilities"]);
        assert_eq!(finished.code, 0, "{program}: {}", finished.stderr);
        let capabilities: Value = serde_json::from_str(&finished.stdout).expect("JSON");
        assert_eq!(capabilities["type"], kind);
        assert!(capabilities["features"].is_array(), "{capabilities}");
    }
}

#[test]
fn help_has_examples_and_goes_to_standard_output() {
    for program in ["atoll", "atoll-blk", "atoll-net", "atoll-console"] {
        let finished = run(program, ["--help"]);
        assert_eq!(finished.code, 0, "{program}");
        assert!(finished.stdout.contains("Examples:"), "{}", finished.stdout);
        assert_eq!(finished.stderr, "");
    }
}

#[test]
fn a_backend_without_a_socket_or_with_one_that_is_not_open_says_so() {
    let image = Image::blank(4096);
    let file = format!("--blk-file={}", image.path().display());
    let scratch = Scratch::new();
    let text = format!("--file={}", scratch.join("text").display());
    for (program, needed) in [("atoll-blk", &file), ("atoll-console", &text)] {
        assert_refuses(program, [needed], USAGE, &["--socket-path", "--fd"]);
        assert_refuses(program, ["--fd=999", needed], FAILURE, &["999"]);
    }
}

#[test]
fn an_unknown_option_of_a_backend_is_named_with_the_nearest_right_one() {
    for (program, _) in BACKENDS {
        assert_refuses(program, ["--sokcet-path=/s"], USAGE, &["--sokcet-path", "--socket-path"]);
    }
}
