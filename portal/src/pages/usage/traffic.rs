//! The traffic of one service over a time: chart, table, gaps and CSV, the same for its customer and for staff. Who may see
//! the service is decided before anything here is called.

use analytics::SeriesPoint;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use jiff::tz::TimeZone;
use schemas::address::Address;
use schemas::inventory::Customer;

use super::coverage_percent;
use crate::customer::OwnService;
use crate::error::Failure;
use crate::format::{self, VolumeUnits};
use crate::range::{self, PRESETS, PageZone, Range, RangeQuery, STEPS, step_name};
use crate::series;
use crate::state::AppState;

/// Rows of the table beneath the chart; the newest are shown, the CSV file has all.
const MAX_TABLE_ROWS: usize = 400;
/// Gaps named on a page.
const MAX_GAPS_SHOWN: usize = 20;
/// Seconds of a usage window.
const WINDOW_S: u64 = 300;
/// Seconds that a rate is told of at least.
const RATED_MIN_S: u64 = 60;

/// A link that may be the current one.
pub(crate) struct Choice {
    pub(crate) label: &'static str,
    pub(crate) query: String,
    pub(crate) is_current: bool,
}

pub(crate) struct PointRow {
    pub(crate) start: String,
    pub(crate) received: String,
    pub(crate) sent: String,
    pub(crate) rate: String,
    /// Sampling error of both directions together; empty where every packet was counted.
    pub(crate) bound: String,
    pub(crate) note: String,
}

pub(crate) struct GapRow {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) minutes: i64,
    pub(crate) exporter: String,
}

/// Where the numbers of the chart come from, without the query.
#[derive(Debug)]
pub(crate) struct Addresses {
    pub(crate) csv: String,
    pub(crate) json: String,
}

/// What `traffic.html` and `gaps.html` show.
pub(crate) struct TrafficView {
    pub(crate) ranges: Vec<Choice>,
    pub(crate) steps: Vec<Choice>,
    pub(crate) from_input: String,
    pub(crate) to_input: String,
    pub(crate) time_zone: String,
    pub(crate) json_href: String,
    pub(crate) csv_href: String,
    pub(crate) points: Vec<PointRow>,
    pub(crate) points_total: usize,
    /// The newest steps are still filling.
    pub(crate) is_filling: bool,
    pub(crate) gaps: Vec<GapRow>,
    pub(crate) gaps_total: usize,
    /// When the usage of the service begins for who looks, where that is still to come.
    pub(crate) begins: Option<String>,
    /// Why something else is shown than what was asked for.
    pub(crate) problem: Option<String>,
    pub(crate) range: Range,
    pub(crate) totals: Totals,
}

/// The range in a few numbers.
pub(crate) struct Totals {
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) received: String,
    pub(crate) sent: String,
    /// Over what was measured.
    pub(crate) received_rate: String,
    pub(crate) sent_rate: String,
    /// The step with the highest mean rate, both directions together, and when it was.
    pub(crate) busiest_rate: String,
    pub(crate) busiest_at: String,
    pub(crate) coverage: String,
}

/// What was measured in the time that was asked for. A time that cannot be shown is told in `problem`, beside the default.
pub(crate) async fn view(
    state: &AppState,
    account: &Customer,
    own: &OwnService,
    page: &PageZone,
    asked: &RangeQuery,
    addresses: &Addresses,
) -> Result<TrafficView, Failure> {
    let zone = &page.zone;
    let (range, problem) = match series::resolve(state, account, own, page, asked) {
        Err(Failure::BadRequest(why)) => {
            let fallback = series::resolve(state, account, own, page, &RangeQuery::default())?;
            (fallback, Some(why))
        }
        resolved => (resolved?, None),
    };
    let series = series::series(state, own, page, &range).await?;
    let filling = Filling {
        closed_until_ms: series.closed_until_ms,
        now_ms: series.now_ms,
    };
    let units = own.volume_units();

    let ranges = PRESETS.iter().map(|(name, label)| Choice {
        label,
        query: format!("range={name}"),
        is_current: range.preset == *name,
    });
    let time = if range.preset.is_empty() {
        range.time_query()
    } else {
        format!("range={}", range.preset)
    };
    let steps = STEPS.iter().map(|(step, name, label)| Choice {
        label,
        query: format!("{time}&step={name}"),
        is_current: range.step == *step,
    });
    let gaps = series.gaps.iter().rev().take(MAX_GAPS_SHOWN).map(|gap| GapRow {
        from: format::minute(gap.from_ms, zone),
        to: format::minute(gap.to_ms, zone),
        minutes: (gap.to_ms - gap.from_ms) / 60_000,
        exporter: exporter_name(state, gap.exporter),
    });
    let points = series.points.iter().rev().take(MAX_TABLE_ROWS);
    let (from_input, to_input) = range.inputs(zone);
    Ok(TrafficView {
        ranges: ranges.collect(),
        steps: steps.collect(),
        from_input: range::field(problem.is_some(), &asked.from, from_input),
        to_input: range::field(problem.is_some(), &asked.to, to_input),
        time_zone: page.name.clone(),
        json_href: format!("{}?{}", addresses.json, range.query()),
        csv_href: format!("{}?{}", addresses.csv, range.query()),
        points: points.map(|point| point_row(point, filling, units, zone)).collect(),
        points_total: series.points.len(),
        is_filling: series.points.iter().any(|point| filling.seconds_of(point) > 0),
        gaps: gaps.collect(),
        gaps_total: series.gaps.len(),
        begins: (own.visible_from_ms > series.now_ms)
            .then(|| format!("{} ({})", format::minute(own.visible_from_ms, zone), page.name)),
        problem,
        totals: totals(&series.points, filling, units, zone),
        range,
    })
}

/// What has passed of windows that are not closed: flows may still be on their way to them.
#[derive(Clone, Copy, Debug)]
struct Filling {
    closed_until_ms: i64,
    now_ms: i64,
}

impl Filling {
    /// Seconds of a step that have passed and are not closed; 0 of one that is complete, or to come.
    fn seconds_of(self, point: &SeriesPoint) -> u64 {
        let from_ms = point.start_ms.max(self.closed_until_ms);
        let to_ms = point.end_ms.min(self.now_ms);
        u64::try_from((to_ms - from_ms) / 1000).unwrap_or(0)
    }

    /// Seconds that the volume of a step is of: its measured windows, and what has passed of those that are still filling.
    fn rated_seconds(self, point: &SeriesPoint) -> u64 {
        u64::from(point.windows_measured) * WINDOW_S + self.seconds_of(point)
    }
}

/// Mean bits per second. A step that began a moment ago says more about the clock than about the traffic.
fn rate_bps(bytes: u64, seconds: u64) -> Option<u64> {
    if seconds < RATED_MIN_S {
        return None;
    }
    let rate = u128::from(bytes) * 8 / u128::from(seconds);
    Some(u64::try_from(rate).unwrap_or(u64::MAX))
}

fn rate_words(rate_bps: Option<u64>) -> String {
    rate_bps.map_or_else(|| "–".to_owned(), format::bits_per_second)
}

fn both(point: &SeriesPoint) -> u64 {
    point.bytes_in.saturating_add(point.bytes_out)
}

fn totals(points: &[SeriesPoint], filling: Filling, units: VolumeUnits, zone: &TimeZone) -> Totals {
    let sum = |of: fn(&SeriesPoint) -> u64| points.iter().map(of).fold(0u64, u64::saturating_add);
    let bytes_in = sum(|point| point.bytes_in);
    let bytes_out = sum(|point| point.bytes_out);
    let measured = sum(|point| u64::from(point.windows_measured));
    let expected = sum(|point| u64::from(point.windows));
    let seconds = points.iter().map(|point| filling.rated_seconds(point)).sum();
    // What is still filling is no busiest step, unless there is nothing else.
    let rated = points.iter().filter_map(|point| {
        let rate = rate_bps(both(point), filling.rated_seconds(point))?;
        Some((filling.seconds_of(point) == 0, rate, point.start_ms))
    });
    let busiest = rated.max_by_key(|(is_complete, rate, _)| (*is_complete, *rate));
    Totals {
        bytes_in,
        bytes_out,
        received: units.bytes(bytes_in),
        sent: units.bytes(bytes_out),
        received_rate: rate_words(rate_bps(bytes_in, seconds)),
        sent_rate: rate_words(rate_bps(bytes_out, seconds)),
        busiest_rate: rate_words(busiest.map(|(_, rate, _)| rate)),
        busiest_at: busiest.map_or_else(String::new, |(_, _, start_ms)| format::minute(start_ms, zone)),
        coverage: coverage_percent(measured, expected).unwrap_or_else(|| "–".to_owned()),
    }
}

fn point_row(point: &SeriesPoint, filling: Filling, units: VolumeUnits, zone: &TimeZone) -> PointRow {
    let filling_s = filling.seconds_of(point);
    let rated_s = filling.rated_seconds(point);
    let unmeasured = point.windows_measured == 0;
    let volume = |bytes: u64| {
        if unmeasured && bytes == 0 {
            "–".to_owned()
        } else {
            units.bytes(bytes)
        }
    };
    PointRow {
        start: format::minute(point.start_ms, zone),
        received: volume(point.bytes_in),
        sent: volume(point.bytes_out),
        rate: rate_words(rate_bps(both(point), rated_s)),
        bound: format::error_bound(point.error_bound_ppm),
        note: match (point.windows_measured, point.windows) {
            _ if filling_s > 0 && rated_s < RATED_MIN_S => "just begun".to_owned(),
            _ if filling_s > 0 => format!("still filling: the rate is that of {} min", rated_s / 60),
            (_, 0) => "not yet".to_owned(),
            (0, _) => "not measured".to_owned(),
            (measured, windows) if measured < windows => format!("{measured} of {windows} windows measured"),
            _ => String::new(),
        },
    }
}

/// The configured name of an exporter, else its address. Where none is configured to meter, any would have done.
pub(crate) fn exporter_name(state: &AppState, address: Address) -> String {
    if address == Address::UNSPECIFIED {
        return "any exporter".to_owned();
    }
    let metering = state.metering();
    let configured = metering.exporter(address, 0);
    configured.map_or_else(|| address.to_string(), |exporter| exporter.name_of(address))
}

/// The chart's numbers as CSV: exact bytes, RFC 3339 times.
pub(crate) async fn csv(
    state: &AppState,
    account: &Customer,
    own: &OwnService,
    page: &PageZone,
    asked: &RangeQuery,
) -> Result<Response, Failure> {
    let range = series::resolve(state, account, own, page, asked)?;
    let series = series::series(state, own, page, &range).await?;
    let body = csv_of(&series.points).map_err(|error| Failure::internal("write CSV")(error.into()))?;
    let name = format!(
        "attachment; filename=\"usage-{}-{}-{}.csv\"",
        own.service.id,
        format::day_field(range.from_ms, &page.zone),
        step_name(range.step),
    );
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((headers, body).into_response())
}

fn csv_of(points: &[SeriesPoint]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "start",
        "end",
        "bytes_in",
        "bytes_out",
        "windows_measured",
        "windows",
        "error_bound_ppm",
    ])?;
    for point in points {
        writer.write_record([
            format::rfc3339(point.start_ms),
            format::rfc3339(point.end_ms),
            point.bytes_in.to_string(),
            point.bytes_out.to_string(),
            point.windows_measured.to_string(),
            point.windows.to_string(),
            point.error_bound_ppm.to_string(),
        ])?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Long after everything.
    const LATER: Filling = Filling {
        closed_until_ms: i64::MAX,
        now_ms: i64::MAX,
    };

    #[test]
    fn a_step_that_is_still_filling_is_no_drop() {
        let whole = SeriesPoint {
            start_ms: 0,
            end_ms: 300_000,
            bytes_in: 37_500_000,
            bytes_out: 0,
            windows_measured: 1,
            windows: 1,
            error_bound_ppm: 0,
        };
        let begun = SeriesPoint {
            start_ms: 300_000,
            end_ms: 600_000,
            bytes_in: 15_000_000,
            windows_measured: 0,
            windows: 0,
            ..whole
        };
        let at = |now_ms| Filling {
            closed_until_ms: 300_000,
            now_ms,
        };
        let row = |now_ms| point_row(&begun, at(now_ms), VolumeUnits::Decimal, &TimeZone::UTC);
        assert_eq!(row(420_000).rate, "1.00 Mbit/s", "15 MB in two minutes");
        assert_eq!(row(420_000).note, "still filling: the rate is that of 2 min");
        assert_eq!(
            (row(330_000).rate.as_str(), row(330_000).note.as_str()),
            ("–", "just begun")
        );
        assert_eq!(row(300_000).note, "not yet");
        let sums = totals(&[whole, begun], at(420_000), VolumeUnits::Decimal, &TimeZone::UTC);
        assert_eq!(sums.received_rate, "1.00 Mbit/s", "over the seven minutes");
        assert_eq!(sums.busiest_at, "1 Jan 1970 00:00");
        // An hour that has six closed windows and two minutes of the seventh.
        let hour = SeriesPoint {
            end_ms: 3_600_000,
            bytes_in: 240_000_000,
            windows_measured: 6,
            windows: 6,
            ..whole
        };
        let filling = Filling {
            closed_until_ms: 1_800_000,
            now_ms: 1_920_000,
        };
        let row = point_row(&hour, filling, VolumeUnits::Decimal, &TimeZone::UTC);
        assert_eq!(
            row.rate, "1.00 Mbit/s",
            "over 32 minutes, not over the 30 that are closed"
        );
    }

    #[test]
    fn a_step_that_was_not_measured_is_not_a_zero() {
        let point = SeriesPoint {
            start_ms: 0,
            end_ms: 300_000,
            bytes_in: 0,
            bytes_out: 0,
            windows_measured: 0,
            windows: 1,
            error_bound_ppm: 0,
        };
        let row = point_row(&point, LATER, VolumeUnits::Decimal, &TimeZone::UTC);
        assert_eq!((row.received.as_str(), row.note.as_str()), ("–", "not measured"));
        let measured = SeriesPoint {
            windows_measured: 1,
            bytes_in: 37_500_000,
            error_bound_ppm: 19_600,
            ..point
        };
        let row = point_row(&measured, LATER, VolumeUnits::Binary, &TimeZone::UTC);
        assert_eq!((row.sent.as_str(), row.rate.as_str()), ("0 B", "1.00 Mbit/s"));
        assert_eq!(row.bound, "± 1.96 %");
        let sums = totals(&[point, measured], LATER, VolumeUnits::Binary, &TimeZone::UTC);
        assert_eq!((sums.received.as_str(), sums.sent.as_str()), ("35.8 MiB", "0 B"));
        assert_eq!(sums.received_rate, "1.00 Mbit/s", "over the measured window alone");
        assert_eq!(sums.coverage, "50.0 %");
        assert_eq!(
            totals(&[], LATER, VolumeUnits::Decimal, &TimeZone::UTC).busiest_rate,
            "–"
        );
    }
}
