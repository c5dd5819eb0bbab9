//! What services used in billing periods: totals, billed volume, percentile and coverage.
//!
//! * Windows that start in `[from, to)` belong to the period; they are counted up to the last closed window
//!   ([`crate::usage::closed_until_ms`]).
//! * Totals hold every stored byte of these windows. The percentile ranks measured windows only, a measured window
//!   without traffic being 0; windows that were not measured are named as gaps and never taken for zeros.
//! * Many services cost one scan: `Analytics::period_usage`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use datafusion::prelude::Expr;
use schemas::usage::{Percentile95, aligned, rank_95};
use tables::definitions::USAGE_5M;

use crate::coverage::{Coverage, ExporterActivity};
use crate::error_bound::{Estimate, Z95_PPM};
use crate::rollup::read::of_services;
use crate::rollup::{ByService, Cell, RowColumns};
use crate::store::parquet::fold;
use crate::usage::{closed_until_ms, windows_between};
use crate::{Analytics, AnalyticsError, Meters, PeriodQuery, PeriodUsage, UsageMode};

impl Analytics {
    /// Totals, billed volume, percentile and coverage of services, each over its own period and by its own mode, over the closed
    /// windows before `now_ms`, with one scan over the time that all of them span, in the order given. Rows are counted as they are
    /// read: what is held is a few kilobytes per question, however many windows it has.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub(crate) async fn period_usage(
        &self,
        queries: &[PeriodQuery],
        now_ms: i64,
    ) -> Result<Vec<PeriodUsage>, AnalyticsError> {
        let from_ms = queries.iter().map(|query| query.from_ms).min();
        let to_ms = queries.iter().map(|query| query.to_ms).max();
        let (Some(from_ms), Some(to_ms)) = (from_ms, to_ms) else {
            return Ok(Vec::new());
        };
        let heard = self.heard().await?;
        let tallies = Arc::new(Tallies::new(queries, &heard, now_ms));
        let frame = self
            .store
            .read(&self.store.usage)?
            .filter(windows_between(from_ms, to_ms).and(tallies.services_filter()))?
            .select_columns(&RowColumns::<ByService>::names(&USAGE_5M))?;
        let counted = Arc::clone(&tallies);
        // Every stream adds to the same tallies: their parts would be as large as they are, for each stream.
        fold(frame, move |(), batch| counted.add(batch), |(), ()| {}).await?;
        Ok(tallies.usage())
    }
}

/// Which windows a question counts, and which of them were measured. Most questions of a batch have the same.
#[derive(Debug)]
struct Covered {
    first_ms: i64,
    measured_to_ms: i64,
    coverage: Coverage,
}

impl Covered {
    fn of(query: &PeriodQuery, heard: &ExporterActivity, now_ms: i64) -> Covered {
        let (first_ms, end_ms) = aligned(query.from_ms, query.to_ms);
        let measured_to_ms = end_ms.min(closed_until_ms(now_ms)).max(first_ms);
        Covered {
            first_ms,
            measured_to_ms,
            coverage: heard.coverage(&query.service.meters, first_ms, measured_to_ms),
        }
    }
}

impl PeriodQuery {
    fn excludes(&self, window_start_ms: i64) -> bool {
        let mut excluded = self.excluded.iter();
        excluded.any(|(from_ms, to_ms)| (*from_ms..*to_ms).contains(&window_start_ms))
    }
}

/// What one question's windows come to.
#[derive(Debug)]
struct Tally {
    bytes_in: u64,
    bytes_out: u64,
    excluded_bytes_in: u64,
    excluded_bytes_out: u64,
    estimate: Estimate,
    windows_excluded: u64,
    /// Measured and not excluded: those that are ranked.
    windows_ranked: u64,
    percentile: Percentile95,
}

impl Tally {
    fn new(query: &PeriodQuery, covered: &Covered) -> Tally {
        let (mut windows_excluded, mut windows_ranked) = (0, 0);
        if query.excluded.is_empty() {
            windows_ranked = covered.coverage.measured();
        } else {
            for (window_start_ms, measured) in covered.coverage.windows() {
                if query.excludes(window_start_ms) {
                    windows_excluded += 1;
                } else {
                    windows_ranked += u64::from(measured);
                }
            }
        }
        Tally {
            bytes_in: 0,
            bytes_out: 0,
            excluded_bytes_in: 0,
            excluded_bytes_out: 0,
            estimate: Estimate::default(),
            windows_excluded,
            windows_ranked,
            percentile: Percentile95::new(windows_ranked, query.mode),
        }
    }

    /// Adds a row of the question's service, of any time; in any order.
    fn add(&mut self, query: &PeriodQuery, covered: &Covered, window_start_ms: i64, cell: &Cell) {
        if window_start_ms < covered.first_ms || window_start_ms >= covered.measured_to_ms {
            return;
        }
        if query.excludes(window_start_ms) {
            self.excluded_bytes_in = self.excluded_bytes_in.saturating_add(cell.bytes_in);
            self.excluded_bytes_out = self.excluded_bytes_out.saturating_add(cell.bytes_out);
            return;
        }
        self.bytes_in = self.bytes_in.saturating_add(cell.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(cell.bytes_out);
        cell.add_to(&mut self.estimate);
        if covered.coverage.is_measured(window_start_ms) {
            self.percentile.add(cell.bytes_in, cell.bytes_out);
        }
    }

    fn usage(&self, query: &PeriodQuery, covered: &Covered) -> PeriodUsage {
        let (_, end_ms) = aligned(query.from_ms, query.to_ms);
        PeriodUsage {
            service: query.service.service,
            from_ms: query.from_ms,
            to_ms: query.to_ms,
            measured_to_ms: if covered.measured_to_ms == end_ms {
                query.to_ms
            } else {
                covered.measured_to_ms
            },
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            billed_bytes: match query.mode {
                UsageMode::Sum => self.bytes_in.saturating_add(self.bytes_out),
                UsageMode::In => self.bytes_in,
                UsageMode::Out => self.bytes_out,
                UsageMode::Max => self.bytes_in.max(self.bytes_out),
            },
            percentile_95_bps: self.percentile.bps(),
            percentile_rank: rank_95(self.windows_ranked),
            windows_measured: self.windows_ranked,
            windows_expected: covered.coverage.expected(),
            windows_excluded: self.windows_excluded,
            excluded_bytes_in: self.excluded_bytes_in,
            excluded_bytes_out: self.excluded_bytes_out,
            error_bound_ppm: self.estimate.bound_ppm(Z95_PPM),
            gaps: covered.coverage.gaps.clone(),
        }
    }
}

/// The tallies of a batch of questions, which all streams of a scan add to.
struct Tallies {
    questions: Vec<(PeriodQuery, Arc<Covered>, Mutex<Tally>)>,
    /// Services that are asked for, ascending, and the positions of their questions.
    by_service: Vec<(u32, Vec<usize>)>,
}

impl Tallies {
    fn new(queries: &[PeriodQuery], heard: &ExporterActivity, now_ms: i64) -> Tallies {
        let mut known: HashMap<(&Meters, i64, i64), Arc<Covered>> = HashMap::new();
        let mut by_service: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        let mut questions = Vec::with_capacity(queries.len());
        for (position, query) in queries.iter().enumerate() {
            let covered = known
                .entry((&query.service.meters, query.from_ms, query.to_ms))
                .or_insert_with(|| Arc::new(Covered::of(query, heard, now_ms)));
            let tally = Tally::new(query, covered);
            questions.push((query.clone(), Arc::clone(covered), Mutex::new(tally)));
            by_service.entry(query.service.service).or_default().push(position);
        }
        Tallies {
            questions,
            by_service: by_service.into_iter().collect(),
        }
    }

    /// Leaves out what row groups hold of other services.
    fn services_filter(&self) -> Expr {
        of_services(
            &self
                .by_service
                .iter()
                .map(|(service, _)| *service)
                .collect::<Vec<u32>>(),
        )
    }

    /// Adds a batch of `usage_5m`.
    fn add(&self, batch: &RecordBatch) -> Result<(), AnalyticsError> {
        let columns = RowColumns::<ByService>::of(&USAGE_5M, batch)?;
        let services = columns.services();
        let mut first = 0;
        // Rows of a service lie together, a day of them at a time.
        for rows in services.chunk_by(|one, next| one == next) {
            let end = first + rows.len();
            if let Ok(found) = self.by_service.binary_search_by_key(&rows[0], |(service, _)| *service) {
                for position in &self.by_service[found].1 {
                    let (query, covered, tally) = &self.questions[*position];
                    // What a panic elsewhere left is a failed scan, whose tallies nobody reads.
                    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                    for row in first..end {
                        let row = columns.row(row);
                        tally.add(query, covered, row.start_ms, &row.cell);
                    }
                }
            }
            first = end;
        }
        Ok(())
    }

    fn usage(&self) -> Vec<PeriodUsage> {
        let usage = self.questions.iter().map(|(query, covered, tally)| {
            let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.usage(query, covered)
        });
        usage.collect()
    }
}
