//! The time of day, as a PC's software reads it.

use super::*;

fn read(rtc: &Rtc, index: u8) -> u8 {
    rtc.write(INDEX, &[index]);
    let mut byte = [0];
    rtc.read(DATA, &mut byte);
    byte[0]
}

fn date(seconds: u64) -> (u64, u64, u64, u64) {
    let civil = Civil::of(seconds);
    (civil.year, civil.month, civil.day, civil.weekday)
}

#[test]
fn the_calendar_is_gregorian() {
    assert_eq!(date(0), (1970, 1, 1, 5));
    assert_eq!(date(951_782_400), (2000, 2, 29, 3));
    assert_eq!(date(951_868_800), (2000, 3, 1, 4));
    assert_eq!(date(1_709_164_800), (2024, 2, 29, 5));
    assert_eq!(date(4_107_542_400), (2100, 3, 1, 2));
    assert_eq!(date(1_767_225_599), (2025, 12, 31, 4));
}

#[test]
fn the_registers_hold_one_moment_in_bcd() {
    // 2026-11-21 13:37:59 UTC, a Saturday.
    let rtc = Rtc::with_clock(|| 1_795_268_279);
    assert_eq!(read(&rtc, STATUS_A) & 0x80, 0, "no update is in progress");
    let registers = [CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOURS, MINUTES, SECONDS];
    assert_eq!(
        registers.map(|index| read(&rtc, index)),
        [0x20, 0x26, 0x11, 0x21, 0x07, 0x13, 0x37, 0x59]
    );
    assert_eq!(read(&rtc, STATUS_B), STATUS_B_VALUE);
    assert_eq!(read(&rtc, STATUS_D), STATUS_D_VALUE);
}

#[test]
fn the_time_can_not_be_set_and_the_memory_can() {
    let rtc = Rtc::with_clock(|| 0);
    for index in [SECONDS, HOURS, STATUS_B, CENTURY, 0x40] {
        rtc.write(INDEX, &[index]);
        rtc.write(DATA, &[0x55]);
    }
    assert_eq!(read(&rtc, SECONDS), 0);
    assert_eq!(read(&rtc, CENTURY), 0x19);
    assert_eq!(read(&rtc, 0x40), 0x55);
    assert_eq!(read(&rtc, 0xc0), 0x55, "bit 7 of the index is not part of it");
}

#[test]
fn wide_accesses_do_nothing() {
    let rtc = Rtc::with_clock(|| 0);
    rtc.write(INDEX, &[0x40, 0x55]);
    let mut word = [0; 2];
    rtc.read(INDEX, &mut word);
    assert_eq!(word, [0xff; 2]);
}
