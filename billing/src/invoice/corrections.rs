//! Which charged months of usage are looked at again, and what corrects them (B3).
//!
//! Late flows, a change of assignments, windows that were excluded, an exporter whose flows were put right: each may change
//! what a month costs that was charged long ago. Measuring all that was ever charged at every close would cost the more the
//! longer there are customers, so each charge keeps a mark of what it was measured from ([`UsageSource::marks`]), and only
//! months whose mark has changed are measured again:
//!
//! ```text
//! charged            usage:phs_1:2026-01-01   mark 512.31.498
//! what is stored     2026-01-01 – 2026-02-01  mark 731.31.498     a file of that time is newer: look again
//! ```
//!
//! * The customer's next document carries the difference. Where none with usage will come, because the subscription is over
//!   or its terms know no usage any more, the difference is a document of its own, at most one a day.
//! * Looked at is what ended within the configured reach ([`UsageSource::corrected_from_ms`]) and can be measured as a
//!   whole: what retention has removed parts of stays as it was charged.
//! * A mark moves in the transaction that charges the difference, or that finds there is none. An exclusion that is made or
//!   revoked empties the marks of the months that it touches, and of those that were charged in one pool with them.
//! * A month of a pool is corrected to what the pool comes to by what is known of all its months ([`super::pool`]). Those of
//!   them that are not looked at yet, because a document will come that carries them, are measured for it and charged then.

use std::collections::{BTreeSet, HashMap};

use rust_decimal::Decimal;
use schemas::ids::{CustomerId, SubscriptionId};
use schemas::inventory::AttributionChange;
use schemas::money::Money;
use schemas::usage::{PeriodUsage, UsageSource};
use schemas::window::DAY_MS;
use sqlx::AnyConnection;

use super::due::DueCharge;
use super::history::{ChargedKey, ChargedLine, ChargedUsage, charged_keys};
use super::items::ChargeItem;
use super::line_credits::UncreditedAmounts;
use crate::BillingError;
use crate::catalog::Terms;
use crate::evidence::{Evidence, Measured};
use crate::line_kind::LineKind;
use crate::rating::{self, DraftLine};
use crate::subscription::{Contract, Phase};

/// Documents that only correct come so far apart at least: late flows mostly come in many pieces.
const APART_MS: i64 = DAY_MS;

/// The charged months of some customers whose mark has changed.
pub(super) struct Months(HashMap<SubscriptionId, Vec<ChargedKey>>);

impl Months {
    /// Those of the customers with ids in `between`, and those that a change of assignments in `pending` may touch before its
    /// flows show it: their customers' documents wait for it.
    ///
    /// # Errors
    /// As the database answers, or when marks cannot be read.
    pub(super) async fn changed(
        connection: &mut AnyConnection,
        usage: &dyn UsageSource,
        between: (CustomerId, CustomerId),
        now_ms: i64,
        pending: &[AttributionChange],
    ) -> Result<Months, BillingError> {
        let mut months = charged_keys(connection, between, usage.corrected_from_ms(now_ms)).await?;
        let times = months.values().flatten().map(|month| (month.from_ms, month.to_ms));
        let marks = marks(usage, times.collect()).await?;
        let awaits_change = |month: &ChargedKey| {
            let mut changes = pending.iter();
            changes.any(|change| change.from_ms < month.to_ms && change.to_ms.is_none_or(|to_ms| to_ms > month.from_ms))
        };
        for of_subscription in months.values_mut() {
            of_subscription.retain_mut(|month| match marks.get(&(month.from_ms, month.to_ms)) {
                Some(mark) if *mark != month.mark || awaits_change(month) => {
                    month.mark_now.clone_from(mark);
                    true
                }
                _ => false,
            });
        }
        Ok(Months(months))
    }

    /// Takes those of a customer that are to be looked at now: all of them where there will be a document, else those of
    /// contracts that no document with usage will come of.
    pub(super) fn take(&mut self, contracts: &[Contract], has_document: bool) -> Vec<ChargedKey> {
        let looked_at = contracts
            .iter()
            .filter(|contract| has_document || !awaits_usage(contract));
        let months = looked_at.filter_map(|contract| self.0.remove(&contract.subscription.id));
        months.flatten().collect()
    }
}

/// Whether usage of a contract is still to be charged.
fn awaits_usage(contract: &Contract) -> bool {
    let is_open = |phase: &Phase| {
        let charged_to_ms = phase.usage_charged_to_ms.unwrap_or(phase.usage_from_ms);
        phase.plan.terms != Terms::Flat && phase.usage_to_ms.is_none_or(|end_ms| charged_to_ms < end_ms)
    };
    contract.phases.iter().any(is_open)
}

/// What the usage of some times is measured from; nothing of those that cannot be measured any more.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn marks(
    usage: &dyn UsageSource,
    times: BTreeSet<(i64, i64)>,
) -> Result<HashMap<(i64, i64), String>, BillingError> {
    let times: Vec<(i64, i64)> = times.into_iter().collect();
    let marks = usage.marks(&times).await?;
    let known = times.into_iter().zip(marks);
    Ok(known.filter_map(|(time, mark)| Some((time, mark?))).collect())
}

/// Whether a document would only correct, and the one before that corrected the same is not a day old.
pub(super) fn is_too_soon(
    due: &[DueCharge],
    items: &[ChargeItem],
    months: &[(usize, ChargedUsage)],
    now_ms: i64,
) -> bool {
    let adjusted_at_ms = months.iter().filter_map(|(_, month)| month.adjusted_at_ms).max();
    due.is_empty() && items.is_empty() && adjusted_at_ms.is_some_and(|at_ms| now_ms < at_ms + APART_MS)
}

/// The lines that correct a charged period whose usage is not what was charged any more, or whose pool gives it another share,
/// `from_pool` (B3). What changed without changing the amount needs no line. More is a charge of its own; less is given back
/// of the lines that charged for it, as far as that was not given back before (B6).
pub(super) fn correction(
    contract: &Contract,
    before: &ChargedUsage,
    from_pool: u64,
    (usage, excluded): (&PeriodUsage, &[(i64, i64)]),
    left: &mut UncreditedAmounts,
) -> Result<Vec<DraftLine>, BillingError> {
    let currency = before.charged_so_far.currency;
    let measured = Measured::new(usage, before.measured.mode, excluded);
    let charge = before.charge.clone().with_pool(from_pool);
    let due = rating::rate_usage(&charge, &measured, currency)?.amount;
    let difference = due.checked_add(before.charged_so_far.checked_neg()?)?;
    let mut parts: Vec<(&ChargedLine, Money)> = Vec::new();
    if difference.minor > 0 {
        parts.extend(before.charges.first().map(|line| (line, difference)));
    } else {
        let mut wanted_minor = difference.checked_neg()?.minor;
        for line in &before.charges {
            let taken = left.take(line.line, wanted_minor);
            wanted_minor -= taken;
            if taken > 0 {
                parts.push((line, Money::new(taken, currency).checked_neg()?));
            }
        }
    }
    let described = rating::describe(&charge, &measured)?;
    let uses_the_same = charge.used(&measured) == charge.used(&before.last_measured);
    let causes = if uses_the_same && from_pool != before.last_from_pool {
        "a change of what other services leave".to_owned()
    } else {
        causes(before, &measured)
    };
    // Later lines may have charged more: which invoice charged the month is said where another one is corrected.
    let first = before.charges.first().map(|first| first.number.as_str());
    let lines = parts.into_iter().map(|(corrects, amount)| DraftLine {
        subscription: Some(contract.subscription.id),
        service: Some(contract.service.id),
        kind: LineKind::Adjustment,
        description: match first.filter(|first| *first != corrects.number) {
            Some(first) => format!(
                "{}: correction of {}, which charged more than {first}, after {causes}: {described}",
                contract.service.name, corrects.number,
            ),
            None => format!(
                "{}: correction of {} after {causes}: {described}",
                contract.service.name, corrects.number,
            ),
        },
        quantity: Decimal::ONE,
        unit: "correction".to_owned(),
        unit_price: amount.to_major(),
        priced: amount,
        amount,
        tax_group: 0,
        period_start_ms: before.from_ms,
        period_end_ms: before.to_ms,
        evidence: Evidence::Adjustment {
            corrects_invoice: corrects.invoice,
            corrects_number: corrects.number.clone(),
            corrects_line: corrects.line,
            charged: before.measured.clone(),
            charged_on: first.filter(|first| *first != corrects.number).map(str::to_owned),
            charged_minor: before.charged_so_far.minor,
            due_minor: due.minor,
            given_elsewhere_minor: amount.minor - difference.minor,
            charge: charge.clone(),
            measured: measured.clone(),
        },
    });
    Ok(lines.collect())
}

/// Why a charged month costs something else than when it was charged or corrected last: all that is known of it.
fn causes(before: &ChargedUsage, now: &Measured) -> String {
    let last = &before.last_measured;
    // Attack traffic was stored all the same, counted or not.
    let stored = |measured: &Measured| {
        let bytes_in = measured.bytes_in.saturating_add(measured.excluded_bytes_in);
        let bytes_out = measured.bytes_out.saturating_add(measured.excluded_bytes_out);
        (bytes_in, bytes_out)
    };
    let mut causes = Vec::new();
    if last.excluded != now.excluded {
        causes.push(if now.windows_excluded < last.windows_excluded {
            "counting attack traffic again"
        } else {
            "leaving attack traffic out"
        });
    }
    if before.is_corrected {
        causes.push("a correction of its flows");
    } else if stored(last) != stored(now) || (causes.is_empty() && last != now) {
        causes.push("late data");
    }
    if causes.is_empty() {
        // It was measured as it is now: a correction was made for it, and its document taken back.
        causes.push("an earlier correction was reversed");
    }
    causes.join(" and ")
}
