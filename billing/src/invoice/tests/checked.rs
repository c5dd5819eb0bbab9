//! What is right and `ledger check` once complained of. Random histories found these.

use super::credits::taken_back;
use super::given_back::{DAY_11, JANUARY, half_a_january, january};
use super::proration::{credit_note, invoice};
use super::*;
use crate::subscription::change::CancellationTime;

/// Before, what it gives back was counted once for the line and once for each charge behind it.
#[tokio::test]
async fn an_invoice_on_which_a_discount_was_not_had_for_unused_days_can_be_taken_back() {
    let (shop, id, _) = half_a_january().await;
    let twice = shop.price("twice", 1, 62_000).await;
    shop.change(id, twice.id, 1, DAY_11).await.unwrap();
    let lines = [
        (LineKind::Unused, -21_000),
        (LineKind::Discount, 10_500),
        (LineKind::Base, 42_000),
        (LineKind::Discount, -21_000),
    ];
    assert_eq!(shop.close(DAY_11).await, [invoice(&lines)]);
    let all = list_of(shop.world.database.pool(), shop.customer).await.unwrap();
    let note = taken_back(&shop.world, all[0].id, Credited::Whole).await.unwrap();
    let back = get(&shop.world.database, note).await.unwrap();
    assert_eq!(amounts(&back), lines.map(|(kind, minor)| (kind, -minor)));
    assert_books_are_right(&shop.world).await;
}

/// Before, that looked like credit for which nobody had paid.
#[tokio::test]
async fn what_an_item_paid_of_an_invoice_is_credit_when_the_invoice_is_taken_back() {
    let (shop, id, made) = january().await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    let amount = Money::new(-20_000, Currency::USD);
    add_item(
        &mut transaction,
        shop.customer,
        None,
        "goodwill",
        amount,
        "test",
        ms(JANUARY),
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    shop.cancel(id, CancellationTime::Now, DAY_11).await.unwrap();
    let lines = [(LineKind::Unused, -21_000), (LineKind::Item, -20_000)];
    assert_eq!(shop.close(DAY_11).await, [credit_note(&lines)]);
    assert_eq!(shop.credit().await, 10_000, "310.00 were open");
    taken_back(&shop.world, made.invoice.id, Credited::Whole).await.unwrap();
    assert_eq!(shop.credit().await, 20_000, "the item, and nothing else");
    assert_books_are_right(&shop.world).await;
}
