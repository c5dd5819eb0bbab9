//! What settles documents: payments, credit, credit notes, write-offs, and what takes a payment back.
//!
//! ```text
//! finalised     receivable +total                 revenue, tax −       (posted with the document)
//! payment       cash +                            receivable −, what exceeds the open amount: credit −
//! top-up        cash +                            credit −
//! credit        credit +                          receivable −
//! credit note   receivable −total (the document)  of what was written off: receivable +, bad debt −
//!                                                 the rest that its invoice does not take: receivable +, credit −
//! granted       promotion +                       credit −
//! refund        credit +                          cash −
//! taken back    receivable + (or credit +)        cash −               (a chargeback, a refund that we did not ask for, or a
//!                                                                       transfer that never came in)
//! uncredit      receivable +                      credit −             (credit that was spent and then taken back: `claim.rs`)
//! written off   bad debt +                        receivable −
//! ```
//!
//! Promises:
//! * What is open of a document is its total less its allocations, whose sum lies between zero and the total. A credit note
//!   is settled by negative ones: what its invoice takes, and what becomes credit.
//! * A customer's receivable is the sum of what the customer's documents leave open (`ledger check`, B1).
//! * Each function has a ledger key, so that the same cause moves money once, and leaves status and `settled_at_ms` of the
//!   document as its allocations say.
//! * Credit that was promised to a refund under way is not spent on invoices.
//! * Only what was paid in leaves as money, never credit that was granted ([`mod@paid_in`]).
//!
//! Every function writes in the caller's transaction and first takes the customer's row, so that whoever settles something
//! of the same customer at the same time waits: on SQLite the transaction has the one write lock already
//! ([`schemas::db::Database::begin_write`]), on PostgreSQL the row is locked.

mod claim;
mod note;
mod paid_in;
mod returned;

pub use claim::{claim_spent_credit, credit_claim_due};
pub(crate) use note::credit_note_split;
pub use note::{NoteSplit, apply_credit_note};
pub use paid_in::paid_in;
pub use returned::{
    Dispute, close_dispute, held, open_dispute, refund_posted, refund_returned, refundable, reverse,
    settle_gateway_refund,
};
pub(crate) use returned::{credit_from_invoice, free, is_topped_up, refundable_after};

use std::collections::HashSet;

use activity::event::{EventError, EventType, NewEvent};
use schemas::bulk;
use schemas::db::next_id;
use schemas::ids::{AllocationId, CustomerId, InvoiceId, PaymentId, TransactionId};
use schemas::inventory::{self, Customer};
use schemas::money::{Currency, Money, MoneyError};
use schemas::window::instant_text;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::event;
use crate::gateway_name::payment_words;
use crate::ledger::{self, Account, LedgerError, NewTransaction, Posting};

/// Why something was not settled.
#[derive(Debug, thiserror::Error)]
pub enum SettlementError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("post to the ledger")]
    Ledger(#[from] LedgerError),
    #[error("add amounts")]
    Money(#[from] MoneyError),
    #[error("publish the event")]
    Event(#[from] EventError),
    #[error("no invoice {0}")]
    NoInvoice(InvoiceId),
    #[error("no payment {0}")]
    NoPayment(PaymentId),
    #[error("{0} is a credit note: it settles an invoice and is not settled itself")]
    IsCreditNote(InvoiceId),
    #[error("{0} is no credit note")]
    NotACreditNote(InvoiceId),
    #[error("the account of {customer} was deleted on {}: no credit is granted to it", instant_text(*at_ms))]
    DeletedCustomer { customer: CustomerId, at_ms: i64 },
    #[error("an amount must be more than zero, not {0}")]
    NotPositive(Money),
    #[error("an amount is at most {max}, not {amount}")]
    TooLarge { amount: Money, max: Money },
    #[error("{document} is of {owner}, not of {customer}")]
    OtherCustomer {
        document: InvoiceId,
        owner: CustomerId,
        customer: CustomerId,
    },
    #[error("stored {what} is not understood: {text:?}")]
    Corrupt { what: &'static str, text: String },
}

schemas::error_codes! {
    SettlementError: "settlement";
    of [Database, Ledger, Money, Event]
    source []
    NotFound: NoInvoice = "no_invoice", NoPayment = "no_payment", OtherCustomer = "other_customer";
    Refused:
        IsCreditNote = "is_credit_note", NotACreditNote = "not_a_credit_note", NotPositive = "not_positive",
        TooLarge = "too_large", DeletedCustomer = "deleted_customer";
    Fault: Corrupt = "corrupt";
}

/// Received, granted or moved at once at most, in minor units: more is a slip of the keyboard.
pub const MAX_AMOUNT_MINOR: i64 = 100_000_000_000_000;

/// What settles a part of a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    Payment(PaymentId),
    Credit,
    CreditNote(InvoiceId),
    WriteOff,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Source::Payment(_) => "payment",
            Source::Credit => "credit",
            Source::CreditNote(_) => "credit_note",
            Source::WriteOff => "write_off",
        }
    }
}

/// Money that has come in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReceivedMoney<'a> {
    pub payment: PaymentId,
    pub customer: CustomerId,
    pub gateway: &'a str,
    pub amount: Money,
}

/// Where money that came in went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Split {
    pub to_invoice: Money,
    pub to_credit: Money,
}

/// As much of a document as settling needs.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Document {
    number: String,
    is_credit_note: bool,
    customer: CustomerId,
    status: String,
    corrects: Option<InvoiceId>,
    total: Money,
    settled: Money,
    written_off: Money,
}

impl Document {
    fn open(&self) -> Result<Money, MoneyError> {
        minus(self.total, self.settled)
    }
}

pub(crate) fn minus(a: Money, b: Money) -> Result<Money, MoneyError> {
    a.checked_add(b.checked_neg()?)
}

pub(crate) fn smaller(a: Money, b: Money) -> Money {
    if b.minor < a.minor { b } else { a }
}

pub(crate) fn floor_at_zero(amount: Money) -> Money {
    Money::new(amount.minor.max(0), amount.currency)
}

/// What is still to be paid of an invoice; negative for a credit note that was not applied yet.
///
/// # Errors
/// [`SettlementError::NoInvoice`] when there is none of this id.
pub async fn outstanding(db: impl AnyExecutor<'_>, invoice: InvoiceId) -> Result<Money, SettlementError> {
    Ok(document(db, invoice).await?.open()?)
}

/// Whose an invoice is, its number, and what is still to be paid of it.
///
/// # Errors
/// [`SettlementError::NoInvoice`] when there is none of this id.
pub(crate) async fn open_of(
    db: impl AnyExecutor<'_>,
    invoice: InvoiceId,
) -> Result<(CustomerId, String, Money), SettlementError> {
    let document = document(db, invoice).await?;
    let open = document.open()?;
    Ok((document.customer, document.number, open))
}

/// What is in a customer's wallet, promised to refunds or not. Below zero only where money that had been refunded was taken
/// back too: what credit had paid is open again instead ([`claim_spent_credit`]).
///
/// # Errors
/// As the database answers.
pub async fn credit_balance(
    db: impl AnyExecutor<'_>,
    customer: CustomerId,
    currency: Currency,
) -> Result<Money, SettlementError> {
    let balance = ledger::balance(db, &Account::credit(customer, currency)).await?;
    Ok(balance.checked_neg()?)
}

/// What of a customer's credit can be spent: not what refunds under way will take.
///
/// # Errors
/// As the database answers.
pub async fn available_credit(
    connection: &mut AnyConnection,
    customer: CustomerId,
    currency: Currency,
) -> Result<Money, SettlementError> {
    let balance = credit_balance(&mut *connection, customer, currency).await?;
    let promised = promised_to_refunds(connection, customer, currency).await?;
    Ok(floor_at_zero(minus(balance, promised)?))
}

/// What refunds under way will take of a customer's credit.
async fn promised_to_refunds(
    connection: &mut AnyConnection,
    customer: CustomerId,
    currency: Currency,
) -> Result<Money, SettlementError> {
    let promised: i64 = sqlx::query(
        "SELECT CAST(coalesce(sum(r.amount_minor), 0) AS BIGINT) FROM payments p JOIN refunds r ON r.payment_id = p.id \
         WHERE p.customer_id = $1 AND r.currency = $2 AND r.state IN ('intent', 'unknown', 'processing')",
    )
    .bind(customer.0)
    .bind(currency.code())
    .fetch_one(connection)
    .await?
    .try_get(0)?;
    Ok(Money::new(promised, currency))
}

/// A payment for an invoice: settles what is open, takes back what was written off, and the rest becomes credit. So a
/// payment that comes too late, or twice, is the customer's all the same.
///
/// # Errors
/// When the invoice is a credit note, or of another customer.
pub async fn pay_invoice(
    connection: &mut AnyConnection,
    received: ReceivedMoney<'_>,
    invoice: InvoiceId,
    now_ms: i64,
) -> Result<Split, SettlementError> {
    let ReceivedMoney {
        payment,
        customer,
        amount,
        ..
    } = received;
    positive(amount)?;
    lock_customer(connection, customer).await?;
    let document = document(&mut *connection, invoice).await?;
    if document.is_credit_note {
        return Err(SettlementError::IsCreditNote(invoice));
    }
    if document.customer != customer {
        return Err(SettlementError::OtherCustomer {
            document: invoice,
            owner: document.customer,
            customer,
        });
    }
    let key = format!("payment:{payment}");
    if ledger::posted(&mut *connection, &key).await?.is_some() {
        return split_before(connection, payment, amount).await;
    }
    let currency = amount.currency;
    let to_open = smaller(amount, floor_at_zero(document.open()?));
    let recovered = smaller(minus(amount, to_open)?, floor_at_zero(document.written_off));
    let to_invoice = to_open.checked_add(recovered)?;
    let to_credit = minus(amount, to_invoice)?;
    let receivable = Account::receivable(customer, currency);
    let transaction = post(
        connection,
        NewTransaction {
            idempotency_key: key,
            customer: Some(customer),
            invoice: Some(invoice),
            payment: Some(payment),
            refund: None,
            description: format!("{} {payment} for {}", payment_words(received.gateway), document.number),
            posted_at_ms: now_ms,
            postings: nonzero([
                (Account::cash(received.gateway, currency), amount),
                (receivable.clone(), recovered),
                (Account::bad_debt(currency), recovered.checked_neg()?),
                (receivable, to_invoice.checked_neg()?),
                (Account::credit(customer, currency), to_credit.checked_neg()?),
            ]),
        },
    )
    .await?;
    let undone = recovered.checked_neg()?;
    allocate(connection, invoice, Source::WriteOff, undone, transaction, now_ms).await?;
    allocate(
        connection,
        invoice,
        Source::Payment(payment),
        to_invoice,
        transaction,
        now_ms,
    )
    .await?;
    // From the day on which the bank had it nothing of this was open.
    sqlx::query(
        "UPDATE allocations SET value_at_ms = (SELECT coalesce(p.value_at_ms, allocations.created_at_ms) FROM payments p \
         WHERE p.id = $2) WHERE transaction_id = $1",
    )
    .bind(transaction.0)
    .bind(payment.0)
    .execute(&mut *connection)
    .await?;
    recompute_status(connection, invoice, now_ms).await?;
    Ok(Split { to_invoice, to_credit })
}

/// A payment that is for no invoice: all of it becomes credit.
///
/// # Errors
/// When the amount is not more than zero.
pub async fn top_up(
    connection: &mut AnyConnection,
    received: ReceivedMoney<'_>,
    now_ms: i64,
) -> Result<Split, SettlementError> {
    let ReceivedMoney {
        payment,
        customer,
        amount,
        ..
    } = received;
    positive(amount)?;
    lock_customer(connection, customer).await?;
    let currency = amount.currency;
    post(
        connection,
        NewTransaction {
            idempotency_key: format!("payment:{payment}"),
            customer: Some(customer),
            invoice: None,
            payment: Some(payment),
            refund: None,
            description: format!("top-up by {} {payment}", payment_words(received.gateway)),
            posted_at_ms: now_ms,
            postings: nonzero([
                (Account::cash(received.gateway, currency), amount),
                (Account::credit(customer, currency), amount.checked_neg()?),
            ]),
        },
    )
    .await?;
    Ok(Split {
        to_invoice: Money::zero(currency),
        to_credit: amount,
    })
}

/// Those of some customers whose wallet is not empty, promised to refunds or not.
///
/// # Errors
/// As the database answers.
pub(crate) async fn customers_with_credit(
    connection: &mut AnyConnection,
    customers: impl Iterator<Item = &Customer>,
) -> Result<HashSet<CustomerId>, SettlementError> {
    let accounts: Vec<Account> = customers
        .map(|customer| Account::credit(customer.id, customer.currency))
        .collect();
    let sql = "SELECT a.customer_id FROM ledger_accounts a JOIN ledger_postings p ON p.account_id = a.id \
               WHERE a.name IN ({values}) GROUP BY a.customer_id HAVING sum(p.amount_minor) < 0";
    let rows = bulk::rows_of_values(connection, sql, &accounts, |query, account| query.bind(&account.name)).await?;
    let ids = rows.iter().map(|row| row.try_get(0).map(CustomerId));
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Settles an invoice from the customer's credit, as far as that goes, and returns how much it was.
///
/// # Errors
/// When the invoice is a credit note.
pub async fn apply_credit(
    connection: &mut AnyConnection,
    invoice: InvoiceId,
    now_ms: i64,
) -> Result<Money, SettlementError> {
    let document = lock_document(connection, invoice).await?;
    if document.is_credit_note {
        return Err(SettlementError::IsCreditNote(invoice));
    }
    let (customer, currency) = (document.customer, document.total.currency);
    let credit = available_credit(connection, customer, currency).await?;
    let amount = smaller(floor_at_zero(document.open()?), credit);
    if amount.minor == 0 {
        return Ok(amount);
    }
    // Credit can be applied to the same invoice again when more has come: each time is a cause of its own.
    let allocation = AllocationId(next_id(connection, "allocation").await?);
    let transaction = post(
        connection,
        NewTransaction {
            idempotency_key: format!("credit:{invoice}:{allocation}"),
            customer: Some(customer),
            invoice: Some(invoice),
            payment: None,
            refund: None,
            description: format!("credit for {}", document.number),
            posted_at_ms: now_ms,
            postings: nonzero([
                (Account::credit(customer, currency), amount),
                (Account::receivable(customer, currency), amount.checked_neg()?),
            ]),
        },
    )
    .await?;
    insert_allocation(
        connection,
        allocation,
        invoice,
        Source::Credit,
        amount,
        transaction,
        now_ms,
    )
    .await?;
    recompute_status(connection, invoice, now_ms).await?;
    Ok(amount)
}

/// Whether credit was granted to a customer for a cause.
///
/// # Errors
/// As the database answers.
pub async fn is_granted(db: impl AnyExecutor<'_>, customer: CustomerId, cause: &str) -> Result<bool, SettlementError> {
    Ok(ledger::posted(db, &grant_key(customer, cause.trim())).await?.is_some())
}

fn grant_key(customer: CustomerId, cause: &str) -> String {
    format!("grant:{customer}:{cause}")
}

/// Gives a customer credit that nobody paid for. `cause` is what it is given once for: `ticket:4711`.
///
/// # Errors
/// When the amount is not more than zero, or the cause stands for another amount.
pub async fn grant_credit(
    connection: &mut AnyConnection,
    customer: CustomerId,
    amount: Money,
    cause: &str,
    reason: &str,
    now_ms: i64,
) -> Result<TransactionId, SettlementError> {
    positive(amount)?;
    lock_customer(connection, customer).await?;
    if let Some(at_ms) = inventory::customer_deleted_at_ms(&mut *connection, customer).await? {
        return Err(SettlementError::DeletedCustomer { customer, at_ms });
    }
    let key = grant_key(customer, cause);
    let is_new = ledger::posted(&mut *connection, &key).await?.is_none();
    let currency = amount.currency;
    let transaction = post(
        connection,
        NewTransaction {
            idempotency_key: key,
            customer: Some(customer),
            invoice: None,
            payment: None,
            refund: None,
            description: format!("credit granted: {reason}"),
            posted_at_ms: now_ms,
            postings: nonzero([
                (Account::promotion(currency), amount),
                (Account::credit(customer, currency), amount.checked_neg()?),
            ]),
        },
    )
    .await?;
    if is_new {
        let facts = serde_json::json!({
            "amount_minor": amount.minor, "currency": currency.code(), "reason": reason,
        });
        tell(
            connection,
            EventType::CreditGranted,
            customer,
            customer.to_string(),
            facts,
            now_ms,
        )
        .await?;
    }
    Ok(transaction)
}

/// Gives up what is open of an invoice and the customer's credit does not pay, and returns how much that was.
///
/// # Errors
/// When the invoice is a credit note.
pub async fn write_off(
    connection: &mut AnyConnection,
    invoice: InvoiceId,
    reason: &str,
    now_ms: i64,
) -> Result<Money, SettlementError> {
    apply_credit(connection, invoice, now_ms).await?;
    let document = lock_document(connection, invoice).await?;
    let amount = floor_at_zero(document.open()?);
    if amount.minor == 0 {
        return Ok(amount);
    }
    let (customer, currency) = (document.customer, amount.currency);
    // It may be opened again by a chargeback and written off again.
    let allocation = AllocationId(next_id(connection, "allocation").await?);
    let transaction = post(
        connection,
        NewTransaction {
            idempotency_key: format!("write_off:{invoice}:{allocation}"),
            customer: Some(customer),
            invoice: Some(invoice),
            payment: None,
            refund: None,
            description: format!("{} written off: {reason}", document.number),
            posted_at_ms: now_ms,
            postings: nonzero([
                (Account::bad_debt(currency), amount),
                (Account::receivable(customer, currency), amount.checked_neg()?),
            ]),
        },
    )
    .await?;
    insert_allocation(
        connection,
        allocation,
        invoice,
        Source::WriteOff,
        amount,
        transaction,
        now_ms,
    )
    .await?;
    recompute_status(connection, invoice, now_ms).await?;
    Ok(amount)
}

/// Makes a document's status what its allocations say: also for one that was just finalised, as an invoice of nothing is paid
/// from the start. A void invoice stays void.
///
/// # Errors
/// [`SettlementError::NoInvoice`] when there is none of this id.
pub async fn recompute_status(
    connection: &mut AnyConnection,
    invoice: InvoiceId,
    now_ms: i64,
) -> Result<(), SettlementError> {
    let document = document(&mut *connection, invoice).await?;
    let status = match (document.settled == document.total, document.status.as_str()) {
        (true, _) if document.written_off.minor != 0 => "uncollectible",
        (true, "void") => "void",
        (true, _) => "paid",
        (false, _) if document.settled.minor == 0 => "finalised",
        (false, _) => "partially_paid",
    };
    if status == document.status && status != "finalised" && status != "partially_paid" {
        return Ok(());
    }
    let settled_at_ms = (document.settled == document.total).then_some(now_ms);
    sqlx::query("UPDATE invoices SET status = $2, settled_at_ms = $3 WHERE id = $1")
        .bind(invoice.0)
        .bind(status)
        .bind(settled_at_ms)
        .execute(&mut *connection)
        .await?;
    if status == "paid" && !document.is_credit_note {
        let facts = serde_json::json!({
            "number": document.number, "total_minor": document.total.minor, "currency": document.total.currency.code(),
        });
        tell(
            connection,
            EventType::InvoicePaid,
            document.customer,
            invoice.to_string(),
            facts,
            now_ms,
        )
        .await?;
    }
    Ok(())
}

/// Whoever settles something of this customer waits until the caller's transaction ends.
pub(crate) async fn lock_customer(connection: &mut AnyConnection, customer: CustomerId) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE customers SET name = name WHERE id = $1")
        .bind(customer.0)
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) async fn tell(
    connection: &mut AnyConnection,
    event_type: EventType,
    customer: CustomerId,
    subject: String,
    payload: serde_json::Value,
    now_ms: i64,
) -> Result<(), EventError> {
    let new = NewEvent {
        event_type,
        customer: Some(customer),
        subject,
        payload,
    };
    event::publish(connection, new, now_ms).await?;
    Ok(())
}

pub(crate) fn positive(amount: Money) -> Result<(), SettlementError> {
    match amount.minor {
        1..=MAX_AMOUNT_MINOR => Ok(()),
        ..=0 => Err(SettlementError::NotPositive(amount)),
        _ => Err(SettlementError::TooLarge {
            amount,
            max: Money::new(MAX_AMOUNT_MINOR, amount.currency),
        }),
    }
}

/// A posting of nothing says nothing.
fn nonzero<const N: usize>(postings: [(Account, Money); N]) -> Vec<Posting> {
    postings
        .into_iter()
        .filter(|(_, amount)| amount.minor != 0)
        .map(|(account, amount)| Posting { account, amount })
        .collect()
}

async fn post(connection: &mut AnyConnection, new: NewTransaction) -> Result<TransactionId, SettlementError> {
    Ok(ledger::post(connection, &new).await?)
}

async fn allocate(
    connection: &mut AnyConnection,
    invoice: InvoiceId,
    source: Source,
    amount: Money,
    transaction: TransactionId,
    now_ms: i64,
) -> Result<(), SettlementError> {
    if amount.minor == 0 {
        return Ok(());
    }
    let id = AllocationId(next_id(connection, "allocation").await?);
    insert_allocation(connection, id, invoice, source, amount, transaction, now_ms).await
}

async fn insert_allocation(
    connection: &mut AnyConnection,
    id: AllocationId,
    invoice: InvoiceId,
    source: Source,
    amount: Money,
    transaction: TransactionId,
    now_ms: i64,
) -> Result<(), SettlementError> {
    let (payment, note) = match source {
        Source::Payment(payment) => (Some(payment.0), None),
        Source::CreditNote(note) => (None, Some(note.0)),
        Source::Credit | Source::WriteOff => (None, None),
    };
    sqlx::query(
        "INSERT INTO allocations (id, invoice_id, source, payment_id, credit_note_id, amount_minor, transaction_id, created_at_ms, \
         value_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
    )
    .bind(id.0)
    .bind(invoice.0)
    .bind(source.name())
    .bind(payment)
    .bind(note)
    .bind(amount.minor)
    .bind(transaction.0)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(())
}

/// How a payment that was posted before was split.
async fn split_before(
    connection: &mut AnyConnection,
    payment: PaymentId,
    amount: Money,
) -> Result<Split, SettlementError> {
    let allocated: i64 = sqlx::query(
        "SELECT CAST(coalesce(sum(amount_minor), 0) AS BIGINT) FROM allocations WHERE payment_id = $1 AND amount_minor > 0",
    )
    .bind(payment.0)
    .fetch_one(connection)
    .await?
    .try_get(0)?;
    let to_invoice = Money::new(allocated, amount.currency);
    Ok(Split {
        to_invoice,
        to_credit: minus(amount, to_invoice)?,
    })
}

/// A document, its customer locked first.
async fn lock_document(connection: &mut AnyConnection, id: InvoiceId) -> Result<Document, SettlementError> {
    let customer = document(&mut *connection, id).await?.customer;
    lock_customer(connection, customer).await?;
    document(connection, id).await
}

async fn document(db: impl AnyExecutor<'_>, id: InvoiceId) -> Result<Document, SettlementError> {
    let row = sqlx::query(
        "SELECT number, kind, customer_id, currency, status, corrects_invoice_id, total_minor, \
         CAST(coalesce((SELECT sum(amount_minor) FROM allocations WHERE invoice_id = invoices.id), 0) AS BIGINT) AS settled, \
         CAST(coalesce((SELECT sum(amount_minor) FROM allocations WHERE invoice_id = invoices.id \
                        AND source = 'write_off'), 0) AS BIGINT) AS written_off \
         FROM invoices WHERE id = $1",
    )
    .bind(id.0)
    .fetch_optional(db)
    .await?;
    read_document(&row.ok_or(SettlementError::NoInvoice(id))?)
}

fn read_document(row: &AnyRow) -> Result<Document, SettlementError> {
    let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
    let corrects: Option<i64> = row.try_get("corrects_invoice_id")?;
    Ok(Document {
        number: row.try_get("number")?,
        is_credit_note: row.try_get::<String, _>("kind")? == "credit_note",
        customer: CustomerId(row.try_get("customer_id")?),
        status: row.try_get("status")?,
        corrects: corrects.map(InvoiceId),
        total: Money::new(row.try_get("total_minor")?, currency),
        settled: Money::new(row.try_get("settled")?, currency),
        written_off: Money::new(row.try_get("written_off")?, currency),
    })
}

#[cfg(test)]
pub(crate) mod tests;
