//! Taking back: credit notes and voids.
//!
//! A finalised invoice never changes (B3). What was wrong on it is taken back by a credit note with the invoice's own tax
//! rules, as a whole, line for line, or an amount. A credit note settles what is open of its invoice; the rest becomes the
//! customer's credit. An invoice of which nothing was settled can be void: a credit note over the whole of it, after
//! which its charges can be made again, if asked.

use jiff::civil::Date;
use rust_decimal::Decimal;
use schemas::ids::{InvoiceId, PhaseId};
use schemas::inventory;
use schemas::money::Money;
use serde_json::json;
use sqlx::{AnyConnection, Row as _};

use super::read::get_in;
use super::write::{Corrects, NewDocument, Parties, write};
use super::{Draft, Invoice, InvoiceKind, InvoiceStatus, InvoiceWithLines};
use crate::catalog::checked_text;
use crate::event::{self, EventType, NewEvent};
use crate::evidence::Evidence;
use crate::rating::{DraftLine, LineKind};
use crate::tax::{self, TaxRule};
use crate::{BillingError, settlement};

/// Characters in the reason of a credit note at most.
const MAX_REASON_CHARS: usize = 300;

/// What of an invoice is taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Credited {
    /// All of it, line for line.
    Whole,
    /// An amount as priced: with tax where the customer's prices include it.
    Amount(Money),
}

/// Whether the charges of a void invoice are made again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rebill {
    No,
    Yes,
}

/// Issues a credit note, and applies it.
///
/// # Errors
/// When the invoice is a credit note or void, or more would be taken back than was charged.
pub async fn credit(
    connection: &mut AnyConnection,
    invoice: InvoiceId,
    what: Credited,
    reason: &str,
    now_ms: i64,
) -> Result<InvoiceId, BillingError> {
    let reason = checked_text("reason", reason, MAX_REASON_CHARS)?;
    // Whoever settles something of this customer takes the same lock.
    let corrected = lock(connection, invoice).await?;
    let refuse = |why| BillingError::NotCredited { invoice, why };
    if corrected.invoice.kind == InvoiceKind::CreditNote {
        return Err(refuse("it is a credit note itself"));
    }
    if corrected.invoice.status == InvoiceStatus::Void {
        return Err(refuse("it is void"));
    }
    let before = credited(connection, invoice).await?;
    let lines = match what {
        Credited::Whole if before != 0 => return Err(refuse("a part of it was taken back already: give the amount")),
        Credited::Whole => corrected
            .lines
            .iter()
            .map(|line| reversed(&corrected.invoice, line))
            .collect::<Result<_, _>>()?,
        Credited::Amount(amount) => vec![one_line(&corrected.invoice, amount, &reason)?],
    };
    let draft = draft(&corrected, lines)?;
    if draft.total.minor >= 0 {
        return Err(refuse("the amount is not more than zero"));
    }
    if -(before + draft.total.minor) > corrected.invoice.total.minor {
        return Err(refuse("more would be taken back than was charged"));
    }
    let customer = inventory::customer(&mut *connection, corrected.invoice.customer).await?;
    let entity = inventory::entity(&mut *connection, corrected.invoice.entity).await?;
    let parties = Parties {
        entity: entity.id,
        seller: &entity.profile,
        customer: &customer,
    };
    let corrects = Corrects {
        invoice: Some(invoice),
        reason,
    };
    let document = NewDocument {
        parties,
        draft: &draft,
        corrects: &corrects,
    };
    let written = write(connection, &[document], now_ms).await?;
    // One was given, so one was written.
    let id = written[0].id;
    settlement::apply_credit_note(connection, id, now_ms).await?;
    Ok(id)
}

/// Makes an invoice void by a credit note over the whole of it, whose id is returned.
///
/// # Errors
/// When something of it was settled or taken back, or its charges cannot be made again because later ones build on them.
pub async fn void(
    connection: &mut AnyConnection,
    invoice: InvoiceId,
    rebill: Rebill,
    reason: &str,
    now_ms: i64,
) -> Result<InvoiceId, BillingError> {
    let found = lock(connection, invoice).await?.invoice;
    if found.settled.minor != 0 || found.status != InvoiceStatus::Finalised {
        return Err(BillingError::NotCredited {
            invoice,
            why: "something of it was settled: give it back by a credit note",
        });
    }
    if rebill == Rebill::Yes {
        release_charges(connection, invoice).await?;
    }
    let note = credit(connection, invoice, Credited::Whole, reason, now_ms).await?;
    sqlx::query("UPDATE invoices SET status = 'void', settled_at_ms = $1 WHERE id = $2")
        .bind(now_ms)
        .bind(invoice.0)
        .execute(&mut *connection)
        .await?;
    let new = NewEvent {
        event_type: EventType::InvoiceVoided,
        customer: Some(found.customer),
        subject: invoice.to_string(),
        payload: json!({ "number": found.number, "reason": reason, "credit_note_id": note }),
    };
    event::publish(connection, new, now_ms).await?;
    Ok(note)
}

async fn lock(connection: &mut AnyConnection, invoice: InvoiceId) -> Result<InvoiceWithLines, BillingError> {
    sqlx::query("UPDATE customers SET id = id WHERE id = (SELECT customer_id FROM invoices WHERE id = $1)")
        .bind(invoice.0)
        .execute(&mut *connection)
        .await?;
    get_in(connection, invoice).await
}

/// What credit notes have taken back of an invoice, negative.
async fn credited(connection: &mut AnyConnection, invoice: InvoiceId) -> Result<i64, BillingError> {
    let row = sqlx::query(
        "SELECT CAST(coalesce(sum(total_minor), 0) AS BIGINT) FROM invoices WHERE kind = 'credit_note' \
         AND corrects_invoice_id = $1",
    )
    .bind(invoice.0)
    .fetch_one(connection)
    .await?;
    Ok(row.try_get(0)?)
}

fn reversed(invoice: &Invoice, line: &super::InvoiceLine) -> Result<DraftLine, BillingError> {
    Ok(DraftLine {
        subscription: line.subscription,
        service: line.service,
        kind: line.kind,
        description: line.description.clone(),
        quantity: line.quantity,
        unit: line.unit.clone(),
        unit_price: -line.unit_price,
        priced: line.priced.checked_neg()?,
        amount: line.priced.checked_neg()?,
        period_start_ms: line.period_start_ms,
        period_end_ms: line.period_end_ms,
        evidence: Evidence::Reversal {
            corrects_invoice: invoice.id,
            corrects_number: invoice.number.clone(),
            corrects_line: Some(line.id),
        },
    })
}

fn one_line(invoice: &Invoice, amount: Money, reason: &str) -> Result<DraftLine, BillingError> {
    if amount.currency != invoice.currency {
        return Err(BillingError::NotCredited {
            invoice: invoice.id,
            why: "the amount is in another currency",
        });
    }
    let back = amount.checked_neg()?;
    Ok(DraftLine {
        subscription: None,
        service: None,
        kind: LineKind::Reversal,
        description: reason.to_owned(),
        quantity: Decimal::ONE,
        unit: "credit".to_owned(),
        unit_price: back.to_major(),
        priced: back,
        amount: back,
        period_start_ms: invoice.period_start_ms,
        period_end_ms: invoice.period_end_ms,
        evidence: Evidence::Reversal {
            corrects_invoice: invoice.id,
            corrects_number: invoice.number.clone(),
            corrects_line: None,
        },
    })
}

/// By the tax rules of the invoice, whatever holds now.
fn draft(corrected: &InvoiceWithLines, mut lines: Vec<DraftLine>) -> Result<Draft, BillingError> {
    let invoice = &corrected.invoice;
    let rules: Vec<TaxRule> = corrected.taxes.iter().map(|tax| tax.rule.clone()).collect();
    let priced: Vec<Money> = lines.iter().map(|line| line.priced).collect();
    let taxed = tax::apply(&priced, &rules, invoice.prices_include_tax, invoice.currency)?;
    for (line, net) in lines.iter_mut().zip(&taxed.lines_net) {
        line.amount = *net;
    }
    Ok(Draft {
        coverage_percent: None,
        kind: InvoiceKind::CreditNote,
        customer: invoice.customer,
        customer_name: invoice.customer_name.clone(),
        currency: invoice.currency,
        time_zone: invoice.time_zone.clone(),
        period_start_ms: invoice.period_start_ms,
        period_end_ms: invoice.period_end_ms,
        due_ms: invoice.finalised_at_ms,
        measured_to_ms: invoice.finalised_at_ms,
        open: None,
        prices_include_tax: invoice.prices_include_tax,
        lines,
        subtotal: taxed.subtotal,
        taxes: taxed.taxes,
        tax: taxed.tax,
        total: taxed.total,
    })
}

/// Lets the charges of an invoice be made again: its keys go, and its phases are charged up to where they were before it.
async fn release_charges(connection: &mut AnyConnection, invoice: InvoiceId) -> Result<(), BillingError> {
    let rows = sqlx::query(
        "SELECT c.kind, c.phase_id, min(c.start_date) AS start_date, p.from_date, (SELECT count(*) FROM charged l \
         WHERE l.phase_id = c.phase_id AND l.kind = c.kind AND l.invoice_id <> c.invoice_id AND l.end_ms > min(c.start_ms)) \
         AS later FROM charged c JOIN phases p ON p.id = c.phase_id WHERE c.invoice_id = $1 \
         GROUP BY c.kind, c.phase_id, c.invoice_id, p.from_date ORDER BY c.phase_id",
    )
    .bind(invoice.0)
    .fetch_all(&mut *connection)
    .await?;
    for row in &rows {
        let kind: String = row.try_get("kind")?;
        let refuse = |why| BillingError::NotCredited { invoice, why };
        if kind == "unused" {
            return Err(refuse(
                "it gave unused days back, which cannot be done again: correct it by an item",
            ));
        }
        if row.try_get::<i64, _>("later")? > 0 {
            return Err(refuse("later periods were charged since: void those first"));
        }
        let phase = PhaseId(row.try_get("phase_id")?);
        let date = |column: &str| -> Result<Date, BillingError> {
            let text: String = row.try_get(column)?;
            text.parse().map_err(|_| BillingError::corrupt("date of a phase", text))
        };
        let (start, from) = (date("start_date")?, date("from_date")?);
        let to = (start > from).then(|| start.to_string());
        let sql = match kind.as_str() {
            "base" => "UPDATE phases SET base_to = $1 WHERE id = $2",
            _ => "UPDATE phases SET usage_to = $1 WHERE id = $2",
        };
        sqlx::query(sql)
            .bind(to)
            .bind(phase.0)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query("DELETE FROM charged WHERE invoice_id = $1")
        .bind(invoice.0)
        .execute(&mut *connection)
        .await?;
    sqlx::query("UPDATE charge_items SET invoice_id = NULL WHERE invoice_id = $1")
        .bind(invoice.0)
        .execute(connection)
        .await?;
    Ok(())
}
