//! One stored table as DataFusion scans it.
//!
//! Four sieves, coarse to fine: the manifest's smallest and largest time drop whole files before they are opened; row
//! groups drop out by their filters where addresses are asked for (`lookup`), and by their statistics; the filters themselves run above
//! the scan (they are reported as inexact). A file never changes under its name, so its footer is parsed once per process
//! and kept in the session's bounded cache.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, TimestampMillisecondArray, UInt64Array};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, DFSchema, DataFusionError, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileGroupPartitioner, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::TableProviderFilterPushDown;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::Expr;
use datafusion::scalar::ScalarValue;
use tables::column::ColumnType;
use tables::table::{FileEntry, Snapshot, Table};

use super::lookup::Lookup;
use super::older::OlderFiles;

/// Read from the end of a file at first: enough for the footer of a file of one row group.
const FOOTER_BYTES: usize = 16 << 10;

/// Reading single files in ranges only pays for files much larger than one segment.
const SPLIT_BYTES_MIN: usize = 8 << 20;

/// A table over its manifest: as of each scan, or as of one snapshot.
#[derive(Debug)]
pub(super) struct StoredTable {
    table: Table,
    schema: SchemaRef,
    url: ObjectStoreUrl,
    /// How many streams a scan is split into.
    streams: usize,
    pinned: Option<Arc<Snapshot>>,
}

impl StoredTable {
    pub(super) fn current(table: Table, url: ObjectStoreUrl, streams: usize) -> StoredTable {
        let schema = table.def().arrow_schema();
        StoredTable {
            table,
            schema,
            url,
            streams,
            pinned: None,
        }
    }

    pub(super) fn pinned(table: Table, url: ObjectStoreUrl, streams: usize, snapshot: Arc<Snapshot>) -> StoredTable {
        StoredTable {
            pinned: Some(snapshot),
            ..StoredTable::current(table, url, streams)
        }
    }

    fn snapshot(&self) -> Result<Arc<Snapshot>, DataFusionError> {
        match &self.pinned {
            Some(snapshot) => Ok(snapshot.clone()),
            None => self
                .table
                .snapshot()
                .map_err(|error| DataFusionError::External(Box::new(error))),
        }
    }

    /// Files that may hold rows which pass the filters, by what the manifest knows of their times.
    fn select<'a>(
        &self,
        state: &dyn Session,
        snapshot: &'a Snapshot,
        filters: &[Expr],
    ) -> Result<Vec<&'a FileEntry>, DataFusionError> {
        let files: Vec<&FileEntry> = snapshot.files.values().collect();
        let Some(filter) = conjunction(filters.iter().cloned()) else {
            return Ok(files);
        };
        let schema = DFSchema::try_from(self.schema.as_ref().clone())?;
        let filter = state.create_physical_expr(filter, &schema)?;
        let predicate = PruningPredicateBuilder::new()
            .with_file_schema(self.schema.clone())
            .try_build(filter)?;
        if predicate.always_true() {
            return Ok(files);
        }
        let keep = predicate.prune(&ManifestTimes {
            files: &files,
            table: &self.table,
        })?;
        Ok(files
            .into_iter()
            .zip(keep)
            .filter_map(|(file, keep)| keep.then_some(file))
            .collect())
    }
}

#[async_trait]
impl TableProvider for StoredTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let snapshot = self.snapshot()?;
        let files = self.select(state, &snapshot, filters)?;
        let runtime = state.runtime_env();
        let reader = Arc::new(CachedParquetFileReaderFactory::new(
            runtime.object_store(&self.url)?,
            runtime.cache_manager.get_file_metadata_cache(),
        ));
        let rows: u64 = files.iter().map(|file| file.rows).sum();
        let table_name = self.table.def().name;
        let mut parts: Vec<PartitionedFile> = files
            .iter()
            .map(|file| PartitionedFile::new(format!("{table_name}/{}", file.path), file.size_bytes))
            .collect();
        let lookup = Lookup::of(filters, self.table.def());
        if let Some(lookup) = &lookup {
            parts = lookup.select(parts, reader.as_ref(), FOOTER_BYTES).await?;
        }
        if parts.is_empty() {
            let schema = match projection {
                Some(indices) => Arc::new(self.schema.project(indices)?),
                None => self.schema.clone(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        // The optimizer hands the filters above the scan to the source, which prunes row groups by them. It also decodes the
        // other columns only where a row passes, which pays when few do, as for a few addresses.
        // Our files have no page statistics: without this the (useless) page index is read anew at every opening.
        let source = ParquetSource::new(self.schema.clone())
            .with_parquet_file_reader_factory(reader)
            .with_enable_page_index(false)
            .with_pushdown_filters(lookup.is_some())
            .with_reorder_filters(lookup.is_some())
            .with_metadata_size_hint(FOOTER_BYTES);
        let mut statistics = Statistics::new_unknown(&self.schema);
        statistics.num_rows = match lookup {
            None => Precision::Exact(usize::try_from(rows).unwrap_or(usize::MAX)),
            Some(_) => Precision::Inexact(usize::try_from(rows).unwrap_or(usize::MAX)),
        };
        let groups = FileGroup::new(parts).split_files(self.streams);
        // Large files are read by several streams, each its row groups.
        let groups = FileGroupPartitioner::new()
            .with_target_partitions(self.streams)
            .with_repartition_file_min_size(SPLIT_BYTES_MIN)
            .repartition_file_groups(&groups)
            .unwrap_or(groups);
        let config = FileScanConfigBuilder::new(self.url.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_expr_adapter(Some(Arc::new(OlderFiles(self.table.def()))))
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// What the manifest knows about each file, in the form the pruning predicate asks for.
struct ManifestTimes<'a> {
    files: &'a [&'a FileEntry],
    table: &'a Table,
}

impl ManifestTimes<'_> {
    /// The bound of every instant column with statistics is that of the file: it spans all of them.
    fn times(&self, column: &Column, bound: fn(&FileEntry) -> i64) -> Option<ArrayRef> {
        let def = self.table.def();
        let known = def.columns.get(def.index_of(&column.name)?)?;
        if known.kind != ColumnType::Instant || !known.statistics {
            return None;
        }
        let bounds = self.files.iter().map(|file| bound(file));
        Some(Arc::new(
            TimestampMillisecondArray::from_iter_values(bounds).with_timezone("UTC"),
        ))
    }
}

impl PruningStatistics for ManifestTimes<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.times(column, |file| file.min_time_ms)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.times(column, |file| file.max_time_ms)
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, _column: &Column) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_value(0, self.files.len())))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_iter_values(
            self.files.iter().map(|file| file.rows),
        )))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
