use super::*;

const LIMITS: Limits = Limits { len: 100 * SECTOR, read_only: false, block: 512 };

#[test]
fn a_range_is_whole_sectors_within_the_disk() {
    assert_eq!(LIMITS.offset(0, 0), Ok(0));
    assert_eq!(LIMITS.offset(0, 51_200), Ok(0));
    assert_eq!(LIMITS.offset(99, 512), Ok(99 * 512));
    assert_eq!(LIMITS.offset(100, 0), Ok(100 * 512));
    for (sector, len) in [(100, 512), (99, 1024), (101, 0), (u64::MAX, 512), (u64::MAX / 512, 512)]
    {
        assert_eq!(LIMITS.offset(sector, len), Err(BadRequest::BeyondEnd { sector, len }));
    }
    for len in [1, 511, 513] {
        assert_eq!(LIMITS.offset(0, len), Err(BadRequest::PartialSector { len }));
    }
}

#[test]
fn only_unknown_requests_are_unsupported() {
    assert_eq!(BadRequest::Unknown { kind: 11 }.status(), 2);
    for bad in [
        BadRequest::ReadOnly,
        BadRequest::NoHeader { len: 3 },
        BadRequest::PartialSector { len: 3 },
        BadRequest::Chain(ChainFault::WrongOrder),
    ] {
        assert_eq!(bad.status(), 1);
    }
}
