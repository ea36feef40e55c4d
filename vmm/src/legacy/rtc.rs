//! The PC's real-time clock (Motorola MC146818): the host's time in UTC, and 128 bytes of memory.
//!
//! It can't be set, has no alarm and raises no interrupt: the guest's clock is the host's.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::bus::BusDevice;

const INDEX: u64 = 0;
const DATA: u64 = 1;
/// Bit 7 of the index port is the PC's NMI mask.
const INDEX_MASK: u8 = 0x7f;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_C: u8 = 0x0c;
const STATUS_D: u8 = 0x0d;
/// Where PCs keep the century, as the FADT says.
pub(crate) const CENTURY: u8 = 0x32;

/// A 32,768 Hz base, and no update in progress.
const STATUS_A_VALUE: u8 = 0x20;
/// 24 hours, in BCD, and no interrupts.
const STATUS_B_VALUE: u8 = 0x02;
/// The time is valid.
const STATUS_D_VALUE: u8 = 0x80;

/// The clock, at ports 0x70 and 0x71.
pub struct Rtc {
    clock: fn() -> u64,
    state: Mutex<State>,
}

struct State {
    index: u8,
    memory: [u8; 128],
    /// Seconds since 1970. Fixed when the guest looks for an update in progress or reads the
    /// seconds, so that all fields it then reads are of one moment.
    now: u64,
}

impl Rtc {
    /// How many ports it answers at.
    pub const PORTS: u64 = 2;

    /// A clock with the host's time.
    pub fn new() -> Self {
        Self::with_clock(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
        })
    }

    fn with_clock(clock: fn() -> u64) -> Self {
        Self { clock, state: Mutex::new(State { index: 0, memory: [0; 128], now: clock() }) }
    }
}

impl Default for Rtc {
    fn default() -> Self {
        Self::new()
    }
}

impl BusDevice for Rtc {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let [byte] = data else { return data.fill(0xff) };
        *byte = match offset {
            DATA => {
                if matches!(state.index, STATUS_A | SECONDS) {
                    state.now = (self.clock)();
                }
                state.register()
            }
            _ => 0xff,
        };
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let &[value] = data else { return };
        let index = state.index;
        match offset {
            INDEX => state.index = value & INDEX_MASK,
            // The time and the status can't be set; the rest is memory.
            DATA if index > STATUS_D && index != CENTURY => {
                if let Some(byte) = state.memory.get_mut(usize::from(index)) {
                    *byte = value;
                }
            }
            _ => {}
        }
    }
}

impl State {
    fn register(&self) -> u8 {
        let time = Civil::of(self.now);
        match self.index {
            SECONDS => bcd(time.second),
            MINUTES => bcd(time.minute),
            HOURS => bcd(time.hour),
            WEEKDAY => bcd(time.weekday),
            DAY => bcd(time.day),
            MONTH => bcd(time.month),
            YEAR => bcd(time.year % 100),
            CENTURY => bcd(time.year / 100),
            STATUS_A => STATUS_A_VALUE,
            STATUS_B => STATUS_B_VALUE,
            STATUS_C => 0,
            STATUS_D => STATUS_D_VALUE,
            index => self.memory.get(usize::from(index)).copied().unwrap_or(0xff),
        }
    }
}

/// A number below 100 as two decimal digits.
fn bcd(number: u64) -> u8 {
    let digits = ((number / 10 % 10) << 4) | (number % 10);
    digits.to_le_bytes()[0]
}

/// A moment in the Gregorian calendar, in UTC.
#[derive(Debug, PartialEq, Eq)]
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    /// 1 is Sunday.
    weekday: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Civil {
    fn of(seconds_since_1970: u64) -> Self {
        let (days, second_of_day) = (seconds_since_1970 / 86_400, seconds_since_1970 % 86_400);
        // Years are counted from March, so that the leap day is the last of its year; eras are
        // the 400 years after which the calendar repeats. 719,468 days are 0000-03-01 to 1970.
        let day_of_eras = days + 719_468;
        let (era, day_of_era) = (day_of_eras / 146_097, day_of_eras % 146_097);
        let leap_days = day_of_era / 1_460 + day_of_era / 146_096;
        let year_of_era = (day_of_era + day_of_era / 36_524 - leap_days) / 365;
        let day_of_year = day_of_era + year_of_era / 100 - (365 * year_of_era + year_of_era / 4);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = (month_from_march + 2) % 12 + 1;
        Self {
            year: 400 * era + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            // 1970 began on a Thursday.
            weekday: (days + 4) % 7 + 1,
            hour: second_of_day / 3_600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
        }
    }
}

#[cfg(test)]
#[path = "rtc_test.rs"]
mod tests;
