//! Usage, which is the rollup by service ([`crate::rollup`]): how it and the other rollups are refreshed, where a window is closed, and
//! what billing reads of it.

use datafusion::prelude::{col, lit};
use schemas::window::WindowStart;
use tables::definitions::USAGE_5M;
use tables::table::{ManifestError, Snapshot, retained_from_ms};

pub use crate::rollup::columns::properties;
use crate::rollup::group::Group;
use crate::rollup::{
    ByAs, ByInterface, ByPort, ByService, Cells, MeteredColumns, Ranges, Row, RowColumns, columns, rows_of,
};
pub use crate::rollup::{RefreshProgress, UsageRefresh};
pub(crate) use crate::rollup::{overlapping, sequence_of};
use crate::store::parquet::{fold, instant};
use crate::{Analytics, AnalyticsError, WindowUsage};

/// How long after its end a window is closed: the time given to datagrams on their way, to the collector's segments and
/// to the refresh. What comes later still counts (the window becomes dirty), as a correction.
pub const LATENESS_MS: i64 = 120_000;

/// End of the last closed window: every window that ends at or before it is closed. A window is closed once
/// [`LATENESS_MS`] have passed since its end; periods are measured up to here.
pub const fn closed_until_ms(now_ms: i64) -> i64 {
    WindowStart::containing(now_ms - LATENESS_MS).start_ms()
}

/// Both sides of U2 over a range of windows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Conservation {
    /// Σ over services, 0 included.
    pub usage_bytes: u64,
    pub usage_packets: u64,
    /// Σ of the flows' scaled volume with known sampling rate that falls into the range.
    pub flow_bytes: u64,
    pub flow_packets: u64,
}

impl Conservation {
    pub fn holds(&self) -> bool {
        self.usage_bytes == self.flow_bytes && self.usage_packets == self.flow_packets
    }
}

impl Analytics {
    /// Brings `usage_5m` up to date with `flows`: recomputes the windows that flow files committed since the last refresh
    /// touch. Doing it again changes nothing; several may run at once, in one process or many.
    ///
    /// # Errors
    /// When flows cannot be read or usage cannot be written; the table is then as it was.
    pub async fn refresh_usage(
        &self,
        progress: impl Fn(RefreshProgress) + Send + Sync,
    ) -> Result<UsageRefresh, AnalyticsError> {
        self.refresh(None, &progress).await
    }

    /// Recomputes the windows of `[from_ms, to_ms)` whether or not their flows changed, beside what is dirty anyway. By
    /// U1 it changes no row; it repairs usage files that were lost.
    ///
    /// # Errors
    /// As for [`Analytics::refresh_usage`].
    pub async fn recompute_usage(
        &self,
        from_ms: i64,
        to_ms: i64,
        progress: impl Fn(RefreshProgress) + Send + Sync,
    ) -> Result<UsageRefresh, AnalyticsError> {
        self.refresh(Some((from_ms, to_ms)), &progress).await
    }

    async fn refresh(
        &self,
        also: Option<(i64, i64)>,
        progress: &(impl Fn(RefreshProgress) + Send + Sync),
    ) -> Result<UsageRefresh, AnalyticsError> {
        // Within one process refreshers queue up here, so that they do not compute the same windows for nothing.
        let mut counted = self.refreshing.lock().await;
        self.complete_older_usage().await?;
        self.refresh_group(also, &mut counted, progress).await
    }

    /// Files of a version without all columns are written once more.
    async fn complete_older_usage(&self) -> Result<(), AnalyticsError> {
        let usage = self.store.usage.snapshot()?;
        if columns::are_current(&usage) {
            return Ok(());
        }
        let number = usage.applied.get(Cells::<ByService>::WRITER).copied().unwrap_or(0) + 1;
        let table = self.store.usage.clone();
        let commit = tokio::task::spawn_blocking(move || columns::rewrite(&table, &usage, number)).await??;
        match self.store.usage.commit(commit) {
            // Somebody else did it.
            Ok(_) | Err(ManifestError::Conflict { .. } | ManifestError::Exists { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Brings every rollup up to date ([`Analytics::refresh_usage`], [`Analytics::refresh_traffic`]).
    ///
    /// # Errors
    /// As for these.
    pub async fn refresh_rollups(
        &self,
        progress: impl Fn(RefreshProgress) + Send + Sync,
    ) -> Result<UsageRefresh, AnalyticsError> {
        let refresh = self.refresh_usage(progress).await?;
        self.refresh_traffic(|_| {}).await?;
        Ok(refresh)
    }

    /// Brings the other rollups up to date: the network's traffic by interface, port and autonomous system, and all hours that are
    /// over. Questions about the whole network are answered from them; invoices are not.
    ///
    /// # Errors
    /// As for [`Analytics::refresh_usage`].
    pub async fn refresh_traffic(
        &self,
        progress: impl Fn(RefreshProgress) + Send + Sync,
    ) -> Result<UsageRefresh, AnalyticsError> {
        let mut counted = self.refreshing_traffic.lock().await;
        let mut refresh = self.refresh_group(None, &mut counted, &progress).await?;
        refresh.rows_written += self.refresh_hours::<ByService>().await?;
        refresh.rows_written += self.refresh_hours::<ByInterface>().await?;
        refresh.rows_written += self.refresh_hours::<ByPort>().await?;
        refresh.rows_written += self.refresh_hours::<ByAs>().await?;
        Ok(refresh)
    }

    /// For each `[from_ms, to_ms)` a mark of what its usage is measured from: the newest commits that touched its days in
    /// `usage_5m` and `collection_5m`. As long as the mark is the same, `Analytics::period_usage` answers the same for every
    /// service. `None` where retention has removed some of it: it cannot be measured any more.
    ///
    /// # Errors
    /// When a manifest cannot be read.
    pub(crate) fn usage_marks(&self, periods: &[(i64, i64)]) -> Result<Vec<Option<String>>, AnalyticsError> {
        let usage = self.store.usage.snapshot()?;
        let collection = self.store.collection.snapshot()?;
        let complete_from_ms = retained_from_ms(&usage).max(retained_from_ms(&collection));
        let mark = |(from_ms, to_ms): &(i64, i64)| {
            if *from_ms < complete_from_ms {
                return None;
            }
            let newest = |snapshot: &Snapshot| {
                let files = snapshot.files_between(*from_ms, *to_ms);
                files.map(|file| file.sequence).max().unwrap_or(0)
            };
            // Windows that lost their last row have no file any more, which only the number of rows tells: it stays when the files of
            // a day are put together.
            let rows: u64 = usage.files_between(*from_ms, *to_ms).map(|file| file.rows).sum();
            Some(format!("{}.{rows}.{}", newest(&usage), newest(&collection)))
        };
        Ok(periods.iter().map(mark).collect())
    }

    /// Rows of `usage_5m` of one service in `[from_ms, to_ms)`, ascending.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub(crate) async fn usage_windows(
        &self,
        service: u32,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<WindowUsage>, AnalyticsError> {
        let mut rows = self.usage_rows(Some(&[service]), from_ms, to_ms).await?;
        rows.sort_unstable_by_key(|row| row.start_ms);
        Ok(rows.iter().map(WindowUsage::from).collect())
    }

    /// Rows of `usage_5m` of the given services, or of all, in no particular order.
    pub(crate) async fn usage_rows(
        &self,
        services: Option<&[u32]>,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<Row<ByService>>, AnalyticsError> {
        let mut filter = windows_between(from_ms, to_ms);
        if let Some(services) = services {
            let list = services.iter().map(|service| lit(*service)).collect();
            filter = filter.and(col("service").in_list(list, false));
        }
        let frame = self
            .store
            .read(&self.store.usage)?
            .filter(filter)?
            .select_columns(&RowColumns::<ByService>::names(&USAGE_5M))?;
        fold(
            frame,
            |rows: &mut Vec<Row<ByService>>, batch| rows_of(&USAGE_5M, rows, batch),
            |all, more| all.extend(more),
        )
        .await
    }

    /// Both sides of U2 over the windows that start in `[from_ms, to_ms)`: equal once usage is refreshed.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn verify_u2(&self, from_ms: i64, to_ms: i64) -> Result<Conservation, AnalyticsError> {
        let Some((from_ms, to_ms)) = Ranges::of_period(from_ms, to_ms).hull() else {
            return Ok(Conservation::default());
        };
        let mut sums = Conservation::default();
        for row in self.usage_rows(None, from_ms, to_ms).await? {
            sums.usage_bytes = sums
                .usage_bytes
                .saturating_add(row.cell.bytes_in.saturating_add(row.cell.bytes_out));
            sums.usage_packets = sums
                .usage_packets
                .saturating_add(row.cell.packets_in.saturating_add(row.cell.packets_out));
        }
        let frame = self
            .store
            .read(&self.store.flows)?
            .filter(overlapping(from_ms, to_ms))?
            .select_columns(&MeteredColumns::NAMES)?;
        // Deliberately not the way usage is computed: flows inside the range count whole, only those at its edges are split.
        let (bytes, packets) = fold(
            frame,
            move |sums: &mut (u64, u64), batch| {
                let columns = MeteredColumns::of(batch)?;
                for flow in (0..batch.num_rows()).filter_map(|row| columns.flow(row)) {
                    let part = |amount: u64| part_between(amount, flow.start_ms, flow.end_ms, from_ms, to_ms);
                    sums.0 = sums.0.saturating_add(part(flow.bytes_scaled()));
                    sums.1 = sums.1.saturating_add(part(flow.packets_scaled()));
                }
                Ok(())
            },
            |all, more| *all = (all.0.saturating_add(more.0), all.1.saturating_add(more.1)),
        )
        .await?;
        (sums.flow_bytes, sums.flow_packets) = (bytes, packets);
        Ok(sums)
    }
}

/// The part of `amount` that falls into the windows of `[from_ms, to_ms)`, which is window-aligned.
fn part_between(amount: u64, start_ms: i64, end_ms: i64, from_ms: i64, to_ms: i64) -> u64 {
    if start_ms >= from_ms && end_ms <= to_ms && start_ms < to_ms {
        return amount;
    }
    let mut sum = 0u64;
    schemas::window::spread(amount, start_ms, end_ms, |window, part| {
        if window.start_ms() >= from_ms && window.start_ms() < to_ms {
            sum += part;
        }
    });
    sum
}

/// Rows of `usage_5m` in `[from_ms, to_ms)`.
pub(crate) fn windows_between(from_ms: i64, to_ms: i64) -> datafusion::prelude::Expr {
    col("window_start")
        .gt_eq(instant(from_ms))
        .and(col("window_start").lt(instant(to_ms)))
}

impl From<&Row<ByService>> for WindowUsage {
    fn from(row: &Row<ByService>) -> WindowUsage {
        WindowUsage {
            window_start_ms: row.start_ms,
            bytes_in: row.cell.bytes_in,
            bytes_out: row.cell.bytes_out,
            packets_in: row.cell.packets_in,
            packets_out: row.cell.packets_out,
            flows: row.cell.flows,
            samples: row.cell.samples,
            error_bound_ppm: row.cell.error_bound_ppm(),
        }
    }
}
