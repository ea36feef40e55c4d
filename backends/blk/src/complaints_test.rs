use super::*;

#[test]
fn the_first_complaint_of_a_second_is_made_and_the_others_are_counted() {
    let mut complaints = Complaints::default();
    let start = Instant::now();
    let after = |millis| start + Duration::from_millis(millis);
    let made = [0, 1, 999, 1000, 1001, 5000].map(|millis| complaints.make(after(millis)));
    assert_eq!(made, [Some(0), None, None, Some(2), None, Some(1)]);
}
