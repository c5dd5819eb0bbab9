//! Rows of [`COLLECTION_5M`], and the batch that stores them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, RecordBatch, StringArray, TimestampMillisecondArray, UInt8Array, UInt32Array, UInt64Array,
};

use schemas::address::Address;

use crate::definitions::COLLECTION_5M;
use crate::flow::address_array;

/// What one counter of an exporter counted in one window of arrival; the columns are told in `docs/tables.md`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CollectionRow<'a> {
    pub window_start_ms: i64,
    pub exporter: Address,
    pub observation_domain: u32,
    pub protocol_version: u8,
    pub counter: &'a str,
    pub value: u64,
}

/// The rows as a batch of the table, in their order.
pub fn collection_to_batch(rows: &[CollectionRow<'_>]) -> RecordBatch {
    let windows = rows.iter().map(|row| row.window_start_ms);
    let domains = rows.iter().map(|row| row.observation_domain);
    let protocols = rows.iter().map(|row| row.protocol_version);
    let counters = rows.iter().map(|row| row.counter);
    let values = rows.iter().map(|row| row.value);
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(windows).with_timezone("UTC")),
        address_array(rows.iter().map(|row| row.exporter)),
        Arc::new(UInt32Array::from_iter_values(domains)),
        Arc::new(UInt8Array::from_iter_values(protocols)),
        Arc::new(StringArray::from_iter_values(counters)),
        Arc::new(UInt64Array::from_iter_values(values)),
    ];
    // A column that is added to the definition is missed here by every test that stores anything.
    RecordBatch::try_new(COLLECTION_5M.arrow_schema(), arrays).expect("the arrays are those of the definition")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_of_the_definition_is_built() {
        let row = CollectionRow {
            window_start_ms: 300_000,
            exporter: "192.0.2.1".parse().unwrap(),
            observation_domain: 1,
            protocol_version: 9,
            counter: "datagrams",
            value: 3,
        };
        let batch = collection_to_batch(&[row; 2]);
        assert_eq!(
            (batch.num_rows(), batch.num_columns()),
            (2, COLLECTION_5M.columns.len())
        );
        assert_eq!(collection_to_batch(&[]).num_rows(), 0);
    }
}
