//! What a policy's text means.

use super::*;
use OnDisconnect as O;

fn refused(text: &str) -> String {
    text.parse::<Policy>().unwrap_err().to_string()
}

#[test]
fn a_policy_is_read_as_it_is_written() {
    for text in ["wait", "pause", "reset", "stop", "pause:30:stop", "wait:5:pause:60:reset:1:stop"]
    {
        assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
    }
    assert_eq!(Policy::default().to_string(), "wait");
    let policy: Policy = "pause:30:stop".parse().unwrap();
    assert_eq!(policy.stage(0), Some((O::Pause, Some(Duration::from_secs(30)))));
    assert_eq!(policy.stage(1), Some((O::Stop, None)));
    assert_eq!(policy.stage(2), None);
}

#[test]
fn what_is_no_policy_is_refused_with_the_word_at_fault() {
    assert!(refused("").starts_with("there is no policy ``; it is wait, pause, reset or stop"));
    assert!(refused("pause:30:die").starts_with("there is no policy `die`"));
    assert!(refused("wait:").starts_with("`` is not a number of seconds"));
    assert!(refused("wait:0:stop").starts_with("`0` is not"));
    assert!(refused("wait:-1:stop").starts_with("`-1` is not"));
    assert_eq!(
        refused("wait:5"),
        "after 5 seconds of `wait` there must be another policy, as in pause:30:stop"
    );
    assert_eq!(refused("stop:5:wait"), "nothing comes after `stop`");
}

#[test]
fn where_waiting_is_in_vain_the_first_stage_that_does_more_applies() {
    let beyond = |text: &str, stage| text.parse::<Policy>().unwrap().beyond_waiting(stage);
    assert_eq!(beyond("wait", 0), O::Reset);
    assert_eq!(beyond("pause:30:stop", 0), O::Stop);
    assert_eq!(beyond("wait:5:reset:9:stop", 0), O::Reset);
    assert_eq!(beyond("reset:9:stop", 1), O::Stop);
}
