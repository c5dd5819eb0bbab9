//! Taking back: credit notes and voids.
//!
//! A finalised invoice never changes (B3). What was wrong on it is taken back by a credit note with the invoice's own tax
//! rules, as a whole, line for line, or an amount, which its charges share in proportion to what is left of each. Either takes
//! back what was not given back yet and no more (B6), whatever gave it back ([`super::line_credits`]). What is left of net and
//! tax is what the next one can take back: when nothing of the net is left, nothing of the tax is either. A credit note settles
//! what is open of its invoice; the rest becomes the customer's credit. An invoice of which nothing was settled or given back
//! can be void: a credit note over the whole of it, after which its charges can be made again, if asked. Unused days that it gave
//! back are given back again by the next close, asked or not: they were charged, and are not had.

use std::collections::BTreeMap;

use activity::event::{EventType, NewEvent};
use jiff::civil::Date;
use rust_decimal::Decimal;
use schemas::db::Database;
use schemas::ids::{InvoiceId, PhaseId};
use schemas::inventory;
use schemas::money::Money;
use serde_json::json;
use sqlx::{AnyConnection, Row as _};

use super::line_credits::{self, UncreditedAmounts};
use super::new_document::{Corrects, CreditCause, NewDocument, Parties};
use super::read::get_in;
use super::taxes::{ChargedDocuments, DocumentTotals};
use super::write::write;
use super::{Draft, Invoice, InvoiceKind, InvoiceLine, InvoiceStatus, InvoiceWithLines};
use crate::event;
use crate::evidence::Evidence;
use crate::field::checked_text;
use crate::line_kind::LineKind;
use crate::rating::DraftLine;
use crate::tax::{ChargedTax, TaxGroup};
use crate::{BillingError, guard, settlement};

/// Characters in the reason of a credit note at most.
const MAX_REASON_CHARS: usize = 300;

/// What of an invoice is taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Credited {
    /// All that was not given back yet, line for line.
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
/// When the invoice is a credit note or void, or more would be taken back than is left of it.
pub async fn credit(
    connection: &mut AnyConnection,
    invoice: InvoiceId,
    what: Credited,
    reason: &str,
    now_ms: i64,
) -> Result<InvoiceId, BillingError> {
    // Whoever settles something of this customer takes the same lock.
    let corrected = lock(connection, invoice).await?;
    issue(connection, &corrected, what, CreditCause::CreditNote, reason, now_ms).await
}

/// A credit note before it is issued, as positive amounts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreditPreview {
    what: Credited,
    pub net: Money,
    pub tax: Money,
    pub gross: Money,
    /// What it settles, and what becomes credit.
    pub split: settlement::NoteSplit,
}

impl CreditPreview {
    /// What a confirmation sends back.
    pub fn shown(&self) -> String {
        format!("{}:{}:{}", self.net.minor, self.tax.minor, self.gross.minor)
    }

    /// For the audit log.
    pub fn change(&self, note: InvoiceId, reason: &str) -> serde_json::Value {
        json!({
            "credit_note": note,
            "net": self.net.to_string(),
            "tax": self.tax.to_string(),
            "gross": self.gross.to_string(),
            "reason": reason,
        })
    }
}

/// The credit note over a gross amount, or over all that is left. Where no note has exactly the amount, it is the
/// smallest that
/// is larger. Nothing is written.
///
/// # Errors
/// As [`credit`].
pub async fn preview_credit(
    connection: &mut AnyConnection,
    invoice: InvoiceId,
    gross: Option<Money>,
    reason: &str,
) -> Result<CreditPreview, BillingError> {
    let correctable = Correctable::read(&mut *connection, invoice).await?;
    let reason = match reason.trim() {
        "" => "credit note",
        text => text,
    };
    let refuse = |why| BillingError::NotCredited { invoice, why };
    let mut what = Credited::Whole;
    let mut draft = correctable.draft(what, reason)?;
    if let Some(asked) = gross {
        let left = draft.total.checked_neg()?;
        if asked.currency != left.currency {
            return Err(refuse("the amount is in another currency"));
        }
        if asked.minor <= 0 {
            return Err(refuse("the amount is not more than zero"));
        }
        if asked.minor > left.minor {
            return Err(BillingError::MoreThanLeft { invoice, left, asked });
        }
        what = correctable.smallest(asked, reason)?.unwrap_or(Credited::Whole);
        draft = correctable.draft(what, reason)?;
    }
    let gross = draft.total.checked_neg()?;
    Ok(CreditPreview {
        what,
        net: draft.subtotal.checked_neg()?,
        tax: draft.tax.checked_neg()?,
        split: settlement::credit_note_split(connection, invoice, gross).await?,
        gross,
    })
}

/// Issues the credit note that was previewed, and applies it.
///
/// # Errors
/// As [`credit`]; when it is not what was `shown` any more ([`CreditPreview::shown`]); while billing is stopped.
pub async fn credit_gross(
    connection: &mut AnyConnection,
    invoice: InvoiceId,
    gross: Option<Money>,
    reason: &str,
    shown: Option<&str>,
    now_ms: i64,
) -> Result<(InvoiceId, CreditPreview), BillingError> {
    guard::check(&mut *connection).await?;
    lock(&mut *connection, invoice).await?;
    let preview = preview_credit(&mut *connection, invoice, gross, reason).await?;
    if shown.is_some_and(|shown| shown != preview.shown()) {
        return Err(BillingError::NotCredited {
            invoice,
            why: "its amounts changed since they were shown: look at them again",
        });
    }
    let note = credit(connection, invoice, preview.what, reason, now_ms).await?;
    Ok((note, preview))
}

/// An invoice and what is left of it: all that a credit note is drafted from.
pub(crate) struct Correctable {
    corrected: InvoiceWithLines,
    left: UncreditedAmounts,
    taxes: BTreeMap<i64, ChargedTax>,
}

impl Correctable {
    /// Reads it; nothing is locked or written.
    ///
    /// # Errors
    /// When there is no such invoice.
    pub(crate) async fn read(connection: &mut AnyConnection, invoice: InvoiceId) -> Result<Correctable, BillingError> {
        let corrected = get_in(connection, invoice).await?;
        Correctable::of(connection, corrected).await
    }

    async fn of(connection: &mut AnyConnection, corrected: InvoiceWithLines) -> Result<Correctable, BillingError> {
        Ok(Correctable {
            left: UncreditedAmounts::of(connection, corrected.lines.iter().map(|line| line.id)).await?,
            taxes: ChargedDocuments::of_invoice(connection, corrected.invoice.id).await?,
            corrected,
        })
    }

    pub(crate) fn invoice(&self) -> &Invoice {
        &self.corrected.invoice
    }

    /// What of it was not given back, as priced.
    pub(crate) fn left_priced(&self) -> Money {
        Money::new(left_of(&self.corrected, &self.left), self.corrected.invoice.currency)
    }

    /// The smallest credit note of at least so much with tax, the whole of what is left at most; `None` where nothing
    /// is left.
    ///
    /// # Errors
    /// As [`Correctable::draft`].
    pub(crate) fn smallest(&self, gross: Money, reason: &str) -> Result<Option<Credited>, BillingError> {
        let left = self.left_priced();
        if left.minor <= 0 {
            return Ok(None);
        }
        let total = |minor: i64| -> Result<i64, BillingError> {
            let what = Credited::Amount(Money::new(minor, left.currency));
            Ok(-self.draft(what, reason)?.total.minor)
        };
        if total(left.minor)? <= gross.minor {
            return Ok(Some(Credited::Whole));
        }
        let (mut low, mut high) = (1, left.minor);
        while low < high {
            let middle = low + (high - low) / 2;
            if total(middle)? >= gross.minor {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(Some(Credited::Amount(Money::new(low, left.currency))))
    }

    /// The credit note over a part or all of it: below zero.
    ///
    /// # Errors
    /// When it is a credit note or void, or more would be given back than is left of it.
    pub(crate) fn draft(&self, what: Credited, reason: &str) -> Result<Draft, BillingError> {
        let (corrected, left) = (&self.corrected, &self.left);
        let invoice = corrected.invoice.id;
        let refuse = |why| BillingError::NotCredited { invoice, why };
        if corrected.invoice.kind == InvoiceKind::CreditNote {
            return Err(refuse("it is a credit note itself"));
        }
        if corrected.invoice.status == InvoiceStatus::Void {
            return Err(refuse("it is void"));
        }
        let left_minor = left_of(corrected, left);
        if left_minor <= 0 {
            return Err(refuse("nothing of it is left to credit"));
        }
        let lines = match what {
            Credited::Whole => whole(corrected, left)?,
            Credited::Amount(amount) => {
                let currency = corrected.invoice.currency;
                if amount.currency != currency {
                    return Err(refuse("the amount is in another currency"));
                }
                if amount.minor <= 0 {
                    return Err(refuse("the amount is not more than zero"));
                }
                if amount.minor > left_minor {
                    return Err(BillingError::MoreThanLeft {
                        invoice,
                        left: Money::new(left_minor, currency),
                        asked: amount,
                    });
                }
                // The last part takes what is left of everything, of lines that give back too: no cent of their taxes remains.
                let gives_back = |line: &InvoiceLine| !is_discount(line) && left.minor(line.id) < 0;
                if amount.minor == left_minor && corrected.lines.iter().any(gives_back) {
                    whole(corrected, left)?
                } else {
                    parts(corrected, left, amount, reason)?
                }
            }
        };
        draft(corrected, &self.taxes, lines)
    }
}

async fn issue(
    connection: &mut AnyConnection,
    corrected: &InvoiceWithLines,
    what: Credited,
    cause: CreditCause,
    reason: &str,
    now_ms: i64,
) -> Result<InvoiceId, BillingError> {
    let reason = checked_text("reason", reason, MAX_REASON_CHARS)?;
    let invoice = corrected.invoice.id;
    let correctable = Correctable::of(connection, corrected.clone()).await?;
    let draft = correctable.draft(what, &reason)?;
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
        cause,
    };
    let document = NewDocument {
        parties,
        draft: &draft,
        corrects: &corrects,
        id: None,
    };
    let written = write(connection, &[document], now_ms).await?;
    // One was given, so one was written.
    let id = written[0].id;
    let gave_back = |line: &InvoiceLine| line.kind == LineKind::Adjustment && line.priced.minor < 0;
    if corrected.lines.iter().any(gave_back) {
        // Taken back with their invoice: what was measured stays less all the same.
        recheck_corrected_months(connection, invoice).await?;
    }
    settlement::apply_credit_note(connection, id, now_ms).await?;
    Ok(id)
}

/// What the credit notes of the customer of `note` come to, in its currency, of those that were issued after an instant; more than zero.
///
/// # Errors
/// As the database answers.
pub(crate) async fn credited_together(
    db: &mut AnyConnection,
    note: InvoiceId,
    since_ms: i64,
) -> Result<Money, BillingError> {
    let sql = "SELECT n.currency, CAST(COALESCE(sum(-i.total_minor), 0) AS BIGINT) FROM invoices n \
               JOIN invoices i ON i.customer_id = n.customer_id AND i.currency = n.currency \
               WHERE n.id = $1 AND i.kind = $2 AND i.finalised_at_ms > $3 GROUP BY n.currency";
    let row = sqlx::query(sql)
        .bind(note.0)
        .bind(InvoiceKind::CreditNote.name())
        .bind(since_ms)
        .fetch_one(db)
        .await?;
    let currency: String = row.try_get(0)?;
    Ok(Money::new(row.try_get(1)?, currency.parse()?))
}

/// Makes an invoice void by a credit note over the whole of it, whose id is returned.
///
/// # Errors
/// When something of it was settled or taken back, its usage was corrected by later documents, its charges cannot be made again
/// because later ones build on them, or days that it gave back were charged anew since.
pub async fn void(
    connection: &mut AnyConnection,
    invoice: InvoiceId,
    rebill: Rebill,
    reason: &str,
    now_ms: i64,
) -> Result<InvoiceId, BillingError> {
    let corrected = lock(connection, invoice).await?;
    let found = &corrected.invoice;
    if found.settled.minor != 0 || found.status != InvoiceStatus::Finalised {
        return Err(BillingError::NotCredited {
            invoice,
            why: "something of it was settled: give it back by a credit note",
        });
    }
    if !line_credits::elsewhere(connection, invoice).await?.is_empty() {
        return Err(BillingError::NotCredited {
            invoice,
            why: "a later document gave a part of it back: give back what is left by a credit note",
        });
    }
    refuse_corrected_since(connection, invoice).await?;
    release_unused(connection, invoice).await?;
    let cause = match rebill {
        Rebill::No => CreditCause::Void,
        Rebill::Yes => {
            release_charges(connection, invoice).await?;
            CreditCause::Rebill
        }
    };
    let note = issue(connection, &corrected, Credited::Whole, cause, reason, now_ms).await?;
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

/// Finds out whether [`void`] would be refused: does it, and rolls it back.
///
/// # Errors
/// As [`void`].
pub async fn preview_void(
    database: &Database,
    invoice: InvoiceId,
    rebill: Rebill,
    reason: &str,
    now_ms: i64,
) -> Result<(), BillingError> {
    let mut transaction = database.begin_write().await?;
    let voided = void(&mut transaction, invoice, rebill, reason, now_ms).await;
    transaction.rollback().await?;
    voided.map(|_| ())
}

async fn lock(connection: &mut AnyConnection, invoice: InvoiceId) -> Result<InvoiceWithLines, BillingError> {
    sqlx::query("UPDATE customers SET id = id WHERE id = (SELECT customer_id FROM invoices WHERE id = $1)")
        .bind(invoice.0)
        .execute(&mut *connection)
        .await?;
    get_in(connection, invoice).await
}

/// What of an invoice was not given back, by whatever gave it back; lines that give back count against it.
fn left_of(corrected: &InvoiceWithLines, left: &UncreditedAmounts) -> i64 {
    // What a discount takes off a line is not left of that line.
    let counted = corrected.lines.iter().filter(|line| !is_discount(line));
    counted.map(|line| left.minor(line.id)).sum()
}

/// Given with the line before it.
fn is_discount(line: &InvoiceLine) -> bool {
    matches!(line.evidence, Evidence::Discount { .. })
}

/// Everything that is left, line for line. A charge that nothing but its discount was given back of is taken back with it.
fn whole(corrected: &InvoiceWithLines, left: &UncreditedAmounts) -> Result<Vec<DraftLine>, BillingError> {
    let invoice = &corrected.invoice;
    let untouched = |line: &InvoiceLine| left.minor(line.id) == line.priced.minor;
    let is_whole = left_of(corrected, left) == corrected.lines.iter().map(|line| line.priced.minor).sum::<i64>();
    let mut lines = Vec::new();
    let mut rest = corrected.lines.iter().peekable();
    while let Some(line) = rest.next() {
        let discount = rest.next_if(|next| is_discount(next));
        let left_minor = left.minor(line.id);
        match discount {
            Some(discount) if left_minor == line.priced.minor + discount.priced.minor && untouched(discount) => {
                lines.push(reversed(invoice, line)?);
                lines.push(reversed(invoice, discount)?);
            }
            None if untouched(line) && (line.priced.minor != 0 || is_whole) => lines.push(reversed(invoice, line)?),
            _ if left_minor != 0 => {
                let back = Money::new(left_minor, invoice.currency).checked_neg()?;
                lines.push(part(invoice, line, back, line.kind, line.description.clone()));
            }
            _ => {}
        }
    }
    Ok(lines)
}

fn reversed(invoice: &Invoice, line: &InvoiceLine) -> Result<DraftLine, BillingError> {
    let back = line.priced.checked_neg()?;
    Ok(DraftLine {
        quantity: line.quantity,
        unit: line.unit.clone(),
        unit_price: -line.unit_price,
        ..part(invoice, line, back, line.kind, line.description.clone())
    })
}

/// An amount, shared by the charges of an invoice in proportion to what is left of each.
fn parts(
    corrected: &InvoiceWithLines,
    left: &UncreditedAmounts,
    amount: Money,
    reason: &str,
) -> Result<Vec<DraftLine>, BillingError> {
    let invoice = &corrected.invoice;
    let charges: Vec<&InvoiceLine> = corrected
        .lines
        .iter()
        // What is had again of a discount is no charge.
        .filter(|line| line.kind != LineKind::Discount && line.priced.minor > 0 && left.minor(line.id) > 0)
        .collect();
    let left_minor: Vec<i64> = charges.iter().map(|line| left.minor(line.id)).collect();
    let mut lines = Vec::with_capacity(charges.len());
    for (line, share) in charges.iter().zip(line_credits::shares(amount.minor, &left_minor)) {
        if share == 0 {
            continue;
        }
        let description = match charges.len() {
            1 => reason.to_owned(),
            _ => format!("{reason} ({})", line.description),
        };
        let back = Money::new(share, amount.currency).checked_neg()?;
        lines.push(part(invoice, line, back, LineKind::Reversal, description));
    }
    Ok(lines)
}

/// The line that gives back `back`, which is below zero, of a line.
fn part(invoice: &Invoice, line: &InvoiceLine, back: Money, kind: LineKind, description: String) -> DraftLine {
    DraftLine {
        subscription: line.subscription,
        service: line.service,
        kind,
        description,
        quantity: Decimal::ONE,
        unit: "credit".to_owned(),
        unit_price: back.to_major(),
        priced: back,
        amount: back,
        tax_group: line.tax_group,
        period_start_ms: line.period_start_ms,
        period_end_ms: line.period_end_ms,
        evidence: Evidence::Reversal {
            corrects_invoice: invoice.id,
            corrects_number: invoice.number.clone(),
            corrects_line: Some(line.id),
            of_kind: (kind == LineKind::Reversal).then_some(line.kind),
        },
    }
}

/// By the taxes that the invoice was charged with, whatever holds now: lines come with the invoice's own groups.
fn draft(
    corrected: &InvoiceWithLines,
    taxes: &BTreeMap<i64, ChargedTax>,
    mut lines: Vec<DraftLine>,
) -> Result<Draft, BillingError> {
    let invoice = &corrected.invoice;
    let mut totals = DocumentTotals::zero(invoice.currency);
    for (&group, charged) in taxes {
        let of_group: Vec<usize> = (0..lines.len()).filter(|&at| lines[at].tax_group == group).collect();
        if of_group.is_empty() && !lines.is_empty() {
            continue;
        }
        let priced: Vec<Money> = of_group.iter().map(|&at| lines[at].priced).collect();
        let taxed = charged.correct(&priced, invoice.prices_include_tax, invoice.currency)?;
        for (&at, net) in of_group.iter().zip(&taxed.lines_net) {
            lines[at].amount = *net;
        }
        let corrects = TaxGroup {
            invoice: invoice.id,
            group,
        };
        totals.add(group, Some(corrects), taxed)?;
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
        // Who was charged is who is given back to: their VAT number may be why no tax was charged.
        buyer: Some(invoice.buyer.clone()),
        unsettled: None,
        lines,
        subtotal: totals.subtotal,
        taxes: totals.taxes,
        tax: totals.tax,
        total: totals.total,
    })
}

/// Lets the unused days that an invoice gave back be given back again: its keys of them go, and its phases are charged up to
/// where they were before it. The next close gives back what is left of what was charged for them.
async fn release_unused(connection: &mut AnyConnection, invoice: InvoiceId) -> Result<(), BillingError> {
    // What ends a phase ends it for good, so that nothing of it comes later; were it otherwise, days could count twice.
    let rows = sqlx::query(
        "SELECT c.phase_id, max(c.end_date) AS end_date, (SELECT count(*) FROM charged l WHERE l.phase_id = c.phase_id \
         AND l.invoice_id <> c.invoice_id AND ((l.kind = 'base' AND l.line_id > min(c.line_id) AND l.end_date > min(c.start_date)) \
         OR (l.kind = 'unused' AND l.start_date < min(c.start_date)))) AS later \
         FROM charged c WHERE c.invoice_id = $1 AND c.kind = 'unused' GROUP BY c.phase_id, c.invoice_id ORDER BY c.phase_id",
    )
    .bind(invoice.0)
    .fetch_all(&mut *connection)
    .await?;
    for row in &rows {
        if row.try_get::<i64, _>("later")? > 0 {
            return Err(BillingError::NotCredited {
                invoice,
                why: "days that it credited, or days before them, were charged or credited since: correct it by a credit note",
            });
        }
        sqlx::query("UPDATE phases SET base_to = $1 WHERE id = $2")
            .bind(row.try_get::<String, _>("end_date")?)
            .bind(row.try_get::<i64, _>("phase_id")?)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query("DELETE FROM charged WHERE invoice_id = $1 AND kind = 'unused'")
        .bind(invoice.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Lets the charges of an invoice be made again: its keys go, and its phases are charged up to where they were before it.
async fn release_charges(connection: &mut AnyConnection, invoice: InvoiceId) -> Result<(), BillingError> {
    let rows = sqlx::query(
        "SELECT c.kind, c.phase_id, min(c.start_date) AS start_date, min(c.start_ms) AS start_ms, p.from_date, (SELECT count(*) FROM charged l \
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
            _ => "UPDATE phases SET usage_to = $1, usage_charged_to_ms = $3 WHERE id = $2",
        };
        let mut query = sqlx::query(sql).bind(to).bind(phase.0);
        if kind != "base" {
            query = query.bind(row.try_get::<i64, _>("start_ms")?);
        }
        query.execute(&mut *connection).await?;
    }
    recheck_corrected_months(connection, invoice).await?;
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

/// The months of an invoice must not have been corrected by other invoices: these would stay, and nothing would correct them any
/// more.
async fn refuse_corrected_since(connection: &mut AnyConnection, invoice: InvoiceId) -> Result<(), BillingError> {
    let row = sqlx::query(
        "SELECT count(*) FROM charged c JOIN invoice_lines l ON l.subscription_id = c.subscription_id \
         AND l.period_start_ms = c.start_ms AND l.kind = 'adjustment' JOIN invoices i ON i.id = l.invoice_id \
         WHERE c.invoice_id = $1 AND c.kind = 'usage' AND i.id <> c.invoice_id AND i.status <> 'void' \
         AND l.evidence LIKE '{\"kind\":\"adjustment\"%'",
    )
    .bind(invoice.0)
    .fetch_one(&mut *connection)
    .await?;
    if row.try_get::<i64, _>(0)? > 0 {
        return Err(BillingError::NotCredited {
            invoice,
            why: "its usage was corrected by later documents: void those first, or correct it by an item",
        });
    }
    Ok(())
}

/// Lets the corrections on an invoice be made again: the months that they correct are measured again.
async fn recheck_corrected_months(connection: &mut AnyConnection, invoice: InvoiceId) -> Result<(), BillingError> {
    sqlx::query(
        "UPDATE charged SET usage_mark = '' WHERE kind = 'usage' AND EXISTS (SELECT 1 FROM invoice_lines l \
         WHERE l.invoice_id = $1 AND l.kind = 'adjustment' AND l.subscription_id = charged.subscription_id \
         AND l.period_start_ms = charged.start_ms)",
    )
    .bind(invoice.0)
    .execute(connection)
    .await?;
    Ok(())
}
