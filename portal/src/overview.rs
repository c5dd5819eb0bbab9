//! Traffic of the whole network over time, for ops, network engineers and admins.
//!
//! * [`query`]: what may be asked.
//! * [`view`]: volumes become rates and keys become names.
//! * [`tiles`]: the figures of the moment.
//!
//! The page and the JSON show one [`Answer`].

pub(crate) mod query;
pub(crate) mod tiles;
pub(crate) mod view;

use std::sync::Arc;

use analytics::Sites;
use analytics::counter_reconciliation::{CounterReconciliationRow, Verdict};
use schemas::ids::ServiceId;
use serde::Serialize;
use sqlx::Row as _;

use crate::error::Failure;
use crate::exporters::{self, ExporterPresence};
use crate::state::AppState;
use query::OverviewRequest;
use tiles::Tiles;
use view::{Names, OverviewView};

/// Everything the overview shows.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Overview)]
pub(crate) struct Answer {
    #[serde(flatten)]
    pub(crate) view: OverviewView,
    pub(crate) tiles: Tiles,
    pub(crate) exporters: ExporterPresence,
    pub(crate) truth: CounterReconciliationSummary,
}

/// Flows against interface counters in the last whole hour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, utoipa::ToSchema)]
#[schema(as = CounterCheckSummary)]
pub(crate) struct CounterReconciliationSummary {
    /// `None` where nothing was compared.
    pub(crate) hour_start_ms: Option<i64>,
    /// Directions of interfaces.
    pub(crate) compared: usize,
    pub(crate) findings: usize,
    /// Directions whose counter cannot be followed long enough: it comes too seldom.
    pub(crate) too_short: usize,
}

impl CounterReconciliationSummary {
    fn of(rows: &[CounterReconciliationRow]) -> CounterReconciliationSummary {
        let judged = |row: &&CounterReconciliationRow| matches!(row.verdict, Verdict::Agrees | Verdict::Mismatch);
        let mut compared = rows.iter().filter(judged).peekable();
        CounterReconciliationSummary {
            hour_start_ms: compared.peek().map(|row| row.hour_start_ms),
            compared: compared.count(),
            findings: rows.iter().filter(|row| row.is_finding()).count(),
            too_short: rows.iter().filter(|row| row.verdict == Verdict::TooShort).count(),
        }
    }
}

/// Answers a checked query.
pub(crate) async fn answer(state: &AppState, request: &OverviewRequest) -> Result<Answer, Failure> {
    let now_ms = state.now_ms();
    let overview = state
        .flow_store()
        .overview(&analytics::OverviewQuery {
            from_ms: request.from_ms,
            to_ms: request.to_ms,
            by: request.by,
            ranks: request.skip..request.skip + request.limit,
            sites: Arc::new(Sites::of(&state.metering())),
        })
        .await?;
    let names = names(state, overview.series.iter().map(|series| series.key.as_str())).await?;
    Ok(Answer {
        view: view::overview_view(&overview, request, &names, now_ms),
        tiles: tiles::tiles(state.flow_store().as_ref(), request, now_ms).await?,
        exporters: exporters::presence(state, now_ms).await?,
        truth: CounterReconciliationSummary::of(&state.flow_store().latest_counter_reconciliation(now_ms).await?),
    })
}

/// Names of the services among the keys, and of all configured exporters.
async fn names(state: &AppState, keys: impl Iterator<Item = &str>) -> Result<Names, Failure> {
    let mut names = Names {
        metering: state.metering(),
        ..Names::default()
    };
    // At most `MAX_KEYS` keys, each found by its primary key.
    for id in keys.filter_map(|key| key.parse::<ServiceId>().ok()) {
        let row = sqlx::query(
            "SELECT s.name, c.name FROM services s JOIN customers c ON c.id = s.customer_id WHERE s.id = $1",
        )
        .bind(id.0)
        .fetch_optional(state.db().pool())
        .await?;
        if let Some(row) = row {
            names.services.insert(id.number(), (row.try_get(0)?, row.try_get(1)?));
        }
    }
    Ok(names)
}
