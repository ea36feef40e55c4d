use std::fs::File;
use std::os::fd::IntoRawFd;

use super::Tap;
use crate::TapError;

#[test]
fn a_name_that_no_interface_can_have_is_refused_by_name() {
    for name in ["", "a-name-of-16-bytes", "with/slash", "with space", "nul\0"] {
        let error = Tap::attach(name, 1).unwrap_err();
        assert!(matches!(error, TapError::Name { .. }), "{name}: {error}");
    }
}

#[test]
fn a_tap_that_does_not_exist_is_not_made() {
    let error = Tap::attach("atoll-no-such", 4).unwrap_err();
    assert_eq!(
        error.to_string(),
        "TAP atoll-no-such does not exist; make it with `ip tuntap add dev atoll-no-such mode tap`"
    );
}

#[test]
fn a_descriptor_that_is_not_open_is_refused() {
    for fd in [-1, 1000] {
        let error = Tap::inherit(&[fd]).unwrap_err();
        assert!(matches!(error, TapError::Descriptor { .. }), "{fd}: {error}");
    }
}

#[test]
fn a_descriptor_of_something_else_is_refused() {
    let fd = File::open("/dev/null").unwrap().into_raw_fd();
    let error = Tap::inherit(&[fd]).unwrap_err();
    assert!(matches!(error, TapError::NotTapDescriptor { .. }), "{error}");
}
