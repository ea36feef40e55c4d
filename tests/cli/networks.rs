//! TAPs that cannot be served.

use atoll_tests::network::Tap;
use atoll_tests::require;
use atoll_tests::requirement::Requirement::{AnyKvm, Program, Root};
use atoll_tests::scratch::Scratch;

use crate::refusal::{FAILURE, Run, assert_command_refuses, assert_refuses, without_privileges};

#[test]
fn a_tap_that_is_missing_is_named_and_not_made() {
    require!(Root);
    let scratch = Scratch::new();
    let socket = format!("--socket-path={}", scratch.join("vhost0").display());
    assert_refuses("atoll-net", [&socket, "--tap=atoll-none"], FAILURE, &["atoll-none"]);
    if AnyKvm.lacking().is_none() {
        Run::new().with("--net").with("tap=atoll-none").is_refused(FAILURE, &["atoll-none"]);
    }
    assert!(!std::path::Path::new("/sys/class/net/atoll-none").exists());
}

#[test]
fn a_tap_that_belongs_to_somebody_else_is_named() {
    require!(Root, Program("setpriv"));
    let (scratch, tap) = (Scratch::new(), Tap::of_user(12345));
    let mut command = without_privileges("atoll-net");
    command.arg(format!("--socket-path={}", scratch.join("vhost0").display()));
    command.arg(format!("--tap={}", tap.name()));
    assert_command_refuses("atoll-net", command, FAILURE, &[tap.name(), "permi"]);
}

#[test]
fn a_tap_in_use_is_named() {
    require!(Root);
    let (scratch, tap) = (Scratch::new(), Tap::new());
    let _holder = atoll_tests::backend::Backend::net(&tap);
    let socket = format!("--socket-path={}", scratch.join("vhost0").display());
    let option = format!("--tap={}", tap.name());
    assert_refuses("atoll-net", [&socket, &option], FAILURE, &[tap.name(), "in use"]);
}

#[test]
fn a_mac_address_that_is_none_or_no_station_s_is_refused() {
    let scratch = Scratch::new();
    let socket = format!("--socket-path={}", scratch.join("vhost0").display());
    for mac in ["52:54:00:12:34", "zz:54:00:12:34:56", "01:54:00:12:34:56"] {
        let option = format!("--mac={mac}");
        assert_refuses("atoll-net", [&socket, "--tap=t", &option], crate::refusal::USAGE, &[mac]);
    }
}
