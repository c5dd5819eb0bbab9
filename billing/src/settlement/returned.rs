//! Money that goes back: refunds of ours, what a gateway took without us, disputes.

use schemas::ids::{CustomerId, InvoiceId, PaymentId, RefundId};
use schemas::money::{Currency, Money};
use sqlx::{AnyConnection, Row as _};

use super::{
    SettlementError, Source, allocate, claim, claim_spent_credit, floor_at_zero, lock_customer, minus, nonzero,
    paid_in::paid_in_after, positive, post, promised_to_refunds, recompute_status, smaller,
};
use crate::gateway_name::{GatewayName, payment_words};
use crate::ledger::{self, Account, NewTransaction};

/// A payment, as what goes back needs it.
struct ReturnedPayment {
    customer: CustomerId,
    invoice: Option<InvoiceId>,
    gateway: String,
    amount: Money,
}

/// A dispute about a payment, as a gateway names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dispute<'a> {
    pub payment: PaymentId,
    pub reference: &'a str,
    pub amount: Money,
}

/// How much of a payment can be refunded now: what the gateway still holds of it for us, as far as the customer has credit that
/// was paid in. To refund what settled an invoice, a credit note comes first and makes it credit.
///
/// # Errors
/// [`SettlementError::NoPayment`] when there is none of this id.
pub async fn refundable(connection: &mut AnyConnection, payment: PaymentId) -> Result<Money, SettlementError> {
    refundable_after(connection, payment, None).await
}

/// As [`refundable`], as if a credit note of an invoice had become so much credit.
///
/// # Errors
/// [`SettlementError::NoPayment`] when there is none of this id.
pub(crate) async fn refundable_after(
    connection: &mut AnyConnection,
    payment: PaymentId,
    note: Option<(InvoiceId, Money)>,
) -> Result<Money, SettlementError> {
    let paid = paid(connection, payment).await?;
    let currency = paid.amount.currency;
    let left = free(connection, payment).await?;
    let paid_in = paid_in_after(&mut *connection, paid.customer, currency, note).await?;
    let promised = promised_to_refunds(connection, paid.customer, currency).await?;
    Ok(smaller(left, floor_at_zero(minus(paid_in, promised)?)))
}

/// What we hold of a payment and no refund under way will take; never below zero.
///
/// # Errors
/// [`SettlementError::NoPayment`] when there is none of this id.
pub(crate) async fn free(connection: &mut AnyConnection, payment: PaymentId) -> Result<Money, SettlementError> {
    let held = held(connection, payment).await?;
    let promised: i64 = sqlx::query(
        "SELECT CAST(coalesce(sum(amount_minor), 0) AS BIGINT) FROM refunds \
         WHERE payment_id = $1 AND state IN ('intent', 'unknown', 'processing')",
    )
    .bind(payment.0)
    .fetch_one(connection)
    .await?
    .try_get(0)?;
    Ok(floor_at_zero(minus(held, Money::new(promised, held.currency))?))
}

/// What payments and credit notes of an invoice brought into its customer's wallet, less what refunds of those payments took and
/// will take: what can be refunded without another credit note, as long as it was not spent. Never below zero.
///
/// # Errors
/// As the database answers.
pub(crate) async fn credit_from_invoice(
    connection: &mut AnyConnection,
    customer: CustomerId,
    currency: Currency,
    invoice: InvoiceId,
) -> Result<Money, SettlementError> {
    let brought: i64 = sqlx::query(
        "SELECT CAST(coalesce(sum(-p.amount_minor), 0) AS BIGINT) FROM ledger_transactions t \
         JOIN ledger_postings p ON p.transaction_id = t.id JOIN ledger_accounts a ON a.id = p.account_id \
         WHERE a.name = $1 AND (t.payment_id IN (SELECT id FROM payments WHERE invoice_id = $2) \
         OR (t.payment_id IS NULL AND t.invoice_id IN (SELECT id FROM invoices WHERE corrects_invoice_id = $2)))",
    )
    .bind(Account::credit(customer, currency).name)
    .bind(invoice.0)
    .fetch_one(&mut *connection)
    .await?
    .try_get(0)?;
    let promised: i64 = sqlx::query(
        "SELECT CAST(coalesce(sum(r.amount_minor), 0) AS BIGINT) FROM payments p JOIN refunds r ON r.payment_id = p.id \
         WHERE p.invoice_id = $1 AND r.state IN ('intent', 'unknown', 'processing')",
    )
    .bind(invoice.0)
    .fetch_one(connection)
    .await?
    .try_get(0)?;
    Ok(floor_at_zero(minus(
        Money::new(brought, currency),
        Money::new(promised, currency),
    )?))
}

/// A refund that we asked for has gone out. Whether it switched automatic top-up off: of a payment that bought
/// credit, the next
/// look at the credit would charge again what has just been refunded.
///
/// # Errors
/// [`SettlementError::NoPayment`] when there is none of this id.
pub async fn refund_posted(
    connection: &mut AnyConnection,
    refund: RefundId,
    payment: PaymentId,
    amount: Money,
    now_ms: i64,
) -> Result<bool, SettlementError> {
    positive(amount)?;
    let paid = paid(connection, payment).await?;
    lock_customer(connection, paid.customer).await?;
    let currency = amount.currency;
    let postings = nonzero([
        (Account::credit(paid.customer, currency), amount),
        (Account::cash(&paid.gateway, currency), amount.checked_neg()?),
    ]);
    let new = NewTransaction {
        idempotency_key: format!("refund:{refund}"),
        customer: Some(paid.customer),
        invoice: None,
        payment: Some(payment),
        refund: Some(refund),
        description: format!("{refund} of {} {payment}", payment_words(&paid.gateway)),
        posted_at_ms: now_ms,
        postings,
    };
    post(connection, new).await?;
    match paid.invoice {
        Some(_) => Ok(false),
        None => switch_top_up_off(connection, paid.customer, now_ms).await,
    }
}

/// Whether credit of the customer is topped up automatically.
///
/// # Errors
/// As the database answers.
pub(crate) async fn is_topped_up(connection: &mut AnyConnection, customer: CustomerId) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT customer_id FROM top_ups WHERE customer_id = $1 AND is_enabled = 1")
        .bind(customer.0)
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Whether it was on.
async fn switch_top_up_off(
    connection: &mut AnyConnection,
    customer: CustomerId,
    now_ms: i64,
) -> Result<bool, SettlementError> {
    let off =
        sqlx::query("UPDATE top_ups SET is_enabled = 0, updated_at_ms = $2 WHERE customer_id = $1 AND is_enabled = 1")
            .bind(customer.0)
            .bind(now_ms)
            .execute(connection)
            .await?;
    Ok(off.rows_affected() > 0)
}

/// A refund that had gone out came back: the customer's bank did not take it, and it is credit again.
///
/// # Errors
/// [`SettlementError::NoPayment`] when there is none of this id.
pub async fn refund_returned(
    connection: &mut AnyConnection,
    refund: RefundId,
    payment: PaymentId,
    amount: Money,
    now_ms: i64,
) -> Result<(), SettlementError> {
    positive(amount)?;
    let paid = paid(connection, payment).await?;
    lock_customer(connection, paid.customer).await?;
    let currency = amount.currency;
    let postings = nonzero([
        (Account::cash(&paid.gateway, currency), amount),
        (Account::credit(paid.customer, currency), amount.checked_neg()?),
    ]);
    let new = NewTransaction {
        idempotency_key: format!("refund_returned:{refund}"),
        customer: Some(paid.customer),
        invoice: None,
        payment: Some(payment),
        refund: Some(refund),
        description: format!("{refund} of {payment} came back"),
        posted_at_ms: now_ms,
        postings,
    };
    post(connection, new).await?;
    Ok(())
}

/// A gateway gave a payment, or a part of it, back without us. What had become credit goes first, then the invoice it paid is
/// open again; what neither holds any more is taken from the credit. Where that was spent, what it paid is open again.
/// `refund` is the row that records it, and its key. Whether it switched automatic top-up off.
///
/// # Errors
/// [`SettlementError::NoPayment`] when there is none of this id.
pub async fn settle_gateway_refund(
    connection: &mut AnyConnection,
    payment: PaymentId,
    refund: RefundId,
    amount: Money,
    now_ms: i64,
) -> Result<bool, SettlementError> {
    let paid = paid(connection, payment).await?;
    let from = Account::cash(&paid.gateway, amount.currency);
    let key = format!("take_back:{refund}");
    let description = format!("{} gave {payment} back", paid.gateway);
    take(
        connection,
        payment,
        &paid,
        amount,
        from,
        key,
        description,
        Some(refund),
        now_ms,
    )
    .await
}

/// What we hold of a payment: what it brought, less what went back.
///
/// # Errors
/// [`SettlementError::NoPayment`] when there is none of this id.
pub async fn held(connection: &mut AnyConnection, payment: PaymentId) -> Result<Money, SettlementError> {
    let paid = paid(connection, payment).await?;
    balance_of(connection, payment, &Account::cash(&paid.gateway, paid.amount.currency)).await
}

/// A payment never came in: it was recorded by mistake, or the bank returned it. As [`settle_gateway_refund`], by a cause of its
/// own.
///
/// # Errors
/// [`SettlementError::NoPayment`] when there is none of this id.
pub async fn reverse(
    connection: &mut AnyConnection,
    payment: PaymentId,
    amount: Money,
    now_ms: i64,
) -> Result<(), SettlementError> {
    let paid = paid(connection, payment).await?;
    let from = Account::cash(&paid.gateway, amount.currency);
    let key = format!("reversal:{payment}");
    let description = format!("{} {payment} reversed", payment_words(&paid.gateway));
    take(connection, payment, &paid, amount, from, key, description, None, now_ms).await?;
    Ok(())
}

/// A payment is disputed: the gateway holds the money until somebody decides.
///
/// # Errors
/// [`SettlementError::NoPayment`] when there is none of this id.
pub async fn open_dispute(
    connection: &mut AnyConnection,
    dispute: Dispute<'_>,
    now_ms: i64,
) -> Result<(), SettlementError> {
    move_disputed(connection, dispute, "opened", now_ms).await
}

/// A dispute was decided: won, the money is ours again; lost, it is taken back from what the payment had settled.
///
/// # Errors
/// [`SettlementError::NoPayment`] when there is none of this id.
pub async fn close_dispute(
    connection: &mut AnyConnection,
    dispute: Dispute<'_>,
    is_won: bool,
    now_ms: i64,
) -> Result<(), SettlementError> {
    if is_won {
        return move_disputed(connection, dispute, "won", now_ms).await;
    }
    let Dispute {
        payment,
        reference,
        amount,
    } = dispute;
    let paid = paid(connection, payment).await?;
    let from = Account::disputes(amount.currency);
    let key = format!("dispute:{}:{reference}:lost", paid.gateway);
    let description = format!("dispute of {payment} lost");
    take(connection, payment, &paid, amount, from, key, description, None, now_ms).await?;
    Ok(())
}

async fn move_disputed(
    connection: &mut AnyConnection,
    dispute: Dispute<'_>,
    step: &'static str,
    now_ms: i64,
) -> Result<(), SettlementError> {
    let Dispute {
        payment,
        reference,
        amount,
    } = dispute;
    positive(amount)?;
    let paid = paid(connection, payment).await?;
    lock_customer(connection, paid.customer).await?;
    let held = if step == "opened" {
        amount
    } else {
        amount.checked_neg()?
    };
    let postings = nonzero([
        (Account::disputes(amount.currency), held),
        (Account::cash(&paid.gateway, amount.currency), held.checked_neg()?),
    ]);
    let new = NewTransaction {
        idempotency_key: format!("dispute:{}:{reference}:{step}", paid.gateway),
        customer: Some(paid.customer),
        invoice: None,
        payment: Some(payment),
        refund: None,
        description: format!("dispute of {payment} {step}"),
        posted_at_ms: now_ms,
        postings,
    };
    post(connection, new).await?;
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the two callers name each of them on the spot")]
async fn take(
    connection: &mut AnyConnection,
    payment: PaymentId,
    paid: &ReturnedPayment,
    amount: Money,
    from: Account,
    key: String,
    description: String,
    refund: Option<RefundId>,
    now_ms: i64,
) -> Result<bool, SettlementError> {
    positive(amount)?;
    lock_customer(connection, paid.customer).await?;
    if ledger::posted(&mut *connection, &key).await?.is_some() {
        return Ok(false);
    }
    let currency = amount.currency;
    let credit = Account::credit(paid.customer, currency);
    let became_credit = balance_of(connection, payment, &credit).await?.checked_neg()?;
    let first = smaller(amount, floor_at_zero(became_credit));
    let settled = match paid.invoice {
        Some(invoice) => settled_by(connection, payment, invoice, currency).await?,
        None => Money::zero(currency),
    };
    let reopened = smaller(minus(amount, first)?, floor_at_zero(settled));
    let from_credit = minus(amount, reopened)?;
    let new = NewTransaction {
        idempotency_key: key,
        customer: Some(paid.customer),
        invoice: paid.invoice,
        payment: Some(payment),
        refund,
        description,
        posted_at_ms: now_ms,
        postings: nonzero([
            (Account::receivable(paid.customer, currency), reopened),
            (credit, from_credit),
            (from, amount.checked_neg()?),
        ]),
    };
    let transaction = post(connection, new).await?;
    if let Some(invoice) = paid.invoice {
        let source = Source::Payment(payment);
        allocate(
            connection,
            invoice,
            source,
            reopened.checked_neg()?,
            transaction,
            now_ms,
        )
        .await?;
        recompute_status(connection, invoice, now_ms).await?;
        if reopened.minor > 0 {
            let number = super::document(&mut *connection, invoice).await?.number;
            claim::publish_reopened(connection, paid.customer, invoice, &number, now_ms).await?;
        }
    }
    let mut is_switched_off = false;
    // A transfer that is reversed was recorded wrongly or bounced: nobody took it back.
    if paid.invoice.is_none() && paid.gateway != GatewayName::Manual.name() {
        // Whoever took money back that had become credit does not want it taken again by itself.
        is_switched_off = switch_top_up_off(connection, paid.customer, now_ms).await?;
    }
    claim_spent_credit(connection, paid.customer, currency, now_ms).await?;
    Ok(is_switched_off)
}

/// The balance of an account by the transactions of one payment.
async fn balance_of(
    connection: &mut AnyConnection,
    payment: PaymentId,
    account: &Account,
) -> Result<Money, SettlementError> {
    let row = sqlx::query(
        "SELECT CAST(coalesce(sum(p.amount_minor), 0) AS BIGINT) FROM ledger_transactions t \
         JOIN ledger_postings p ON p.transaction_id = t.id JOIN ledger_accounts a ON a.id = p.account_id \
         WHERE t.payment_id = $1 AND a.name = $2",
    )
    .bind(payment.0)
    .bind(&account.name)
    .fetch_one(connection)
    .await?;
    Ok(Money::new(row.try_get(0)?, account.currency))
}

async fn settled_by(
    connection: &mut AnyConnection,
    payment: PaymentId,
    invoice: InvoiceId,
    currency: Currency,
) -> Result<Money, SettlementError> {
    let row = sqlx::query(
        "SELECT CAST(coalesce(sum(amount_minor), 0) AS BIGINT) FROM allocations WHERE invoice_id = $1 AND payment_id = $2",
    )
    .bind(invoice.0)
    .bind(payment.0)
    .fetch_one(connection)
    .await?;
    Ok(Money::new(row.try_get(0)?, currency))
}

async fn paid(connection: &mut AnyConnection, payment: PaymentId) -> Result<ReturnedPayment, SettlementError> {
    let row =
        sqlx::query("SELECT customer_id, invoice_id, gateway, currency, amount_minor FROM payments WHERE id = $1")
            .bind(payment.0)
            .fetch_optional(connection)
            .await?
            .ok_or(SettlementError::NoPayment(payment))?;
    let invoice: Option<i64> = row.try_get("invoice_id")?;
    let currency: Currency = row.try_get::<String, _>("currency")?.parse()?;
    Ok(ReturnedPayment {
        customer: CustomerId(row.try_get("customer_id")?),
        invoice: invoice.map(InvoiceId),
        gateway: row.try_get("gateway")?,
        amount: Money::new(row.try_get("amount_minor")?, currency),
    })
}
