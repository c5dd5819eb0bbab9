use schemas::inventory::{BillingProfile, EntityProfile, FIRST_ENTITY};

use super::vies::tests::{AWAY, INVALID, Stub, VALID};
use super::vies::{TIMEOUT, Vies};
use super::*;
use crate::invoice;
use crate::testing::{DEAL, Deal, World, ms};

const NUMBER: &str = "FR40303265045";
const NOW: &str = "2026-01-05T10:00:00Z";

/// A German seller and a French customer with a VAT number, French VAT of 20 %, a monthly plan in advance.
async fn world() -> (World, CustomerId) {
    let world = World::new().await;
    let customer = world.customer("EUR", "UTC", "0").await;
    let mut transaction = world.database.begin_write().await.unwrap();
    let seller = EntityProfile {
        name: "Beispiel Hosting GmbH".to_owned(),
        country: "DE".to_owned(),
        vat_id: "DE136695976".to_owned(),
        ..EntityProfile::default()
    };
    inventory::change_entity(&mut transaction, FIRST_ENTITY, seller)
        .await
        .unwrap();
    let rate = crate::tax::NewTaxRate {
        country: "FR",
        region: "",
        name: "TVA",
        rate_percent: "20".parse().unwrap(),
        valid_from_ms: 0,
        valid_to_ms: None,
    };
    crate::tax::add_rate(&mut transaction, rate, 0).await.unwrap();
    sqlx::query("UPDATE customers SET country = 'FR'")
        .execute(&mut *transaction)
        .await
        .unwrap();
    number(&mut transaction, customer, NUMBER).await;
    transaction.commit().await.unwrap();
    let deal = Deal {
        base_timing: crate::catalog::BaseTiming::Advance,
        terms: crate::catalog::Terms::Flat,
        usage_price: "0",
        started_at: NOW,
        ..DEAL
    };
    world.subscribe(customer, deal).await;
    (world, customer)
}

async fn number(connection: &mut AnyConnection, customer: CustomerId, number: &str) {
    let profile = BillingProfile {
        vat_id: number.to_owned(),
        ..BillingProfile::default()
    };
    inventory::change_billing_profile(connection, customer, &profile)
        .await
        .unwrap();
}

/// The taxes of what closing makes, or why it is refused.
async fn closed(world: &World, customer: CustomerId, at_ms: i64) -> Vec<String> {
    let closing = invoice::close(&world.database, &world.usage, customer, at_ms)
        .await
        .unwrap();
    let mut said: Vec<String> = closing.refused.iter().map(|open| open.reason.to_string()).collect();
    for made in closing.read(&world.database).await.unwrap() {
        said.extend(made.taxes.into_iter().map(|tax| tax.rule.name));
    }
    said
}

#[tokio::test]
async fn a_valid_number_is_kept_with_its_evidence_and_reverse_charged() {
    let (world, customer) = world().await;
    switch(&world.database, true).await.unwrap();
    let now_ms = ms(NOW);
    assert_eq!(
        closed(&world, customer, now_ms).await,
        ["the customer's VAT number is not confirmed yet"]
    );
    let waiting = invoice::held(world.database.pool(), None).await.unwrap();
    assert_eq!(
        waiting[0].reason.to_string(),
        "the VAT number FR40303265045 is not confirmed yet"
    );

    let stub = Stub::start(&[(200, VALID)]).await;
    let vies = Vies::new(&stub.base_url, TIMEOUT).unwrap();
    assert_eq!(ask_due(&world.database, &vies, now_ms).await.unwrap(), 1);
    let checks = checks_of(world.database.pool(), customer, 10).await.unwrap();
    let expected = VatCheck {
        id: 1,
        customer,
        vat_id: NUMBER.to_owned(),
        answer: VatCheckResult::Valid,
        consultation: "WAPIAAAAZLlHNzZU".to_owned(),
        requester: "DE136695976".to_owned(),
        name: "SA SODIMAS".to_owned(),
        address: "RUE AMPERE\n26600 PONT DE L ISERE".to_owned(),
        detail: String::new(),
        source: "vies".to_owned(),
        checked_at_ms: now_ms,
    };
    assert_eq!(checks, [expected]);
    assert_eq!(closed(&world, customer, now_ms).await, ["Reverse charge"]);
    assert_eq!(invoice::held(world.database.pool(), None).await.unwrap(), []);
}

#[tokio::test]
async fn an_invalid_number_is_told_of_and_charged_with_the_tax_of_the_place() {
    let (world, customer) = world().await;
    switch(&world.database, true).await.unwrap();
    let stub = Stub::start(&[(200, INVALID)]).await;
    let vies = Vies::new(&stub.base_url, TIMEOUT).unwrap();
    ask_due(&world.database, &vies, ms(NOW)).await.unwrap();
    assert_eq!(closed(&world, customer, ms(NOW)).await, ["TVA 20 %"]);
    let rows = sqlx::query("SELECT event_type FROM events WHERE event_type = 'vat_number.invalid'")
        .fetch_all(world.database.pool())
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    // Another number is another question.
    let mut transaction = world.database.begin_write().await.unwrap();
    number(&mut transaction, customer, "NL004495445B01").await;
    transaction.commit().await.unwrap();
    assert_eq!(due(world.database.pool(), ms(NOW)).await.unwrap(), [customer]);
}

#[tokio::test]
async fn without_an_answer_it_is_asked_again_and_a_person_may_accept_the_number() {
    let (world, customer) = world().await;
    switch(&world.database, true).await.unwrap();
    let now_ms = ms(NOW);
    let pool = world.database.pool();
    let stub = Stub::start(&[(200, AWAY), (500, AWAY)]).await;
    let vies = Vies::new(&stub.base_url, TIMEOUT).unwrap();
    assert_eq!(ask_due(&world.database, &vies, now_ms).await.unwrap(), 0);
    // Not again at once.
    assert_eq!(due(pool, now_ms + RETRY_MS - 1).await.unwrap(), []);
    assert_eq!(ask_due(&world.database, &vies, now_ms + RETRY_MS).await.unwrap(), 0);
    let checks = checks_of(pool, customer, 10).await.unwrap();
    assert_eq!(checks.len(), 2);
    assert_eq!(
        (checks[0].answer, checks[0].detail.as_str()),
        (VatCheckResult::Unavailable, "the register answered MS_UNAVAILABLE")
    );
    assert_eq!(
        closed(&world, customer, now_ms).await,
        ["the customer's VAT number is not confirmed yet"]
    );

    let mut transaction = world.database.begin_write().await.unwrap();
    assert!(accept(&mut transaction, customer, " ", "fin", now_ms).await.is_err());
    let accepted = accept(&mut transaction, customer, "the register's extract", "fin", now_ms + 1)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(
        (accepted.answer, accepted.source.as_str()),
        (VatCheckResult::Accepted, "fin")
    );
    assert_eq!(closed(&world, customer, now_ms + 1).await, ["Reverse charge"]);
    // It is asked for again when the answer is old, and only then.
    assert_eq!(due(pool, now_ms + RECHECK_MS).await.unwrap(), []);
    assert_eq!(due(pool, now_ms + 2 * RECHECK_MS).await.unwrap(), [customer]);
}

#[tokio::test]
async fn where_vies_is_off_the_form_is_enough_and_nobody_is_asked_for_what_is_no_number_of_the_union() {
    let (world, customer) = world().await;
    assert_eq!(closed(&world, customer, ms(NOW)).await, ["Reverse charge"]);
    switch(&world.database, true).await.unwrap();
    switch(&world.database, false).await.unwrap();
    assert!(!is_on(world.database.pool()).await.unwrap());
    let mut transaction = world.database.begin_write().await.unwrap();
    number(&mut transaction, customer, "GB980780684").await;
    transaction.commit().await.unwrap();
    assert_eq!(due(world.database.pool(), ms(NOW)).await.unwrap(), []);
    let vies = Vies::new("http://127.0.0.1:1", TIMEOUT).unwrap();
    assert_eq!(ask(&world.database, &vies, customer, ms(NOW)).await.unwrap(), None);
    let mut transaction = world.database.begin_write().await.unwrap();
    number(&mut transaction, customer, "").await;
    let error = accept(&mut transaction, customer, "a reason", "fin", ms(NOW))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "cus_1 has no VAT number");
}
