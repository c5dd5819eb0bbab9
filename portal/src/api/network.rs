//! `/api/v1/ops/overview`, `/api/v1/exporters`: traffic of the whole network and who reports it, as the pages of operations show
//! them.

use axum::Json;
use axum::extract::State;

use super::ApiQuery;
use crate::auth::{Network, Ops, Principal};
use crate::error::{ApiError, Failure};
use crate::exporters::{self, Exporters};
use crate::overview::query::OverviewQuery;
use crate::overview::{self, Answer};
use crate::state::AppState;

pub(crate) async fn overview(
    State(state): State<AppState>,
    _: Ops<Principal>,
    ApiQuery(query): ApiQuery<OverviewQuery>,
) -> Result<Json<Answer>, ApiError> {
    let request = query
        .check(state.now_ms())
        .map_err(|error| Failure::BadRequest(error.to_string()))?;
    Ok(Json(overview::answer(&state, &request).await?))
}

pub(crate) async fn exporters(
    State(state): State<AppState>,
    _: Network<Principal>,
) -> Result<Json<Exporters>, ApiError> {
    Ok(Json(exporters::exporters(&state).await?))
}
