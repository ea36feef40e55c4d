//! What is read out of apt.

use super::*;

#[test]
fn only_debians_own_sources_are_taken() {
    assert_eq!(
        source_line("Debian|http://mirror.test/debian/|bookworm|main"),
        Some("deb http://mirror.test/debian/ bookworm main".to_owned())
    );
    assert_eq!(source_line("Somebody else|http://mirror.test/|stable|main"), None);
    assert_eq!(source_line(""), None);
}
