//! The catalog: every plan, and a new one.

use analytics::UsageMode;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::catalog::{
    self, Attributes, Badge, BaseTiming, KNOWN_SPECS, NewPlan, NewPrice, Plan, PlanKind, Spec, Terms,
};
use billing::catalog_act;
use billing::price::UsagePrice;
use schemas::ids::PlanId;
use schemas::money::{Currency, Money};
use schemas::percent::Percent;
use sqlx::Row as _;

use super::{DoneQuery, PATH};
use crate::action::{Action, ActionFailure, Draft, Fields, said};
use crate::auth::{Admin, ClientIp, CsrfForm};
use crate::error::{PageError, page};
use crate::first_steps::FirstSteps;
use crate::pages::plans::type_name;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

struct Row {
    id: PlanId,
    name: String,
    kind: &'static str,
    service_type: String,
    model: &'static str,
    /// What a service has, in words.
    specs: String,
    stock: String,
    subscriptions: i64,
    is_archived: bool,
}

#[derive(Template)]
#[template(path = "admin_plans.html")]
struct PlansPage {
    shell: Shell,
    first_steps: Option<FirstSteps>,
    draft: Draft,
    rows: Vec<Row>,
    notice: Option<&'static str>,
}

/// A kind of plan as people read it.
fn kind_words(kind: PlanKind) -> &'static str {
    match kind {
        PlanKind::Addon => "add-on",
        other => other.name(),
    }
}

pub(crate) async fn show(
    State(state): State<AppState>,
    admin: Admin,
    PageQuery(shown): PageQuery<DoneQuery>,
) -> Result<Response, PageError> {
    let notice = (shown.done == "archive").then_some("Plan archived: new subscriptions are refused.");
    render(&state, &admin, Draft::default(), notice).await
}

async fn render(
    state: &AppState,
    admin: &Admin,
    draft: Draft,
    notice: Option<&'static str>,
) -> Result<Response, PageError> {
    let pool = state.db().pool();
    let counts = sqlx::query(
        "SELECT p.plan_id, count(*) FROM phases p JOIN subscriptions s ON s.id = p.subscription_id \
         WHERE p.to_date IS NULL AND s.status <> 'ended' GROUP BY p.plan_id",
    )
    .fetch_all(pool)
    .await?;
    let mut subscribed = std::collections::BTreeMap::new();
    for row in &counts {
        subscribed.insert(row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?);
    }
    let plans = catalog::plans(pool).await?;
    let first_steps = match plans.is_empty() {
        true => FirstSteps::of_billing(state, admin.0.user.role).await?,
        false => None,
    };
    let rows = plans.into_iter().map(|plan: Plan| Row {
        subscriptions: subscribed.get(&plan.id.0).copied().unwrap_or(0),
        id: plan.id,
        kind: kind_words(plan.kind),
        model: plan.terms.name(),
        specs: plan.specs().iter().map(Spec::words).collect::<Vec<_>>().join(", "),
        stock: plan
            .stock
            .map_or_else(|| "unlimited".to_owned(), |stock| stock.to_string()),
        is_archived: plan.archived_at_ms.is_some(),
        name: plan.label(),
        service_type: type_name(&plan.service_type),
    });
    let body = page(&PlansPage {
        shell: Shell::new(&admin.0, "Plans", PATH),
        first_steps,
        rows: rows.collect(),
        notice,
        draft: draft.clone(),
    })?;
    Ok(draft.answer(body))
}

/// The specifications of a form: those that have a field, and others by name.
pub(super) fn specs_of(fields: &Fields) -> Result<Attributes, ActionFailure> {
    let mut specs = attributes(fields.text("attributes"))?;
    for name in KNOWN_SPECS {
        let value = fields.text(name);
        if !value.is_empty() {
            specs.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(specs)
}

/// `vcpu = 4`, a line each.
fn attributes(text: &str) -> Result<Attributes, ActionFailure> {
    let mut attributes = Attributes::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once('=') else {
            return Err(said(format!("An attribute is a line like vcpu = 4, not {line:?}.")));
        };
        attributes.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    Ok(attributes)
}

fn terms(fields: &Fields) -> Result<Terms, ActionFailure> {
    let mode = match fields.text("mode") {
        "in" => UsageMode::In,
        "out" => UsageMode::Out,
        "max" => UsageMode::Max,
        _ => UsageMode::Sum,
    };
    match fields.text("model") {
        "flat" => Ok(Terms::Flat),
        "transfer" => Ok(Terms::Transfer {
            included_units: fields.integer("included", "Included transfer")?,
            unit: fields.text("unit").parse()?,
            mode,
        }),
        "percentile" => Ok(Terms::Percentile {
            commit_mbps: fields.decimal("included", "The commit")?,
            mode,
        }),
        _ => Err(said("Choose how the plan is billed.")),
    }
}

pub(crate) async fn add(
    State(state): State<AppState>,
    admin: Admin,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let made: Result<Option<PlanId>, ActionFailure> = async {
        let semi_annual = match fields.text("semi_annual") {
            "" => 10.into(),
            _ => fields.decimal("semi_annual", "The discount")?,
        };
        let new = NewPlan {
            kind: fields.text("kind").parse::<PlanKind>()?,
            description: fields.text("description"),
            base_timing: fields.text("timing").parse::<BaseTiming>()?,
            trial_days: fields.optional_integer("trial_days", "The trial")?.unwrap_or(0),
            trial_repeats: fields.is_ticked("trial_repeats"),
            attributes: specs_of(&fields)?,
            badge: fields.text("badge").parse::<Badge>()?,
            stock: fields.optional_integer("stock", "The stock")?,
            is_free: fields.is_ticked("is_free"),
            semi_annual_discount: Percent::new(semi_annual)?,
            ..NewPlan::new(fields.text("name"), fields.text("service_type"), terms(&fields)?)
        };
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok(None);
        };
        let now_ms = action.now_ms;
        let (plan, note) = catalog_act::add_plan(action.connection(), new, now_ms).await?;
        action.commit(note).await?;
        Ok(Some(plan.id))
    }
    .await;
    match made {
        Ok(Some(plan)) => Ok(super::done(&format!("/admin/plans/{plan}"), "add")),
        Ok(None) => Ok(super::done("/admin/plans", "again")),
        Err(refused) => render(&state, &admin, Draft::refused("add", refused, fields)?, None).await,
    }
}

/// The free developer tier (F-26), ready made, with its price of nothing.
pub(crate) async fn add_free(
    State(state): State<AppState>,
    admin: Admin,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let made: Result<Option<PlanId>, ActionFailure> = async {
        let currency: Currency = fields.text("currency").parse()?;
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok(None);
        };
        let now_ms = action.now_ms;
        let (plan, note) = catalog_act::add_plan(action.connection(), NewPlan::free_tier(), now_ms).await?;
        let price = NewPrice {
            plan: plan.id,
            cycle_months: 1,
            base: Money::zero(currency),
            usage: UsagePrice::FREE,
            valid_from_ms: now_ms,
        };
        let (_, price) = catalog_act::add_price(action.connection(), price, now_ms).await?;
        action.commit(catalog_act::plan_note(note, vec![price])).await?;
        Ok(Some(plan.id))
    }
    .await;
    match made {
        Ok(Some(plan)) => Ok(super::done(&format!("/admin/plans/{plan}"), "add")),
        Ok(None) => Ok(super::done("/admin/plans", "again")),
        Err(refused) => render(&state, &admin, Draft::refused("free", refused, fields)?, None).await,
    }
}

#[cfg(test)]
mod tests {
    use billing::catalog::{plans, prices_of};
    use sqlx::Row as _;

    use crate::auth::Role;
    use crate::testing::world::World;

    #[tokio::test]
    async fn the_free_developer_tier_is_added_ready_made_and_marked() {
        let world = World::new().await;
        world.portal.user("root", Role::Admin, None).await;
        let mut admin = world.portal.signed_in("root").await;
        let wrong = admin
            .send_form("/admin/plans", "/admin/plans/free", &[("currency", "dollars")])
            .await;
        assert_eq!(wrong.status, 422);
        let done = admin
            .send_form("/admin/plans", "/admin/plans/free", &[("currency", "USD")])
            .await;
        assert_eq!(done.status, 303, "{}", done.body);
        let pool = world.portal.state.db().pool();
        let free: Vec<_> = plans(pool)
            .await
            .unwrap()
            .into_iter()
            .filter(|plan| plan.is_free)
            .collect();
        assert_eq!(free.len(), 1);
        assert_eq!(free[0].attributes["ram_gib"], "0.5");
        let prices = prices_of(pool, free[0].id).await.unwrap();
        assert_eq!((prices.len(), prices[0].base.minor), (1, 0));
        assert!(admin.get("/admin/plans").await.body.contains("Development"));
    }

    #[tokio::test]
    async fn a_plan_s_page_shows_all_that_is_sold_and_its_specifications_are_edited() {
        let world = World::new().await;
        world.portal.user("root", Role::Admin, None).await;
        let mut admin = world.portal.signed_in("root").await;
        let pool = world.portal.state.db().pool();
        let plan = plans(pool).await.unwrap()[0].clone();
        let page = format!("/admin/plans/{}", plan.id);
        let body = admin.get(&page).await.body;
        for text in [
            "Revenue per month",
            "Coupons that apply",
            "Add-ons",
            "Included transfer",
            "Subscriptions",
        ] {
            assert!(body.contains(text), "{text}: {body}");
        }
        let specs = [
            ("vcpu", "4"),
            ("ram_gib", "8"),
            ("disk_gb", "160"),
            ("disk_type", "NVMe"),
            ("port_mbps", "1000"),
            ("attributes", "gpu = L4"),
            ("description", "For databases."),
            ("badge", "popular"),
        ];
        let edit = format!("{page}/edit");
        let done = admin.send_form(&page, &edit, &specs).await;
        assert_eq!(done.header("location"), format!("{page}?done=edit"), "{}", done.body);
        let body = admin.get(&page).await.body;
        for text in ["160 GB NVMe", "1 Gbit/s", "8 GiB", "L4", "For databases.", "Popular"] {
            assert!(body.contains(text), "{text}: {body}");
        }
        let wrong = [("vcpu", "many"), ("badge", "")];
        let refused = admin.send_form(&page, &edit, &wrong).await;
        assert_eq!(refused.status, 422);
        assert!(refused.body.contains("Vcpu is a number"), "{}", refused.body);
        let metered = [("transfer", "unmetered"), ("badge", "")];
        assert_eq!(admin.send_form(&page, &edit, &metered).await.status, 422);
        let row = sqlx::query("SELECT change FROM audit_log WHERE action = 'plan.edit'")
            .fetch_one(pool)
            .await
            .unwrap();
        let change: String = row.try_get(0).unwrap();
        assert!(change.contains("\"before\"") && change.contains("NVMe"), "{change}");
        // Customers see them where they choose and where they pay.
        let mut ada = world.portal.signed_in("ada").await;
        let plans = ada.get(&format!("/plans?type={}", plan.service_type)).await.body;
        assert!(plans.contains("<b>8 GiB</b> RAM"), "{plans}");
        let checkout = ada.get(&format!("/plans/{}/checkout", plan.id)).await.body;
        assert!(checkout.contains("<b>160 GB NVMe</b> disk"), "{checkout}");
    }
}
