//! When what is done about an unpaid invoice.

use schemas::window::DAY_MS;

use super::terms::MAX_TERMINATE_DAY;

/// The latest day after the due date that a schedule can name.
pub const MAX_DAY: i64 = 90;
/// Charges that a schedule can have after the due date.
pub const MAX_RETRIES: usize = 10;

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

/// How far an invoice has come, as `dunning.step` stores it: 0 nothing was done, 1 charged when finalised, 2 + n what is due
/// n days after the due date was done. So a schedule can be changed while invoices are on their way through it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = CollectionProgress)]
pub struct Progress(pub i64);

impl Progress {
    pub const NONE: Progress = Progress(0);
    pub const CHARGED_FIRST: Progress = Progress(1);

    pub(super) fn day(day: i64) -> Progress {
        Progress(2 + day)
    }

    /// The day up to which everything was done; `None` before the due date.
    pub fn done_to_day(self) -> Option<i64> {
        (self.0 >= 2).then_some(self.0 - 2)
    }
}

/// From when an invoice's days are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Dates {
    pub(super) finalised_at_ms: i64,
    /// When it was due, or was opened again later.
    pub(super) due_at_ms: i64,
}

/// What is to be done now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Due {
    /// How far the invoice has come with it.
    pub(super) to: Progress,
    pub(super) charges: bool,
    pub(super) says_overdue: bool,
    pub(super) suspends: bool,
    pub(super) terminates: bool,
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

    /// When subscriptions end for an invoice.
    pub(super) fn terminates_at_ms(&self, dates: Dates) -> Option<i64> {
        self.terminate_day.map(|day| dates.due_at_ms + day * DAY_MS)
    }

    /// How long a subscription is suspended at least before it ends.
    pub(super) fn grace_ms(&self) -> i64 {
        self.terminate_day.map_or(0, |day| (day - self.suspend_day) * DAY_MS)
    }

    /// When services are suspended for an invoice.
    pub(super) fn suspends_at_ms(&self, dates: Dates) -> i64 {
        dates.due_at_ms + self.suspend_day * DAY_MS
    }

    /// When there is something to do next; `None` when everything was done.
    pub(super) fn next_at_ms(&self, progress: Progress, dates: Dates) -> Option<i64> {
        if progress < Progress::CHARGED_FIRST {
            return Some(dates.finalised_at_ms);
        }
        let day = self.days().find(|day| Progress::day(*day) > progress)?;
        Some(dates.due_at_ms + day * DAY_MS)
    }

    /// What is to be done by `now_ms`: of several steps that were missed one, so that days off do not end in a burst of
    /// charges. The suspension and the end stand alone: what can be charged is charged before them.
    pub(super) fn due(&self, progress: Progress, dates: Dates, now_ms: i64) -> Option<Due> {
        let mut due: Option<Due> = None;
        if progress < Progress::CHARGED_FIRST && dates.finalised_at_ms <= now_ms {
            due = Some(Due {
                to: Progress::CHARGED_FIRST,
                charges: true,
                says_overdue: false,
                suspends: false,
                terminates: false,
            });
        }
        for day in self.days() {
            let is_done = Progress::day(day) <= progress;
            if is_done || dates.due_at_ms + day * DAY_MS > now_ms {
                continue;
            }
            let (suspends, terminates) = (day == self.suspend_day, self.terminate_day == Some(day));
            // Where the due date itself is the day of the suspension, that it is overdue is said with it.
            if (suspends || terminates) && due.is_some() {
                break;
            }
            due = Some(Due {
                to: Progress::day(day),
                charges: due.is_some_and(|due| due.charges) || self.retry_days.contains(&day),
                says_overdue: due.is_some_and(|due| due.says_overdue) || day == 0,
                suspends,
                terminates,
            });
        }
        due
    }

    /// The due date, the days of charges, of the suspension and of the end, ascending.
    fn days(&self) -> impl Iterator<Item = i64> + '_ {
        let first = (self.retry_days.first() != Some(&0) && self.suspend_day != 0).then_some(0);
        first
            .into_iter()
            .chain(self.retry_days.iter().copied())
            .chain(std::iter::once(self.suspend_day))
            .chain(self.terminate_day)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DATES: Dates = Dates {
        finalised_at_ms: 1_000,
        due_at_ms: 1_000 + 14 * DAY_MS,
    };

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

    #[test]
    fn steps_of_the_default_schedule_by_day() {
        let schedule = Schedule::default();
        // Days after finalisation, and what is done: charge, say overdue, suspend.
        let expected = [
            (0, true, false, false),
            (14, true, true, false),
            (17, true, false, false),
            (19, true, false, false),
            (21, true, false, false),
            (28, false, false, true),
        ];
        let mut progress = Progress::NONE;
        let mut seen = Vec::new();
        for day in 0..60 {
            let now_ms = DATES.finalised_at_ms + day * DAY_MS;
            while let Some(due) = schedule.due(progress, DATES, now_ms) {
                assert!(due.to > progress);
                seen.push((day, due.charges, due.says_overdue, due.suspends));
                progress = due.to;
            }
        }
        assert_eq!(seen, expected);
        assert_eq!(schedule.next_at_ms(progress, DATES), None);
        assert_eq!(progress.done_to_day(), Some(14));
    }

    proptest! {
        /// However the days are missed: overdue is said once, suspension comes once and last, a look charges once at most.
        #[test]
        fn whatever_is_missed_each_step_is_done_once(
            mut retries in proptest::collection::btree_set(0i64..30, 0..5),
            after in 1i64..20,
            looks in proptest::collection::vec(0i64..6 * DAY_MS, 1..40),
        ) {
            let retries: Vec<i64> = std::mem::take(&mut retries).into_iter().collect();
            let suspend = retries.last().copied().unwrap_or(0) + after;
            let schedule = Schedule::new(&retries, suspend).unwrap();
            let (mut progress, mut overdue, mut suspended, mut charges) = (Progress::NONE, 0, 0, 0);
            let mut now_ms = DATES.finalised_at_ms;
            for look in looks {
                now_ms += look;
                let mut in_this_look = 0;
                while let Some(due) = schedule.due(progress, DATES, now_ms) {
                    prop_assert!(schedule.next_at_ms(progress, DATES).is_some_and(|at_ms| at_ms <= now_ms));
                    prop_assert!(due.to > progress && suspended == 0);
                    in_this_look += usize::from(due.charges);
                    overdue += usize::from(due.says_overdue);
                    suspended += usize::from(due.suspends);
                    progress = due.to;
                }
                prop_assert!(in_this_look <= 1);
                charges += in_this_look;
                prop_assert_eq!(overdue == 1, now_ms >= DATES.due_at_ms);
                prop_assert_eq!(suspended == 1, now_ms >= schedule.suspends_at_ms(DATES));
                prop_assert!(schedule.next_at_ms(progress, DATES).is_none_or(|at_ms| at_ms > now_ms));
            }
            prop_assert!(charges <= 1 + retries.len());
        }
    }
}
