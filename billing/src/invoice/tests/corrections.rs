//! Corrections of charged usage, however long ago it was charged, whatever became of the subscription since.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use jiff::tz::TimeZone;
use schemas::ids::{ServiceId, SubscriptionId};
use schemas::inventory::Service;
use schemas::usage::{Peer, PeriodUsage, SeriesPoint, UsageError, WindowUsage};

use super::*;
use crate::catalog::BaseTiming;
use crate::settlement;
use crate::subscription::change::{self, CancellationTime, Change};
use schemas::usage::UsageQuery;
use schemas::usage::UsageSource;

const GB: u64 = 1_000_000_000;
/// One dollar for each GB.
pub(super) const METERED: Deal = Deal {
    terms: Terms::Transfer {
        included_units: 0,
        unit: QuotaUnit::Gb,
        mode: UsageMode::Sum,
    },
    base_minor: 0,
    usage_price: "1",
    base_timing: BaseTiming::Arrears,
    ..DEAL
};

/// One customer with one metered service since 1 January 2026.
struct Case {
    world: World,
    customer: CustomerId,
    service: ServiceId,
    subscription: SubscriptionId,
}

impl Case {
    async fn new() -> Case {
        let world = World::new().await;
        let customer = world.customer("USD", "UTC", "0").await;
        let contract = world.subscribe(customer, METERED).await;
        Case {
            world,
            customer,
            service: contract.service.id,
            subscription: contract.subscription.id,
        }
    }

    fn uses(&self, at: &str, gb: u64) {
        self.world.usage.add(self.service, at, gb * GB, 0);
    }

    /// What each document that closing makes comes to, line by line; the books are right afterwards.
    async fn close(&self, now: &str) -> Vec<Vec<(LineKind, i64)>> {
        let made = closed(&self.world, self.customer, now).await.invoices;
        assert_books_are_right(&self.world).await;
        let again = closed(&self.world, self.customer, now).await;
        assert!(again.invoices.is_empty(), "B3: closing again finds nothing");
        made.iter().map(amounts).collect()
    }

    async fn flag(&self, from: &str, to: &str) -> schemas::ids::ExclusionId {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let span = (ms(from), ms(to));
        let made = exclusion::exclude(&mut transaction, self.service, span, "ddos", "ops", 0)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        made.id
    }

    async fn revoke(&self, id: schemas::ids::ExclusionId) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        exclusion::revoke(&mut transaction, id, 1).await.unwrap();
        transaction.commit().await.unwrap();
    }

    async fn cancel(&self, end: CancellationTime, at: &str) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        change::cancel(&mut transaction, self.subscription, end, "test", "test", ms(at))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        crate::lifecycle::advance(&self.world.database, ms(at)).await.unwrap();
    }

    async fn change_to(&self, deal: Deal, at: &str) {
        let (_, price) = self.world.plan_and_price("USD", deal).await;
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let change = Change {
            price: price.id,
            quantity: 1,
        };
        change::change(&mut transaction, self.subscription, change, ms(at), "test", ms(at))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }
}

const USAGE: LineKind = LineKind::TransferOverage;
const CORRECTION: LineKind = LineKind::Adjustment;

#[tokio::test]
async fn late_flows_of_a_month_older_than_the_last_are_on_the_next_invoice() {
    let case = Case::new().await;
    case.uses("2026-01-10T00:00:00Z", 10);
    assert_eq!(
        case.close("2026-02-01T01:00:00Z").await,
        [[(LineKind::Base, 0), (USAGE, 1000)]]
    );
    case.close("2026-03-01T01:00:00Z").await;
    case.uses("2026-01-13T00:00:00Z", 7);
    let between = case.close("2026-03-02T01:00:00Z").await;
    assert!(between.is_empty(), "an invoice will come that carries it: {between:?}");
    let april = case.close("2026-04-01T01:00:00Z").await;
    assert_eq!(april, [[(LineKind::Base, 0), (USAGE, 0), (CORRECTION, 700)]]);
    assert_eq!(case.close("2026-05-01T01:00:00Z").await[0].len(), 2, "corrected once");

    // Two months at once, each by its own line.
    case.uses("2026-02-03T00:00:00Z", 1);
    case.uses("2026-01-03T00:00:00Z", 2);
    let june = case.close("2026-06-01T01:00:00Z").await;
    assert_eq!(june[0][2..], [(CORRECTION, 200), (CORRECTION, 100)]);
}

#[tokio::test]
async fn an_attack_flagged_long_after_is_given_back_and_charged_again_when_the_flag_is_revoked() {
    let case = Case::new().await;
    case.uses("2026-01-10T00:00:00Z", 100);
    case.uses("2026-01-11T00:00:00Z", 3);
    case.close("2026-02-01T01:00:00Z").await;
    case.close("2026-03-01T01:00:00Z").await;
    let flag = case.flag("2026-01-10T00:00:00Z", "2026-01-10T00:10:00Z").await;
    let april = case.close("2026-04-01T01:00:00Z").await;
    assert_eq!(april, [[(LineKind::Base, 0), (USAGE, 0), (CORRECTION, -10_000)]]);
    case.close("2026-05-01T01:00:00Z").await;
    case.revoke(flag).await;
    case.revoke(flag).await;
    let june = case.close("2026-06-01T01:00:00Z").await;
    assert_eq!(june[0][2..], [(CORRECTION, 10_000)]);
}

#[tokio::test]
async fn what_corrects_a_written_off_invoice_lowers_what_was_given_up_and_not_what_is_charged_beside_it() {
    let case = Case::new().await;
    case.uses("2026-01-10T00:00:00Z", 100);
    case.uses("2026-01-11T00:00:00Z", 3);
    let january = closed(&case.world, case.customer, "2026-02-01T01:00:00Z")
        .await
        .invoices;
    let mut transaction = case.world.database.begin_write().await.unwrap();
    let at_ms = ms("2026-02-20T00:00:00Z");
    settlement::write_off(&mut transaction, january[0].invoice.id, "moved away", at_ms)
        .await
        .unwrap();
    transaction.commit().await.unwrap();

    case.uses("2026-02-10T00:00:00Z", 40);
    let attack = case.flag("2026-01-10T00:00:00Z", "2026-01-10T01:00:00Z").await;
    let made = closed(&case.world, case.customer, "2026-03-01T01:00:00Z")
        .await
        .invoices;
    assert_books_are_right(&case.world).await;
    let lines: Vec<_> = made.iter().map(amounts).collect();
    assert_eq!(
        lines,
        [vec![(CORRECTION, -10_000)], vec![(LineKind::Base, 0), (USAGE, 4000)]]
    );
    assert_eq!(made[0].invoice.corrects, Some(january[0].invoice.id));
    assert_eq!(
        made[1].invoice.outstanding().minor,
        4000,
        "what nobody paid pays nothing"
    );
    let balances = ledger::balances(case.world.database.pool()).await.unwrap();
    let of = |name: &str| {
        balances
            .iter()
            .filter(|found| found.account.name.contains(name))
            .map(|found| found.balance.minor)
            .sum::<i64>()
    };
    assert_eq!((of("bad_debt"), of("credit")), (300, 0));

    // Charged again, it is owed again beside what else is charged.
    case.revoke(attack).await;
    let april = closed(&case.world, case.customer, "2026-04-01T01:00:00Z")
        .await
        .invoices;
    let lines: Vec<_> = april.iter().map(amounts).collect();
    assert_eq!(lines, [[(LineKind::Base, 0), (USAGE, 0), (CORRECTION, 10_000)]]);
    assert_books_are_right(&case.world).await;
}

#[tokio::test]
async fn an_ended_subscription_gets_a_document_of_its_own_at_most_one_a_day() {
    let case = Case::new().await;
    case.uses("2026-01-10T00:00:00Z", 10);
    case.cancel(CancellationTime::CycleEnd, "2026-01-20T00:00:00Z").await;
    crate::lifecycle::advance(&case.world.database, ms("2026-02-01T00:00:00Z"))
        .await
        .unwrap();
    assert_eq!(case.close("2026-02-01T01:00:00Z").await.len(), 1, "the last invoice");
    case.uses("2026-01-30T00:00:00Z", 40);
    assert_eq!(case.close("2026-03-01T01:00:00Z").await, [[(CORRECTION, 4000)]]);
    // More of the same: the pieces of a day are one document.
    case.uses("2026-01-30T01:00:00Z", 1);
    assert!(case.close("2026-03-01T02:00:00Z").await.is_empty());
    case.uses("2026-01-30T02:00:00Z", 1);
    assert!(case.close("2026-03-02T00:59:59Z").await.is_empty());
    assert_eq!(case.close("2026-03-02T01:00:00Z").await, [[(CORRECTION, 200)]]);
    assert!(case.close("2026-04-02T01:00:00Z").await.is_empty());

    // Given back, it is a credit note.
    case.flag("2026-01-30T00:00:00Z", "2026-01-30T01:00:00Z").await;
    // First of what the month's own line charged, then of its correction: each at its own tax.
    assert_eq!(
        case.close("2026-04-03T01:00:00Z").await,
        [[(CORRECTION, -1000), (CORRECTION, -3000)]]
    );
    let last = list_of(case.world.database.pool(), case.customer)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(last.kind, InvoiceKind::CreditNote);
    assert!(last.corrects.is_some());
}

#[tokio::test]
async fn every_phase_is_corrected_by_the_terms_that_it_had() {
    let case = Case::new().await;
    case.uses("2026-01-10T00:00:00Z", 10);
    let dearer = Deal {
        usage_price: "3",
        ..METERED
    };
    case.change_to(dearer, "2026-01-16T00:00:00Z").await;
    case.uses("2026-01-20T00:00:00Z", 10);
    case.close("2026-02-01T01:00:00Z").await;
    case.close("2026-03-01T01:00:00Z").await;
    case.uses("2026-01-11T00:00:00Z", 1);
    case.uses("2026-01-21T00:00:00Z", 1);
    let april = case.close("2026-04-01T01:00:00Z").await;
    assert_eq!(april[0][2..], [(CORRECTION, 100), (CORRECTION, 300)]);
}

#[tokio::test]
async fn where_no_usage_is_charged_any_more_a_correction_does_not_wait_for_the_year_s_invoice() {
    let case = Case::new().await;
    case.uses("2026-01-10T00:00:00Z", 10);
    let flat = Deal {
        terms: Terms::Flat,
        base_minor: 12_000,
        usage_price: "0",
        cycle_months: 12,
        ..METERED
    };
    case.change_to(flat, "2026-01-16T00:00:00Z").await;
    case.close("2026-01-16T01:00:00Z").await;
    case.uses("2026-01-12T00:00:00Z", 5);
    assert_eq!(case.close("2026-03-16T01:00:00Z").await, [[(CORRECTION, 500)]]);
}

#[tokio::test]
async fn corrections_reach_as_far_as_is_configured_and_kept() {
    let case = Case::new().await;
    case.uses("2026-01-10T00:00:00Z", 10);
    case.close("2026-02-01T01:00:00Z").await;
    case.close("2026-03-01T01:00:00Z").await;
    // The fake reaches 400 days.
    case.uses("2026-01-11T00:00:00Z", 1);
    case.uses("2026-02-11T00:00:00Z", 2);
    let mut late = case.close("2027-03-12T01:00:00Z").await;
    assert_eq!(
        late.remove(0)[2..],
        [(CORRECTION, 200)],
        "January ended 404 days before"
    );
    // Retention has removed a part of it: what is left says too little.
    case.uses("2027-01-11T00:00:00Z", 1);
    case.uses("2027-02-11T00:00:00Z", 2);
    let retained_ms = ms("2027-01-05T00:00:00Z");
    case.world.usage.retained_from_ms.store(retained_ms, Ordering::Relaxed);
    let april = case.close("2027-04-01T01:00:00Z").await;
    assert_eq!(april[0][2..], [(CORRECTION, 200)]);
}

#[tokio::test]
async fn only_what_changed_is_measured_again() {
    let case = Case::new().await;
    let asked = || case.world.usage.questions.swap(0, Ordering::Relaxed);
    for (month, now) in [
        ("2026-01", "2026-02-01T01:00:00Z"),
        ("2026-02", "2026-03-01T01:00:00Z"),
        ("2026-03", "2026-04-01T01:00:00Z"),
        ("2026-04", "2026-05-01T01:00:00Z"),
    ] {
        case.uses(&format!("{month}-10T00:00:00Z"), 10);
        asked();
        closed(&case.world, case.customer, now).await;
        assert_eq!(asked(), 1, "{month}: the month that is due");
        closed(&case.world, case.customer, now).await;
        assert_eq!(asked(), 0, "nothing is due");
    }
    case.uses("2026-01-12T00:00:00Z", 1);
    closed(&case.world, case.customer, "2026-05-20T01:00:00Z").await;
    assert_eq!(asked(), 0, "the next invoice looks at it");
    closed(&case.world, case.customer, "2026-06-01T01:00:00Z").await;
    assert_eq!(asked(), 2, "May, and January again");

    // As an older version left it: every month is looked at once, found as it was, and left alone.
    sqlx::query("UPDATE charged SET usage_mark = ''")
        .execute(case.world.database.pool())
        .await
        .unwrap();
    asked();
    let july = closed(&case.world, case.customer, "2026-07-01T01:00:00Z").await;
    assert_eq!(july.invoices[0].lines.len(), 2);
    assert_eq!(asked(), 1 + 5);
    closed(&case.world, case.customer, "2026-08-01T01:00:00Z").await;
    assert_eq!(asked(), 1);
}

#[tokio::test]
async fn a_month_billed_anew_and_a_correction_made_anew_are_charged_once() {
    let case = Case::new().await;
    case.uses("2026-01-10T00:00:00Z", 10);
    case.cancel(CancellationTime::CycleEnd, "2026-01-20T00:00:00Z").await;
    crate::lifecycle::advance(&case.world.database, ms("2026-02-01T00:00:00Z"))
        .await
        .unwrap();
    let first = closed(&case.world, case.customer, "2026-02-01T01:00:00Z")
        .await
        .invoices;
    case.uses("2026-01-11T00:00:00Z", 5);
    let second = closed(&case.world, case.customer, "2026-02-03T01:00:00Z")
        .await
        .invoices;
    assert_eq!(amounts(&second[0]), [(CORRECTION, 500)]);
    let void_anew = async |invoice: &InvoiceWithLines| {
        let mut transaction = case.world.database.begin_write().await.unwrap();
        let id = invoice.invoice.id;
        void(
            &mut transaction,
            id,
            Rebill::Yes,
            "wrong address",
            ms("2026-02-04T00:00:00Z"),
        )
        .await?;
        transaction.commit().await.unwrap();
        Ok::<_, BillingError>(())
    };
    let refused = void_anew(&first[0]).await.unwrap_err().to_string();
    assert!(refused.contains("void those first"), "{refused}");
    // Not for good either: nothing would correct that month's correction any more.
    let at_ms = ms("2026-02-04T00:00:00Z");
    let for_good = preview_void(&case.world.database, first[0].invoice.id, Rebill::No, "wrong", at_ms).await;
    assert!(
        for_good
            .unwrap_err()
            .to_string()
            .contains("corrected by later documents")
    );
    void_anew(&second[0]).await.unwrap();
    assert_eq!(
        case.close("2026-02-05T01:00:00Z").await,
        [[(CORRECTION, 500)]],
        "asked for"
    );
    let third = list_of(case.world.database.pool(), case.customer)
        .await
        .unwrap()
        .remove(0);
    void_anew(&get(&case.world.database, third.id).await.unwrap())
        .await
        .unwrap();
    void_anew(&first[0]).await.unwrap();
    let anew = case.close("2026-02-09T01:00:00Z").await;
    assert_eq!(anew, [[(LineKind::Base, 0), (USAGE, 1500)]]);
    let made = list_of(case.world.database.pool(), case.customer).await.unwrap();
    assert_eq!(made.iter().map(|made| made.total.minor).sum::<i64>(), 1500);
}

#[tokio::test]
async fn what_a_credit_note_takes_back_of_a_correction_is_not_charged_again() {
    let case = Case::new().await;
    case.uses("2026-01-10T00:00:00Z", 10);
    case.close("2026-02-01T01:00:00Z").await;
    case.uses("2026-01-11T00:00:00Z", 5);
    let march = closed(&case.world, case.customer, "2026-03-01T01:00:00Z")
        .await
        .invoices;
    assert_eq!(amounts(&march[0])[2], (CORRECTION, 500));
    let mut transaction = case.world.database.begin_write().await.unwrap();
    credit(
        &mut transaction,
        march[0].invoice.id,
        Credited::Whole,
        "goodwill",
        ms("2026-03-02T00:00:00Z"),
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    // Measured again, as one more gigabyte of January comes: that one is charged.
    case.uses("2026-01-12T00:00:00Z", 1);
    let april = case.close("2026-04-01T01:00:00Z").await;
    assert_eq!(april[0][2..], [(CORRECTION, 100)]);
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Flag,
    LateFlows,
    OtherCloser,
}

/// Usage in whose measuring something else happens, once.
struct Meanwhile<'a> {
    case: &'a Case,
    happened: AtomicBool,
    event: Event,
    now: &'static str,
}

#[async_trait]
impl UsageSource for Meanwhile<'_> {
    async fn settle(&self) -> Result<(), UsageError> {
        Ok(())
    }

    fn corrected_from_ms(&self, now_ms: i64) -> i64 {
        self.case.world.usage.corrected_from_ms(now_ms)
    }

    async fn marks(&self, periods: &[(i64, i64)]) -> Result<Vec<Option<String>>, UsageError> {
        self.case.world.usage.marks(periods).await
    }

    async fn period_usage(&self, queries: &[UsageQuery], now_ms: i64) -> Result<Vec<PeriodUsage>, UsageError> {
        let answer = self.case.world.usage.period_usage(queries, now_ms).await;
        if !self.happened.swap(true, Ordering::Relaxed) {
            match self.event {
                Event::Flag => drop(self.case.flag("2026-01-10T00:00:00Z", "2026-01-10T00:10:00Z").await),
                Event::LateFlows => self.case.uses("2026-01-12T00:00:00Z", 2),
                Event::OtherCloser => {
                    let other = closed(&self.case.world, self.case.customer, self.now).await;
                    assert_eq!(other.invoices.len(), 1);
                }
            }
        }
        answer
    }

    async fn windows_from_flows(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<WindowUsage>, UsageError> {
        self.case.world.usage.windows_from_flows(service, from_ms, to_ms).await
    }

    async fn days(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
        zone: &TimeZone,
    ) -> Result<Vec<SeriesPoint>, UsageError> {
        self.case.world.usage.days(service, from_ms, to_ms, zone).await
    }

    async fn top_peers(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
        limit: usize,
    ) -> Result<Vec<Peer>, UsageError> {
        self.case.world.usage.top_peers(service, from_ms, to_ms, limit).await
    }
}

impl Case {
    /// Closes while something happens.
    async fn close_while(&self, event: Event, now: &'static str) -> Vec<Vec<(LineKind, i64)>> {
        let usage = Meanwhile {
            case: self,
            happened: AtomicBool::new(false),
            event,
            now,
        };
        let closing = close(&self.world.database, &usage, self.customer, ms(now))
            .await
            .unwrap();
        let made = closing.read(&self.world.database).await.unwrap();
        made.iter().map(amounts).collect()
    }
}

#[tokio::test]
async fn what_happens_while_a_close_measures_is_not_lost_and_not_charged_twice() {
    let case = Case::new().await;
    case.uses("2026-01-10T00:00:00Z", 10);
    case.uses("2026-01-11T00:00:00Z", 1);
    let january = case.close_while(Event::Flag, "2026-02-01T01:00:00Z").await;
    assert_eq!(january, [[(LineKind::Base, 0), (USAGE, 100)]], "drafted anew");
    case.close("2026-03-01T01:00:00Z").await;
    // A correction that is measured as more flows come: the rest follows.
    case.uses("2026-01-11T01:00:00Z", 1);
    let april = case.close_while(Event::LateFlows, "2026-04-01T01:00:00Z").await;
    assert_eq!(april[0][2..], [(CORRECTION, 100)]);
    case.cancel(CancellationTime::Now, "2026-04-10T00:00:00Z").await;
    assert_eq!(
        case.close("2026-04-11T01:00:00Z").await,
        [[(LineKind::Base, 0), (USAGE, 0), (CORRECTION, 200)]]
    );
    // Two closers find the same correction of an ended subscription: one makes it.
    case.uses("2026-01-13T00:00:00Z", 4);
    let late = case.close_while(Event::OtherCloser, "2026-04-20T01:00:00Z").await;
    assert!(late.is_empty(), "{late:?}");
    let made = list_of(case.world.database.pool(), case.customer).await.unwrap();
    assert_eq!(made[0].total.minor, 400);
    assert_eq!(made.iter().filter(|made| made.total.minor == 400).count(), 1);
    assert_books_are_right(&case.world).await;
}

/// 100 GB of January at 0.77, of which a credit note gives a part back, then 50 GB that come late; then attack traffic leaves
/// `left_out` out, a month after the other. Net and tax of each document.
async fn all_of_it_given_back(inclusive: bool, left_out: &[(&str, &str)]) -> Vec<(i64, i64)> {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "19").await;
    if inclusive {
        sqlx::query("UPDATE customers SET prices_include_tax = 1")
            .execute(world.database.pool())
            .await
            .unwrap();
    }
    let deal = Deal {
        usage_price: "0.77",
        ..METERED
    };
    let service = world.subscribe(customer, deal).await.service.id;
    world.usage.add(service, "2026-01-10T00:00:00Z", 100 * GB, 0);
    let january = closed(&world, customer, "2026-02-01T01:00:00Z")
        .await
        .invoices
        .remove(0);
    let part = Money::new(if inclusive { 1637 } else { 1376 }, january.invoice.currency);
    let mut transaction = world.database.begin_write().await.unwrap();
    credit(
        &mut transaction,
        january.invoice.id,
        Credited::Amount(part),
        "a part",
        ms("2026-02-02T00:00:00Z"),
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    world.usage.add(service, "2026-01-10T00:05:00Z", 50 * GB, 0);
    closed(&world, customer, "2026-03-01T01:00:00Z").await;
    for (month, (from, to)) in (4..).zip(left_out) {
        let span = (ms(from), ms(to));
        let mut transaction = world.database.begin_write().await.unwrap();
        exclusion::exclude(&mut transaction, service, span, "ddos", "ops", 0)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        closed(&world, customer, &format!("2026-{month:02}-01T01:00:00Z")).await;
        assert_books_are_right(&world).await;
    }
    let mut all = list_of(world.database.pool(), customer).await.unwrap();
    all.sort_by_key(|invoice| invoice.id);
    all.iter()
        .map(|invoice| (invoice.subtotal.minor, invoice.tax.minor))
        .collect()
}

/// What was charged first gives back its tax, what was charged later its own: before, a cent of tax stayed of no net.
#[tokio::test]
async fn a_credited_part_and_late_usage_leave_no_cent_when_all_is_given_back() {
    let all = [("2026-01-10T00:00:00Z", "2026-01-10T01:00:00Z")];
    assert_eq!(
        all_of_it_given_back(false, &all).await,
        [(7700, 1463), (-1376, -261), (3850, 731), (-10_174, -1933)]
    );
    assert_eq!(
        all_of_it_given_back(true, &all).await,
        [(6471, 1229), (-1376, -261), (3236, 614), (-8331, -1582)]
    );
    // The late traffic first, then the rest.
    let in_turn = [
        ("2026-01-10T00:05:00Z", "2026-01-10T00:10:00Z"),
        ("2026-01-10T00:00:00Z", "2026-01-10T00:05:00Z"),
    ];
    for inclusive in [false, true] {
        let made = all_of_it_given_back(inclusive, &in_turn).await;
        let sum = |amount: fn(&(i64, i64)) -> i64| made.iter().map(amount).sum::<i64>();
        assert_eq!(made.len(), 5, "{made:?}");
        assert_eq!((sum(|(net, _)| *net), sum(|(_, tax)| *tax)), (0, 0), "{made:?}");
    }
}

#[tokio::test]
async fn a_correction_names_its_causes_and_which_invoice_charged_what() {
    let case = Case::new().await;
    case.uses("2026-01-10T00:00:00Z", 10);
    case.close("2026-02-01T01:00:00Z").await;
    case.uses("2026-01-10T00:05:00Z", 5);
    case.close("2026-03-01T01:00:00Z").await;
    // All of it left out, and a little of the month that comes late beside it.
    case.flag("2026-01-10T00:00:00Z", "2026-01-10T01:00:00Z").await;
    case.uses("2026-01-20T00:00:00Z", 1);
    let april = closed(&case.world, case.customer, "2026-04-01T01:00:00Z").await;
    let lines: Vec<(i64, &str)> = april.invoices[0].lines[2..]
        .iter()
        .map(|line| (line.amount.minor, line.description.as_str()))
        .collect();
    let now = "transfer 1 GB (in + out), 0 GB included; 12 windows of attack traffic not counted (15 GB)";
    let causes = "leaving attack traffic out and late data";
    let first = format!("web-1: correction of INV-2026-000001 after {causes}: {now}");
    let more =
        format!("web-1: correction of INV-2026-000002, which charged more than INV-2026-000001, after {causes}: {now}");
    assert_eq!(lines, [(-1000, first.as_str()), (-400, more.as_str())]);
}
