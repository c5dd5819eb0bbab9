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
use crate::rating::{ChargedBase, ChargedDiscount, LineKind};

/// A month of usage that was charged, with everything that was charged for it.
pub(super) struct ChargedUsage {
    pub(super) phase: PhaseId,
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
    pub(super) invoice: InvoiceId,
    pub(super) number: String,
    pub(super) line: InvoiceLineId,
    pub(super) charge: UsageCharge,
    pub(super) measured: Measured,
    /// As priced: by that line and later adjustments.
    pub(super) charged_so_far: Money,
}

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
        "SELECT {LINE_COLUMNS}, c.phase_id FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id \
         JOIN charged c ON c.subscription_id = l.subscription_id AND c.start_ms = l.period_start_ms \
         AND c.kind = 'usage' JOIN phases p ON p.id = c.phase_id AND p.usage_to = c.end_date \
         JOIN subscriptions s ON s.id = c.subscription_id \
         WHERE s.customer_id BETWEEN $1 AND $2 AND i.status <> 'void' \
         AND l.kind IN ('transfer_overage', 'percentile_overage', 'adjustment') ORDER BY c.end_ms, l.id"
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
        if let Evidence::Usage { charge, measured } = line.evidence {
            let charged = ChargedUsage {
                phase: PhaseId(row.try_get("phase_id")?),
                from_ms: line.period_start_ms,
                to_ms: line.period_end_ms,
                invoice: line.invoice,
                number: row.try_get("number")?,
                line: line.id,
                charge,
                measured,
                charged_so_far: line.priced,
            };
            found.insert(subscription, charged);
        } else if let Some(charged) = found.get_mut(&subscription)
            && line.kind == LineKind::Adjustment
            && charged.from_ms == line.period_start_ms
        {
            charged.charged_so_far = charged.charged_so_far.checked_add(line.priced)?;
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
        let rows = sqlx::query(
            "SELECT l.id, l.invoice_id, l.kind, l.evidence, l.priced_minor, i.number FROM charged c \
             JOIN invoice_lines b ON b.id = c.line_id \
             JOIN invoice_lines l ON l.invoice_id = c.invoice_id AND l.subscription_id = c.subscription_id \
             AND l.position IN (b.position, b.position + 1) \
             JOIN invoices i ON i.id = c.invoice_id \
             WHERE c.phase_id = $1 AND c.kind = 'base' AND c.end_date = $2 ORDER BY l.position",
        )
        .bind(due.phase_id.0)
        .bind(due.charged.period.end_date.to_string())
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
