//! What a customer wants to spend in a month at most: how much it is by now and will be, what was said of it, and going on
//! all the same by paying (F-24).

#[cfg(test)]
mod tests;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use billing::budget::{self, Alert, Budget, BudgetError, NewBudget, Status, Thresholds};
use billing::invoice::{self, InvoiceFilter, InvoiceKind};
use billing::top_up;
use jiff::tz::TimeZone;
use schemas::ids::{CustomerId, ServiceId};
use schemas::money::Money;
use schemas::period::AnchorDay;

use crate::action::{self, ActionFailure, Draft, Fields, said};
use crate::auth::{ClientIp, CsrfForm, Customer};
use crate::customer::{metered_usage, services_of, top_ups};
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::once::form_token;
use crate::pages::credit::{bought, currency_of};
use crate::pages::paying::{self, MethodChoice, PendingPayment};
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

#[derive(Default, serde::Deserialize)]
pub(crate) struct BudgetQuery {
    #[serde(default)]
    done: String,
    /// The payment that the customer comes back from confirming, as its gateway adds it to the address.
    #[serde(default)]
    payment_intent: String,
}

const PATH: &str = "/budget";
/// Alerts on the page.
const MAX_ALERTS: i64 = 25;
/// The bar's width, in the units of its drawing.
const BAR_WIDTH: i64 = 1_000;

/// What was spent, what will be, and the budget, drawn to one scale.
struct Bar {
    spent: i64,
    forecast: i64,
    budget: i64,
    ticks: Vec<i64>,
    is_over: bool,
    label: String,
}

impl Bar {
    fn new(status: &Status) -> Bar {
        let Status {
            budget,
            spent,
            forecast,
            ..
        } = status;
        let whole = budget.amount.minor.max(spent.minor).max(forecast.minor).max(1);
        let at = |minor: i64| {
            let scaled = i128::from(minor.max(0)) * i128::from(BAR_WIDTH) / i128::from(whole);
            i64::try_from(scaled).unwrap_or(BAR_WIDTH)
        };
        let percent_at = |percent: &i64| {
            let minor = i128::from(budget.amount.minor) * i128::from(*percent) / 100;
            i64::try_from(minor).ok().filter(|minor| *minor <= whole).map(at)
        };
        Bar {
            spent: at(spent.minor),
            forecast: at(forecast.minor),
            budget: at(budget.amount.minor),
            ticks: budget.thresholds.percentages().iter().filter_map(percent_at).collect(),
            is_over: status.is_exceeded(),
            label: format!(
                "{} % of the budget spent, {} % forecast",
                percent(*spent, budget.amount),
                percent(*forecast, budget.amount)
            ),
        }
    }
}

/// Whole percent of a budget, rounded down: 100 % is not said before it is there.
fn percent(part: Money, budget: Money) -> i64 {
    let scaled = i128::from(part.minor) * 100 / i128::from(budget.minor.max(1));
    i64::try_from(scaled).unwrap_or(i64::MAX)
}

/// Where a budget stands.
struct StatusView {
    spent: Money,
    budget: Money,
    spent_percent: i64,
    forecast: Money,
    is_over: bool,
    will_be_over: bool,
    left: Money,
    cycle: String,
    resets: String,
    bar: Bar,
    /// Services are suspended now.
    holds: bool,
    suspends: bool,
    is_unlocked: bool,
    /// What has to be paid ahead to go on.
    unlock: Money,
}

struct ServiceRow {
    id: String,
    name: String,
    is_excluded: bool,
}

struct AlertRow {
    at: String,
    what: String,
    spent: Money,
}

/// What the form holds.
struct Terms {
    amount: String,
    thresholds: String,
    suspends: bool,
    reset_day: String,
}

struct DayChoice {
    value: String,
    label: String,
    selected: bool,
}

#[derive(Template)]
#[template(path = "budget.html")]
struct BudgetPage {
    shell: Shell,
    time_zone: String,
    currency: String,
    status: Option<StatusView>,
    terms: Terms,
    days: Vec<DayChoice>,
    services: Vec<ServiceRow>,
    alerts: Vec<AlertRow>,
    /// Invoices that are open: paying all of them unlocks too.
    open_invoices: usize,
    methods: Vec<MethodChoice>,
    under_way: Option<PendingPayment>,
    draft: Draft,
    form_token: String,
    notice: Option<&'static str>,
    problem: Option<&'static str>,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    customer: Customer,
    PageQuery(shown): PageQuery<BudgetQuery>,
) -> Result<Response, PageError> {
    if let Some(payment) = paying::returned(&state, customer.id, None, &shown.payment_intent).await? {
        let page = format!("{PATH}?done={}", paying::outcome_name(&payment));
        return Ok(Redirect::to(&page).into_response());
    }
    render(&state, &customer, &shown.done, Draft::default()).await
}

fn status_view(status: &Status, zone: &TimeZone) -> StatusView {
    let over = Money::new(
        status.budget.amount.minor.saturating_sub(status.spent.minor).max(0),
        status.spent.currency,
    );
    let limits = top_up::limits(status.spent.currency);
    // Bought as any credit is, so not less than can be bought, and not more at once.
    let unlock = status
        .unlock_amount()
        .minor
        .clamp(limits.amount_min.minor, limits.amount_max.minor);
    StatusView {
        spent: status.spent,
        budget: status.budget.amount,
        spent_percent: percent(status.spent, status.budget.amount),
        forecast: status.forecast,
        is_over: status.is_exceeded(),
        will_be_over: status.forecast.minor > status.budget.amount.minor,
        left: over,
        cycle: format::dates(status.cycle.start_ms, status.cycle.end_ms - 1, zone),
        resets: format::date(status.cycle.end_ms, zone),
        bar: Bar::new(status),
        holds: status.holds(),
        suspends: status.budget.suspends,
        is_unlocked: status.is_unlocked,
        unlock: Money::new(unlock, status.spent.currency),
    }
}

fn alert_row(alert: &Alert, zone: &TimeZone) -> AlertRow {
    let what = match (alert.is_forecast, alert.threshold_percent) {
        (true, percent) => format!("Forecast above {percent} %"),
        (false, 100) => "The budget is spent".to_owned(),
        (false, percent) => format!("{percent} % spent"),
    };
    AlertRow {
        at: format::minute(alert.at_ms, zone),
        what,
        spent: alert.spent,
    }
}

fn terms(budget: Option<&Budget>, draft: &Draft) -> Terms {
    let text = |percentages: &[i64]| {
        let percentages: Vec<String> = percentages.iter().map(i64::to_string).collect();
        percentages.join(", ")
    };
    let amount = budget.map_or_else(String::new, |budget| budget.amount.to_major().to_string());
    let thresholds = match budget {
        Some(budget) => text(budget.thresholds.percentages()),
        None => text(Thresholds::default().percentages()),
    };
    let day = budget.map_or_else(String::new, |budget| budget.reset_day.get().to_string());
    let suspends = budget.is_some_and(|budget| budget.suspends);
    Terms {
        amount: draft.value("set", "amount", &amount).to_owned(),
        thresholds: draft.value("set", "thresholds", &thresholds).to_owned(),
        suspends: draft.is_ticked("set", "suspends", suspends),
        reset_day: draft.value("set", "reset_day", &day).to_owned(),
    }
}

fn days(chosen: &str, is_set: bool) -> Vec<DayChoice> {
    let mut days = Vec::with_capacity(32);
    if !is_set {
        days.push(DayChoice {
            value: String::new(),
            label: "with my billing period".to_owned(),
            selected: chosen.is_empty(),
        });
    }
    for day in 1..=31 {
        let value = day.to_string();
        days.push(DayChoice {
            selected: chosen == value,
            label: match day {
                31 => "on the last day of the month".to_owned(),
                _ => format!("on day {day} of the month"),
            },
            value,
        });
    }
    days
}

/// How many invoices are open.
async fn open_invoices(state: &AppState, customer: CustomerId) -> Result<usize, Failure> {
    let filter = InvoiceFilter {
        customer: Some(customer),
        kind: Some(InvoiceKind::Invoice),
        ..InvoiceFilter::default()
    };
    let invoices = invoice::list_all(state.db().pool(), filter).await?;
    Ok(invoices.iter().filter(|invoice| invoice.status.is_open()).count())
}

async fn render(state: &AppState, customer: &Customer, done: &str, draft: Draft) -> Result<Response, PageError> {
    let status = budget::status(state.db(), &metered_usage(state), customer.id, state.now_ms()).await?;
    let (owner, services) = services_of(state, customer.id).await?;
    let zone = &owner.time_zone;
    let excluded = budget::exclusions(state.db().pool(), customer.id).await?;
    let alerts = budget::alerts(state.db().pool(), customer.id, MAX_ALERTS).await?;
    let attempts = top_ups(state, customer.id).await?;
    let terms = terms(status.as_ref().map(|status| &status.budget), &draft);
    let is_over = status.as_ref().is_some_and(Status::is_exceeded);
    let (notice, problem) = match done {
        "set" => (Some("The budget is set."), None),
        "cleared" => (Some("Budget removed."), None),
        "resumed" => (Some("Budget removed. Suspended services were resumed."), None),
        "services" => (Some("The budget counts as you chose."), None),
        "unlocked" => (
            Some("Thank you. Your services keep running until the budget resets."),
            None,
        ),
        "paid" if is_over => (
            Some(
                "The payment is your credit now. It was less than what is spent over the budget, so that stays as it is.",
            ),
            None,
        ),
        done => paying::outcome_words(done),
    };
    let body = page(&BudgetPage {
        shell: Shell::new(&customer.who, "Budget", PATH),
        time_zone: owner.time_zone_name().to_owned(),
        currency: owner.currency.to_string(),
        days: days(&terms.reset_day, status.is_some()),
        terms,
        open_invoices: match is_over {
            true => open_invoices(state, customer.id).await?,
            false => 0,
        },
        status: status.as_ref().map(|status| status_view(status, zone)),
        services: services
            .into_iter()
            .map(|own| ServiceRow {
                id: own.service.id.to_string(),
                is_excluded: excluded.contains(&own.service.id),
                name: own.service.name,
            })
            .collect(),
        alerts: alerts.iter().map(|alert| alert_row(alert, zone)).collect(),
        methods: paying::choices(state, customer.id).await?,
        under_way: attempts.first().and_then(|last| PendingPayment::of(last, zone)),
        draft: draft.clone(),
        form_token: form_token(),
        notice,
        problem,
    })?;
    Ok(draft.answer(body))
}

async fn answer(
    state: &AppState,
    customer: &Customer,
    form: &'static str,
    fields: Fields,
    done: Result<&'static str, ActionFailure>,
) -> Result<Response, PageError> {
    match done {
        Ok(done) => Ok(Redirect::to(&format!("{PATH}?done={done}")).into_response()),
        Err(refused) => render(state, customer, "", Draft::refused(form, refused, fields)?).await,
    }
}

/// Does what follows from a change at once. What fails here is done by the next look at budgets.
async fn follow(state: &AppState, customer: CustomerId) {
    if let Err(error) = budget::check(state.db(), &metered_usage(state), customer, state.now_ms()).await {
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(error, %customer, "a budget was not checked after a change");
    }
}

/// Percentages as people write them: `50, 75, 90 %`.
fn thresholds(text: &str) -> Result<Thresholds, ActionFailure> {
    let refuse = || {
        said(format!(
            "Alerts are 1 to {} different percentages between 1 and {}, such as 50, 75, 90, not {text:?}.",
            budget::MAX_THRESHOLDS,
            budget::MAX_THRESHOLD_PERCENT
        ))
    };
    let words = text.split([',', ';', ' ', '%']).filter(|word| !word.is_empty());
    let percentages: Result<Vec<i64>, _> = words.map(str::parse).collect();
    Thresholds::new(&percentages.map_err(|_| refuse())?).map_err(|_| refuse())
}

pub(crate) async fn set(
    State(state): State<AppState>,
    customer: Customer,
    ClientIp(ip): ClientIp,
    CsrfForm(who, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let done = async {
        let currency = currency_of(&state, customer.id).await?;
        let day = fields.optional_integer("reset_day", "The day")?;
        let new = NewBudget {
            amount: fields.money("amount", currency)?,
            thresholds: thresholds(fields.text("thresholds"))?,
            suspends: fields.is_ticked("suspends"),
            reset_day: day.map(AnchorDay::new).transpose()?,
        };
        let mut act = action::begin(&state, &who, ip).await?;
        let now_ms = act.now_ms();
        let note = budget::set(act.connection(), customer.id, &new, now_ms).await?;
        act.commit(note).await?;
        follow(&state, customer.id).await;
        Ok("set")
    }
    .await;
    answer(&state, &customer, "set", fields, done).await
}

pub(crate) async fn clear(
    State(state): State<AppState>,
    customer: Customer,
    ClientIp(ip): ClientIp,
    CsrfForm(who, _): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let mut act = action::begin(&state, &who, ip).await?;
    let now_ms = act.now_ms();
    let done = match budget::clear(act.connection(), customer.id, now_ms).await {
        Ok((resumed, note)) => {
            act.commit(note).await?;
            if resumed > 0 { "resumed" } else { "cleared" }
        }
        // There is none, as it was asked for.
        Err(BudgetError::NoBudget(_)) => "cleared",
        Err(error) => return Err(Failure::from(error).into()),
    };
    Ok(Redirect::to(&format!("/budget?done={done}")).into_response())
}

/// Leaves a service out, or takes it in again.
pub(crate) async fn exclude(
    State(state): State<AppState>,
    customer: Customer,
    ClientIp(ip): ClientIp,
    CsrfForm(who, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let service: ServiceId = fields.text("service").parse().map_err(|_| Failure::NotFound)?;
    // S1: what is not the customer's is not found, whether it is there or not.
    let (_, services) = services_of(&state, customer.id).await?;
    if !services.iter().any(|own| own.service.id == service) {
        return Err(Failure::NotFound.into());
    }
    let is_excluded = fields.text("counts") == "no";
    let mut act = action::begin(&state, &who, ip).await?;
    let now_ms = act.now_ms();
    if let Some(note) = budget::exclude(act.connection(), customer.id, service, is_excluded, now_ms).await? {
        act.commit(note).await?;
    } else {
        // It holds the lock for writing, which what follows takes.
        drop(act);
    }
    follow(&state, customer.id).await;
    Ok(Redirect::to("/budget?done=services").into_response())
}

/// The customer goes on by paying: credit of what was spent over the budget. It is theirs, and pays for the next invoice.
pub(crate) async fn unlock(
    State(state): State<AppState>,
    customer: Customer,
    ClientIp(ip): ClientIp,
    CsrfForm(who, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let done = async {
        let amount = fields.money("amount", currency_of(&state, customer.id).await?)?;
        let payment = bought(&state, (&who, ip), customer.id, &fields, amount, PATH).await?;
        let budget = budget::budget(state.db().pool(), customer.id).await?;
        let until_ms = budget.and_then(|budget| budget.unlocked_until_ms);
        Ok(match until_ms {
            Some(until_ms) if until_ms > state.now_ms() => "unlocked",
            _ => paying::outcome_name(&payment),
        })
    }
    .await;
    answer(&state, &customer, "unlock", fields, done).await
}
