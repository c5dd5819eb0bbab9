//! Usage over time for charts: by window, local hour or local day.
//!
//! Every step of the range has a point, also those to come. Steps begin at local full hours and local midnights, so a
//! day on which the clocks change has 23 or 25 hours; the first and last step are cut at the range's ends. A window counts
//! for the step that it starts in.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use schemas::window::{HOUR_MS, WINDOW_MS};

use crate::error_bound::{Estimate, Z95_PPM};
use crate::usage::closed_until_ms;
use crate::{Analytics, AnalyticsError, Meters, SeriesPoint, SeriesQuery, Step};
use schemas::usage::aligned;

/// Points of one series at most: a year of windows and some; longer ranges end there.
pub const SERIES_POINTS_MAX: usize = 120_000;

impl Analytics {
    /// Sum over services by step, one point for every step of the range. A window is measured when it was for each of
    /// the services; whether it is over is judged as of `now_ms`.
    ///
    /// # Errors
    /// When a table cannot be read or the range is beyond the calendar.
    pub(crate) async fn usage_series(&self, query: &SeriesQuery<'_>) -> Result<Vec<SeriesPoint>, AnalyticsError> {
        let SeriesQuery {
            services,
            from_ms,
            to_ms,
            step,
            zone,
            now_ms,
        } = *query;
        let mut points: Vec<SeriesPoint> = steps(from_ms, to_ms, step, zone)?
            .into_iter()
            .map(|(start_ms, end_ms)| SeriesPoint {
                start_ms,
                end_ms,
                bytes_in: 0,
                bytes_out: 0,
                windows_measured: 0,
                windows: 0,
                error_bound_ppm: 0,
            })
            .collect();
        let mut numbers: Vec<u32> = services.iter().map(|service| service.service).collect();
        numbers.sort_unstable();
        numbers.dedup();
        if numbers.is_empty() || points.is_empty() {
            return Ok(points);
        }

        let mut estimates = vec![Estimate::default(); points.len()];
        for row in self.usage_rows(Some(&numbers), from_ms, to_ms).await? {
            if let Some(position) = position_at(&points, row.start_ms) {
                let point = &mut points[position];
                point.bytes_in = point.bytes_in.saturating_add(row.cell.bytes_in);
                point.bytes_out = point.bytes_out.saturating_add(row.cell.bytes_out);
                row.cell.add_to(&mut estimates[position]);
            }
        }
        for (point, estimate) in points.iter_mut().zip(&estimates) {
            point.error_bound_ppm = estimate.bound_ppm(Z95_PPM);
        }

        let (first_ms, end_ms) = aligned(from_ms, to_ms);
        let past_ms = end_ms.min(closed_until_ms(now_ms)).max(first_ms);
        let heard = self.heard().await?;
        let mut metering: Vec<&Meters> = services.iter().map(|service| &service.meters).collect();
        metering.sort_unstable();
        metering.dedup();
        let mut measured = vec![true; ((past_ms - first_ms) / WINDOW_MS) as usize];
        for meters in metering {
            let coverage = heard.coverage(meters, first_ms, past_ms);
            for (all, (_, one)) in measured.iter_mut().zip(coverage.windows()) {
                *all &= one;
            }
        }
        for (window_start_ms, measured) in (first_ms..).step_by(WINDOW_MS as usize).zip(measured) {
            if let Some(position) = position_at(&points, window_start_ms) {
                let point = &mut points[position];
                point.windows += 1;
                point.windows_measured += u32::from(measured);
            }
        }
        Ok(points)
    }
}

/// The point that holds an instant.
fn position_at(points: &[SeriesPoint], at_ms: i64) -> Option<usize> {
    let position = points.partition_point(|point| point.end_ms <= at_ms);
    points.get(position).filter(|point| point.start_ms <= at_ms)?;
    Some(position)
}

/// The steps of `[from_ms, to_ms)`, half-open, without holes.
fn steps(from_ms: i64, to_ms: i64, step: Step, zone: &TimeZone) -> Result<Vec<(i64, i64)>, AnalyticsError> {
    let mut steps = Vec::new();
    let mut start_ms = from_ms;
    while start_ms < to_ms && steps.len() < SERIES_POINTS_MAX {
        let end_ms = match step {
            Step::FiveMinutes => (start_ms.div_euclid(WINDOW_MS) + 1) * WINDOW_MS,
            Step::Hour => {
                // Local full hours differ from UTC's where the zone is half an hour off.
                let at = Timestamp::from_millisecond(start_ms)?;
                let offset_ms = i64::from(zone.to_offset(at).seconds()) * 1000;
                ((start_ms + offset_ms).div_euclid(HOUR_MS) + 1) * HOUR_MS - offset_ms
            }
            Step::Day => {
                let today = Timestamp::from_millisecond(start_ms)?.to_zoned(zone.clone()).date();
                let midnight = today.checked_add(1.day())?.to_zoned(zone.clone())?;
                midnight.timestamp().as_millisecond()
            }
        };
        steps.push((start_ms, end_ms.min(to_ms)));
        start_ms = end_ms;
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn hours(from: &str, to: &str, step: Step, zone: &str) -> Vec<i64> {
        let steps = steps(ms(from), ms(to), step, &TimeZone::get(zone).unwrap()).unwrap();
        for pair in steps.windows(2) {
            assert_eq!(pair[0].1, pair[1].0, "no holes");
        }
        steps.iter().map(|(start, end)| (end - start) / 60_000).collect()
    }

    #[test]
    fn local_days_are_as_long_as_they_are() {
        let berlin = "Europe/Berlin";
        let days = hours("2026-03-27T23:00:00Z", "2026-03-30T22:00:00Z", Step::Day, berlin);
        assert_eq!(days, [24 * 60, 23 * 60, 24 * 60]);
        let days = hours("2026-10-24T00:00:00Z", "2026-10-26T12:00:00Z", Step::Day, berlin);
        assert_eq!(days, [22 * 60, 25 * 60, 13 * 60], "cut at the range's ends");
    }

    #[test]
    fn hours_are_local_full_hours() {
        let hours_of = |zone| hours("2026-01-01T00:00:00Z", "2026-01-01T02:00:00Z", Step::Hour, zone);
        assert_eq!(hours_of("UTC"), [60, 60]);
        assert_eq!(hours_of("Asia/Kolkata"), [30, 60, 30]);
        let windows = hours("2026-01-01T00:00:00Z", "2026-01-01T00:12:00Z", Step::FiveMinutes, "UTC");
        assert_eq!(windows, [5, 5, 2]);
        assert!(hours("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", Step::Hour, "UTC").is_empty());
    }
}
