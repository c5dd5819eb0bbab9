//! The smallest table that answers: hours where they are complete and steps are no finer, windows for the rest.

use std::sync::Arc;

use arrow::array::{RecordBatch, TimestampMillisecondArray, UInt64Array};
use datafusion::prelude::{Expr, col, lit};
use schemas::window::HOUR_MS;
use tables::column::TableDef;
use tables::table::{Snapshot, retained_from_ms};

use super::hours::hours_until_ms;
use super::key::Key;
use super::ranges::hour_of;
use crate::store::parquet::{column, fold, instant};
use crate::{Analytics, AnalyticsError};

/// A part of a range, and the table as it was when somebody asked: reading twice gives the same.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    def: &'static TableDef,
    snapshot: Arc<Snapshot>,
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
}

/// Bytes by key and time.
pub(crate) struct VolumeColumns<'a, K: Key> {
    pub(crate) start: &'a [i64],
    keys: K::Stored<'a>,
    pub(crate) bytes_in: &'a [u64],
    pub(crate) bytes_out: &'a [u64],
}

impl<K: Key> VolumeColumns<'_, K> {
    #[inline]
    pub(crate) fn key(&self, row: usize) -> K {
        K::at(&self.keys, row)
    }
}

impl Analytics {
    /// Where the volume of the windows that start in `[from_ms, to_ms)` is read, for steps of `step_ms`.
    pub(crate) fn pieces<K: Key>(&self, from_ms: i64, to_ms: i64, step_ms: i64) -> Result<Vec<Piece>, AnalyticsError> {
        let hours = self.store.table(K::HOUR).snapshot()?;
        let windows = self.store.table(K::FIVE_MINUTES).snapshot()?;
        let piece = |def, snapshot: &Arc<Snapshot>, from_ms, to_ms| Piece {
            def,
            snapshot: Arc::clone(snapshot),
            from_ms,
            to_ms,
        };
        let first_ms = hour_of(from_ms.saturating_add(HOUR_MS - 1)).max(retained_from_ms(&hours));
        let end_ms = hour_of(to_ms).min(hours_until_ms(&hours).unwrap_or(i64::MIN));
        let pieces = if step_ms < HOUR_MS || first_ms >= end_ms {
            vec![piece(K::FIVE_MINUTES, &windows, from_ms, to_ms)]
        } else {
            vec![
                piece(K::FIVE_MINUTES, &windows, from_ms, first_ms),
                piece(K::HOUR, &hours, first_ms, end_ms),
                piece(K::FIVE_MINUTES, &windows, end_ms, to_ms),
            ]
        };
        Ok(pieces.into_iter().filter(|piece| piece.from_ms < piece.to_ms).collect())
    }

    /// Folds the volume of pieces, of the rows that pass `filter`. Rows of a key lie together.
    pub(crate) async fn fold_volume<K, A>(
        &self,
        pieces: &[Piece],
        filter: Option<Expr>,
        add: impl Fn(&mut A, &VolumeColumns<'_, K>) + Clone + Send + 'static,
        merge: impl Fn(&mut A, A),
    ) -> Result<A, AnalyticsError>
    where
        K: Key,
        A: Default + Send + 'static,
    {
        let mut whole = A::default();
        for piece in pieces {
            let def = piece.def;
            let time = col(def.time_column);
            let mut wanted = time
                .clone()
                .gt_eq(instant(piece.from_ms))
                .and(time.lt(instant(piece.to_ms)));
            if let Some(filter) = &filter {
                wanted = wanted.and(filter.clone());
            }
            let names = [&[def.time_column][..], K::COLUMNS, &["bytes_in", "bytes_out"]].concat();
            let frame = self
                .store
                .read_at(self.store.table(def), piece.snapshot.clone())?
                .filter(wanted)?
                .select_columns(&names)?;
            let add = add.clone();
            let add_batch = move |sums: &mut A, batch: &RecordBatch| {
                let columns = VolumeColumns {
                    start: column::<TimestampMillisecondArray>(batch, def.time_column)?.values(),
                    keys: K::stored(batch)?,
                    bytes_in: column::<UInt64Array>(batch, "bytes_in")?.values(),
                    bytes_out: column::<UInt64Array>(batch, "bytes_out")?.values(),
                };
                add(sums, &columns);
                Ok(())
            };
            let sums = fold(frame, add_batch, &merge).await?;
            merge(&mut whole, sums);
        }
        Ok(whole)
    }
}

/// Rows of services whose number is one of these; of many, of those from the first to the last: files are sorted by service.
pub(crate) fn of_services(services: &[u32]) -> Expr {
    /// Up to here each of them is named.
    const NAMED_MAX: usize = 16;
    if services.len() <= NAMED_MAX {
        return col("service").in_list(services.iter().map(|service| lit(*service)).collect(), false);
    }
    let first = services.iter().min().copied().unwrap_or(0);
    let last = services.iter().max().copied().unwrap_or(u32::MAX);
    col("service").gt_eq(lit(first)).and(col("service").lt_eq(lit(last)))
}
