//! Credit notes, voids and prices that include tax.

use super::*;
use crate::settlement;

pub(super) async fn taken_back(world: &World, invoice: InvoiceId, what: Credited) -> Result<InvoiceId, BillingError> {
    let mut transaction = world.database.begin_write().await.unwrap();
    let note = credit(&mut transaction, invoice, what, "a mistake", ms(MARCH)).await?;
    transaction.commit().await.unwrap();
    Ok(note)
}

pub(super) async fn read(world: &World, invoice: InvoiceId) -> InvoiceWithLines {
    get(&world.database, invoice).await.unwrap()
}

async fn february(world: &World, tax_rate_percent: &str) -> (CustomerId, InvoiceWithLines) {
    let customer = world.customer("EUR", "UTC", tax_rate_percent).await;
    let contract = world.subscribe(customer, started_in_february()).await;
    world
        .usage
        .add(contract.service.id, "2026-02-10T12:00:00Z", 1101 * GIB, 0);
    (customer, closed(world, customer, MARCH).await.invoices.remove(0))
}

#[tokio::test]
async fn parts_are_taken_back_up_to_the_whole_and_no_further() {
    let world = World::new().await;
    let (customer, made) = february(&world, "19").await;
    let id = made.invoice.id;
    assert_eq!(made.invoice.total.minor, 2981);
    let eur = |minor| Credited::Amount(Money::new(minor, Currency::EUR));

    let note = read(&world, taken_back(&world, id, eur(1000)).await.unwrap()).await;
    assert_eq!(note.invoice.number, "CN-2026-000001");
    assert_eq!((note.invoice.subtotal.minor, note.invoice.total.minor), (-1000, -1190));
    assert_eq!((note.invoice.corrects, note.invoice.outstanding().minor), (Some(id), 0));
    assert_eq!(read(&world, id).await.invoice.outstanding().minor, 1791);
    assert_books_are_right(&world).await;

    let error = taken_back(&world, id, eur(1506)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "EUR 15.05 of inv_1 is left to give back, not EUR 15.06"
    );
    for (what, said) in [
        (eur(0), "the amount is not more than zero"),
        (eur(-1), "the amount is not more than zero"),
        (
            Credited::Amount(Money::new(1, Currency::USD)),
            "the amount is in another currency",
        ),
    ] {
        let error = taken_back(&world, id, what).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("invoice inv_1 cannot be credited or voided: {said}")
        );
    }
    // All that is left, without saying how much.
    let rest = read(&world, taken_back(&world, id, Credited::Whole).await.unwrap()).await;
    assert_eq!(rest.lines.iter().map(|line| line.priced.minor).sum::<i64>(), -1505);
    assert_eq!(read(&world, id).await.invoice.status, InvoiceStatus::Paid);
    for what in [Credited::Whole, eur(1)] {
        let error = taken_back(&world, id, what).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "invoice inv_1 cannot be credited or voided: nothing of it is left to credit"
        );
    }
    let error = taken_back(&world, note.invoice.id, Credited::Whole).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "invoice inv_2 cannot be credited or voided: it is a credit note itself"
    );
    assert_eq!(
        settlement::credit_balance(world.database.pool(), customer, Currency::EUR)
            .await
            .unwrap()
            .minor,
        0
    );
    assert_books_are_right(&world).await;
}

#[tokio::test]
async fn the_whole_is_mirrored_to_the_cent() {
    let world = World::new().await;
    let (_, made) = february(&world, "19").await;
    let note = read(
        &world,
        taken_back(&world, made.invoice.id, Credited::Whole).await.unwrap(),
    )
    .await;
    assert_eq!(note.invoice.total.minor, -made.invoice.total.minor);
    let mirrored: Vec<_> = amounts(&made).into_iter().map(|(kind, minor)| (kind, -minor)).collect();
    assert_eq!(amounts(&note), mirrored);
    let document = document(&world.database, note.invoice.id).await.unwrap();
    assert_eq!(
        document.corrects.as_ref().map(|corrected| corrected.number.as_str()),
        Some("INV-2026-000001")
    );
    assert_eq!(document.notes, ["a mistake"]);
    assert_books_are_right(&world).await;
}

#[tokio::test]
async fn b3_a_void_invoice_is_billed_again_only_when_asked() {
    for (rebill, again) in [(Rebill::No, 0), (Rebill::Yes, 1)] {
        let world = World::new().await;
        let (customer, made) = february(&world, "0").await;
        let mut transaction = world.database.begin_write().await.unwrap();
        void(&mut transaction, made.invoice.id, rebill, "a mistake", ms(MARCH))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(read(&world, made.invoice.id).await.invoice.status, InvoiceStatus::Void);
        assert_books_are_right(&world).await;
        let anew = closed(&world, customer, MARCH).await.invoices;
        assert_eq!(anew.len(), again);
        if let Some(anew) = anew.first() {
            assert_eq!(amounts(anew), amounts(&made));
            // The void one is no base for corrections.
            let march = closed(&world, customer, "2026-04-01T00:10:00Z")
                .await
                .invoices
                .remove(0);
            assert_eq!(
                amounts(&march),
                [(LineKind::Base, 2000), (LineKind::TransferOverage, 0)]
            );
        }
        assert_books_are_right(&world).await;
    }
}

#[tokio::test]
async fn what_is_settled_or_built_upon_is_not_void() {
    let world = World::new().await;
    let (customer, made) = february(&world, "0").await;
    closed(&world, customer, "2026-04-01T00:10:00Z").await;
    let mut transaction = world.database.begin_write().await.unwrap();
    let error = void(&mut transaction, made.invoice.id, Rebill::Yes, "a mistake", ms(MARCH))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "invoice inv_1 cannot be credited or voided: later periods were charged since: void those first"
    );
    drop(transaction);
    let mut transaction = world.database.begin_write().await.unwrap();
    settlement::grant_credit(
        &mut transaction,
        customer,
        Money::new(1, Currency::EUR),
        "test",
        "test",
        ms(MARCH),
    )
    .await
    .unwrap();
    settlement::apply_credit(&mut transaction, made.invoice.id, ms(MARCH))
        .await
        .unwrap();
    let error = void(&mut transaction, made.invoice.id, Rebill::No, "a mistake", ms(MARCH))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("something of it was settled"), "{error}");
}

#[tokio::test]
async fn prices_that_include_tax_are_what_the_customer_pays() {
    let world = World::new().await;
    let customer = world.customer("EUR", "UTC", "19").await;
    sqlx::query("UPDATE customers SET prices_include_tax = 1")
        .execute(world.database.pool())
        .await
        .unwrap();
    let contract = world.subscribe(customer, started_in_february()).await;
    let service = contract.service.id;
    world.usage.add(service, "2026-02-10T12:00:00Z", 1100 * GIB, 0);
    let made = closed(&world, customer, MARCH).await.invoices.remove(0);
    // 20.00 and 5.00 with 19 % in them.
    assert_eq!(
        (
            made.invoice.subtotal.minor,
            made.invoice.tax.minor,
            made.invoice.total.minor
        ),
        (2101, 399, 2500)
    );
    let priced: Vec<i64> = made.lines.iter().map(|line| line.priced.minor).collect();
    assert_eq!(priced, [2000, 500]);
    // A correction compares what was priced, not what is net.
    world.usage.add(service, "2026-02-20T00:00:00Z", 40 * GIB, 0);
    let march = closed(&world, customer, "2026-04-01T00:10:00Z")
        .await
        .invoices
        .remove(0);
    let priced: Vec<i64> = march.lines.iter().map(|line| line.priced.minor).collect();
    assert_eq!(priced, [2000, 0, 200]);
    let note = read(
        &world,
        taken_back(&world, made.invoice.id, Credited::Whole).await.unwrap(),
    )
    .await;
    assert_eq!((note.invoice.subtotal.minor, note.invoice.total.minor), (-2101, -2500));
    assert_books_are_right(&world).await;
}

#[tokio::test]
async fn pooled_services_use_what_others_leave() {
    let world = World::new().await;
    let customer = world.customer("EUR", "UTC", "0").await;
    sqlx::query("UPDATE customers SET pools_usage = 1")
        .execute(world.database.pool())
        .await
        .unwrap();
    let (frugal, greedy) = (
        world.subscribe(customer, started_in_february()).await,
        world.subscribe(customer, started_in_february()).await,
    );
    world.usage.add(frugal.service.id, "2026-02-10T12:00:00Z", 600 * GIB, 0);
    world
        .usage
        .add(greedy.service.id, "2026-02-10T12:00:00Z", 1500 * GIB, 0);
    let made = closed(&world, customer, MARCH).await.invoices.remove(0);
    // 2,100 GiB together, 2,000 included: 100 at 0.05.
    assert_eq!(
        amounts(&made),
        [
            (LineKind::Base, 2000),
            (LineKind::TransferOverage, 0),
            (LineKind::Base, 2000),
            (LineKind::TransferOverage, 500)
        ]
    );
    assert_eq!(
        made.lines[3].description,
        "web-1: transfer 1,500 GiB (in + out), 1,000 GiB included, 400 GiB from other services"
    );
    let checks = recompute(&world.database, &world.usage, made.invoice.id).await.unwrap();
    assert!(checks.iter().all(|check| check.equal), "{checks:?}");
    assert_books_are_right(&world).await;
}

#[tokio::test]
async fn what_was_entered_by_hand_goes_on_the_next_invoice_or_its_own() {
    let world = World::new().await;
    let customer = world.customer("EUR", "UTC", "0").await;
    let contract = world.subscribe(customer, started_in_february()).await;
    let nobody = world.customer("EUR", "UTC", "0").await;
    let mut transaction = world.database.begin_write().await.unwrap();
    for (customer, subscription, minor) in [(customer, Some(contract.subscription.id), 5000), (nobody, None, -500)] {
        let amount = Money::new(minor, Currency::EUR);
        add_item(
            &mut transaction,
            customer,
            subscription,
            "set-up",
            amount,
            "ada",
            ms(MARCH),
        )
        .await
        .unwrap();
    }
    let error = add_item(
        &mut transaction,
        nobody,
        Some(contract.subscription.id),
        "x",
        Money::new(1, Currency::EUR),
        "ada",
        0,
    )
    .await
    .unwrap_err();
    assert!(matches!(error, BillingError::NoSubscription(_)), "{error}");
    transaction.commit().await.unwrap();
    let made = closed(&world, customer, MARCH).await.invoices.remove(0);
    assert_eq!(
        amounts(&made),
        [
            (LineKind::Base, 2000),
            (LineKind::TransferOverage, 0),
            (LineKind::Item, 5000)
        ]
    );
    let note = closed(&world, nobody, MARCH).await.invoices.remove(0);
    assert_eq!(
        (note.invoice.kind, amounts(&note)),
        (InvoiceKind::CreditNote, vec![(LineKind::Item, -500)])
    );
    assert_eq!(closed(&world, nobody, MARCH).await.invoices.len(), 0);
    let credit = settlement::credit_balance(world.database.pool(), nobody, Currency::EUR)
        .await
        .unwrap();
    assert_eq!(credit.minor, 500);
    assert_books_are_right(&world).await;
}
