//! What was charged before, as far as it may have to be corrected or given back.

use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::civil::Date;
use schemas::bulk;
use schemas::ids::{CustomerId, InvoiceId, InvoiceLineId, PhaseId, ServiceId, SubscriptionId};
use schemas::money::Money;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::InvoiceLine;
use super::due::DueCharge;
use super::pool::PoolLine;
use super::read::{LINE_COLUMNS, read_line};
use crate::BillingError;
use crate::evidence::{Evidence, Measured, UsageCharge};
use crate::rating::{ChargedBase, ChargedDiscount};

/// A month of usage that was charged, by its mark in table `charged`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ChargedKey {
    pub(super) key: String,
    pub(super) subscription: SubscriptionId,
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
    /// What its usage was measured from when it was charged or last looked at.
    pub(super) mark: String,
    /// What it is measured from now; nothing until it is asked for.
    pub(super) mark_now: String,
}

/// A month of usage that was charged, with everything that was charged for it.
#[derive(Debug)]
pub(super) struct ChargedUsage {
    pub(super) key: ChargedKey,
    /// The invoice that charged it first.
    pub(super) invoice: InvoiceId,
    pub(super) phase: PhaseId,
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
    pub(super) charge: UsageCharge,
    pub(super) measured: Measured,
    /// Whether it shared with other services, as its line says.
    pub(super) is_pooled: Option<bool>,
    /// As priced, by that line and later adjustments: what was charged for what was measured. What a credit note gave back of it
    /// is not less usage; an adjustment that was taken back itself does not count.
    pub(super) charged_so_far: Money,
    /// What of it can be given back: that line, and later ones that charged more, the first first.
    pub(super) charges: Vec<ChargedLine>,
    /// When the last adjustment was made.
    pub(super) adjusted_at_ms: Option<i64>,
    /// By its last adjustment, else as `measured`.
    pub(super) last_measured: Measured,
    /// What it got from the pool by its last adjustment, else by `charge`.
    pub(super) last_from_pool: u64,
    /// Flows of the month were corrected since the last document that charged or adjusted it.
    pub(super) is_corrected: bool,
}

/// A line that charged, as far as it may be given back (B6).
#[derive(Clone, Debug)]
pub(super) struct ChargedLine {
    pub(super) invoice: InvoiceId,
    pub(super) number: String,
    pub(super) line: InvoiceLineId,
    pub(super) left_minor: i64,
}

/// What is left of a line `l`.
const LEFT: &str = "l.priced_minor - CAST(coalesce((SELECT sum(b.priced_minor) FROM line_credits b WHERE b.credited_line_id = l.id), 0) \
     AS BIGINT) AS left_minor";

/// The charged months of usage that ended after `since_ms`, of the customers with ids from `first` to `last`, by
/// subscription, oldest first. What is void was not charged.
///
/// # Errors
/// As the database answers.
pub(super) async fn charged_keys(
    connection: &mut AnyConnection,
    (first, last): (CustomerId, CustomerId),
    since_ms: i64,
) -> Result<HashMap<SubscriptionId, Vec<ChargedKey>>, BillingError> {
    let rows = sqlx::query(
        "SELECT c.charge_key, c.subscription_id, c.start_ms, c.end_ms, c.usage_mark FROM charged c \
         JOIN subscriptions s ON s.id = c.subscription_id JOIN invoices i ON i.id = c.invoice_id \
         WHERE s.customer_id BETWEEN $1 AND $2 AND c.kind = 'usage' AND c.end_ms > $3 AND i.status <> 'void' \
         ORDER BY c.subscription_id, c.start_ms",
    )
    .bind(first.0)
    .bind(last.0)
    .bind(since_ms)
    .fetch_all(connection)
    .await?;
    let mut found: HashMap<SubscriptionId, Vec<ChargedKey>> = HashMap::new();
    for row in &rows {
        let key = ChargedKey {
            key: row.try_get(0)?,
            subscription: SubscriptionId(row.try_get(1)?),
            from_ms: row.try_get(2)?,
            to_ms: row.try_get(3)?,
            mark: row.try_get(4)?,
            mark_now: String::new(),
        };
        found.entry(key.subscription).or_default().push(key);
    }
    Ok(found)
}

/// What was charged for some charged months, in their order.
///
/// # Errors
/// When a stored value is not understood; as the database answers.
pub(super) async fn charged_usage(
    connection: &mut AnyConnection,
    keys: Vec<ChargedKey>,
) -> Result<Vec<ChargedUsage>, BillingError> {
    // A month's line and its adjustments, in their order; what is void was not charged, unless it was not to be made again. What
    // corrected a charge before it was made again does not correct the new one.
    let sql = format!(
        "SELECT {LINE_COLUMNS}, {LEFT}, i.finalised_at_ms, c.phase_id, c.charge_key, c.line_id, \
         (SELECT count(*) FROM exporter_corrections x WHERE x.applied_at_ms > i.finalised_at_ms AND x.from_ms < \
         c.end_ms \
         AND x.to_ms > c.start_ms) AS corrections FROM charged c \
         JOIN invoice_lines l ON l.subscription_id = c.subscription_id AND l.period_start_ms = c.start_ms \
         JOIN invoices i ON i.id = l.invoice_id WHERE c.charge_key IN ({{values}}) \
         AND (l.id = c.line_id OR (l.kind = 'adjustment' AND l.id > c.line_id)) \
         AND (i.status <> 'void' OR (l.kind = 'adjustment' AND NOT EXISTS \
         (SELECT 1 FROM line_credits b WHERE b.credited_line_id = l.id AND b.cause = 'rebill'))) ORDER BY l.id"
    );
    let rows = bulk::rows_of_values(connection, &sql, &keys, |query, key| query.bind(&key.key)).await?;
    let mut lines: HashMap<String, Lines> = HashMap::new();
    for row in &rows {
        let line = read_line(row)?;
        let of_month = lines.entry(row.try_get("charge_key")?).or_default();
        let charge = ChargedLine {
            invoice: line.invoice,
            number: row.try_get("number")?,
            line: line.id,
            left_minor: row.try_get("left_minor")?,
        };
        let is_corrected = row.try_get::<i64, _>("corrections")? > 0;
        if line.id.0 == row.try_get::<i64, _>("line_id")? {
            of_month.is_corrected = is_corrected;
            of_month.charged = Some((line, PhaseId(row.try_get("phase_id")?), charge));
        } else if let Evidence::Adjustment {
            charge: by, measured, ..
        } = line.evidence
        {
            // What a credit note takes back is of the same kind, and was charged all the same.
            of_month.is_corrected = is_corrected;
            of_month.last = Some((measured, by.from_pool()));
            of_month.adjustments.push((line.priced, charge));
            of_month.adjusted_at_ms = of_month.adjusted_at_ms.max(Some(row.try_get("finalised_at_ms")?));
        }
    }
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let of_month = lines.remove(&key.key).unwrap_or_default();
        let (line, phase, charged) = of_month
            .charged
            .ok_or_else(|| BillingError::corrupt("charge of usage", key.key.clone()))?;
        let Evidence::Usage {
            charge,
            measured,
            is_pooled,
        } = line.evidence
        else {
            return Err(BillingError::corrupt("charge of usage", key.key));
        };
        let (last_measured, last_from_pool) = of_month.last.unwrap_or_else(|| (measured.clone(), charge.from_pool()));
        let mut charged_so_far = line.priced;
        let mut charges = vec![charged];
        for (priced, adjustment) in of_month.adjustments {
            let counts = if priced.minor > 0 {
                charges.push(adjustment);
                priced
            } else {
                Money::new(adjustment.left_minor, priced.currency)
            };
            charged_so_far = charged_so_far.checked_add(counts)?;
        }
        found.push(ChargedUsage {
            invoice: line.invoice,
            phase,
            from_ms: line.period_start_ms,
            to_ms: line.period_end_ms,
            charge,
            last_measured,
            last_from_pool,
            is_corrected: of_month.is_corrected,
            measured,
            is_pooled,
            charged_so_far,
            charges,
            adjusted_at_ms: of_month.adjusted_at_ms,
            key,
        });
    }
    Ok(found)
}

/// What was charged for a month of usage.
#[derive(Debug, Default)]
struct Lines {
    /// The line and its phase.
    charged: Option<(InvoiceLine, PhaseId, ChargedLine)>,
    /// What later corrections came to.
    adjustments: Vec<(Money, ChargedLine)>,
    adjusted_at_ms: Option<i64>,
    /// What the last correction went by, and what that got from the pool.
    last: Option<(Measured, u64)>,
    is_corrected: bool,
}

/// The usage lines of the invoices that charged some months, as far as they are for the same time: those that may share, by
/// invoice, in their order. Nothing of months that say that they were not pooled. What it costs follows from the length of the
/// invoices, however many of their months are asked for.
///
/// # Errors
/// When a stored value is not understood; as the database answers.
pub(super) async fn pool_lines(
    connection: &mut AnyConnection,
    months: &[ChargedUsage],
) -> Result<HashMap<InvoiceId, Vec<PoolLine>>, BillingError> {
    let perhaps_pooled = || months.iter().filter(|month| month.is_pooled != Some(false));
    let times: HashSet<(InvoiceId, i64, i64)> = perhaps_pooled()
        .map(|month| (month.invoice, month.from_ms, month.to_ms))
        .collect();
    let invoices: BTreeSet<InvoiceId> = perhaps_pooled().map(|month| month.invoice).collect();
    let invoices: Vec<InvoiceId> = invoices.into_iter().collect();
    let sql = "SELECT c.charge_key, c.subscription_id, c.phase_id, l.invoice_id, l.service_id, l.period_start_ms, \
               l.period_end_ms, l.evidence FROM charged c JOIN invoice_lines l ON l.id = c.line_id \
               WHERE c.kind = 'usage' AND c.invoice_id IN ({values}) ORDER BY l.id";
    let rows = bulk::rows_of_values(connection, sql, &invoices, |query, invoice| query.bind(invoice.0)).await?;
    let mut lines: HashMap<InvoiceId, Vec<PoolLine>> = HashMap::new();
    for row in &rows {
        let invoice = InvoiceId(row.try_get("invoice_id")?);
        let (from_ms, to_ms): (i64, i64) = (row.try_get("period_start_ms")?, row.try_get("period_end_ms")?);
        if !times.contains(&(invoice, from_ms, to_ms)) {
            continue;
        }
        let key: String = row.try_get("charge_key")?;
        let Evidence::Usage {
            charge,
            measured,
            is_pooled,
        } = evidence(row)?
        else {
            return Err(BillingError::corrupt("charge of usage", key));
        };
        lines.entry(invoice).or_default().push(PoolLine {
            key,
            subscription: SubscriptionId(row.try_get("subscription_id")?),
            service: ServiceId(row.try_get("service_id")?),
            phase: PhaseId(row.try_get("phase_id")?),
            from_ms,
            to_ms,
            charge,
            measured,
            is_pooled,
        });
    }
    Ok(lines)
}

/// What was charged for the lines of a pool, in their order.
///
/// # Errors
/// When a stored value is not understood; as the database answers.
pub(super) async fn charged_lines(
    connection: &mut AnyConnection,
    lines: &[PoolLine],
) -> Result<Vec<ChargedUsage>, BillingError> {
    let key = |line: &PoolLine| ChargedKey {
        key: line.key.clone(),
        subscription: line.subscription,
        from_ms: line.from_ms,
        to_ms: line.to_ms,
        mark: String::new(),
        mark_now: String::new(),
    };
    charged_usage(connection, lines.iter().map(key).collect()).await
}

/// The month of usage of a subscription that begins at an instant, with everything that was charged for it; `None`
/// where
/// what was charged is void.
///
/// # Errors
/// When a stored value is not understood; as the database answers.
pub(super) async fn charged_month(
    connection: &mut AnyConnection,
    subscription: SubscriptionId,
    from_ms: i64,
) -> Result<Option<ChargedUsage>, BillingError> {
    let row = sqlx::query(
        "SELECT c.charge_key, c.end_ms, c.usage_mark FROM charged c JOIN invoices i ON i.id = c.invoice_id \
         WHERE c.subscription_id = $1 AND c.start_ms = $2 AND c.kind = 'usage' AND i.status <> 'void'",
    )
    .bind(subscription.0)
    .bind(from_ms)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let key = ChargedKey {
        key: row.try_get(0)?,
        subscription,
        from_ms,
        to_ms: row.try_get(1)?,
        mark: row.try_get(2)?,
        mark_now: String::new(),
    };
    Ok(charged_usage(connection, vec![key]).await?.pop())
}

/// The charges in advance that are given back, by the key of what gives them back.
///
/// # Errors
/// When one of them was never charged; as the database answers.
pub(super) async fn charged_bases(
    connection: &mut AnyConnection,
    unused: impl Iterator<Item = &DueCharge>,
) -> Result<HashMap<String, ChargedBase>, BillingError> {
    let mut bases = HashMap::new();
    for due in unused {
        // A period that was charged in parts has several lines: the one that charged the days in question is the last that
        // begins with or before them.
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT l.id, l.invoice_id, l.kind, l.evidence, l.priced_minor, {LEFT}, i.number FROM charged c \
             JOIN invoice_lines b ON b.id = c.line_id \
             JOIN invoice_lines l ON l.invoice_id = c.invoice_id AND l.subscription_id = c.subscription_id \
             AND l.position IN (b.position, b.position + 1) \
             JOIN invoices i ON i.id = c.invoice_id \
             WHERE c.phase_id = $1 AND c.kind = 'base' AND c.end_date = $2 AND c.start_date = (SELECT max(o.start_date) \
             FROM charged o WHERE o.phase_id = $1 AND o.kind = 'base' AND o.end_date = $2 AND o.start_date <= $3) \
             ORDER BY l.position"
        ));
        let rows = sqlx::query(sql)
            .bind(due.phase_id.0)
            .bind(due.charged.period.end_date.to_string())
            .bind(due.charged.period.start_date.to_string())
            .fetch_all(&mut *connection)
            .await?;
        let mut base: Option<ChargedBase> = None;
        for row in &rows {
            match (evidence(row)?, base.as_mut()) {
                (Evidence::Base(charge), None) => {
                    base = Some(ChargedBase {
                        invoice: InvoiceId(row.try_get("invoice_id")?),
                        number: row.try_get("number")?,
                        line: InvoiceLineId(row.try_get("id")?),
                        charge,
                        discount: None,
                        left_minor: row.try_get("left_minor")?,
                    });
                }
                // The discount follows the line that it is taken off.
                (Evidence::Discount { code, covered, .. }, Some(base)) => {
                    let until = covered.map(|covered| covered.until.parse::<Date>());
                    base.discount = Some(ChargedDiscount {
                        line: InvoiceLineId(row.try_get("id")?),
                        code,
                        minor: row.try_get("priced_minor")?,
                        until: until
                            .transpose()
                            .map_err(|error| BillingError::corrupt("end of a coupon", error.to_string()))?,
                    });
                }
                _ => {}
            }
        }
        let base = base.ok_or_else(|| BillingError::corrupt("charge in advance", due.key.clone()))?;
        bases.insert(due.key.clone(), base);
    }
    Ok(bases)
}

fn evidence(row: &AnyRow) -> Result<Evidence, BillingError> {
    let evidence: String = row.try_get("evidence")?;
    serde_json::from_str(&evidence).map_err(|_| BillingError::corrupt("evidence", evidence))
}
