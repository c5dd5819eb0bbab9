//! Which taxes a customer pays.

use rust_decimal::Decimal;
use schemas::inventory::{Customer, EntityProfile};
use schemas::percent::Percent;
use schemas::vat_number::{self, MEMBER_STATES};
use schemas::window::instant_text;

use super::{TaxCategory, TaxRate};

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

    /// Stands in drafts where no rate is known; never on an invoice.
    pub(crate) fn unknown() -> TaxRule {
        TaxRule {
            name: "Tax (not known yet)".to_owned(),
            category: TaxCategory::ZeroRated,
            rate: Percent::ZERO,
            note: "It is added on the invoice, once it is known.".to_owned(),
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

/// A rate that should be known and is not: a person must say what it is, be it 0 %.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct MissingRate {
    /// ISO 3166-1, two letters.
    pub country: String,
    pub region: String,
    pub at_ms: i64,
}

/// Whether a customer's VAT number is a reason to charge no tax.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum VatNumberStatus {
    /// It is: confirmed, accepted by a person, or nobody is asked.
    #[default]
    Accepted,
    /// Nobody has answered yet whether it was given out.
    Unconfirmed,
    /// It was not given out.
    Refused,
}

/// Why it cannot be said which taxes hold, or who charges them: a person settles it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = HoldReason)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HoldReason {
    Rate(MissingRate),
    /// The number would make it reverse charged, and nobody has confirmed it.
    VatNumber {
        number: String,
    },
    /// Who issues it has no name and address yet.
    Issuer,
}

impl std::fmt::Display for HoldReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HoldReason::Rate(missing) => missing.fmt(f),
            HoldReason::VatNumber { number } => write!(f, "the VAT number {number} is not confirmed yet"),
            HoldReason::Issuer => f.write_str("the company that issues invoices has no name and address yet"),
        }
    }
}

impl std::fmt::Display for MissingRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let MissingRate { country, region, at_ms } = self;
        write!(f, "no tax rate is known for {country}")?;
        if !region.is_empty() {
            write!(f, " ({region})")?;
        }
        write!(f, " at {}", instant_text(*at_ms))
    }
}

/// The taxes of what a seller supplies to a customer at an instant; never empty. The first of these that applies:
///
/// 1. The customer is exempt, for the reason that is kept with the customer.
/// 2. A rate was agreed with the customer.
/// 3. Seller and customer are in different member states and the customer has a VAT number of one that is not the seller's:
///    the customer owes the tax (reverse charge), unless the number turned out to be none.
/// 4. The rates of the customer's place at that time, country-wide ones and its region's: all of them, each on the net.
/// 5. A seller in the Union, a customer outside: not subject to the seller's VAT.
/// 6. Nothing is charged: out of scope, without a seller in the Union.
///
/// Within the Union a supply is always within the scope of VAT, so there a place without a rate is an error of who keeps the rates,
/// and so is a place whose rates have all ended: neither is taken for 0 %, which is a rate of its own.
///
/// Northern Ireland (VAT numbers that begin with XI) is in the Union's VAT area for goods, not for services, and counts as the
/// United Kingdom here; Monaco counts as France (article 7 of the directive).
///
/// # Errors
/// [`HoldReason`] where a rate should be known and is not, or a VAT number decides and is not confirmed.
pub fn rules(
    seller: &EntityProfile,
    customer: &Customer,
    vat: VatNumberStatus,
    rates: &[TaxRate],
    at_ms: i64,
) -> Result<Vec<TaxRule>, HoldReason> {
    let profile = &customer.billing;
    if !profile.tax_exempt_reason.is_empty() {
        let exempt = TaxRule::untaxed("Exempt from tax", TaxCategory::Exempt, &profile.tax_exempt_reason);
        return Ok(vec![exempt]);
    }
    let buyer_state = vat_territory(&customer.country);
    if customer.tax_rate.value() > Decimal::ZERO {
        let name = if buyer_state.is_some() { "VAT" } else { "Tax" };
        return Ok(vec![TaxRule::rated(name, customer.tax_rate)]);
    }
    let seller_state = vat_territory(&seller.country);
    if let (Some(seller_state), Some(buyer_state), Some(number_state)) =
        (seller_state, buyer_state, vat_number::state_of(&profile.vat_id))
        && seller_state != buyer_state
        && seller_state != number_state
        && vat != VatNumberStatus::Refused
    {
        if vat == VatNumberStatus::Unconfirmed {
            return Err(HoldReason::VatNumber {
                number: profile.vat_id.clone(),
            });
        }
        let reverse = TaxRule::untaxed("Reverse charge", TaxCategory::ReverseCharge, REVERSE_CHARGE_NOTE);
        return Ok(vec![reverse]);
    }
    // Monaco's rates are France's, unless some were entered for itself.
    let has_own = rates.iter().any(|rate| rate.country == customer.country);
    let place = match buyer_state {
        Some(state) if !has_own => state,
        _ => customer.country.as_str(),
    };
    let there = || rates.iter().filter(|rate| rate.holds_in(place, &profile.region));
    let mut holding: Vec<&TaxRate> = there().filter(|rate| rate.holds_at(at_ms)).collect();
    if !holding.is_empty() {
        holding.sort_by_key(|rate| (!rate.region.is_empty(), rate.id));
        return Ok(holding
            .into_iter()
            .map(|rate| TaxRule::rated(&rate.name, rate.rate))
            .collect());
    }
    let missing = || {
        HoldReason::Rate(MissingRate {
            country: place.to_owned(),
            region: profile.region.clone(),
            at_ms,
        })
    };
    if there().any(|rate| rate.valid_to_ms.is_some_and(|to_ms| to_ms <= at_ms)) {
        return Err(missing());
    }
    let rule = match (seller_state, buyer_state) {
        (Some(_), None) => TaxRule::untaxed("Outside the scope of VAT", TaxCategory::OutOfScope, OUTSIDE_UNION_NOTE),
        (Some(_), Some(_)) => return Err(missing()),
        (None, _) => TaxRule::untaxed("No tax", TaxCategory::OutOfScope, NO_TAX_NOTE),
    };
    Ok(vec![rule])
}

/// The member state whose VAT a country's supplies of services are under.
pub(crate) fn vat_territory(country: &str) -> Option<&'static str> {
    let country = if country == "MC" { "FR" } else { country };
    MEMBER_STATES.into_iter().find(|&state| state == country)
}
