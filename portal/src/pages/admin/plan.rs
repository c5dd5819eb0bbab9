//! What is done to one plan: a new version of a price, its description and specifications, its stock, its end.

use activity::act::Note;
use activity::risk::{self, Thresholds};
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::BillingError;
use billing::action::{Action as RequestedAction, NewRequest};
use billing::approval::{Gate, wanted};
use billing::catalog::{self, Badge, CYCLES_MONTHS, NewPrice, Plan, PlanEdit, Price};
use billing::catalog_act;
use billing::price::UsagePrice;
use billing::subscription::reprice::{RepriceImpact, touched};
use jiff::tz::TimeZone;
use schemas::ids::{PlanId, PriceId};
use schemas::money::{Currency, Money};
use schemas::period::cycle_words;
use sqlx::AnyConnection;

use super::PATH;
use super::plan_page::render;
use super::plans::specs_of;
use crate::action::{Action, ActionFailure, Draft, Fields, said};
use crate::auth::{Admin, ClientIp, CsrfForm};
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::offers::usage_price_words;
use crate::path::Path;
use crate::query::{PageQuery, filter};
use crate::shell::Shell;
use crate::state::AppState;

/// Characters of a usage price in what a second admin reads.
const MAX_SUMMARY_USAGE_CHARS: usize = 200;

/// Which action the page is shown after, and which price its form replaces.
#[derive(Debug, Default, serde::Deserialize)]
pub(crate) struct PlanQuery {
    #[serde(default)]
    done: String,
    #[serde(default)]
    price: String,
}

/// A new version of a price beside the one that it replaces, and who pays for the plan in that currency and cycle.
struct Version {
    new: NewPrice,
    before: Option<Price>,
    touches: RepriceImpact,
}

/// A new version as the preview has it.
struct VersionRow {
    cycle: String,
    base_before: String,
    base_after: Money,
    usage_before: String,
    usage_after: String,
    customers: u64,
    subscriptions: u64,
}

#[derive(Template)]
#[template(path = "admin_plan_price.html")]
struct PricePreview {
    shell: Shell,
    plan: PlanId,
    plan_name: String,
    rows: Vec<VersionRow>,
    /// From when on the versions hold.
    from: String,
    is_later: bool,
    /// A second admin decides: so many customers pay any of the prices, and more than so many wait.
    waits: bool,
    customers: i64,
    over: i64,
    makes_usage_free: bool,
    /// What the form asks for, to be sent again.
    hidden: Vec<(&'static str, String)>,
}

async fn find(state: &AppState, id: &str) -> Result<Plan, Failure> {
    let id: PlanId = id.parse().map_err(|_| Failure::NotFound)?;
    match catalog::plan(state.db().pool(), id).await {
        Err(BillingError::NoPlan(_)) => Err(Failure::NotFound),
        found => Ok(found?),
    }
}

pub(crate) async fn show(
    State(state): State<AppState>,
    admin: Admin,
    Path(id): Path<String>,
    PageQuery(shown): PageQuery<PlanQuery>,
) -> Result<Response, PageError> {
    let plan = find(&state, &id).await?;
    let replaced = filter::<PriceId>("price", &shown.price, "an id such as prc_7")?;
    let notice = match shown.done.as_str() {
        "add" => Some("Plan added. Add its prices."),
        "price" => Some("Price added."),
        "reprice" => Some("Price added; existing subscriptions change to it at renewal."),
        "approval" => Some("Requested. A second admin decides."),
        "stock" => Some("Stock set."),
        "edit" => Some("Plan saved."),
        _ => None,
    };
    render(&state, &admin, plan, Draft::default(), notice, replaced).await
}

async fn answer(
    state: &AppState,
    admin: &Admin,
    plan: Plan,
    form: &'static str,
    fields: Fields,
    done: Result<&'static str, ActionFailure>,
) -> Result<Response, PageError> {
    match done {
        Ok(what) => Ok(super::done(&format!("/admin/plans/{}", plan.id), what)),
        Err(refused) => render(state, admin, plan, Draft::refused(form, refused, fields)?, None, None).await,
    }
}

/// The versions that a form asks for: one, or one for every cycle by its discount (F-20). A usage price that was left out is
/// that of the current version; usage is free only where 0 is typed.
async fn versions(
    connection: &mut AnyConnection,
    plan: &Plan,
    fields: &Fields,
    now_ms: i64,
) -> Result<Vec<Version>, ActionFailure> {
    let currency: Currency = fields.text("currency").parse()?;
    let base = fields.money("base", currency)?;
    let given: Option<UsagePrice> = match fields.text("usage") {
        "" => None,
        text => Some(text.parse()?),
    };
    let valid_from_ms = fields.day_ms("valid_from", &TimeZone::UTC)?.unwrap_or(now_ms);
    let bases: Vec<(i64, Money)> = match fields.text("cycle") {
        "all" => {
            let mut bases = Vec::with_capacity(CYCLES_MONTHS.len());
            for months in CYCLES_MONTHS {
                bases.push((months, plan.derived_base(base, months)?));
            }
            bases
        }
        _ => vec![(fields.integer("cycle", "The cycle in months")?, base)],
    };
    let mut versions = Vec::with_capacity(bases.len());
    for (cycle_months, base) in bases {
        let usage =
            catalog::usage_or_current(&mut *connection, plan, currency, cycle_months, given.as_ref(), now_ms).await?;
        usage.check()?;
        let new = NewPrice {
            plan: plan.id,
            cycle_months,
            base,
            usage,
            valid_from_ms,
        };
        catalog_act::check_price_start(&mut *connection, &new, now_ms).await?;
        versions.push(Version {
            before: catalog::price_at(&mut *connection, plan.id, currency, cycle_months, now_ms).await?,
            touches: touched(&mut *connection, plan.id, currency, cycle_months).await?,
            new,
        });
    }
    Ok(versions)
}

/// What a preview showed, so that nothing else is done.
fn stamp(versions: &[Version]) -> String {
    let parts: Vec<String> = versions
        .iter()
        .map(|version| {
            let before = version.before.as_ref().map_or(0, |price| price.id.0);
            let Version { new, touches, .. } = version;
            format!(
                "{}/{before}/{}/{}/{}",
                new.cycle_months,
                new.base.minor,
                new.usage.typed(),
                touches.subscriptions
            )
        })
        .collect();
    parts.join(" ")
}

/// The versions as one change, for a second admin to decide on where many customers pay any of the prices.
async fn whole_change(
    connection: &mut AnyConnection,
    plan: &Plan,
    versions: &[Version],
    now_ms: i64,
) -> Result<NewRequest, ActionFailure> {
    let words = versions.iter().map(|version| {
        let new = &version.new;
        let usage = usage_price_words(plan, &new.usage, new.base.currency);
        // Twenty tiers are longer than a summary may be.
        let usage: String = usage.chars().take(MAX_SUMMARY_USAGE_CHARS).collect();
        let from = format::date(new.valid_from_ms, &TimeZone::UTC);
        format!(
            "{} per {}, usage {usage}, from {from} on",
            new.base,
            cycle_words(new.cycle_months)
        )
    });
    let words = words.collect::<Vec<_>>().join("; ");
    let new: Vec<NewPrice> = versions.iter().map(|version| version.new.clone()).collect();
    Ok(wanted::price_change(connection, plan, &new, &words, now_ms).await?)
}

/// What the versions change, before any subscription is moved to them.
fn preview(
    state: &AppState,
    admin: &Admin,
    plan: &Plan,
    versions: &[Version],
    (wanted, thresholds): (&RequestedAction, &Thresholds),
    fields: &Fields,
) -> Result<Response, PageError> {
    let mut rows = Vec::with_capacity(versions.len());
    for version in versions {
        let Version { new, before, touches } = version;
        rows.push(VersionRow {
            cycle: cycle_words(new.cycle_months),
            base_before: before
                .as_ref()
                .map_or_else(|| "–".to_owned(), |price| price.base.to_string()),
            base_after: new.base,
            usage_before: before.as_ref().map_or_else(
                || "–".to_owned(),
                |price| usage_price_words(plan, &price.usage, price.currency()),
            ),
            usage_after: usage_price_words(plan, &new.usage, new.base.currency),
            customers: touches.customers,
            subscriptions: touches.subscriptions,
        });
    }
    let makes_usage_free = versions.iter().any(|version| {
        let had_price = version
            .before
            .as_ref()
            .is_some_and(|price| price.usage != UsagePrice::FREE);
        had_price && version.new.usage == UsagePrice::FREE
    });
    let valid_from_ms = versions.first().map_or(0, |version| version.new.valid_from_ms);
    let mut hidden: Vec<(&'static str, String)> = ["currency", "base", "cycle", "usage", "valid_from"]
        .into_iter()
        .map(|name| (name, fields.text(name).to_owned()))
        .collect();
    hidden.push(("who", "renewal".to_owned()));
    hidden.push(("shown", stamp(versions)));
    page(&PricePreview {
        shell: Shell::new(&admin.0, format!("New price of {}", plan.name), PATH),
        plan: plan.id,
        plan_name: plan.name.clone(),
        waits: wanted.waits(thresholds),
        customers: wanted.size(),
        over: thresholds.price_change_over_customers,
        rows,
        from: format::date(valid_from_ms, &TimeZone::UTC),
        is_later: valid_from_ms > state.now_ms(),
        makes_usage_free,
        hidden,
    })
}

/// A new price, or a new version of one. Who pays already keeps their price, or changes to it at renewal; that is shown
/// before it is done.
pub(crate) async fn price(
    State(state): State<AppState>,
    admin: Admin,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let plan = find(&state, &id).await?;
    let moves = fields.text("who") == "renewal";
    if moves && fields.text("do") != "add" {
        let found: Result<(Vec<Version>, RequestedAction, Thresholds), ActionFailure> = async {
            let mut connection = state.db().pool().acquire().await?;
            let versions = versions(&mut connection, &plan, &fields, state.now_ms()).await?;
            let wanted = whole_change(&mut connection, &plan, &versions, state.now_ms())
                .await?
                .action;
            Ok((versions, wanted, risk::thresholds(&mut *connection).await?))
        }
        .await;
        return match found {
            Ok((versions, wanted, thresholds)) => {
                preview(&state, &admin, &plan, &versions, (&wanted, &thresholds), &fields)
            }
            Err(refused) => answer(&state, &admin, plan, "price", fields, Err(refused)).await,
        };
    }
    let done = async {
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok(if moves { "reprice" } else { "price" });
        };
        let now_ms = action.now_ms;
        let versions = versions(action.connection(), &plan, &fields, now_ms).await?;
        if moves && fields.text("shown") != stamp(&versions) {
            return Err(said(
                "Prices or subscriptions changed since the preview. Preview the price again.",
            ));
        }
        if moves {
            let wanted = whole_change(action.connection(), &plan, &versions, now_ms).await?;
            if let Gate::Waits(asked) = action.gate(&wanted).await? {
                action.commit_entered(asked.entered).await?;
                return Ok("approval");
            }
        }
        let mut notes = Vec::new();
        for version in versions {
            let (connection, by) = action.parts();
            notes.push(if moves {
                catalog_act::add_price_moving(connection, version.new, by.name, now_ms)
                    .await?
                    .2
            } else {
                catalog_act::add_price(connection, version.new, now_ms).await?.1
            });
        }
        action.commit(catalog_act::prices_note(plan.id, notes)).await?;
        Ok(if moves { "reprice" } else { "price" })
    }
    .await;
    answer(&state, &admin, plan, "price", fields, done).await
}

/// What people read of it: description, badge and specifications.
pub(crate) async fn edit(
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
            .commit(Note::new("plan.edit", plan.id).change(catalog::edit_change(&before, &after)))
            .await?;
        Ok("edit")
    }
    .await;
    answer(&state, &admin, plan, "edit", fields, done).await
}

/// How many more can be sold.
pub(crate) async fn stock(
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
        let note = catalog_act::change_stock(action.connection(), plan.id, stock).await?;
        action.commit(note).await?;
        Ok("stock")
    }
    .await;
    answer(&state, &admin, plan, "stock", fields, done).await
}

/// Closes the plan to new subscriptions.
pub(crate) async fn archive(
    State(state): State<AppState>,
    admin: Admin,
    Path(id): Path<String>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let plan = find(&state, &id).await?;
    let done: Result<(), ActionFailure> = async {
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok(());
        };
        let now_ms = action.now_ms;
        let note = catalog_act::archive_plan(action.connection(), plan.id, now_ms).await?;
        action.commit(note).await
    }
    .await;
    match done {
        Ok(()) => Ok(super::done("/admin/plans", "archive")),
        Err(refused) => answer(&state, &admin, plan, "archive", fields, Err(refused)).await,
    }
}
