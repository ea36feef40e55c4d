use super::*;

const DISK: Limits = Limits { len: 100 * SECTOR, read_only: false, block: 512 };

#[test]
fn a_range_is_within_the_disk_and_the_limit() {
    assert_eq!(
        range([10, 0, 90, 1], DISK, WRITE_ZEROES),
        Ok(Range { offset: 10 * SECTOR, len: 90 * SECTOR, unmap: true })
    );
    assert!(matches!(range([10, 0, 91, 0], DISK, DISCARD), Err(BadRequest::BeyondEnd { .. })));
    assert!(matches!(range([0, 1, 1, 0], DISK, DISCARD), Err(BadRequest::BeyondEnd { .. })));
    let (sectors, max) = (WRITE_ZEROES.sectors + 1, WRITE_ZEROES.sectors);
    let large = Limits { len: u64::MAX, read_only: false, block: 512 };
    assert_eq!(
        range([0, 0, sectors, 0], large, WRITE_ZEROES),
        Err(BadRequest::LongRange { sectors, max })
    );
}

#[test]
fn only_write_zeroes_may_unmap_and_no_other_flag_is_known() {
    for (flags, limits) in [(1, DISCARD), (2, DISCARD), (2, WRITE_ZEROES), (3, WRITE_ZEROES)] {
        let refused = range([0, 0, 1, flags], DISK, limits).unwrap_err();
        assert_eq!(refused, BadRequest::RangeFlags { flags });
        assert_eq!(refused.status(), 2);
    }
}
