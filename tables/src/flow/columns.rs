//! Flows by column: what decoders fill, the enricher completes and the encoder reads, without a copy between them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, RecordBatch, TimestampMillisecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use schemas::address::Address;

use super::{Boundary, FLOWS, Flow, Metered, SpanBound, address_bytes_array};
use crate::column::ColumnValues;

/// How a column keeps a field of [`Flow`].
pub trait ColumnField: Copy {
    /// What the column's vector holds.
    type As;
    fn keep(self) -> Self::As;
    fn give(kept: Self::As) -> Self;
}

macro_rules! kept_as_is {
    ($($kind:ty),*) => {$(
        impl ColumnField for $kind {
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

impl ColumnField for Address {
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

impl ColumnField for Boundary {
    type As = u8;
    #[inline]
    fn keep(self) -> u8 {
        self as u8
    }
    /// Only codes that [`ColumnField::keep`] made are in a column.
    #[inline]
    fn give(kept: u8) -> Boundary {
        Boundary::from_code(kept).unwrap_or_default()
    }
}

impl ColumnField for Metered {
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

impl ColumnField for SpanBound {
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

/// One vector for each column; boundaries and metering by their codes.
macro_rules! flow_columns {
    ($($field:ident: $kind:ident $([$late:ident])?),* $(,)?) => {
        /// Rows of [`FLOWS`] by column, in the order they were added. Fields are named as in [`Flow`], boundaries and metering are kept
        /// by their codes. Between two calls of whoever fills them all columns have the same length, but for those that are late:
        /// what decoders leave to the enricher, or fill in for very few rows. Those may be shorter, and their missing rows have
        /// what [`Flow::default`] has, so that memory is not written twice or for nothing; [`FlowColumns::complete`] writes it.
        #[derive(Clone, Debug, Default)]
        pub struct FlowColumns {
            $(pub $field: Vec<<$kind as ColumnField>::As>,)*
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
                let rows = self.len();
                $(flow_columns!(@push self.$field, flow.$field.keep(), USUAL.$field.keep(), rows $(, $late)?);)*
            }

            /// Row `index`.
            ///
            /// # Panics
            /// When there is no such row.
            pub fn row(&self, index: usize) -> Flow {
                Flow {
                    $($field: flow_columns!(@row self.$field, $kind, USUAL.$field, index $(, $late)?),)*
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
                let begun = self.len();
                $(flow_columns!(@fill self.$field, flow.$field.keep(), USUAL.$field.keep(), begun, rows $(, $late)?);)*
            }

            /// Brings the columns that are late to the length of the others.
            pub fn complete(&mut self) {
                let rows = self.len();
                $(flow_columns!(@complete self.$field, USUAL.$field.keep(), rows $(, $late)?);)*
            }

            /// The columns in the order of [`FLOWS`], to be encoded once they are complete.
            pub fn values(&self) -> Vec<ColumnValues<'_>> {
                vec![$(flow_columns!(@values $kind, &self.$field)),*]
            }

            /// The rows as one batch.
            pub fn into_batch(mut self) -> RecordBatch {
                self.complete();
                let columns: Vec<ArrayRef> = vec![$(flow_columns!(@array $kind, self.$field, $field)),*];
                RecordBatch::try_new(FLOWS.arrow_schema(), columns).expect("columns are built from the schema's own definition")
            }
        }
    };
    (@push $column:expr, $value:expr, $usual:expr, $rows:expr) => { $column.push($value) };
    (@push $column:expr, $value:expr, $usual:expr, $rows:expr, late) => {
        if $value != $usual {
            $column.resize($rows, $usual);
            $column.push($value);
        }
    };
    (@row $column:expr, $kind:ident, $usual:expr, $index:expr) => { <$kind as ColumnField>::give($column[$index]) };
    (@row $column:expr, $kind:ident, $usual:expr, $index:expr, late) => {
        $column.get($index).map_or($usual, |kept| <$kind as ColumnField>::give(*kept))
    };
    (@fill $column:expr, $value:expr, $usual:expr, $begun:expr, $rows:expr) => {
        if $column.len() < $rows {
            $column.resize($rows, $value);
        }
    };
    (@fill $column:expr, $value:expr, $usual:expr, $begun:expr, $rows:expr, late) => {
        if $value != $usual {
            if $column.len() < $begun {
                $column.resize($begun, $usual);
            }
            $column.resize($rows, $value);
        }
    };
    (@complete $column:expr, $usual:expr, $rows:expr) => {};
    (@complete $column:expr, $usual:expr, $rows:expr, late) => {
        if $column.len() < $rows {
            $column.resize($rows, $usual);
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
    in_boundary: Boundary [late],
    out_boundary: Boundary [late],
    direction: u8,
    metered: Metered [late],
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
    src_service: u32 [late],
    dst_service: u32 [late],
    sampling_divisor: u32 [late],
    reported_start_at_ms: i64 [late],
    span_bound: SpanBound [late],
    exporter_port: u16,
    marks: u16,
}

impl FlowColumns {
    #[inline]
    pub fn len(&self) -> usize {
        self.received_at_ms.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.received_at_ms.is_empty()
    }

    /// Notes a start that was reported, where it is another than that of the row.
    pub fn set_reported_start(&mut self, row: usize, at_ms: i64) {
        if self.reported_start_at_ms.len() <= row {
            self.reported_start_at_ms.resize(self.len(), USUAL.reported_start_at_ms);
        }
        self.reported_start_at_ms[row] = at_ms;
    }

    /// What bounded the span of a row.
    pub fn span_bound_of(&self, row: usize) -> SpanBound {
        self.span_bound
            .get(row)
            .map_or(USUAL.span_bound, |kept| SpanBound::give(*kept))
    }

    /// Notes what bounded it.
    pub fn set_span_bound(&mut self, row: usize, bound: SpanBound) {
        if self.span_bound.len() <= row {
            self.span_bound.resize(self.len(), USUAL.span_bound.keep());
        }
        self.span_bound[row] = bound.keep();
    }

    /// A copy of every row.
    pub fn rows(&self) -> Vec<Flow> {
        self.iter().collect()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Flow> + '_ {
        (0..self.len()).map(|index| self.row(index))
    }
}

impl PartialEq for FlowColumns {
    fn eq(&self, other: &FlowColumns) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for FlowColumns {}

/// What late columns have where nothing else is known.
const USUAL: Flow = Flow::USUAL;

impl Extend<Flow> for FlowColumns {
    fn extend<I: IntoIterator<Item = Flow>>(&mut self, flows: I) {
        for flow in flows {
            self.push(flow);
        }
        self.complete();
    }
}

impl FromIterator<Flow> for FlowColumns {
    fn from_iter<I: IntoIterator<Item = Flow>>(flows: I) -> FlowColumns {
        let mut columns = FlowColumns::default();
        columns.extend(flows);
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_are_late_have_what_was_pushed_once_they_are_complete() {
        let usual = Flow::default();
        let known = Flow {
            in_boundary: Boundary::External,
            metered: Metered::In,
            dst_service: 7,
            sampling_divisor: 3,
            reported_start_at_ms: 5,
            span_bound: SpanBound::Options,
            ..usual
        };
        let rows = [usual, known, usual, usual, known, known, usual];
        let mut columns = FlowColumns::default();
        columns.push(usual);
        columns.push(known);
        columns.fill_up(4, &usual);
        columns.fill_up(6, &known);
        columns.push(usual);
        assert_eq!(
            (columns.len(), columns.dst_service.len(), columns.src_service.len()),
            (7, 6, 0)
        );
        assert_eq!(columns.rows(), rows);
        assert_eq!(columns, rows.into_iter().collect());
        columns.complete();
        assert!(columns.values().iter().all(|column| column.len() == 7));
        assert_eq!(columns.rows(), rows);
        columns.set_span_bound(0, SpanBound::Learned);
        let mut marked = FlowColumns::default();
        marked.push(usual);
        marked.push(usual);
        marked.set_span_bound(1, SpanBound::Learned);
        marked.set_reported_start(0, 9);
        assert_eq!(
            (marked.span_bound_of(0), marked.span_bound_of(1)),
            (SpanBound::None, SpanBound::Learned)
        );
        assert_eq!(marked.rows()[0].reported_start_at_ms, 9);
        marked.truncate(1);
        assert_eq!((marked.len(), marked.span_bound_of(1)), (1, SpanBound::None));
    }
}
