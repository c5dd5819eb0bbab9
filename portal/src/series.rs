//! The usage of one service over a time, as the API answers it and the pages draw it.

use analytics::usage::closed_until_ms;
use analytics::{Gap, SeriesPoint, SeriesQuery};
use schemas::ids::ServiceId;
use serde::Serialize;

use crate::customer::{OwnService, current_period, metered};
use crate::error::Failure;
use crate::format::{self, VolumeUnits};
use crate::range::{PageZone, Range, RangeQuery, step_name};
use crate::state::AppState;

/// A series of usage with what it takes to draw it honestly.
#[derive(Serialize, utoipa::ToSchema)]
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
    pub(crate) percentile_95_bps: Option<u64>,
    pub(crate) commit_bps: Option<u64>,
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
    asked: &RangeQuery,
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
