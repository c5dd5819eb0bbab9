//! What gateways tell on their own, repeated and in any order: refunds made at their dashboard, disputes, cards that were
//! entered on their pages; and payments that nobody confirmed. The books are right after each.

use billing::payment::{NewRefund, PaymentError, WebhookOutcome};

use super::*;

const HOUR_MS: i64 = 3_600_000;

/// What the books say of one invoice that was paid by card.
#[derive(PartialEq, Eq, Debug)]
struct Books {
    cash: i64,
    disputes: i64,
    open: i64,
    credit: i64,
    status: &'static str,
}

const PAID: Books = Books {
    cash: INVOICE_MINOR,
    disputes: 0,
    open: 0,
    credit: 0,
    status: "paid",
};
const TAKEN_BACK: Books = Books {
    cash: 0,
    open: INVOICE_MINOR,
    status: "finalised",
    ..PAID
};

impl Schedule {
    async fn charge(&self, invoice: InvoiceId) -> Result<Payment, PaymentError> {
        let new = NewPayment {
            customer: self.customer,
            invoice: Some(invoice),
            amount: None,
            method: self.method,
            note: "",
            return_url: None,
        };
        let now_ms = self.now_ms.load(Ordering::SeqCst);
        payment::start(&self.database, self.gateway.as_ref(), &new, now_ms).await
    }

    /// The gateway's name of the charge that paid an invoice.
    async fn paid(&self, invoice: InvoiceId) -> String {
        let payment = self.charge(invoice).await.unwrap();
        assert_eq!(payment.state, PaymentState::Succeeded, "{payment:?}");
        payment.reference.unwrap()
    }

    async fn hears(&self, body: &str) -> WebhookOutcome {
        let now_ms = self.now_ms.fetch_add(1_000, Ordering::SeqCst);
        let mut headers = reqwest::header::HeaderMap::new();
        let signature = sign(WEBHOOK_SECRET, now_ms / 1000, body.as_bytes());
        headers.insert("stripe-signature", signature.parse().unwrap());
        payment::receive_webhook(
            &self.database,
            self.gateway.as_ref(),
            &headers,
            body.as_bytes(),
            now_ms,
            now_ms,
        )
        .await
        .unwrap()
    }

    async fn reconcile_after(&self, pass_ms: i64) -> payment::Reconciled {
        let now_ms = self.now_ms.fetch_add(pass_ms, Ordering::SeqCst) + pass_ms;
        payment::reconcile(&self.database, &self.gateways, now_ms)
            .await
            .unwrap()
    }

    async fn books(&self, invoice: InvoiceId) -> Books {
        let report = ledger::check(&self.database).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        let pool = self.database.pool();
        let balance = async |account: Account| ledger::balance(pool, &account).await.unwrap().minor;
        let row = sqlx::query("SELECT status FROM invoices WHERE id = $1")
            .bind(invoice.0)
            .fetch_one(pool)
            .await
            .unwrap();
        let status: String = row.try_get(0).unwrap();
        let statuses = ["finalised", "partially_paid", "paid"];
        Books {
            cash: balance(Account::cash("stripe", Currency::USD)).await,
            disputes: balance(Account::disputes(Currency::USD)).await,
            open: settlement::outstanding(pool, invoice).await.unwrap().minor,
            credit: -balance(Account::credit(self.customer, Currency::USD)).await,
            status: statuses.into_iter().find(|known| *known == status).unwrap(),
        }
    }

    async fn count(&self, sql: &'static str) -> i64 {
        let row = sqlx::query(sql).fetch_one(self.database.pool()).await.unwrap();
        row.try_get(0).unwrap()
    }
}

/// Every order of three.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[tokio::test(flavor = "multi_thread")]
async fn refunds_made_at_the_dashboard_open_the_invoice_again_once() {
    let schedule = Schedule::new().await;
    let invoice = schedule.invoices[0];
    let charge = schedule.paid(invoice).await;
    assert_eq!(schedule.books(invoice).await, PAID);
    let some = schedule
        .stub
        .truth()
        .refund_at_the_dashboard(&charge, 4_000, "succeeded");
    for expected in [WebhookOutcome::Applied, WebhookOutcome::Repeated] {
        assert_eq!(schedule.hears(&some).await, expected);
        let books = Books {
            cash: 6_000,
            open: 4_000,
            status: "partially_paid",
            ..PAID
        };
        assert_eq!(schedule.books(invoice).await, books);
    }
    let rest = schedule
        .stub
        .truth()
        .refund_at_the_dashboard(&charge, 6_000, "succeeded");
    schedule.hears(&rest).await;
    assert_eq!(schedule.books(invoice).await, TAKEN_BACK);
    // Told again under other names, as of the refund's every change, and backwards.
    let ids: Vec<String> = schedule
        .stub
        .truth()
        .refunds
        .iter()
        .map(|one| one["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    for id in ids {
        let again = schedule.stub.truth().refund_becomes(&id, "succeeded");
        assert_eq!(schedule.hears(&again).await, WebhookOutcome::Applied);
    }
    let events = schedule.stub.truth().events.clone();
    for body in events.iter().rev() {
        schedule.hears(body).await;
    }
    assert_eq!(schedule.books(invoice).await, TAKEN_BACK);
    assert_eq!(schedule.count("SELECT count(*) FROM refunds").await, 2);
    // What was taken back can be paid again.
    schedule.paid(invoice).await;
    assert_eq!(schedule.books(invoice).await, PAID);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_at_the_dashboard_ends_the_same_in_whatever_order_it_is_told() {
    for (steps, expected) in [
        (["pending", "pending", "succeeded"], TAKEN_BACK),
        // It never went out.
        (["pending", "pending", "failed"], PAID),
    ] {
        for order in ORDERS {
            let schedule = Schedule::new().await;
            let invoice = schedule.invoices[0];
            let charge = schedule.paid(invoice).await;
            let mut bodies = vec![
                schedule
                    .stub
                    .truth()
                    .refund_at_the_dashboard(&charge, INVOICE_MINOR, steps[0]),
            ];
            let id = schedule.stub.truth().refunds[0]["id"].as_str().unwrap().to_owned();
            for step in &steps[1..] {
                bodies.push(schedule.stub.truth().refund_becomes(&id, step));
            }
            for at in order.into_iter().chain(order) {
                schedule.hears(&bodies[at]).await;
            }
            assert_eq!(schedule.books(invoice).await, expected, "{steps:?} {order:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_at_the_dashboard_that_came_back_leaves_the_money_with_the_customer() {
    // As it happened: the invoice was open in between, so what came back is credit that pays for it.
    let schedule = Schedule::new().await;
    let invoice = schedule.invoices[0];
    let charge = schedule.paid(invoice).await;
    let went = schedule
        .stub
        .truth()
        .refund_at_the_dashboard(&charge, INVOICE_MINOR, "succeeded");
    let id = schedule.stub.truth().refunds[0]["id"].as_str().unwrap().to_owned();
    let back = schedule.stub.truth().refund_becomes(&id, "failed");
    for body in [&went, &back, &went, &back] {
        schedule.hears(body).await;
    }
    let books = Books {
        cash: INVOICE_MINOR,
        credit: INVOICE_MINOR,
        ..TAKEN_BACK
    };
    assert_eq!(schedule.books(invoice).await, books);
    // The other way round it never left: the invoice stays paid.
    let invoice = schedule.invoices[1];
    let charge = schedule.paid(invoice).await;
    let went = schedule
        .stub
        .truth()
        .refund_at_the_dashboard(&charge, INVOICE_MINOR, "succeeded");
    let id = schedule.stub.truth().refunds[1]["id"].as_str().unwrap().to_owned();
    let back = schedule.stub.truth().refund_becomes(&id, "failed");
    for body in [&back, &went, &back, &went] {
        schedule.hears(body).await;
    }
    let books = schedule.books(invoice).await;
    assert_eq!((books.open, books.status, books.cash), (0, "paid", 2 * INVOICE_MINOR));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispute_ends_the_same_in_whatever_order_it_is_told() {
    for (end, expected) in [("won", PAID), ("lost", TAKEN_BACK)] {
        for order in ORDERS {
            let schedule = Schedule::new().await;
            let invoice = schedule.invoices[0];
            let charge = schedule.paid(invoice).await;
            let mut bodies = Vec::new();
            for status in ["needs_response", "under_review", end] {
                bodies.push(schedule.stub.truth().dispute("dp_1", &charge, INVOICE_MINOR, status));
            }
            for at in order.into_iter().chain(order) {
                schedule.hears(&bodies[at]).await;
                let is_decided = order[..=order.iter().position(|one| *one == at).unwrap()].contains(&2);
                if !is_decided
                    && schedule
                        .count("SELECT count(*) FROM disputes WHERE status = 'open'")
                        .await
                        == 1
                {
                    // The gateway holds it; the invoice is paid still.
                    let held = Books {
                        cash: 0,
                        disputes: INVOICE_MINOR,
                        ..PAID
                    };
                    assert_eq!(schedule.books(invoice).await, held, "{order:?}");
                }
            }
            assert_eq!(schedule.books(invoice).await, expected, "{end} {order:?}");
            assert_eq!(schedule.count("SELECT count(*) FROM disputes").await, 1);
            let told = schedule
                .count("SELECT count(*) FROM events WHERE event_type LIKE 'dispute.%'")
                .await;
            assert_eq!(told, 2, "that it began and how it ended, once each: {order:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_before_the_charge_is_known_waits_for_it() {
    for fault in [Fault::HangAfter, Fault::ErrorAfter, Fault::ResetAfter] {
        let schedule = Schedule::new().await;
        let invoice = schedule.invoices[0];
        schedule.stub.truth().faults.push_back(fault);
        let unknown = schedule.charge(invoice).await.unwrap();
        assert_eq!(unknown.state, PaymentState::Unknown, "{fault:?}");
        let charge = schedule.stub.truth().intents[0]["id"].as_str().unwrap().to_owned();
        let refund = schedule
            .stub
            .truth()
            .refund_at_the_dashboard(&charge, 4_000, "succeeded");
        let opened = schedule.stub.truth().dispute("dp_1", &charge, 6_000, "needs_response");
        let lost = schedule.stub.truth().dispute("dp_1", &charge, 6_000, "lost");
        for body in [&lost, &refund, &opened] {
            assert_eq!(schedule.hears(body).await, WebhookOutcome::Stored, "{fault:?}");
        }
        // The charge is found; what was kept is counted by the run after it, whatever comes first.
        schedule.reconcile_after(300_000).await;
        schedule.reconcile_after(300_000).await;
        assert_eq!(schedule.books(invoice).await, TAKEN_BACK, "{fault:?}");
        let success = schedule.stub.truth().events[0].clone();
        for body in [&opened, &success, &refund, &lost] {
            schedule.hears(body).await;
        }
        assert_eq!(schedule.books(invoice).await, TAKEN_BACK, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_of_ours_is_counted_once_whoever_tells_of_it() {
    for fault in [Fault::None, Fault::ErrorAfter, Fault::HangAfter] {
        let schedule = Schedule::new().await;
        let new = NewPayment {
            customer: schedule.customer,
            invoice: None,
            amount: Some(usd(2_500)),
            method: schedule.method,
            note: "",
            return_url: None,
        };
        let now_ms = schedule.now_ms.load(Ordering::SeqCst);
        let gateway = schedule.gateway.as_ref();
        let paid = payment::start(&schedule.database, gateway, &new, now_ms).await.unwrap();
        schedule.stub.truth().faults.push_back(fault);
        let refund = NewRefund {
            payment: paid.id,
            amount: usd(1_000),
            reason: "asked for",
            created_by: "test",
        };
        payment::refund(&schedule.database, gateway, &refund, now_ms)
            .await
            .unwrap();
        let events = schedule.stub.truth().events.clone();
        for body in events.iter().rev().chain(&events) {
            schedule.hears(body).await;
        }
        schedule.reconcile_after(300_000).await;
        let books = schedule.books(schedule.invoices[0]).await;
        assert_eq!((books.cash, books.credit), (1_500, 1_500), "{fault:?}");
        assert_eq!(schedule.count("SELECT count(*) FROM refunds").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_nobody_confirms_is_given_up_and_its_invoice_paid_anew() {
    for (fault, is_cancelled_at_once) in [
        (Fault::None, true),
        (Fault::ErrorBefore, false),
        (Fault::ResetAfter, false),
        (Fault::HangAfter, false),
    ] {
        let schedule = Schedule::new().await;
        let invoice = schedule.invoices[0];
        schedule.stub.truth().faults.push_back(Fault::Asks);
        let waits = schedule.charge(invoice).await.unwrap();
        assert_eq!(waits.state, PaymentState::RequiresAction);
        schedule.reconcile_after(22 * HOUR_MS).await;
        let blocked = schedule.charge(invoice).await;
        assert!(matches!(blocked, Err(PaymentError::UnderWay { .. })), "{blocked:?}");
        schedule.stub.truth().faults.push_back(fault);
        schedule.reconcile_after(2 * HOUR_MS).await;
        let state = async || {
            payment::payment(schedule.database.pool(), waits.id)
                .await
                .unwrap()
                .state
        };
        assert_eq!(
            state().await == PaymentState::Cancelled,
            is_cancelled_at_once,
            "{fault:?}"
        );
        while schedule.stub.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
        schedule.reconcile_after(2 * HOUR_MS).await;
        assert_eq!(state().await, PaymentState::Cancelled, "{fault:?}");
        assert_eq!(schedule.stub.truth().intents[0]["status"], "canceled");
        schedule.paid(invoice).await;
        assert_eq!(schedule.books(invoice).await, PAID);
        // What the gateway told all the while changes nothing.
        let events = schedule.stub.truth().events.clone();
        for body in events.iter().rev() {
            schedule.hears(body).await;
        }
        assert_eq!(schedule.books(invoice).await, PAID);
        assert_eq!(state().await, PaymentState::Cancelled);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_up_what_was_confirmed_in_that_moment_pays() {
    for by_itself in [false, true] {
        let schedule = Schedule::new().await;
        let invoice = schedule.invoices[0];
        schedule.stub.truth().faults.push_back(Fault::Asks);
        let waits = schedule.charge(invoice).await.unwrap();
        if by_itself {
            schedule.reconcile_after(22 * HOUR_MS).await;
        }
        // Here it waits; at the gateway it does not any more.
        let reference = schedule.stub.truth().confirm();
        assert_eq!(reference, waits.reference);
        if by_itself {
            schedule.reconcile_after(2 * HOUR_MS).await;
        } else {
            let now_ms = schedule.now_ms.load(Ordering::SeqCst);
            let gateway = schedule.gateway.as_ref();
            let given_up = payment::cancel(&schedule.database, gateway, waits.id, now_ms)
                .await
                .unwrap();
            assert_eq!(given_up.state, PaymentState::Succeeded);
        }
        assert_eq!(schedule.books(invoice).await, PAID);
        let success = schedule.stub.truth().events.last().unwrap().clone();
        schedule.hears(&success).await;
        assert_eq!(schedule.books(invoice).await, PAID);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_was_entered_is_saved_once_whoever_tells_of_it() {
    let schedule = Schedule::new().await;
    let gateway = schedule.gateway.as_ref();
    let started = method::start_setup(
        &schedule.database,
        gateway,
        schedule.customer,
        "https://portal.example/return?gateway=stripe",
        "https://portal.example/back",
    )
    .await
    .unwrap();
    assert!(started.url.starts_with("https://checkout.example/"), "{started:?}");
    let finish =
        async |customer| method::finish_setup(&schedule.database, gateway, customer, &started.reference, 5).await;
    let early = finish(schedule.customer).await;
    assert!(matches!(early, Err(PaymentError::SetupUnfinished { .. })), "{early:?}");
    let told = schedule.stub.truth().enter_card(&started.reference);
    let stolen = finish(CustomerId(schedule.customer.0 + 1)).await;
    assert!(
        matches!(stolen, Err(PaymentError::SetupUnfinished { .. })),
        "{stolen:?}"
    );
    assert_eq!(schedule.hears(&told).await, WebhookOutcome::Applied);
    assert_eq!(schedule.hears(&told).await, WebhookOutcome::Repeated);
    let saved = finish(schedule.customer).await.unwrap();
    assert_eq!(saved.label, "visa •••• 4242");
    assert_eq!(
        schedule.count("SELECT count(*) FROM payment_methods").await,
        2,
        "and the one there was"
    );
    // One of a customer that is not ours is kept, and saves nothing.
    let foreign = told
        .replace(&format!("\"{}\"", schedule.customer), "\"cus_99\"")
        .replace("\"evt_", "\"evt_9");
    assert_eq!(schedule.hears(&foreign).await, WebhookOutcome::Stored);
    assert_eq!(schedule.count("SELECT count(*) FROM payment_methods").await, 2);
}
