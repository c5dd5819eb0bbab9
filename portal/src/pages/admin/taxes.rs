//! Tax rates by place and time.

use activity::act::Note;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::BillingError;
use billing::tax::{self, NewTaxRate};
use jiff::tz::TimeZone;
use schemas::ids::TaxRateId;
use serde_json::json;

use super::{DoneQuery, PATH};
use crate::action::{Action, ActionFailure, Draft, Fields, said};
use crate::auth::{Admin, ClientIp, CsrfForm};
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::path::Path;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

struct Row {
    id: TaxRateId,
    place: String,
    name: String,
    rate: String,
    from: String,
    to: String,
    holds: bool,
    has_ended: bool,
}

#[derive(Template)]
#[template(path = "admin_taxes.html")]
struct TaxesPage {
    shell: Shell,
    draft: Draft,
    rows: Vec<Row>,
    notice: Option<&'static str>,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    admin: Admin,
    PageQuery(shown): PageQuery<DoneQuery>,
) -> Result<Response, PageError> {
    let notice = match shown.done.as_str() {
        "add" => Some("The rate was added. It holds for invoices issued in its time."),
        "end" => Some("The rate has an end."),
        _ => None,
    };
    render(&state, &admin, Draft::default(), notice).await
}

async fn render(
    state: &AppState,
    admin: &Admin,
    draft: Draft,
    notice: Option<&'static str>,
) -> Result<Response, PageError> {
    let now_ms = state.now_ms();
    let day = |at_ms: i64| format::date(at_ms, &TimeZone::UTC);
    let rates = tax::rates(state.db().pool()).await.map_err(BillingError::from)?;
    let rows = rates.into_iter().map(|rate| Row {
        id: rate.id,
        holds: rate.holds_at(now_ms),
        has_ended: rate.valid_to_ms.is_some_and(|to_ms| to_ms <= now_ms),
        place: match rate.region.as_str() {
            "" => rate.country.clone(),
            region => format!("{} · {region}", rate.country),
        },
        name: rate.name,
        rate: rate.rate.to_string(),
        from: day(rate.valid_from_ms),
        to: rate.valid_to_ms.map(day).unwrap_or_default(),
    });
    let body = page(&TaxesPage {
        shell: Shell::new(&admin.0, "Taxes", PATH),
        rows: rows.collect(),
        notice,
        draft: draft.clone(),
    })?;
    Ok(draft.answer(body))
}

pub(crate) async fn add(
    State(state): State<AppState>,
    admin: Admin,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let done: Result<(), ActionFailure> = async {
        let from = fields.day_ms("from", &TimeZone::UTC)?;
        let new = NewTaxRate {
            country: fields.text("country"),
            region: fields.text("region"),
            name: fields.text("name"),
            rate_percent: fields.decimal("rate", "The rate")?,
            valid_from_ms: from.ok_or_else(|| said("Say from which day on the rate holds."))?,
            valid_to_ms: fields.day_ms("to", &TimeZone::UTC)?,
        };
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok(());
        };
        let now_ms = action.now_ms;
        let rate = tax::add_rate(action.connection(), new, now_ms).await?;
        let change = json!({"after": {"country": rate.country, "region": rate.region, "name": rate.name,
            "rate": rate.rate.to_string(), "from": format::rfc3339(rate.valid_from_ms)}});
        action.commit(Note::new("tax.add", rate.id).change(change)).await
    }
    .await;
    match done {
        Ok(()) => Ok(super::done("/admin/taxes", "add")),
        Err(refused) => render(&state, &admin, Draft::refused("add", refused, fields)?, None).await,
    }
}

pub(crate) async fn end(
    State(state): State<AppState>,
    admin: Admin,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let id: TaxRateId = id.parse().map_err(|_| Failure::NotFound)?;
    let done: Result<(), ActionFailure> = async {
        let to = fields.day_ms("to", &TimeZone::UTC)?;
        let end_ms = to.ok_or_else(|| said("Say on which day the rate ends."))?;
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok(());
        };
        let now_ms = action.now_ms;
        tax::end_rate(action.connection(), id, end_ms, now_ms).await?;
        let change = json!({"after": {"ends": format::rfc3339(end_ms)}});
        action.commit(Note::new("tax.end", id).change(change)).await
    }
    .await;
    match done {
        Ok(()) => Ok(super::done("/admin/taxes", "end")),
        Err(refused) => render(&state, &admin, Draft::refused(id.to_string(), refused, fields)?, None).await,
    }
}
