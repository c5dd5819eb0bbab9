//! Rankings by a sum: `GROUP BY … ORDER BY sum(…) DESC LIMIT …`, the question that is asked most.
//!
//! Of millions of sums a ranking wants a few. DataFusion computes them all: it spends more on a hash table of every address than on reading the
//! flows. [`RankBySum`] looks for rankings in a query's plan and has the keys that can be among the first found and
//! summed alone ([`mod@leaders`] says how, docs/decisions/007-queries.md what it gains). The sort stays where it is, but is handed only the keys with
//! at least the sum of the last place, ties included: answers are the same, sum by sum.
//!
//! It is done for rankings of up to [`PLACES_MAX`] places, first by one sum, the largest first:
//!
//! * keys of numbers, instants and addresses, never null, of up to 320 bits together;
//! * up to three values, each `sum` of unsigned 64-bit numbers or `count` of rows, without `DISTINCT`, `FILTER` or order.
//!
//! * rows of tables, filtered and computed with, but not joined: what a plan with joins remembers of its first run is not ours to know.
//!
//! Everything else stays DataFusion's, and so does a ranking whose sums turn out to lie too close together.

mod exec;
mod key;
mod leaders;

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::expressions::Column;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, InputOrderMode};

use exec::{Ranked, RankingExec, Summed};
use key::KeyLayout;
use leaders::{RankingRequest, leaders};

/// Longer rankings are lists: of those, everything is summed.
const PLACES_MAX: usize = 1000;

/// Has rankings by a sum computed by a step of their own. To be applied before other rules, while both halves of an aggregation still lie on
/// one another, and nobody relies on how rows are distributed.
#[derive(Debug)]
pub(super) struct RankBySum;

impl PhysicalOptimizerRule for RankBySum {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let rewritten = plan.transform_up(|plan| match ranking_of(&plan)? {
            Some(ranking) => Ok(Transformed::yes(ranking)),
            None => Ok(Transformed::no(plan)),
        })?;
        Ok(rewritten.data)
    }

    fn name(&self) -> &'static str {
        "rank_by_sum"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The same sort over fewer rows, or `None` when this is no such ranking.
fn ranking_of(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(sort) = plan.downcast_ref::<SortExec>() else {
        return Ok(None);
    };
    let first = sort.expr().first();
    let places = sort.fetch().filter(|places| (1..=PLACES_MAX).contains(places));
    let (Some(places), true) = (places, first.options.descending) else {
        return Ok(None);
    };
    let Some(column) = first.expr.downcast_ref::<Column>() else {
        return Ok(None);
    };
    match restrict(sort.input(), column.index(), places)? {
        Some(input) => Ok(Some(replace_children_if_necessary(plan.clone(), vec![input])?)),
        None => Ok(None),
    }
}

/// The plan below a sort by its column `column`, without the rows that no place can have. Only projections may lie between.
fn restrict(plan: &Arc<dyn ExecutionPlan>, column: usize, places: usize) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let Some(below) = projection.expr()[column].expr.downcast_ref::<Column>() else {
            return Ok(None);
        };
        let Some(input) = restrict(projection.input(), below.index(), places)? else {
            return Ok(None);
        };
        return Ok(Some(replace_children_if_necessary(plan.clone(), vec![input])?));
    }
    let Some(last) = plan.downcast_ref::<AggregateExec>() else {
        return Ok(None);
    };
    let Some(ranked_by) = column.checked_sub(last.group_expr().expr().len()) else {
        return Ok(None);
    };
    let Some(ranked) = ranked(last, RankingRequest { places, ranked_by })? else {
        return Ok(None);
    };
    Ok(Some(Arc::new(RankingExec::new(ranked, plan.clone()))))
}

/// What is ranked by the second half of an aggregation, or `None` when it is not provided for.
fn ranked(last: &AggregateExec, race: RankingRequest) -> Result<Option<Ranked>> {
    let Some(first) = last.input().downcast_ref::<AggregateExec>() else {
        return Ok(None);
    };
    let halves = *last.mode() == AggregateMode::FinalPartitioned && *first.mode() == AggregateMode::Partial;
    let unordered = *first.input_order_mode() == InputOrderMode::Linear;
    let unfiltered = first.filter_expr().iter().all(Option::is_none);
    if !halves || !unordered || !unfiltered || !first.group_expr().is_single() || !can_run_again(first.input()) {
        return Ok(None);
    }
    let schema = first.input_schema();
    let mut keys = Vec::new();
    let mut kinds = Vec::new();
    for (expr, _) in first.group_expr().expr() {
        if expr.nullable(&schema)? {
            return Ok(None);
        }
        kinds.push(expr.data_type(&schema)?);
        keys.push(expr.clone());
    }
    let mut values = Vec::new();
    for function in first.aggr_expr() {
        let Some(summed) = summed_by(function, &schema)? else {
            return Ok(None);
        };
        values.push(summed);
    }
    let Some(layout) = KeyLayout::of(kinds) else {
        return Ok(None);
    };
    if leaders(layout.words, values.len(), race).is_none() {
        return Ok(None);
    }
    Ok(Some(Ranked {
        rows: first.input().clone(),
        keys,
        layout,
        values,
        race,
    }))
}

/// Whether the plan hands out the same rows in a second run.
fn can_run_again(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let simple = plan.is::<DataSourceExec>()
        || plan.is::<EmptyExec>()
        || plan.is::<FilterExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<UnionExec>();
    simple && plan.children().into_iter().all(can_run_again)
}

/// What the function adds up, or `None` when it is another kind of function.
fn summed_by(function: &AggregateFunctionExpr, schema: &Schema) -> Result<Option<Summed>> {
    let arguments = function.expressions();
    let [argument] = arguments.as_slice() else {
        return Ok(None);
    };
    if function.is_distinct() || !function.order_bys().is_empty() || argument.nullable(schema)? {
        return Ok(None);
    }
    Ok(match function.fun().name() {
        "sum" if argument.data_type(schema)? == DataType::UInt64 => Some(Summed::Values(argument.clone())),
        "count" => Some(Summed::Rows),
        _ => None,
    })
}
