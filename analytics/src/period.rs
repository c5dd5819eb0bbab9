//! What services used in billing periods: totals, billed volume, percentile and coverage.
//!
//! * Windows that start in `[from, to)` belong to the period; they are counted up to the last closed window
//!   ([`crate::usage::closed_until_ms`]).
//! * Totals hold every stored byte of these windows. The percentile ranks measured windows only, a measured window
//!   without traffic being 0; windows that were not measured are named as gaps and never taken for zeros.
//! * Many services cost one scan: [`Analytics::period_usage_batch`].

use std::collections::HashMap;

use schemas::window::{WINDOW_MS, WindowStart};

use crate::error_bound::{Estimate, Z95_PPM};
use crate::percentile::{percentile_95_bps, rank_95};
use crate::usage::{UsageRow, closed_until_ms};
use crate::{Analytics, AnalyticsError, MeteredService, PeriodUsage, UsageMode};

/// Services up to which a scan names each of them; with more it reads all.
const NAMED_SERVICES_MAX: usize = 16;

/// One question to [`Analytics::period_usage_batch`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeriodQuery {
    pub service: MeteredService,
    pub from_ms: i64,
    pub to_ms: i64,
    pub mode: UsageMode,
    /// Windows that start in one of these `[from, to)` are told apart: they count neither as volume nor for the percentile.
    pub excluded: Vec<(i64, i64)>,
}

/// Volume expected at the end of a period when the rest of it goes on as the measured windows did: the total, scaled from
/// the measured to the expected windows and rounded down. Without measured windows the total itself.
pub fn project(total_bytes: u64, measured_windows: u64, expected_windows: u64) -> u64 {
    if measured_windows == 0 || expected_windows <= measured_windows {
        return total_bytes;
    }
    let projected = u128::from(total_bytes) * u128::from(expected_windows) / u128::from(measured_windows);
    u64::try_from(projected).unwrap_or(u64::MAX)
}

/// All windows of a period, for [`project`].
pub fn windows_of_period(from_ms: i64, to_ms: i64) -> u64 {
    let (first_ms, end_ms) = aligned(from_ms, to_ms);
    ((end_ms - first_ms) / WINDOW_MS) as u64
}

/// Start of the first and end of the last window that start in `[from_ms, to_ms)`.
pub(crate) fn aligned(from_ms: i64, to_ms: i64) -> (i64, i64) {
    let first_ms = WindowStart::containing(from_ms + WINDOW_MS - 1).start_ms();
    let end_ms = WindowStart::containing(to_ms + WINDOW_MS - 1).start_ms();
    (first_ms, end_ms.max(first_ms))
}

impl Analytics {
    /// Totals, billed volume, percentile and coverage of a period, over the closed windows before `now_ms`.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn period_usage(
        &self,
        service: &MeteredService,
        from_ms: i64,
        to_ms: i64,
        mode: UsageMode,
        now_ms: i64,
    ) -> Result<PeriodUsage, AnalyticsError> {
        let query = PeriodQuery {
            service: service.clone(),
            from_ms,
            to_ms,
            mode,
            excluded: Vec::new(),
        };
        let rows = self.usage_rows(Some(&[service.service]), from_ms, to_ms).await?;
        let heard = self.heard().await?;
        Ok(measure(&query, &rows, &heard, now_ms))
    }

    /// [`Analytics::period_usage`] of many services over one period, with one scan, in the order given.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn period_usage_many(
        &self,
        services: &[MeteredService],
        from_ms: i64,
        to_ms: i64,
        mode: UsageMode,
        now_ms: i64,
    ) -> Result<Vec<PeriodUsage>, AnalyticsError> {
        let queries: Vec<PeriodQuery> = services
            .iter()
            .map(|service| PeriodQuery {
                service: service.clone(),
                from_ms,
                to_ms,
                mode,
                excluded: Vec::new(),
            })
            .collect();
        self.period_usage_batch(&queries, now_ms).await
    }

    /// [`Analytics::period_usage`] of many services, each over its own period and by its own mode, with one scan over the
    /// time that all of them span, in the order given.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn period_usage_batch(
        &self,
        queries: &[PeriodQuery],
        now_ms: i64,
    ) -> Result<Vec<PeriodUsage>, AnalyticsError> {
        let from_ms = queries.iter().map(|query| query.from_ms).min();
        let to_ms = queries.iter().map(|query| query.to_ms).max();
        let (Some(from_ms), Some(to_ms)) = (from_ms, to_ms) else {
            return Ok(Vec::new());
        };
        let mut by_service: HashMap<u32, Vec<UsageRow>> = queries
            .iter()
            .map(|query| (query.service.service, Vec::new()))
            .collect();
        let named: Vec<u32> = by_service.keys().copied().collect();
        let named = (named.len() <= NAMED_SERVICES_MAX).then_some(named.as_slice());
        for row in self.usage_rows(named, from_ms, to_ms).await? {
            if let Some(rows) = by_service.get_mut(&row.service) {
                rows.push(row);
            }
        }
        let heard = self.heard().await?;
        let measured = queries.iter().map(|query| {
            let rows = by_service.get(&query.service.service).map_or(&[][..], Vec::as_slice);
            measure(query, rows, &heard, now_ms)
        });
        Ok(measured.collect())
    }
}

/// `rows` are of the query's service, of any time.
fn measure(query: &PeriodQuery, rows: &[UsageRow], heard: &crate::coverage::Heard, now_ms: i64) -> PeriodUsage {
    let (first_ms, end_ms) = aligned(query.from_ms, query.to_ms);
    let measured_to_ms = end_ms.min(closed_until_ms(now_ms)).max(first_ms);
    let coverage = heard.coverage(&query.service.exporters, first_ms, measured_to_ms);

    let is_excluded = |start_ms: i64| {
        query
            .excluded
            .iter()
            .any(|(from_ms, to_ms)| (*from_ms..*to_ms).contains(&start_ms))
    };
    let (mut bytes_in, mut bytes_out) = (0u64, 0u64);
    let (mut excluded_bytes_in, mut excluded_bytes_out) = (0u64, 0u64);
    let mut estimate = Estimate::default();
    let mut bytes_by_window: Vec<(u64, u64)> = vec![(0, 0); coverage.expected() as usize];
    for row in rows {
        if row.window_start_ms < first_ms || row.window_start_ms >= measured_to_ms {
            continue;
        }
        if is_excluded(row.window_start_ms) {
            excluded_bytes_in = excluded_bytes_in.saturating_add(row.cell.bytes_in);
            excluded_bytes_out = excluded_bytes_out.saturating_add(row.cell.bytes_out);
            continue;
        }
        bytes_in = bytes_in.saturating_add(row.cell.bytes_in);
        bytes_out = bytes_out.saturating_add(row.cell.bytes_out);
        row.cell.add_to(&mut estimate);
        let position = ((row.window_start_ms - first_ms) / WINDOW_MS) as usize;
        bytes_by_window[position] = (row.cell.bytes_in, row.cell.bytes_out);
    }
    let mut windows_excluded = 0;
    let mut ranked: Vec<(u64, u64)> = Vec::with_capacity(bytes_by_window.len());
    for ((window, measured), bytes) in coverage.windows().zip(&bytes_by_window) {
        if is_excluded(window) {
            windows_excluded += 1;
        } else if measured {
            ranked.push(*bytes);
        }
    }
    PeriodUsage {
        service: query.service.service,
        from_ms: query.from_ms,
        to_ms: query.to_ms,
        measured_to_ms: if measured_to_ms == end_ms {
            query.to_ms
        } else {
            measured_to_ms
        },
        bytes_in,
        bytes_out,
        billed_bytes: match query.mode {
            UsageMode::Sum => bytes_in.saturating_add(bytes_out),
            UsageMode::In => bytes_in,
            UsageMode::Out => bytes_out,
            UsageMode::Max => bytes_in.max(bytes_out),
        },
        percentile_95_bps: percentile_95_bps(&ranked, query.mode),
        percentile_rank: rank_95(ranked.len() as u64),
        windows_measured: ranked.len() as u64,
        windows_expected: coverage.expected(),
        windows_excluded,
        excluded_bytes_in,
        excluded_bytes_out,
        error_bound_ppm: estimate.bound_ppm(Z95_PPM),
        gaps: coverage.gaps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_projection_scales_from_measured_to_expected_windows() {
        assert_eq!(project(1000, 10, 100), 10_000);
        assert_eq!(project(10, 3, 10), 33, "rounded down");
        assert_eq!(project(1000, 0, 100), 1000);
        assert_eq!(project(1000, 100, 100), 1000);
        assert_eq!(project(u64::MAX, 1, 2), u64::MAX);
    }

    #[test]
    fn periods_count_the_windows_that_start_in_them() {
        assert_eq!(windows_of_period(0, 86_400_000), 288);
        assert_eq!(windows_of_period(1, 300_001), 1);
        assert_eq!(windows_of_period(300_000, 300_000), 0);
        assert_eq!(windows_of_period(600_000, 300_000), 0);
    }
}
