//! What was charged before, as far as it may have to be corrected or given back.

use std::collections::HashMap;

use jiff::civil::Date;
use schemas::ids::{CustomerId, InvoiceId, InvoiceLineId, PhaseId, SubscriptionId};
use schemas::money::Money;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::due::Due;
use super::read::{LINE_COLUMNS, read_line};
use crate::BillingError;
use crate::evidence::{Evidence, Measured, UsageCharge};
use crate::rating::{ChargedBase, ChargedDiscount};

/// A month of usage that was charged, with everything that was charged for it.
pub(super) struct ChargedUsage {
    pub(super) phase: PhaseId,
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
    pub(super) charge: UsageCharge,
    pub(super) measured: Measured,
    /// As priced, by that line and later adjustments: what was charged for what was measured. What a credit note gave back of it
    /// is not less usage; an adjustment that was taken back itself does not count.
    pub(super) charged_so_far: Money,
    /// What of it can be given back: that line, and later ones that charged more, the first first.
    pub(super) charges: Vec<ChargedLine>,
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
const LEFT: &str = "l.priced_minor - CAST(coalesce((SELECT sum(b.priced_minor) FROM given_back b WHERE b.of_line_id = l.id), 0) \
     AS BIGINT) AS left_minor";

/// The last charged month of usage of each subscription of the customers with ids from `first` to `last`.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub(super) async fn charged_usage(
    connection: &mut AnyConnection,
    first: CustomerId,
    last: CustomerId,
) -> Result<HashMap<SubscriptionId, ChargedUsage>, BillingError> {
    // The last of each phase; of several phases the later one wins below. Adjustments come after what they adjust.
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT {LINE_COLUMNS}, {LEFT}, c.phase_id FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id \
         JOIN charged c ON c.subscription_id = l.subscription_id AND c.start_ms = l.period_start_ms \
         AND c.kind = 'usage' JOIN phases p ON p.id = c.phase_id AND p.usage_to = c.end_date \
         JOIN subscriptions s ON s.id = c.subscription_id \
         WHERE s.customer_id BETWEEN $1 AND $2 \
         AND l.kind IN ('transfer_overage', 'percentile_overage', 'adjustment') \
         AND (i.status <> 'void' OR (l.kind = 'adjustment' AND NOT EXISTS \
         (SELECT 1 FROM given_back b WHERE b.of_line_id = l.id AND b.cause = 'rebill'))) ORDER BY c.end_ms, l.id"
    ));
    let rows = sqlx::query(sql)
        .bind(first.0)
        .bind(last.0)
        .fetch_all(&mut *connection)
        .await?;
    let mut found: HashMap<SubscriptionId, ChargedUsage> = HashMap::new();
    for row in &rows {
        let line = read_line(row)?;
        let Some(subscription) = line.subscription else {
            continue;
        };
        let charge_made = ChargedLine {
            invoice: line.invoice,
            number: row.try_get("number")?,
            line: line.id,
            left_minor: row.try_get("left_minor")?,
        };
        if let Evidence::Usage { charge, measured } = line.evidence {
            let charged = ChargedUsage {
                phase: PhaseId(row.try_get("phase_id")?),
                from_ms: line.period_start_ms,
                to_ms: line.period_end_ms,
                charge,
                measured,
                charged_so_far: line.priced,
                charges: vec![charge_made],
            };
            found.insert(subscription, charged);
        } else if let Some(charged) = found.get_mut(&subscription)
            && matches!(line.evidence, Evidence::Adjustment { .. })
            && charged.from_ms == line.period_start_ms
        {
            let counts = if line.priced.minor > 0 {
                charged.charges.push(charge_made);
                line.priced
            } else {
                Money::new(charge_made.left_minor, line.priced.currency)
            };
            charged.charged_so_far = charged.charged_so_far.checked_add(counts)?;
        }
    }
    Ok(found)
}

/// The charges in advance that are given back, by the key of what gives them back.
///
/// # Errors
/// When one of them was never charged; as the database answers.
pub(super) async fn charged_bases(
    connection: &mut AnyConnection,
    unused: impl Iterator<Item = &Due>,
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
