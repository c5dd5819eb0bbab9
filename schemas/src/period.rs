//! Billing periods: half-open `[start, end)`, local midnight to local midnight in the customer's time zone.
//!
//! The anchor day is the one agreed at signup and never derived from the last date: 31 January → 28 February → 31 March.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Day of the month on which periods start, 1 to 31; in shorter months their last day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnchorDay(i8);

/// Why a period could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum PeriodError {
    #[error("an anchor day lies between 1 and 31, not {0}")]
    Anchor(i64),
    #[error("a billing cycle has between 1 and 120 months, not {0}")]
    Cycle(i64),
    #[error("the date is out of range")]
    Calendar(#[from] jiff::Error),
}

crate::error_codes! {
    PeriodError: "period";
    of []
    source []
    Refused: Anchor = "anchor", Cycle = "cycle", Calendar = "calendar";
}

/// A billing period, half-open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Period {
    /// First instant, UTC milliseconds.
    pub start_ms: i64,
    /// First instant after it, UTC milliseconds.
    pub end_ms: i64,
    /// First local day.
    pub start_date: Date,
    /// First local day after it.
    pub end_date: Date,
}

impl AnchorDay {
    /// # Errors
    /// When the day is not between 1 and 31.
    pub fn new(day: i64) -> Result<AnchorDay, PeriodError> {
        match i8::try_from(day) {
            Ok(day @ 1..=31) => Ok(AnchorDay(day)),
            _ => Err(PeriodError::Anchor(day)),
        }
    }

    pub fn get(self) -> i64 {
        i64::from(self.0)
    }

    /// The anchor's date in the month of `date`.
    fn in_month_of(self, date: Date) -> Result<Date, jiff::Error> {
        Date::new(date.year(), date.month(), self.0.min(date.days_in_month()))
    }
}

impl Period {
    /// The monthly period that holds the instant `at`.
    ///
    /// # Errors
    /// When the date is at the edge of the calendar.
    pub fn containing(at: Timestamp, anchor: AnchorDay, zone: &TimeZone) -> Result<Period, PeriodError> {
        let today = at.to_zoned(zone.clone()).date();
        let mut start = anchor.in_month_of(today)?;
        if start > today {
            start = anchor.in_month_of(today.first_of_month().checked_sub(1.day())?)?;
        }
        Period::starting(start, anchor, 1, zone)
    }

    /// The period of `cycle_months` months that starts on the local day `start`.
    ///
    /// # Errors
    /// When the cycle is not between 1 and 120 months or the end is beyond the calendar.
    pub fn starting(start: Date, anchor: AnchorDay, cycle_months: i64, zone: &TimeZone) -> Result<Period, PeriodError> {
        if !(1..=120).contains(&cycle_months) {
            return Err(PeriodError::Cycle(cycle_months));
        }
        let end = anchor.in_month_of(start.first_of_month().checked_add(cycle_months.months())?)?;
        Ok(Period {
            start_ms: midnight_ms(start, zone)?,
            end_ms: midnight_ms(end, zone)?,
            start_date: start,
            end_date: end,
        })
    }

    /// The part of it that lies in the local days `[from, to)`; `None` where there is none.
    ///
    /// # Errors
    /// When a date is at the edge of the calendar.
    pub fn within(&self, from: Date, to: Option<Date>, zone: &TimeZone) -> Result<Option<Period>, PeriodError> {
        let start_date = self.start_date.max(from);
        let end_date = to.map_or(self.end_date, |to| self.end_date.min(to));
        if start_date >= end_date {
            return Ok(None);
        }
        Ok(Some(Period {
            start_ms: midnight_ms(start_date, zone)?,
            end_ms: midnight_ms(end_date, zone)?,
            start_date,
            end_date,
        }))
    }

    /// Calendar days: days, not multiples of 24 hours.
    pub fn days(&self) -> i64 {
        self.start_date.duration_until(self.end_date).as_hours() / 24
    }

    /// The monthly period that ends where this one starts.
    ///
    /// # Errors
    /// When the date is at the edge of the calendar.
    pub fn previous(&self, anchor: AnchorDay, zone: &TimeZone) -> Result<Period, PeriodError> {
        let day_before = self.start_date.checked_sub(1.day())?;
        Period::containing(day_before.to_zoned(zone.clone())?.timestamp(), anchor, zone)
    }

    /// Length in milliseconds: 24 hours a day except where the clocks change.
    pub fn duration_ms(&self) -> i64 {
        self.end_ms - self.start_ms
    }
}

/// The first instant of a local day.
///
/// # Errors
/// When the date is at the edge of the calendar.
pub fn midnight_ms(date: Date, zone: &TimeZone) -> Result<i64, PeriodError> {
    Ok(date.to_zoned(zone.clone())?.timestamp().as_millisecond())
}

/// The local day that holds an instant.
///
/// # Errors
/// When the instant is at the edge of the calendar.
pub fn local_date(at_ms: i64, zone: &TimeZone) -> Result<Date, PeriodError> {
    Ok(Timestamp::from_millisecond(at_ms)?.to_zoned(zone.clone()).date())
}

/// How long a cycle is, in words: `month` or `3 months`.
pub fn cycle_words(months: i64) -> String {
    match months {
        1 => "month".to_owned(),
        months => format!("{months} months"),
    }
}

impl std::fmt::Display for Period {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} – {}", self.start_date, self.end_date)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(at: &str, anchor: i64, zone: &str) -> (String, i64) {
        let zone = TimeZone::get(zone).unwrap();
        let period = Period::containing(at.parse().unwrap(), AnchorDay::new(anchor).unwrap(), &zone).unwrap();
        (period.to_string(), period.duration_ms() / crate::window::HOUR_MS)
    }

    #[test]
    fn the_anchor_day_survives_short_months() {
        assert_eq!(period("2024-01-31T00:00:00Z", 31, "UTC").0, "2024-01-31 – 2024-02-29");
        assert_eq!(period("2024-02-29T00:00:00Z", 31, "UTC").0, "2024-02-29 – 2024-03-31");
        assert_eq!(period("2024-04-29T23:59:59Z", 31, "UTC").0, "2024-03-31 – 2024-04-30");
        assert_eq!(period("2025-03-01T00:00:00Z", 31, "UTC").0, "2025-02-28 – 2025-03-31");
    }

    #[test]
    fn periods_are_local_and_know_when_the_clocks_change() {
        assert_eq!(
            period("2024-03-31T23:30:00Z", 1, "Europe/Berlin"),
            ("2024-04-01 – 2024-05-01".to_owned(), 720)
        );
        assert_eq!(
            period("2024-03-15T00:00:00Z", 1, "Europe/Berlin"),
            ("2024-03-01 – 2024-04-01".to_owned(), 743)
        );
        assert_eq!(
            period("2024-11-15T00:00:00Z", 1, "America/New_York"),
            ("2024-11-01 – 2024-12-01".to_owned(), 721)
        );
    }

    #[test]
    fn the_previous_period_ends_where_this_one_starts() {
        let zone = TimeZone::UTC;
        let anchor = AnchorDay::new(31).unwrap();
        let march = Period::containing("2024-04-01T00:00:00Z".parse().unwrap(), anchor, &zone).unwrap();
        let february = march.previous(anchor, &zone).unwrap();
        assert_eq!(february.end_ms, march.start_ms);
        assert_eq!(february.to_string(), "2024-02-29 – 2024-03-31");
    }
}
