//! f31 and f32 of `cases/billing`, and pairs around them.

use super::*;
use crate::ledger;
use crate::payment::{NewRefund, Transfer, payment, record_returned_transfer, record_transfer};
use crate::settlement::tests::{Books, usd};
use activity::event::{self, EventFilter};
use schemas::ids::InvoiceId;
use schemas::money::Currency;

async fn recorded(
    books: &Books,
    invoice: Option<InvoiceId>,
    minor: i64,
    reference: &str,
) -> Result<Payment, PaymentError> {
    let transfer = Transfer {
        customer: books.customer,
        invoice,
        amount: usd(minor),
        reference,
        note: "",
        value_date: None,
    };
    record_transfer(&books.database, &transfer, 5).await
}

async fn reversed(books: &Books, payment: PaymentId) -> Result<Reversal, PaymentError> {
    let new = NewReversal {
        payment,
        reason: "returned by the bank",
        created_by: "ada",
    };
    reverse_transfer(&books.database, &new, 10).await
}

async fn sent_back(books: &Books, payment: PaymentId, minor: i64) -> Result<(), PaymentError> {
    let new = NewRefund {
        payment,
        amount: usd(minor),
        reason: "asked for",
        created_by: "ada",
    };
    let mut transaction = books.database.begin_write().await.unwrap();
    record_returned_transfer(&mut transaction, &new, "bank 1", 9).await?;
    transaction.commit().await.unwrap();
    Ok(())
}

async fn cash(books: &Books) -> i64 {
    let account = ledger::Account::cash("manual", Currency::USD);
    ledger::balance(books.database.pool(), &account).await.unwrap().minor
}

async fn granted(books: &Books, minor: i64) {
    let mut transaction = books.database.begin_write().await.unwrap();
    let cause = format!("t:{minor}");
    settlement::grant_credit(&mut transaction, books.customer, usd(minor), &cause, "promotion", 6)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
}

/// f32: before, nothing could take it back.
#[tokio::test]
async fn a_transfer_that_never_came_in_is_reversed_and_its_invoice_is_open_again() {
    let books = Books::new().await;
    let invoice = books.document(10_000, None).await;
    let paid = recorded(&books, Some(invoice), 12_500, "T").await.unwrap();
    assert_eq!(
        (books.status(invoice).await.as_str(), books.credit().await),
        ("paid", 2_500)
    );
    let reversal = reversed(&books, paid.id).await.unwrap();
    assert_eq!(
        (reversal.amount, reversal.reason.as_str()),
        (usd(12_500), "returned by the bank")
    );
    assert_eq!(
        (books.status(invoice).await.as_str(), books.credit().await),
        ("finalised", 0)
    );
    assert_eq!(books.open(invoice).await, 10_000);
    books.assert_clean().await;
    // The payment stays as it was recorded; its reversal is beside it.
    let after = payment(books.database.pool(), paid.id).await.unwrap();
    assert!(after.is_reversed && after.amount == usd(12_500), "{after:?}");
    assert_eq!(
        reversal_of(books.database.pool(), &after).await.unwrap(),
        Some(reversal)
    );
    let cash = ledger::Account::cash("manual", Currency::USD);
    assert_eq!(ledger::balance(books.database.pool(), &cash).await.unwrap(), usd(0));
    let told = event::list(books.database.pool(), EventFilter::default(), 10)
        .await
        .unwrap();
    let told = told
        .iter()
        .find(|event| event.event_type == EventType::PaymentReversed)
        .unwrap();
    assert_eq!(told.customer, Some(books.customer));
    for (name, fact) in [
        ("payment", "pay_1".into()),
        ("invoice", "inv_1".into()),
        ("number", "N-1".into()),
        ("amount_minor", 12_500.into()),
        ("reference", "T".into()),
        ("reason", serde_json::Value::from("returned by the bank")),
    ] {
        assert_eq!(told.payload[name], fact, "{name}");
    }

    // Once.
    let again = reversed(&books, paid.id).await.unwrap_err();
    assert_eq!(again.to_string(), "pay_1 cannot be reversed: it was reversed before");
    // Rightly now, under the same reference; and then not twice.
    let right = recorded(&books, Some(invoice), 10_000, "T").await.unwrap();
    assert_eq!(books.status(invoice).await, "paid");
    let twice = recorded(&books, Some(invoice), 10_000, "T").await.unwrap_err();
    assert!(
        matches!(twice, PaymentError::RecordedBefore { payment, .. } if payment == right.id),
        "{twice}"
    );
    reversed(&books, right.id).await.unwrap();
    recorded(&books, Some(invoice), 9_000, "T").await.unwrap();
    assert_eq!(books.open(invoice).await, 1_000);
    books.assert_clean().await;
}

#[tokio::test]
async fn what_was_spent_or_sent_back_of_a_reversed_transfer_is_not_taken_twice() {
    let books = Books::new().await;
    // Recorded as credit, a part of it was sent back, and the rest was spent.
    let paid = recorded(&books, None, 10_000, "T").await.unwrap();
    sent_back(&books, paid.id, 4_000).await.unwrap();
    let invoice = books.document(6_000, None).await;
    let mut transaction = books.database.begin_write().await.unwrap();
    settlement::apply_credit(&mut transaction, invoice, 8).await.unwrap();
    transaction.commit().await.unwrap();
    // The bank took all of it back: what was sent to the customer is owed as well.
    assert_eq!(reversed(&books, paid.id).await.unwrap().amount, usd(10_000));
    // Credit that was spent and is taken back opens what it paid (docs/billing.md, Collection). The credit is below zero only by
    // what no invoice takes: here 60.00 were spent and 40.00 sent back.
    assert_eq!((books.credit().await, books.open(invoice).await), (-4_000, 6_000));
    assert_eq!(cash(&books).await, -4_000);
    assert_eq!(books.status(invoice).await, "finalised");
    books.assert_clean().await;

    // Refunded, and taken back by the gateway as well: no invoice takes that.
    let refunded = books.top_up(1_000).await;
    books.refund(refunded, 600).await;
    books.take_back(refunded, 1_000).await;
    assert_eq!((books.credit().await, books.open(invoice).await), (-4_600, 6_000));
    let all_sent = recorded(&books, None, 500, "U").await.unwrap();
    let refused = sent_back(&books, all_sent.id, 500).await.unwrap_err();
    assert!(
        matches!(refused, PaymentError::NotRefundable { .. }),
        "the credit is below zero: {refused}"
    );
    // Gateways say themselves what became of their money.
    sqlx::query("UPDATE payments SET gateway = 'stripe' WHERE id = $1")
        .bind(all_sent.id.0)
        .execute(books.database.pool())
        .await
        .unwrap();
    let refused = reversed(&books, all_sent.id).await.unwrap_err().to_string();
    assert!(refused.contains("it came by a gateway"), "{refused}");
}

#[tokio::test]
async fn a_transfer_that_was_sent_back_as_a_whole_and_bounced_is_owed() {
    let books = Books::new().await;
    let paid = recorded(&books, None, 500, "T").await.unwrap();
    sent_back(&books, paid.id, 500).await.unwrap();
    assert_eq!(reversed(&books, paid.id).await.unwrap().amount, usd(500));
    assert_eq!((books.credit().await, cash(&books).await), (-500, -500));
    let refused = reversed(&books, paid.id).await.unwrap_err();
    assert_eq!(refused.to_string(), "pay_1 cannot be reversed: it was reversed before");
    books.assert_clean().await;
}

/// Before, 60.00 were reversed, and the bank account had 40.00 more in the books than at the bank.
#[tokio::test]
async fn a_transfer_that_bounced_after_a_partial_refund_is_reversed_as_a_whole() {
    let books = Books::new().await;
    let invoice = books.document(10_000, None).await;
    let paid = recorded(&books, Some(invoice), 10_000, "T").await.unwrap();
    let note = books.document(-4_000, Some(invoice)).await;
    let mut transaction = books.database.begin_write().await.unwrap();
    settlement::apply_credit_note(&mut transaction, note, 7).await.unwrap();
    transaction.commit().await.unwrap();
    sent_back(&books, paid.id, 4_000).await.unwrap();
    assert_eq!((books.credit().await, cash(&books).await), (0, 6_000));
    assert_eq!(reversed(&books, paid.id).await.unwrap().amount, usd(10_000));
    // 60.00 of the invoice are left after its credit note, and 40.00 were sent.
    assert_eq!(cash(&books).await, -4_000);
    assert_eq!(books.open(invoice).await - books.credit().await, 10_000);
    books.assert_clean().await;
}

/// f31: before, the credit that was granted left as cash.
#[tokio::test]
async fn granted_credit_is_not_refunded() {
    let books = Books::new().await;
    let invoice = books.document(10_000, None).await;
    let paid = recorded(&books, Some(invoice), 10_000, "T").await.unwrap();
    granted(&books, 10_000).await;
    let refused = sent_back(&books, paid.id, 10_000).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "USD 0.00 of pay_1 can be refunded, not USD 100.00: what settled an invoice becomes credit by a credit note first, and \
         credit that was granted is not paid out"
    );
    // What was paid and is given back can be, beside what was granted.
    let note = books.document(-3_000, Some(invoice)).await;
    let mut transaction = books.database.begin_write().await.unwrap();
    settlement::apply_credit_note(&mut transaction, note, 7).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(books.credit().await, 13_000);
    let refused = sent_back(&books, paid.id, 3_001).await.unwrap_err();
    assert!(
        refused.to_string().starts_with("USD 30.00 of pay_1 can be refunded"),
        "{refused}"
    );
    sent_back(&books, paid.id, 3_000).await.unwrap();
    assert_eq!(books.credit().await, 10_000);
    books.assert_clean().await;
}

#[tokio::test]
async fn granted_credit_does_not_become_money_by_way_of_an_invoice() {
    let books = Books::new().await;
    let topped_up = recorded(&books, None, 5_000, "T").await.unwrap();
    granted(&books, 7_000).await;
    let invoice = books.document(10_000, None).await;
    let mut transaction = books.database.begin_write().await.unwrap();
    settlement::apply_credit(&mut transaction, invoice, 7).await.unwrap();
    transaction.commit().await.unwrap();
    // 70.00 of it were granted, 30.00 paid in.
    let refused = sent_back(&books, topped_up.id, 2_001).await.unwrap_err();
    assert!(refused.to_string().starts_with("USD 20.00 of pay_1"), "{refused}");
    let note = books.document(-10_000, Some(invoice)).await;
    let mut transaction = books.database.begin_write().await.unwrap();
    settlement::apply_credit_note(&mut transaction, note, 8).await.unwrap();
    let paid_in = settlement::paid_in(&mut transaction, books.customer, Currency::USD)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert_eq!((books.credit().await, paid_in), (12_000, usd(5_000)));
    sent_back(&books, topped_up.id, 5_000).await.unwrap();
    assert_eq!(books.credit().await, 7_000);
    books.assert_clean().await;
}
