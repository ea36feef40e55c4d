//! What a user may be written as.

use super::*;

#[test]
fn a_user_is_a_name_or_a_number_with_a_group() {
    let root = User { uid: Uid::from_raw(0), gid: Gid::from_raw(0) };
    for text in ["root", "0", "root:root", "0:0"] {
        assert_eq!(text.parse(), Ok(root), "{text}");
    }
    let other = User { uid: Uid::from_raw(64_000), gid: Gid::from_raw(64_001) };
    assert_eq!("64000:64001".parse(), Ok(other));
}

#[test]
fn who_does_not_exist_is_named() {
    for text in ["no-such-user", "64000", "root:no-such-group", ""] {
        assert!(text.parse::<User>().is_err(), "{text}");
    }
}
