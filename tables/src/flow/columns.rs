//! Flows by column: what decoders fill, the enricher completes and the encoder reads, without a copy between them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, RecordBatch, TimestampMillisecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use schemas::address::Address;

use super::{Boundary, FLOWS, Flow, Metered, SpanBound, address_bytes_array};
use crate::table::ColumnValues;

/// How a column keeps a field of [`Flow`].
pub trait Kept: Copy {
    /// What the column's vector holds.
    type As;
    fn keep(self) -> Self::As;
    fn give(kept: Self::As) -> Self;
}

macro_rules! kept_as_is {
    ($($kind:ty),*) => {$(
        impl Kept for $kind {
            type As = $kind;
            #[inline]
            fn keep(self) -> $kind {
                self
            }
            #[inline]
            fn give(kept: $kind) -> $kind {
                kept
            }
        }
    )*};
}

kept_as_is!(u8, u16, u32, u64, i64);

impl Kept for Address {
    type As = [u8; 16];
    #[inline]
    fn keep(self) -> [u8; 16] {
        self.0
    }
    #[inline]
    fn give(kept: [u8; 16]) -> Address {
        Address(kept)
    }
}

impl Kept for Boundary {
    type As = u8;
    #[inline]
    fn keep(self) -> u8 {
        self as u8
    }
    /// Only codes that [`Kept::keep`] made are in a column.
    #[inline]
    fn give(kept: u8) -> Boundary {
        Boundary::from_code(kept).unwrap_or_default()
    }
}

impl Kept for Metered {
    type As = u8;
    #[inline]
    fn keep(self) -> u8 {
        self as u8
    }
    #[inline]
    fn give(kept: u8) -> Metered {
        Metered::from_code(kept).unwrap_or_default()
    }
}

impl Kept for SpanBound {
    type As = u8;
    #[inline]
    fn keep(self) -> u8 {
        self as u8
    }
    #[inline]
    fn give(kept: u8) -> SpanBound {
        SpanBound::from_code(kept).unwrap_or_default()
    }
}

/// One vector for each column, all of one length; boundaries and metering by their codes.
macro_rules! flow_columns {
    ($($field:ident: $kind:ident),* $(,)?) => {
        /// Rows of [`FLOWS`] by column, in the order they were added. All columns have the same length between two calls of
        /// whoever fills them; fields are named as in [`Flow`], boundaries and metering are kept by their codes.
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct FlowColumns {
            $(pub $field: Vec<<$kind as Kept>::As>,)*
        }

        impl FlowColumns {
            /// Room for `rows` rows without growing.
            pub fn with_capacity(rows: usize) -> FlowColumns {
                FlowColumns {
                    $($field: Vec::with_capacity(rows),)*
                }
            }

            #[inline]
            pub fn push(&mut self, flow: Flow) {
                $(self.$field.push(flow.$field.keep());)*
            }

            /// Row `index`.
            ///
            /// # Panics
            /// When there is no such row.
            pub fn row(&self, index: usize) -> Flow {
                Flow {
                    $($field: <$kind as Kept>::give(self.$field[index]),)*
                }
            }

            /// Forgets the rows and keeps their room.
            pub fn clear(&mut self) {
                $(self.$field.clear();)*
            }

            /// Forgets the rows from `rows` on, whole ones and begun ones.
            pub fn truncate(&mut self, rows: usize) {
                $(self.$field.truncate(rows);)*
            }

            /// Completes rows that were begun: every column that is shorter than `rows` is filled up with the value in `flow`.
            pub fn fill_up(&mut self, rows: usize, flow: &Flow) {
                $(if self.$field.len() < rows {
                    self.$field.resize(rows, flow.$field.keep());
                })*
            }

            /// The columns in the order of [`FLOWS`], to be encoded.
            pub fn values(&self) -> Vec<ColumnValues<'_>> {
                vec![$(flow_columns!(@values $kind, &self.$field)),*]
            }

            /// The rows as one batch.
            pub fn into_batch(self) -> RecordBatch {
                let columns: Vec<ArrayRef> = vec![$(flow_columns!(@array $kind, self.$field, $field)),*];
                RecordBatch::try_new(FLOWS.arrow_schema(), columns).expect("columns are built from the schema's own definition")
            }
        }
    };
    (@values i64, $column:expr) => { ColumnValues::I64($column) };
    (@values u64, $column:expr) => { ColumnValues::U64($column) };
    (@values u32, $column:expr) => { ColumnValues::U32($column) };
    (@values u16, $column:expr) => { ColumnValues::U16($column) };
    (@values u8, $column:expr) => { ColumnValues::U8($column) };
    (@values Boundary, $column:expr) => { ColumnValues::U8($column) };
    (@values Metered, $column:expr) => { ColumnValues::U8($column) };
    (@values SpanBound, $column:expr) => { ColumnValues::U8($column) };
    (@values Address, $column:expr) => { ColumnValues::Address($column) };
    (@array i64, $column:expr, $field:ident) => { Arc::new(TimestampMillisecondArray::from($column).with_timezone("UTC")) };
    (@array u64, $column:expr, $field:ident) => { Arc::new(UInt64Array::from($column)) };
    (@array u32, $column:expr, $field:ident) => { Arc::new(UInt32Array::from($column)) };
    (@array u16, $column:expr, $field:ident) => { Arc::new(UInt16Array::from($column)) };
    (@array u8, $column:expr, $field:ident) => { Arc::new(UInt8Array::from($column)) };
    (@array Boundary, $column:expr, $field:ident) => { Arc::new(UInt8Array::from($column)) };
    (@array Metered, $column:expr, $field:ident) => { Arc::new(UInt8Array::from($column)) };
    (@array SpanBound, $column:expr, $field:ident) => { Arc::new(UInt8Array::from($column)) };
    (@array Address, $column:expr, $field:ident) => { address_bytes_array($column.into_flattened()) };
}

flow_columns! {
    received_at_ms: i64,
    start_at_ms: i64,
    end_at_ms: i64,
    exporter: Address,
    observation_domain: u32,
    protocol_version: u8,
    sampling_rate: u32,
    in_if: u32,
    out_if: u32,
    in_boundary: Boundary,
    out_boundary: Boundary,
    direction: u8,
    metered: Metered,
    src_addr: Address,
    dst_addr: Address,
    src_port: u16,
    dst_port: u16,
    ip_protocol: u8,
    tcp_flags: u8,
    tos: u8,
    icmp_type_code: u16,
    in_vlan: u16,
    out_vlan: u16,
    next_hop: Address,
    src_as: u32,
    dst_as: u32,
    src_mask: u8,
    dst_mask: u8,
    forwarding_status: u8,
    bytes: u64,
    packets: u64,
    src_service: u32,
    dst_service: u32,
    sampling_divisor: u32,
    reported_start_at_ms: i64,
    span_bound: SpanBound,
    exporter_port: u16,
    marks: u16,
}

impl FlowColumns {
    pub fn len(&self) -> usize {
        self.received_at_ms.len()
    }

    pub fn is_empty(&self) -> bool {
        self.received_at_ms.is_empty()
    }

    /// A copy of every row.
    pub fn rows(&self) -> Vec<Flow> {
        self.iter().collect()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Flow> + '_ {
        (0..self.len()).map(|index| self.row(index))
    }
}

impl Extend<Flow> for FlowColumns {
    fn extend<I: IntoIterator<Item = Flow>>(&mut self, flows: I) {
        for flow in flows {
            self.push(flow);
        }
    }
}

impl FromIterator<Flow> for FlowColumns {
    fn from_iter<I: IntoIterator<Item = Flow>>(flows: I) -> FlowColumns {
        let mut columns = FlowColumns::default();
        columns.extend(flows);
        columns
    }
}
