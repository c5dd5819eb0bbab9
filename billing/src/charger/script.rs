//! A charger that does with the database what payments do, and answers by a script.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use schemas::db::{Database, next_id};
use schemas::inventory;

use super::*;
use crate::settlement::{self, ReceivedMoney};

/// What the gateway says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    Succeeds,
    Declines,
    /// Stays under way until [`Script::finish`].
    Waits,
    /// The row is there and nobody knows.
    Breaks,
    /// The request never left: a failure that is nobody's.
    NotSent,
}

#[derive(Debug)]
pub(crate) struct Script {
    database: Database,
    answers: Mutex<VecDeque<Reply>>,
    /// When there is nothing left in the script.
    otherwise: Reply,
    asked: Mutex<Vec<(Purpose, i64)>>,
}

impl Script {
    pub(crate) fn new(database: &Database, answers: &[Reply], otherwise: Reply) -> Script {
        Script {
            database: database.clone(),
            answers: Mutex::new(answers.iter().copied().collect()),
            otherwise,
            asked: Mutex::new(Vec::new()),
        }
    }

    /// Every charge that was asked for, with its instant.
    pub(crate) fn asked(&self) -> Vec<(Purpose, i64)> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// What became of a payment that was under way.
    pub(crate) async fn finish(&self, payment: PaymentId, answer: Reply, now_ms: i64) {
        let mut transaction = self.database.begin_write().await.unwrap();
        let row = sqlx::query("SELECT customer_id, invoice_id, currency, amount_minor FROM payments WHERE id = $1")
            .bind(payment.0)
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
        let customer = CustomerId(row.get(0));
        let invoice: Option<i64> = row.get(1);
        let amount = Money::new(row.get(3), row.get::<String, _>(2).parse().unwrap());
        let (state, error) = match answer {
            Reply::Succeeds => ("succeeded", ""),
            Reply::Declines => ("failed", "card_declined: your card was declined"),
            Reply::NotSent => ("failed", "not_sent: no route"),
            Reply::Waits | Reply::Breaks => ("unknown", ""),
        };
        sqlx::query("UPDATE payments SET state = $2, error = $3, updated_at_ms = $4, paid_at_ms = $5 WHERE id = $1")
            .bind(payment.0)
            .bind(state)
            .bind(error)
            .bind(now_ms)
            .bind((state == "succeeded").then_some(now_ms))
            .execute(&mut *transaction)
            .await
            .unwrap();
        if answer == Reply::Succeeds {
            let received = ReceivedMoney {
                payment,
                customer,
                gateway: "stripe",
                amount,
            };
            match invoice {
                Some(invoice) => settlement::pay_invoice(&mut transaction, received, InvoiceId(invoice), now_ms).await,
                None => settlement::top_up(&mut transaction, received, now_ms).await,
            }
            .unwrap();
        }
        transaction.commit().await.unwrap();
    }
}

#[async_trait]
impl Charger for Script {
    async fn charge(&self, order: ChargeOrder<'_>, now_ms: i64) -> Result<ChargeResult, ChargerError> {
        let mut transaction = self.database.begin_write().await.unwrap();
        settlement::lock_customer(&mut transaction, order.customer)
            .await
            .unwrap();
        let (invoice, amount) = match order.purpose {
            Purpose::Invoice(invoice) => {
                let open = settlement::outstanding(&mut *transaction, invoice).await.unwrap();
                (Some(invoice), open)
            }
            Purpose::TopUp(amount) => (None, amount),
        };
        if amount.minor <= 0 {
            return Ok(ChargeResult::NothingOpen);
        }
        let owner = inventory::customer(&mut *transaction, order.customer).await.unwrap();
        assert_eq!(owner.currency, amount.currency);
        let under_way = sqlx::query(
            "SELECT id FROM payments WHERE customer_id = $1 AND coalesce(invoice_id, 0) = $2 \
             AND state IN ('intent', 'unknown', 'requires_action', 'processing')",
        )
        .bind(order.customer.0)
        .bind(invoice.map_or(0, |invoice| invoice.0))
        .fetch_optional(&mut *transaction)
        .await
        .unwrap();
        if let Some(row) = under_way {
            return Ok(ChargeResult::UnderWay(PaymentId(row.get(0))));
        }
        self.asked.lock().unwrap().push((order.purpose, now_ms));
        let payment = PaymentId(next_id(&mut transaction, "payment").await.unwrap());
        sqlx::query(
            "INSERT INTO payments (id, customer_id, invoice_id, purpose, gateway, method_id, currency, amount_minor, \
             idempotency_key, state, action_url, error, calls, note, created_at_ms, updated_at_ms) \
             VALUES ($1, $2, $3, $4, 'stripe', $5, $6, $7, $8, 'intent', '', '', 1, $9, $10, $10)",
        )
        .bind(payment.0)
        .bind(order.customer.0)
        .bind(invoice.map(|invoice| invoice.0))
        .bind(if invoice.is_some() { "invoice" } else { "top_up" })
        .bind(order.method.0)
        .bind(amount.currency.code())
        .bind(amount.minor)
        .bind(format!("key-{payment}"))
        .bind(order.note)
        .bind(now_ms)
        .execute(&mut *transaction)
        .await
        .unwrap();
        transaction.commit().await.unwrap();
        // The call: others get their turn.
        tokio::task::yield_now().await;
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(self.otherwise);
        self.finish(payment, answer, now_ms).await;
        match answer {
            Reply::Succeeds => Ok(ChargeResult::Succeeded(payment)),
            Reply::Declines | Reply::NotSent => Ok(ChargeResult::Declined {
                payment,
                reason: "card_declined: your card was declined".to_owned(),
            }),
            Reply::Waits => Ok(ChargeResult::UnderWay(payment)),
            Reply::Breaks => Err(ChargerError {
                customer: order.customer,
                source: "the connection was reset".into(),
            }),
        }
    }
}

/// A saved payment method that is the customer's default.
pub(crate) async fn save_method(database: &Database, customer: CustomerId) -> PaymentMethodId {
    let mut transaction = database.begin_write().await.unwrap();
    let id = next_id(&mut transaction, "payment_method").await.unwrap();
    sqlx::query(
        "INSERT INTO payment_methods (id, customer_id, gateway, gateway_customer, reference, kind, label, expires, is_default, \
         created_at_ms) VALUES ($1, $2, 'stripe', 'cus_x', $3, 'card', 'Visa 4242', '2030-01', 1, 0)",
    )
    .bind(id)
    .bind(customer.0)
    .bind(format!("pm_{id}"))
    .execute(&mut *transaction)
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    PaymentMethodId(id)
}
