//! Writing documents: number, lines, taxes, ledger postings and the event that tells of it, in the caller's transaction.

use std::collections::BTreeMap;

use activity::event::{EventType, NewEvent};
use schemas::bulk;
use schemas::db::next_ids;
use schemas::ids::{InvoiceId, InvoiceLineId};
use schemas::money::Money;
use serde_json::json;
use sqlx::AnyConnection;

use super::new_document::{NewDocument, Parties, Written};
use super::{Buyer, Draft, InvoiceKind, InvoiceStatus, line_credits, number};
use crate::BillingError;
use crate::collection_terms::{self, Terms};
use crate::event;
use crate::evidence::Evidence;
use crate::ledger::{self, Account, NewTransaction, Posting};
use crate::line_kind::LineKind;
use crate::rating::DraftLine;

/// Writes documents, in their order, with a few statements for all of them. One without anything to pay is paid.
///
/// # Errors
/// When an invariant does not hold, or as the database answers.
pub(super) async fn write(
    connection: &mut AnyConnection,
    documents: &[NewDocument<'_>],
    now_ms: i64,
) -> Result<Vec<Written>, BillingError> {
    let without_id = documents.iter().filter(|document| document.id.is_none()).count();
    let count = i64::try_from(without_id).unwrap_or(i64::MAX);
    let mut next = next_ids(connection, "invoice", count).await?;
    let terms = collection_terms::terms(&mut *connection).await?;
    let numbered = documents.iter().map(|document| {
        let Parties { entity, seller, .. } = document.parties;
        (entity, seller, document.draft.kind)
    });
    let numbers = number::next(connection, numbered, now_ms).await?;
    let lines = documents
        .iter()
        .map(|document| document.draft.lines.len())
        .sum::<usize>();
    let mut next_line = next_ids(connection, "invoice_line", i64::try_from(lines).unwrap_or(i64::MAX)).await?;
    let mut rows = Vec::with_capacity(documents.len());
    let mut written = Vec::with_capacity(documents.len());
    for (document, number) in documents.iter().zip(numbers) {
        let id = document.id.unwrap_or(InvoiceId(next));
        next += i64::from(document.id.is_none());
        rows.push(Row::of(document, id, &number, &terms, now_ms)?);
        written.push(Written {
            id,
            number,
            first_line: InvoiceLineId(next_line),
        });
        next_line += i64::try_from(document.draft.lines.len()).unwrap_or(0);
    }
    insert_documents(connection, &rows).await?;
    insert_lines(connection, documents, &written).await?;
    insert_taxes(connection, documents, &written).await?;
    line_credits::record(connection, documents, &written).await?;
    let mut transactions = Vec::with_capacity(documents.len());
    let mut events = Vec::with_capacity(documents.len());
    for (row, written) in rows.iter().zip(&written) {
        let NewDocument {
            draft,
            corrects,
            parties,
            ..
        } = row.document;
        transactions.push(transaction(written.id, &written.number, draft, now_ms)?);
        let facts = json!({
            "number": written.number, "total_minor": draft.total.minor, "currency": draft.currency,
            "due_at_ms": row.due_at_ms, "reason": corrects.reason, "lines": draft.lines.len(),
        });
        events.push(NewEvent {
            event_type: match draft.kind {
                InvoiceKind::Invoice => EventType::InvoiceFinalised,
                InvoiceKind::CreditNote => EventType::CreditNoteIssued,
            },
            customer: Some(parties.customer.id),
            subject: written.id.to_string(),
            payload: facts,
        });
    }
    ledger::post_all(connection, &transactions).await?;
    event::publish_all(connection, events, now_ms).await?;
    Ok(written)
}

/// What a row of `invoices` holds beside the draft.
struct Row<'a> {
    document: NewDocument<'a>,
    id: InvoiceId,
    number: String,
    seller: String,
    buyer: String,
    status: InvoiceStatus,
    finalised_at_ms: i64,
    due_at_ms: i64,
}

impl<'a> Row<'a> {
    fn of(
        document: &NewDocument<'a>,
        id: InvoiceId,
        number: &str,
        terms: &Terms,
        now_ms: i64,
    ) -> Result<Row<'a>, BillingError> {
        let draft = document.draft;
        Ok(Row {
            document: *document,
            id,
            number: number.to_owned(),
            seller: serde_json::to_string(document.parties.seller)?,
            buyer: match &draft.buyer {
                Some(buyer) => serde_json::to_string(buyer)?,
                None => serde_json::to_string(&Buyer::of(document.parties.customer))?,
            },
            status: if draft.total.minor == 0 {
                InvoiceStatus::Paid
            } else {
                InvoiceStatus::Finalised
            },
            finalised_at_ms: now_ms,
            due_at_ms: match draft.kind {
                InvoiceKind::Invoice => terms.due_at_ms(now_ms),
                InvoiceKind::CreditNote => now_ms,
            },
        })
    }
}

async fn insert_documents(connection: &mut AnyConnection, rows: &[Row<'_>]) -> Result<(), BillingError> {
    let sql = "INSERT INTO invoices (id, kind, number, entity_id, customer_id, customer_name, seller, buyer, currency, \
               period_start_ms, period_end_ms, time_zone, status, corrects_invoice_id, reason, prices_include_tax, \
               subtotal_minor, tax_minor, total_minor, finalised_at_ms, due_at_ms, settled_at_ms) VALUES {rows}";
    bulk::for_rows(connection, sql, 22, rows, |query, row| {
        let NewDocument {
            parties,
            draft,
            corrects,
            ..
        } = row.document;
        query
            .bind(row.id.0)
            .bind(draft.kind.name())
            .bind(&row.number)
            .bind(parties.entity.0)
            .bind(parties.customer.id.0)
            .bind(&parties.customer.name)
            .bind(&row.seller)
            .bind(&row.buyer)
            .bind(draft.currency.code())
            .bind(draft.period_start_ms)
            .bind(draft.period_end_ms)
            .bind(&draft.time_zone)
            .bind(row.status.name())
            .bind(corrects.invoice.map(|invoice| invoice.0))
            .bind(&corrects.reason)
            .bind(i64::from(draft.prices_include_tax))
            .bind(draft.subtotal.minor)
            .bind(draft.tax.minor)
            .bind(draft.total.minor)
            .bind(row.finalised_at_ms)
            .bind(row.due_at_ms)
            .bind((row.status == InvoiceStatus::Paid).then_some(row.finalised_at_ms))
    })
    .await?;
    Ok(())
}

async fn insert_lines(
    connection: &mut AnyConnection,
    documents: &[NewDocument<'_>],
    written: &[Written],
) -> Result<(), BillingError> {
    let mut rows = Vec::new();
    for (document, written) in documents.iter().zip(written) {
        for (position, line) in (1i64..).zip(&document.draft.lines) {
            rows.push((written, position, line, serde_json::to_string(&line.evidence)?));
        }
    }
    let sql = "INSERT INTO invoice_lines (id, invoice_id, position, subscription_id, service_id, kind, description, quantity, \
               unit, unit_price, amount_minor, priced_minor, tax_group, period_start_ms, period_end_ms, evidence) VALUES {rows}";
    bulk::for_rows(
        connection,
        sql,
        16,
        &rows,
        |query, (written, position, line, evidence)| {
            query
                .bind(written.first_line.0 + position - 1)
                .bind(written.id.0)
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
                .bind(line.tax_group)
                .bind(line.period_start_ms)
                .bind(line.period_end_ms)
                .bind(evidence)
        },
    )
    .await?;
    Ok(())
}

async fn insert_taxes(
    connection: &mut AnyConnection,
    documents: &[NewDocument<'_>],
    written: &[Written],
) -> Result<(), BillingError> {
    let mut rows = Vec::new();
    for (document, written) in documents.iter().zip(written) {
        rows.extend(
            (1i64..)
                .zip(&document.draft.taxes)
                .map(|(position, tax)| (written, position, tax)),
        );
    }
    let sql = "INSERT INTO invoice_taxes (invoice_id, position, name, category, rate_percent, net_minor, tax_minor, note, \
               tax_group, corrects_invoice_id, corrects_group) VALUES {rows}";
    bulk::for_rows(connection, sql, 11, &rows, |query, (written, position, tax)| {
        query
            .bind(written.id.0)
            .bind(position)
            .bind(&tax.rule.name)
            .bind(tax.rule.category.code())
            .bind(tax.rule.rate.value().normalize().to_string())
            .bind(tax.net.minor)
            .bind(tax.tax.minor)
            .bind(&tax.rule.note)
            .bind(tax.group)
            .bind(tax.corrects.map(|corrected| corrected.invoice.0))
            .bind(tax.corrects.map(|corrected| corrected.group))
    })
    .await?;
    Ok(())
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

/// A part of a line that is taken back is not earned where the line was.
fn revenue_of(line: &DraftLine) -> Account {
    let currency = line.amount.currency;
    let kind = match line.evidence {
        Evidence::Reversal {
            of_kind: Some(of_kind), ..
        } => of_kind,
        _ => line.kind,
    };
    match kind {
        LineKind::Base | LineKind::Unused => Account::revenue_base(currency),
        LineKind::Addon => Account::revenue_addon(currency),
        LineKind::Discount => Account::discounts(currency),
        LineKind::TransferOverage | LineKind::PercentileOverage | LineKind::Adjustment => {
            Account::revenue_overage(currency)
        }
        LineKind::Item | LineKind::Reversal => Account::revenue_other(currency),
    }
}
