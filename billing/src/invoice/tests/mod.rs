use std::sync::Arc;

use proptest::prelude::*;
use schemas::assignment::Target;
use schemas::inventory;
use schemas::usage::UsageMode;

use super::*;
use crate::catalog::{QuotaUnit, Terms};
use crate::evidence::UsageCharge;
use crate::exclusion;
use crate::ledger;
use crate::testing::{DEAL, Deal, FakeUsage, LATENESS_MS, World, ms, window_count};

mod checked;
mod clocks;
mod corrections;
mod coupons;
mod credits;
mod given_back;
mod many;
mod pools;
mod proration;
mod taxes;
mod terms;
mod time_of_day;
mod unmeasured;

const GIB: u64 = 1 << 30;
/// February is over and its windows are closed.
const MARCH: &str = "2026-03-01T00:10:00Z";

fn started_in_february() -> Deal {
    Deal {
        started_at: "2026-02-01T00:00:00Z",
        ..DEAL
    }
}

/// What a close did, read back.
struct Closed {
    invoices: Vec<InvoiceWithLines>,
    refused: Vec<OpenPeriod>,
}

async fn closed(world: &World, customer: CustomerId, now: &str) -> Closed {
    let closing = close(&world.database, &world.usage, customer, ms(now)).await.unwrap();
    Closed {
        invoices: closing.read(&world.database).await.unwrap(),
        refused: closing.refused,
    }
}

async fn assert_books_are_right(world: &World) {
    let report = ledger::check(&world.database).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    for trial in ledger::trial_balance(world.database.pool()).await.unwrap() {
        assert!(trial.is_balanced(), "{trial:?}");
    }
}

fn amounts(invoice: &InvoiceWithLines) -> Vec<(LineKind, i64)> {
    invoice
        .lines
        .iter()
        .map(|line| (line.kind, line.amount.minor))
        .collect()
}

#[tokio::test]
async fn a_period_becomes_an_invoice_with_lines_tax_and_postings() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "19").await;
    let contract = world.subscribe(customer, started_in_february()).await;
    world
        .usage
        .add(contract.service.id, "2026-02-10T12:00:00Z", 600 * GIB, 500 * GIB);
    world
        .usage
        .add(contract.service.id, "2026-03-01T00:00:00Z", 9 * GIB, 9 * GIB);

    let closing = closed(&world, customer, MARCH).await;
    assert_eq!((closing.invoices.len(), closing.refused.len()), (1, 0));
    let InvoiceWithLines { invoice, lines, taxes } = &closing.invoices[0];
    assert_eq!(
        (taxes.len(), taxes[0].net, taxes[0].tax),
        (1, invoice.subtotal, invoice.tax)
    );
    assert_eq!(invoice.number, "INV-2026-000001");
    assert_eq!(
        amounts(&closing.invoices[0]),
        [(LineKind::Base, 2000), (LineKind::TransferOverage, 500)]
    );
    assert_eq!(lines[0].description, "web-1: VPS Pro");
    assert_eq!(
        lines[1].description,
        "web-1: transfer 1,100 GiB (in + out), 1,000 GiB included"
    );
    assert_eq!(
        (lines[1].quantity, lines[1].unit.as_str()),
        (Decimal::ONE_HUNDRED, "GiB")
    );
    let Evidence::Usage { charge, measured, .. } = &lines[1].evidence else {
        panic!("{:?}", lines[1].evidence);
    };
    assert!(matches!(charge, UsageCharge::Transfer { included_bytes, .. } if *included_bytes == 1000 * GIB));
    assert_eq!(measured.billed_bytes, 1100 * GIB);
    assert_eq!(measured.windows_measured, 28 * 288);
    assert_eq!(
        (invoice.subtotal.minor, invoice.tax.minor, invoice.total.minor),
        (2500, 475, 2975)
    );
    assert_eq!(invoice.due_at_ms - invoice.finalised_at_ms, 14 * 86_400_000);

    assert_books_are_right(&world).await;
    let pool = world.database.pool();
    let usd = invoice.currency;
    for (account, minor) in [
        (ledger::Account::receivable(customer, usd), 2975),
        (ledger::Account::revenue_base(usd), -2000),
        (ledger::Account::revenue_overage(usd), -500),
        (ledger::Account::tax(usd), -475),
    ] {
        assert_eq!(
            ledger::balance(pool, &account).await.unwrap().minor,
            minor,
            "{account:?}"
        );
    }
    assert_eq!(get(&world.database, invoice.id).await.unwrap(), closing.invoices[0]);
    let found = by_number(&world.database, "INV-2026-000001").await.unwrap();
    assert_eq!(found.as_ref(), Some(&closing.invoices[0]));
    assert_eq!(by_number(&world.database, "INV-2026-000002").await.unwrap(), None);
    assert_eq!(line(pool, lines[1].id).await.unwrap(), lines[1]);
}

#[tokio::test]
async fn b3_closing_again_finds_nothing_and_closing_early_is_refused() {
    let world = World::new().await;
    let customer = world.customer("USD", "Europe/Berlin", "0").await;
    let deal = Deal {
        started_at: "2026-01-31T23:00:00Z",
        ..DEAL
    };
    world.subscribe(customer, deal).await;

    // Local midnight in Berlin is 23:00 UTC.
    let not_over = closed(&world, customer, "2026-02-28T22:59:59Z").await;
    assert_eq!((not_over.invoices.len(), not_over.refused.len()), (0, 0));
    let windows_open = closed(&world, customer, "2026-02-28T23:09:59Z").await;
    assert_eq!(windows_open.invoices.len(), 0);
    assert_eq!(windows_open.refused.len(), 1);
    assert_eq!(windows_open.refused[0].reason, OpenReason::WindowsOpen);
    assert_eq!(windows_open.refused[0].period_end_ms, ms("2026-02-28T23:00:00Z"));
    assert_eq!(windows_open.refused[0].measured_to_ms, ms("2026-02-28T22:55:00Z"));
    assert_eq!(list_of(world.database.pool(), customer).await.unwrap(), []);

    let at = ms("2026-02-28T23:00:00Z") + LATENESS_MS;
    let first = close(&world.database, &world.usage, customer, at).await.unwrap();
    assert_eq!(first.invoices.len(), 1);
    let again = close(&world.database, &world.usage, customer, at).await.unwrap();
    assert_eq!((again.invoices.len(), again.refused.len()), (0, 0));
    assert_eq!(list_of(world.database.pool(), customer).await.unwrap().len(), 1);
    assert_books_are_right(&world).await;
}

#[tokio::test]
async fn closing_waits_until_flows_are_attributed_anew() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    let contract = world.subscribe(customer, started_in_february()).await;
    let mut transaction = world.database.begin_write().await.unwrap();
    let prefix = Target::Prefix("10.0.0.0/24".parse().unwrap());
    let from_ms = ms("2026-02-20T00:00:00Z");
    inventory::assign(&mut transaction, contract.service.id, prefix, from_ms, None, ms(MARCH))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let waiting = closed(&world, customer, MARCH).await;
    assert_eq!(waiting.invoices.len(), 0);
    assert_eq!(waiting.refused[0].reason, OpenReason::AttributionPending);

    let pool = world.database.pool();
    for change in inventory::pending_attribution_changes(pool).await.unwrap() {
        inventory::mark_attribution_change_applied(pool, change.id, ms(MARCH))
            .await
            .unwrap();
    }
    assert_eq!(closed(&world, customer, MARCH).await.invoices.len(), 1);
}

#[tokio::test]
async fn periods_that_end_together_share_an_invoice_and_flat_plans_wait_for_no_window() {
    let world = World::new().await;
    let customer = world.customer("EUR", "UTC", "0").await;
    world.subscribe(customer, started_in_february()).await;
    let joined_later = Deal {
        terms: Terms::Flat,
        usage_price: "0",
        base_minor: 2800,
        anchor_day: Some(1),
        started_at: "2026-02-15T08:00:00Z",
        ..DEAL
    };
    world.subscribe(customer, joined_later).await;
    let closing = closed(&world, customer, MARCH).await;
    assert_eq!(closing.invoices.len(), 1);
    assert_eq!(
        amounts(&closing.invoices[0]),
        [
            (LineKind::Base, 2000),
            (LineKind::TransferOverage, 0),
            (LineKind::Base, 1400)
        ]
    );
    assert_eq!(
        closing.invoices[0].lines[2].description,
        "web-1: VPS Pro, 14 of 28 days"
    );
    assert_eq!(
        closing.invoices[0].invoice.period_start_ms,
        ms("2026-02-01T00:00:00Z"),
        "the earliest of its periods"
    );

    let flat_only = world.customer("EUR", "UTC", "0").await;
    world.subscribe(flat_only, joined_later).await;
    let closing = closed(&world, flat_only, "2026-03-01T00:00:00Z").await;
    assert_eq!(closing.invoices.len(), 1);
    assert_eq!(closing.invoices[0].invoice.number, "INV-2026-000002");
    assert_books_are_right(&world).await;
}

#[tokio::test]
async fn a_close_after_months_makes_one_invoice_per_period() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    let contract = world.subscribe(customer, DEAL).await;
    for month in 1..=3 {
        world.usage.add(
            contract.service.id,
            &format!("2026-0{month}-05T00:00:00Z"),
            1100 * GIB,
            0,
        );
    }
    let closing = closed(&world, customer, "2026-04-02T00:00:00Z").await;
    let numbers: Vec<_> = closing
        .invoices
        .iter()
        .map(|made| made.invoice.number.as_str())
        .collect();
    assert_eq!(numbers, ["INV-2026-000001", "INV-2026-000002", "INV-2026-000003"]);
    for made in &closing.invoices {
        assert_eq!(made.invoice.total.minor, 2500);
    }
    assert_books_are_right(&world).await;
}

#[tokio::test]
async fn percentile_ranks_measured_windows_and_names_the_gap() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    let deal = Deal {
        terms: Terms::Percentile {
            commit_mbps: Decimal::from(20),
            mode: UsageMode::Max,
        },
        usage_price: "2.50",
        base_minor: 10_000,
        ..started_in_february()
    };
    let contract = world.subscribe(customer, deal).await;
    // 75 Mbit/s in, all through the month: 2,812,500,000 bytes a window.
    let from_ms = ms("2026-02-01T00:00:00Z");
    for window in schemas::window::windows(from_ms, ms("2026-03-01T00:00:00Z")) {
        world
            .usage
            .add(contract.service.id, &window.to_string(), 2_812_500_000, 1);
    }
    world.usage.silence("2026-02-03T00:00:00Z", "2026-02-03T01:00:00Z");
    let closing = closed(&world, customer, MARCH).await;
    let made = &closing.invoices[0];
    assert_eq!(
        amounts(made),
        [(LineKind::Base, 10_000), (LineKind::PercentileOverage, 13_750)]
    );
    assert_eq!(
        made.lines[1].description,
        "web-1: 95th percentile 75 Mbit/s (larger of in and out), 20 Mbit/s committed; 12 of 8,064 windows not measured (1 gap)"
    );
    let Evidence::Usage { measured, .. } = &made.lines[1].evidence else {
        panic!("{:?}", made.lines[1].evidence);
    };
    assert_eq!(
        measured.windows_expected,
        window_count(from_ms, ms("2026-03-01T00:00:00Z"))
    );
    assert_eq!((measured.windows_measured, measured.percentile_rank), (8052, 7650));
    assert_eq!(measured.gaps.len(), 1);
    let checks = recompute(&world.database, &world.usage, made.invoice.id).await.unwrap();
    assert!(checks.iter().all(|check| check.equal), "{checks:?}");
    assert_eq!(checks.len(), 1);
}

#[tokio::test]
async fn attack_traffic_is_told_and_not_charged_also_afterwards() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    let contract = world.subscribe(customer, started_in_february()).await;
    let service = contract.service.id;
    world.usage.add(service, "2026-02-10T00:00:00Z", 1000 * GIB, 0);
    world.usage.add(service, "2026-02-11T12:00:00Z", 300 * GIB, 0);
    world.usage.add(service, "2026-02-12T12:00:00Z", 100 * GIB, 0);
    let flag = async |day: &str| {
        let mut transaction = world.database.begin_write().await.unwrap();
        let span = (
            ms(&format!("2026-02-{day}T12:00:00Z")),
            ms(&format!("2026-02-{day}T12:30:00Z")),
        );
        let made = exclusion::exclude(&mut transaction, service, span, "flood", "ops", ms(MARCH))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        made.id
    };
    flag("11").await;
    let february = closed(&world, customer, MARCH).await.invoices.remove(0);
    assert_eq!(amounts(&february)[1], (LineKind::TransferOverage, 500));
    assert_eq!(
        february.lines[1].description,
        "web-1: transfer 1,100 GiB (in + out), 1,000 GiB included; 6 windows of attack traffic not counted (300 GiB)"
    );
    let checks = recompute(&world.database, &world.usage, february.invoice.id)
        .await
        .unwrap();
    assert!(checks.iter().all(|check| check.equal), "{checks:?}");

    // Flagged after the invoice, the rest is given back; taken back again, it is charged again.
    let later = flag("12").await;
    let march = closed(&world, customer, "2026-04-01T00:10:00Z")
        .await
        .invoices
        .remove(0);
    assert_eq!(amounts(&march)[2], (LineKind::Adjustment, -500));
    assert_eq!(
        march.lines[2].description,
        "web-1: correction of INV-2026-000001 after leaving attack traffic out: transfer 1,000 GiB (in + out), 1,000 GiB \
         included; 12 windows of attack traffic not counted (400 GiB)"
    );
    let checks = recompute(&world.database, &world.usage, march.invoice.id)
        .await
        .unwrap();
    assert!(checks.iter().all(|check| check.equal), "{checks:?}");
    let mut transaction = world.database.begin_write().await.unwrap();
    exclusion::revoke(&mut transaction, later, ms(MARCH)).await.unwrap();
    let error = exclusion::revoke(&mut transaction, schemas::ids::ExclusionId(9), 0)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "no exclusion exc_9");
    transaction.commit().await.unwrap();
    assert_books_are_right(&world).await;
}

#[tokio::test]
async fn b3_late_data_becomes_one_adjustment_on_the_next_invoice() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "10").await;
    let contract = world.subscribe(customer, started_in_february()).await;
    let service = contract.service.id;
    world.usage.add(service, "2026-02-10T00:00:00Z", 1100 * GIB, 0);
    let february = closed(&world, customer, MARCH).await.invoices.remove(0);

    // 40 GiB of February arrive in March.
    world.usage.add(service, "2026-02-20T00:00:00Z", 40 * GIB, 0);
    let checks = recompute(&world.database, &world.usage, february.invoice.id)
        .await
        .unwrap();
    assert!(!checks[0].equal);
    assert_eq!(
        (checks[0].invoiced_amount.minor, checks[0].recomputed_amount.minor),
        (500, 700)
    );
    assert!(checks[0].is_open(), "the next invoice adjusts it");
    assert_eq!(get(&world.database, february.invoice.id).await.unwrap(), february);

    let march = closed(&world, customer, "2026-04-01T00:10:00Z")
        .await
        .invoices
        .remove(0);
    assert_eq!(
        amounts(&march),
        [
            (LineKind::Base, 2000),
            (LineKind::TransferOverage, 0),
            (LineKind::Adjustment, 200)
        ]
    );
    let adjustment = &march.lines[2];
    assert_eq!(
        adjustment.description,
        "web-1: correction of INV-2026-000001 after late data: transfer 1,140 GiB (in + out), 1,000 GiB included"
    );
    assert_eq!(adjustment.period_start_ms, ms("2026-02-01T00:00:00Z"));
    let Evidence::Adjustment {
        charged_minor,
        due_minor,
        corrects_invoice,
        ..
    } = &adjustment.evidence
    else {
        panic!("{:?}", adjustment.evidence);
    };
    assert_eq!(
        (*charged_minor, *due_minor, *corrects_invoice),
        (500, 700, february.invoice.id)
    );
    assert_eq!(march.invoice.total.minor, 2420);
    // Before, the first line differed for good.
    let checks = recompute(&world.database, &world.usage, february.invoice.id)
        .await
        .unwrap();
    assert!(checks[0].is_adjusted && !checks[0].is_open(), "{checks:?}");
    let checks = recompute(&world.database, &world.usage, march.invoice.id)
        .await
        .unwrap();
    assert!(checks.iter().all(|check| check.equal), "{checks:?}");

    let april = closed(&world, customer, "2026-05-01T00:10:00Z")
        .await
        .invoices
        .remove(0);
    assert_eq!(
        amounts(&april),
        [(LineKind::Base, 2000), (LineKind::TransferOverage, 0)],
        "corrected once"
    );
    assert_books_are_right(&world).await;
}

#[tokio::test]
async fn an_adjustment_can_give_back_more_than_the_invoice_charges() {
    let mut world = World::new().await;
    let customer = world.customer("USD", "UTC", "19").await;
    let deal = Deal {
        base_minor: 0,
        ..started_in_february()
    };
    let contract = world.subscribe(customer, deal).await;
    world
        .usage
        .add(contract.service.id, "2026-02-10T00:00:00Z", 1100 * GIB, 0);
    closed(&world, customer, MARCH).await;
    world.usage = FakeUsage::default();
    let march = closed(&world, customer, "2026-04-01T00:10:00Z")
        .await
        .invoices
        .remove(0);
    assert_eq!(
        (march.invoice.kind, march.invoice.number.as_str()),
        (InvoiceKind::CreditNote, "CN-2026-000001")
    );
    assert_eq!(march.invoice.subtotal.minor, -500);
    assert_eq!((march.invoice.tax.minor, march.invoice.total.minor), (-95, -595));
    let february = march.invoice.corrects.expect("it corrects February's invoice");
    let february = get(&world.database, february).await.unwrap().invoice;
    assert_eq!(
        (february.status, february.outstanding().minor),
        (InvoiceStatus::Paid, 0)
    );
    assert_books_are_right(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn b3_of_concurrent_closers_one_wins_and_numbers_have_no_gaps() {
    let world = World::new().await;
    let mut customers = Vec::new();
    for _ in 0..3 {
        let customer = world.customer("USD", "UTC", "19").await;
        world.subscribe(customer, started_in_february()).await;
        customers.push(customer);
    }
    let world = Arc::new(world);
    let mut closers = Vec::new();
    for number in 0..8 {
        let (world, customers) = (Arc::clone(&world), customers.clone());
        closers.push(tokio::spawn(async move {
            if number % 2 == 0 {
                let closing = close_all(&world.database, &world.usage, ms(MARCH)).await.unwrap();
                assert!(closing.failed.is_empty(), "{:?}", closing.failed);
                return closing.invoices.len();
            }
            let mut made = 0;
            for customer in customers {
                made += closed(&world, customer, MARCH).await.invoices.len();
            }
            made
        }));
    }
    let mut made = 0;
    for closer in closers {
        made += closer.await.unwrap();
    }
    assert_eq!(made, 3);
    let mut numbers: Vec<String> = list_all(world.database.pool(), InvoiceFilter::default())
        .await
        .unwrap()
        .into_iter()
        .map(|invoice| invoice.number)
        .collect();
    numbers.sort();
    assert_eq!(numbers, ["INV-2026-000001", "INV-2026-000002", "INV-2026-000003"]);
    assert_books_are_right(&world).await;
}

#[tokio::test]
async fn a_preview_shows_the_current_period_and_writes_nothing() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "19").await;
    let contract = world.subscribe(customer, started_in_february()).await;
    world
        .usage
        .add(contract.service.id, "2026-02-10T00:00:00Z", 1100 * GIB, 0);
    world
        .usage
        .add(contract.service.id, "2026-03-02T00:00:00Z", 1020 * GIB, 0);
    let drafts = preview(&world.database, &world.usage, customer, ms("2026-03-10T00:00:00Z"))
        .await
        .unwrap();
    let totals: Vec<_> = drafts
        .iter()
        .map(|draft| {
            (
                draft.is_complete(),
                draft.subtotal.minor,
                draft.tax.minor,
                draft.total.minor,
            )
        })
        .collect();
    assert_eq!(totals, [(true, 2500, 475, 2975), (false, 2100, 399, 2499)]);
    assert_eq!(drafts[1].measured_to_ms, ms("2026-03-09T23:50:00Z"));
    assert_eq!(
        list_all(world.database.pool(), InvoiceFilter::default()).await.unwrap(),
        []
    );
    let nobody = preview(&world.database, &world.usage, CustomerId(9), 0)
        .await
        .unwrap_err();
    assert!(matches!(nobody, BillingError::Inventory(_)), "{nobody}");
}

#[tokio::test]
async fn a_customer_in_another_currency_fails_alone() {
    let world = World::new().await;
    let wrong = world.customer("USD", "UTC", "0").await;
    world.subscribe(wrong, started_in_february()).await;
    let right = world.customer("USD", "UTC", "0").await;
    world.subscribe(right, started_in_february()).await;
    sqlx::query("UPDATE customers SET currency = 'EUR' WHERE id = $1")
        .bind(wrong.0)
        .execute(world.database.pool())
        .await
        .unwrap();
    let error = close(&world.database, &world.usage, wrong, ms(MARCH))
        .await
        .unwrap_err();
    assert!(matches!(error, BillingError::CurrencyMismatch { .. }), "{error}");
    let closing = close_all(&world.database, &world.usage, ms(MARCH)).await.unwrap();
    let invoices = closing.read(&world.database).await.unwrap();
    assert_eq!(invoices.len(), 1);
    assert_eq!(invoices[0].invoice.customer, right);
    assert_eq!(closing.failed.len(), 1);
    assert_eq!(closing.failed[0].0, wrong);
}

#[tokio::test]
async fn b5_a_line_is_explained_by_days_that_sum_to_it() {
    let world = World::new().await;
    let customer = world.customer("USD", "Europe/Berlin", "0").await;
    let deal = Deal {
        started_at: "2026-02-28T23:00:00Z",
        ..DEAL
    };
    let contract = world.subscribe(customer, deal).await;
    for day in 1..=31 {
        let at = format!("2026-03-{day:02}T12:00:00Z");
        world.usage.add(contract.service.id, &at, 30 * GIB + day, 5 * GIB);
    }
    let made = closed(&world, customer, "2026-04-02T00:00:00Z")
        .await
        .invoices
        .remove(0);
    let explanation = explain(&world.database, &world.usage, made.lines[1].id).await.unwrap();
    assert_eq!(explanation.days.len(), 31);
    // Clocks go forward on 29 March.
    assert_eq!(explanation.days[28].windows, 276);
    let days_bytes: u64 = explanation.days.iter().map(|day| day.billed_bytes).sum();
    assert_eq!(days_bytes, explanation.measured.billed_bytes);
    assert_eq!(days_bytes, 31 * 35 * GIB + 496);
    assert_eq!(explanation.peers.len(), 1);
    let error = explain(&world.database, &world.usage, made.lines[0].id)
        .await
        .unwrap_err();
    assert!(matches!(error, BillingError::NoUsage(_)), "{error}");
}

#[tokio::test]
async fn s1_lists_and_reads_stay_with_their_customer() {
    let world = World::new().await;
    let mut customers = Vec::new();
    for _ in 0..2 {
        let customer = world.customer("USD", "UTC", "0").await;
        world.subscribe(customer, DEAL).await;
        customers.push(customer);
    }
    let closing = close_all(&world.database, &world.usage, ms(MARCH)).await.unwrap();
    assert_eq!(closing.invoices.len(), 4);
    let pool = world.database.pool();
    let own = list_of(pool, customers[0]).await.unwrap();
    assert_eq!(own.len(), 2);
    assert!(own.iter().all(|invoice| invoice.customer == customers[0]));
    assert!(get_of(&world.database, customers[0], own[0].id).await.is_ok());
    let error = get_of(&world.database, customers[1], own[0].id).await.unwrap_err();
    assert!(matches!(error, BillingError::NoInvoice(_)), "{error}");

    let own_line = get(&world.database, own[0].id).await.unwrap().lines[0].id;
    assert!(line_of(pool, customers[0], own_line).await.is_ok());
    let error = line_of(pool, customers[1], own_line).await.unwrap_err();
    assert!(matches!(error, BillingError::NoInvoiceLine(_)), "{error}");

    let page = InvoiceFilter {
        limit: Some(3),
        ..InvoiceFilter::default()
    };
    let first = list_all(pool, page).await.unwrap();
    let ids: Vec<_> = first.iter().map(|invoice| invoice.id.0).collect();
    assert_eq!(ids, [4, 3, 2], "newest first");
    let rest = InvoiceFilter {
        before: Some(first[2].id),
        status: Some(InvoiceStatus::Finalised),
        ..page
    };
    assert_eq!(list_all(pool, rest).await.unwrap().len(), 1);
    let past = InvoiceFilter {
        to_ms: Some(ms(MARCH)),
        ..InvoiceFilter::default()
    };
    assert_eq!(list_all(pool, past).await.unwrap(), []);
}

#[tokio::test]
async fn csv_has_exact_amounts_and_no_formulas() {
    let world = World::new().await;
    let customer = world.customer("USD", "Europe/Berlin", "19").await;
    world.subscribe(customer, DEAL).await;
    sqlx::query("UPDATE customers SET name = '=1+1, \"Ltd\"'")
        .execute(world.database.pool())
        .await
        .unwrap();
    closed(&world, customer, "2026-02-01T00:10:00Z").await;
    let invoices = list_of(world.database.pool(), customer).await.unwrap();
    assert_eq!(
        export_csv(&invoices).unwrap(),
        "kind,number,customer,customer_name,currency,period_start,period_end,issued_on,finalised_at,\
         due_on,status,subtotal,tax,total,settled,outstanding\n\
         invoice,INV-2026-000001,cus_1,\"'=1+1, \"\"Ltd\"\"\",USD,2026-01-01,2026-02-01,2026-02-01,\
         2026-02-01T00:10:00Z,2026-02-15,\
         finalised,20.00,3.80,23.80,0.00,23.80\n"
    );
    let owner = inventory::customer(world.database.pool(), customer).await.unwrap();
    assert_eq!(owner.name, "=1+1, \"Ltd\"");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Any mix of plans, prices, tax rates and usage: lines and tax sum to the total, the books agree, and every usage line
    /// comes out the same when it is recomputed.
    #[test]
    fn b1_b2_b5_hold_for_any_customer(
        tax_hundredths in 0u32..10_000,
        currency in prop::sample::select(vec!["USD", "JPY", "KWD"]),
        deals in proptest::collection::vec(
            (0u8..3, 0i64..100_000, 0u32..1_000_000, 1i64..32, 1u32..29, 0u64..5_000_000_000_000, 0u64..5_000_000_000_000),
            1..5,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            let tax_rate = Decimal::new(tax_hundredths.into(), 2).to_string();
            let customer = world.customer(currency, "America/New_York", &tax_rate).await;
            for (kind, base_minor, rate_millionths, anchor, day, bytes_in, bytes_out) in deals {
                let terms = match kind {
                    0 => Terms::Flat,
                    1 => Terms::Transfer { included_units: 1000, unit: QuotaUnit::Gb, mode: UsageMode::Max },
                    _ => Terms::Percentile { commit_mbps: Decimal::new(5, 1), mode: UsageMode::Sum },
                };
                let started_at = format!("2026-01-{day:02}T12:00:00Z");
                let rate_millionths = if kind == 0 { 0 } else { rate_millionths };
                let usage_rate = Decimal::new(rate_millionths.into(), 6).to_string();
                let deal = Deal {
                    terms,
                    base_minor,
                    usage_price: usage_rate.leak(),
                    anchor_day: Some(anchor),
                    started_at: started_at.leak(),
                    ..DEAL
                };
                let contract = world.subscribe(customer, deal).await;
                world.usage.add(contract.service.id, "2026-02-03T00:00:00Z", bytes_in, bytes_out);
            }
            let closing = closed(&world, customer, "2026-04-01T12:00:00Z").await;
            assert!(!closing.invoices.is_empty());
            for made in &closing.invoices {
                let lines: i64 = made.lines.iter().map(|line| line.amount.minor).sum();
                assert_eq!(lines, made.invoice.subtotal.minor, "B2");
                assert_eq!(lines + made.invoice.tax.minor, made.invoice.total.minor, "B2");
                // The tax is the nearest minor unit: twice its distance is at most one unit.
                let exact_hundredths = i128::from(lines) * i128::from(tax_hundredths);
                let distance = (exact_hundredths - i128::from(made.invoice.tax.minor) * 10_000).abs();
                assert!(distance * 2 <= 10_000, "B2");
                let checks = recompute(&world.database, &world.usage, made.invoice.id).await.unwrap();
                assert!(checks.iter().all(|check| check.equal), "B5: {checks:?}");
            }
            assert_books_are_right(&world).await;
        });
    }
}

/// Every fact that docs/events.md promises of what happened, by the event's type.
async fn facts_of(world: &World, event_type: &str) -> Vec<serde_json::Value> {
    use sqlx::Row as _;
    let rows = sqlx::query("SELECT payload FROM events WHERE event_type = $1 ORDER BY id")
        .bind(event_type)
        .fetch_all(world.database.pool())
        .await
        .unwrap();
    let facts = rows
        .iter()
        .map(|row| serde_json::from_str(&row.get::<String, _>(0)).unwrap());
    facts.collect()
}

#[tokio::test]
async fn events_of_a_customer_s_month_carry_the_facts_that_are_promised() {
    let world = World::new().await;
    let customer = world.customer("USD", "UTC", "0").await;
    let contract = world.subscribe(customer, DEAL).await;
    let now_ms = ms("2026-02-01T00:10:00Z");
    close(&world.database, &world.usage, customer, now_ms).await.unwrap();
    let invoice = list_of(world.database.pool(), customer).await.unwrap()[0].clone();
    let mut transaction = world.database.begin_write().await.unwrap();
    credit(&mut transaction, invoice.id, Credited::Whole, "goodwill", now_ms)
        .await
        .unwrap();
    let id = contract.subscription.id;
    crate::subscription::change::cancel(
        &mut transaction,
        id,
        crate::subscription::change::CancellationTime::Now,
        "moves",
        "x",
        now_ms,
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();

    let created = &facts_of(&world, "subscription.created").await[0];
    assert_eq!(created["service"], contract.service.id.to_string(), "{created}");
    assert_eq!(created["service_name"], "web-1");
    assert_eq!(
        (&created["plan_name"], &created["subscription"]),
        (&"VPS Pro".into(), &id.to_string().into())
    );
    let issued = &facts_of(&world, "invoice.finalised").await[0];
    assert_eq!(issued["invoice"], invoice.id.to_string());
    assert_eq!(issued["amount_minor"], invoice.total.minor);
    let note = &facts_of(&world, "credit_note.issued").await[0];
    assert_eq!(note["invoice_number"], invoice.number, "{note}");
    assert_eq!(note["amount_minor"], -invoice.total.minor);
    assert_eq!(
        facts_of(&world, "invoice.paid").await[0]["amount_minor"],
        invoice.total.minor
    );
    let ended = &facts_of(&world, "subscription.ended").await[0];
    assert_eq!(
        (&ended["service_name"], &ended["at_ms"]),
        (&"web-1".into(), &ended["ended_at_ms"])
    );
    let removed = &facts_of(&world, "service.terminate_requested").await[0];
    assert_eq!(removed["service"], contract.service.id.to_string(), "{removed}");
}
