//! `/api/v1/services…`: what a customer's services used. Times are UTC milliseconds; `from` and `to` also take RFC 3339.
//! `/api/v1/ops/services/{service}/usage` answers the same of any service, for those who watch the network: in UTC, as their
//! pages are.

use axum::Json;
use axum::extract::State;
use billing::evidence::UsageCharge;
use schemas::ids::ServiceId;
use schemas::money::Money;
use serde::Serialize;

use super::ApiQuery;
use crate::auth::{Customer, Ops, Principal};
use crate::customer::{self, OwnService, PeriodToDate};
use crate::error::{ApiError, Failure};
use crate::path::Path;
use crate::range::{PageZone, RangeQuery};
use crate::series::{UsageAnswer, resolve, series};
use crate::state::AppState;

#[derive(Serialize, utoipa::ToSchema)]
struct ServiceAnswer {
    id: ServiceId,
    name: String,
    service_type: String,
    site: Option<String>,
    plan: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ServicesAnswer {
    services: Vec<ServiceAnswer>,
}

pub(crate) async fn services(
    State(state): State<AppState>,
    customer: Customer<Principal>,
) -> Result<Json<ServicesAnswer>, ApiError> {
    let (_, own) = customer::services_of(&state, customer.id).await?;
    let services = own.into_iter().map(|own| ServiceAnswer {
        id: own.service.id,
        plan: own.contract.map(|contract| contract.last_phase().plan.label()),
        name: own.service.name,
        service_type: own.service.service_type,
        site: own.service.site,
    });
    Ok(Json(ServicesAnswer {
        services: services.collect(),
    }))
}

/// The series of what an address asks for, with the lines that the chart draws across it.
async fn answer(
    state: &AppState,
    account: &schemas::inventory::Customer,
    own: &OwnService,
    page: &PageZone,
    asked: &RangeQuery,
) -> Result<UsageAnswer, Failure> {
    let range = resolve(state, account, own, page, asked)?;
    let mut answer = series(state, own, page, &range).await?;
    let to_date = customer::period_to_date(state, account, own).await?;
    if to_date.commit_bps().is_some() {
        answer.percentile_95_bps = to_date.usage.percentile_95_bps;
        answer.commit_bps = to_date.commit_bps();
    }
    Ok(answer)
}

pub(crate) async fn usage(
    State(state): State<AppState>,
    customer: Customer<Principal>,
    Path(service): Path<String>,
    ApiQuery(asked): ApiQuery<RangeQuery>,
) -> Result<Json<UsageAnswer>, ApiError> {
    let (account, own) = customer::service_of(&state, customer.id, &service).await?;
    let page = PageZone::of(&account);
    Ok(Json(answer(&state, &account, &own, &page, &asked).await?))
}

pub(crate) async fn usage_for_staff(
    State(state): State<AppState>,
    ops: Ops<Principal>,
    Path(service): Path<String>,
    ApiQuery(asked): ApiQuery<RangeQuery>,
) -> Result<Json<UsageAnswer>, ApiError> {
    let (account, own) = customer::service_for_staff(&state, &ops, &service).await?;
    Ok(Json(answer(&state, &account, &own, &PageZone::utc(), &asked).await?))
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct PeriodAnswer {
    #[serde(flatten)]
    usage: analytics::PeriodUsage,
    mode: analytics::UsageMode,
    charge: Option<UsageCharge>,
    projected_bytes: u64,
    cost_so_far: Option<Money>,
    cost_projected: Option<Money>,
}

pub(crate) async fn period(
    State(state): State<AppState>,
    customer: Customer<Principal>,
    Path(service): Path<String>,
) -> Result<Json<PeriodAnswer>, ApiError> {
    let (account, own) = customer::service_of(&state, customer.id, &service).await?;
    let PeriodToDate {
        mode,
        usage,
        charge,
        projected_bytes,
        cost_so_far,
        cost_projected,
        ..
    } = customer::period_to_date(&state, &account, &own).await?;
    Ok(Json(PeriodAnswer {
        usage,
        mode,
        charge,
        projected_bytes,
        cost_so_far,
        cost_projected,
    }))
}
