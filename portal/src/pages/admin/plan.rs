//! What is done to one plan: a new version of a price, its description and specifications, its stock, its end.

use axum::extract::{Path, State};
use axum::response::Response;
use billing::BillingError;
use billing::approval::{self, Action as Asked, NewApproval};
use billing::catalog::{self, Badge, CYCLES_MONTHS, NewPrice, Plan, PlanEdit};
use billing::price::UsagePrice;
use billing::rating::cycle_words;
use billing::subscription::reprice::touched;
use jiff::tz::TimeZone;
use schemas::ids::PlanId;
use schemas::money::{Currency, Money};

use super::Shown;
use super::plan_page::render;
use super::plans::specs_of;
use crate::action::{Action, Draft, Fields, Refused};
use crate::auth::{Admin, ClientIp, CsrfForm};
use crate::error::{Failure, PageError};
use crate::format;
use crate::query::PageQuery;
use crate::state::AppState;

async fn find(state: &AppState, id: &str) -> Result<Plan, Failure> {
    let id: PlanId = id.parse().map_err(|_| Failure::NotFound)?;
    match catalog::plan(state.db().pool(), id).await {
        Err(BillingError::NoPlan(_)) => Err(Failure::NotFound),
        found => Ok(found?),
    }
}

pub(super) async fn show(
    State(state): State<AppState>,
    admin: Admin,
    Path(id): Path<String>,
    PageQuery(shown): PageQuery<Shown>,
) -> Result<Response, PageError> {
    let plan = find(&state, &id).await?;
    let notice = match shown.done.as_str() {
        "add" => Some("Plan added. Add its prices."),
        "price" => Some("Price added."),
        "reprice" => Some("Price added; existing subscriptions change to it at renewal."),
        "approval" => Some("More than 100 customers pay this price: a second admin decides first."),
        "stock" => Some("Stock set."),
        "edit" => Some("Plan saved."),
        _ => None,
    };
    render(&state, &admin, plan, Draft::default(), notice).await
}

async fn answer(
    state: &AppState,
    admin: &Admin,
    plan: Plan,
    form: &'static str,
    fields: Fields,
    done: Result<&'static str, Refused>,
) -> Result<Response, PageError> {
    match done {
        Ok(what) => Ok(super::done(&format!("/admin/plans/{}", plan.id), what)),
        Err(refused) => render(state, admin, plan, Draft::refused(form, refused, fields)?, None).await,
    }
}

/// The prices that a form asks for: one, or one for every cycle by its discount (F-20).
fn asked_prices(plan: &Plan, fields: &Fields, now_ms: i64) -> Result<Vec<NewPrice>, Refused> {
    let currency: Currency = fields.text("currency").parse()?;
    let base = fields.money("base", currency)?;
    let usage: UsagePrice = match fields.text("usage") {
        "" => UsagePrice::FREE,
        text => text.parse()?,
    };
    let valid_from_ms = fields.day_ms("valid_from", &TimeZone::UTC)?.unwrap_or(now_ms);
    let one = |cycle_months: i64, base: Money| NewPrice {
        plan: plan.id,
        cycle_months,
        base,
        usage: usage.clone(),
        valid_from_ms,
    };
    match fields.text("cycle") {
        "all" => CYCLES_MONTHS
            .into_iter()
            .map(|months| Ok(one(months, plan.derived_base(base, months)?)))
            .collect(),
        _ => Ok(vec![one(fields.integer("cycle", "The cycle in months")?, base)]),
    }
}

/// A new price, or a new version of one. Who pays already keeps their price, or changes to it at renewal.
pub(super) async fn price(
    State(state): State<AppState>,
    admin: Admin,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let plan = find(&state, &id).await?;
    let done = async {
        let asked = asked_prices(&plan, &fields, state.now_ms())?;
        let moves = fields.text("who") == "renewal";
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok("price");
        };
        let now_ms = action.now_ms;
        let mut waits = false;
        for new in asked {
            let (currency, months) = (new.base.currency, new.cycle_months);
            catalog::act::check_price_start(action.connection(), &new, now_ms).await?;
            let touches = touched(action.connection(), plan.id, currency, months).await?;
            if moves {
                let wanted = Asked::PriceChange {
                    plan: plan.id,
                    currency: currency.to_string(),
                    cycle_months: months,
                    base_minor: new.base.minor,
                    usage_price: serde_json::to_value(&new.usage)?,
                    valid_from_ms: new.valid_from_ms,
                    customers: touches.customers,
                };
                if wanted.needs_second_admin() {
                    let summary = format!(
                        "{} costs {} per {} from {} on, for {} customers at their renewal",
                        plan.name,
                        new.base,
                        cycle_words(months),
                        format::date(new.valid_from_ms, &TimeZone::UTC),
                        touches.customers
                    );
                    let request = NewApproval {
                        action: wanted,
                        subject: &plan.id.to_string(),
                        summary: &summary,
                    };
                    let (user, ip) = (action.user, action.ip.clone());
                    let by = approval::Admin { user, ip: &ip };
                    approval::request(action.connection(), request, by, now_ms).await?;
                    waits = true;
                    continue;
                }
            }
            let (connection, by) = action.parts();
            if moves {
                catalog::act::add_price_moving(connection, new, by, now_ms).await?;
            } else {
                catalog::act::add_price(connection, new, by, now_ms).await?;
            }
        }
        action.commit().await?;
        Ok(match (waits, moves) {
            (true, _) => "approval",
            (_, true) => "reprice",
            _ => "price",
        })
    }
    .await;
    answer(&state, &admin, plan, "price", fields, done).await
}

/// What people read of it: description, badge and specifications.
pub(super) async fn edit(
    State(state): State<AppState>,
    admin: Admin,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let plan = find(&state, &id).await?;
    let done = async {
        let edit = PlanEdit {
            description: Some(fields.text("description")),
            badge: Some(fields.text("badge").parse::<Badge>()?),
            specs: Some(specs_of(&fields)?),
        };
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok("edit");
        };
        let (before, after) = catalog::edit_plan(action.connection(), plan.id, &edit).await?;
        action
            .record("plan.edit", plan.id, catalog::edit_change(&before, &after))
            .await?;
        action.commit().await?;
        Ok("edit")
    }
    .await;
    answer(&state, &admin, plan, "edit", fields, done).await
}

/// How many more can be sold.
pub(super) async fn stock(
    State(state): State<AppState>,
    admin: Admin,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let plan = find(&state, &id).await?;
    let done = async {
        let stock = fields.optional_integer("stock", "The stock")?;
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok("stock");
        };
        let now_ms = action.now_ms;
        let (connection, by) = action.parts();
        catalog::act::change_stock(connection, plan.id, stock, by, now_ms).await?;
        action.commit().await?;
        Ok("stock")
    }
    .await;
    answer(&state, &admin, plan, "stock", fields, done).await
}

/// Closes the plan to new subscriptions.
pub(super) async fn archive(
    State(state): State<AppState>,
    admin: Admin,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let plan = find(&state, &id).await?;
    let done: Result<(), Refused> = async {
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok(());
        };
        let now_ms = action.now_ms;
        let (connection, by) = action.parts();
        catalog::act::archive_plan(connection, plan.id, by, now_ms).await?;
        action.commit().await
    }
    .await;
    match done {
        Ok(()) => Ok(super::done("/admin/plans", "archive")),
        Err(refused) => answer(&state, &admin, plan, "archive", fields, Err(refused)).await,
    }
}
