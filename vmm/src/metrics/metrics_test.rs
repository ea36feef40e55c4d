//! Texts of processes, well-meant and forged.

use proptest::prelude::*;

use super::*;

const OWN: (&str, &str, &str) = ("atoll_device_up", "gauge", "Whether it is.");

const DISK: &str = "\
# HELP atoll_requests_total Requests completed.
# TYPE atoll_requests_total counter
atoll_requests_total{device=\"blk\",queue=\"0\"} 7
# TYPE atoll_seconds histogram
atoll_seconds_bucket{queue=\"0\",le=\"1\"} 2
atoll_seconds_bucket{queue=\"0\",le=\"+Inf\"} 3
atoll_seconds_sum{queue=\"0\"} 0.5
atoll_seconds_count{queue=\"0\"} 3
";

#[test]
fn each_metric_is_there_once_with_the_samples_of_all_devices() {
    let mut all = Exposition::default();
    all.add(OWN, &[("device", "disk0")], 1);
    all.add(OWN, &[("device", "a\"b")], 0);
    all.absorb("disk0", DISK).unwrap();
    all.absorb("disk1", DISK).unwrap();
    let text = all.text();
    assert!(text.starts_with(
        "# HELP atoll_device_up Whether it is.\n# TYPE atoll_device_up gauge\n\
         atoll_device_up{device=\"disk0\"} 1\natoll_device_up{device=\"a\\\"b\"} 0\n\
         # HELP atoll_requests_total Requests completed.\n# TYPE atoll_requests_total counter\n\
         atoll_requests_total{device=\"disk0\",queue=\"0\"} 7\n\
         atoll_requests_total{device=\"disk1\",queue=\"0\"} 7\n"
    ));
    assert!(text.contains("atoll_seconds_bucket{device=\"disk1\",le=\"+Inf\",queue=\"0\"} 3\n"));
    assert_eq!(text.matches("# TYPE atoll_seconds histogram").count(), 1);
}

#[test]
fn what_a_process_forges_is_left_out_whole() {
    let refused = |text: &str| {
        let mut all = Exposition::default();
        all.add(OWN, &[("device", "disk0")], 1);
        all.absorb("disk1", DISK).unwrap();
        let before = all.text();
        let error =
            all.absorb("disk0", &format!("# TYPE good gauge\ngood 1\n{text}\n")).unwrap_err();
        assert_eq!(all.text(), before);
        error
    };
    let bad = BadText::Line { line: 3 };
    assert_eq!(refused("# TYPE good gauge"), bad);
    assert_eq!(refused("# TYPE other rumour"), bad);
    assert_eq!(refused("other 1"), bad);
    assert_eq!(refused("good{a=\"1\",a=\"2\"} 1"), bad);
    assert_eq!(refused("good{a=\"\\x\"} 1"), bad);
    assert_eq!(refused("good{a=\"1\"}1"), bad);
    assert_eq!(refused("good much"), bad);
    assert_eq!(refused("good{a=\"\x1b[2J\"} 1"), bad);
    assert_eq!(refused("good 2"), BadText::Twice { line: 3 });
    assert_eq!(refused("good{device=\"disk1\"} 2"), BadText::Twice { line: 3 });
    let taken = |name: &str| BadText::Taken { line: 3, name: name.to_owned() };
    assert_eq!(
        refused("# TYPE atoll_device_up gauge\natoll_device_up 1"),
        taken("atoll_device_up")
    );
    assert_eq!(refused("# TYPE atoll_requests_total gauge"), taken("atoll_requests_total"));
}

proptest! {
    #[test]
    fn no_text_is_too_bad(text in "[#a-z{}=\"\\\\,0-9 HELPTYcounter\n]{0,200}") {
        let mut all = Exposition::default();
        let _any = all.absorb("disk0", &text);
        let _any = all.absorb("disk0", &format!("# TYPE a counter\na{{{text}"));
        // What was taken can be taken again.
        Exposition::default().absorb("disk1", &all.text()).unwrap();
    }
}
