//! The embedded store: the stored tables as DataFusion sees them, and the questions that they answer (`flow_store`).
//!
//! * Every query takes the manifests as they are when it is planned: a row is seen once or, before its commit, not at all.
//! * Read only: data definition, data modification, `COPY` and `SET` are refused before anything runs, and the only
//!   object store that queries can name is that of the tables' files.
//! * Bounded: all queries together hold at most [`QUERY_MEMORY_BYTES`] and spill beyond it. How long a query may take is
//!   the caller's to say: dropping the future (or stream) stops it.

mod flow_store;
mod functions;
mod keys;
mod lookup;
mod older;
mod provider;
mod ranking;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::registry::FunctionRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{DataFrame, Expr, SQLOptions, SessionConfig, SessionContext, lit};
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use tables::column::TableDef;
use tables::definitions::{COLLECTION_5M, COUNTERS, TABLES, TRUTH_1H, USAGE_5M};
use tables::flow::FLOWS;
use tables::table::{Snapshot, Storage, Table};
use tokio::task::JoinSet;

use crate::AnalyticsError;
use provider::StoredTable;

/// Memory that all running queries of one store may hold together before they spill to temporary files.
pub const QUERY_MEMORY_BYTES: usize = 1 << 30;

/// Memory for the parsed footers of files, the least recently used of which are forgotten.
const FOOTER_CACHE_BYTES: usize = 128 << 20;

/// Rows of a batch: large enough to amortise the work per batch, small enough for the processor's cache.
const BATCH_ROWS: usize = 8192;

/// Rows are grouped in so many partitions by their keys, one after the other on each core: the hash table of a partition of a
/// ranking of millions of addresses then stays within the processor's cache.
const GROUP_PARTITIONS: usize = 64;

/// Streams of a scan for each core: more than one, so that what is grouped waits for no single one of them.
const STREAMS_PER_CORE: usize = 4;

/// Distinct keys per row from which on rows are not grouped before they are partitioned.
const GROUP_AT_ONCE_RATIO: f64 = 0.2;

/// The name under which queries reach the folder of tables; it exists only inside the session.
const STORE_URL: &str = "ezscale://tables";

/// DataFusion behind a trait object. Whatever holds an [`Engine`] over an await must be shown to be `Send`, and the compiler goes through
/// every type that it can see for each of those futures: through all of DataFusion's that takes 12 seconds, each time.
trait Session: Send + Sync {
    fn context(&self) -> &SessionContext;
}

impl Session for SessionContext {
    fn context(&self) -> &SessionContext {
        self
    }
}

/// The tables of one data directory behind one query engine.
pub(crate) struct Engine {
    session: Box<dyn Session>,
    /// Of each scan.
    streams: usize,
    url: ObjectStoreUrl,
    /// All of them.
    pub(crate) tables: Vec<Table>,
    pub(crate) flows: Table,
    pub(crate) usage: Table,
    pub(crate) counters: Table,
    pub(crate) collection: Table,
    pub(crate) truth: Table,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("flows", &self.flows.dir())
            .finish_non_exhaustive()
    }
}

impl Engine {
    pub(crate) fn open(storage: &Storage) -> Result<Engine, AnalyticsError> {
        let open = |def: &'static TableDef| Table::open(storage, def);
        let tables = TABLES.into_iter().map(open).collect::<Result<Vec<Table>, _>>()?;

        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let streams = STREAMS_PER_CORE * cores;
        let mut config = SessionConfig::new()
            .with_target_partitions(streams.max(GROUP_PARTITIONS))
            .with_batch_size(BATCH_ROWS)
            .with_information_schema(true)
            // A scan makes its streams itself; more would only hold more memory.
            .with_repartition_file_scans(false)
            .with_round_robin_repartition(false);
        // Where many rows have keys of their own, grouping what each stream has seen before grouping by partition is work twice.
        config
            .options_mut()
            .execution
            .skip_partial_aggregation_probe_ratio_threshold = GROUP_AT_ONCE_RATIO;
        // `TIMESTAMP '2026-01-01 00:00:00'` without a zone means UTC, as everything stored does.
        config.options_mut().execution.time_zone = Some("UTC".to_owned());

        let runtime = RuntimeEnvBuilder::new()
            .with_memory_limit(QUERY_MEMORY_BYTES, 1.0)
            .with_metadata_cache_limit(FOOTER_CACHE_BYTES)
            .build_arc()?;
        let mut rules = PhysicalOptimizer::new().rules;
        rules.insert(0, Arc::new(ranking::RankBySum));
        let state = SessionStateBuilder::new_with_default_features()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_physical_optimizer_rules(rules)
            .build();
        let mut context = SessionContext::new_with_state(state);
        let url = ObjectStoreUrl::parse(STORE_URL)?;
        let store = storage
            .object_store()
            .map_err(|source| AnalyticsError::Query(source.into()))?;
        context.register_object_store(url.as_ref(), store);

        for table in &tables {
            let provider = StoredTable::current(table.clone(), url.clone(), streams);
            context.register_table(table.def().name, Arc::new(provider))?;
        }
        for function in functions::all() {
            context.register_udf(function);
        }
        context.register_expr_planner(Arc::new(functions::AddressLiterals))?;
        context.add_optimizer_rule(Arc::new(keys::GroupAddressesAsNumbers::new()));
        let of = |def: &TableDef| table_of(&tables, def).clone();
        Ok(Engine {
            session: Box::new(context),
            streams,
            url,
            flows: of(&FLOWS),
            usage: of(&USAGE_5M),
            counters: of(&COUNTERS),
            collection: of(&COLLECTION_5M),
            truth: of(&TRUTH_1H),
            tables,
        })
    }

    pub(crate) fn table(&self, def: &TableDef) -> &Table {
        table_of(&self.tables, def)
    }

    /// Plans a read-only query.
    pub(crate) async fn plan(&self, query: &str) -> Result<DataFrame, AnalyticsError> {
        let read_only = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        Ok(self.session.context().sql_with_options(query, read_only).await?)
    }

    pub(crate) async fn sql(
        &self,
        query: &str,
    ) -> Result<(Vec<RecordBatch>, arrow::datatypes::SchemaRef), AnalyticsError> {
        let stream = self.stream(query).await?;
        let schema = stream.schema();
        Ok((stream.try_collect().await?, schema))
    }

    pub(crate) async fn stream(&self, query: &str) -> Result<SendableRecordBatchStream, AnalyticsError> {
        Ok(self.plan(query).await?.execute_stream().await?)
    }

    /// The table as it is now.
    pub(crate) fn read(&self, table: &Table) -> Result<DataFrame, AnalyticsError> {
        self.read_provider(Arc::new(StoredTable::current(
            table.clone(),
            self.url.clone(),
            self.streams,
        )))
    }

    /// The table as `snapshot` says, whatever is committed meanwhile.
    pub(crate) fn read_at(&self, table: &Table, snapshot: Arc<Snapshot>) -> Result<DataFrame, AnalyticsError> {
        self.read_provider(Arc::new(StoredTable::pinned(
            table.clone(),
            self.url.clone(),
            self.streams,
            snapshot,
        )))
    }

    fn read_provider(&self, provider: Arc<dyn TableProvider>) -> Result<DataFrame, AnalyticsError> {
        Ok(self.session.context().read_table(provider)?)
    }
}

fn table_of<'a>(tables: &'a [Table], def: &TableDef) -> &'a Table {
    let found = tables.iter().find(|table| table.def().name == def.name);
    found.unwrap_or_else(|| unreachable!("{} is in TABLES", def.name))
}

/// Tells apart the files of writers who work on the same thing at once, in this process or another: of those only one is
/// ever named, but none may disturb another while it writes.
pub(crate) fn unique_suffix() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("p{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A UTC instant as a literal of the tables' time type.
pub(crate) fn instant(at_ms: i64) -> Expr {
    lit(ScalarValue::TimestampMillisecond(Some(at_ms), Some("UTC".into())))
}

/// Folds all batches of a query: each partition on its own task into its own accumulator, then all accumulators into one.
/// Partitions end in no particular order, so `add` and `merge` must not depend on it.
pub(crate) async fn fold<A, Add, Merge>(frame: DataFrame, add: Add, merge: Merge) -> Result<A, AnalyticsError>
where
    A: Default + Send + 'static,
    Add: Fn(&mut A, &RecordBatch) -> Result<(), AnalyticsError> + Clone + Send + 'static,
    Merge: Fn(&mut A, A),
{
    let mut tasks = JoinSet::new();
    for mut stream in frame.execute_stream_partitioned().await? {
        let add = add.clone();
        tasks.spawn(async move {
            let mut partial = A::default();
            while let Some(batch) = stream.try_next().await? {
                add(&mut partial, &batch)?;
            }
            Ok::<A, AnalyticsError>(partial)
        });
    }
    let mut whole = A::default();
    while let Some(partial) = tasks.join_next().await {
        merge(&mut whole, partial??);
    }
    Ok(whole)
}

/// Adds all batches of a query to one accumulator, one after the other in no particular order.
pub(crate) async fn add_each<A>(
    frame: DataFrame,
    sums: &mut A,
    add: impl Fn(&mut A, &RecordBatch) -> Result<(), AnalyticsError>,
) -> Result<(), AnalyticsError> {
    for mut stream in frame.execute_stream_partitioned().await? {
        while let Some(batch) = stream.try_next().await? {
            add(sums, &batch)?;
        }
    }
    Ok(())
}

/// The column `name` of a batch as the array type that the table's definition gives it.
pub(crate) fn column<'a, T: 'static>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a T, AnalyticsError> {
    batch
        .column_by_name(name)
        .and_then(|array| array.as_any().downcast_ref())
        .ok_or(AnalyticsError::Column { name })
}
