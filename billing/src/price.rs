//! What usage over the included amount costs: per unit, graduated, by volume or in packages.
//!
//! | model | 111 units over the tiers 10 at 1.5, 100 at 1, the rest at 0.5 |
//! |---|---|
//! | graduated | each tier at its own price: 10 × 1.5 + 100 × 1 + 1 × 0.5 = 115.50 |
//! | volume | all at the price of the tier that the last unit falls into: 111 × 0.5 = 55.50 |
//!
//! A package is paid for when it is begun: 121 units in packages of 10 at 100 are 13 packages, 1,300. Amounts are exact
//! fractions; whoever asks rounds once (B2).

use rust_decimal::Decimal;
use schemas::money::MoneyError;
use serde::{Deserialize, Serialize};

use crate::BillingError;
use crate::field::{check_decimal, check_range};
use crate::ratio::Ratio;

/// Major units that a unit or a package can cost at most.
pub const MAX_RATE: i64 = 1_000_000;
/// Decimal places of a rate at most. With the limits here, rating fits 128-bit integers.
pub const MAX_RATE_PLACES: u32 = 9;
/// Tiers at most.
pub const MAX_TIERS: usize = 20;
/// Units that a tier or a package can hold at most.
pub const MAX_TIER_UNITS: i64 = 1_000_000_000;

/// The price of usage over what is included, in major units.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "model", rename_all = "snake_case")]
pub enum UsagePrice {
    /// Each unit, and each fraction of it, at one rate.
    PerUnit {
        #[serde(with = "decimal_text")]
        rate: Decimal,
    },
    /// Each unit at the rate of the tier that it falls into.
    Graduated { tiers: Vec<Tier> },
    /// All units at the rate of the tier that the last one falls into.
    Volume { tiers: Vec<Tier> },
    /// Whole packages; one that was begun is paid for.
    Package {
        units: i64,
        #[serde(with = "decimal_text")]
        rate: Decimal,
    },
}

/// A tier of units, from where the one before ends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = PriceTier)]
pub struct Tier {
    /// Units up to which it goes, counted from the first; `None` for the last tier.
    pub up_to_units: Option<i64>,
    #[serde(with = "decimal_text")]
    pub rate: Decimal,
}

/// Usage that is charged at one rate: of tiers each tier that holds some of it, of a price per unit all of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PricePart {
    /// Units below it, and up to where it goes; `None` for no end.
    pub over_units: i64,
    pub up_to_units: Option<i64>,
    /// Units in it, or packages begun; rounded for people to read.
    pub quantity: Decimal,
    /// Of a unit or a package.
    pub rate: Decimal,
    /// Major units, exact.
    pub amount: Ratio,
}

/// Decimal places of a quantity that people read.
const PART_PLACES: u32 = 9;

impl UsagePrice {
    /// No charge for usage.
    pub const FREE: UsagePrice = UsagePrice::PerUnit { rate: Decimal::ZERO };

    /// As people type it: what [`std::str::FromStr`] reads.
    pub fn typed(&self) -> String {
        let listed = |tiers: &[Tier]| {
            let parts: Vec<String> = tiers
                .iter()
                .map(|tier| match tier.up_to_units {
                    Some(units) => format!("{units}={}", tier.rate.normalize()),
                    None => format!("*={}", tier.rate.normalize()),
                })
                .collect();
            parts.join(",")
        };
        match self {
            UsagePrice::PerUnit { rate } => rate.normalize().to_string(),
            UsagePrice::Package { units, rate } => format!("package:{units}={}", rate.normalize()),
            UsagePrice::Graduated { tiers } => format!("graduated:{}", listed(tiers)),
            UsagePrice::Volume { tiers } => format!("volume:{}", listed(tiers)),
        }
    }

    /// The name of the model on invoices and in lists.
    pub fn name(&self) -> &'static str {
        match self {
            UsagePrice::PerUnit { .. } => "per unit",
            UsagePrice::Graduated { .. } => "graduated",
            UsagePrice::Volume { .. } => "volume",
            UsagePrice::Package { .. } => "package",
        }
    }

    /// Major units for `units` of usage, exact; nothing for none.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn amount(&self, units: Ratio) -> Result<Ratio, MoneyError> {
        if !units.is_positive() {
            return Ok(Ratio::integer(0));
        }
        match self {
            UsagePrice::PerUnit { rate } => units.times(Ratio::decimal(*rate)?),
            UsagePrice::Graduated { tiers } => {
                let mut amount = Ratio::integer(0);
                let mut below = Ratio::integer(0);
                for tier in tiers {
                    let top = match tier.up_to_units {
                        Some(up_to) => units.min(Ratio::integer(up_to.into()))?,
                        None => units,
                    };
                    let inside = top.minus(below)?;
                    if !inside.is_positive() {
                        break;
                    }
                    amount = amount.plus(inside.times(Ratio::decimal(tier.rate)?)?)?;
                    below = top;
                }
                Ok(amount)
            }
            UsagePrice::Volume { tiers } => {
                for tier in tiers {
                    let holds = match tier.up_to_units {
                        Some(up_to) => !units.minus(Ratio::integer(up_to.into()))?.is_positive(),
                        None => true,
                    };
                    if holds {
                        return units.times(Ratio::decimal(tier.rate)?);
                    }
                }
                Err(MoneyError::Overflow)
            }
            UsagePrice::Package { units: size, rate } => {
                let packages = Ratio::integer(units.over((*size).into())?.ceil());
                packages.times(Ratio::decimal(*rate)?)
            }
        }
    }

    /// How [`UsagePrice::amount`] comes about; nothing for no usage. The parts sum to the amount.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn parts(&self, units: Ratio) -> Result<Vec<PricePart>, MoneyError> {
        if !units.is_positive() {
            return Ok(Vec::new());
        }
        let part = |over_units: i64, up_to_units: Option<i64>, quantity: Ratio, rate: Decimal| {
            Ok(PricePart {
                over_units,
                up_to_units,
                quantity: quantity.to_decimal(PART_PLACES)?,
                rate,
                amount: quantity.times(Ratio::decimal(rate)?)?,
            })
        };
        let mut over_units = 0;
        match self {
            UsagePrice::PerUnit { rate } => Ok(vec![part(0, None, units, *rate)?]),
            UsagePrice::Package { units: size, rate } => {
                let packages = Ratio::integer(units.over((*size).into())?.ceil());
                Ok(vec![part(0, None, packages, *rate)?])
            }
            UsagePrice::Graduated { tiers } => {
                let mut parts = Vec::new();
                for tier in tiers {
                    let below = Ratio::integer(over_units.into());
                    let inside = match tier.up_to_units {
                        Some(up_to) => units.min(Ratio::integer(up_to.into()))?.minus(below)?,
                        None => units.minus(below)?,
                    };
                    if !inside.is_positive() {
                        break;
                    }
                    parts.push(part(over_units, tier.up_to_units, inside, tier.rate)?);
                    over_units = tier.up_to_units.unwrap_or(over_units);
                }
                Ok(parts)
            }
            UsagePrice::Volume { tiers } => {
                for tier in tiers {
                    match tier.up_to_units {
                        Some(up_to) if units.minus(Ratio::integer(up_to.into()))?.is_positive() => over_units = up_to,
                        end => return Ok(vec![part(over_units, end, units, tier.rate)?]),
                    }
                }
                Err(MoneyError::Overflow)
            }
        }
    }

    /// The one rate of a price per unit, or what a unit comes to on average, for people to read.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn shown_rate(&self, units: Ratio) -> Result<Decimal, MoneyError> {
        match self {
            UsagePrice::PerUnit { rate } => Ok(*rate),
            UsagePrice::Package { rate, .. } => Ok(*rate),
            UsagePrice::Graduated { tiers } | UsagePrice::Volume { tiers } => {
                let first = tiers.first().map_or(Decimal::ZERO, |tier| tier.rate);
                match units.is_positive() {
                    true => self.amount(units)?.divided_by(units)?.to_decimal(MAX_RATE_PLACES),
                    false => Ok(first),
                }
            }
        }
    }

    /// Refuses what cannot be meant: rates and sizes out of range, tiers that do not rise or do not end open.
    ///
    /// # Errors
    /// Which field is wrong, and what it may be.
    pub fn check(&self) -> Result<(), BillingError> {
        let check_rate = |rate: Decimal| check_decimal("usage rate", rate, MAX_RATE, MAX_RATE_PLACES);
        match self {
            UsagePrice::PerUnit { rate } => check_rate(*rate),
            UsagePrice::Package { units, rate } => {
                check_range("units in a package", *units, 1, MAX_TIER_UNITS)?;
                check_rate(*rate)
            }
            UsagePrice::Graduated { tiers } | UsagePrice::Volume { tiers } => {
                let count = i64::try_from(tiers.len()).unwrap_or(i64::MAX);
                check_range("number of tiers", count, 1, MAX_TIERS as i64)?;
                let mut below = 0;
                for (index, tier) in tiers.iter().enumerate() {
                    check_rate(tier.rate)?;
                    let is_last = index + 1 == tiers.len();
                    match tier.up_to_units {
                        None if is_last => {}
                        Some(up_to) if !is_last => {
                            check_range("end of a tier", up_to, below + 1, MAX_TIER_UNITS)?;
                            below = up_to;
                        }
                        _ => return Err(BillingError::TiersEnd),
                    }
                }
                Ok(())
            }
        }
    }
}

impl std::fmt::Display for UsagePrice {
    /// `0.05`, `graduated: 10 at 1.5, to 110 at 1, then 0.5`, `100 per 10`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            UsagePrice::PerUnit { rate } => write!(f, "{}", rate.normalize()),
            UsagePrice::Package { units, rate } => write!(f, "{} per {units}", rate.normalize()),
            UsagePrice::Graduated { tiers } | UsagePrice::Volume { tiers } => {
                write!(f, "{}:", self.name())?;
                for (index, tier) in tiers.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    match tier.up_to_units {
                        Some(up_to) => write!(f, "{comma} to {up_to} at {}", tier.rate.normalize())?,
                        None => write!(f, "{comma} then {}", tier.rate.normalize())?,
                    }
                }
                Ok(())
            }
        }
    }
}

/// As people type it: `0.05`, `graduated:10=1.5,110=1,*=0.5`, `volume:…`, `package:10=100`.
impl std::str::FromStr for UsagePrice {
    type Err = BillingError;

    fn from_str(text: &str) -> Result<UsagePrice, BillingError> {
        let refuse = || BillingError::UsagePrice(text.to_owned());
        let decimal = |text: &str| text.trim().parse::<Decimal>().map_err(|_| refuse());
        let Some((model, rest)) = text.split_once(':') else {
            return Ok(UsagePrice::PerUnit { rate: decimal(text)? });
        };
        if model.trim() == "package" {
            let (units, rate) = rest.split_once('=').ok_or_else(refuse)?;
            return Ok(UsagePrice::Package {
                units: units.trim().parse().map_err(|_| refuse())?,
                rate: decimal(rate)?,
            });
        }
        let mut tiers = Vec::new();
        for part in rest.split(',') {
            let (up_to, rate) = part.split_once('=').ok_or_else(refuse)?;
            tiers.push(Tier {
                up_to_units: match up_to.trim() {
                    "*" => None,
                    units => Some(units.parse().map_err(|_| refuse())?),
                },
                rate: decimal(rate)?,
            });
        }
        match model.trim() {
            "graduated" => Ok(UsagePrice::Graduated { tiers }),
            "volume" => Ok(UsagePrice::Volume { tiers }),
            _ => Err(refuse()),
        }
    }
}

/// Exact decimals are text in JSON, whose numbers many readers take for floats.
pub(crate) mod decimal_text {
    use rust_decimal::Decimal;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::money::Currency;

    use super::*;

    const TIERS: &str = "10=1.5,110=1,*=0.5";

    fn cents(price: &str, units: i128) -> i64 {
        let price: UsagePrice = price.parse().unwrap();
        price.check().unwrap();
        let amount = price.amount(Ratio::integer(units)).unwrap();
        amount.to_money(Currency::USD).unwrap().minor
    }

    #[test]
    fn the_models_charge_what_their_names_say() {
        let (graduated, volume) = (format!("graduated:{TIERS}"), format!("volume:{TIERS}"));
        for (price, units, minor) in [
            (graduated.as_str(), 111, 11_550),
            (volume.as_str(), 111, 5550),
            ("package:10=100", 121, 130_000),
            ("package:10=100", 120, 120_000),
            ("package:10=100", 0, 0),
            (&graduated, 10, 1500),
            (&graduated, 11, 1600),
            (&graduated, 110, 11_500),
            (&graduated, 0, 0),
            (&volume, 10, 1500),
            (&volume, 11, 1100),
            (&volume, 110, 11_000),
            ("0.05", 7, 35),
            ("0.001", 4, 0),
            ("0.001", 5, 1),
        ] {
            assert_eq!(cents(price, units), minor, "{units} units at {price}");
        }
    }

    #[test]
    fn a_price_is_written_as_it_is_typed() {
        for text in [
            "0",
            "0.05",
            "graduated:10=1.5,110=1,*=0.5",
            "volume:10=1.5,*=1",
            "package:10=100",
        ] {
            assert_eq!(text.parse::<UsagePrice>().unwrap().typed(), text);
        }
    }

    #[test]
    fn an_amount_is_taken_apart_into_what_each_rate_charges() {
        let parts = |text: &str, units: Ratio| {
            let price: UsagePrice = text.parse().unwrap();
            let parts = price.parts(units).unwrap();
            let sum = parts
                .iter()
                .try_fold(Ratio::integer(0), |sum, part| sum.plus(part.amount));
            let difference = sum.unwrap().minus(price.amount(units).unwrap()).unwrap();
            assert!(difference.is_zero(), "{text}");
            let said = parts.iter().map(|part| {
                format!(
                    "{}-{:?}: {} at {}",
                    part.over_units, part.up_to_units, part.quantity, part.rate
                )
            });
            said.collect::<Vec<String>>().join("; ")
        };
        let units = |units: i128| Ratio::integer(units).over(2).unwrap();
        let graduated = format!("graduated:{TIERS}");
        assert_eq!(
            parts(&graduated, units(223)),
            "0-Some(10): 10 at 1.5; 10-Some(110): 100 at 1; 110-None: 1.5 at 0.5"
        );
        assert_eq!(parts(&graduated, units(20)), "0-Some(10): 10 at 1.5");
        assert_eq!(parts(&format!("volume:{TIERS}"), units(220)), "10-Some(110): 110 at 1");
        assert_eq!(parts(&format!("volume:{TIERS}"), units(221)), "110-None: 110.5 at 0.5");
        assert_eq!(parts("package:10=100", units(21)), "0-None: 2 at 100");
        assert_eq!(parts("0.05", units(3)), "0-None: 1.5 at 0.05");
        assert_eq!(parts("0.05", units(0)), "");
    }

    #[test]
    fn a_fraction_of_a_unit_counts_where_units_do_and_begins_a_package() {
        let half = Ratio::integer(21).over(2).unwrap();
        let amount = |text: &str| text.parse::<UsagePrice>().unwrap().amount(half).unwrap();
        assert_eq!(amount("2").to_decimal(2).unwrap().to_string(), "21");
        assert_eq!(
            amount(&format!("graduated:{TIERS}")).to_decimal(2).unwrap().to_string(),
            "15.5"
        );
        assert_eq!(amount("package:10=100").to_decimal(2).unwrap().to_string(), "200");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for bad in [
            "",
            "x",
            "tiered:1=1",
            "graduated:",
            "graduated:10",
            "package:10",
            "package:x=1",
        ] {
            assert!(bad.parse::<UsagePrice>().is_err(), "{bad}");
        }
        for bad in [
            "-1",
            "1000001",
            "0.0000000001",
            "package:0=1",
            "graduated:10=1",
            "graduated:*=1,*=1",
            "volume:10=1,10=2,*=1",
            "volume:10=1,5=2,*=1",
        ] {
            assert!(bad.parse::<UsagePrice>().unwrap().check().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_price_reads_as_it_is_typed_and_stored() {
        for (typed, shown) in [
            ("0.050", "0.05"),
            ("package:10=100", "100 per 10"),
            (
                "graduated:10=1.5,110=1,*=0.5",
                "graduated: to 10 at 1.5, to 110 at 1, then 0.5",
            ),
        ] {
            let price: UsagePrice = typed.parse().unwrap();
            assert_eq!(price.to_string(), shown);
            let stored = serde_json::to_string(&price).unwrap();
            assert_eq!(serde_json::from_str::<UsagePrice>(&stored).unwrap(), price);
        }
    }

    proptest! {
        /// Unit by unit, from the definition, in whole cents.
        #[test]
        fn graduated_is_the_sum_of_its_units(first in 1i64..50, second in 1i64..50, units in 0i128..200, rates in prop::array::uniform3(0i64..1000)) {
            let tier = |up_to_units, rate| Tier { up_to_units, rate: Decimal::new(rate, 2) };
            let bounds = [first, first + second];
            let price = UsagePrice::Graduated { tiers: vec![
                tier(Some(bounds[0]), rates[0]), tier(Some(bounds[1]), rates[1]), tier(None, rates[2]),
            ] };
            price.check().unwrap();
            let by_hand: i64 = (1..=i64::try_from(units).unwrap())
                .map(|unit| if unit <= bounds[0] { rates[0] } else if unit <= bounds[1] { rates[1] } else { rates[2] })
                .sum();
            let amount = price.amount(Ratio::integer(units)).unwrap().to_money(Currency::USD).unwrap();
            prop_assert_eq!(amount.minor, by_hand);
        }
    }
}
