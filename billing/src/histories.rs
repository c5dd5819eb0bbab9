//! Random histories: signups, changes, cancellations, usage, late usage, payments, chargebacks, credit notes, write-offs,
//! days going by, and crashes in the middle of closing. After every step the books are right (B1 to B4), and the same
//! history without the crashes gives the same books.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{Timestamp, ToSpan as _};
use proptest::prelude::*;
use schemas::db::Database;
use schemas::ids::{CustomerId, InvoiceId, SubscriptionId};
use schemas::money::{Currency, Money};
use sqlx::Row as _;

use crate::catalog::{self, BaseTiming, NewPlan, NewPrice, Price, QuotaUnit, Terms};
use crate::invoice::{self, Credited, InvoiceFilter, InvoiceKind, Rebill};
use crate::payment::{Transfer, record_transfer};
use crate::subscription::change::{self, Change, End};
use crate::subscription::{NewSubscription, State, subscribe, subscription, subscriptions};
use crate::testing::{LATENESS_MS, World};
use crate::{ledger, lifecycle, settlement};

/// Something that happens. Numbers choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    SignUp {
        customer: usize,
        price: usize,
        quantity: i64,
    },
    Change {
        subscription: usize,
        price: usize,
        quantity: i64,
    },
    /// Now, with the cycle, or so many days ahead.
    Cancel {
        subscription: usize,
        end: i64,
    },
    Resume {
        subscription: usize,
    },
    Use {
        subscription: usize,
        gib: u64,
        days_ago: i64,
    },
    Days {
        count: i64,
        crash_after_us: Option<u64>,
    },
    Pay {
        invoice: usize,
        permille: i64,
    },
    Credit {
        invoice: usize,
        permille: i64,
    },
    Void {
        invoice: usize,
        rebill: bool,
    },
    WriteOff {
        invoice: usize,
    },
    Grant {
        customer: usize,
        minor: i64,
    },
    Item {
        customer: usize,
        minor: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let which = || 0usize..64;
    prop_oneof![
        3 => (which(), which(), 1i64..4).prop_map(|(customer, price, quantity)| Step::SignUp { customer, price, quantity }),
        3 => (which(), which(), 1i64..4).prop_map(|(subscription, price, quantity)| Step::Change { subscription, price, quantity }),
        1 => (which(), 0i64..40).prop_map(|(subscription, end)| Step::Cancel { subscription, end }),
        1 => which().prop_map(|subscription| Step::Resume { subscription }),
        3 => (which(), 0u64..3000, 0i64..40).prop_map(|(subscription, gib, days_ago)| Step::Use { subscription, gib, days_ago }),
        6 => (1i64..45, prop::option::of(0u64..20_000)).prop_map(|(count, crash_after_us)| Step::Days { count, crash_after_us }),
        3 => (which(), 1i64..1500).prop_map(|(invoice, permille)| Step::Pay { invoice, permille }),
        1 => (which(), 1i64..1200).prop_map(|(invoice, permille)| Step::Credit { invoice, permille }),
        1 => (which(), any::<bool>()).prop_map(|(invoice, rebill)| Step::Void { invoice, rebill }),
        1 => which().prop_map(|invoice| Step::WriteOff { invoice }),
        1 => (which(), 1i64..10_000).prop_map(|(customer, minor)| Step::Grant { customer, minor }),
        1 => (which(), -5_000i64..5_000).prop_map(|(customer, minor)| Step::Item { customer, minor }),
    ]
}

/// A world in which a history happens.
struct Play {
    world: World,
    customers: Vec<CustomerId>,
    prices: Vec<Price>,
    now: Timestamp,
    count: u64,
    crashes: bool,
}

/// What the books say in the end: balances, and each document with its total and what is open of it.
#[derive(PartialEq, Eq, Debug)]
struct Books {
    balances: BTreeMap<String, i64>,
    documents: Vec<(String, InvoiceKind, i64, i64, String)>,
}

impl Play {
    async fn new(world: World, crashes: bool) -> Play {
        let mut customers = Vec::new();
        for (zone, tax) in [
            ("Europe/Berlin", "19"),
            ("America/New_York", "0"),
            ("Asia/Tokyo", "8.875"),
        ] {
            customers.push(world.customer("EUR", zone, tax).await);
        }
        sqlx::query("UPDATE customers SET prices_include_tax = 1 WHERE id = 1")
            .execute(world.database.pool())
            .await
            .unwrap();
        let mut prices = Vec::new();
        let mut transaction = world.database.begin_write().await.unwrap();
        let transfer = Terms::Transfer {
            included_units: 1000,
            unit: QuotaUnit::Gib,
            mode: analytics::UsageMode::Sum,
        };
        for (terms, timing, months, base_minor, usage) in [
            (Terms::Flat, BaseTiming::Advance, 1, 1000, "0"),
            (Terms::Flat, BaseTiming::Advance, 12, 9999, "0"),
            (transfer, BaseTiming::Advance, 1, 2999, "0.013"),
            (transfer, BaseTiming::Advance, 3, 8547, "graduated:100=0.02,*=0.01"),
            (transfer, BaseTiming::Arrears, 1, 777, "package:100=1.23"),
            (Terms::Flat, BaseTiming::Arrears, 1, 333, "0"),
        ] {
            let new = NewPlan {
                base_timing: timing,
                ..NewPlan::new("plan", "vps", terms)
            };
            let plan = catalog::create_plan(&mut transaction, new, 0).await.unwrap();
            let new = NewPrice {
                plan: plan.id,
                cycle_months: months,
                base: Money::new(base_minor, Currency::EUR),
                usage: usage.parse().unwrap(),
                valid_from_ms: 0,
            };
            prices.push(catalog::add_price(&mut transaction, new).await.unwrap());
        }
        transaction.commit().await.unwrap();
        Play {
            world,
            customers,
            prices,
            now: "2024-01-15T09:30:00Z".parse().unwrap(),
            count: 0,
            crashes,
        }
    }

    fn now_ms(&self) -> i64 {
        self.now.as_millisecond()
    }

    async fn pick(&self, subscription: usize) -> Option<(SubscriptionId, State, schemas::ids::ServiceId)> {
        let all = subscriptions(self.world.database.pool()).await.unwrap();
        let chosen = all.get(subscription % all.len().max(1))?;
        Some((chosen.id, chosen.state, chosen.service))
    }

    async fn pick_invoice(&self, invoice: usize) -> Option<invoice::Invoice> {
        let all = invoice::list_all(self.world.database.pool(), InvoiceFilter::default())
            .await
            .unwrap();
        all.get(invoice % all.len().max(1)).cloned()
    }

    /// Makes a step. What the rules refuse does not happen; nothing else may go wrong.
    async fn make(&mut self, step: &Step) {
        self.count += 1;
        let now_ms = self.now_ms();
        match step {
            Step::Days { count, crash_after_us } => return self.days(*count, *crash_after_us).await,
            Step::Use {
                subscription,
                gib,
                days_ago,
            } => {
                if let Some((_, _, service)) = self.pick(*subscription).await {
                    let at = self.now - (24 * days_ago).hours();
                    self.world.usage.add(service, &at.to_string(), gib << 30, 0);
                }
                return;
            }
            Step::Pay { invoice, permille } => {
                let Some(found) = self.pick_invoice(*invoice).await else {
                    return;
                };
                let minor = found.total.minor.saturating_mul(*permille) / 1000;
                let transfer = Transfer {
                    customer: found.customer,
                    invoice: (found.kind == InvoiceKind::Invoice).then_some(found.id),
                    amount: Money::new(minor, found.currency),
                    reference: &format!("transfer {}", self.count),
                    note: "",
                    value_date: None,
                };
                // What is not open, or not more than zero, is refused.
                let _ = record_transfer(&self.world.database, &transfer, now_ms).await;
                return;
            }
            _ => {}
        }
        let database = &self.world.database;
        let mut transaction = database.begin_write().await.unwrap();
        let done = match *step {
            Step::SignUp {
                customer,
                price,
                quantity,
            } => {
                drop(transaction);
                let customer = self.customers[customer % self.customers.len()];
                let service = self.world.service(customer, "web").await;
                transaction = database.begin_write().await.unwrap();
                let new = NewSubscription {
                    quantity,
                    ..NewSubscription::new(service.id, self.prices[price % self.prices.len()].id, now_ms)
                };
                subscribe(&mut transaction, new, "test", now_ms).await.map(drop)
            }
            Step::Change {
                subscription,
                price,
                quantity,
            } => match self.pick(subscription).await {
                Some((id, _, _)) => {
                    let price = self.prices[price % self.prices.len()].id;
                    change::change(&mut transaction, id, Change { price, quantity }, now_ms, "test", now_ms).await
                }
                None => Ok(()),
            },
            Step::Cancel { subscription, end } => match self.pick(subscription).await {
                Some((id, _, _)) => {
                    let zone = subscription_zone(database, id).await;
                    let today = self.now.to_zoned(zone).date();
                    let end = match end {
                        0 => End::Now,
                        1 => End::CycleEnd,
                        days => End::On(today + days.days()),
                    };
                    change::cancel(&mut transaction, id, end, "test", "test", now_ms).await
                }
                None => Ok(()),
            },
            Step::Resume { subscription } => match self.pick(subscription).await {
                Some((id, _, _)) => change::resume(&mut transaction, id, "test", now_ms).await,
                None => Ok(()),
            },
            Step::Credit { invoice, permille } => match self.pick_invoice(invoice).await {
                Some(found) => {
                    let minor = found.total.minor.saturating_mul(permille) / 1000;
                    let what = Credited::Amount(Money::new(minor, found.currency));
                    invoice::credit(&mut transaction, found.id, what, "test", now_ms)
                        .await
                        .map(drop)
                }
                None => Ok(()),
            },
            Step::Void { invoice, rebill } => match self.pick_invoice(invoice).await {
                Some(found) => {
                    let rebill = if rebill { Rebill::Yes } else { Rebill::No };
                    invoice::void(&mut transaction, found.id, rebill, "test", now_ms)
                        .await
                        .map(drop)
                }
                None => Ok(()),
            },
            Step::WriteOff { invoice } => match self.pick_invoice(invoice).await {
                Some(found) if found.kind == InvoiceKind::Invoice => {
                    settlement::write_off(&mut transaction, found.id, "test", now_ms)
                        .await
                        .unwrap();
                    Ok(())
                }
                _ => Ok(()),
            },
            Step::Grant { customer, minor } => {
                let customer = self.customers[customer % self.customers.len()];
                let (amount, cause) = (Money::new(minor, Currency::EUR), self.count.to_string());
                settlement::grant_credit(&mut transaction, customer, amount, &cause, "test", now_ms)
                    .await
                    .unwrap();
                Ok(())
            }
            Step::Item { customer, minor } => {
                let customer = self.customers[customer % self.customers.len()];
                let amount = Money::new(minor, Currency::EUR);
                invoice::add_item(&mut transaction, customer, None, "item", amount, "test", now_ms)
                    .await
                    .map(drop)
            }
            Step::Days { .. } | Step::Use { .. } | Step::Pay { .. } => unreachable!("made above"),
        };
        match done {
            Ok(()) => transaction.commit().await.unwrap(),
            // Refused: nothing of it happened.
            Err(_) => transaction.rollback().await.unwrap(),
        }
    }

    /// Days go by, and everything that is due is done; perhaps after a crash in the middle of it.
    async fn days(&mut self, count: i64, crash_after_us: Option<u64>) {
        self.now += (24 * count).hours();
        let at_ms = self.now_ms() + LATENESS_MS;
        if let Some(us) = crash_after_us.filter(|_| self.crashes) {
            let work = async {
                lifecycle::advance(&self.world.database, at_ms).await.unwrap();
                invoice::close_all(&self.world.database, &self.world.usage, at_ms)
                    .await
                    .unwrap();
            };
            // Dropped wherever it is: what was not committed did not happen.
            let _ = tokio::time::timeout(Duration::from_micros(us), work).await;
        }
        let done = lifecycle::advance(&self.world.database, at_ms).await.unwrap();
        assert!(done.failed.is_empty(), "{:?}", done.failed);
        let closing = invoice::close_all(&self.world.database, &self.world.usage, at_ms)
            .await
            .unwrap();
        assert!(closing.failed.is_empty(), "{:?}", closing.failed);
        let again = invoice::close_all(&self.world.database, &self.world.usage, at_ms)
            .await
            .unwrap();
        assert!(again.invoices.is_empty(), "B3: closing again finds nothing");
        let told = crate::event::dispatch(&self.world.database, at_ms).await.unwrap();
        let made = u64::try_from(closing.invoices.len()).unwrap();
        assert!(
            told.events >= made && told.mails >= made,
            "{told:?} of {made} documents"
        );
    }

    async fn assert_right(&self) {
        let report = ledger::check(&self.world.database).await.unwrap();
        assert!(report.is_clean(), "{:?}", report.violations);
        for trial in ledger::trial_balance(self.world.database.pool()).await.unwrap() {
            assert!(trial.is_balanced(), "{trial:?}");
        }
        // B3: no day of a phase is charged twice. What was given back is not charged any more.
        let rows = sqlx::query(
            "SELECT phase_id, kind, start_date, end_date FROM charged WHERE kind <> 'unused' ORDER BY phase_id, kind, start_date",
        )
        .fetch_all(self.world.database.pool())
        .await
        .unwrap();
        let mut last: Option<(i64, String, String)> = None;
        for row in rows {
            let (phase, kind): (i64, String) = (row.get(0), row.get(1));
            let (start, end): (String, String) = (row.get(2), row.get(3));
            if let Some((last_phase, last_kind, last_end)) = &last
                && (*last_phase, last_kind) == (phase, &kind)
            {
                assert!(
                    *last_end <= start,
                    "B3: {kind} of phs_{phase} is charged twice from {start} on"
                );
            }
            last = Some((phase, kind, end));
        }
    }

    async fn books(&self) -> Books {
        let pool = self.world.database.pool();
        let balances = ledger::balances(pool).await.unwrap();
        let mut documents = Vec::new();
        let mut before: Option<InvoiceId> = None;
        loop {
            let filter = InvoiceFilter {
                before,
                ..InvoiceFilter::default()
            };
            let page = invoice::list_all(pool, filter).await.unwrap();
            let Some(last) = page.last() else { break };
            before = Some(last.id);
            for found in &page {
                let status = found.status.name().to_owned();
                documents.push((
                    found.number.clone(),
                    found.kind,
                    found.total.minor,
                    found.outstanding().minor,
                    status,
                ));
            }
        }
        let balances = balances
            .into_iter()
            .map(|balance| (balance.account.name, balance.balance.minor));
        Books {
            balances: balances.collect(),
            documents,
        }
    }
}

async fn subscription_zone(database: &Database, id: SubscriptionId) -> jiff::tz::TimeZone {
    subscription(database.pool(), id).await.unwrap().time_zone
}

async fn play(world: World, steps: &[Step], crashes: bool) -> Books {
    let mut play = Play::new(world, crashes).await;
    for step in steps {
        play.make(step).await;
        play.assert_right().await;
    }
    play.books().await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn b1_b2_b3_b4_hold_in_any_history_and_a_replay_gives_the_same_books(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let crashed = play(World::new().await, &steps, true).await;
            let straight = play(World::new().await, &steps, false).await;
            assert_eq!(crashed, straight, "a crash changes nothing");
        });
    }
}

proptest! {
    // Each has a PostgreSQL of its own.
    #![proptest_config(ProptestConfig { cases: cases() / 6, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn a_history_gives_the_same_books_on_sqlite_and_postgresql(steps in prop::collection::vec(step(), 20..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let postgres = play(World::on_postgres().await, &steps, true).await;
            let sqlite = play(World::new().await, &steps, false).await;
            assert_eq!(postgres, sqlite);
        });
    }
}

/// Histories in one run; `EZSCALE_HISTORIES` asks for more.
fn cases() -> u32 {
    std::env::var("EZSCALE_HISTORIES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(24)
}
