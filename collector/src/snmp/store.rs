//! Rows of `counters` that were read by SNMP, to the table: one small file for all that came since the last one.
//!
//! The token is that of the writer `snmp` with rising numbers; a data directory has one poller, as it has one collector. A
//! failed attempt is repeated with the same number, so that rows are in the table once.

use tables::table::{Storage, Token};
use tracing::warn;

use super::ROWS_WAITING_MAX;
use crate::decode::InterfaceCounters;
use crate::sink::{GatheredRows, Prepared, Step, StoreError, Tables, Written, applied};

const WRITER: &str = "snmp";

#[derive(Debug)]
pub(super) struct CounterStore {
    tables: Tables,
    number: u64,
    waiting: Vec<InterfaceCounters>,
    /// What is being committed under `number`, kept until it is.
    under_way: Vec<InterfaceCounters>,
}

impl CounterStore {
    pub(super) fn open(storage: &Storage) -> Result<CounterStore, StoreError> {
        let tables = Tables::open(storage.clone())?;
        let number = applied(&tables.counters, WRITER)? + 1;
        Ok(CounterStore {
            tables,
            number,
            waiting: Vec::new(),
            under_way: Vec::new(),
        })
    }

    pub(super) fn push(&mut self, rows: impl Iterator<Item = InterfaceCounters>) {
        self.waiting.extend(rows);
        let too_many = self.waiting.len().saturating_sub(ROWS_WAITING_MAX);
        self.waiting.drain(..too_many);
    }

    /// Commits what waits. On an error it goes on waiting.
    pub(super) async fn flush(&mut self) {
        if self.under_way.is_empty() {
            self.under_way = std::mem::take(&mut self.waiting);
        }
        if self.under_way.is_empty() {
            return;
        }
        let (tables, number, rows) = (self.tables.clone(), self.number, self.under_way.clone());
        match tokio::task::spawn_blocking(move || commit(&tables, number, rows)).await {
            Ok(Ok(())) => {
                self.number += 1;
                self.under_way.clear();
            }
            Ok(Err(error)) => warn!(
                error = crate::error_chain(&error),
                "counters read by snmp not stored yet"
            ),
            Err(error) => warn!(%error, "counters read by snmp not stored yet"),
        }
    }
}

fn commit(tables: &Tables, number: u64, rows: Vec<InterfaceCounters>) -> Result<(), StoreError> {
    let token = Token {
        writer: WRITER.to_owned(),
        number,
    };
    let gathered = GatheredRows {
        first_received_ms: rows.iter().map(|row| row.received_at_ms).min(),
        counters: rows,
        ..GatheredRows::default()
    };
    let prepared = Prepared::new(token, &format!("{WRITER}-{number:08}"), gathered);
    let mut written = Written::default();
    for step in [Step::WriteCounters, Step::CommitCounters] {
        tables.step(step, &prepared, &mut written)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(if_index: u32) -> InterfaceCounters {
        InterfaceCounters {
            received_at_ms: 1_700_000_000_000,
            if_index,
            ..InterfaceCounters::default()
        }
    }

    #[tokio::test]
    async fn rows_are_stored_once_and_numbers_go_on_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::from(dir.path());
        for round in 1..=3u64 {
            let mut store = CounterStore::open(&storage).unwrap();
            assert_eq!(store.number, round);
            store.push([row(1), row(2)].into_iter());
            store.flush().await;
            store.flush().await;
            let snapshot = store.tables.counters.snapshot().unwrap();
            assert_eq!((snapshot.rows(), snapshot.files.len() as u64), (2 * round, round));
        }
        let flows = Tables::open(storage).unwrap().flows.snapshot().unwrap();
        assert_eq!(flows.sequence, 0, "the table of flows is not touched");
    }

    #[test]
    fn what_waits_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = CounterStore::open(&Storage::from(dir.path())).unwrap();
        store.push((0..ROWS_WAITING_MAX as u32 + 5).map(row));
        assert_eq!((store.waiting.len(), store.waiting[0].if_index), (ROWS_WAITING_MAX, 5));
    }
}
