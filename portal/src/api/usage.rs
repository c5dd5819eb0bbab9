//! `/api/v1/services…`: what a customer's services used. Times are UTC milliseconds; `from` and `to` also take RFC 3339.
//! `/api/v1/ops/services/{service}/usage` answers the same of any service, for those who watch the network: in UTC, as their
//! pages are.

use analytics::usage::closed_until_ms;
use analytics::{Gap, SeriesPoint, SeriesQuery};
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use billing::evidence::UsageCharge;
use schemas::ids::ServiceId;
use schemas::money::Money;
use serde::Serialize;

use super::ApiQuery;
use crate::auth::{Customer, Ops};
use crate::customer::{self, OwnService, PeriodToDate, current_period, metered};
use crate::error::{ApiError, Failure};
use crate::format::{self, VolumeUnits};
use crate::range::{Asked, PageZone, Range, step_name};
use crate::state::AppState;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/services", get(services))
        .route("/services/{service}/usage", get(usage))
        .route("/services/{service}/period", get(period))
        .route("/ops/services/{service}/usage", get(usage_for_staff))
}

#[derive(Serialize)]
struct ServiceAnswer {
    id: ServiceId,
    name: String,
    service_type: String,
    site: Option<String>,
    plan: Option<String>,
}

#[derive(Serialize)]
struct ServicesAnswer {
    services: Vec<ServiceAnswer>,
}

async fn services(State(state): State<AppState>, customer: Customer) -> Result<Json<ServicesAnswer>, ApiError> {
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

/// A series of usage with what it takes to draw it honestly.
#[derive(Serialize)]
pub(crate) struct UsageAnswer {
    service: ServiceId,
    name: String,
    time_zone: String,
    step: &'static str,
    from_ms: i64,
    to_ms: i64,
    pub(crate) points: Vec<SeriesPoint>,
    /// Times in which an exporter that meters the service was not heard.
    pub(crate) gaps: Vec<Gap>,
    /// 95th percentile of the current period and the commit, where the service is billed by it.
    percentile_95_bps: Option<u64>,
    commit_bps: Option<u64>,
    /// How the pages tell its volumes; those of this answer are bytes.
    volume_units: VolumeUnits,
    /// When this was answered, and until when windows are closed: what lies between is still filling.
    pub(crate) now_ms: i64,
    pub(crate) closed_until_ms: i64,
}

/// The range that an address asks for, by the service's billing periods.
pub(crate) fn resolve(
    state: &AppState,
    customer: &schemas::inventory::Customer,
    own: &OwnService,
    page: &PageZone,
    asked: &Asked,
) -> Result<Range, Failure> {
    let period = current_period(state, customer, own)?.period;
    let anchor = match &own.contract {
        Some(contract) => contract.last_phase().anchor,
        None => schemas::period::AnchorDay::new(1).map_err(billing::BillingError::from)?,
    };
    let previous = period
        .previous(anchor, &customer.time_zone)
        .map_err(billing::BillingError::from)?;
    let range = asked.resolve(state.now_ms(), &page.zone, &period, &previous)?;
    // What was measured before it was theirs is not theirs to see (S1); the series begins there, whatever its steps.
    range.seen_from(own.visible_from_ms, state.now_ms()).ok_or_else(|| {
        Failure::BadRequest(format!(
            "This service is yours since {}: what was measured before is not yours to see.",
            format::date(own.visible_from_ms, &customer.time_zone)
        ))
    })
}

/// The series of one service over a checked range.
pub(crate) async fn series(
    state: &AppState,
    own: &OwnService,
    page: &PageZone,
    range: &Range,
) -> Result<UsageAnswer, Failure> {
    let metered = metered(state, &own.service);
    let now_ms = state.now_ms();
    let query = SeriesQuery {
        services: std::slice::from_ref(&metered),
        from_ms: range.from_ms,
        to_ms: range.to_ms,
        step: range.step,
        zone: &page.zone,
        now_ms,
    };
    let points = state.flow_store().usage_series(&query).await?;
    let until_ms = range.to_ms.min(closed_until_ms(now_ms));
    let gaps = if until_ms > range.from_ms {
        state
            .flow_store()
            .gaps(&metered.meters, range.from_ms, until_ms)
            .await?
    } else {
        Vec::new()
    };
    Ok(UsageAnswer {
        service: own.service.id,
        name: own.service.name.clone(),
        time_zone: page.name.clone(),
        step: step_name(range.step),
        from_ms: range.from_ms,
        to_ms: range.to_ms,
        points,
        gaps,
        percentile_95_bps: None,
        commit_bps: None,
        volume_units: own.volume_units(),
        now_ms,
        closed_until_ms: closed_until_ms(now_ms),
    })
}

/// The series of what an address asks for, with the lines that the chart draws across it.
async fn answer(
    state: &AppState,
    account: &schemas::inventory::Customer,
    own: &OwnService,
    page: &PageZone,
    asked: &Asked,
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

async fn usage(
    State(state): State<AppState>,
    customer: Customer,
    Path(service): Path<String>,
    ApiQuery(asked): ApiQuery<Asked>,
) -> Result<Json<UsageAnswer>, ApiError> {
    let (account, own) = customer::service_of(&state, customer.id, &service).await?;
    let page = PageZone::of(&account);
    Ok(Json(answer(&state, &account, &own, &page, &asked).await?))
}

async fn usage_for_staff(
    State(state): State<AppState>,
    ops: Ops,
    Path(service): Path<String>,
    ApiQuery(asked): ApiQuery<Asked>,
) -> Result<Json<UsageAnswer>, ApiError> {
    let (account, own) = customer::service_for_staff(&state, &ops, &service).await?;
    Ok(Json(answer(&state, &account, &own, &PageZone::utc(), &asked).await?))
}

#[derive(Serialize)]
struct PeriodAnswer {
    #[serde(flatten)]
    usage: analytics::PeriodUsage,
    mode: analytics::UsageMode,
    charge: Option<UsageCharge>,
    projected_bytes: u64,
    cost_so_far: Option<Money>,
    cost_projected: Option<Money>,
}

async fn period(
    State(state): State<AppState>,
    customer: Customer,
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
