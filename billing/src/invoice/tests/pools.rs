//! Pooled usage of which something becomes known later: what customers owe does not depend on when it does.

use std::sync::atomic::Ordering;

use schemas::ids::{ExclusionId, ServiceId, SubscriptionId};

use super::*;
use crate::subscription::change::{self, CancellationTime, Change};

const GB: u64 = 1_000_000_000;
/// 10.00 with 100 GB, and 1.00 for each GB over them.
const SHARED: Deal = Deal {
    terms: Terms::Transfer {
        included_units: 100,
        unit: QuotaUnit::Gb,
        mode: UsageMode::Sum,
    },
    base_minor: 1000,
    usage_price: "1",
    started_at: "2026-03-01T00:00:00Z",
    ..DEAL
};
const DAY_5: &str = "2026-03-05T00:00:00Z";
const DAY_6: &str = "2026-03-06T00:00:00Z";
const APRIL: &str = "2026-04-01T00:20:00Z";
const MAY: &str = "2026-05-01T00:20:00Z";
const JUNE: &str = "2026-06-01T00:20:00Z";

const USAGE: LineKind = LineKind::TransferOverage;
const CORRECTION: LineKind = LineKind::Adjustment;

/// A customer whose usage is pooled, with services since 1 March 2026.
struct Case {
    world: World,
    customer: CustomerId,
    services: Vec<(ServiceId, SubscriptionId)>,
}

impl Case {
    async fn new(count: usize, deal: Deal) -> Case {
        let world = World::new().await;
        let customer = world.customer("USD", "UTC", "0").await;
        let mut services = Vec::with_capacity(count);
        for _ in 0..count {
            let contract = world.subscribe(customer, deal).await;
            services.push((contract.service.id, contract.subscription.id));
        }
        let case = Case {
            world,
            customer,
            services,
        };
        case.pool(true).await;
        case
    }

    /// 150 GB and 50 GB: what one leaves is what the other needs.
    async fn march() -> Case {
        let case = Case::new(2, SHARED).await;
        case.uses(0, DAY_5, 150);
        case.uses(1, DAY_5, 50);
        case
    }

    async fn pool(&self, is_agreed: bool) {
        sqlx::query("UPDATE customers SET pools_usage = $1")
            .bind(i64::from(is_agreed))
            .execute(self.world.database.pool())
            .await
            .unwrap();
    }

    fn uses(&self, service: usize, at: &str, gb: u64) {
        self.world.usage.add(self.services[service].0, at, gb * GB, 0);
    }

    /// The sixth of March was an attack.
    async fn flag(&self, service: usize) -> ExclusionId {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let span = (ms(DAY_6), ms("2026-03-06T00:15:00Z"));
        let made = exclusion::exclude(&mut transaction, self.services[service].0, span, "ddos", "ops", 0)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        made.id
    }

    async fn revoke(&self, id: ExclusionId) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        exclusion::revoke(&mut transaction, id, 1).await.unwrap();
        transaction.commit().await.unwrap();
    }

    /// What closing charges for usage and corrects, by service; the books are right afterwards.
    async fn close(&self, now: &str) -> Vec<(usize, LineKind, i64)> {
        let made = closed(&self.world, self.customer, now).await.invoices;
        assert_books_are_right(&self.world).await;
        let again = closed(&self.world, self.customer, now).await;
        assert!(again.invoices.is_empty(), "B3: closing again finds nothing");
        let place = |line: &InvoiceLine| {
            let mut services = self.services.iter();
            services
                .position(|(service, _)| Some(*service) == line.service)
                .unwrap()
        };
        let lines = made.iter().flat_map(|made| &made.lines);
        lines
            .filter(|line| line.kind.is_usage())
            .map(|line| (place(line), line.kind, line.priced.minor))
            .collect()
    }

    /// As [`Case::close`], of what corrects alone.
    async fn corrections(&self, now: &str) -> Vec<(usize, i64)> {
        let made = self.close(now).await.into_iter();
        made.filter(|(_, kind, _)| *kind == CORRECTION)
            .map(|(service, _, minor)| (service, minor))
            .collect()
    }

    async fn documents(&self) -> Vec<Invoice> {
        list_of(self.world.database.pool(), self.customer).await.unwrap()
    }

    /// How many lines say what flows do not, and no document has charged or given back.
    async fn open_checks(&self) -> usize {
        let mut open = 0;
        for document in self.documents().await {
            let checks = recompute(&self.world.database, &self.world.usage, document.id)
                .await
                .unwrap();
            open += checks.iter().filter(|check| check.is_open()).count();
        }
        open
    }
}

/// 250 GB of 200 are 50.00. Before, 50 GB that came after the close were free, and 50 GB that were flagged after it were
/// charged: the share of the one who had taken was kept, and what the other had given was counted for it again.
#[tokio::test]
async fn what_a_pool_owes_does_not_depend_on_when_its_data_arrives_or_is_flagged() {
    let in_time = Case::march().await;
    in_time.uses(1, DAY_6, 50);
    assert_eq!(in_time.close(APRIL).await, [(0, USAGE, 5000), (1, USAGE, 0)]);
    assert_eq!(in_time.corrections(MAY).await, []);

    let late = Case::march().await;
    assert_eq!(late.close(APRIL).await, [(0, USAGE, 0), (1, USAGE, 0)]);
    late.uses(1, DAY_6, 50);
    assert_eq!(late.open_checks().await, 1);
    assert_eq!(
        late.close(MAY).await,
        [(0, USAGE, 0), (1, USAGE, 0), (0, CORRECTION, 5000)]
    );
    assert_eq!(late.open_checks().await, 0);
    assert_eq!(late.corrections(JUNE).await, []);

    let flagged_before = Case::march().await;
    flagged_before.uses(1, DAY_6, 50);
    flagged_before.flag(1).await;
    assert_eq!(flagged_before.close(APRIL).await, [(0, USAGE, 0), (1, USAGE, 0)]);
    assert_eq!(flagged_before.corrections(MAY).await, []);

    let flagged_after = Case::march().await;
    flagged_after.uses(1, DAY_6, 50);
    assert_eq!(flagged_after.close(APRIL).await, [(0, USAGE, 5000), (1, USAGE, 0)]);
    let flag = flagged_after.flag(1).await;
    assert_eq!(flagged_after.corrections(MAY).await, [(0, -5000)]);
    assert_eq!(flagged_after.open_checks().await, 0);
    flagged_after.revoke(flag).await;
    assert_eq!(flagged_after.corrections(JUNE).await, [(0, 5000)]);
}

#[tokio::test]
async fn a_correction_says_that_it_was_what_others_leave() {
    let case = Case::march().await;
    case.close(APRIL).await;
    case.uses(1, DAY_6, 20);
    assert_eq!(case.corrections(MAY).await, [(0, 2000)]);
    let last = get(&case.world.database, case.documents().await[0].id).await.unwrap();
    let line = last.lines.iter().find(|line| line.kind == CORRECTION).unwrap();
    assert_eq!(
        line.description,
        "web-1: correction of INV-2026-000001 after a change of what other services leave: transfer 150 GB (in + out), \
         100 GB included, 30 GB from other services"
    );
    let Evidence::Adjustment { charge, due_minor, .. } = &line.evidence else {
        panic!("{:?}", line.evidence);
    };
    assert_eq!((charge.from_pool(), *due_minor), (30 * GB, 2000));
}

/// 31 GB each; 5 GB over them at 2.00, what is above at 1.00. Before, the corrections came to 6.00.
#[tokio::test]
async fn a_pool_with_tiers_is_corrected_to_what_it_would_have_charged() {
    let deal = Deal {
        terms: Terms::Transfer {
            included_units: 31,
            unit: QuotaUnit::Gb,
            mode: UsageMode::Sum,
        },
        base_minor: 10_000,
        usage_price: "graduated:5=2,*=1",
        ..SHARED
    };
    let (first, late) = ([50, 10, 36], [0, 10, 4]);
    let case = Case::new(3, deal).await;
    for (service, gb) in first.into_iter().enumerate() {
        case.uses(service, DAY_5, gb);
    }
    // 21 GB are left: 19 for the first, 2 for the third, which is 3 over.
    assert_eq!(case.close(APRIL).await, [(0, USAGE, 0), (1, USAGE, 0), (2, USAGE, 600)]);
    for (service, gb) in late.into_iter().enumerate() {
        case.uses(service, DAY_6, gb);
    }
    // 11 are left: the first is 8 over, 13.00; the third 9, 14.00.
    assert_eq!(case.corrections(MAY).await, [(0, 1300), (2, 800)]);
    assert_eq!(case.open_checks().await, 0);

    let in_time = Case::new(3, deal).await;
    for (service, gb) in first.into_iter().chain(late).enumerate() {
        in_time.uses(service % 3, DAY_5, gb);
    }
    assert_eq!(
        in_time.close(APRIL).await,
        [(0, USAGE, 1300), (1, USAGE, 0), (2, USAGE, 1400)]
    );
}

#[tokio::test]
async fn b6_a_pool_gives_no_more_back_than_a_credit_note_has_left() {
    let case = Case::march().await;
    case.uses(1, DAY_6, 50);
    case.close(APRIL).await;
    // 14.00 of 70.00: 10.00 of them are of the usage.
    let invoice = case.documents().await[0].id;
    let mut transaction = case.world.database.begin_write().await.unwrap();
    let amount = Credited::Amount(Money::new(1400, Currency::USD));
    credit(&mut transaction, invoice, amount, "a mistake", ms(APRIL))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let flag = case.flag(1).await;
    assert_eq!(case.corrections(MAY).await, [(0, -4000)]);
    case.revoke(flag).await;
    assert_eq!(case.corrections(JUNE).await, [(0, 4000)]);
}

#[tokio::test]
async fn late_usage_of_a_pool_whose_invoice_was_credited_as_a_whole_costs_what_it_comes_to() {
    let case = Case::march().await;
    case.close(APRIL).await;
    let invoice = case.documents().await[0].id;
    let mut transaction = case.world.database.begin_write().await.unwrap();
    credit(&mut transaction, invoice, Credited::Whole, "a mistake", ms(APRIL))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    case.uses(1, DAY_6, 50);
    assert_eq!(case.corrections(MAY).await, [(0, 5000)]);
}

/// Both change on the 16th: the days before are a pool of their own, corrected by their own terms.
#[tokio::test]
async fn a_pool_that_a_plan_change_ended_is_corrected_by_the_terms_that_it_had() {
    let case = Case::new(2, SHARED).await;
    // Of 15 of 31 days 48.387096774 GB are included.
    case.uses(0, DAY_5, 60);
    case.uses(1, DAY_5, 30);
    let dearer = Deal {
        usage_price: "3",
        ..SHARED
    };
    let (_, price) = case.world.plan_and_price("USD", dearer).await;
    let at_ms = ms("2026-03-16T00:00:00Z");
    let mut transaction = case.world.database.begin_write().await.unwrap();
    for (_, subscription) in &case.services {
        let change = Change {
            price: price.id,
            quantity: 1,
        };
        change::change(&mut transaction, *subscription, change, at_ms, "test", at_ms)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
    let middle = case.close("2026-03-16T00:20:00Z").await;
    assert_eq!(middle, [(0, USAGE, 0), (1, USAGE, 0)]);
    case.uses(1, DAY_6, 20);
    assert_eq!(case.corrections(APRIL).await, [(0, 1161), (1, 161)]);
    assert_eq!(case.corrections(MAY).await, []);
}

/// One changes on the 16th: its months are not those of the other any more, and so they share nothing.
#[tokio::test]
async fn who_changes_within_the_month_leaves_nothing_to_others_then_or_later() {
    let case = Case::march().await;
    let dearer = Deal {
        usage_price: "3",
        ..SHARED
    };
    let (_, price) = case.world.plan_and_price("USD", dearer).await;
    let at_ms = ms("2026-03-16T00:00:00Z");
    let change = Change {
        price: price.id,
        quantity: 1,
    };
    let mut transaction = case.world.database.begin_write().await.unwrap();
    change::change(&mut transaction, case.services[1].1, change, at_ms, "test", at_ms)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    // 50 GB of 48.387096774, and then 150 of 100.
    assert_eq!(
        case.close(APRIL).await,
        [(1, USAGE, 161), (0, USAGE, 5000), (1, USAGE, 0)]
    );
    case.uses(1, DAY_6, 10);
    assert_eq!(case.corrections(MAY).await, [(1, 1000)]);
}

#[tokio::test]
async fn a_pool_is_corrected_as_was_agreed_when_it_was_closed() {
    // Nobody needed anything, and the customer pools no more.
    let pooled = Case::new(2, SHARED).await;
    pooled.uses(0, DAY_5, 90);
    pooled.uses(1, DAY_5, 60);
    pooled.close(APRIL).await;
    pooled.pool(false).await;
    pooled.uses(0, DAY_6, 60);
    assert_eq!(pooled.corrections(MAY).await, [(0, 1000)]);
    assert_eq!(pooled.open_checks().await, 0);

    // Agreed since: what was charged alone is corrected alone.
    let alone = Case::march().await;
    alone.pool(false).await;
    assert_eq!(alone.close(APRIL).await, [(0, USAGE, 5000), (1, USAGE, 0)]);
    alone.pool(true).await;
    alone.uses(0, DAY_6, 1);
    assert_eq!(alone.corrections(MAY).await, [(0, 100)]);
    assert_eq!(alone.open_checks().await, 0);
}

#[tokio::test]
async fn a_pool_that_is_billed_anew_is_as_is_agreed_then() {
    let case = Case::march().await;
    case.close(APRIL).await;
    let invoice = case.documents().await[0].id;
    let mut transaction = case.world.database.begin_write().await.unwrap();
    void(&mut transaction, invoice, Rebill::Yes, "wrong", ms(APRIL))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    case.pool(false).await;
    assert_eq!(case.close(APRIL).await, [(0, USAGE, 5000), (1, USAGE, 0)]);
    case.pool(true).await;
    case.uses(1, DAY_6, 50);
    assert_eq!(case.corrections(MAY).await, []);
}

/// As an earlier version left them, lines do not say whether they were pooled.
#[tokio::test]
async fn pools_from_before_lines_said_so_are_corrected_too() {
    let case = Case::march().await;
    case.close(APRIL).await;
    let done = sqlx::query("UPDATE invoice_lines SET evidence = replace(evidence, ',\"is_pooled\":true', '')")
        .execute(case.world.database.pool())
        .await
        .unwrap();
    assert!(done.rows_affected() > 0);
    case.pool(false).await;
    case.uses(1, DAY_6, 50);
    assert_eq!(case.corrections(MAY).await, [(0, 5000)]);
}

/// The service that left something is over: what it left less is on the next document of the one that got it.
#[tokio::test]
async fn a_flag_of_a_service_that_has_ended_corrects_those_that_shared_with_it() {
    let case = Case::march().await;
    case.uses(1, DAY_6, 50);
    let mut transaction = case.world.database.begin_write().await.unwrap();
    let at_ms = ms("2026-03-20T00:00:00Z");
    change::cancel(
        &mut transaction,
        case.services[1].1,
        CancellationTime::CycleEnd,
        "test",
        "test",
        at_ms,
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    crate::lifecycle::advance(&case.world.database, ms("2026-04-01T00:00:00Z"))
        .await
        .unwrap();
    assert_eq!(case.close(APRIL).await, [(0, USAGE, 5000), (1, USAGE, 0)]);
    case.flag(1).await;
    // Its own month is looked at at once, and costs what it did.
    assert_eq!(case.close("2026-04-10T00:00:00Z").await, []);
    assert_eq!(case.corrections(MAY).await, [(0, -5000)]);
}

#[tokio::test]
async fn a_pool_is_measured_once_however_many_share() {
    let case = Case::new(20, SHARED).await;
    let asked = || case.world.usage.questions.swap(0, Ordering::Relaxed);
    case.uses(0, DAY_5, 2000);
    case.uses(19, DAY_6, 1);
    closed(&case.world, case.customer, APRIL).await;
    asked();
    // Late flows of one, and of no other: all are measured again, each once.
    case.uses(7, DAY_6, 1);
    closed(&case.world, case.customer, MAY).await;
    assert_eq!(asked(), 20 + 20);
    case.flag(19).await;
    closed(&case.world, case.customer, JUNE).await;
    assert_eq!(asked(), 20 + 20);
    closed(&case.world, case.customer, "2026-07-01T00:20:00Z").await;
    assert_eq!(asked(), 20, "nothing has changed");
}
