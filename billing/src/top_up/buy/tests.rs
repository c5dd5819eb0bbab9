use std::sync::Arc;

use schemas::money::Currency;

use super::*;
use crate::budget;
use crate::ledger;
use crate::payment::testing::{ScriptedGateway, save_card};
use crate::payment::{ChargeState, PaymentError, PaymentFilter, PaymentState, list, reconcile};
use crate::settlement;
use crate::testing::{World, ms};
use crate::top_up::{Cause, movements};

const START: &str = "2026-03-01T00:00:00Z";

struct Buyer {
    world: World,
    customer: CustomerId,
    method: PaymentMethodId,
    gateway: Arc<ScriptedGateway>,
    gateways: Gateways,
}

impl Buyer {
    async fn new() -> Buyer {
        Buyer::of(World::new().await).await
    }

    async fn of(world: World) -> Buyer {
        let customer = world.customer("USD", "UTC", "0").await;
        let gateway = Arc::new(ScriptedGateway::default());
        Buyer {
            method: save_card(&world.database, customer, "pm_1").await,
            gateways: Gateways::new(vec![gateway.clone()]),
            world,
            customer,
            gateway,
        }
    }

    async fn buys(&self, request: &str, minor: i64, now_ms: i64) -> Result<Payment, TopUpError> {
        let purchase = Purchase {
            customer: self.customer,
            amount: Money::new(minor, Currency::USD),
            method: self.method,
            request,
            return_url: None,
        };
        buy(&self.world.database, &self.gateways, &purchase, now_ms).await
    }

    async fn balance(&self) -> i64 {
        let report = ledger::check(&self.world.database).await.unwrap();
        assert!(report.is_clean(), "{report:?}");
        let balance = settlement::credit_balance(self.world.database.pool(), self.customer, Currency::USD).await;
        balance.unwrap().minor
    }

    fn calls(&self) -> usize {
        self.gateway.keys.lock().unwrap().len()
    }
}

#[tokio::test]
async fn the_same_request_is_the_same_payment() {
    let buyer = Buyer::new().await;
    let first = buyer.buys("form-1", 5_000, ms(START)).await.unwrap();
    assert_eq!((first.state, buyer.balance().await), (PaymentState::Succeeded, 5_000));
    // Again, and much later, and with another amount in the form: it is that payment still.
    for (minor, later_ms) in [(5_000, 0), (5_000, 90 * 86_400_000), (9_900, 1)] {
        let again = buyer.buys("form-1", minor, ms(START) + later_ms).await.unwrap();
        assert_eq!(again.id, first.id);
    }
    assert_eq!((buyer.calls(), buyer.balance().await), (1, 5_000));
    let other = buyer.buys("form-2", 5_000, ms(START)).await.unwrap();
    assert_ne!(other.id, first.id);
    assert_eq!((buyer.calls(), buyer.balance().await), (2, 10_000));
}

#[tokio::test]
async fn of_two_clicks_at_once_one_charges() {
    let buyer = Buyer::new().await;
    let (one, two) = tokio::join!(
        buyer.buys("form-1", 5_000, ms(START)),
        buyer.buys("form-1", 5_000, ms(START))
    );
    assert_eq!(one.unwrap().id, two.unwrap().id);
    assert_eq!((buyer.calls(), buyer.balance().await), (1, 5_000));
}

#[tokio::test]
async fn without_an_answer_it_is_looked_for_by_its_key_and_not_charged_by_the_form() {
    let buyer = Buyer::new().await;
    buyer.gateway.charges.lock().unwrap().push_back(None);
    let unknown = buyer.buys("form-1", 5_000, ms(START)).await.unwrap();
    assert_eq!(unknown.state, PaymentState::Unknown);
    let again = buyer.buys("form-1", 5_000, ms(START) + 1).await.unwrap();
    assert_eq!((again.id, buyer.calls()), (unknown.id, 1));
    let refused = buyer.buys("form-2", 5_000, ms(START) + 2).await;
    assert!(
        matches!(refused, Err(TopUpError::Payment(PaymentError::UnderWay { .. }))),
        "{refused:?}"
    );
    *buyer.gateway.found.lock().unwrap() = Some(Some(ChargeState::Succeeded));
    reconcile(&buyer.world.database, &buyer.gateways, ms(START) + 600_000)
        .await
        .unwrap();
    assert_eq!((buyer.calls(), buyer.balance().await), (1, 5_000));
}

#[tokio::test]
async fn what_may_not_be_bought_leaves_nothing_behind() {
    let buyer = Buyer::new().await;
    for minor in [499, 500_001, 0, -5_000] {
        let refused = buyer.buys("form-1", minor, ms(START)).await;
        assert!(matches!(refused, Err(TopUpError::OutOfRange { .. })), "{refused:?}");
    }
    for request in ["", "a b", &"x".repeat(129)] {
        let refused = buyer.buys(request, 5_000, ms(START)).await;
        assert!(
            matches!(refused, Err(TopUpError::Payment(PaymentError::Text { .. }))),
            "{refused:?}"
        );
    }
    // S1: a card of somebody else's.
    let other = buyer.world.customer("USD", "UTC", "0").await;
    let theirs = save_card(&buyer.world.database, other, "pm_2").await;
    let purchase = Purchase {
        customer: buyer.customer,
        amount: Money::new(5_000, Currency::USD),
        method: theirs,
        request: "form-1",
        return_url: None,
    };
    let refused = buy(&buyer.world.database, &buyer.gateways, &purchase, ms(START)).await;
    assert!(
        matches!(refused, Err(TopUpError::Payment(PaymentError::NoMethod { .. }))),
        "{refused:?}"
    );
    // The same request of another customer is another payment.
    buyer.buys("form-1", 5_000, ms(START)).await.unwrap();
    let purchase = Purchase {
        customer: other,
        ..purchase
    };
    let own = buy(&buyer.world.database, &buyer.gateways, &purchase, ms(START)).await;
    assert_eq!(own.unwrap().customer, other);
    let all = list(buyer.world.database.pool(), PaymentFilter::default(), 10)
        .await
        .unwrap();
    assert_eq!((all.len(), buyer.calls()), (2, 2));
}

#[tokio::test]
async fn movements_tell_where_credit_came_from_with_the_balance_after_each() {
    movements_of(Buyer::new().await).await;
}

#[tokio::test]
async fn movements_and_alerts_are_read_from_postgresql_too() {
    let buyer = Buyer::of(World::on_postgres().await).await;
    sqlx::query(
        "INSERT INTO budget_alerts (customer_id, cycle_start_ms, threshold, basis, spent_minor, alerted_at_ms) \
         VALUES ($1, 7, 75, 'spent', 1500, 9)",
    )
    .bind(buyer.customer.0)
    .execute(buyer.world.database.pool())
    .await
    .unwrap();
    let alerts = budget::alerts(buyer.world.database.pool(), buyer.customer, 5)
        .await
        .unwrap();
    assert_eq!(
        (alerts.len(), alerts[0].threshold_percent, alerts[0].spent.minor),
        (1, 75, 1_500)
    );
    let top_ups = PaymentFilter {
        top_ups: true,
        ..PaymentFilter::default()
    };
    assert!(list(buyer.world.database.pool(), top_ups, 5).await.unwrap().is_empty());
    movements_of(buyer).await;
}

async fn movements_of(buyer: Buyer) {
    let now_ms = ms(START);
    buyer.buys("form-1", 5_000, now_ms).await.unwrap();
    let mut transaction = buyer.world.database.begin_write().await.unwrap();
    let amount = Money::new(700, Currency::USD);
    settlement::grant_credit(
        &mut transaction,
        buyer.customer,
        amount,
        "ticket:1",
        "the outage: sorry",
        now_ms + 1,
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    let other = buyer.world.customer("USD", "UTC", "0").await;
    let mut connection = buyer.world.database.pool().acquire().await.unwrap();
    let all = movements(&mut connection, buyer.customer, None, 10).await.unwrap();
    let told: Vec<_> = all
        .iter()
        .map(|one| (one.cause, one.amount.minor, one.balance.minor, one.reason.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (Cause::Granted, 700, 5_700, "the outage: sorry"),
            (Cause::Bought, 5_000, 5_000, "")
        ]
    );
    assert_eq!(all[1].method.as_deref(), Some("visa •••• 4242"));
    // A page of one, and the next: balances are those of the whole.
    let first = movements(&mut connection, buyer.customer, None, 1).await.unwrap();
    let next = movements(&mut connection, buyer.customer, Some(first[0].transaction), 1)
        .await
        .unwrap();
    assert_eq!([&first[..], &next[..]].concat(), all);
    assert!(movements(&mut connection, other, None, 10).await.unwrap().is_empty());
}
