use super::*;
use crate::shared;

#[test]
fn a_mapping_is_watched_for_as_long_as_it_lives() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4 * PAGE as u64).unwrap();
    let mapped = shared::map(file, 0, 4 * PAGE as u64).unwrap();
    let start = mapped.region.as_ptr() as usize;
    let end = start + mapped.region.size();
    assert_eq!(mapping_of(start), Some((start, end)));
    assert_eq!(mapping_of(end - 1), Some((start, end)));
    assert_ne!(mapping_of(end), Some((start, end)));
    drop(mapped);
    assert_eq!(mapping_of(start), None);
}
