//! What is read out of /proc/cpuinfo.

use super::*;

#[test]
fn virtualization_is_a_flag_of_its_own() {
    assert!(has_virtualization("processor\t: 0\nflags\t\t: fpu vmx sse\n"));
    assert!(has_virtualization("flags\t\t: fpu svm\n"));
    assert!(!has_virtualization("model name\t: svm\nflags\t\t: fpu svm_lock vmx2\n"));
    assert!(!has_virtualization(""));
}
