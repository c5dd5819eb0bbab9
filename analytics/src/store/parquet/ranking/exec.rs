//! A ranking as a step of a query's plan.
//!
//! It has two inputs: the rows, which are read once more where the keys that are left have to be summed, and the whole aggregation
//! as it was planned without this step, which is run only where that would not do either.

use std::fmt::{self, Formatter};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::datatypes::UInt64Type;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, apply_expression_roots, reset_plan_states};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning,
    PlanProperties, ReplaceChildrenOptions, execute_stream,
};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::task::JoinSet;

use super::key::KeyLayout;
use super::leaders::{Counter, RankingRequest, RankingState, Sums, leaders};

/// What is added up for each key.
#[derive(Clone, Debug)]
pub(super) enum Summed {
    /// Unsigned 64-bit numbers, never null.
    Values(Arc<dyn PhysicalExpr>),
    /// 1 for each row.
    Rows,
}

/// What is ranked.
#[derive(Clone, Debug)]
pub(super) struct Ranked {
    pub(super) rows: Arc<dyn ExecutionPlan>,
    /// Never null.
    pub(super) keys: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) layout: KeyLayout,
    pub(super) values: Vec<Summed>,
    pub(super) race: RankingRequest,
}

/// The step. Its output has the columns of the aggregation, in one stream and no order: every key that has at least the sum of the
/// last place, and maybe some more.
#[derive(Clone, Debug)]
pub(super) struct RankingExec {
    ranked: Ranked,
    aggregation: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RankingExec {
    /// `aggregation` computes all sums of what is ranked.
    pub(super) fn new(ranked: Ranked, aggregation: Arc<dyn ExecutionPlan>) -> RankingExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(aggregation.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        RankingExec {
            ranked,
            aggregation,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl DisplayAs for RankingExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        let Ranked { keys, values, race, .. } = &self.ranked;
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let values = values.iter().map(|value| match value {
            Summed::Values(expr) => format!("sum({expr})"),
            Summed::Rows => "count(*)".to_owned(),
        });
        let values: Vec<String> = values.collect();
        let (keys, all, by) = (keys.join(", "), values.join(", "), &values[race.ranked_by]);
        write!(
            f,
            "RankingExec: keys=[{keys}], values=[{all}], by={by}, places={}",
            race.places
        )
    }
}

impl ExecutionPlan for RankingExec {
    fn name(&self) -> &'static str {
        "RankingExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; 2]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.ranked.rows, &self.aggregation]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let values = self.ranked.values.iter().filter_map(|value| match value {
            Summed::Values(expr) => Some(expr),
            Summed::Rows => None,
        });
        apply_expression_roots(self.ranked.keys.iter().chain(values), visit)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([rows, aggregation]) = <[_; 2]>::try_from(children) else {
            return internal_err!("RankingExec has two inputs");
        };
        let ranked = Ranked {
            rows,
            ..self.ranked.clone()
        };
        Ok(Arc::new(RankingExec::new(ranked, aggregation)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("RankingExec has one output, not {partition}");
        }
        let counted = |name: &'static str| MetricBuilder::new(&self.metrics).counter(name, 0);
        let passes = [counted("second_passes"), counted("aggregations")];
        let plan = self.clone();
        let batches = futures::stream::once(async move { plan.rank(context, passes).await });
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            self.schema(),
            batches.try_flatten(),
        )))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

impl RankingExec {
    async fn rank(
        self,
        context: Arc<TaskContext>,
        [second_passes, aggregations]: [Count; 2],
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let Ranked {
            layout, values, race, ..
        } = &self.ranked;
        let Some(leaders) = leaders(layout.words, values.len(), *race) else {
            return internal_err!("no ranking of {} words and {} values", layout.words, values.len());
        };
        let (rows, mut standing) = self.count(leaders, &self.ranked.rows, &context).await?;
        if let RankingState::Among(candidates) = standing {
            second_passes.add(1);
            // What has been run remembers what it has handed out.
            let again = reset_plan_states(self.ranked.rows.clone())?;
            let (rows_again, counted) = self.count(candidates, &again, &context).await?;
            if rows_again != rows {
                return internal_err!("{rows} rows to rank became {rows_again} in the second pass");
            }
            standing = counted;
        }
        if let RankingState::Known(sums) = standing {
            let batch = self.batch(sums)?;
            return Ok(futures::stream::once(async { Ok(batch) }).boxed());
        }
        aggregations.add(1);
        // It reads what the passes have read.
        Ok(execute_stream(reset_plan_states(self.aggregation)?, context)?.boxed())
    }

    /// Shows the counter all rows, each stream of them on a task of its own, and answers how many they were. Dropping the future stops
    /// them.
    async fn count(
        &self,
        counter: Box<dyn Counter>,
        rows: &Arc<dyn ExecutionPlan>,
        context: &Arc<TaskContext>,
    ) -> Result<(u64, RankingState)> {
        let streams = rows.output_partitioning().partition_count();
        let threads = std::thread::available_parallelism().map_or(streams, |cores| streams.min(cores.get()));
        let memory = MemoryConsumer::new(self.name()).register(context.memory_pool());
        memory.try_grow(threads * counter.bytes_per_thread())?;
        let counting = Arc::new(Counting {
            ranked: self.ranked.clone(),
            counter,
        });
        let mut tasks = JoinSet::new();
        for partition in 0..streams {
            let mut batches = rows.execute(partition, context.clone())?;
            let counting = counting.clone();
            tasks.spawn(async move {
                let mut rows = 0;
                while let Some(batch) = batches.try_next().await? {
                    counting.add(&batch)?;
                    rows += batch.num_rows() as u64;
                }
                Ok::<u64, DataFusionError>(rows)
            });
        }
        let mut rows = 0;
        while let Some(done) = tasks.join_next().await {
            rows += done.map_err(|error| DataFusionError::External(Box::new(error)))??;
        }
        Ok((rows, counting.counter.standing()))
    }

    fn batch(&self, sums: Sums) -> Result<RecordBatch> {
        let mut columns = self.ranked.layout.arrays(&sums.words);
        for (summed, values) in self.ranked.values.iter().zip(sums.values) {
            columns.push(match summed {
                Summed::Values(_) => Arc::new(UInt64Array::from(values)) as ArrayRef,
                Summed::Rows => Arc::new(Int64Array::from_iter_values(values.into_iter().map(u64::cast_signed))),
            });
        }
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

/// A pass over rows.
struct Counting {
    ranked: Ranked,
    counter: Box<dyn Counter>,
}

impl Counting {
    fn add(&self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        let mut keys = Vec::with_capacity(self.ranked.keys.len());
        for expr in &self.ranked.keys {
            keys.push(expr.evaluate(batch)?.into_array(rows)?);
        }
        let mut arrays = Vec::with_capacity(self.ranked.values.len());
        for summed in &self.ranked.values {
            arrays.push(match summed {
                Summed::Values(expr) => Some(expr.evaluate(batch)?.into_array(rows)?),
                Summed::Rows => None,
            });
        }
        let mut values: Vec<Option<&[u64]>> = Vec::with_capacity(arrays.len());
        for array in &arrays {
            values.push(match array {
                Some(array) if array.null_count() > 0 => return internal_err!("a value that is never null is"),
                Some(array) => Some(array.as_primitive::<UInt64Type>().values()),
                None => None,
            });
        }
        self.counter.add(rows, &self.ranked.layout.values(&keys)?, &values);
        Ok(())
    }
}
