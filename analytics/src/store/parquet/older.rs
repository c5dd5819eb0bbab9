//! Files of earlier versions as a scan reads them.
//!
//! A column that a file lacks is what the table's definition says stands for it ([`ColumnFallback`]): a number in every row, or
//! the column that it took the place of. Expressions are rewritten file by file, so that filters prune row groups of older files
//! by the statistics of what is read.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, lit};
use datafusion::physical_expr_adapter::{DefaultPhysicalExprAdapter, PhysicalExprAdapter, PhysicalExprAdapterFactory};
use datafusion::scalar::ScalarValue;
use tables::column::{ColumnFallback, ColumnType, TableDef};

/// Makes the files of every version of a table look like those of today.
#[derive(Debug)]
pub(super) struct OlderFiles(pub(super) &'static TableDef);

impl PhysicalExprAdapterFactory for OlderFiles {
    fn create(
        &self,
        logical_file_schema: SchemaRef,
        physical_file_schema: SchemaRef,
    ) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let default = DefaultPhysicalExprAdapter::new(logical_file_schema, physical_file_schema.clone());
        Ok(Arc::new(Adapter {
            def: self.0,
            held: physical_file_schema,
            default,
        }))
    }
}

#[derive(Debug)]
struct Adapter {
    def: &'static TableDef,
    held: SchemaRef,
    default: DefaultPhysicalExprAdapter,
}

impl Adapter {
    /// What is read instead of a column of the table that the file lacks.
    fn stand_in(&self, column: &Column) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let Some(wanted) = self.def.index_of(column.name()).map(|index| &self.def.columns[index]) else {
            return Ok(None);
        };
        if self.held.index_of(wanted.name).is_ok() {
            return Ok(None);
        }
        Ok(match wanted.in_older_files {
            ColumnFallback::Number(number) => Some(lit(constant(wanted.kind, number)?)),
            ColumnFallback::Column(name) => Some(Arc::new(Column::new_with_schema(name, &self.held)?)),
            // The default says that it is missing.
            ColumnFallback::Never => None,
        })
    }
}

impl PhysicalExprAdapter for Adapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let expr = expr.transform(|expr| {
            let stand_in = match expr.downcast_ref::<Column>() {
                Some(column) => self.stand_in(column)?,
                None => None,
            };
            Ok(match stand_in {
                Some(stand_in) => Transformed::yes(stand_in),
                None => Transformed::no(expr),
            })
        });
        self.default.rewrite(expr.data()?)
    }
}

fn constant(kind: ColumnType, number: u64) -> Result<ScalarValue> {
    let number = ScalarValue::UInt64(Some(number));
    match kind {
        ColumnType::Instant => number
            .cast_to(&arrow::datatypes::DataType::Int64)?
            .cast_to(&kind.arrow()),
        ColumnType::U8 | ColumnType::U16 | ColumnType::U32 | ColumnType::U64 => number.cast_to(&kind.arrow()),
        ColumnType::Address | ColumnType::Name => Err(DataFusionError::Internal(format!(
            "no number stands for a column of {kind:?}"
        ))),
    }
}
