//! What a run of tests is read as.

use super::*;

fn read(output: &str) -> (Report, Vec<&str>) {
    let mut reader = Reader::new("blk");
    let shown = output.lines().filter(|line| reader.line(line)).collect();
    (reader.finish("ended early"), shown)
}

#[test]
fn a_green_run_is_counted_and_shown_without_what_passed_tests_printed() {
    let (report, shown) = read(
        "
running 2 tests
test reads ... ok
test writes ... ok

successes:

---- reads stdout ----
chatter

successes:
    reads
    writes

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
    );
    assert_eq!(report.to_string(), "2 passed, 0 failed, 0 skipped");
    let result = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
    assert_eq!(shown, ["test reads ... ok", "test writes ... ok", result]);
}

#[test]
fn a_test_that_says_it_is_skipped_did_not_pass() {
    let (report, _) = read(
        "test boots ... skipped: boots: no /dev/kvm
ok
test odd ... ignored, takes an hour
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
    );
    assert_eq!(report.passed, 1);
    assert_eq!(report.skipped, ["blk: boots: no /dev/kvm", "blk: odd: takes an hour"]);
}

#[test]
fn failed_tests_are_named() {
    let (report, _) = read(
        "test reads ... FAILED

failures:

---- reads stdout ----
    indented

failures:
    reads

test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
    );
    assert_eq!(report.failed, ["blk: reads"]);
    assert_eq!(report.passed, 4);
}

#[test]
fn a_run_that_ends_without_a_result_has_failed() {
    let (report, _) = read("test reads ... ");
    assert_eq!(report.failed, ["blk: ended early"]);
}

#[test]
fn the_verdict_on_each_test_is_known_even_when_the_run_ends_early() {
    let mut reader = Reader::new("blk");
    let output = "test reads ... ok
test writes ... FAILED
test boots ... skipped: boots: no /dev/kvm
ok
test odd ... ignored, takes an hour
test hangs ... ";
    for line in output.lines() {
        reader.line(line);
    }
    let verdicts = reader.verdicts().iter().map(|(name, verdict)| (name.as_str(), *verdict));
    let expected = [
        ("reads", Verdict::Ok),
        ("writes", Verdict::Failed),
        ("boots", Verdict::Ok),
        ("odd", Verdict::Ok),
    ];
    assert!(verdicts.eq(expected));
    assert_eq!(reader.current(), Some("hangs"));
}
