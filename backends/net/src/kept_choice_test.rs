use super::KeptChoice;

#[test]
fn a_choice_comes_back_as_it_was_left() {
    for pairs in [None, Some(1), Some(127)] {
        for offload in [None, Some(0), Some(0x7f)] {
            let choice = KeptChoice { pairs, offload };
            assert_eq!(KeptChoice::from_word(choice.to_word()), Some(choice));
        }
    }
}

#[test]
fn memory_that_nobody_has_written_is_no_choice() {
    assert_eq!(KeptChoice::from_word(0), None);
}
