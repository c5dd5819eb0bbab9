//! Days, months and 5-minute windows.

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use super::fraction::Fraction;

pub(super) const WINDOW_MS: i64 = 300_000;
pub(super) const DAY_MS: i64 = 86_400_000;

/// The window that an instant lies in.
pub(super) fn window(at_ms: i64) -> i64 {
    at_ms.div_euclid(WINDOW_MS) * WINDOW_MS
}

/// The next start of a window, or the instant itself where one starts.
pub(super) fn next_window(at_ms: i64) -> i64 {
    window(at_ms + WINDOW_MS - 1)
}

pub(super) fn midnight(day: Date, zone: &TimeZone) -> i64 {
    zone.to_zoned(day.at(0, 0, 0, 0)).unwrap().timestamp().as_millisecond()
}

pub(super) fn day_of(at_ms: i64, zone: &TimeZone) -> Date {
    Timestamp::from_millisecond(at_ms)
        .unwrap()
        .to_zoned(zone.clone())
        .date()
}

pub(super) fn year_of(at_ms: i64) -> i16 {
    day_of(at_ms, &TimeZone::UTC).year()
}

pub(super) fn days(from: Date, to: Date) -> i64 {
    from.until(to).unwrap().get_days().into()
}

pub(super) fn later(day: Date, count: i64) -> Date {
    day + count.days()
}

/// The day on which a month that begins on the anchor's day begins, so many months after the one of `day`.
pub(super) fn anchored(day: Date, months: i64, anchor: i8) -> Date {
    let month = date(day.year(), day.month(), 1) + months.months();
    date(month.year(), month.month(), anchor.min(month.days_in_month()))
}

/// The begin of the anchored month that a day lies in.
pub(super) fn month_of(day: Date, anchor: i8) -> Date {
    let this = anchored(day, 0, anchor);
    if this <= day { this } else { anchored(day, -1, anchor) }
}

/// What some days come to in months: each is its part of the month that it lies in, between two days of the anchor.
pub(super) fn in_months(from: Date, to: Date, anchor: i8) -> Fraction {
    let mut months = Fraction::ZERO;
    let mut day = from;
    while day < to {
        let month = month_of(day, anchor);
        months = months + Fraction::new(1, days(month, anchored(month, 1, anchor)).into());
        day = later(day, 1);
    }
    months
}
