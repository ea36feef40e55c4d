//! What every backend says of itself, and how it ends.

use atoll_tests::process::run;
use serde_json::Value;

use crate::refusal::{USAGE, assert_refuses};

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
fn a_backend_without_a_socket_or_with_an_unknown_option_is_a_wrong_use() {
    for (program, needed) in
        [("atoll-blk", "--blk-file=x"), ("atoll-net", "--tap=x"), ("atoll-console", "--stdio")]
    {
        assert_refuses(program, [needed], USAGE, &["--socket-path", "--fd"]);
        assert_refuses(program, ["--sokcet-path=/s", needed], USAGE, &["--sokcet-path"]);
        assert_refuses(program, ["--fd=999", needed], USAGE, &["999"]);
    }
}
