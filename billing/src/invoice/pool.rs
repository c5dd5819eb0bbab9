//! Pooled usage: what some services of a customer leave of what is included or committed, others may use.
//!
//! Only for customers who agreed to it. Services share when they are charged on the same invoice for the same months, by the
//! same directions, unit and price. What is left is given to those who need it in the order of their lines, until it is used
//! up, so that what is charged over all of them is what they used together over what is included together. Each line says
//! what it got from the pool and can be recomputed alone (B5); a later correction of a line keeps its share.

use std::collections::{BTreeMap, HashMap};

use schemas::period::Period;

use crate::evidence::UsageCharge;
use crate::subscription::Phase;
use crate::{BillingError, catalog};

/// A usage line that may give or take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Share {
    /// Names it among the others; of an invoice its charge's key.
    key: String,
    from_ms: i64,
    to_ms: i64,
    mode: &'static str,
    charge: UsageCharge,
    /// Bytes, or bits per second; `None` where nothing was measured: that takes no part.
    used: Option<u64>,
}

impl Share {
    pub fn new(key: String, phase: &Phase, period: Period, charge: UsageCharge, used: Option<u64>) -> Share {
        Share {
            key,
            from_ms: period.start_ms,
            to_ms: period.end_ms,
            mode: phase.plan.terms.mode().map_or("", catalog::mode_name),
            charge,
            used,
        }
    }
}

/// What services must have in common: months, directions, unit and price.
type PoolKey = (i64, i64, &'static str, String);
/// A line's key, what it has and what it used.
type Member<'a> = (&'a str, u64, u64);

/// What each line gets from the pool, by key, in the order of the lines; nothing for those that need none.
///
/// # Errors
/// When a price cannot be written.
pub fn grants(shares: &[Share]) -> Result<HashMap<String, u64>, BillingError> {
    let mut pools: BTreeMap<PoolKey, Vec<Member<'_>>> = BTreeMap::new();
    for share in shares {
        let Some(used) = share.used else { continue };
        let (unit, included) = match &share.charge {
            UsageCharge::Transfer {
                unit, included_bytes, ..
            } => (unit.name(), *included_bytes),
            UsageCharge::Percentile { commit_bps, .. } => ("Mbit/s", *commit_bps),
        };
        let terms = format!("{unit} {}", serde_json::to_string(share.charge.price())?);
        let pool = pools
            .entry((share.from_ms, share.to_ms, share.mode, terms))
            .or_default();
        pool.push((&share.key, included, used));
    }
    let mut grants = HashMap::new();
    for pool in pools.into_values() {
        let mut left: u64 = pool
            .iter()
            .map(|(_, included, used)| included.saturating_sub(*used))
            .sum();
        for (key, included, used) in pool {
            let grant = used.saturating_sub(included).min(left);
            if grant > 0 {
                left -= grant;
                grants.insert(key.to_owned(), grant);
            }
        }
    }
    Ok(grants)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::catalog::QuotaUnit;

    fn share(key: usize, included_bytes: u64, used: Option<u64>) -> Share {
        Share {
            key: key.to_string(),
            from_ms: 0,
            to_ms: 1,
            mode: "sum",
            charge: UsageCharge::Transfer {
                unit: QuotaUnit::Gib,
                included_bytes,
                from_pool_bytes: 0,
                price: "0.01".parse().unwrap(),
            },
            used,
        }
    }

    #[test]
    fn what_was_not_measured_gives_nothing_and_other_terms_share_nothing() {
        let mut other = share(2, 100, Some(0));
        other.mode = "max";
        let shares = [share(0, 100, None), share(1, 100, Some(150)), other];
        assert!(grants(&shares).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn the_pool_charges_what_all_used_over_what_all_have(parts in prop::collection::vec((0u64..1000, 0u64..1000), 1..10)) {
            let shares: Vec<Share> = parts.iter().enumerate()
                .map(|(key, (included, used))| share(key, *included, Some(*used)))
                .collect();
            let granted = grants(&shares).unwrap();
            let over: u64 = parts.iter().enumerate()
                .map(|(key, (included, used))| {
                    let grant = granted.get(&key.to_string()).copied().unwrap_or(0);
                    prop_assert!(grant == 0 || included + grant <= *used, "nobody gets more than needed");
                    Ok(used.saturating_sub(included + grant))
                })
                .collect::<Result<Vec<u64>, _>>()?
                .iter()
                .sum();
            let included: u64 = parts.iter().map(|(included, _)| included).sum();
            let used: u64 = parts.iter().map(|(_, used)| used).sum();
            prop_assert_eq!(over, used.saturating_sub(included));
        }
    }
}
