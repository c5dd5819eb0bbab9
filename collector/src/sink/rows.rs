//! Rows of `counters` and `collection_5m` as Arrow batches, in an order that depends on the rows alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMillisecondArray, UInt32Array, UInt64Array};
use schemas::window::WindowStart;
use tables::collection::{CollectionRow, collection_to_batch};
use tables::column::TableDef;
use tables::definitions::{COLLECTION_5M, COUNTERS};
use tables::flow::address_array;
use tables::table::{Encoder, ROW_GROUP_ROWS, RowGroup};

use super::{Part, TimeSpan};
use crate::counts::{CountKey, Counter, Counts};
use crate::decode::InterfaceCounters;

/// A batch from columns by name. The names are checked against the definition, so that a column added there is missed
/// here by every test that stores anything.
fn batch(table: &TableDef, mut columns: BTreeMap<&str, ArrayRef>) -> RecordBatch {
    let arrays = table
        .columns
        .iter()
        .map(|column| {
            columns
                .remove(column.name)
                .expect("every column of the definition is built")
        })
        .collect();
    RecordBatch::try_new(table.arrow_schema(), arrays).expect("columns are built with the types of the definition")
}

/// The batch as row groups.
fn groups(table: &'static TableDef, batch: &RecordBatch) -> Vec<RowGroup> {
    let mut encoder = Encoder::new(table).expect("an encoder takes a few megabytes");
    let mut groups = Vec::new();
    for first in (0..batch.num_rows()).step_by(ROW_GROUP_ROWS) {
        let rows = ROW_GROUP_ROWS.min(batch.num_rows() - first);
        let group = encoder.encode_batch(&batch.slice(first, rows));
        groups.push(group.expect("the columns are those of the table"));
    }
    groups
}

fn instants(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_iter_values(values).with_timezone("UTC"))
}

/// Rows of `counters`, sorted by exporter, domain, interface and time.
pub(super) fn counters_part(samples: &[InterfaceCounters]) -> Option<Part> {
    let first = samples.first()?;
    let mut rows: Vec<&InterfaceCounters> = samples.iter().collect();
    rows.sort_by_key(|row| (row.exporter, row.observation_domain, row.if_index, row.received_at_ms));
    let u32s = |value: fn(&InterfaceCounters) -> u32| -> ArrayRef {
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| value(row))))
    };
    let u64s = |value: fn(&InterfaceCounters) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| value(row))))
    };
    let columns = BTreeMap::from([
        ("received_at", instants(rows.iter().map(|row| row.received_at_ms))),
        ("exporter", address_array(rows.iter().map(|row| row.exporter))),
        ("observation_domain", u32s(|row| row.observation_domain)),
        ("if_index", u32s(|row| row.if_index)),
        ("if_type", u32s(|row| row.if_type)),
        ("speed_bps", u64s(|row| row.speed_bps)),
        ("duplex", u32s(|row| row.duplex)),
        ("status", u32s(|row| row.status)),
        ("in_bytes", u64s(|row| row.in_bytes)),
        ("in_unicast_packets", u64s(|row| row.in_unicast_packets)),
        ("in_multicast_packets", u64s(|row| row.in_multicast_packets)),
        ("in_broadcast_packets", u64s(|row| row.in_broadcast_packets)),
        ("in_discards", u64s(|row| row.in_discards)),
        ("in_errors", u64s(|row| row.in_errors)),
        ("out_bytes", u64s(|row| row.out_bytes)),
        ("out_unicast_packets", u64s(|row| row.out_unicast_packets)),
        ("out_multicast_packets", u64s(|row| row.out_multicast_packets)),
        ("out_broadcast_packets", u64s(|row| row.out_broadcast_packets)),
        ("out_discards", u64s(|row| row.out_discards)),
        ("out_errors", u64s(|row| row.out_errors)),
    ]);
    let mut times = TimeSpan::including(None, first.received_at_ms, first.received_at_ms);
    for row in &rows {
        times = TimeSpan::including(Some(times), row.received_at_ms, row.received_at_ms);
    }
    Some(Part {
        rows: rows.len() as u64,
        groups: groups(&COUNTERS, &batch(&COUNTERS, columns)),
        times,
    })
}

/// Rows of `collection_5m`, sorted by exporter, window, domain, protocol and counter.
pub(super) fn collection_part(windows: &BTreeMap<WindowStart, Counts>) -> Option<Part> {
    let mut rows: Vec<(CountKey, i64, Counter, u64)> = Vec::new();
    for (window, counts) in windows {
        for (key, counter, value) in counts.iter() {
            rows.push((key, window.start_ms(), counter, value));
        }
    }
    rows.sort_unstable_by_key(|(key, window_ms, counter, _)| {
        (
            key.exporter,
            *window_ms,
            key.observation_domain,
            key.protocol_version,
            *counter,
        )
    });
    let min_ms = rows.iter().map(|row| row.1).min()?;
    let max_ms = rows.iter().map(|row| row.1).max()?;
    let rows: Vec<CollectionRow<'_>> = rows
        .into_iter()
        .map(|(key, window_start_ms, counter, value)| CollectionRow {
            window_start_ms,
            exporter: key.exporter,
            observation_domain: key.observation_domain,
            protocol_version: key.protocol_version,
            counter: counter.name(),
            value,
        })
        .collect();
    Some(Part {
        rows: rows.len() as u64,
        groups: groups(&COLLECTION_5M, &collection_to_batch(&rows)),
        times: TimeSpan { min_ms, max_ms },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_of_both_definitions_is_built() {
        let counters = counters_part(&[InterfaceCounters::default(); 2]).unwrap();
        assert_eq!(counters.groups[0].rows(), 2);
        let mut counts = Counts::default();
        let key = CountKey {
            exporter: "192.0.2.1".parse().unwrap(),
            observation_domain: 1,
            protocol_version: 9,
        };
        counts.add(key, Counter::Datagrams, 3);
        let windows = BTreeMap::from([
            (WindowStart::containing(300_000), counts.clone()),
            (WindowStart::containing(0), counts),
        ]);
        let collection = collection_part(&windows).unwrap();
        assert_eq!(collection.rows, 2);
        assert_eq!(
            collection.times,
            TimeSpan {
                min_ms: 0,
                max_ms: 300_000
            }
        );
        assert!(counters_part(&[]).is_none());
        assert!(collection_part(&BTreeMap::new()).is_none());
    }
}
