//! Which taxes a customer pays.

use rust_decimal::Decimal;
use schemas::inventory::{Customer, EntityProfile};
use schemas::percent::Percent;

use super::{TaxCategory, TaxRate};

/// The member states of the European Union (ISO 3166-1). Territories with codes of their own that are not in the VAT area
/// (French overseas departments, the Åland Islands) are left out by that.
const MEMBER_STATES: [&str; 27] = [
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT", "LU", "LV",
    "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
];

const REVERSE_CHARGE_NOTE: &str = "Reverse charge: Article 196 of Directive 2006/112/EC";
const OUTSIDE_UNION_NOTE: &str =
    "Not subject to EU VAT: the place of supply is outside the Union (Articles 44, 58 and 59 of Directive 2006/112/EC)";
const NO_TAX_NOTE: &str = "Not subject to tax";

/// A tax that holds for a customer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaxRule {
    /// As printed: `VAT 19 %`.
    pub name: String,
    pub category: TaxCategory,
    /// 0 in every category but [`TaxCategory::Standard`].
    pub rate: Percent,
    /// Why no tax is charged, as documents must say; empty where it is, and where the rate is zero.
    pub note: String,
}

impl TaxRule {
    fn untaxed(name: &str, category: TaxCategory, note: &str) -> TaxRule {
        TaxRule {
            name: name.to_owned(),
            category,
            rate: Percent::ZERO,
            note: note.to_owned(),
        }
    }

    fn rated(name: &str, rate: Percent) -> TaxRule {
        let category = if rate.value() > Decimal::ZERO {
            TaxCategory::Standard
        } else {
            TaxCategory::ZeroRated
        };
        TaxRule {
            name: format!("{name} {rate}"),
            category,
            rate,
            note: String::new(),
        }
    }
}

/// The taxes of what a seller supplies to a customer at an instant; never empty. The first of these that applies:
///
/// 1. The customer is exempt, for the reason that is kept with the customer.
/// 2. A rate was agreed with the customer.
/// 3. Seller and customer are in different member states and the customer has a VAT number of one that is not the seller's:
///    the customer owes the tax (reverse charge).
/// 4. The rates of the customer's place at that time, country-wide ones and its region's: all of them, each on the net.
/// 5. A seller in the Union, a customer outside: not subject to the seller's VAT.
/// 6. Nothing is charged: zero rated within the Union, where a supply is always within the scope, else out of scope.
///
/// Northern Ireland (VAT numbers that begin with XI) is in the Union's VAT area for goods, not for services, and counts as the
/// United Kingdom here; Monaco counts as France (article 7 of the directive).
pub fn rules(seller: &EntityProfile, customer: &Customer, rates: &[TaxRate], at_ms: i64) -> Vec<TaxRule> {
    let profile = &customer.billing;
    if !profile.tax_exempt_reason.is_empty() {
        let exempt = TaxRule::untaxed("Exempt from tax", TaxCategory::Exempt, &profile.tax_exempt_reason);
        return vec![exempt];
    }
    let buyer_state = vat_territory(&customer.country);
    if customer.tax_rate.value() > Decimal::ZERO {
        let name = if buyer_state.is_some() { "VAT" } else { "Tax" };
        return vec![TaxRule::rated(name, customer.tax_rate)];
    }
    let seller_state = vat_territory(&seller.country);
    if let (Some(seller_state), Some(buyer_state), Some(number_state)) =
        (seller_state, buyer_state, vat_number_territory(&profile.vat_id))
        && seller_state != buyer_state
        && seller_state != number_state
    {
        let reverse = TaxRule::untaxed("Reverse charge", TaxCategory::ReverseCharge, REVERSE_CHARGE_NOTE);
        return vec![reverse];
    }
    let mut holding: Vec<&TaxRate> = rates
        .iter()
        .filter(|rate| rate.holds_at(at_ms) && rate.holds_in(&customer.country, &profile.region))
        .collect();
    if !holding.is_empty() {
        holding.sort_by_key(|rate| (!rate.region.is_empty(), rate.id));
        return holding
            .into_iter()
            .map(|rate| TaxRule::rated(&rate.name, rate.rate))
            .collect();
    }
    let rule = match (seller_state, buyer_state) {
        (Some(_), None) => TaxRule::untaxed("Outside the scope of VAT", TaxCategory::OutOfScope, OUTSIDE_UNION_NOTE),
        (Some(_), Some(_)) => TaxRule::rated("VAT", Percent::ZERO),
        (None, _) => TaxRule::untaxed("No tax", TaxCategory::OutOfScope, NO_TAX_NOTE),
    };
    vec![rule]
}

/// The member state whose VAT a country's supplies of services are under.
pub(crate) fn vat_territory(country: &str) -> Option<&'static str> {
    let country = if country == "MC" { "FR" } else { country };
    MEMBER_STATES.into_iter().find(|&state| state == country)
}

/// The member state that gave out a VAT number.
fn vat_number_territory(vat_id: &str) -> Option<&'static str> {
    match vat_id.get(..2)? {
        // Greek numbers begin with the language's code.
        "EL" => vat_territory("GR"),
        prefix => MEMBER_STATES
            .into_iter()
            .find(|&state| state == prefix && prefix != "GR"),
    }
}
