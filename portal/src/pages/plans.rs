//! What is sold (F-20): plans by service type and cycle, and the way to an order.

pub(crate) mod checkout;
#[cfg(test)]
pub(crate) mod tests;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use billing::catalog::{Badge, Plan, PlanKind, Spec};
use schemas::inventory;
use schemas::money::Money;

use crate::auth::Customer;
use crate::error::{Failure, PageError, page};
use crate::offers::{Offer, cycle_name, cycle_unit, cycles, offers, per_month, usage_text};
use crate::query::{PageQuery, filter, wrong};
use crate::refusal::stock_text;
use crate::shell::Shell;
use crate::state::AppState;

/// Address of the list, and the navigation entry of all pages here.
const PATH: &str = "/plans";

struct Tab {
    name: String,
    href: String,
    is_current: bool,
}

struct CycleTab {
    name: String,
    href: String,
    is_current: bool,
    saving: Option<String>,
}

struct PlanCard {
    name: String,
    description: String,
    badge: Option<&'static str>,
    is_free: bool,
    stock: Option<String>,
    is_sold_out: bool,
    per_month: Money,
    /// What is paid at once, where that is not a month.
    billed: Option<String>,
    saving: Option<i64>,
    /// The same in money, for one cycle.
    saved: Option<Money>,
    usage: String,
    specs: Vec<Spec>,
    trial: Option<String>,
    order_href: String,
}

#[derive(Template)]
#[template(path = "plans.html")]
struct PlansPage {
    shell: Shell,
    tabs: Vec<Tab>,
    cycles: Vec<CycleTab>,
    cards: Vec<PlanCard>,
    /// Names of plans that are sold, but not for this cycle.
    others: Vec<String>,
    currency: String,
}

#[derive(serde::Deserialize)]
pub(crate) struct PlansQuery {
    #[serde(default, rename = "type")]
    service_type: String,
    #[serde(default)]
    cycle: String,
}

/// `vps` → `VPS`, `dedicated` → `Dedicated`.
pub(super) fn type_name(service_type: &str) -> String {
    match service_type {
        "vps" => return "VPS".to_owned(),
        "mysql" => return "MySQL".to_owned(),
        _ => {}
    }
    let mut chars = service_type.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

pub(super) fn trial_text(plan: &Plan) -> Option<String> {
    (plan.trial_days > 0).then(|| format!("{} days free, then charged", plan.trial_days))
}

fn card(offer: &Offer, cycle: i64) -> Result<Option<PlanCard>, Failure> {
    let plan = &offer.plan;
    let Some(price) = offer.of_cycle(cycle) else {
        return Ok(None);
    };
    let badge = match plan.badge {
        Badge::None => None,
        Badge::Popular => Some("Popular"),
        Badge::BestValue => Some("Best value"),
    };
    Ok(Some(PlanCard {
        name: plan.name.clone(),
        description: plan.description.clone(),
        badge,
        is_free: plan.is_free,
        stock: stock_text(plan.stock),
        is_sold_out: plan.stock == Some(0),
        per_month: per_month(price)?,
        billed: (cycle != 1).then(|| format!("{} every {}", price.base, cycle_unit(cycle))),
        saving: offer.saving_percent(price),
        saved: offer.saving(price),
        usage: usage_text(plan, price),
        specs: plan.specs(),
        trial: trial_text(plan),
        order_href: format!("{PATH}/{}/checkout?cycle={cycle}", plan.id),
    }))
}

/// The most that any plan saves by a cycle: `Save 15 %`, `Save up to 20 %`.
fn saving_text(offers: &[Offer], cycle: i64) -> Option<String> {
    let mut savings = offers.iter().filter_map(|offer| {
        offer
            .of_cycle(cycle)
            .map(|price| offer.saving_percent(price).unwrap_or(0))
    });
    let first = savings.next()?;
    let (least, most) = savings.fold((first, first), |(least, most), one| (least.min(one), most.max(one)));
    match (least, most) {
        (_, 0) => None,
        (least, most) if least == most => Some(format!("Save {most} %")),
        (_, most) => Some(format!("Save up to {most} %")),
    }
}

pub(crate) async fn list(
    State(state): State<AppState>,
    customer: Customer,
    PageQuery(asked): PageQuery<PlansQuery>,
) -> Result<Response, PageError> {
    let mut connection = state.db().pool().acquire().await?;
    let currency = inventory::customer(&mut *connection, customer.id).await?.currency;
    let all = offers(&mut connection, currency, PlanKind::Plan, state.now_ms()).await?;
    drop(connection);
    let mut types: Vec<&str> = all.iter().map(|offer| offer.plan.service_type.as_str()).collect();
    types.sort_unstable();
    types.dedup();
    let service_type = match asked.service_type.trim() {
        "" => types.first().copied().unwrap_or(""),
        // Nothing is sold any more: nothing is shown.
        named if types.is_empty() || types.contains(&named) => named,
        named => return Err(wrong("type", named, &format!("one of {}", types.join(", "))).into()),
    }
    .to_owned();
    let mut of_type: Vec<Offer> = all
        .iter()
        .filter(|offer| offer.plan.service_type == service_type)
        .cloned()
        .collect();
    let sold = cycles(&of_type);
    // Months that this kind is not sold for: another kind's tab was left.
    let cycle = filter::<i64>("cycle", &asked.cycle, "a number of months")?.filter(|cycle| sold.contains(cycle));
    let cycle = cycle.or(sold.first().copied()).unwrap_or(1);
    // The cheapest first.
    of_type.sort_by_key(|offer| (offer.of_cycle(cycle).map(|price| price.base.minor), offer.plan.id));
    let href = |service_type: &str, cycle: i64| format!("{PATH}?type={}&cycle={cycle}", encoded(service_type));
    let (mut cards, mut others) = (Vec::new(), Vec::new());
    for offer in &of_type {
        match card(offer, cycle)? {
            Some(card) => cards.push(card),
            None => others.push(offer.plan.name.clone()),
        }
    }
    page(&PlansPage {
        shell: Shell::new(&customer.who, "Plans", PATH),
        tabs: types
            .iter()
            .map(|name| Tab {
                name: type_name(name),
                href: href(name, cycle),
                is_current: *name == service_type,
            })
            .collect(),
        cycles: sold
            .iter()
            .map(|&months| CycleTab {
                name: cycle_name(months),
                href: href(&service_type, months),
                is_current: months == cycle,
                saving: saving_text(&of_type, months),
            })
            .collect(),
        cards,
        others,
        currency: currency.to_string(),
    })
}

/// As a value in an address.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
