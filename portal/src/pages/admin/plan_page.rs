//! One plan as an admin sees it: all that it is, what is sold of it, its prices by version and who is on each, the add-ons
//! beside it and the coupons that apply.

use askama::Template;
use axum::response::Response;
use billing::catalog::{self, AddonSales, CYCLES_MONTHS, Coupon, Discount, Plan, PlanKind, PlanSales, Price, Spec};
use billing::subscription::reprice::touched;
use jiff::tz::TimeZone;
use schemas::ids::{CouponId, PriceId};
use schemas::money::Money;
use schemas::period::cycle_words;

use super::PATH;
use crate::action::Draft;
use crate::auth::Admin;
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::offers::usage_price_words;
use crate::shell::Shell;
use crate::state::AppState;

struct PriceRow {
    id: PriceId,
    cycle: String,
    base: Money,
    usage_text: String,
    valid_from: String,
    /// Holds for new subscriptions now.
    is_current: bool,
    /// Holds from a later day on.
    is_ahead: bool,
    /// Subscriptions and units on this version.
    subscriptions: i64,
    quantity: i64,
    monthly: Option<Money>,
    /// Customers who pay for the plan in this currency and cycle; on the current version only.
    touches: u64,
}

struct CouponRow {
    id: CouponId,
    code: String,
    off: String,
    lasts: String,
    redeemed: String,
    /// For this plan alone.
    is_own: bool,
}

/// What the form of a price begins with: the version that it replaces.
#[derive(Default)]
struct PriceFields {
    currency: String,
    base: String,
    cycle: String,
    usage: String,
    /// Asked for by the link beside a price.
    is_chosen: bool,
}

/// The specifications as the form has them.
#[derive(Default)]
struct SpecFields {
    vcpu: String,
    ram_gib: String,
    disk_gb: String,
    disk_type: String,
    transfer: String,
    port_mbps: String,
    /// The others, a line each.
    other: String,
}

#[derive(Template)]
#[template(path = "admin_plan.html")]
struct PlanPage {
    shell: Shell,
    draft: Draft,
    notice: Option<&'static str>,
    plan: Plan,
    specs: Vec<Spec>,
    transfer: String,
    fields: SpecFields,
    stock: String,
    sold: PlanSales,
    prices: Vec<PriceRow>,
    addons: Vec<AddonSales>,
    coupons: Vec<CouponRow>,
    cycles: Vec<(i64, String)>,
    price_fields: PriceFields,
    is_addon: bool,
    is_metered: bool,
}

impl PriceFields {
    fn new(price: Option<&Price>, is_chosen: bool) -> PriceFields {
        let Some(price) = price else {
            return PriceFields {
                currency: "USD".to_owned(),
                cycle: "1".to_owned(),
                ..PriceFields::default()
            };
        };
        PriceFields {
            currency: price.currency().to_string(),
            base: price.base.to_major().to_string(),
            cycle: price.cycle_months.to_string(),
            usage: price.usage.typed(),
            is_chosen,
        }
    }
}

impl SpecFields {
    fn of(plan: &Plan) -> SpecFields {
        let mut fields = SpecFields::default();
        // As they are written now, whatever older name they were kept under.
        let stored = catalog::checked_specs(&plan.attributes).unwrap_or_else(|_| plan.attributes.clone());
        for (name, value) in stored {
            match name.as_str() {
                "vcpu" => fields.vcpu = value,
                "ram_gib" => fields.ram_gib = value,
                "disk_gb" => fields.disk_gb = value,
                "disk_type" => fields.disk_type = value,
                "transfer" => fields.transfer = value,
                "port_mbps" => fields.port_mbps = value,
                _ => {
                    let line = format!("{name} = {value}\n");
                    fields.other.push_str(&line);
                }
            }
        }
        fields
    }
}

fn coupon_row(coupon: &Coupon) -> CouponRow {
    CouponRow {
        id: coupon.id,
        code: coupon.code.clone(),
        off: match coupon.discount {
            Discount::Percent(percent) => percent.to_string(),
            Discount::Amount(amount) => amount.to_string(),
        },
        lasts: match coupon.months {
            None => "no end".to_owned(),
            Some(1) => "1 month".to_owned(),
            Some(months) => format!("{months} months"),
        },
        redeemed: match coupon.max_redemptions {
            Some(most) => format!("{} of {most}", coupon.redeemed),
            None => coupon.redeemed.to_string(),
        },
        is_own: coupon.plan.is_some(),
    }
}

/// Whether somebody who orders the plan now can redeem it.
fn applies(coupon: &Coupon, plan: &Plan, now_ms: i64) -> bool {
    coupon.plan.is_none_or(|only| only == plan.id)
        && coupon.archived_at_ms.is_none()
        && coupon.expires_at_ms.is_none_or(|at_ms| at_ms > now_ms)
        && coupon.max_redemptions.is_none_or(|most| coupon.redeemed < most)
        && !plan.is_free
}

async fn price_rows(
    state: &AppState,
    plan: &Plan,
    sold: &PlanSales,
    found: &[Price],
) -> Result<Vec<PriceRow>, Failure> {
    let pool = state.db().pool();
    let now_ms = state.now_ms();
    let mut prices = Vec::with_capacity(found.len());
    for price in found {
        let current = catalog::price_at(pool, plan.id, price.currency(), price.cycle_months, now_ms).await?;
        let is_current = current.is_some_and(|current| current.id == price.id);
        let touches = if is_current {
            touched(pool, plan.id, price.currency(), price.cycle_months)
                .await?
                .customers
        } else {
            0
        };
        let version = sold.version(price.id);
        prices.push(PriceRow {
            id: price.id,
            cycle: cycle_words(price.cycle_months),
            base: price.base,
            usage_text: usage_price_words(plan, &price.usage, price.currency()),
            valid_from: format::minute(price.valid_from_ms, &TimeZone::UTC),
            is_current,
            is_ahead: price.valid_from_ms > now_ms,
            subscriptions: version.map_or(0, |version| version.subscriptions),
            quantity: version.map_or(0, |version| version.quantity),
            monthly: version.map(|version| version.monthly),
            touches,
        });
    }
    Ok(prices)
}

/// The page of a plan.
pub(super) async fn render(
    state: &AppState,
    admin: &Admin,
    plan: Plan,
    draft: Draft,
    notice: Option<&'static str>,
    replaced: Option<PriceId>,
) -> Result<Response, PageError> {
    let now_ms = state.now_ms();
    let mut connection = state.db().pool().acquire().await?;
    let mut sold = catalog::sold(&mut connection, plan.id).await?;
    let coupons = catalog::coupons(&mut *connection).await?;
    drop(connection);
    let found = catalog::prices_of(state.db().pool(), plan.id).await?;
    let prices = price_rows(state, &plan, &sold, &found).await?;
    let chosen = found.iter().find(|price| Some(price.id) == replaced);
    let first_current = prices.iter().find(|row| row.is_current);
    let begins = chosen.or_else(|| {
        found
            .iter()
            .find(|price| first_current.is_some_and(|row| row.id == price.id))
    });
    let price_fields = PriceFields::new(begins, chosen.is_some());
    let mut cycles: Vec<i64> = CYCLES_MONTHS.into();
    if let Some(price) = begins
        && !cycles.contains(&price.cycle_months)
    {
        cycles.push(price.cycle_months);
    }
    let cycles: Vec<(i64, String)> = cycles.into_iter().map(|months| (months, cycle_words(months))).collect();
    let is_addon = plan.kind == PlanKind::Addon;
    let body = page(&PlanPage {
        shell: Shell::new(&admin.0, plan.name.clone(), PATH),
        notice,
        specs: plan.specs(),
        transfer: plan.included_transfer(),
        fields: SpecFields::of(&plan),
        stock: plan.stock.map(|stock| stock.to_string()).unwrap_or_default(),
        prices,
        addons: std::mem::take(&mut sold.addons)
            .into_iter()
            .filter(|_| !is_addon)
            .collect(),
        coupons: coupons
            .iter()
            .filter(|coupon| applies(coupon, &plan, now_ms))
            .map(coupon_row)
            .collect(),
        sold,
        cycles,
        price_fields,
        is_addon,
        is_metered: plan.terms != catalog::Terms::Flat,
        plan,
        draft: draft.clone(),
    })?;
    Ok(draft.answer(body))
}
