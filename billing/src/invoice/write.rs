//! Writing a document: number, lines, taxes, ledger postings and the event that tells of it, in the caller's transaction.

use std::collections::BTreeMap;

use schemas::db::{next_id, next_ids};
use schemas::ids::{EntityId, InvoiceId, InvoiceLineId};
use schemas::inventory::{Customer, EntityProfile};
use schemas::money::Money;
use schemas::window::DAY_MS;
use serde_json::json;
use sqlx::AnyConnection;

use super::{Buyer, Draft, InvoiceKind, InvoiceStatus, PAYMENT_TERM_DAYS, number};
use crate::BillingError;
use crate::event::{self, EventType, NewEvent};
use crate::ledger::{self, Account, NewTransaction, Posting};
use crate::rating::{DraftLine, LineKind};

/// A document as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Written {
    pub(super) id: InvoiceId,
    pub(super) number: String,
    /// Of the first line; the others follow.
    pub(super) first_line: InvoiceLineId,
}

/// Who a document is from and for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parties<'a> {
    pub(super) entity: EntityId,
    pub(super) seller: &'a EntityProfile,
    pub(super) customer: &'a Customer,
}

/// What a credit note takes back, and why.
#[derive(Clone, Debug, Default)]
pub(super) struct Corrects {
    pub(super) invoice: Option<InvoiceId>,
    pub(super) reason: String,
}

/// Writes a document. One without anything to pay is paid.
///
/// # Errors
/// When an invariant does not hold, or as the database answers.
pub(super) async fn write(
    connection: &mut AnyConnection,
    parties: Parties<'_>,
    draft: &Draft,
    corrects: &Corrects,
    now_ms: i64,
) -> Result<Written, BillingError> {
    let id = InvoiceId(next_id(connection, "invoice").await?);
    let number = number::next(connection, parties.entity, parties.seller, draft.kind, now_ms).await?;
    let is_settled = draft.total.minor == 0;
    let status = if is_settled {
        InvoiceStatus::Paid
    } else {
        InvoiceStatus::Finalised
    };
    let due_at_ms = match draft.kind {
        InvoiceKind::Invoice => now_ms + PAYMENT_TERM_DAYS * DAY_MS,
        InvoiceKind::CreditNote => now_ms,
    };
    sqlx::query(
        "INSERT INTO invoices (id, kind, number, entity_id, customer_id, customer_name, seller, buyer, currency, \
         period_start_ms, period_end_ms, time_zone, status, corrects_invoice_id, reason, prices_include_tax, \
         subtotal_minor, tax_minor, total_minor, finalised_at_ms, due_at_ms, settled_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)",
    )
    .bind(id.0)
    .bind(draft.kind.name())
    .bind(&number)
    .bind(parties.entity.0)
    .bind(parties.customer.id.0)
    .bind(&parties.customer.name)
    .bind(serde_json::to_string(parties.seller)?)
    .bind(serde_json::to_string(&Buyer::of(parties.customer))?)
    .bind(draft.currency.code())
    .bind(draft.period_start_ms)
    .bind(draft.period_end_ms)
    .bind(&draft.time_zone)
    .bind(status.name())
    .bind(corrects.invoice.map(|invoice| invoice.0))
    .bind(&corrects.reason)
    .bind(i64::from(draft.prices_include_tax))
    .bind(draft.subtotal.minor)
    .bind(draft.tax.minor)
    .bind(draft.total.minor)
    .bind(now_ms)
    .bind(due_at_ms)
    .bind(is_settled.then_some(now_ms))
    .execute(&mut *connection)
    .await?;
    let first_line = insert_lines(connection, id, &draft.lines).await?;
    for (position, amount) in (1i64..).zip(&draft.taxes) {
        sqlx::query(
            "INSERT INTO invoice_taxes (invoice_id, position, name, category, rate_percent, net_minor, tax_minor, note) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(id.0)
        .bind(position)
        .bind(&amount.rule.name)
        .bind(amount.rule.category.code())
        .bind(amount.rule.rate.value().normalize().to_string())
        .bind(amount.net.minor)
        .bind(amount.tax.minor)
        .bind(&amount.rule.note)
        .execute(&mut *connection)
        .await?;
    }
    ledger::post(connection, &transaction(id, &number, draft, now_ms)?).await?;
    let facts = json!({
        "number": number, "total_minor": draft.total.minor, "currency": draft.currency, "due_at_ms": due_at_ms,
        "reason": corrects.reason, "lines": draft.lines.len(),
    });
    let new = NewEvent {
        event_type: match draft.kind {
            InvoiceKind::Invoice => EventType::InvoiceFinalised,
            InvoiceKind::CreditNote => EventType::CreditNoteIssued,
        },
        customer: Some(parties.customer.id),
        subject: id.to_string(),
        payload: facts,
    };
    event::publish(connection, new, now_ms).await?;
    Ok(Written { id, number, first_line })
}

async fn insert_lines(
    connection: &mut AnyConnection,
    invoice: InvoiceId,
    lines: &[DraftLine],
) -> Result<InvoiceLineId, BillingError> {
    let count = i64::try_from(lines.len()).unwrap_or(i64::MAX);
    let first = next_ids(connection, "invoice_line", count).await?;
    for (position, line) in (1i64..).zip(lines) {
        sqlx::query(
            "INSERT INTO invoice_lines (id, invoice_id, position, subscription_id, service_id, kind, description, quantity, \
             unit, unit_price, amount_minor, priced_minor, period_start_ms, period_end_ms, evidence) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        )
        .bind(first + position - 1)
        .bind(invoice.0)
        .bind(position)
        .bind(line.subscription.map(|subscription| subscription.0))
        .bind(line.service.map(|service| service.0))
        .bind(line.kind.name())
        .bind(&line.description)
        .bind(line.quantity.to_string())
        .bind(&line.unit)
        .bind(line.unit_price.to_string())
        .bind(line.amount.minor)
        .bind(line.priced.minor)
        .bind(line.period_start_ms)
        .bind(line.period_end_ms)
        .bind(serde_json::to_string(&line.evidence)?)
        .execute(&mut *connection)
        .await?;
    }
    Ok(InvoiceLineId(first))
}

/// The customer owes the total; what was earned is the subtotal, and the tax office's is the tax.
fn transaction(id: InvoiceId, number: &str, draft: &Draft, now_ms: i64) -> Result<NewTransaction, BillingError> {
    let mut earned: BTreeMap<Account, Money> = BTreeMap::new();
    for line in &draft.lines {
        let account = revenue_of(line);
        let sum = earned.entry(account).or_insert(Money::zero(draft.currency));
        *sum = sum.checked_add(line.amount)?;
    }
    let mut postings = vec![Posting {
        account: Account::receivable(draft.customer, draft.currency),
        amount: draft.total,
    }];
    for (account, amount) in earned {
        if amount.minor != 0 {
            postings.push(Posting {
                account,
                amount: amount.checked_neg()?,
            });
        }
    }
    if draft.tax.minor != 0 {
        postings.push(Posting {
            account: Account::tax(draft.currency),
            amount: draft.tax.checked_neg()?,
        });
    }
    let what = match draft.kind {
        InvoiceKind::Invoice => "invoice",
        InvoiceKind::CreditNote => "credit note",
    };
    Ok(NewTransaction {
        idempotency_key: format!("invoice:{id}"),
        customer: Some(draft.customer),
        invoice: Some(id),
        payment: None,
        refund: None,
        description: format!("{what} {number}"),
        posted_at_ms: now_ms,
        postings,
    })
}

fn revenue_of(line: &DraftLine) -> Account {
    let currency = line.amount.currency;
    match line.kind {
        LineKind::Base | LineKind::Unused => Account::revenue_base(currency),
        LineKind::Addon => Account::revenue_addon(currency),
        LineKind::Discount => Account::discounts(currency),
        LineKind::TransferOverage | LineKind::PercentileOverage | LineKind::Adjustment => {
            Account::revenue_overage(currency)
        }
        LineKind::Item | LineKind::Reversal => Account::revenue_other(currency),
    }
}
