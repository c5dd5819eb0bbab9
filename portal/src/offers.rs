//! What a customer can subscribe to now, and how its price is told (F-20).

use std::collections::BTreeMap;

use billing::BillingError;
use billing::catalog::{self, CYCLES_MONTHS, Plan, PlanKind, Price, Terms};
use billing::price::UsagePrice;
use billing::ratio::Ratio;
use rust_decimal::Decimal;
use schemas::ids::{PlanId, PriceId};
use schemas::money::{Currency, Money};
use sqlx::AnyConnection;

use crate::format;

/// A plan with the prices that hold now in one currency, by cycle.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) plan: Plan,
    pub(crate) prices: Vec<Price>,
}

impl Offer {
    pub(crate) fn price(&self, id: PriceId) -> Option<&Price> {
        self.prices.iter().find(|price| price.id == id)
    }

    pub(crate) fn of_cycle(&self, cycle_months: i64) -> Option<&Price> {
        self.prices.iter().find(|price| price.cycle_months == cycle_months)
    }

    /// What a price saves against paying by the month, where the plan has a price for a month and anything is saved.
    pub(crate) fn saving(&self, price: &Price) -> Option<Money> {
        let month = self.of_cycle(1)?;
        let by_month = month.base.minor.checked_mul(price.cycle_months)?;
        let saved = by_month.checked_sub(price.base.minor)?;
        (saved > 0).then(|| Money::new(saved, price.base.currency))
    }

    /// Percent that a price saves against paying by the month, where the plan has a price for a month.
    pub(crate) fn saving_percent(&self, price: &Price) -> Option<i64> {
        let month = self.of_cycle(1)?;
        let by_month = i128::from(month.base.minor) * i128::from(price.cycle_months);
        let saved = by_month - i128::from(price.base.minor);
        if saved <= 0 || by_month <= 0 {
            return None;
        }
        // Rounded to the nearest: a derived price is itself rounded to the cent.
        i64::try_from((saved * 200 + by_month) / (2 * by_month))
            .ok()
            .filter(|percent| *percent > 0)
    }
}

/// Plans of a kind that are not archived, with the prices that hold at `now_ms` in a currency; plans without one are left
/// out.
pub(crate) async fn offers(
    connection: &mut AnyConnection,
    currency: Currency,
    kind: PlanKind,
    now_ms: i64,
) -> Result<Vec<Offer>, BillingError> {
    let mut valid: BTreeMap<(PlanId, i64), Price> = BTreeMap::new();
    for price in catalog::prices(&mut *connection).await? {
        if price.currency() != currency || price.valid_from_ms > now_ms {
            continue;
        }
        let held = valid.get(&(price.plan, price.cycle_months));
        if held.is_none_or(|held| held.valid_from_ms <= price.valid_from_ms) {
            valid.insert((price.plan, price.cycle_months), price);
        }
    }
    let mut found = Vec::new();
    for plan in catalog::plans(connection).await? {
        let is_archived = plan.archived_at_ms.is_some_and(|since_ms| since_ms <= now_ms);
        if plan.kind != kind || is_archived {
            continue;
        }
        let prices = valid.range((plan.id, 0)..=(plan.id, i64::MAX));
        let prices: Vec<Price> = prices.map(|(_, price)| price.clone()).collect();
        if !prices.is_empty() {
            found.push(Offer { plan, prices });
        }
    }
    Ok(found)
}

/// `Monthly`, `Annual`.
pub(crate) fn cycle_name(months: i64) -> String {
    match months {
        1 => "Monthly".to_owned(),
        3 => "Quarterly".to_owned(),
        6 => "Semi-annual".to_owned(),
        12 => "Annual".to_owned(),
        24 => "Biennial".to_owned(),
        months => format!("Every {months} months"),
    }
}

/// What a price is for: `month`, `3 months`, `year`.
pub(crate) fn cycle_unit(months: i64) -> String {
    match months {
        1 => "month".to_owned(),
        12 => "year".to_owned(),
        24 => "2 years".to_owned(),
        months => format!("{months} months"),
    }
}

/// `USD 9.00 / month`, `free`.
pub(crate) fn price_text(price: &Price) -> String {
    if price.base.minor == 0 && price.usage == UsagePrice::FREE {
        return "free".to_owned();
    }
    format!("{} / {}", price.base, cycle_unit(price.cycle_months))
}

/// What a month of a cycle comes to, rounded once.
pub(crate) fn per_month(price: &Price) -> Result<Money, BillingError> {
    let month = Ratio::money(price.base)?.over(i128::from(price.cycle_months))?;
    Ok(month.to_money(price.currency())?)
}

/// A rate with at least the digits of its currency: `0.80`, `0.005`, `1,200.00`.
pub(crate) fn rate_text(rate: Decimal, currency: Currency) -> String {
    let mut rate = rate.normalize();
    rate.rescale(rate.scale().max(currency.minor_digits()));
    format::grouped_decimal(&rate.to_string())
}

/// What usage over the included amount costs: `USD 0.05 per GiB`, `USD 100 per 10 GiB`, `USD per GiB, graduated: to 10 at 1.5,
/// then 0.5`.
fn rate_words(usage: &UsagePrice, currency: Currency, unit: &str) -> String {
    match usage {
        UsagePrice::PerUnit { rate } => format!("{currency} {} per {unit}", rate_text(*rate, currency)),
        UsagePrice::Package { units, rate } => {
            format!("{currency} {} per {units} {unit}", rate_text(*rate, currency))
        }
        tiers @ (UsagePrice::Graduated { .. } | UsagePrice::Volume { .. }) => {
            format!("{currency} per {unit}, {tiers}")
        }
    }
}

/// As [`usage_text`], without what is included; for staff, who see that elsewhere.
pub(crate) fn usage_price_words(plan: &Plan, usage: &UsagePrice, currency: Currency) -> String {
    let unit = match &plan.terms {
        Terms::Flat => return "not charged".to_owned(),
        _ if *usage == UsagePrice::FREE => return "not charged".to_owned(),
        Terms::Transfer { unit, .. } => unit.name(),
        Terms::Percentile { .. } => "Mbit/s",
    };
    rate_words(usage, currency, unit)
}

/// What usage is included, and what more of it costs.
pub(crate) fn usage_text(plan: &Plan, price: &Price) -> String {
    let beyond = |unit: &str| {
        if price.usage == UsagePrice::FREE {
            "more is not charged".to_owned()
        } else {
            format!("then {}", rate_words(&price.usage, price.currency(), unit))
        }
    };
    match &plan.terms {
        Terms::Flat => "Traffic is not charged".to_owned(),
        Terms::Transfer {
            included_units, unit, ..
        } => {
            let included = format::grouped(u64::try_from(*included_units).unwrap_or(0));
            format!("{included} {unit} transfer a month, {}", beyond(unit.name()))
        }
        Terms::Percentile { commit_mbps, .. } => {
            let commit = commit_mbps.normalize();
            format!("{commit} Mbit/s committed (95th percentile), {}", beyond("Mbit/s"))
        }
    }
}

/// The cycles that any of the offers has a price for: the usual ones first, in their order.
pub(crate) fn cycles(offers: &[Offer]) -> Vec<i64> {
    let mut found: Vec<i64> = offers
        .iter()
        .flat_map(|offer| &offer.prices)
        .map(|price| price.cycle_months)
        .collect();
    found.sort_unstable_by_key(|months| (!CYCLES_MONTHS.contains(months), *months));
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(prices: &[(i64, i64)]) -> Offer {
        let price = |(index, (cycle_months, minor)): (usize, &(i64, i64))| Price {
            id: PriceId(i64::try_from(index).unwrap() + 1),
            plan: PlanId(1),
            cycle_months: *cycle_months,
            base: Money::new(*minor, Currency::USD),
            usage: UsagePrice::FREE,
            valid_from_ms: 0,
        };
        Offer {
            plan: Plan {
                id: PlanId(1),
                kind: PlanKind::Plan,
                name: "VPS".to_owned(),
                description: String::new(),
                service_type: "vps".to_owned(),
                terms: Terms::Flat,
                base_timing: catalog::BaseTiming::Advance,
                trial_days: 0,
                attributes: catalog::Attributes::new(),
                badge: catalog::Badge::None,
                stock: None,
                is_free: false,
                trial_repeats: false,
                semi_annual_discount: schemas::percent::Percent::new(10.into()).unwrap(),
                created_at_ms: 0,
                archived_at_ms: None,
            },
            prices: prices.iter().enumerate().map(price).collect(),
        }
    }

    #[test]
    fn savings_are_those_of_the_stored_prices() {
        let offer = offer(&[
            (1, 29_99),
            (3, 85_47),
            (6, 16195),
            (12, 30590),
            (24, 57581),
            (36, 200_000),
        ]);
        let saved: Vec<Option<i64>> = offer.prices.iter().map(|price| offer.saving_percent(price)).collect();
        assert_eq!(saved, [None, Some(5), Some(10), Some(15), Some(20), None]);
        let saved: Vec<Option<i64>> = offer
            .prices
            .iter()
            .map(|price| offer.saving(price).map(|money| money.minor))
            .collect();
        assert_eq!(saved, [None, Some(450), Some(1_799), Some(5_398), Some(14_395), None]);
        let monthly: Vec<i64> = offer
            .prices
            .iter()
            .map(|price| per_month(price).unwrap().minor)
            .collect();
        assert_eq!(monthly, [29_99, 28_49, 26_99, 25_49, 23_99, 55_56]);
        assert_eq!(cycles(&[offer]), [1, 3, 6, 12, 24, 36]);
    }

    #[test]
    fn prices_are_told_with_what_they_are_for() {
        let offer = offer(&[(1, 9_00), (12, 90_00), (5, 0)]);
        let told: Vec<String> = offer.prices.iter().map(price_text).collect();
        assert_eq!(told, ["USD 9.00 / month", "USD 90.00 / year", "free"]);
        assert_eq!(
            (cycle_name(24).as_str(), cycle_name(5).as_str()),
            ("Biennial", "Every 5 months")
        );
    }
}
