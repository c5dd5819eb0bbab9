//! The days on which something is done about an unpaid invoice.

/// The latest day after the due date that a schedule can name.
pub const MAX_DAY: i64 = 90;
/// The latest day after the due date on which subscriptions can be ended.
pub const MAX_TERMINATE_DAY: i64 = 365;
/// Charges that a schedule can have after the due date.
pub const MAX_RETRIES: usize = 10;

const _: () = assert!(MAX_DAY < MAX_TERMINATE_DAY);

/// Why it is no schedule.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScheduleError {
    #[error("days of a schedule lie between 0 and {MAX_DAY}, not {0}")]
    Day(i64),
    #[error("a schedule has at most {MAX_RETRIES} charges, not {0}")]
    TooMany(usize),
    #[error("the days of charges ascend, and {next} comes after {day}")]
    Order { day: i64, next: i64 },
    #[error("services are suspended on day {suspend}, so nothing is charged automatically on day {day}")]
    AfterSuspension { day: i64, suspend: i64 },
    #[error(
        "subscriptions end after they were suspended on day {suspend} and by day {MAX_TERMINATE_DAY}, not on day {day}"
    )]
    BeforeSuspension { day: i64, suspend: i64 },
}

schemas::error_codes! {
    ScheduleError: "collection_schedule";
    of []
    source []
    Refused:
        Day = "day", TooMany = "too_many", Order = "order", AfterSuspension = "after_suspension",
        BeforeSuspension = "before_suspension";
}

/// What is done about an invoice that is not paid, in days of 24 hours after it was due. When it is finalised it is charged
/// in any case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule {
    retry_days: Vec<i64>,
    suspend_day: i64,
    /// When subscriptions end that are suspended for it; without a day a person decides.
    terminate_day: Option<i64>,
}

impl Default for Schedule {
    /// Charged on days 0, 3, 5 and 7 after it was due, suspended on day 14.
    fn default() -> Schedule {
        Schedule {
            retry_days: vec![0, 3, 5, 7],
            suspend_day: 14,
            terminate_day: None,
        }
    }
}

impl Schedule {
    /// # Errors
    /// When a day is out of range, the days do not ascend, or one is not before the suspension.
    pub fn new(retry_days: &[i64], suspend_day: i64) -> Result<Schedule, ScheduleError> {
        if retry_days.len() > MAX_RETRIES {
            return Err(ScheduleError::TooMany(retry_days.len()));
        }
        let days = retry_days.iter().chain(std::iter::once(&suspend_day));
        if let Some(&day) = days.into_iter().find(|day| !(0..=MAX_DAY).contains(*day)) {
            return Err(ScheduleError::Day(day));
        }
        if let Some(pair) = retry_days.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(ScheduleError::Order {
                day: pair[0],
                next: pair[1],
            });
        }
        match retry_days.last() {
            Some(&day) if day >= suspend_day => Err(ScheduleError::AfterSuspension {
                day,
                suspend: suspend_day,
            }),
            _ => Ok(Schedule {
                retry_days: retry_days.to_vec(),
                suspend_day,
                terminate_day: None,
            }),
        }
    }

    /// The same, with a day on which subscriptions end.
    ///
    /// # Errors
    /// When it is not after the suspension.
    pub fn terminating_on(self, day: i64) -> Result<Schedule, ScheduleError> {
        if day <= self.suspend_day || day > MAX_TERMINATE_DAY {
            return Err(ScheduleError::BeforeSuspension {
                day,
                suspend: self.suspend_day,
            });
        }
        Ok(Schedule {
            terminate_day: Some(day),
            ..self
        })
    }

    pub fn retry_days(&self) -> &[i64] {
        &self.retry_days
    }

    pub fn suspend_day(&self) -> i64 {
        self.suspend_day
    }

    pub fn terminate_day(&self) -> Option<i64> {
        self.terminate_day
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_schedules() {
        assert!(Schedule::new(&[], 0).is_ok());
        assert!(Schedule::new(&[0, 1, 2], 3).is_ok());
        assert_eq!(Schedule::new(&[-1], 3), Err(ScheduleError::Day(-1)));
        assert_eq!(Schedule::new(&[1], 91), Err(ScheduleError::Day(91)));
        assert_eq!(Schedule::new(&[3, 3], 9), Err(ScheduleError::Order { day: 3, next: 3 }));
        assert_eq!(
            Schedule::new(&[0, 14], 14),
            Err(ScheduleError::AfterSuspension { day: 14, suspend: 14 })
        );
        assert_eq!(Schedule::new(&[0; 11], 14), Err(ScheduleError::TooMany(11)));
    }
}
