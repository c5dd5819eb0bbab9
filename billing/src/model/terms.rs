//! What is sold: prices, ways to charge for usage, coupons, taxes of customers.

use super::fraction::Fraction;
use jiff::tz::TimeZone;

/// Which bytes count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CountedDirection {
    Sum,
    Out,
    Max,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum UsageTerms {
    Not,
    /// GiB of a month that the price includes.
    Transfer {
        included_gib: i64,
        way: CountedDirection,
    },
    /// Mbit/s that the price includes.
    Percentile {
        commit_mbps: i64,
        way: CountedDirection,
    },
}

/// Of a unit over what is included; rates are thousandths of a cent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum UnitPrice {
    Free,
    Each(i64),
    /// Up to so many units at a rate, then the next; the last has no end.
    Graduated(&'static [(i64, i64)]),
    Volume(&'static [(i64, i64)]),
    Package {
        units: i64,
        rate: i64,
    },
}

impl UnitPrice {
    /// Cents.
    pub(super) fn cents(self, units: Fraction) -> Fraction {
        let rate = |thousandths: i64| Fraction::new(thousandths.into(), 1000);
        if units <= Fraction::ZERO {
            return Fraction::ZERO;
        }
        match self {
            UnitPrice::Free => Fraction::ZERO,
            UnitPrice::Each(each) => units * rate(each),
            UnitPrice::Graduated(tiers) => {
                let mut sum = Fraction::ZERO;
                let mut below = Fraction::ZERO;
                for &(up_to, each) in tiers {
                    let top = units.min(Fraction::whole(up_to));
                    if top > below {
                        sum = sum + (top - below) * rate(each);
                        below = top;
                    }
                }
                sum
            }
            UnitPrice::Volume(tiers) => {
                let (_, each) = tiers
                    .iter()
                    .find(|(up_to, _)| units <= Fraction::whole(*up_to))
                    .unwrap();
                units * rate(*each)
            }
            UnitPrice::Package { units: size, rate: of } => {
                let packages = (units / Fraction::whole(size)).ceil();
                Fraction::new(packages, 1) * rate(of)
            }
        }
    }
}

/// A price of a plan for a cycle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) plan: usize,
    pub(crate) is_addon: bool,
    pub(crate) in_advance: bool,
    pub(crate) months: i64,
    pub(crate) cents: i64,
    pub(crate) metered: UsageTerms,
    pub(crate) unit_price: UnitPrice,
    pub(crate) trial_days: i64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum CouponDiscount {
    /// Thousandths of a percent.
    Percent(i64),
    Cents(i64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Coupon {
    pub(crate) off: CouponDiscount,
    pub(crate) months: Option<i64>,
    /// The only plan that it is for.
    pub(crate) plan: Option<usize>,
}

/// How a customer is taxed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Taxed {
    pub(crate) is_exempt: bool,
    /// Thousandths of a percent, where a rate was agreed.
    pub(crate) agreed: i64,
    pub(crate) prices_include_tax: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Customer {
    pub(crate) zone: TimeZone,
    pub(crate) country: &'static str,
    pub(crate) taxed: Taxed,
    /// What some services leave of what is included, others may use.
    pub(crate) pools_usage: bool,
}

/// A tax of a place, from an instant to another.
#[derive(Clone, Debug)]
pub(crate) struct PlaceRate {
    pub(crate) country: &'static str,
    pub(crate) name: &'static str,
    /// Thousandths of a percent.
    pub(crate) rate: i64,
    pub(crate) from_ms: i64,
    pub(crate) to_ms: Option<i64>,
}
