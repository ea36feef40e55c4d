use super::*;

#[test]
fn a_process_starts_with_what_was_set_last() {
    let mut settings = Settings::new([("bps", 1000), ("bps_burst", 50)].into());
    settings.limit(&[("iops", 7), ("bps_burst", 60)].into());
    assert_eq!(
        settings.arguments(),
        ["--limit-bps=1000", "--limit-bps-burst=60", "--limit-iops=7"]
    );
    settings.limit(&[("bps", 0)].into());
    settings.link(false);
    assert_eq!(settings.arguments(), ["--limit-iops=7", "--link=down"]);
    settings.link(true);
    settings.limit(&[("iops", 0), ("rx_pps", 5), ("rx_pps_burst", 9)].into());
    assert_eq!(settings.arguments(), ["--limit-rx-pps=5", "--limit-rx-pps-burst=9"]);
}

#[test]
fn a_burst_of_what_has_no_limit_is_found() {
    assert_eq!(lone_burst(&[("bps", 1), ("bps_burst", 1)].into()), None);
    assert_eq!(lone_burst(&[("bps", 0), ("bps_burst", 1)].into()), Some(("bps", "bps_burst")));
    assert_eq!(lone_burst(&[("tx_pps_burst", 1)].into()), Some(("tx_pps", "tx_pps_burst")));
}
