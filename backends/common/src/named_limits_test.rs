use super::*;
use crate::limits::Limiter;

fn card<'a>(rx: &'a Limiter, tx: &'a Limiter) -> [Limited<'a>; 2] {
    [("rx_", rx), ("tx_", tx)].map(|(prefix, limiter)| Limited {
        prefix,
        operations: "pps",
        limiter,
    })
}

#[test]
fn each_direction_has_its_own_names() {
    let (rx, tx) = (Limiter::default(), Limiter::default());
    let card = card(&rx, &tx);
    let limits = change("net", &card, br#"{"rx_bps": 7, "tx_pps": 8, "tx_pps_burst": 9}"#).unwrap();
    assert_eq!((limits["rx_bps"], limits["tx_pps"], limits["tx_pps_burst"]), (7, 8, 9));
    assert_eq!((limits["tx_bps"], limits.len()), (0, 8));
    assert_eq!((rx.limits().bps, tx.limits().iops, tx.limits().iops_burst), (7, 8, 9));
}

#[test]
fn a_change_that_is_wrong_in_part_changes_nothing() {
    let (rx, tx) = (Limiter::default(), Limiter::default());
    let card = card(&rx, &tx);
    for (body, word) in [
        (r#"{"rx_bps": 7, "tx_bps_burst": 8}"#, "there is no tx_bps"),
        (r#"{"rx_bps": 7, "bps": 8}"#, "no limit `bps`"),
        (r#"{"rx_bps": 7, "tx_bps": -8}"#, "tx_bps_burst"),
    ] {
        let error = change("net", &card, body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        assert!(read(&card).values().all(|value| *value == 0));
    }
    let error = change("console", &[], b"{}").unwrap_err().to_string();
    assert_eq!(error, "a console device has no limits");
}
