//! Options that contradict themselves or do not exist.

use atoll_tests::require;
use atoll_tests::requirement::Requirement::AnyKvm;

use crate::refusal::{FAILURE, Run, USAGE, assert_refuses};

#[test]
fn no_kernel_is_a_wrong_use() {
    assert_refuses("atoll", ["run"], USAGE, &["--kernel"]);
}

#[test]
fn zero_and_65_cpus_are_refused() {
    for cpus in ["0", "65"] {
        Run::new().with("--cpus").with(cpus).is_refused(USAGE, &["--cpus", cpus, "64"]);
    }
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_right_one() {
    let cases = [
        ("--disk", "path=x,readolny=on", "readolny", "readonly"),
        ("--net", "tpa=tap0", "tpa", "tap"),
        ("--memory", "1G,hugepage=2M", "hugepage", "hugepages"),
        ("--device", "blk,sockte=/s", "sockte", "socket"),
        ("--console", "sokcet=/s", "sokcet", "socket"),
        ("--serial", "fiel=/f", "fiel", "file"),
    ];
    for (option, value, wrong, right) in cases {
        let quoted = format!("`{right}`");
        Run::new().with(option).with(value).is_refused(USAGE, &[option, wrong, &quoted]);
    }
}

#[test]
fn an_unknown_option_is_named_with_the_nearest_right_one() {
    Run::new().with("--kernal").with("x").is_refused(USAGE, &["--kernal", "--kernel"]);
}

#[test]
fn an_unknown_option_in_a_file_is_named_with_the_file() {
    let run = Run::new();
    let config = run.scratch.write("vm.toml", "memroy = '1G'\n").display().to_string();
    run.with("--config").with(&config).is_refused(USAGE, &[&config, "memroy", "`memory`"]);
}

#[test]
fn an_unknown_device_type_is_named_with_the_nearest_right_one() {
    Run::new().with("--device").with("blok,socket=/s").is_refused(USAGE, &["blok", "`blk`"]);
}

#[test]
fn two_devices_of_one_name_are_refused() {
    let device = "rng,socket=/s,id=twin";
    let run = Run::new().with("--device").with(device).with("--device").with(device);
    run.is_refused(USAGE, &["twin"]);
}

#[test]
fn memory_that_is_too_small_or_no_whole_number_of_pages_is_refused() {
    require!(AnyKvm);
    Run::new().with("--memory").with("1M").is_refused(USAGE, &["1 MiB", "too small"]);
    Run::new().with("--memory").with("134217729").is_refused(USAGE, &["134217729", "4 KiB"]);
    let odd = Run::new().with("--memory").with("129M,hugepages=2M");
    odd.is_refused(USAGE, &["129 MiB", "2 MiB"]);
}

#[test]
fn memory_that_the_host_does_not_have_is_refused() {
    require!(AnyKvm);
    Run::new().with("--memory").with("64T").is_refused(FAILURE, &["64 TiB", "too large"]);
}

#[test]
fn huge_pages_that_are_not_free_are_refused_with_the_way_to_get_them() {
    require!(AnyKvm);
    let pool = "/sys/kernel/mm/hugepages/hugepages-1048576kB";
    // Nobody keeps a pool of these by chance.
    let run = Run::new().with("--memory").with("1G,hugepages=1G");
    if std::fs::exists(pool).expect("look for the pool") {
        run.is_refused(FAILURE, &["1 free huge pages of 1 GiB", "has 0", pool]);
    } else {
        run.is_refused(FAILURE, &["no huge pages of 1 GiB"]);
    }
}
