//! Histories as they happen: each step is made with the product, and told to the model.

use std::time::Duration;

use jiff::{Timestamp, ToSpan as _};
use schemas::ids::{CustomerId, InvoiceId, PriceId, ServiceId, SubscriptionId};
use schemas::money::{Currency, Money};
use schemas::window::{HOUR_MS, WINDOW_MS, WindowStart};
use sqlx::{AnyConnection, Row as _};

use super::compare::{assert_right, assert_same, books};
use super::ground::{
    COUPONS, FIRST_ADDON, OFFERS, PLACES, RATES, coupon_code, model, percent_text, pools_usage, taxed,
};
use super::step::Step;
use crate::invoice::{self, Credited, Rebill};
use crate::model::{Books, CancellationTime as ModelEnd, Model, Taxed};
use crate::payment::{Transfer, record_transfer};
use crate::subscription::change::{self, CancellationTime, Change};
use crate::subscription::{NewSubscription, subscribe, subscription, transfer};
use crate::tax::{self, NewTaxRate};
use crate::testing::{LATENESS_MS, World};
use crate::{BillingError, exclusion, lifecycle, settlement};

/// A world in which a history happens.
pub(super) struct Play {
    world: World,
    model: Model,
    now: Timestamp,
    count: u64,
    crashes: bool,
    /// As they were compared last.
    books: Books,
    /// How customers are taxed.
    taxed: Vec<Taxed>,
    /// Whose usage is pooled.
    pooled: Vec<bool>,
    /// What was flagged and is still: exclusion, service, from, to.
    flags: Vec<(schemas::ids::ExclusionId, ServiceId, i64, i64)>,
}

/// A document that a step is about.
#[derive(Clone, Copy)]
struct PickedDocument {
    at: usize,
    customer: usize,
    is_note: bool,
    total: i64,
}

impl PickedDocument {
    fn id(self) -> InvoiceId {
        InvoiceId(i64::try_from(self.at).unwrap() + 1)
    }
}

fn customer_id(at: usize) -> CustomerId {
    CustomerId(i64::try_from(at).unwrap() + 1)
}

fn price_id(at: usize) -> PriceId {
    PriceId(i64::try_from(at).unwrap() + 1)
}

fn subscription_id(at: usize) -> SubscriptionId {
    SubscriptionId(i64::try_from(at).unwrap() + 1)
}

/// A plan's offer, not an add-on's.
fn plan_offer(offer: usize) -> usize {
    offer % FIRST_ADDON
}

fn addon_offer(offer: usize) -> usize {
    FIRST_ADDON + offer % (OFFERS.len() - FIRST_ADDON)
}

impl Play {
    pub(super) fn new(world: World, crashes: bool) -> Play {
        let model = model();
        Play {
            world,
            taxed: (0..model.customers()).map(taxed).collect(),
            pooled: (0..model.customers()).map(pools_usage).collect(),
            model,
            now: "2024-01-15T09:30:00Z".parse().unwrap(),
            count: 0,
            crashes,
            books: Books::default(),
            flags: Vec::new(),
        }
    }

    pub(super) fn into_world(self) -> World {
        self.world
    }

    fn now_ms(&self) -> i64 {
        self.now.as_millisecond()
    }

    fn ago_ms(&self, hours: i64) -> i64 {
        WindowStart::containing(self.now_ms() - hours * HOUR_MS).start_ms()
    }

    async fn count_of(&self, sql: &'static str) -> usize {
        let row = sqlx::query(sql).fetch_one(self.world.database.pool()).await.unwrap();
        usize::try_from(row.get::<i64, _>(0)).unwrap()
    }

    /// A subscription, with its service.
    async fn pick(&self, choice: usize) -> Option<(usize, ServiceId)> {
        let count = self.count_of("SELECT count(*) FROM subscriptions").await;
        let at = choice.checked_rem(count)?;
        let row = sqlx::query("SELECT service_id FROM subscriptions WHERE id = $1")
            .bind(subscription_id(at).0)
            .fetch_one(self.world.database.pool())
            .await
            .unwrap();
        Some((at, ServiceId(row.get(0))))
    }

    /// A document; small choices are new ones.
    async fn pick_document(&self, choice: usize) -> Option<PickedDocument> {
        let count = self.count_of("SELECT count(*) FROM invoices").await;
        let at = count.checked_sub(1)? - choice % count;
        let row = sqlx::query("SELECT customer_id, kind, total_minor FROM invoices WHERE id = $1")
            .bind(i64::try_from(at).unwrap() + 1)
            .fetch_one(self.world.database.pool())
            .await
            .unwrap();
        Some(PickedDocument {
            at,
            customer: usize::try_from(row.get::<i64, _>(0)).unwrap() - 1,
            is_note: row.get::<String, _>(1) == "credit_note",
            total: row.get(2),
        })
    }

    /// Makes a step. What the rules refuse does not happen; nothing else may go wrong.
    pub(super) async fn make(&mut self, step: &Step) {
        self.count += 1;
        let now_ms = self.now_ms();
        match *step {
            Step::Days {
                count,
                minutes,
                crash_after_us,
            } => {
                self.now += (24 * 60 * count + minutes).minutes();
                self.close(crash_after_us).await;
            }
            Step::Use {
                subscription,
                mib,
                windows,
                hours_ago,
            } => {
                let Some((_, service)) = self.pick(subscription).await else {
                    return;
                };
                let first_ms = self.ago_ms(hours_ago);
                for window in 0..windows {
                    let at_ms = first_ms + window * WINDOW_MS;
                    // Each a little more than the one before.
                    let (bytes_in, bytes_out) = ((mib.0 << 20) + window.unsigned_abs(), mib.1 << 20);
                    self.world.usage.add_at(service, at_ms, bytes_in, bytes_out);
                    self.model.add_traffic(service.number(), at_ms, (bytes_in, bytes_out));
                }
            }
            Step::Silence { hours_ago, hours } => {
                let from_ms = self.ago_ms(hours_ago);
                let to_ms = from_ms + hours * HOUR_MS;
                self.world.usage.silence_between(from_ms, to_ms);
                self.model.silence(from_ms, to_ms);
            }
            Step::Pay { document, permille } => self.pay(document, permille).await,
            Step::SignUp {
                customer,
                offer,
                quantity,
                coupon,
            } => self.sign_up(customer, offer, quantity, coupon).await,
            Step::Alike { subscription, quantity } => self.sign_up_alike(subscription, quantity).await,
            _ => self.make_in_transaction(step, now_ms).await,
        }
    }

    async fn pay(&mut self, document: usize, permille: i64) {
        let Some(found) = self.pick_document(document).await else {
            return;
        };
        let cents = found.total.saturating_mul(permille) / 1000;
        let transfer = Transfer {
            customer: customer_id(found.customer),
            invoice: (!found.is_note).then_some(found.id()),
            amount: euros(cents),
            reference: &format!("transfer {}", self.count),
            note: "",
            value_date: None,
        };
        let done = record_transfer(&self.world.database, &transfer, self.now_ms()).await;
        assert_eq!(done.is_ok(), cents > 0, "{done:?}");
        if cents > 0 {
            let invoice = (!found.is_note).then_some(found.at);
            self.model.pay(found.customer, invoice, cents);
        }
    }

    async fn sign_up(&mut self, customer: usize, offer: usize, quantity: i64, coupon: Option<usize>) {
        let customer = customer % self.taxed.len();
        let offer = plan_offer(offer);
        let coupon = coupon.map(|coupon| coupon % COUPONS.len());
        let code = coupon.map(coupon_code);
        let service = self.world.service(customer_id(customer), "web").await;
        let now_ms = self.now_ms();
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let new = NewSubscription {
            quantity,
            coupon: code.as_deref(),
            ..NewSubscription::new(service.id, price_id(offer), now_ms)
        };
        if subscribe(&mut transaction, new, "test", now_ms).await.is_ok() {
            transaction.commit().await.unwrap();
            let whose = (customer, service.id.number());
            self.model.subscribe(whose, (offer, quantity), coupon, None, now_ms);
        }
    }

    /// Another service of who has one, on its terms. An add-on alone is refused.
    async fn sign_up_alike(&mut self, choice: usize, quantity: i64) {
        let Some((other, _)) = self.pick(choice).await else {
            return;
        };
        let mut connection = self.world.database.pool().acquire().await.unwrap();
        let contract = crate::subscription::contract(&mut connection, subscription_id(other))
            .await
            .unwrap();
        drop(connection);
        let (customer, last) = (contract.subscription.customer, contract.last_phase());
        let offer = usize::try_from(last.price.id.0).unwrap() - 1;
        let service = self.world.service(customer, "web").await;
        let now_ms = self.now_ms();
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let new = NewSubscription {
            quantity,
            anchor_day: Some(last.anchor.get()),
            ..NewSubscription::new(service.id, last.price.id, now_ms)
        };
        if subscribe(&mut transaction, new, "test", now_ms).await.is_ok() {
            transaction.commit().await.unwrap();
            let whose = (usize::try_from(customer.0).unwrap() - 1, service.id.number());
            self.model.subscribe_alike(other, whose, (offer, quantity), now_ms);
        }
    }

    async fn make_in_transaction(&mut self, step: &Step, now_ms: i64) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let done = self.try_to_make(&mut transaction, step, now_ms).await;
        match done {
            Ok(()) => transaction.commit().await.unwrap(),
            // Refused: nothing of it happened.
            Err(_) => transaction.rollback().await.unwrap(),
        }
    }

    /// Makes a step with the product, and if that did not refuse it with the model.
    async fn try_to_make(
        &mut self,
        connection: &mut AnyConnection,
        step: &Step,
        now_ms: i64,
    ) -> Result<(), BillingError> {
        match *step {
            Step::Addon {
                subscription,
                offer,
                quantity,
            } => {
                let Some((parent, service)) = self.pick(subscription).await else {
                    return Ok(());
                };
                let offer = addon_offer(offer);
                let new = NewSubscription {
                    quantity,
                    parent: Some(subscription_id(parent)),
                    ..NewSubscription::new(service, price_id(offer), now_ms)
                };
                let made = subscribe(connection, new, "test", now_ms).await?;
                let whose = (usize::try_from(made.customer.0).unwrap() - 1, service.number());
                self.model
                    .subscribe(whose, (offer, quantity), None, Some(parent), now_ms);
            }
            Step::Change {
                subscription,
                offer,
                quantity,
            } => {
                let Some((at, _)) = self.pick(subscription).await else {
                    return Ok(());
                };
                let id = subscription_id(at);
                let is_addon = crate::subscription::contract(connection, id)
                    .await?
                    .subscription
                    .parent
                    .is_some();
                let offer = if is_addon {
                    addon_offer(offer)
                } else {
                    plan_offer(offer)
                };
                let price = price_id(offer);
                change::change(connection, id, Change { price, quantity }, now_ms, "test", now_ms).await?;
                self.model.change(at, offer, quantity, now_ms);
            }
            Step::Cancel {
                subscription: choice,
                end,
            } => {
                let Some((at, _)) = self.pick(choice).await else {
                    return Ok(());
                };
                let id = subscription_id(at);
                let zone = subscription(&mut *connection, id).await?.time_zone;
                let today = self.now.to_zoned(zone).date();
                let (end, model_end) = match end {
                    0 => (CancellationTime::Now, ModelEnd::Now),
                    1 => (CancellationTime::CycleEnd, ModelEnd::Cycle),
                    days => {
                        let date = today + (days - 2).days();
                        (CancellationTime::On(date), ModelEnd::On(date))
                    }
                };
                change::cancel(connection, id, end, "test", "test", now_ms).await?;
                self.model.cancel(at, model_end, now_ms);
            }
            Step::Resume { subscription } => {
                let Some((at, _)) = self.pick(subscription).await else {
                    return Ok(());
                };
                change::resume(connection, subscription_id(at), "test", now_ms).await?;
                self.model.resume(at);
            }
            Step::Transfer { subscription, customer } => {
                let Some((_, service)) = self.pick(subscription).await else {
                    return Ok(());
                };
                let to = customer % self.taxed.len();
                let id = transfer::request(connection, service, customer_id(to), "ticket", now_ms).await?;
                transfer::approve(connection, id, "test", now_ms).await?;
                transfer::complete(connection, id, "test", now_ms).await?;
                self.model.transfer(service.number(), to, now_ms);
            }
            Step::Flag {
                subscription,
                hours_ago,
                hours,
            } => {
                let Some((_, service)) = self.pick(subscription).await else {
                    return Ok(());
                };
                let from_ms = self.ago_ms(hours_ago);
                let time = (from_ms, from_ms + hours * HOUR_MS);
                let made = exclusion::exclude(connection, service, time, "attack", "test", now_ms).await?;
                self.model.flag(service.number(), time.0, time.1);
                self.flags.push((made.id, service, time.0, time.1));
            }
            Step::Unflag { flag } => {
                let Some(at) = flag.checked_rem(self.flags.len()) else {
                    return Ok(());
                };
                let (id, service, from_ms, to_ms) = self.flags[at];
                exclusion::revoke(connection, id, now_ms).await?;
                self.flags.remove(at);
                self.model.unflag(service.number(), from_ms, to_ms);
            }
            Step::Credit { document, permille } => {
                let Some(found) = self.pick_document(document).await else {
                    return Ok(());
                };
                let cents = (permille <= 1000).then(|| found.total.saturating_mul(permille) / 1000);
                let what = cents.map_or(Credited::Whole, |cents| Credited::Amount(euros(cents)));
                let done = invoice::credit(connection, found.id(), what, "test", now_ms).await;
                let expected = self.model.can_credit(found.at, cents);
                assert_eq!(
                    done.is_ok(),
                    expected,
                    "credit {cents:?} of document {}: {done:?}",
                    found.at + 1
                );
                done?;
                self.model.credit(found.at, cents, now_ms);
            }
            Step::Void { document, rebill } => {
                let Some(found) = self.pick_document(document).await else {
                    return Ok(());
                };
                let how = if rebill { Rebill::Yes } else { Rebill::No };
                invoice::void(connection, found.id(), how, "test", now_ms).await?;
                self.model.void(found.at, rebill, now_ms);
            }
            Step::VoidUnused { document, rebill } => {
                let rows = sqlx::query(
                    "SELECT DISTINCT i.id FROM invoices i JOIN invoice_lines l ON l.invoice_id = i.id \
                     WHERE i.kind = 'invoice' AND i.status = 'finalised' AND l.kind = 'unused' ORDER BY i.id DESC",
                );
                let rows = rows.fetch_all(&mut *connection).await?;
                let Some(choice) = document.checked_rem(rows.len()) else {
                    return Ok(());
                };
                let id: i64 = rows[choice].get(0);
                let how = if rebill { Rebill::Yes } else { Rebill::No };
                invoice::void(connection, InvoiceId(id), how, "test", now_ms).await?;
                self.model.void(usize::try_from(id).unwrap() - 1, rebill, now_ms);
            }
            Step::WriteOff { document } => {
                let Some(found) = self.pick_document(document).await.filter(|found| !found.is_note) else {
                    return Ok(());
                };
                settlement::write_off(connection, found.id(), "test", now_ms)
                    .await
                    .unwrap();
                self.model.write_off(found.at);
            }
            Step::Grant { customer, minor } => {
                let customer = customer % self.taxed.len();
                let (id, cause) = (customer_id(customer), self.count.to_string());
                settlement::grant_credit(connection, id, euros(minor), &cause, "test", now_ms)
                    .await
                    .unwrap();
                self.model.grant(customer, minor);
            }
            Step::Item { customer, minor } => {
                let customer = customer % self.taxed.len();
                let id = customer_id(customer);
                invoice::add_item(connection, id, None, "item", euros(minor), "test", now_ms).await?;
                self.model.add_item(customer, minor, now_ms);
            }
            Step::PlaceRate { place, rate } => {
                let (country, region, name, _) = PLACES[place % PLACES.len()];
                let rate = RATES[rate % RATES.len()];
                let mut held = tax::rates(&mut *connection).await?.into_iter();
                let held =
                    held.rfind(|held| held.country == country && held.name == name && held.valid_to_ms.is_none());
                tax::end_rate(connection, held.unwrap().id, now_ms, now_ms).await?;
                let new = NewTaxRate {
                    country,
                    region,
                    name,
                    rate_percent: rust_decimal::Decimal::new(rate, 3),
                    valid_from_ms: now_ms,
                    valid_to_ms: None,
                };
                tax::add_rate(connection, new, now_ms).await?;
                self.model.change_place_rate(country, name, rate, now_ms);
            }
            Step::Taxed { customer, how } => self.tax_otherwise(connection, customer, how).await,
            Step::Pool { customer } => {
                let customer = customer % self.pooled.len();
                self.pooled[customer] = !self.pooled[customer];
                sqlx::query("UPDATE customers SET pools_usage = $1 WHERE id = $2")
                    .bind(i64::from(self.pooled[customer]))
                    .bind(customer_id(customer).0)
                    .execute(connection)
                    .await?;
                self.model.change_pooling(customer, self.pooled[customer]);
            }
            Step::Days { .. }
            | Step::Use { .. }
            | Step::Silence { .. }
            | Step::Pay { .. }
            | Step::SignUp { .. }
            | Step::Alike { .. } => {
                unreachable!("played by the caller")
            }
        }
        Ok(())
    }

    async fn tax_otherwise(&mut self, connection: &mut AnyConnection, customer: usize, how: usize) {
        let customer = customer % self.taxed.len();
        let changed = &mut self.taxed[customer];
        match how % 5 {
            0 => changed.is_exempt = !changed.is_exempt,
            1 => changed.agreed = taxed(customer).agreed,
            2 => changed.agreed = 7000,
            3 => changed.agreed = 0,
            _ => changed.prices_include_tax = !changed.prices_include_tax,
        }
        sqlx::query(
            "UPDATE customers SET tax_rate_percent = $1, tax_exempt_reason = $2, prices_include_tax = $3 WHERE id = $4",
        )
        .bind(percent_text(changed.agreed))
        .bind(if changed.is_exempt { "an embassy" } else { "" })
        .bind(i64::from(changed.prices_include_tax))
        .bind(customer_id(customer).0)
        .execute(connection)
        .await
        .unwrap();
        self.model.change_taxed(customer, changed.clone());
    }

    /// Everything that is due is done; perhaps after a crash in the middle of it. Then the books
    /// say what the model says.
    async fn close(&mut self, crash_after_us: Option<u64>) {
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
        if crash_after_us.is_some() {
            let again = invoice::close_all(&self.world.database, &self.world.usage, at_ms)
                .await
                .unwrap();
            assert!(again.invoices.is_empty(), "B3: closing again finds nothing");
        }
        self.model
            .close(at_ms, WindowStart::containing(self.now_ms()).start_ms());
        let found = books(&self.world, &self.books.documents).await;
        assert_same(&found, &self.model.books());
        self.books = found;
    }

    /// In the end the books are right by themselves (B1 to B4, B6) too, and each document was told of.
    pub(super) async fn end(&self) -> Books {
        let books = books(&self.world, &[]).await;
        assert_same(&books, &self.model.books());
        assert_right(&self.world).await;
        let told = activity::channel::dispatch(&self.world.database, self.now_ms() + LATENESS_MS)
            .await
            .unwrap();
        let made = books.documents.len() as u64;
        assert!(
            told.events >= made && told.written_by("dispatch_mail") >= made,
            "{told:?} of {made} documents"
        );
        books
    }
}

fn euros(cents: i64) -> Money {
    Money::new(cents, Currency::EUR)
}
