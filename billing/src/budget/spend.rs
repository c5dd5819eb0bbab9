//! What counts against a budget.
//!
//! | line | counts in the cycle that holds |
//! |---|---|
//! | base price in advance, its discount | the start of what it is for |
//! | base price in arrears, usage | the last moment of what it is for |
//! | days given back | the first of them |
//! | corrections, items, credit notes | the instant of the invoice |
//! | any line of a period that is running | now |
//!
//! So a month that ended with the cycle does not count against the next one, although its invoice is written in it. Amounts
//! are as priced: without tax, or with it where the customer's prices include it. A void invoice and what voided it do not
//! count, and neither does anything for an excluded service.

use std::collections::{HashMap, HashSet};

use schemas::ids::{CustomerId, ServiceId, SubscriptionId};
use schemas::money::Currency;
use schemas::period::Period;
use schemas::usage::{project, windows_of_period};
use sqlx::{AnyConnection, Row as _};

use super::BudgetError;
use crate::catalog::BaseTiming;
use crate::evidence::{Evidence, Measured, UsageCharge};
use crate::invoice::Draft;
use crate::line_kind::LineKind;
use crate::rating::{DraftLine, rate_usage};

/// What a cycle has cost so far and will if the rest of it goes on as the measured part did, in minor units.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Spend {
    pub(super) spent_minor: i64,
    pub(super) forecast_minor: i64,
}

impl Spend {
    fn add(&mut self, spent_minor: i64, forecast_minor: i64) {
        self.spent_minor = self.spent_minor.saturating_add(spent_minor);
        self.forecast_minor = self.forecast_minor.saturating_add(forecast_minor);
    }
}

/// What a line is for.
struct LineScope {
    kind: LineKind,
    in_advance: bool,
    period_start_ms: i64,
    period_end_ms: i64,
    /// When it was, or would be, invoiced.
    invoiced_at_ms: i64,
}

impl LineScope {
    /// The instant that decides in which cycle it counts.
    fn counts_at_ms(&self) -> i64 {
        match self.kind {
            LineKind::Base | LineKind::Addon | LineKind::Discount if self.in_advance => self.period_start_ms,
            LineKind::Base
            | LineKind::Addon
            | LineKind::Discount
            | LineKind::TransferOverage
            | LineKind::PercentileOverage => self.period_end_ms - 1,
            LineKind::Unused => self.period_start_ms,
            LineKind::Adjustment | LineKind::Item | LineKind::Reversal => self.invoiced_at_ms,
        }
    }
}

/// Adds up a cycle: finalised invoices and drafts.
pub(super) async fn spend(
    connection: &mut AnyConnection,
    customer: CustomerId,
    drafts: &[Draft],
    excluded: &HashSet<ServiceId>,
    cycle: &Period,
    now_ms: i64,
) -> Result<Spend, BudgetError> {
    let mut spend = Spend::default();
    let invoiced_minor = finalised(connection, customer, excluded, cycle).await?;
    spend.add(invoiced_minor, invoiced_minor);
    let services = services(connection, customer).await?;
    let is_excluded = |line: &DraftLine| {
        let by_subscription = line.subscription.and_then(|subscription| services.get(&subscription));
        line.service
            .as_ref()
            .or(by_subscription)
            .is_some_and(|service| excluded.contains(service))
    };
    for draft in drafts {
        for line in draft.lines.iter().filter(|line| !is_excluded(line)) {
            let is_running = draft.due_ms > now_ms;
            let charged = LineScope {
                kind: line.kind,
                in_advance: line.period_end_ms > draft.due_ms,
                period_start_ms: line.period_start_ms,
                period_end_ms: line.period_end_ms,
                invoiced_at_ms: now_ms,
            };
            if !is_running && !holds(cycle, charged.counts_at_ms()) {
                continue;
            }
            let forecast_minor = match &line.evidence {
                Evidence::Usage { charge, measured, .. } if is_running => {
                    projected_minor(line, charge, measured, cycle, draft.currency)?
                }
                _ => line.priced.minor,
            };
            spend.add(line.priced.minor, forecast_minor);
        }
    }
    Ok(spend)
}

fn holds(cycle: &Period, at_ms: i64) -> bool {
    (cycle.start_ms..cycle.end_ms).contains(&at_ms)
}

/// What usage will cost at the end of its period or of the cycle, whichever is first. A percentile is not added up over
/// time: it is taken as it is.
fn projected_minor(
    line: &DraftLine,
    charge: &UsageCharge,
    measured: &Measured,
    cycle: &Period,
    currency: Currency,
) -> Result<i64, BudgetError> {
    let end_ms = line.period_end_ms.min(cycle.end_ms);
    let windows = windows_of_period(line.period_start_ms, end_ms);
    let projected = Measured {
        billed_bytes: project(measured.billed_bytes, measured.windows_measured, windows),
        ..measured.clone()
    };
    Ok(rate_usage(charge, &projected, currency)?.amount.minor)
}

/// What finalised documents have in the cycle. Nothing is finalised before it is due, so older ones have nothing in it.
async fn finalised(
    connection: &mut AnyConnection,
    customer: CustomerId,
    excluded: &HashSet<ServiceId>,
    cycle: &Period,
) -> Result<i64, BudgetError> {
    let rows = sqlx::query(
        "SELECT l.kind, coalesce(l.service_id, s.service_id) AS service_id, l.priced_minor, l.period_start_ms, l.period_end_ms, \
         i.finalised_at_ms, (SELECT max(n.base_timing) FROM charged c JOIN phases p ON p.id = c.phase_id \
         JOIN plans n ON n.id = p.plan_id WHERE c.invoice_id = i.id AND c.subscription_id = l.subscription_id AND c.kind = 'base' \
         AND c.start_ms = l.period_start_ms) AS base_timing \
         FROM invoices i JOIN invoice_lines l ON l.invoice_id = i.id LEFT JOIN subscriptions s ON s.id = l.subscription_id \
         WHERE i.customer_id = $1 AND i.finalised_at_ms >= $2 AND i.status <> 'void' \
         AND NOT EXISTS (SELECT 1 FROM invoices v WHERE v.id = i.corrects_invoice_id AND v.status = 'void') ORDER BY l.id",
    )
    .bind(customer.0)
    .bind(cycle.start_ms)
    .fetch_all(connection)
    .await?;
    let mut sum_minor = 0i64;
    for row in &rows {
        let service: Option<i64> = row.try_get("service_id")?;
        if service.is_some_and(|service| excluded.contains(&ServiceId(service))) {
            continue;
        }
        let timing: Option<String> = row.try_get("base_timing")?;
        let (period_end_ms, invoiced_at_ms) = (row.try_get("period_end_ms")?, row.try_get("finalised_at_ms")?);
        let charged = LineScope {
            kind: row.try_get::<String, _>("kind")?.parse()?,
            in_advance: match timing {
                Some(timing) => timing == BaseTiming::Advance.name(),
                None => invoiced_at_ms < period_end_ms,
            },
            period_start_ms: row.try_get("period_start_ms")?,
            period_end_ms,
            invoiced_at_ms,
        };
        if holds(cycle, charged.counts_at_ms()) {
            sum_minor = sum_minor.saturating_add(row.try_get("priced_minor")?);
        }
    }
    Ok(sum_minor)
}

/// The service of each of a customer's subscriptions.
async fn services(
    connection: &mut AnyConnection,
    customer: CustomerId,
) -> Result<HashMap<SubscriptionId, ServiceId>, BudgetError> {
    let rows = sqlx::query("SELECT id, service_id FROM subscriptions WHERE customer_id = $1")
        .bind(customer.0)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| Ok((SubscriptionId(row.try_get(0)?), ServiceId(row.try_get(1)?))))
        .collect()
}
