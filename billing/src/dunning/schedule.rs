//! What is done about an unpaid invoice on the days of the [`Schedule`].

use schemas::window::DAY_MS;

use crate::collection_terms::Schedule;

/// How far the collection of an invoice has come: 0 nothing was done, 1 it was charged when it was finalised, 2 + n what is due
/// n days after the due date was done.
// The column `dunning.step`. A schedule can so be changed while invoices are on their way through it.
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
pub(super) struct DueActions {
    /// How far the invoice has come with it.
    pub(super) to: Progress,
    pub(super) charges: bool,
    pub(super) says_overdue: bool,
    pub(super) suspends: bool,
    pub(super) terminates: bool,
}

impl Schedule {
    /// When subscriptions end for an invoice.
    pub(super) fn terminates_at_ms(&self, dates: Dates) -> Option<i64> {
        self.terminate_day().map(|day| dates.due_at_ms + day * DAY_MS)
    }

    /// How long a subscription is suspended at least before it ends.
    pub(super) fn grace_ms(&self) -> i64 {
        self.terminate_day()
            .map_or(0, |day| (day - self.suspend_day()) * DAY_MS)
    }

    /// When services are suspended for an invoice.
    pub(super) fn suspends_at_ms(&self, dates: Dates) -> i64 {
        dates.due_at_ms + self.suspend_day() * DAY_MS
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
    pub(super) fn due(&self, progress: Progress, dates: Dates, now_ms: i64) -> Option<DueActions> {
        let mut due: Option<DueActions> = None;
        if progress < Progress::CHARGED_FIRST && dates.finalised_at_ms <= now_ms {
            due = Some(DueActions {
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
            let (suspends, terminates) = (day == self.suspend_day(), self.terminate_day() == Some(day));
            // Where the due date itself is the day of the suspension, that it is overdue is said with it.
            if (suspends || terminates) && due.is_some() {
                break;
            }
            due = Some(DueActions {
                to: Progress::day(day),
                charges: due.is_some_and(|due| due.charges) || self.retry_days().contains(&day),
                says_overdue: due.is_some_and(|due| due.says_overdue) || day == 0,
                suspends,
                terminates,
            });
        }
        due
    }

    /// The due date, the days of charges, of the suspension and of the end, ascending.
    fn days(&self) -> impl Iterator<Item = i64> + '_ {
        let first = (self.retry_days().first() != Some(&0) && self.suspend_day() != 0).then_some(0);
        first
            .into_iter()
            .chain(self.retry_days().iter().copied())
            .chain(std::iter::once(self.suspend_day()))
            .chain(self.terminate_day())
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
