//! Which row groups may hold the addresses that a query asks for.
//!
//! Sorted files carry a Bloom filter of each row group's addresses. DataFusion asks such filters only where all of a
//! condition must hold; people ask for a host whichever side of a flow it is: `src_addr = x OR dst_addr = x`. [`Lookup`]
//! takes from a query's filters what they say of addresses, and leaves out row groups in which no row can pass.
//!
//! It never changes an answer: what cannot be told is read.

use std::collections::HashMap;

use datafusion::common::DataFusionError;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::ParquetAccessPlan;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Operator};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::prelude::Expr;
use datafusion::scalar::ScalarValue;
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::bloom_filter::Sbbf;
use tables::column::TableDef;

/// Files whose filters are read at once.
const FILES_AT_ONCE: usize = 8;

/// What a query's filters say of addresses.
#[derive(Clone, Debug)]
pub(super) struct Lookup {
    def: &'static TableDef,
    condition: Condition,
    /// Columns of the table that it speaks of.
    columns: Vec<usize>,
}

/// What must hold in a row group for a row of it to pass.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Condition {
    /// One of these addresses is in the column.
    Holds {
        column: usize,
        addresses: Vec<[u8; 16]>,
    },
    All(Vec<Condition>),
    Any(Vec<Condition>),
}

impl Lookup {
    /// `None` when the filters ask for no address.
    pub(super) fn of(filters: &[Expr], def: &'static TableDef) -> Option<Lookup> {
        let parts: Vec<Condition> = filters.iter().filter_map(|filter| Condition::of(filter, def)).collect();
        if parts.is_empty() {
            return None;
        }
        let condition = Condition::All(parts);
        let mut columns = Vec::new();
        condition.columns(&mut columns);
        Some(Lookup {
            def,
            condition,
            columns,
        })
    }

    /// The files with the row groups that may hold such rows; those with none are left out.
    pub(super) async fn select(
        &self,
        files: Vec<PartitionedFile>,
        readers: &dyn ParquetFileReaderFactory,
        footer_bytes: usize,
    ) -> Result<Vec<PartitionedFile>, DataFusionError> {
        let selected = futures::stream::iter(files)
            .map(|file| self.select_in(file, readers, footer_bytes))
            .buffered(FILES_AT_ONCE);
        let selected: Vec<Option<PartitionedFile>> = selected.try_collect().await?;
        Ok(selected.into_iter().flatten().collect())
    }

    async fn select_in(
        &self,
        file: PartitionedFile,
        readers: &dyn ParquetFileReaderFactory,
        footer_bytes: usize,
    ) -> Result<Option<PartitionedFile>, DataFusionError> {
        let metrics = ExecutionPlanMetricsSet::new();
        let reader: Box<dyn AsyncFileReader> = readers.create_reader(0, file.clone(), Some(footer_bytes), &metrics)?;
        let mut builder = ParquetRecordBatchStreamBuilder::new(reader).await?;
        let groups = builder.metadata().num_row_groups();
        let mut plan = ParquetAccessPlan::new_all(groups);
        let mut left = groups;
        for group in 0..groups {
            let mut filters = HashMap::new();
            for column in &self.columns {
                // Files of earlier versions have other columns before it.
                let Some(held) = self.def.source_of(*column, builder.schema()) else {
                    continue;
                };
                if let Some(filter) = builder.get_row_group_column_bloom_filter(group, held).await? {
                    filters.insert(*column, filter);
                }
            }
            if !self.condition.may_hold(&filters) {
                plan.skip(group);
                left -= 1;
            }
        }
        Ok((left > 0).then(|| file.with_extension(plan)))
    }
}

impl Condition {
    /// `None` when any row group may hold a row that passes, as far as addresses tell.
    fn of(filter: &Expr, def: &TableDef) -> Option<Condition> {
        let both = |left: &Expr, right: &Expr| (Condition::of(left, def), Condition::of(right, def));
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
                Operator::And => match both(left, right) {
                    (Some(left), Some(right)) => Some(Condition::All(vec![left, right])),
                    (left, right) => left.or(right),
                },
                Operator::Or => match both(left, right) {
                    (Some(left), Some(right)) => Some(Condition::Any(vec![left, right])),
                    _ => None,
                },
                Operator::Eq => {
                    let (column, address) = match (column_of(left, def), column_of(right, def)) {
                        (Some(column), None) => (column, address_of(right)?),
                        (None, Some(column)) => (column, address_of(left)?),
                        _ => return None,
                    };
                    let addresses = vec![address];
                    Some(Condition::Holds { column, addresses })
                }
                _ => None,
            },
            Expr::InList(InList { expr, list, negated }) if !negated => {
                let column = column_of(expr, def)?;
                let addresses = list.iter().map(address_of).collect::<Option<_>>()?;
                Some(Condition::Holds { column, addresses })
            }
            _ => None,
        }
    }

    fn columns(&self, columns: &mut Vec<usize>) {
        match self {
            Condition::Holds { column, .. } if !columns.contains(column) => columns.push(*column),
            Condition::Holds { .. } => {}
            Condition::All(parts) | Condition::Any(parts) => parts.iter().for_each(|part| part.columns(columns)),
        }
    }

    fn may_hold(&self, filters: &HashMap<usize, Sbbf>) -> bool {
        match self {
            Condition::Holds { column, addresses } => filters
                .get(column)
                .is_none_or(|filter| addresses.iter().any(|address| filter.check(address.as_slice()))),
            Condition::All(parts) => parts.iter().all(|part| part.may_hold(filters)),
            Condition::Any(parts) => parts.iter().any(|part| part.may_hold(filters)),
        }
    }
}

fn column_of(expr: &Expr, def: &TableDef) -> Option<usize> {
    let Expr::Column(column) = expr else { return None };
    let index = def.index_of(&column.name)?;
    def.columns[index].is_looked_up().then_some(index)
}

fn address_of(expr: &Expr) -> Option<[u8; 16]> {
    match expr {
        Expr::Literal(ScalarValue::FixedSizeBinary(_, Some(bytes)), _) => bytes.as_slice().try_into().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{col, lit};
    use tables::flow::FLOWS;

    fn address(last: u8) -> Expr {
        let mut bytes = vec![0; 16];
        bytes[15] = last;
        lit(ScalarValue::FixedSizeBinary(16, Some(bytes)))
    }

    /// Whether a row group with these sources and destinations may hold rows that pass.
    fn may_hold(filters: &[Expr], sources: &[u8], destinations: &[u8]) -> Option<bool> {
        let lookup = Lookup::of(filters, &FLOWS)?;
        let mut held = HashMap::new();
        for (name, addresses) in [("src_addr", sources), ("dst_addr", destinations)] {
            let mut filter = Sbbf::new_with_ndv_fpp(100, 0.000_1).unwrap();
            for last in addresses {
                let mut bytes = [0; 16];
                bytes[15] = *last;
                filter.insert(bytes.as_slice());
            }
            held.insert(FLOWS.index_of(name).unwrap(), filter);
        }
        Some(lookup.condition.may_hold(&held))
    }

    #[test]
    fn either_side_of_a_flow_and_both() {
        let either = [col("src_addr").eq(address(1)).or(address(1).eq(col("dst_addr")))];
        assert_eq!(may_hold(&either, &[1], &[2]), Some(true));
        assert_eq!(may_hold(&either, &[2], &[1]), Some(true));
        assert_eq!(may_hold(&either, &[2], &[3]), Some(false));
        let both = [col("src_addr").eq(address(1)), col("dst_addr").eq(address(2))];
        assert_eq!(may_hold(&both, &[1], &[2]), Some(true));
        assert_eq!(may_hold(&both, &[1], &[3]), Some(false));
        let one_of = [col("src_addr").in_list(vec![address(1), address(2)], false)];
        assert_eq!(may_hold(&one_of, &[2], &[]), Some(true));
        assert_eq!(may_hold(&one_of, &[3], &[]), Some(false));
    }

    #[test]
    fn what_other_columns_say_is_not_guessed() {
        let port = || col("dst_port").eq(lit(80_u16));
        assert_eq!(may_hold(&[port()], &[1], &[1]), None);
        assert_eq!(may_hold(&[col("src_addr").eq(address(9)).or(port())], &[1], &[1]), None);
        assert_eq!(may_hold(&[col("src_addr").not_eq(address(9))], &[1], &[1]), None);
        let negated = col("src_addr").in_list(vec![address(1)], true);
        assert_eq!(may_hold(&[negated], &[1], &[1]), None);
        assert_eq!(
            may_hold(&[col("src_addr").eq(address(9)).and(port())], &[1], &[1]),
            Some(false)
        );
    }

    #[test]
    fn a_row_group_without_filters_is_read() {
        let lookup = Lookup::of(&[col("src_addr").eq(address(1))], &FLOWS).unwrap();
        assert!(lookup.condition.may_hold(&HashMap::new()));
    }
}
