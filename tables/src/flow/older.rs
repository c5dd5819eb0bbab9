//! The table of flows as earlier versions wrote it, whose files are read as long as they are kept.
//!
//! [`super::FLOWS`] says of each column what stands for it in files that lack it; these definitions are what such files hold, so
//! that tests can write one.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::error::ArrowError;

use crate::column::{ColumnType, Layout, TableDef, column};

/// Flows as of version 7bef553: one VLAN, whole sampling rates, the start as the exporter said it.
#[rustfmt::skip] // a row of the table is a line
pub const FLOWS_7BEF553: TableDef = TableDef {
    name: "flows",
    doc: "",
    time_column: "received_at",
    sort: &["dst_service", "src_service", "received_at"],
    format: 1,
    computed: false,
    columns: &[
        column("received_at", ColumnType::Instant, "UTC ms", Layout::Delta, true, ""),
        column("start_at", ColumnType::Instant, "UTC ms", Layout::Delta, true, ""),
        column("end_at", ColumnType::Instant, "UTC ms", Layout::Delta, true, ""),
        column("exporter", ColumnType::Address, "", Layout::Dictionary, true, ""),
        column("observation_domain", ColumnType::U32, "", Layout::Dictionary, true, ""),
        column("protocol_version", ColumnType::U8, "", Layout::Dictionary, true, ""),
        column("sampling_rate", ColumnType::U32, "packets", Layout::Dictionary, true, ""),
        column("in_if", ColumnType::U32, "", Layout::Dictionary, true, ""),
        column("out_if", ColumnType::U32, "", Layout::Dictionary, true, ""),
        column("in_boundary", ColumnType::U8, "", Layout::Dictionary, true, ""),
        column("out_boundary", ColumnType::U8, "", Layout::Dictionary, true, ""),
        column("direction", ColumnType::U8, "", Layout::Dictionary, true, ""),
        column("metered", ColumnType::U8, "", Layout::Dictionary, true, ""),
        column("src_addr", ColumnType::Address, "", Layout::Plain, false, ""),
        column("dst_addr", ColumnType::Address, "", Layout::Plain, false, ""),
        column("src_port", ColumnType::U16, "", Layout::Plain, false, ""),
        column("dst_port", ColumnType::U16, "", Layout::Plain, false, ""),
        column("ip_protocol", ColumnType::U8, "", Layout::Dictionary, true, ""),
        column("tcp_flags", ColumnType::U8, "", Layout::Dictionary, false, ""),
        column("tos", ColumnType::U8, "", Layout::Dictionary, false, ""),
        column("icmp_type_code", ColumnType::U16, "", Layout::Dictionary, false, ""),
        column("vlan", ColumnType::U16, "", Layout::Dictionary, true, ""),
        column("next_hop", ColumnType::Address, "", Layout::Dictionary, false, ""),
        column("src_as", ColumnType::U32, "", Layout::Dictionary, false, ""),
        column("dst_as", ColumnType::U32, "", Layout::Dictionary, false, ""),
        column("src_mask", ColumnType::U8, "bits", Layout::Dictionary, false, ""),
        column("dst_mask", ColumnType::U8, "bits", Layout::Dictionary, false, ""),
        column("forwarding_status", ColumnType::U8, "", Layout::Dictionary, false, ""),
        column("bytes", ColumnType::U64, "bytes", Layout::Delta, false, ""),
        column("packets", ColumnType::U64, "packets", Layout::Delta, false, ""),
        column("src_service", ColumnType::U32, "", Layout::Dictionary, true, ""),
        column("dst_service", ColumnType::U32, "", Layout::Dictionary, true, ""),
    ],
};

/// The rows of a batch of [`super::FLOWS`] as version 7bef553 stored them; of two VLANs the input side's.
///
/// # Errors
/// When the batch is of another schema.
pub fn as_of_7bef553(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let held = |name: &str| {
        let name = if name == "vlan" { "in_vlan" } else { name };
        let missing = || ArrowError::SchemaError(format!("column {name} is missing"));
        batch.column_by_name(name).cloned().ok_or_else(missing)
    };
    let columns = FLOWS_7BEF553.columns.iter().map(|column| held(column.name));
    RecordBatch::try_new(
        FLOWS_7BEF553.arrow_schema(),
        columns.collect::<Result<Vec<ArrayRef>, _>>()?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{FLOWS, Flow, batch_to_flows, flows_to_batch};

    #[test]
    fn rows_of_an_earlier_version_are_read_with_what_they_mean_today() {
        let flow = Flow {
            bytes: 1500,
            packets: 2,
            sampling_rate: 100,
            start_at_ms: 7_000,
            in_vlan: 12,
            out_vlan: 12,
            ..Flow::default()
        };
        let stored = as_of_7bef553(&flows_to_batch(&[flow])).unwrap();
        assert!(stored.column_by_name("marks").is_none());
        let read = batch_to_flows(&stored).unwrap();
        assert_eq!(read, [flow]);
        assert_eq!((read[0].bytes_scaled(), read[0].reported_start()), (150_000, 7_000));
        assert_eq!(FLOWS.complete(&stored).unwrap().schema(), FLOWS.arrow_schema());
    }

    #[test]
    fn a_column_that_no_version_lacked_is_missed() {
        let stored = as_of_7bef553(&flows_to_batch(&[Flow::default()])).unwrap();
        let bytes = stored.schema().index_of("bytes").unwrap();
        let others: Vec<usize> = (0..stored.num_columns()).filter(|index| *index != bytes).collect();
        let error = batch_to_flows(&stored.project(&others).unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("column bytes of flows is missing"),
            "{error}"
        );
    }
}
