//! A payment that waits for the customer: it is given up by them, or by itself after [`ACTION_LIMIT_MS`], and what the gateway
//! says counts, never what was asked of it. And what was saved, removed and heard of again.

use std::sync::Arc;

use schemas::ids::PaymentMethodId;
use schemas::window::HOUR_MS;
use sqlx::Row as _;

use super::testing::{ScriptedGateway, save_card};
use super::*;
use crate::ledger;
use crate::settlement;
use crate::testing::{World, ms};

const START: &str = "2026-03-01T00:00:00Z";

struct Waiting {
    world: World,
    customer: CustomerId,
    method: PaymentMethodId,
    gateway: Arc<ScriptedGateway>,
    gateways: Gateways,
    payment: PaymentId,
}

fn asks() -> ChargeState {
    ChargeState::RequiresAction {
        url: "https://bank.example/confirm".to_owned(),
    }
}

impl Waiting {
    /// A top-up of 25.00 that the bank wants confirmed.
    async fn new() -> Waiting {
        let world = World::new().await;
        let customer = world.customer("USD", "UTC", "0").await;
        let method = save_card(&world.database, customer, "pm_1").await;
        let gateway = Arc::new(ScriptedGateway::default());
        gateway.charges.lock().unwrap().push_back(Some(asks()));
        let waits = begin(&world, gateway.as_ref(), customer, method, ms(START))
            .await
            .unwrap();
        assert_eq!(waits.state, PaymentState::RequiresAction);
        assert_eq!(waits.action_url, "https://bank.example/confirm");
        Waiting {
            gateways: Gateways::new(vec![gateway.clone()]),
            payment: waits.id,
            world,
            customer,
            method,
            gateway,
        }
    }

    async fn begin(&self, now_ms: i64) -> Result<Payment, PaymentError> {
        begin(&self.world, self.gateway.as_ref(), self.customer, self.method, now_ms).await
    }

    async fn state(&self) -> PaymentState {
        payment(self.world.database.pool(), self.payment).await.unwrap().state
    }

    async fn balance(&self) -> i64 {
        let report = ledger::check(&self.world.database).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        let balance = settlement::credit_balance(self.world.database.pool(), self.customer, Currency::USD).await;
        balance.unwrap().minor
    }

    async fn reconcile(&self, now_ms: i64) -> Reconciled {
        reconcile(&self.world.database, &self.gateways, now_ms).await.unwrap()
    }

    fn cancels(&self) -> u64 {
        *self.gateway.cancels.lock().unwrap()
    }
}

async fn begin(
    world: &World,
    gateway: &ScriptedGateway,
    customer: CustomerId,
    method: PaymentMethodId,
    now_ms: i64,
) -> Result<Payment, PaymentError> {
    let new = NewPayment {
        customer,
        invoice: None,
        amount: Some(Money::new(2_500, Currency::USD)),
        method,
        note: "",
        return_url: Some("https://portal.example/credit"),
    };
    start(&world.database, gateway, &new, now_ms).await
}

#[tokio::test]
async fn what_nobody_confirms_ends_by_itself_and_another_can_be_made() {
    let waiting = Waiting::new().await;
    *waiting.gateway.found.lock().unwrap() = Some(Some(asks()));
    *waiting.gateway.cancelled.lock().unwrap() = Some(ChargeState::Cancelled);
    let start_ms = ms(START);
    // Looked at all day long, and left alone.
    for hour in 1..23 {
        waiting.reconcile(start_ms + hour * HOUR_MS).await;
        assert_eq!(waiting.state().await, PaymentState::RequiresAction, "after {hour} h");
    }
    assert_eq!(waiting.cancels(), 0);
    let refused = waiting.begin(start_ms + 22 * HOUR_MS).await;
    assert!(matches!(refused, Err(PaymentError::UnderWay { .. })), "{refused:?}");
    let done = waiting.reconcile(start_ms + ACTION_LIMIT_MS + HOUR_MS).await;
    assert_eq!((done.settled, waiting.cancels()), (1, 1), "{done:?}");
    assert_eq!(waiting.state().await, PaymentState::Cancelled);
    let next = waiting.begin(start_ms + 25 * HOUR_MS).await.unwrap();
    assert_eq!((next.state, waiting.balance().await), (PaymentState::Succeeded, 2_500));
}

#[tokio::test]
async fn a_cancellation_without_an_answer_is_looked_up_and_never_assumed() {
    let waiting = Waiting::new().await;
    let late_ms = ms(START) + ACTION_LIMIT_MS + HOUR_MS;
    *waiting.gateway.found.lock().unwrap() = Some(Some(asks()));
    // By the customer, and by itself: nobody says what became of it.
    let silent = cancel(
        &waiting.world.database,
        waiting.gateway.as_ref(),
        waiting.payment,
        ms(START),
    )
    .await;
    assert!(matches!(silent, Err(PaymentError::Gateway { .. })), "{silent:?}");
    let done = waiting.reconcile(late_ms).await;
    assert_eq!((done.errors, waiting.state().await), (1, PaymentState::RequiresAction));
    // The customer had confirmed it meanwhile.
    *waiting.gateway.found.lock().unwrap() = Some(Some(ChargeState::Succeeded));
    waiting.reconcile(late_ms + HOUR_MS).await;
    assert_eq!(
        (waiting.state().await, waiting.balance().await),
        (PaymentState::Succeeded, 2_500)
    );
}

#[tokio::test]
async fn giving_up_what_has_succeeded_pays() {
    let waiting = Waiting::new().await;
    *waiting.gateway.cancelled.lock().unwrap() = Some(ChargeState::Succeeded);
    let paid = cancel(
        &waiting.world.database,
        waiting.gateway.as_ref(),
        waiting.payment,
        ms(START),
    )
    .await
    .unwrap();
    assert_eq!((paid.state, waiting.balance().await), (PaymentState::Succeeded, 2_500));
    // Again: there is nothing to give up any more, and nobody is asked.
    let again = cancel(
        &waiting.world.database,
        waiting.gateway.as_ref(),
        waiting.payment,
        ms(START),
    )
    .await
    .unwrap();
    assert_eq!((again.state, waiting.cancels()), (PaymentState::Succeeded, 1));
}

#[tokio::test]
async fn an_order_that_its_gateway_has_forgotten_ends_too() {
    let waiting = Waiting::new().await;
    *waiting.gateway.found.lock().unwrap() = Some(None);
    waiting.reconcile(ms(START) + 5 * HOUR_MS).await;
    assert_eq!(waiting.state().await, PaymentState::RequiresAction);
    waiting.reconcile(ms(START) + ACTION_LIMIT_MS + HOUR_MS).await;
    assert_eq!((waiting.state().await, waiting.cancels()), (PaymentState::Cancelled, 0));
    assert_eq!(waiting.gateway.keys.lock().unwrap().len(), 1, "it is not charged again");
}

#[tokio::test]
async fn back_from_the_bank_the_gateway_is_asked_at_once() {
    let waiting = Waiting::new().await;
    let look = async || {
        query_gateway(
            &waiting.world.database,
            waiting.gateway.as_ref(),
            waiting.payment,
            ms(START),
        )
        .await
    };
    assert!(matches!(look().await, Err(PaymentError::Gateway { .. })));
    *waiting.gateway.found.lock().unwrap() = Some(Some(asks()));
    assert_eq!(look().await.unwrap().state, PaymentState::RequiresAction);
    *waiting.gateway.found.lock().unwrap() = Some(Some(ChargeState::Succeeded));
    for _ in 0..2 {
        assert_eq!(look().await.unwrap().state, PaymentState::Succeeded);
    }
    assert_eq!(waiting.balance().await, 2_500);
}

#[tokio::test]
async fn a_method_is_saved_once_stays_removed_and_is_nobody_else_s() {
    let waiting = Waiting::new().await;
    let database = &waiting.world.database;
    assert_eq!(save_card(database, waiting.customer, "pm_1").await, waiting.method);
    method::remove(database, waiting.gateway.as_ref(), waiting.customer, waiting.method, 5)
        .await
        .unwrap();
    // Word of it comes late, or an old address is opened again.
    assert_eq!(save_card(database, waiting.customer, "pm_1").await, waiting.method);
    let left = method::methods(database.pool(), waiting.customer).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    let other = waiting.world.customer("USD", "UTC", "0").await;
    let saved = gateway::SavedMethod {
        gateway_customer: "cus_x".to_owned(),
        reference: "pm_1".to_owned(),
        kind: "card".to_owned(),
        label: "visa".to_owned(),
        expires: String::new(),
    };
    let mut transaction = database.begin_write().await.unwrap();
    let stolen = method::save(&mut transaction, GatewayName::Stripe, other, &saved, 6).await;
    assert!(matches!(stolen, Err(PaymentError::NoMethod { .. })), "{stolen:?}");
    transaction.rollback().await.unwrap();
    let count: i64 = sqlx::query("SELECT count(*) FROM payment_methods")
        .fetch_one(database.pool())
        .await
        .unwrap()
        .get(0);
    assert_eq!(count, 1);
}
