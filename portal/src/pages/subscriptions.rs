//! A customer's subscriptions: what each one is, costs and will cost, and what can be done with it.

pub(crate) mod cancel;
mod choose;
pub(crate) mod terms;
#[cfg(test)]
mod tests;

use activity::act::Note;
use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use billing::BillingError;
use billing::catalog;
use billing::invoice::next_charge_ms;
use billing::subscription::schedule::{self, ChangeStatus, ScheduledAction, ScheduledChange};
use billing::subscription::{Contract, Phase, SubscriptionState, change, contracts_of};
use jiff::tz::TimeZone;
use schemas::ids::{ChangeId, CustomerId, SubscriptionId};
use serde_json::json;
use sqlx::AnyConnection;

use crate::action;
use crate::auth::{ClientIp, CsrfForm, Customer};
use crate::customer::contract_of;
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::offers::{price_text, usage_text};
use crate::pages::quotes::{self, DraftView};
use crate::path::Path;
use crate::query::PageQuery;
use crate::refusal::refusal;
use crate::shell::Shell;
use crate::state::AppState;

/// Address of the list, and the navigation entry of all pages here.
pub(super) const PATH: &str = "/subscriptions";

pub(super) fn href(id: SubscriptionId) -> String {
    format!("{PATH}/{id}")
}

/// A state in words, and how it is coloured.
pub(crate) struct StateView {
    pub(crate) words: String,
    pub(crate) class: &'static str,
}

impl StateView {
    pub(crate) fn new(contract: &Contract) -> StateView {
        let subscription = &contract.subscription;
        let zone = &subscription.time_zone;
        let words = match (
            subscription.state,
            subscription.trial_ends_at_ms,
            subscription.cancel_at_ms,
        ) {
            (SubscriptionState::Trial, Some(ends_ms), _) => format!("trial until {}", format::date(ends_ms, zone)),
            (SubscriptionState::Cancelled, _, Some(ends_ms)) => format!("ends {}", format::date(ends_ms, zone)),
            (state, ..) => state.words().to_owned(),
        };
        let class = match subscription.state {
            SubscriptionState::Active => "ok",
            SubscriptionState::Trial => "info",
            SubscriptionState::PastDue | SubscriptionState::Suspended => "warn",
            SubscriptionState::Cancelled | SubscriptionState::Ended => "",
        };
        StateView { words, class }
    }
}

struct SubscriptionRow {
    id: String,
    service: String,
    plan: String,
    quantity: i64,
    price: String,
    state: StateView,
    next: String,
    is_addon: bool,
}

/// What holds today, or will first.
fn phase_now(contract: &Contract, now_ms: i64) -> Result<&Phase, Failure> {
    Ok(contract.phase_at(now_ms)?)
}

fn row(contract: &Contract, now_ms: i64) -> Result<SubscriptionRow, Failure> {
    let phase = phase_now(contract, now_ms)?;
    let zone = &contract.subscription.time_zone;
    let next = match contract.subscription.state {
        SubscriptionState::Ended => None,
        _ => next_charge_ms(contract, now_ms)?,
    };
    Ok(SubscriptionRow {
        id: contract.subscription.id.to_string(),
        service: contract.service.name.clone(),
        plan: phase.plan.label(),
        quantity: phase.quantity,
        price: price_text(&phase.price),
        state: StateView::new(contract),
        next: next.map_or_else(|| "–".to_owned(), |at_ms| format::date(at_ms, zone)),
        is_addon: contract.subscription.parent.is_some(),
    })
}

#[derive(Template)]
#[template(path = "subscriptions.html")]
struct ListPage {
    shell: Shell,
    running: Vec<SubscriptionRow>,
    ended: Vec<SubscriptionRow>,
    again: bool,
}

#[derive(serde::Deserialize)]
pub(crate) struct SubscriptionPageQuery {
    #[serde(default)]
    done: String,
}

pub(crate) async fn list(
    State(state): State<AppState>,
    customer: Customer,
    PageQuery(shown): PageQuery<SubscriptionPageQuery>,
) -> Result<Response, PageError> {
    let now_ms = state.now_ms();
    let mut connection = state.db().pool().acquire().await?;
    let mut contracts = contracts_of(&mut connection, customer.id).await?;
    drop(connection);
    // Add-ons stand beneath what they are beside.
    contracts.sort_by_key(|contract| {
        let subscription = &contract.subscription;
        (subscription.parent.unwrap_or(subscription.id), subscription.id)
    });
    let (mut running, mut ended) = (Vec::new(), Vec::new());
    for contract in &contracts {
        let rows = if contract.subscription.state == SubscriptionState::Ended {
            &mut ended
        } else {
            &mut running
        };
        rows.push(row(contract, now_ms)?);
    }
    page(&ListPage {
        shell: Shell::new(&customer.who, "Subscriptions", PATH),
        running,
        ended,
        again: shown.done == "again",
    })
}

struct PhaseRow {
    dates: String,
    plan: String,
    price: String,
    quantity: i64,
    is_current: bool,
}

struct ScheduledRow {
    id: String,
    at: String,
    what: String,
    status: &'static str,
    class: &'static str,
    reason: String,
    is_pending: bool,
}

struct EventRow {
    at: String,
    to: String,
    reason: String,
}

#[derive(Template)]
#[template(path = "subscription.html")]
struct SubscriptionPage {
    shell: Shell,
    id: String,
    service_id: String,
    plan: String,
    quantity: i64,
    price: String,
    usage: String,
    specs: Vec<catalog::Spec>,
    coupon: Option<String>,
    state: StateView,
    held_for: Vec<&'static str>,
    /// The first day that is not charged while the service is suspended for an unpaid invoice.
    not_charged_from: Option<String>,
    next: Option<DraftView>,
    addons: Vec<SubscriptionRow>,
    parent: Option<String>,
    scheduled: Vec<ScheduledRow>,
    phases: Vec<PhaseRow>,
    events: Vec<EventRow>,
    is_free: bool,
    can_change: bool,
    can_add: bool,
    can_cancel: bool,
    can_resume: bool,
    notice: Option<&'static str>,
    problem: Option<String>,
    time_zone: String,
}

fn notice(done: &str) -> Option<&'static str> {
    match done {
        "changed" => Some("The subscription was changed."),
        "scheduled" => Some("The change is scheduled. You can cancel it until it happens."),
        "added" => Some("The add-on was added."),
        "cancelled" => Some("The subscription is cancelled."),
        "resumed" => Some("Subscription resumed."),
        "taken-back" => Some("Scheduled change cancelled."),
        "ordered" => Some("Your order is in: the service is being set up."),
        "again" => Some("That was done already: nothing was done twice."),
        _ => None,
    }
}

/// What a scheduled change does, in words.
async fn words_of(connection: &mut AnyConnection, change: &ScheduledChange) -> Result<String, Failure> {
    let (what, terms) = match change.planned {
        ScheduledAction::Cancel => return Ok("Cancel".to_owned()),
        ScheduledAction::Change(terms) => ("Change to", terms),
        ScheduledAction::Addon(terms) => ("Add", terms),
    };
    let price = catalog::price(&mut *connection, terms.price).await?;
    let plan = catalog::plan(&mut *connection, price.plan).await?;
    let times = match terms.quantity {
        1 => String::new(),
        quantity => format!("{quantity} × "),
    };
    Ok(format!("{what} {times}{}, {}", plan.name, price_text(&price)))
}

async fn scheduled_rows(
    connection: &mut AnyConnection,
    customer: CustomerId,
    contract: &Contract,
) -> Result<Vec<ScheduledRow>, Failure> {
    let zone = &contract.subscription.time_zone;
    let mut rows = Vec::new();
    for change in schedule::scheduled_of(&mut *connection, customer).await? {
        if change.subscription != contract.subscription.id {
            continue;
        }
        let (status, class) = match change.status {
            ChangeStatus::Pending => ("pending", "info"),
            ChangeStatus::Executed => ("done", "ok"),
            ChangeStatus::Cancelled => ("cancelled", ""),
            ChangeStatus::Failed => ("failed", "warn"),
        };
        rows.push(ScheduledRow {
            id: change.id.to_string(),
            at: format::minute(change.at_ms, zone),
            what: words_of(connection, &change).await?,
            status,
            class,
            reason: change.reason,
            is_pending: change.status == ChangeStatus::Pending,
        });
    }
    Ok(rows)
}

fn phase_rows(contract: &Contract, now_ms: i64) -> Result<Vec<PhaseRow>, Failure> {
    let current = phase_now(contract, now_ms)?.id;
    let word = |date: jiff::civil::Date| date.strftime("%-d %b %Y").to_string();
    let row = |phase: &Phase| PhaseRow {
        dates: match phase.to {
            // A phase that ended on the day it began never was.
            Some(to) if to <= phase.from => format!("{}, replaced the same day", word(phase.from)),
            Some(to) => format!("{} – {}", word(phase.from), word(to.yesterday().unwrap_or(to))),
            None => format!("from {}", word(phase.from)),
        },
        plan: phase.plan.label(),
        price: price_text(&phase.price),
        quantity: phase.quantity,
        is_current: phase.id == current,
    };
    Ok(contract.phases.iter().rev().map(row).collect())
}

async fn event_rows(
    connection: &mut AnyConnection,
    id: SubscriptionId,
    zone: &TimeZone,
) -> Result<Vec<EventRow>, Failure> {
    use sqlx::Row as _;
    /// Changes of state that are shown.
    const MAX_EVENTS: i64 = 50;
    let rows = sqlx::query(
        "SELECT at_ms, to_status, reason FROM subscription_events WHERE subscription_id = $1 ORDER BY id DESC LIMIT $2",
    )
    .bind(id.0)
    .bind(MAX_EVENTS)
    .fetch_all(connection)
    .await?;
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        let to: SubscriptionState = row.try_get::<String, _>(1)?.parse()?;
        events.push(EventRow {
            at: format::minute(row.try_get(0)?, zone),
            to: to.words().to_owned(),
            reason: row.try_get(2)?,
        });
    }
    Ok(events)
}

async fn subscription_page(
    state: &AppState,
    customer: &Customer,
    id: &str,
    notice: Option<&'static str>,
    problem: Option<String>,
) -> Result<Response, PageError> {
    let now_ms = state.now_ms();
    let mut connection = state.db().pool().acquire().await?;
    let contract = contract_of(&mut connection, customer.id, id).await?;
    let subscription = &contract.subscription;
    let zone = &subscription.time_zone;
    let held = billing::subscription::holds(&mut connection, subscription.id).await?;
    let paused_from = billing::subscription::paused_from(&mut connection, subscription).await?;
    let scheduled = scheduled_rows(&mut connection, customer.id, &contract).await?;
    let events = event_rows(&mut connection, subscription.id, zone).await?;
    let mut addons = Vec::new();
    let mut together = vec![subscription.id];
    for other in contracts_of(&mut connection, customer.id).await? {
        if other.subscription.parent == Some(subscription.id) && other.subscription.state != SubscriptionState::Ended {
            together.push(other.subscription.id);
            addons.push(row(&other, now_ms)?);
        }
    }
    drop(connection);
    let is_over = subscription.state == SubscriptionState::Ended;
    let next = if is_over {
        None
    } else {
        quotes::next_charge(state, &contract).await?
    };
    let phase = phase_now(&contract, now_ms)?;
    let is_cancelled = subscription.cancel_at_ms.is_some();
    let is_free = phase.plan.is_free;
    page(&SubscriptionPage {
        shell: Shell::new(&customer.who, contract.service.name.clone(), PATH),
        id: subscription.id.to_string(),
        service_id: contract.service.id.to_string(),
        plan: phase.plan.label(),
        quantity: phase.quantity,
        price: price_text(&phase.price),
        usage: usage_text(&phase.plan, &phase.price),
        specs: phase.plan.specs(),
        coupon: contract.coupon.as_ref().map(|coupon| coupon.coupon.code.clone()),
        state: StateView::new(&contract),
        held_for: held.into_iter().map(hold_words).collect(),
        not_charged_from: paused_from.map(|day| day.strftime("%-d %b %Y").to_string()),
        next: next.map(|draft| DraftView::of(&draft, &together, zone)).transpose()?,
        addons,
        parent: subscription.parent.map(|parent| parent.to_string()),
        scheduled,
        phases: phase_rows(&contract, now_ms)?,
        events,
        is_free,
        can_change: !is_over && !is_cancelled && !is_free,
        can_add: !is_over && !is_cancelled && subscription.parent.is_none(),
        can_cancel: !is_over,
        can_resume: !is_over && is_cancelled,
        notice,
        problem,
        time_zone: subscription.time_zone_name().to_owned(),
    })
}

fn hold_words(cause: billing::subscription::state::HoldCause) -> &'static str {
    use billing::subscription::state::HoldCause;
    match cause {
        HoldCause::Unpaid => "an invoice is overdue: it resumes once the invoice is paid",
        HoldCause::Budget => "your budget is reached: raise it, or pay to unlock",
        HoldCause::Abuse => "of an abuse complaint: please contact us",
        HoldCause::Admin => "our staff suspended it: please contact us",
    }
}

pub(crate) async fn one(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    PageQuery(shown): PageQuery<SubscriptionPageQuery>,
) -> Result<Response, PageError> {
    subscription_page(&state, &customer, &id, notice(&shown.done), None).await
}

/// The page again, with what was refused.
async fn refused(state: &AppState, customer: &Customer, id: &str, problem: String) -> Result<Response, PageError> {
    let body = subscription_page(state, customer, id, None, Some(problem)).await?;
    Ok((StatusCode::UNPROCESSABLE_ENTITY, body).into_response())
}

fn done(id: SubscriptionId, what: &str) -> Response {
    Redirect::to(&format!("{}?done={what}", href(id))).into_response()
}

#[derive(serde::Deserialize)]
pub(crate) struct EmptyForm {}

pub(crate) async fn resume(
    State(state): State<AppState>,
    customer: Customer,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, EmptyForm {}): CsrfForm<EmptyForm>,
) -> Result<Response, PageError> {
    let mut act = action::begin(&state, &who, ip).await?;
    let now_ms = act.now_ms();
    let found = contract_of(act.connection(), customer.id, &id).await?;
    let subscription = found.subscription.id;
    let resumed = change::resume(act.connection(), subscription, &who.user.email, now_ms).await;
    match resumed {
        Ok(()) => {
            let change =
                json!({"before": {"cancel_at_ms": found.subscription.cancel_at_ms}, "after": {"cancel_at_ms": null}});
            act.commit(Note::new("subscription.resume", subscription).change(change))
                .await?;
        }
        Err(error) => {
            drop(act);
            return refused(&state, &customer, &id, refusal(error)?).await;
        }
    }
    Ok(done(found.subscription.id, "resumed"))
}

pub(crate) async fn withdraw_change(
    State(state): State<AppState>,
    customer: Customer,
    Path((id, change)): Path<(String, String)>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, EmptyForm {}): CsrfForm<EmptyForm>,
) -> Result<Response, PageError> {
    let change: ChangeId = change.parse().map_err(|_| Failure::NotFound)?;
    let mut act = action::begin(&state, &who, ip).await?;
    let found = contract_of(act.connection(), customer.id, &id).await?;
    let planned = match schedule::scheduled(act.connection(), change).await {
        Err(BillingError::NoChange(_)) => return Err(Failure::NotFound.into()),
        planned => planned?,
    };
    if planned.subscription != found.subscription.id {
        return Err(Failure::NotFound.into());
    }
    let reason = format!("cancelled by {}", who.user.email);
    let now_ms = act.now_ms();
    match schedule::cancel(act.connection(), change, &reason, now_ms).await {
        Ok(()) => {
            let entry = json!({"before": {"change": change, "at_ms": planned.at_ms}, "after": {"status": "cancelled"}});
            act.commit(Note::new("subscription.unschedule", found.subscription.id).change(entry))
                .await?;
        }
        Err(error) => {
            drop(act);
            return refused(&state, &customer, &id, refusal(error)?).await;
        }
    }
    Ok(done(found.subscription.id, "taken-back"))
}
