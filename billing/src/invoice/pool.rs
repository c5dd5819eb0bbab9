//! Pooled usage: what some services of a customer leave of what is included or committed, others may use.
//!
//! Only for customers who agreed to it. Services share when they are charged on the same invoice for the same months, by the
//! same directions, unit and price. What is left is given to those who need it in the order of their lines, until it is used
//! up, so that what is charged over all of them is what they used together over what is included together. Each line says
//! what it got from the pool and can be recomputed alone (B5).
//!
//! A correction computes the pool anew, by what is known of all its lines then: what customers owe does not depend on when
//! data arrived or was flagged. A pool is the lines of one invoice ([`PoolLine`]), in their order and by the terms and the
//! customer's agreement that held as it was closed, whatever became of them since.

use std::collections::{BTreeMap, HashMap};

use schemas::ids::{PhaseId, ServiceId, SubscriptionId};
use schemas::period::Period;

use crate::evidence::{Measured, UsageCharge};
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

/// A usage line of a finalised invoice, as far as others share with it.
#[derive(Debug)]
pub(super) struct PoolLine {
    /// Of its charge.
    pub(super) key: String,
    pub(super) subscription: SubscriptionId,
    pub(super) service: ServiceId,
    pub(super) phase: PhaseId,
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
    /// As it was charged.
    pub(super) charge: UsageCharge,
    pub(super) measured: Measured,
    /// As its evidence says.
    pub(super) is_pooled: Option<bool>,
}

impl PoolLine {
    /// What it gives or takes when so much of what is measured counts.
    pub(super) fn share(&self, used: Option<u64>) -> Share {
        Share {
            key: self.key.clone(),
            from_ms: self.from_ms,
            to_ms: self.to_ms,
            mode: catalog::mode_name(self.measured.mode),
            charge: self.charge.clone(),
            used,
        }
    }
}

/// Whether the usage of an invoice was pooled, by its lines. Those from before this was kept say so only where one got
/// something; else they were, as far as anybody can tell, where the customer has agreed to it by now and nobody would have got
/// anything.
///
/// # Errors
/// When a price cannot be written.
pub(super) fn was_pooled(lines: &[PoolLine], pools_now: bool) -> Result<bool, BillingError> {
    if let Some(is_pooled) = lines.iter().find_map(|line| line.is_pooled) {
        return Ok(is_pooled);
    }
    if lines.iter().any(|line| line.charge.from_pool() > 0) {
        return Ok(true);
    }
    if !pools_now || lines.is_empty() {
        return Ok(false);
    }
    let as_charged: Vec<Share> = lines
        .iter()
        .map(|line| line.share(line.charge.used(&line.measured)))
        .collect();
    Ok(grants(&as_charged)?.is_empty())
}

/// What services must have in common: months, directions, unit and price.
type PoolKey = (i64, i64, &'static str, String);
/// A line's key, what it has and what it used.
type PoolMember<'a> = (&'a str, u64, u64);

/// What each line gets from the pool, by key, in the order of the lines; nothing for those that need none.
///
/// # Errors
/// When a price cannot be written.
pub fn grants(shares: &[Share]) -> Result<HashMap<String, u64>, BillingError> {
    let mut pools: BTreeMap<PoolKey, Vec<PoolMember<'_>>> = BTreeMap::new();
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
            .fold(0, u64::saturating_add);
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

    fn line(key: &str, used_bytes: u64, from_pool_bytes: u64, is_pooled: Option<bool>) -> PoolLine {
        let Share { charge, .. } = share(0, 100, None);
        PoolLine {
            key: key.to_owned(),
            subscription: SubscriptionId(1),
            service: ServiceId(1),
            phase: PhaseId(1),
            from_ms: 0,
            to_ms: 1,
            charge: charge.with_pool(from_pool_bytes),
            measured: Measured {
                mode: schemas::usage::UsageMode::Sum,
                bytes_in: used_bytes,
                bytes_out: 0,
                billed_bytes: used_bytes,
                percentile_95_bps: None,
                percentile_rank: 0,
                windows_measured: 0,
                windows_expected: 0,
                gaps: Vec::new(),
                excluded: Vec::new(),
                windows_excluded: 0,
                excluded_bytes_in: 0,
                excluded_bytes_out: 0,
            },
            is_pooled,
        }
    }

    #[test]
    fn an_invoice_was_pooled_as_its_lines_say_whatever_is_agreed_now() {
        for (lines, pools_now, expected) in [
            (
                [line("a", 90, 0, Some(true)), line("b", 60, 0, Some(true))],
                false,
                true,
            ),
            (
                [line("a", 150, 0, Some(false)), line("b", 60, 0, Some(false))],
                true,
                false,
            ),
            // Lines from before this was kept: one got something.
            ([line("a", 150, 40, None), line("b", 60, 0, None)], false, true),
            // One would have got something and did not.
            ([line("a", 150, 0, None), line("b", 60, 0, None)], true, false),
            // Nobody needed anything: as is agreed now.
            ([line("a", 90, 0, None), line("b", 60, 0, None)], true, true),
            ([line("a", 90, 0, None), line("b", 60, 0, None)], false, false),
        ] {
            let said = was_pooled(&lines, pools_now).unwrap();
            assert_eq!(said, expected, "{lines:?}, agreed now: {pools_now}");
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
