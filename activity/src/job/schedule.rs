//! When a job runs: at a fixed interval, or at the times of a cron pattern in a time zone.
//!
//! A [`Timetable`] follows a schedule by a clock that is passed in (UTC milliseconds), so that it can be tested without waiting.
//!
//! * **Interval**: the next run is one interval after the start of the last one. What was missed while nothing ran is not
//!   repeated: an interval job looks for work and finds all of it at its next look.
//! * **Calendar**: the last scheduled time that was handled is kept in the database. What was missed since, by downtime or
//!   because a run took longer, is run once, or once for each time, or not at all ([`CatchUp`]).
//! * **Daylight saving** (croner's rules): a fixed time such as `30 2 * * *` runs once on every day. On the day without that
//!   hour it runs at the first instant after the gap, on the day that has it twice at the first of both.

use std::str::FromStr as _;
use std::time::Duration;

use croner::Cron;
use croner::errors::CronError;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::RETRY_INTERVAL;

/// Occurrences that are looked at to say how far apart runs are.
const LOOKED_AT: usize = 8;
/// Missed times that are counted one by one.
const MISSED_MAX: usize = 10_000;
/// Where a pattern has no further time.
const NEVER_MS: i64 = i64::MAX;

/// What happens with scheduled times at which the job could not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CatchUp {
    /// One run for all of them, as soon as possible.
    #[default]
    Once,
    /// One run for each of them, oldest first.
    Each,
    /// None: the next run is at the next scheduled time.
    Skip,
}

/// A pattern that is refused.
#[derive(Debug, thiserror::Error)]
#[error("{pattern:?} is no cron pattern (minute hour day month weekday)")]
pub struct ScheduleError {
    pattern: String,
    source: CronError,
}

schemas::error_codes! {
    struct ScheduleError: Refused "job.pattern";
}

/// When a job runs.
#[derive(Clone, Debug)]
pub struct Schedule(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Every {
        period: Duration,
        first_after: Duration,
    },
    Calendar {
        cron: Box<Cron>,
        zone: TimeZone,
        catch_up: CatchUp,
        is_at_start: bool,
    },
}

impl Schedule {
    /// Every `period`, from the start of the process on.
    pub const fn every(period: Duration) -> Schedule {
        Schedule(Kind::Every {
            period,
            first_after: Duration::ZERO,
        })
    }

    /// At the times of a cron pattern in a zone. Missed times are caught up with once.
    ///
    /// # Errors
    /// When the pattern is not understood.
    pub fn calendar(pattern: &str, zone: TimeZone) -> Result<Schedule, ScheduleError> {
        let cron = Cron::from_str(pattern).map_err(|source| ScheduleError {
            pattern: pattern.to_owned(),
            source,
        })?;
        Ok(Schedule(Kind::Calendar {
            cron: Box::new(cron),
            zone,
            catch_up: CatchUp::default(),
            is_at_start: false,
        }))
    }

    /// An interval's first run, so long after the start of the process.
    #[must_use]
    pub fn first_after(mut self, delay: Duration) -> Schedule {
        if let Kind::Every { first_after, .. } = &mut self.0 {
            *first_after = delay;
        }
        self
    }

    /// What happens with a calendar's missed times.
    #[must_use]
    pub fn catching_up(mut self, how: CatchUp) -> Schedule {
        if let Kind::Calendar { catch_up, .. } = &mut self.0 {
            *catch_up = how;
        }
        self
    }

    /// A calendar job that also runs when the process starts.
    #[must_use]
    pub fn and_at_start(mut self) -> Schedule {
        if let Kind::Calendar { is_at_start, .. } = &mut self.0 {
            *is_at_start = true;
        }
        self
    }

    /// The longest time between two runs, of a calendar among the next few after `from_ms`: what lateness is measured by.
    pub fn period(&self, from_ms: i64) -> Duration {
        match &self.0 {
            Kind::Every { period, .. } => *period,
            Kind::Calendar { .. } => {
                let mut longest = 0;
                let mut at_ms = self.occurrence_after(from_ms);
                for _ in 0..LOOKED_AT {
                    let next_ms = self.occurrence_after(at_ms);
                    if next_ms == NEVER_MS {
                        break;
                    }
                    longest = longest.max(next_ms - at_ms);
                    at_ms = next_ms;
                }
                Duration::from_millis(longest.unsigned_abs())
            }
        }
    }

    /// For people: `every 10 min`, `cron 15 3 * * * (UTC)`.
    pub fn words(&self) -> String {
        match &self.0 {
            Kind::Every { period, .. } => format!("every {}", duration_words(*period)),
            Kind::Calendar { cron, zone, .. } => {
                format!("cron {} ({})", cron.as_str(), zone.iana_name().unwrap_or("local time"))
            }
        }
    }

    /// The first scheduled time after an instant; [`NEVER_MS`] where there is none. Of intervals there is none either.
    fn occurrence_after(&self, at_ms: i64) -> i64 {
        match &self.0 {
            Kind::Every { .. } => NEVER_MS,
            Kind::Calendar { cron, zone, .. } => {
                let found = zoned(at_ms, zone).and_then(|at| cron.find_next_occurrence(&at, false).ok());
                found.map_or(NEVER_MS, |at| at.timestamp().as_millisecond())
            }
        }
    }

    /// The last scheduled time of a calendar in `(after_ms, until_ms]`. Found forward, as the times are scheduled; after a very
    /// long downtime, backward from its end.
    fn last_occurrence(&self, after_ms: i64, until_ms: i64) -> Option<i64> {
        let Kind::Calendar { cron, zone, .. } = &self.0 else {
            return None;
        };
        let mut last = None;
        let mut at_ms = after_ms;
        for _ in 0..MISSED_MAX {
            at_ms = self.occurrence_after(at_ms);
            if at_ms > until_ms {
                return last;
            }
            last = Some(at_ms);
        }
        let until = zoned(until_ms, zone)?;
        let found = cron.find_previous_occurrence(&until, true).ok()?;
        Some(found.timestamp().as_millisecond()).max(last)
    }
}

fn zoned(at_ms: i64, zone: &TimeZone) -> Option<Zoned> {
    let at = Timestamp::from_millisecond(at_ms).ok()?;
    Some(at.to_zoned(zone.clone()))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// `5 s`, `10 min`, `1 h`, `1 d`; what divides evenly by no larger unit stays in the smaller one.
fn duration_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let unit = units
        .into_iter()
        .find(|(size, _)| seconds >= *size && seconds.is_multiple_of(*size));
    match unit {
        Some((size, unit)) => format!("{} {unit}", seconds / size),
        None if duration.subsec_millis() > 0 => format!("{} ms", duration.as_millis()),
        None => format!("{seconds} s"),
    }
}

/// A schedule that is followed: what is due, and what comes next. All instants are of the job's clock.
#[derive(Clone, Debug)]
pub struct Timetable {
    schedule: Schedule,
    next_ms: i64,
    /// The last scheduled time that was taken, of a calendar.
    handled_ms: Option<i64>,
    /// The same before the last take: a run for each missed time that failed is tried again for the same time.
    before_ms: Option<i64>,
    has_begun: bool,
}

impl Timetable {
    /// Begins at `now_ms`. `handled_ms` is the last scheduled time that was handled before, where that is known: a calendar
    /// job that never ran has missed nothing.
    pub fn begin(schedule: Schedule, handled_ms: Option<i64>, now_ms: i64) -> Timetable {
        let mut timetable = Timetable {
            schedule,
            next_ms: now_ms,
            handled_ms: handled_ms.map(|handled| handled.min(now_ms)),
            before_ms: None,
            has_begun: false,
        };
        timetable.next_ms = match &timetable.schedule.0 {
            Kind::Every { first_after, .. } => now_ms.saturating_add(millis(*first_after)),
            Kind::Calendar { is_at_start: true, .. } => now_ms,
            Kind::Calendar { .. } => timetable.next_time(now_ms),
        };
        timetable
    }

    /// Goes on from where another process was: `handled_ms` is the last scheduled time that was handled; a calendar that nobody
    /// has handled yet misses nothing before `now_ms`. An interval stays as it is.
    pub fn resume(&mut self, handled_ms: Option<i64>, now_ms: i64) {
        let Kind::Calendar { is_at_start, .. } = &self.schedule.0 else {
            return;
        };
        let runs_now = *is_at_start && !self.has_begun;
        self.handled_ms = Some(handled_ms.unwrap_or(now_ms).min(now_ms));
        self.next_ms = match runs_now {
            true => now_ms,
            false => self.next_time(now_ms),
        };
    }

    /// When it runs next; `None` where it never does.
    pub fn next_ms(&self) -> Option<i64> {
        Some(self.next_ms).filter(|next| *next != NEVER_MS)
    }

    /// The last scheduled time of a calendar that was taken.
    pub fn handled_ms(&self) -> Option<i64> {
        self.handled_ms
    }

    pub fn is_due(&self, now_ms: i64) -> bool {
        now_ms >= self.next_ms
    }

    /// Takes a run that begins now, due or not; the answer is the scheduled time that it is for.
    pub fn take(&mut self, now_ms: i64) -> i64 {
        let due_ms = self.next_ms.min(now_ms);
        self.has_begun = true;
        match &self.schedule.0 {
            Kind::Every { period, .. } => {
                self.next_ms = now_ms.saturating_add(millis(*period));
                due_ms
            }
            Kind::Calendar { catch_up, .. } => {
                let since_ms = self.handled_ms.unwrap_or(due_ms - 1);
                let scheduled_ms = match catch_up {
                    CatchUp::Each => self.schedule.occurrence_after(since_ms),
                    CatchUp::Once | CatchUp::Skip => {
                        self.schedule.last_occurrence(since_ms, now_ms).unwrap_or(NEVER_MS)
                    }
                };
                if scheduled_ms > now_ms {
                    // At the start, or asked for by a person, or tried again: no scheduled time is used up.
                    self.before_ms = self.handled_ms;
                    self.next_ms = self.next_time(now_ms);
                    return now_ms;
                }
                self.before_ms = Some(self.handled_ms.unwrap_or(scheduled_ms - 1));
                self.handled_ms = Some(scheduled_ms);
                self.next_ms = self.next_time(now_ms);
                scheduled_ms
            }
        }
    }

    /// The last run failed: it is tried again soon, or at its next time where that is sooner. A job that runs once for each
    /// scheduled time is tried again for the same one first.
    pub fn retry(&mut self, now_ms: i64) {
        let soon_ms = now_ms.saturating_add(millis(RETRY_INTERVAL));
        if let Kind::Calendar {
            catch_up: CatchUp::Each,
            ..
        } = &self.schedule.0
        {
            self.handled_ms = self.before_ms;
            self.next_ms = soon_ms;
        } else {
            self.next_ms = self.next_ms.min(soon_ms);
        }
    }

    /// Follows a clock that went back: nothing waits until the clock is again where it was.
    pub fn follow(&mut self, now_ms: i64) {
        match &self.schedule.0 {
            Kind::Every { period, .. } => self.next_ms = self.next_ms.min(now_ms.saturating_add(millis(*period))),
            Kind::Calendar { .. } => {
                if self.handled_ms.is_some_and(|handled| handled > now_ms) {
                    self.handled_ms = Some(now_ms);
                    self.next_ms = self.next_ms.min(self.schedule.occurrence_after(now_ms));
                }
            }
        }
    }

    /// A calendar's next time: one that was missed, which is due, or the first after `now_ms`.
    fn next_time(&self, now_ms: i64) -> i64 {
        let Kind::Calendar { catch_up, .. } = &self.schedule.0 else {
            return self.next_ms;
        };
        let from_ms = match (catch_up, self.handled_ms) {
            (CatchUp::Once | CatchUp::Each, Some(handled)) => handled,
            (CatchUp::Skip, _) | (_, None) => now_ms,
        };
        self.schedule.occurrence_after(from_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn berlin(pattern: &str) -> Schedule {
        Schedule::calendar(pattern, TimeZone::get("Europe/Berlin").unwrap()).unwrap()
    }

    /// The scheduled times of the runs of a job that looks every minute between two instants.
    fn runs(timetable: &mut Timetable, from: &str, to: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut now_ms = ms(from);
        while now_ms <= ms(to) {
            while timetable.is_due(now_ms) {
                let scheduled = timetable.take(now_ms);
                found.push(Timestamp::from_millisecond(scheduled).unwrap().to_string());
            }
            now_ms += 60_000;
        }
        found
    }

    #[test]
    fn an_interval_counts_from_the_start_and_repeats_nothing_that_was_missed() {
        let schedule = Schedule::every(10 * MINUTE).first_after(Duration::from_secs(5));
        assert_eq!(schedule.words(), "every 10 min");
        let mut timetable = Timetable::begin(schedule, Some(0), 1_000_000);
        assert!(!timetable.is_due(1_004_999));
        assert!(timetable.is_due(1_005_000));
        timetable.take(1_005_000);
        assert_eq!(timetable.next_ms(), Some(1_605_000));
        // Three intervals late: one run.
        assert!(timetable.is_due(3_000_000));
        timetable.take(3_000_000);
        assert!(!timetable.is_due(3_599_999));
        // What failed is tried again in half a minute.
        timetable.retry(3_000_000);
        assert!(timetable.is_due(3_030_000) && !timetable.is_due(3_029_999));
        timetable.take(3_030_000);
        // A clock that went back by a day: the next run is at most an interval away.
        timetable.follow(0);
        assert_eq!(timetable.next_ms(), Some(600_000));
    }

    #[test]
    fn a_fixed_time_runs_once_on_the_day_without_its_hour_and_once_on_the_day_that_has_it_twice() {
        // 29 March 2026 has no 02:30 in Berlin: the clock goes from 02:00 to 03:00, which is 01:00 UTC.
        let mut timetable = Timetable::begin(berlin("30 2 * * *"), None, ms("2026-03-28T00:00:00Z"));
        assert_eq!(
            runs(&mut timetable, "2026-03-28T00:00:00Z", "2026-03-30T12:00:00Z"),
            ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        // 25 October 2026 has it twice: 00:30 and 01:30 UTC.
        let mut timetable = Timetable::begin(berlin("30 2 * * *"), None, ms("2026-10-24T12:00:00Z"));
        assert_eq!(
            runs(&mut timetable, "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z"),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
    }

    #[test]
    fn what_was_missed_over_a_daylight_saving_day_is_caught_up_with_as_the_job_says() {
        let begin = |how| {
            Timetable::begin(
                berlin("30 2 * * *").catching_up(how),
                Some(ms("2026-03-27T01:30:00Z")),
                ms("2026-03-30T12:00:00Z"),
            )
        };
        let times = |how| runs(&mut begin(how), "2026-03-30T12:00:00Z", "2026-03-31T12:00:00Z");
        assert_eq!(times(CatchUp::Once), ["2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"]);
        assert_eq!(
            times(CatchUp::Each),
            [
                "2026-03-28T01:30:00Z",
                "2026-03-29T01:00:00Z",
                "2026-03-30T00:30:00Z",
                "2026-03-31T00:30:00Z"
            ]
        );
        assert_eq!(times(CatchUp::Skip), ["2026-03-31T00:30:00Z"]);
    }

    #[test]
    fn a_run_that_takes_longer_than_its_period_is_followed_by_one_run() {
        let schedule = Schedule::calendar("0 * * * *", TimeZone::UTC).unwrap();
        let mut timetable = Timetable::begin(schedule, None, ms("2026-01-01T00:30:00Z"));
        assert!(!timetable.is_due(ms("2026-01-01T00:59:59Z")));
        assert_eq!(timetable.take(ms("2026-01-01T01:00:01Z")), ms("2026-01-01T01:00:00Z"));
        // It ran until 04:30.
        assert_eq!(timetable.take(ms("2026-01-01T04:30:00Z")), ms("2026-01-01T04:00:00Z"));
        assert_eq!(timetable.next_ms(), Some(ms("2026-01-01T05:00:00Z")));
    }

    #[test]
    fn a_run_that_was_asked_for_and_one_at_the_start_use_up_no_scheduled_time() {
        let schedule = Schedule::calendar("15 3 * * *", TimeZone::UTC).unwrap();
        assert_eq!(schedule.period(0), Duration::from_secs(86_400));
        let handled = Some(ms("2026-01-01T03:15:00Z"));
        let now_ms = ms("2026-01-01T12:00:00Z");
        let mut timetable = Timetable::begin(schedule.clone(), handled, now_ms);
        assert!(!timetable.is_due(now_ms));
        timetable.take(now_ms);
        assert_eq!(timetable.handled_ms(), handled);
        assert_eq!(timetable.next_ms(), Some(ms("2026-01-02T03:15:00Z")));
        let mut timetable = Timetable::begin(schedule.and_at_start(), handled, now_ms);
        assert!(timetable.is_due(now_ms));
        timetable.take(now_ms);
        assert_eq!(timetable.next_ms(), Some(ms("2026-01-02T03:15:00Z")));
        // The run at the start failed: half a minute later it is tried again.
        timetable.retry(now_ms);
        assert!(timetable.is_due(now_ms + 30_000));
    }

    #[test]
    fn a_failed_run_for_one_of_several_missed_times_is_tried_again_for_that_time() {
        let schedule = Schedule::calendar("0 * * * *", TimeZone::UTC).unwrap();
        let schedule = schedule.catching_up(CatchUp::Each);
        let now_ms = ms("2026-01-01T03:30:00Z");
        let mut timetable = Timetable::begin(schedule, Some(ms("2026-01-01T01:00:00Z")), now_ms);
        assert_eq!(timetable.take(now_ms), ms("2026-01-01T02:00:00Z"));
        timetable.retry(now_ms);
        assert!(!timetable.is_due(now_ms + 29_999));
        assert_eq!(timetable.take(now_ms + 30_000), ms("2026-01-01T02:00:00Z"));
        assert_eq!(timetable.take(now_ms + 31_000), ms("2026-01-01T03:00:00Z"));
        assert_eq!(timetable.next_ms(), Some(ms("2026-01-01T04:00:00Z")));
    }

    #[test]
    fn a_pattern_that_is_none_is_refused_by_name() {
        let error = Schedule::calendar("every day", TimeZone::UTC).unwrap_err();
        assert!(error.to_string().contains("every day"), "{error}");
    }
}
