//! The time a chart shows: from, to and step, as addresses say it, within limits.
//!
//! `range` names a preset (`24h`, `7d`, `30d`, `period`, `previous`); `from` and `to` give it exactly, as RFC 3339, as UTC
//! milliseconds, or as local dates and times of the page's time zone ([`PageZone`]). `step` is `five_minutes`, `hour` or `day`; where it is
//! left out, the finest that draws well. No time lies before [`EARLIEST_MS`]: a smaller number is one of something else.

use analytics::Step;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use schemas::inventory::Customer;
use schemas::period::Period;
use schemas::window::{DAY_MS, HOUR_MS, WINDOW_MS};

use crate::error::Failure;
use crate::format;

/// Longest time one answer covers.
const MAX_RANGE_MS: i64 = 400 * DAY_MS;
/// 2000-01-01, before anything was measured.
const EARLIEST_MS: i64 = 946_684_800_000;
/// Points in one answer: a month of 5-minute windows and a little.
const MAX_POINTS: i64 = 9_500;
/// 5-minute steps are chosen up to here, hours up to the next.
const AUTO_FIVE_MINUTES_MS: i64 = 2 * DAY_MS;
const AUTO_HOURS_MS: i64 = 45 * DAY_MS;

/// What an address asked for, unchecked.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Deserialize, utoipa::IntoParams)]
pub(crate) struct RangeQuery {
    /// `24h`, `7d`, `30d`, `period` or `previous`, in place of `from` and `to`.
    #[serde(default)]
    pub(crate) range: String,
    /// RFC 3339, UTC milliseconds, or a local date with or without a time.
    #[serde(default)]
    pub(crate) from: String,
    /// The same, not included.
    #[serde(default)]
    pub(crate) to: String,
    /// `five_minutes`, `hour` or `day`; the finest that draws well where it is left out.
    #[serde(default)]
    pub(crate) step: String,
}

/// The one time zone that a page tells its times in and reads times without a zone in: a customer's own, and UTC for those who
/// watch the network.
#[derive(Clone, Debug)]
pub(crate) struct PageZone {
    pub(crate) zone: TimeZone,
    /// As the page says it.
    pub(crate) name: String,
}

impl PageZone {
    pub(crate) fn of(customer: &Customer) -> PageZone {
        PageZone {
            zone: customer.time_zone.clone(),
            name: customer.time_zone_name().to_owned(),
        }
    }

    pub(crate) fn utc() -> PageZone {
        PageZone {
            zone: TimeZone::UTC,
            name: "UTC".to_owned(),
        }
    }
}

/// A checked time and step, aligned to the step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Range {
    /// The preset it came from; empty where `from` and `to` were given.
    pub(crate) preset: String,
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
    pub(crate) step: Step,
}

/// Names of steps, as addresses spell them, and as people read them.
pub(crate) const STEPS: [(Step, &str, &str); 3] = [
    (Step::FiveMinutes, "five_minutes", "5 min"),
    (Step::Hour, "hour", "Hour"),
    (Step::Day, "day", "Day"),
];

/// Presets, as addresses spell them, and as people read them.
pub(crate) const PRESETS: [(&str, &str); 5] = [
    ("24h", "24 h"),
    ("7d", "7 days"),
    ("30d", "30 days"),
    ("period", "This period"),
    ("previous", "Last period"),
];

pub(crate) fn step_name(step: Step) -> &'static str {
    STEPS
        .iter()
        .find(|(s, _, _)| *s == step)
        .map_or("day", |(_, name, _)| name)
}

fn step_ms(step: Step) -> i64 {
    match step {
        Step::FiveMinutes => WINDOW_MS,
        Step::Hour => HOUR_MS,
        Step::Day => DAY_MS,
    }
}

/// One end of the range: RFC 3339, UTC milliseconds, or a local date with or without a time.
fn instant(field: &str, text: &str, zone: &TimeZone) -> Result<i64, Failure> {
    parse_instant(text, zone).ok_or_else(|| {
        Failure::BadRequest(format!(
            "“{field}” is an RFC 3339 time, a date like 2026-11-01, a date and time like 2026-11-01T14:05, or UTC milliseconds, \
             from the year 2000 on; {text:?} is none of them."
        ))
    })
}

/// A time as every address may say it; `None` where it is none, or lies before [`EARLIEST_MS`].
pub(crate) fn parse_instant(text: &str, zone: &TimeZone) -> Option<i64> {
    let at = if let Ok(ms) = text.parse::<i64>() {
        // The calendar's limits; what lies beyond would overflow later.
        Timestamp::from_millisecond(ms).ok()?
    } else if let Ok(at) = text.parse::<Timestamp>() {
        at
    } else {
        // A date alone is its midnight.
        let local: jiff::civil::DateTime = text.parse().ok()?;
        local.to_zoned(zone.clone()).ok()?.timestamp()
    };
    Some(at.as_millisecond()).filter(|at_ms| *at_ms >= EARLIEST_MS)
}

impl RangeQuery {
    /// Checks what was asked. `period` is the service's current billing period, `previous` the one before.
    pub(crate) fn resolve(
        &self,
        now_ms: i64,
        zone: &TimeZone,
        period: &Period,
        previous: &Period,
    ) -> Result<Range, Failure> {
        let (preset, from_ms, to_ms) = match (self.from.as_str(), self.to.as_str()) {
            ("", "") => {
                let preset = if self.range.is_empty() { "24h" } else { &self.range };
                let (from_ms, to_ms) = match preset {
                    "24h" => (now_ms - DAY_MS, now_ms),
                    "7d" => (now_ms - 7 * DAY_MS, now_ms),
                    "30d" => (now_ms - 30 * DAY_MS, now_ms),
                    "period" => (
                        period.start_ms,
                        now_ms.clamp(period.start_ms + WINDOW_MS, period.end_ms),
                    ),
                    "previous" => (previous.start_ms, previous.end_ms),
                    other => {
                        let known = PRESETS.map(|(name, _)| name).join(", ");
                        return Err(Failure::BadRequest(format!(
                            "“range” is one of {known}, not {other:?}."
                        )));
                    }
                };
                (preset.to_owned(), from_ms, to_ms)
            }
            (from, to) => {
                let to_ms = if to.is_empty() {
                    now_ms
                } else {
                    instant("to", to, zone)?
                };
                let from_ms = if from.is_empty() {
                    to_ms - DAY_MS
                } else {
                    instant("from", from, zone)?
                };
                (String::new(), from_ms, to_ms)
            }
        };
        if from_ms >= to_ms {
            return Err(Failure::BadRequest("“from” must lie before “to”.".to_owned()));
        }
        if to_ms - from_ms > MAX_RANGE_MS {
            let days = MAX_RANGE_MS / DAY_MS;
            return Err(Failure::BadRequest(format!(
                "At most {days} days can be shown at once."
            )));
        }
        let length_ms = to_ms - from_ms;
        let step = match self.step.as_str() {
            "" | "auto" if length_ms <= AUTO_FIVE_MINUTES_MS => Step::FiveMinutes,
            "" | "auto" if length_ms <= AUTO_HOURS_MS => Step::Hour,
            "" | "auto" => Step::Day,
            name => match STEPS.iter().find(|(_, known, _)| *known == name) {
                Some((step, _, _)) => *step,
                None => {
                    return Err(Failure::BadRequest(format!(
                        "“step” is one of five_minutes, hour, day, not {name:?}."
                    )));
                }
            },
        };
        if length_ms / step_ms(step) > MAX_POINTS {
            return Err(Failure::BadRequest(format!(
                "That would be more than {MAX_POINTS} points: choose a wider step or a shorter time."
            )));
        }
        let (from_ms, to_ms) = aligned(from_ms, to_ms, step, zone)
            .map_err(|_| Failure::BadRequest("The time is beyond the calendar.".to_owned()))?;
        Ok(Range {
            preset,
            from_ms,
            to_ms,
            step,
        })
    }
}

/// What a field of a range holds: what was typed where that was refused, so that it need not be typed again, and otherwise the
/// end of what is shown.
pub(crate) fn field(is_refused: bool, typed: &str, shown: String) -> String {
    if is_refused && !typed.is_empty() {
        typed.to_owned()
    } else {
        shown
    }
}

/// Widened to whole steps: local days start at local midnight.
fn aligned(from_ms: i64, to_ms: i64, step: Step, zone: &TimeZone) -> Result<(i64, i64), jiff::Error> {
    let width_ms = match step {
        Step::FiveMinutes => WINDOW_MS,
        Step::Hour => HOUR_MS,
        Step::Day => {
            let midnight = |ms: i64| Timestamp::from_millisecond(ms)?.to_zoned(zone.clone()).start_of_day();
            let from = midnight(from_ms)?;
            let mut to = midnight(to_ms)?;
            if to.timestamp().as_millisecond() < to_ms {
                to = to.date().checked_add(1.day())?.to_zoned(zone.clone())?;
            }
            return Ok((from.timestamp().as_millisecond(), to.timestamp().as_millisecond()));
        }
    };
    let from_ms = from_ms.div_euclid(width_ms) * width_ms;
    let to_ms = to_ms.div_euclid(width_ms) * width_ms + if to_ms.rem_euclid(width_ms) > 0 { width_ms } else { 0 };
    Ok((from_ms, to_ms))
}

impl Range {
    /// Cut to what may be seen, from `visible_from_ms` on; `None` where nothing of it may. What ends now, as a preset does, may
    /// end before that by a part of a window: then it is the first step, in which something is still to come.
    pub(crate) fn seen_from(self, visible_from_ms: i64, now_ms: i64) -> Option<Range> {
        let from_ms = self.from_ms.max(visible_from_ms);
        if from_ms < self.to_ms {
            return Some(Range { from_ms, ..self });
        }
        let ends_now = !self.preset.is_empty() && self.to_ms >= now_ms;
        ends_now.then(|| Range {
            from_ms,
            to_ms: from_ms + step_ms(self.step),
            ..self
        })
    }

    /// As an address says it exactly.
    pub(crate) fn query(&self) -> String {
        format!("{}&step={}", self.time_query(), step_name(self.step))
    }

    /// The time alone: RFC 3339 with its zone, so that it is the same time on every page.
    pub(crate) fn time_query(&self) -> String {
        format!(
            "from={}&to={}",
            format::rfc3339(self.from_ms),
            format::rfc3339(self.to_ms)
        )
    }

    /// From and to as fields of type `datetime-local` hold them.
    pub(crate) fn inputs(&self, zone: &TimeZone) -> (String, String) {
        let field = |at_ms: i64| format::minute_field(at_ms, zone);
        (field(self.from_ms), field(self.to_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22T12:02:03Z.
    const NOW_MS: i64 = 1_795_348_923_000;

    fn resolve(range: &str, from: &str, to: &str, step: &str, zone: &str) -> Result<(String, String, Step), String> {
        let zone = TimeZone::get(zone).unwrap();
        let anchor = AnchorDay::new(10).unwrap();
        let now = Timestamp::from_millisecond(NOW_MS).unwrap();
        let period = Period::containing(now, anchor, &zone).unwrap();
        let previous = period.previous(anchor, &zone).unwrap();
        let asked = RangeQuery {
            range: range.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            step: step.to_owned(),
        };
        let text = |ms| Timestamp::from_millisecond(ms).unwrap().to_string();
        asked
            .resolve(NOW_MS, &zone, &period, &previous)
            .map(|range| (text(range.from_ms), text(range.to_ms), range.step))
            .map_err(|failure| failure.to_string())
    }

    use schemas::period::AnchorDay;

    fn ok(from: &str, to: &str, step: Step) -> Result<(String, String, Step), String> {
        Ok((from.to_owned(), to.to_owned(), step))
    }

    #[test]
    fn presets_are_widened_to_whole_steps() {
        let utc = |range: &str| resolve(range, "", "", "", "UTC");
        assert_eq!(
            utc(""),
            ok("2026-11-21T12:00:00Z", "2026-11-22T12:05:00Z", Step::FiveMinutes)
        );
        assert_eq!(
            utc("30d"),
            ok("2026-10-23T12:00:00Z", "2026-11-22T13:00:00Z", Step::Hour)
        );
        assert_eq!(
            utc("period"),
            ok("2026-11-10T00:00:00Z", "2026-11-22T13:00:00Z", Step::Hour)
        );
        assert_eq!(
            utc("previous"),
            ok("2026-10-10T00:00:00Z", "2026-11-10T00:00:00Z", Step::Hour)
        );
        assert!(utc("1y").unwrap_err().contains("24h"));
    }

    #[test]
    fn days_are_local_even_when_the_clocks_change() {
        assert_eq!(
            resolve("", "2026-10-24", "2026-10-27", "day", "Europe/Berlin"),
            ok("2026-10-23T22:00:00Z", "2026-10-26T23:00:00Z", Step::Day)
        );
        assert_eq!(
            resolve(
                "",
                "2026-10-24T05:00:00Z",
                "2026-10-27T05:00:00Z",
                "day",
                "Europe/Berlin"
            ),
            ok("2026-10-23T22:00:00Z", "2026-10-27T23:00:00Z", Step::Day)
        );
    }

    #[test]
    fn a_chosen_hour_is_the_same_hour_from_a_link_and_from_a_field() {
        let hour = ok("2026-11-20T09:00:00Z", "2026-11-20T10:00:00Z", Step::FiveMinutes);
        let berlin = |from: &str, to: &str| resolve("", from, to, "", "Europe/Berlin");
        assert_eq!(berlin("2026-11-20T09:00:00Z", "2026-11-20T10:00:00Z"), hour);
        assert_eq!(berlin("2026-11-20T10:00:00+01:00", "2026-11-20T11:00:00+01:00"), hour);
        assert_eq!(
            berlin("2026-11-20T10:00", "2026-11-20T11:00"),
            hour,
            "as its field sends it"
        );
        assert_eq!(
            berlin("2026-11-20T10:01", "2026-11-20T10:58"),
            hour,
            "any minute, widened"
        );
        let range = Range {
            preset: String::new(),
            from_ms: 1_795_165_200_000,
            to_ms: 1_795_168_800_000,
            step: Step::FiveMinutes,
        };
        assert_eq!(range.time_query(), "from=2026-11-20T09:00:00Z&to=2026-11-20T10:00:00Z");
        let (from, to) = range.inputs(&TimeZone::get("Europe/Berlin").unwrap());
        assert_eq!((from.as_str(), to.as_str()), ("2026-11-20T10:00", "2026-11-20T11:00"));
    }

    #[test]
    fn what_is_seen_begins_with_what_is_owned() {
        let range = |preset: &str| Range {
            preset: preset.to_owned(),
            from_ms: NOW_MS - DAY_MS,
            to_ms: NOW_MS,
            step: Step::FiveMinutes,
        };
        let times = |preset: &str, visible_from_ms: i64| {
            let seen = range(preset).seen_from(visible_from_ms, NOW_MS);
            seen.map(|range| (range.from_ms, range.to_ms))
        };
        assert_eq!(times("24h", 0), Some((NOW_MS - DAY_MS, NOW_MS)));
        assert_eq!(times("", NOW_MS - HOUR_MS), Some((NOW_MS - HOUR_MS, NOW_MS)));
        // It becomes theirs with the next window.
        let next_ms = NOW_MS + 60_000;
        assert_eq!(times("24h", next_ms), Some((next_ms, next_ms + WINDOW_MS)));
        assert_eq!(times("", next_ms), None, "what was asked for exactly is refused");
    }

    #[test]
    fn limits_are_told() {
        let utc = |from: &str, to: &str, step: &str| resolve("", from, to, step, "UTC").unwrap_err();
        assert!(utc("2026-11-02", "2026-11-01", "").contains("before"));
        assert!(utc("2020-01-01", "2026-11-01", "").contains("400 days"));
        assert!(utc("2026-01-01", "2026-11-01", "five_minutes").contains("points"));
        assert!(utc("yesterday", "", "").contains("RFC 3339"));
        assert!(utc("2026-11-01", "", "minute").contains("step"));
        assert!(utc("9223372036854775807", "", "").contains("RFC 3339"));
        assert!(resolve("", "1795348800000", "1795349100000", "", "UTC").is_ok());
        for early in ["1", "0", "-1", "946684799999", "1970-01-01", "1999-12-31T23:59:59Z"] {
            assert!(utc(early, "2026-11-01", "").contains("the year 2000"), "{early}");
            assert!(utc("2026-11-01", early, "").contains("the year 2000"), "{early}");
        }
    }
}
