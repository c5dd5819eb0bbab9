//! What may be asked of the overview, and what is refused.
//!
//! A range is at most [`MAX_RANGE_MS`] wide, is widened to whole windows and ends no later than now: any minute can be asked
//! for. Times without a zone are UTC. The window that is open now belongs to it only once it is [`OPEN_STEP_MIN_MS`] old.

use analytics::Dimension;
use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::format;
use crate::range::parse_instant;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Length of a usage window.
pub(super) const WINDOW_MS: i64 = 5 * MINUTE_MS;
/// Widest range that is answered.
pub(crate) const MAX_RANGE_MS: i64 = 400 * DAY_MS;
/// A window that has been open for less than this says more about the clock than about the traffic.
pub(super) const OPEN_STEP_MIN_MS: i64 = MINUTE_MS;
/// Keys shown beside `other` when nobody asks for a number.
const DEFAULT_KEYS: usize = 10;
/// Most keys.
const MAX_KEYS: usize = 50;
/// More keys than any dimension has in practice: there are some 80,000 autonomous systems.
const MAX_SKIP: usize = 1_000_000;

/// Ranges offered by name, each ending now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Preset {
    Hour,
    SixHours,
    Day,
    Week,
    Month,
}

impl Preset {
    pub(crate) const ALL: [Preset; 5] = [Preset::Hour, Preset::SixHours, Preset::Day, Preset::Week, Preset::Month];

    /// As it stands in the URL and on the button.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Preset::Hour => "1h",
            Preset::SixHours => "6h",
            Preset::Day => "24h",
            Preset::Week => "7d",
            Preset::Month => "30d",
        }
    }

    fn length_ms(self) -> i64 {
        match self {
            Preset::Hour => HOUR_MS,
            Preset::SixHours => 6 * HOUR_MS,
            Preset::Day => DAY_MS,
            Preset::Week => 7 * DAY_MS,
            Preset::Month => 30 * DAY_MS,
        }
    }

    fn parse(name: &str) -> Option<Preset> {
        Preset::ALL.into_iter().find(|preset| preset.name() == name)
    }
}

/// What the URL may say.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, utoipa::IntoParams)]
pub(crate) struct OverviewQuery {
    /// `1h`, `6h`, `24h`, `7d` or `30d`, in place of `from` and `to`.
    pub(crate) range: Option<String>,
    /// As every range: RFC 3339, UTC milliseconds, or `2026-11-22T14:00` (UTC) as date fields send it.
    pub(crate) from: Option<String>,
    /// The same, not included.
    pub(crate) to: Option<String>,
    /// What it is stacked by: `service`, `protocol`, `port`, `interface`, `exporter`, `site`, `boundary` or `as`.
    pub(crate) by: Option<String>,
    /// How many keys are named.
    pub(crate) limit: Option<usize>,
    /// How many of the largest keys are summed instead of named: those of the pages before.
    pub(crate) skip: Option<usize>,
}

/// Why a query is refused; the text is for the person who typed it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum QueryError {
    #[error("range is one of 1h, 6h, 24h, 7d, 30d, not {0:?}")]
    Range(String),
    #[error("{field} is not a time from the year 2000 on, like 2026-11-22T14:00 or 2026-11-22T14:00:00Z: {text:?}")]
    Time { field: &'static str, text: String },
    #[error("a custom range needs both from and to")]
    Half,
    #[error("the range ends before it starts")]
    Empty,
    #[error("nothing is measured yet after {0}: choose an earlier start")]
    NotYet(String),
    #[error("the range is longer than {} days", MAX_RANGE_MS / DAY_MS)]
    TooLong,
    #[error("by is one of service, protocol, port, interface, exporter, site, boundary, as, not {0:?}")]
    By(String),
    #[error("limit lies between 1 and {MAX_KEYS}, not {0}")]
    Limit(usize),
    #[error("skip is at most {MAX_SKIP}, not {0}")]
    Skip(usize),
}

schemas::error_codes! {
    QueryError: "overview_query";
    of []
    source []
    Refused:
        Range = "range", Time = "time", Half = "half", Empty = "empty", NotYet = "not_yet", TooLong = "too_long",
        By = "by", Limit = "limit", Skip = "skip";
}

/// A checked query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OverviewRequest {
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
    /// `None` for a custom range.
    pub(crate) preset: Option<Preset>,
    pub(crate) by: Dimension,
    pub(crate) limit: usize,
    pub(crate) skip: usize,
}

impl OverviewQuery {
    /// Checks the query. `now_ms` ends every preset and caps a custom range.
    ///
    /// # Errors
    /// With what is wrong, in words for the person who asked.
    pub(crate) fn check(&self, now_ms: i64) -> Result<OverviewRequest, QueryError> {
        let by = match present(self.by.as_deref()) {
            None => Dimension::Service,
            Some(text) => dimension(text).ok_or_else(|| QueryError::By(text.to_owned()))?,
        };
        let limit = match self.limit {
            None => DEFAULT_KEYS,
            Some(limit @ 1..=MAX_KEYS) => limit,
            Some(limit) => return Err(QueryError::Limit(limit)),
        };
        let skip = match self.skip.unwrap_or(0) {
            skip @ 0..=MAX_SKIP => skip,
            skip => return Err(QueryError::Skip(skip)),
        };
        let (from_ms, to_ms, preset) = self.range(now_ms)?;
        Ok(OverviewRequest {
            from_ms,
            to_ms,
            preset,
            by,
            limit,
            skip,
        })
    }

    fn range(&self, now_ms: i64) -> Result<(i64, i64, Option<Preset>), QueryError> {
        let (from, to) = (present(self.from.as_deref()), present(self.to.as_deref()));
        let (from_ms, to_ms) = match (from, to) {
            (None, None) => {
                let name = present(self.range.as_deref()).unwrap_or(Preset::Day.name());
                let preset = Preset::parse(name).ok_or_else(|| QueryError::Range(name.to_owned()))?;
                let to_ms = last_useful_end_ms(now_ms);
                // Rounded up, so that a day is never longer than a day and keeps its fine steps.
                let from_ms = -((preset.length_ms() - now_ms).div_euclid(WINDOW_MS) * WINDOW_MS);
                return Ok((from_ms, to_ms, Some(preset)));
            }
            (Some(from), Some(to)) => (parse_time("from", from)?, parse_time("to", to)?),
            _ => return Err(QueryError::Half),
        };
        if to_ms <= from_ms {
            return Err(QueryError::Empty);
        }
        // Windows are the finest there is: the range covers whole ones, whatever minutes it names, up to what has passed.
        let from_ms = from_ms.div_euclid(WINDOW_MS) * WINDOW_MS;
        let to_ms = -((-to_ms).div_euclid(WINDOW_MS) * WINDOW_MS);
        let to_ms = to_ms.min(last_useful_end_ms(now_ms));
        if to_ms <= from_ms {
            let useful_to = format::minute(last_useful_end_ms(now_ms), &TimeZone::UTC);
            return Err(QueryError::NotYet(format!("{useful_to} UTC")));
        }
        if to_ms - from_ms > MAX_RANGE_MS {
            return Err(QueryError::TooLong);
        }
        Ok((from_ms, to_ms, None))
    }
}

/// Forms send empty fields; they mean "not given".
fn present(field: Option<&str>) -> Option<&str> {
    field.map(str::trim).filter(|text| !text.is_empty())
}

/// Now, or the end of the last closed window while the open one is too young to say anything.
fn last_useful_end_ms(now_ms: i64) -> i64 {
    let open_ms = now_ms.rem_euclid(WINDOW_MS);
    if open_ms < OPEN_STEP_MIN_MS {
        now_ms - open_ms
    } else {
        now_ms
    }
}

fn parse_time(field: &'static str, text: &str) -> Result<i64, QueryError> {
    parse_instant(text, &TimeZone::UTC).ok_or_else(|| QueryError::Time {
        field,
        text: text.to_owned(),
    })
}

fn dimension(text: &str) -> Option<Dimension> {
    Dimension::ALL.into_iter().find(|by| by.name() == text)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    /// 2026-11-22T14:03:30Z, 3 min 30 s into a window.
    const NOW_MS: i64 = 1_795_356_210_000;

    fn query(range: &str, from: &str, to: &str) -> OverviewQuery {
        OverviewQuery {
            range: Some(range.to_owned()),
            from: Some(from.to_owned()),
            to: Some(to.to_owned()),
            ..OverviewQuery::default()
        }
    }

    #[test]
    fn a_preset_ends_now_and_starts_with_a_whole_window() {
        let request = query("1h", "", "").check(NOW_MS).unwrap();
        assert_eq!(request.to_ms, NOW_MS);
        assert_eq!(instant_text(request.from_ms), "2026-11-22T13:05:00Z");
        assert_eq!(request.preset, Some(Preset::Hour));
        let request = OverviewQuery::default().check(NOW_MS).unwrap();
        assert_eq!(request.preset, Some(Preset::Day));
        assert_eq!(request.by, Dimension::Service);
    }

    #[test]
    fn a_window_opened_seconds_ago_is_left_out() {
        let just_opened_ms = NOW_MS + 95_000;
        assert_eq!(instant_text(just_opened_ms), "2026-11-22T14:05:05Z");
        let request = query("6h", "", "").check(just_opened_ms).unwrap();
        assert_eq!(instant_text(request.to_ms), "2026-11-22T14:05:00Z");
    }

    #[test]
    fn custom_ranges_take_times_with_and_without_a_zone() {
        let request = query("", "2026-11-20T10:02", "2026-11-20T13:00:00+01:00")
            .check(NOW_MS)
            .unwrap();
        assert_eq!(instant_text(request.from_ms), "2026-11-20T10:00:00Z");
        assert_eq!(instant_text(request.to_ms), "2026-11-20T12:00:00Z");
        assert_eq!(request.preset, None);
        assert_eq!(
            instant_text(
                query("", "2026-11-20T10:02", "2026-11-20T10:03")
                    .check(NOW_MS)
                    .unwrap()
                    .to_ms
            ),
            "2026-11-20T10:05:00Z",
            "a window counts whole, or its volume would be rated over less time than it has"
        );
        let future = query("", "2026-11-22T10:00", "2027-01-01T00:00").check(NOW_MS).unwrap();
        assert_eq!(future.to_ms, NOW_MS, "nothing was measured in the future");
    }

    #[test]
    fn what_cannot_be_answered_is_refused_with_its_reason() {
        let refused = |range, from, to| query(range, from, to).check(NOW_MS).unwrap_err();
        assert_eq!(refused("2h", "", ""), QueryError::Range("2h".to_owned()));
        assert_eq!(refused("", "2026-11-20T10:00", ""), QueryError::Half);
        assert_eq!(refused("", "2026-11-20T10:00", "2026-11-20T09:00"), QueryError::Empty);
        assert_eq!(refused("", "2020-01-01T00:00", "2026-11-20T09:00"), QueryError::TooLong);
        assert!(matches!(
            refused("", "yesterday", "2026-11-20T09:00"),
            QueryError::Time { field: "from", .. }
        ));
        assert!(matches!(
            refused("", "2026-11-22T14:10", "2026-11-22T15:00"),
            QueryError::NotYet(_)
        ));
        let by = OverviewQuery {
            by: Some("customer".to_owned()),
            ..OverviewQuery::default()
        };
        assert_eq!(by.check(NOW_MS), Err(QueryError::By("customer".to_owned())));
        let limit = OverviewQuery {
            limit: Some(MAX_KEYS + 1),
            ..OverviewQuery::default()
        };
        assert_eq!(limit.check(NOW_MS), Err(QueryError::Limit(MAX_KEYS + 1)));
    }

    #[test]
    fn every_minute_can_be_asked_for() {
        for minute in 0..60 {
            for length in 1..=12 {
                let from_ms = NOW_MS - 86_400_000 + minute * MINUTE_MS;
                let to_ms = from_ms + length * MINUTE_MS;
                let request = query("", &instant_text(from_ms), &instant_text(to_ms))
                    .check(NOW_MS)
                    .unwrap();
                assert!(
                    request.from_ms <= from_ms && to_ms <= request.to_ms,
                    "{minute} {length}"
                );
                assert_eq!((request.to_ms - request.from_ms) % WINDOW_MS, 0);
                assert!(request.to_ms - request.from_ms < length * MINUTE_MS + 2 * WINDOW_MS);
            }
        }
    }

    fn instant_text(ms: i64) -> String {
        Timestamp::from_millisecond(ms).unwrap().to_string()
    }
}
