//! What is read out of smaps.

use super::*;

#[test]
fn private_pages_count_except_the_guests() {
    let smaps = "\
55d0-55e0 r-xp 00000000 fe:00 12 /usr/bin/atoll
Size:                 16 kB
Private_Clean:         4 kB
Private_Dirty:         8 kB
7f00-7f80 rw-s 00000000 00:01 99 /memfd:guest (deleted)
Private_Dirty:       512 kB
7ff0-7ff8 rw-p 00000000 00:00 0
Private_Dirty:        16 kB
VmFlags: rd wr mr
";
    assert_eq!(sum(smaps), 28);
}
