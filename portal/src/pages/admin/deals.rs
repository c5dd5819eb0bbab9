//! Deals (F-28): what was agreed with one customer, recorded and billed.

use activity::act::Note;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::deal::{self, Component, ComponentKind, Deal, MAX_COMPONENTS, NewDeal};
use billing::reseller;
use schemas::ids::CustomerId;
use schemas::inventory;
use schemas::money::{Currency, Money};
use serde_json::json;

use super::{DoneQuery, PATH};
use crate::action::{Action, ActionFailure, Draft, Fields, said};
use crate::auth::{Admin, ClientIp, CsrfForm};
use crate::error::{PageError, page};
use crate::format;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

/// Rows of components that the form has.
const ROWS: usize = 6;

struct ComponentRow {
    what: &'static str,
    text: String,
    price: Money,
}

struct Row {
    deal: Deal,
    customer_name: String,
    made: String,
    components: Vec<ComponentRow>,
    /// Of all components.
    month: Money,
}

#[derive(Template)]
#[template(path = "admin_deals.html")]
struct DealsPage {
    shell: Shell,
    draft: Draft,
    rows: Vec<Row>,
    kinds: [ComponentKind; 5],
    positions: Vec<usize>,
    notice: Option<&'static str>,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    admin: Admin,
    PageQuery(shown): PageQuery<DoneQuery>,
) -> Result<Response, PageError> {
    let notice =
        (shown.done == "add").then_some("The deal is recorded, and its subscription is charged from its start on.");
    render(&state, &admin, Draft::default(), notice).await
}

async fn render(
    state: &AppState,
    admin: &Admin,
    draft: Draft,
    notice: Option<&'static str>,
) -> Result<Response, PageError> {
    let pool = state.db().pool();
    let deals = deal::deals(pool).await?;
    let mut rows = Vec::with_capacity(deals.len());
    for deal in deals {
        let customer = inventory::customer(pool, deal.customer).await?;
        let mut month = Money::zero(customer.currency);
        let mut components = Vec::with_capacity(deal.components.len());
        for component in &deal.components {
            let price = component.quantity.saturating_mul(component.monthly_minor);
            month.minor = month.minor.saturating_add(price);
            components.push(ComponentRow {
                what: component.kind.words(),
                text: format!("{} × {}", component.quantity, component.description),
                price: Money::new(price, customer.currency),
            });
        }
        rows.push(Row {
            made: format::date(deal.created_at_ms, &customer.time_zone),
            customer_name: customer.name,
            components,
            month,
            deal,
        });
    }
    let body = page(&DealsPage {
        shell: Shell::new(&admin.0, "Deals", PATH),
        rows,
        kinds: ComponentKind::ALL,
        positions: (1..=ROWS).collect(),
        notice,
        draft: draft.clone(),
    })?;
    Ok(draft.answer(body))
}

/// The rows that were filled in.
fn components(fields: &Fields, currency: Currency) -> Result<Vec<Component>, ActionFailure> {
    let mut components = Vec::new();
    for position in 1..=MAX_COMPONENTS {
        let name = |field: &str| format!("{field}_{position}");
        let description = fields.text(&name("description"));
        if description.is_empty() {
            continue;
        }
        components.push(Component {
            kind: fields.text(&name("kind")).parse()?,
            description: description.to_owned(),
            quantity: fields.integer(&name("quantity"), "A quantity")?,
            monthly_minor: fields.money(&name("price"), currency)?.minor,
        });
    }
    if components.is_empty() {
        return Err(said("Describe at least one component."));
    }
    Ok(components)
}

pub(crate) async fn add(
    State(state): State<AppState>,
    admin: Admin,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let done: Result<(), ActionFailure> = async {
        let customer: CustomerId = fields.id("customer")?;
        let customer = inventory::customer(state.db().pool(), customer).await?;
        let components = components(&fields, customer.currency)?;
        let started = fields.day_ms("start", &customer.time_zone)?;
        let Some(mut action) = Action::begin(&state, &admin.0, ip, &fields).await? else {
            return Ok(());
        };
        let (actor, now_ms) = (action.actor.clone(), action.now_ms);
        let new = NewDeal {
            customer: customer.id,
            name: fields.text("name"),
            agreement: fields.text("agreement"),
            service_type: fields.text("service_type"),
            components: &components,
            cycle_months: fields.integer("cycle", "The cycle in months")?,
            started_at_ms: started.unwrap_or(now_ms),
        };
        let deal = deal::record(action.connection(), new, &actor, now_ms).await?;
        let change = json!({"after": {"customer": deal.customer, "name": deal.name, "subscription": deal.subscription,
            "components": deal.components}});
        let risk = reseller::risk_of(action.connection(), &[deal.customer]).await?;
        action
            .commit(Note::new("deal.record", deal.id).change(change).risk(risk))
            .await
    }
    .await;
    match done {
        Ok(()) => Ok(super::done("/admin/deals", "add")),
        Err(refused) => render(&state, &admin, Draft::refused("add", refused, fields)?, None).await,
    }
}
