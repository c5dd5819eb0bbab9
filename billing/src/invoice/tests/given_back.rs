//! B6: what is given back for a line never exceeds it, by whatever cause and in whatever order. Cases are dated; amounts are
//! those of `cases/billing/f01`, `f02` and `f04`, and of pairs of causes around them.

mod migrated;

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use jiff::tz::TimeZone;
use schemas::db::Database;
use schemas::ids::{ExclusionId, SubscriptionId};
use schemas::inventory::Service;
use schemas::percent::Percent;
use schemas::usage::{Peer, SeriesPoint, UsageError, WindowUsage};

use super::credits::{read, taken_back};
use super::proration::{Shop, credit_note, invoice};
use super::*;
use crate::catalog::{self, Discount, NewCoupon};
use crate::invoice::new_document::{Corrects, NewDocument, Parties};
use crate::invoice::{draft::prepare, due::OpenPeriods, write::write};
use crate::subscription::NewSubscription;
use crate::subscription::change::{self, CancellationTime};
use schemas::usage::UsageQuery;
use schemas::usage::UsageSource;

pub(super) const JANUARY: &str = "2026-01-01T00:00:00Z";
pub(super) const DAY_11: &str = "2026-01-11T00:00:00Z";

/// 310.00 for January, charged in advance.
pub(super) async fn january() -> (Shop, SubscriptionId, InvoiceWithLines) {
    let shop = Shop::new("USD", "UTC").await;
    let price = shop.price("month", 1, 31_000).await;
    let id = shop.begin(price.id, JANUARY).await;
    let made = closed(&shop.world, shop.customer, JANUARY).await.invoices.remove(0);
    (shop, id, made)
}

/// The same, half of it off.
pub(super) async fn half_a_january() -> (Shop, SubscriptionId, InvoiceWithLines) {
    let shop = Shop::new("USD", "UTC").await;
    let price = shop.price("month", 1, 31_000).await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    let half = Percent::new(50.into()).unwrap();
    let coupon = NewCoupon::new("HALF", Discount::Percent(half));
    catalog::create_coupon(&mut transaction, coupon, 0).await.unwrap();
    transaction.commit().await.unwrap();
    let service = shop.world.service(shop.customer, "web-1").await;
    let new = NewSubscription {
        coupon: Some("HALF"),
        ..NewSubscription::new(service.id, price.id, ms(JANUARY))
    };
    let id = shop.begin_with(new).await.unwrap();
    let made = closed(&shop.world, shop.customer, JANUARY).await.invoices.remove(0);
    assert_eq!(
        amounts(&made),
        [(LineKind::Base, 31_000), (LineKind::Discount, -15_500)]
    );
    (shop, id, made)
}

fn usd(minor: i64) -> Credited {
    Credited::Amount(Money::new(minor, Currency::USD))
}

/// f01: before, 210.00 were given back again.
#[tokio::test]
async fn b6_a_credited_invoice_is_not_given_back_again_by_a_cancellation() {
    let (shop, id, made) = january().await;
    shop.pay(&made).await;
    taken_back(&shop.world, made.invoice.id, Credited::Whole).await.unwrap();
    shop.cancel(id, CancellationTime::Now, DAY_11).await.unwrap();
    assert_eq!(shop.close(DAY_11).await, []);
    assert_eq!(shop.close("2026-02-01T00:10:00Z").await, []);
    assert_eq!(shop.credit().await, 31_000);
}

/// f02: before, 210.00 of credit came from an invoice that nobody paid.
#[tokio::test]
async fn b6_a_void_invoice_is_not_given_back_by_a_cancellation() {
    let (shop, id, made) = january().await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    void(&mut transaction, made.invoice.id, Rebill::No, "wrong", ms(JANUARY))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    shop.cancel(id, CancellationTime::Now, DAY_11).await.unwrap();
    assert_eq!(shop.close(DAY_11).await, []);
    assert_eq!(shop.credit().await, 0);
}

#[tokio::test]
async fn b6_a_part_that_was_credited_limits_the_unused_days_and_they_limit_the_next_note() {
    let (shop, id, made) = january().await;
    shop.pay(&made).await;
    taken_back(&shop.world, made.invoice.id, usd(20_000)).await.unwrap();
    shop.cancel(id, CancellationTime::Now, DAY_11).await.unwrap();
    // 21 of 31 days are 210.00; 110.00 are left.
    assert_eq!(shop.close(DAY_11).await, [credit_note(&[(LineKind::Unused, -11_000)])]);
    assert_eq!(shop.credit().await, 31_000);
    let all = list_of(shop.world.database.pool(), shop.customer).await.unwrap();
    let unused = read(&shop.world, all[0].id).await.lines.remove(0);
    assert_eq!(
        unused.description,
        "web-1: month, 21 of 31 days not used (charged on INV-2026-000001; part of it was credited before)"
    );
    assert!(
        matches!(
            unused.evidence,
            Evidence::Unused {
                given_before_minor: 10_000,
                ..
            }
        ),
        "{:?}",
        unused.evidence
    );
    let error = taken_back(&shop.world, made.invoice.id, usd(1)).await.unwrap_err();
    assert!(error.to_string().contains("nothing of it is left"), "{error}");
}

#[tokio::test]
async fn b6_a_note_after_the_cancellation_gives_the_used_days_back_and_no_more() {
    let (shop, id, made) = january().await;
    shop.pay(&made).await;
    shop.cancel(id, CancellationTime::Now, DAY_11).await.unwrap();
    assert_eq!(shop.close(DAY_11).await, [credit_note(&[(LineKind::Unused, -21_000)])]);
    let error = taken_back(&shop.world, made.invoice.id, usd(10_001)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "USD 100.00 of inv_1 is left to give back, not USD 100.01"
    );
    let note = taken_back(&shop.world, made.invoice.id, Credited::Whole).await.unwrap();
    assert_eq!(amounts(&read(&shop.world, note).await), [(LineKind::Base, -10_000)]);
    assert_eq!(shop.credit().await, 31_000);
    assert_books_are_right(&shop.world).await;
}

#[tokio::test]
async fn b6_what_a_later_invoice_gave_back_is_neither_void_nor_credited_again() {
    let (shop, id, made) = january().await;
    let small = shop.price("small", 1, 3_100).await;
    shop.change(id, small.id, 1, DAY_11).await.unwrap();
    assert_eq!(
        shop.close(DAY_11).await,
        [credit_note(&[(LineKind::Unused, -21_000), (LineKind::Base, 2_100)])]
    );
    // Nothing of it was settled by money, but 189.00 by that note; and what is left of the line is 100.00.
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    let error = void(&mut transaction, made.invoice.id, Rebill::No, "wrong", ms(DAY_11)).await;
    assert!(error.is_err());
    drop(transaction);
    let note = taken_back(&shop.world, made.invoice.id, Credited::Whole).await.unwrap();
    assert_eq!(read(&shop.world, note).await.invoice.total.minor, -10_000);
    // 310 − 210 + 21 − 100: the days in the small plan.
    let owed: i64 = list_of(shop.world.database.pool(), shop.customer)
        .await
        .unwrap()
        .iter()
        .map(|document| document.total.minor)
        .sum();
    assert_eq!(owed, 2_100);
    assert_books_are_right(&shop.world).await;
}

#[tokio::test]
async fn b6_an_invoice_that_a_later_one_gave_a_part_of_back_is_not_void() {
    let (shop, id, made) = january().await;
    let large = shop.price("large", 1, 62_000).await;
    shop.change(id, large.id, 1, DAY_11).await.unwrap();
    let upgraded = [invoice(&[(LineKind::Unused, -21_000), (LineKind::Base, 42_000)])];
    assert_eq!(shop.close(DAY_11).await, upgraded);
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    let error = void(&mut transaction, made.invoice.id, Rebill::No, "wrong", ms(DAY_11))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("a later document gave a part of it back"),
        "{error}"
    );
    drop(transaction);

    // The invoice with the unused days is credited as a whole: they are charged again, and can be given back again.
    let second = list_of(shop.world.database.pool(), shop.customer).await.unwrap()[0].id;
    let note = read(
        &shop.world,
        taken_back(&shop.world, second, Credited::Whole).await.unwrap(),
    )
    .await;
    assert_eq!(amounts(&note), [(LineKind::Unused, 21_000), (LineKind::Base, -42_000)]);
    let note = read(
        &shop.world,
        taken_back(&shop.world, made.invoice.id, Credited::Whole).await.unwrap(),
    )
    .await;
    assert_eq!(amounts(&note), [(LineKind::Base, -31_000)]);
    for credited in [second, made.invoice.id] {
        let error = taken_back(&shop.world, credited, Credited::Whole).await.unwrap_err();
        assert!(error.to_string().contains("nothing of it is left"), "{error}");
    }
    assert_books_are_right(&shop.world).await;
}

/// Before, the days of the old plan stayed charged, or the invoice could not be billed again.
#[tokio::test]
async fn b6_unused_days_of_a_void_invoice_are_given_back_by_the_next_close() {
    const DAY_12: &str = "2026-01-12T00:00:00Z";
    const DAY_21: &str = "2026-01-21T00:00:00Z";
    for (rebill, is_cancelled, owed) in [
        // Ten days of the plan, and eleven more.
        (Rebill::No, false, 21_000),
        (Rebill::No, true, 10_000),
        // And the ten days between in the large one.
        (Rebill::Yes, false, 41_000),
        (Rebill::Yes, true, 30_000),
    ] {
        let (shop, id, _) = january().await;
        let large = shop.price("large", 1, 62_000).await;
        let small = shop.price("small", 1, 31_000).await;
        shop.change(id, large.id, 1, DAY_11).await.unwrap();
        let upgraded = invoice(&[(LineKind::Unused, -21_000), (LineKind::Base, 42_000)]);
        assert_eq!(shop.close(DAY_11).await, std::slice::from_ref(&upgraded));
        let all = list_of(shop.world.database.pool(), shop.customer).await.unwrap();
        let mut transaction = shop.world.database.begin_write().await.unwrap();
        void(&mut transaction, all[0].id, rebill, "wrong", ms(DAY_11))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        let again = match rebill {
            Rebill::No => credit_note(&[(LineKind::Unused, -21_000)]),
            Rebill::Yes => upgraded,
        };
        assert_eq!(shop.close(DAY_12).await, [again]);
        assert_eq!(shop.close(DAY_12).await, []);
        if is_cancelled {
            shop.cancel(id, CancellationTime::Now, DAY_21).await.unwrap();
        } else {
            shop.change(id, small.id, 1, DAY_21).await.unwrap();
        }
        shop.close(DAY_21).await;
        let all = list_of(shop.world.database.pool(), shop.customer).await.unwrap();
        let total: i64 = all.iter().map(|document| document.total.minor).sum();
        assert_eq!(total, owed, "{rebill:?}, cancelled: {is_cancelled}");
    }
}

#[tokio::test]
async fn b6_a_discount_is_given_back_with_its_line_whatever_comes_first() {
    for (whole_first, note, unused) in [
        (
            true,
            vec![(LineKind::Base, -31_000), (LineKind::Discount, 15_500)],
            None,
        ),
        (
            false,
            vec![(LineKind::Base, -5_000)],
            Some([(LineKind::Unused, -21_000), (LineKind::Discount, 10_500)]),
        ),
    ] {
        let (shop, id, made) = half_a_january().await;
        shop.pay(&made).await;
        let mut credited = None;
        if whole_first {
            credited = Some(taken_back(&shop.world, made.invoice.id, Credited::Whole).await.unwrap());
        }
        shop.cancel(id, CancellationTime::Now, DAY_11).await.unwrap();
        let expected: Vec<_> = unused.map(|lines| credit_note(&lines)).into_iter().collect();
        assert_eq!(shop.close(DAY_11).await, expected);
        let id = match credited {
            Some(id) => id,
            None => taken_back(&shop.world, made.invoice.id, Credited::Whole).await.unwrap(),
        };
        assert_eq!(amounts(&read(&shop.world, id).await), note);
        assert_eq!(shop.credit().await, 15_500, "what was paid");
        assert_books_are_right(&shop.world).await;
    }
}

/// Before, the discount was charged beside the days that it was for, to somebody who had paid neither.
#[tokio::test]
async fn b6_unused_days_of_a_written_off_invoice_lower_what_was_given_up_by_what_they_cost_with_their_discount() {
    let (shop, id, made) = half_a_january().await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    crate::settlement::write_off(&mut transaction, made.invoice.id, "moved away", ms(JANUARY))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    shop.cancel(id, CancellationTime::Now, DAY_11).await.unwrap();
    let lines = [(LineKind::Unused, -21_000), (LineKind::Discount, 10_500)];
    assert_eq!(shop.close(DAY_11).await, [credit_note(&lines)]);
    assert_eq!(shop.credit().await, 0);
    let balances = ledger::balances(shop.world.database.pool()).await.unwrap();
    let bad_debt = balances.iter().find(|found| found.account.name == "bad_debt:USD");
    assert_eq!(bad_debt.map(|found| found.balance.minor), Some(5_000));
    assert_books_are_right(&shop.world).await;
}

#[tokio::test]
async fn b6_an_amount_is_shared_by_the_charges_of_its_invoice() {
    let (world, service, made) = used_february(1_100).await;
    assert_eq!(
        amounts(&made),
        [(LineKind::Base, 2_000), (LineKind::TransferOverage, 500)]
    );
    let note = read(&world, taken_back(&world, made.invoice.id, usd(1_000)).await.unwrap()).await;
    let shared: Vec<(i64, &str)> = note
        .lines
        .iter()
        .map(|line| (line.priced.minor, line.description.as_str()))
        .collect();
    assert_eq!(
        shared,
        [
            (-800, "a mistake (web-1: VPS Pro)"),
            (
                -200,
                "a mistake (web-1: transfer 1,100 GiB (in + out), 1,000 GiB included)"
            ),
        ]
    );
    // 3.00 are left of the usage.
    flag(&world, service).await;
    let march = closed(&world, made.invoice.customer, APRIL).await.invoices.remove(0);
    assert_eq!(amounts(&march)[2], (LineKind::Adjustment, -300));
    let checks = recompute(&world.database, &world.usage, march.invoice.id)
        .await
        .unwrap();
    assert!(checks.iter().all(|check| check.equal), "{checks:?}");
    assert_books_are_right(&world).await;
}

const APRIL: &str = "2026-04-01T00:10:00Z";
const MAY: &str = "2026-05-01T00:10:00Z";
const JUNE: &str = "2026-06-01T00:10:00Z";

/// February's invoice with so much transfer on the tenth.
async fn used_february(gib: u64) -> (World, ServiceId, InvoiceWithLines) {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    let contract = world.subscribe(customer, started_in_february()).await;
    let service = contract.service.id;
    world.usage.add(service, "2026-02-10T12:00:00Z", gib * GIB, 0);
    let made = closed(&world, customer, MARCH).await.invoices.remove(0);
    (world, service, made)
}

async fn flag(world: &World, service: ServiceId) -> ExclusionId {
    let mut transaction = world.database.begin_write().await.unwrap();
    let range = (ms("2026-02-10T12:00:00Z"), ms("2026-02-10T12:05:00Z"));
    let made = exclusion::exclude(&mut transaction, service, range, "attack", "ops", ms(MARCH)).await;
    transaction.commit().await.unwrap();
    made.unwrap().id
}

async fn revoke(world: &World, id: ExclusionId) {
    let mut transaction = world.database.begin_write().await.unwrap();
    exclusion::revoke(&mut transaction, id, ms(APRIL)).await.unwrap();
    transaction.commit().await.unwrap();
}

/// The adjustments on the invoice of the month that is over.
async fn adjustments(world: &World, customer: CustomerId, at: &str) -> Vec<i64> {
    let made = closed(world, customer, at).await.invoices;
    assert_books_are_right(world).await;
    let lines = made.iter().flat_map(|made| &made.lines);
    lines
        .filter(|line| line.kind == LineKind::Adjustment)
        .map(|line| line.priced.minor)
        .collect()
}

/// f04: before, usage that was credited was given back again when it turned out to be an attack.
#[tokio::test]
async fn b6_credited_usage_that_is_flagged_as_an_attack_is_not_given_back_again() {
    let (world, service, made) = used_february(1_100).await;
    let customer = made.invoice.customer;
    taken_back(&world, made.invoice.id, Credited::Whole).await.unwrap();
    let id = flag(&world, service).await;
    assert_eq!(adjustments(&world, customer, APRIL).await, [0i64; 0]);
    // Nor is it charged again when the flag is revoked.
    revoke(&world, id).await;
    assert_eq!(adjustments(&world, customer, MAY).await, [0i64; 0]);
}

/// Before, `invoice check` said for ever that the next invoice adjusts what a credit note had given back.
#[tokio::test]
async fn a_correction_that_a_credit_note_left_nothing_of_is_adjusted() {
    let (world, service, made) = used_february(1_100).await;
    let customer = made.invoice.customer;
    taken_back(&world, made.invoice.id, usd(2_250)).await.unwrap();
    let id = flag(&world, service).await;
    world.usage.add(service, "2026-02-20T00:00:00Z", 1_010 * GIB, 0);
    let checks = recompute(&world.database, &world.usage, made.invoice.id).await.unwrap();
    // 0.50 by what is billed now, not 55.50 by what was billed then.
    assert_eq!(checks[0].recomputed_amount.minor, 50);
    assert!(checks[0].is_open(), "the next invoice adjusts it: {checks:?}");
    assert_eq!(
        adjustments(&world, customer, APRIL).await,
        [-50],
        "4.50 for less usage: 0.50 is left"
    );
    assert_eq!(adjustments(&world, customer, MAY).await, [0i64; 0]);
    let checks = recompute(&world.database, &world.usage, made.invoice.id).await.unwrap();
    assert!(checks.iter().all(|check| !check.is_open()), "{checks:?}");
    // More than was left of it: the next invoice charges that.
    revoke(&world, id).await;
    let checks = recompute(&world.database, &world.usage, made.invoice.id).await.unwrap();
    assert!(checks[0].is_open(), "{checks:?}");
}

#[tokio::test]
async fn b6_flags_notes_and_late_flows_in_turn_never_give_back_more_than_was_charged() {
    let (world, service, made) = used_february(1_100).await;
    let customer = made.invoice.customer;
    // Half of the usage by a note, then all of it is an attack: the other half.
    taken_back(&world, made.invoice.id, usd(1_250)).await.unwrap();
    let id = flag(&world, service).await;
    assert_eq!(adjustments(&world, customer, APRIL).await, [-250]);
    // It was none: the half that was taken off is charged again, what the note gave stays given.
    revoke(&world, id).await;
    assert_eq!(adjustments(&world, customer, MAY).await, [250]);
    // It was one after all, and more came late that is none.
    flag(&world, service).await;
    world.usage.add(service, "2026-02-20T00:00:00Z", 1_010 * GIB, 0);
    assert_eq!(
        adjustments(&world, customer, JUNE).await,
        [-250],
        "5.00 for 0.50: 2.50 is left"
    );
    assert_eq!(adjustments(&world, customer, "2026-07-01T00:10:00Z").await, [0i64; 0]);
    let error = taken_back(&world, made.invoice.id, usd(1_001)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "USD 10.00 of inv_1 is left to give back, not USD 10.01"
    );
}

/// Before, the mirrored line of an adjustment counted as a correction, and the usage was charged again.
#[tokio::test]
async fn an_adjustment_that_was_credited_is_not_charged_again() {
    let (world, service, made) = used_february(1_100).await;
    let customer = made.invoice.customer;
    world.usage.add(service, "2026-02-20T00:00:00Z", 40 * GIB, 0);
    let march = closed(&world, customer, APRIL).await.invoices.remove(0);
    assert_eq!(amounts(&march)[2], (LineKind::Adjustment, 200));
    taken_back(&world, march.invoice.id, Credited::Whole).await.unwrap();
    assert_eq!(adjustments(&world, customer, MAY).await, [0i64; 0]);
    // What of both was charged and not given back can be: the 5.00 of February's own line.
    flag(&world, service).await;
    assert_eq!(adjustments(&world, customer, JUNE).await, [-500]);
}

#[tokio::test]
async fn an_adjustment_on_a_void_invoice_is_charged_again_only_when_asked() {
    for (rebill, again, flagged) in [
        (Rebill::No, vec![], vec![-500]),
        (Rebill::Yes, vec![200], vec![-500, -200]),
    ] {
        let (world, service, made) = used_february(1_100).await;
        let customer = made.invoice.customer;
        world.usage.add(service, "2026-02-20T00:00:00Z", 40 * GIB, 0);
        let march = closed(&world, customer, APRIL).await.invoices.remove(0);
        let mut transaction = world.database.begin_write().await.unwrap();
        void(&mut transaction, march.invoice.id, rebill, "wrong", ms(APRIL))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(adjustments(&world, customer, "2026-04-01T00:20:00Z").await, again);
        assert_eq!(
            adjustments(&world, customer, MAY).await,
            if rebill == Rebill::No { again } else { vec![] }
        );
        flag(&world, service).await;
        assert_eq!(adjustments(&world, customer, JUNE).await, flagged);
    }
}

/// Before, a correction that was not asked for again was taken off the charge that was.
#[tokio::test]
async fn a_charge_that_is_made_again_is_not_corrected_by_what_corrected_the_void_one() {
    let (world, service, made) = used_february(1_100).await;
    let customer = made.invoice.customer;
    let id = made.lines[0].subscription.unwrap();
    let mut transaction = world.database.begin_write().await.unwrap();
    let end_ms = ms("2026-03-01T00:00:00Z");
    change::cancel(
        &mut transaction,
        id,
        CancellationTime::Now,
        "moved away",
        "test",
        end_ms,
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    world.usage.add(service, "2026-02-20T00:00:00Z", 40 * GIB, 0);
    let correction = closed(&world, customer, APRIL).await.invoices.remove(0);
    assert_eq!(amounts(&correction), [(LineKind::Adjustment, 200)]);
    for (invoice, rebill) in [(correction.invoice.id, Rebill::No), (made.invoice.id, Rebill::Yes)] {
        let mut transaction = world.database.begin_write().await.unwrap();
        void(&mut transaction, invoice, rebill, "wrong", ms(APRIL))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }
    let again = closed(&world, customer, APRIL).await.invoices.remove(0);
    assert!(amounts(&again).contains(&(LineKind::TransferOverage, 700)), "{again:?}");
    // Something else in February is looked at: it costs what was charged.
    world.usage.add(ServiceId(99), "2026-02-20T00:00:00Z", GIB, 0);
    assert_eq!(adjustments(&world, customer, MAY).await, [0i64; 0]);
}

/// A usage source during whose work somebody credits an invoice.
struct Meanwhile<'a> {
    world: &'a World,
    invoice: InvoiceId,
    is_done: AtomicBool,
}

#[async_trait]
impl UsageSource for Meanwhile<'_> {
    fn corrected_from_ms(&self, now_ms: i64) -> i64 {
        self.world.usage.corrected_from_ms(now_ms)
    }

    async fn marks(&self, periods: &[(i64, i64)]) -> Result<Vec<Option<String>>, UsageError> {
        self.world.usage.marks(periods).await
    }

    async fn settle(&self) -> Result<(), UsageError> {
        Ok(())
    }

    async fn period_usage(
        &self,
        queries: &[UsageQuery],
        now_ms: i64,
    ) -> Result<Vec<schemas::usage::PeriodUsage>, UsageError> {
        if !self.is_done.swap(true, Ordering::SeqCst) {
            taken_back(self.world, self.invoice, Credited::Whole).await.unwrap();
        }
        self.world.usage.period_usage(queries, now_ms).await
    }

    async fn windows_from_flows(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<WindowUsage>, UsageError> {
        self.world.usage.windows_from_flows(service, from_ms, to_ms).await
    }

    async fn days(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
        zone: &TimeZone,
    ) -> Result<Vec<SeriesPoint>, UsageError> {
        self.world.usage.days(service, from_ms, to_ms, zone).await
    }

    async fn top_peers(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
        limit: usize,
    ) -> Result<Vec<Peer>, UsageError> {
        self.world.usage.top_peers(service, from_ms, to_ms, limit).await
    }
}

#[tokio::test]
async fn b6_a_note_that_is_issued_while_invoices_are_drafted_counts() {
    let (world, service, made) = used_february(1_100).await;
    flag(&world, service).await;
    let usage = Meanwhile {
        world: &world,
        invoice: made.invoice.id,
        is_done: AtomicBool::new(false),
    };
    let closing = close(&world.database, &usage, made.invoice.customer, ms(APRIL))
        .await
        .unwrap();
    assert!(usage.is_done.load(Ordering::SeqCst));
    let march = read(&world, closing.invoices[0]).await;
    assert_eq!(
        amounts(&march),
        [(LineKind::Base, 2_000), (LineKind::TransferOverage, 0)]
    );
    assert_books_are_right(&world).await;
}

/// Fabricates what 7bef553 wrote in f01, f02 and f04, and what nobody should write.
#[tokio::test]
async fn b6_the_check_finds_what_was_given_back_twice_and_credit_without_a_cause() {
    for (sql, found) in [
        (
            "UPDATE line_credits SET priced_minor = priced_minor + 1 WHERE credited_line_id = 1",
            "given back of line 1 of INV-2026-000001: 31001 minor units instead of 31000",
        ),
        (
            "INSERT INTO line_credits (line_id, credited_line_id, cause, priced_minor) VALUES (1, 1, 'unused', 21000)",
            "given back of line 1 of INV-2026-000001: 52000 minor units instead of 31000",
        ),
        (
            "DELETE FROM line_credits",
            "charges that line 1 of CN-2026-000001 gives back: 0 minor units instead of 31000",
        ),
        (
            "UPDATE charge_items SET amount_minor = -400",
            "items of CN-2026-000002: -500 minor units instead of -400",
        ),
        (
            "UPDATE allocations SET source = 'write_off', payment_id = NULL WHERE source = 'payment'",
            "credit from credit notes on INV-2026-000001: 31000 minor units instead of 0",
        ),
        (
            "UPDATE ledger_transactions SET invoice_id = NULL WHERE idempotency_key = 'credit_note:inv_2'",
            "credit without a cause: credit_note:inv_2: 31000 minor units instead of 0",
        ),
    ] {
        let (shop, _, made) = january().await;
        shop.pay(&made).await;
        taken_back(&shop.world, made.invoice.id, Credited::Whole).await.unwrap();
        let mut transaction = shop.world.database.begin_write().await.unwrap();
        let goodwill = Money::new(-500, Currency::USD);
        add_item(
            &mut transaction,
            shop.customer,
            None,
            "goodwill",
            goodwill,
            "ada",
            ms(JANUARY),
        )
        .await
        .unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(shop.close(DAY_11).await, [credit_note(&[(LineKind::Item, -500)])]);
        assert_eq!(shop.credit().await, 31_500);
        sqlx::query(sql).execute(shop.world.database.pool()).await.unwrap();
        let report = ledger::check(&shop.world.database).await.unwrap();
        let violations: Vec<&str> = report
            .violations
            .iter()
            .filter(|violation| violation.invariant == "B6")
            .map(|violation| violation.what.as_str())
            .collect();
        assert!(violations.contains(&found), "{sql}: {violations:?}");
    }
}

/// Whatever drafted it, and whatever was written since.
#[tokio::test]
async fn b6_a_document_that_gives_back_too_much_is_not_written() {
    let (shop, id, made) = january().await;
    shop.pay(&made).await;
    shop.cancel(id, CancellationTime::Now, DAY_11).await.unwrap();
    let (database, usage) = (&shop.world.database, &shop.world.usage);
    let between = (shop.customer, shop.customer);
    let prepared = prepare(database, usage, between, ms(DAY_11), OpenPeriods::Excluded)
        .await
        .unwrap();
    let drafts = &prepared.drafts[0];
    assert_eq!(drafts.drafts[0].draft.total.minor, -21_000);
    taken_back(&shop.world, made.invoice.id, usd(10_001)).await.unwrap();
    let mut transaction = database.begin_write().await.unwrap();
    let document = NewDocument {
        parties: Parties {
            entity: drafts.customer.billing.entity,
            seller: &drafts.entity,
            customer: &drafts.customer,
        },
        draft: &drafts.drafts[0].draft,
        corrects: &Corrects::default(),
        id: None,
    };
    let error = write(&mut transaction, &[document], ms(DAY_11)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "B6: USD 310.01 would be credited for inl_1 on INV-2026-000001, which charged USD 310.00: try again"
    );
}
