//! What happened in the demo's books before today, done by the functions that pages, jobs and the command line use, each at
//! its own day of the past:
//!
//! ```text
//! 100 days ago   the issuer, tax rates, a plan                                            (setup by the admins)
//!  75 ──▶ today  eight customers order, are invoiced, pay, do not pay; staff acts         (day by day)
//!  today         the fleet's customers pay the month that ended, or do not                (present)
//! ```
//!
//! Nothing is written into a table here. Money comes through the test gateway and as bank transfers.

mod acts;
mod cast;

use std::collections::BTreeMap;
use std::sync::Arc;

use activity::act::{Act, By, Note};
use activity::audit::Actor;
use analytics::MeteredUsage;
use anyhow::Context as _;
use billing::catalog::{self, NewPlan, NewPrice, Terms};
use billing::invoice::{self, Invoice, InvoiceFilter};
use billing::payment::trial::{self, Card, TestGateway};
use billing::payment::{GatewayCharger, GatewayName, Gateways, method};
use billing::price::UsagePrice;
use billing::subscription::{self, NewSubscription};
use billing::tax::{self, NewTaxRate};
use billing::{budget, dunning, exclusion};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use rust_decimal::Decimal;
use schemas::db::Database;
use schemas::ids::{CustomerId, PriceId, ServiceId, SubscriptionId};
use schemas::inventory::{self, BillingProfile, EntityProfile, FIRST_ENTITY, NewCustomer, NewService};
use schemas::money::{Currency, Money};
use schemas::window::{DAY_MS, HOUR_MS, WINDOW_MS};
use serde_json::json;

use super::people::{ADMIN, OPS, People};
use cast::{BUSINESS, CHARACTERS, COLLEGE, FORGETFUL, PRIVATE, PaymentHabit};

/// When the company was set up.
const SETUP_DAYS: i64 = 100;
/// When the first of the story's customers ordered.
const STORY_DAYS: i64 = 75;
/// Taxes of the issuer's country and of those it sells to; of Italy nobody has entered one yet.
const TAXES: [(&str, &str, &str); 4] = [
    ("DE", "VAT", "19"),
    ("AT", "VAT", "20"),
    ("ES", "VAT", "21"),
    ("GB", "VAT", "20"),
];
/// Per month in each currency, in minor units.
const PRICES: [(&str, i64); 3] = [("EUR", 4_900), ("USD", 5_400), ("GBP", 4_300)];

/// One of the story's customers as they are stored.
#[derive(Clone, Copy, Debug)]
struct Known {
    customer: CustomerId,
    subscription: SubscriptionId,
}

/// The books while the story is told.
#[derive(Debug)]
pub(crate) struct Story<'a> {
    database: &'a Database,
    usage: MeteredUsage,
    people: &'a People,
    gateways: Gateways,
    now_ms: i64,
    known: BTreeMap<usize, Known>,
}

/// Who of the story signs in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignIns {
    pub(crate) business: CustomerId,
    pub(crate) private: CustomerId,
    pub(crate) college: CustomerId,
}

impl<'a> Story<'a> {
    pub(crate) fn new(
        database: &'a Database,
        usage: MeteredUsage,
        people: &'a People,
        portal_url: &str,
        now: Timestamp,
    ) -> Story<'a> {
        Story {
            database,
            usage,
            people,
            gateways: Gateways::new(vec![Arc::new(TestGateway::new(database, portal_url))]),
            now_ms: now.as_millisecond(),
            known: BTreeMap::new(),
        }
    }

    fn ago(&self, days: i64) -> i64 {
        self.now_ms - days * DAY_MS
    }

    /// Begins an act of one of staff.
    async fn act(&self, who: &'static str, at_ms: i64) -> anyhow::Result<Act> {
        Ok(Act::begin(self.database, By::from(self.people.actor(who)), at_ms).await?)
    }

    /// Begins an act of a customer's.
    async fn act_of_customer(&self, email: &str, at_ms: i64) -> anyhow::Result<Act> {
        let customer = Actor {
            name: email,
            user: None,
            ip: "",
        };
        Ok(Act::begin(self.database, By::from(customer), at_ms).await?)
    }

    /// The company: who issues, which taxes hold, what is sold.
    pub(crate) async fn set_up(&self) -> anyhow::Result<()> {
        let at_ms = self.ago(SETUP_DAYS);
        let mut act = self.act(ADMIN, at_ms).await?;
        let issuer = EntityProfile {
            name: "EZSCALE Demo GmbH".to_owned(),
            street: "Beispielstraße 7".to_owned(),
            postal_code: "10117".to_owned(),
            city: "Berlin".to_owned(),
            region: String::new(),
            country: "DE".to_owned(),
            vat_id: "DE136695976".to_owned(),
            registration: "HRB 00000 B, Amtsgericht Charlottenburg".to_owned(),
            email: "billing@ezscale-demo.example".to_owned(),
            payment_instructions:
                "Bank transfer to EZSCALE Demo GmbH, IBAN DE02 1203 0000 0000 2020 51, BIC BYLADEM1001. \
                                   Name the invoice’s number. This is a demo: transfer nothing."
                    .to_owned(),
            number_prefix: String::new(),
        };
        let change = json!({"after": &issuer});
        inventory::change_entity(act.connection(), FIRST_ENTITY, issuer).await?;
        act.commit(Note::new("entity.change", FIRST_ENTITY).change(change))
            .await?;
        for (country, name, percent) in TAXES {
            let new = NewTaxRate {
                country,
                region: "",
                name,
                rate_percent: percent.parse()?,
                valid_from_ms: at_ms,
                valid_to_ms: None,
            };
            let mut act = self.act(ADMIN, at_ms).await?;
            let rate = tax::add_rate(act.connection(), new, at_ms).await?;
            let change = json!({"after": {"country": country, "name": name, "rate": percent}});
            act.commit(Note::new("tax.add", rate.id).change(change)).await?;
        }
        Ok(())
    }

    /// Everything before today.
    pub(crate) async fn tell(&mut self) -> anyhow::Result<SignIns> {
        let plan = self.plan().await?;
        for days_ago in (0..=STORY_DAYS).rev() {
            let at_ms = self.ago(days_ago);
            for (index, character) in CHARACTERS.iter().enumerate() {
                if character.ordered == days_ago {
                    let known = self.order(index, &plan, at_ms).await?;
                    self.known.insert(index, known);
                }
            }
            self.staff_acts(days_ago).await?;
            self.invoices_of(at_ms).await?;
            self.collect(at_ms).await?;
        }
        Ok(SignIns {
            business: self.known[&BUSINESS].customer,
            private: self.known[&PRIVATE].customer,
            college: self.known[&COLLEGE].customer,
        })
    }

    /// A plan that is charged in advance, by currency.
    async fn plan(&self) -> anyhow::Result<BTreeMap<Currency, PriceId>> {
        let at_ms = self.ago(SETUP_DAYS - 1);
        let mut act = self.act(ADMIN, at_ms).await?;
        let new = NewPlan {
            description: "A site, its mail and its backups, at one price.",
            ..NewPlan::new("Site Business", "web", Terms::Flat)
        };
        let plan = catalog::create_plan(act.connection(), new, at_ms).await?;
        let mut prices = BTreeMap::new();
        for (currency, minor) in PRICES {
            let currency: Currency = currency.parse()?;
            for cycle_months in catalog::CYCLES_MONTHS {
                let new = NewPrice {
                    plan: plan.id,
                    cycle_months,
                    base: plan.derived_base(Money::new(minor, currency), cycle_months)?,
                    usage: UsagePrice::PerUnit { rate: Decimal::ZERO },
                    valid_from_ms: at_ms,
                };
                let price = catalog::add_price(act.connection(), new).await?;
                if cycle_months == 1 {
                    prices.insert(currency, price.id);
                }
            }
        }
        act.commit(Note::new("plan.create", plan.id).change(json!({"after": {"name": "Site Business"}})))
            .await?;
        Ok(prices)
    }

    async fn order(&self, index: usize, prices: &BTreeMap<Currency, PriceId>, at_ms: i64) -> anyhow::Result<Known> {
        let character = &CHARACTERS[index];
        let mut act = self.act(ADMIN, at_ms).await?;
        let new = NewCustomer {
            name: character.name,
            email: character.email,
            currency: character.currency,
            time_zone: character.time_zone,
            country: character.country,
            tax_rate_percent: "0",
        };
        let customer = inventory::create_customer(act.connection(), new, at_ms).await?;
        let [street, postal_code, city] = character.place.map(str::to_owned);
        let profile = BillingProfile {
            street,
            postal_code,
            city,
            vat_id: character.vat_id.to_owned(),
            tax_exempt_reason: character.exempt.to_owned(),
            ..BillingProfile::default()
        };
        inventory::change_billing_profile(act.connection(), customer.id, &profile).await?;
        let new = NewService {
            customer: customer.id,
            name: character.service,
            service_type: "web",
            site: Some("FRA1"),
        };
        let service = inventory::create_service(act.connection(), new, at_ms).await?;
        let price = prices
            .get(&customer.currency)
            .context("a price in the customer’s currency")?;
        let new = NewSubscription::new(service.id, *price, at_ms);
        let made = subscription::subscribe(act.connection(), new, character.email, at_ms).await?;
        let change = json!({"after": {"service": service.id, "subscription": made.id, "price": price}});
        let personal = json!({"after": {"name": character.name, "email": character.email, "profile": profile}});
        let note = Note::new("customer.create", customer.id).change(change);
        act.commit(note.personal(personal)).await?;
        if let PaymentHabit::By(card) = character.pays {
            self.save_card(customer.id, card, at_ms).await?;
        }
        Ok(Known {
            customer: customer.id,
            subscription: made.id,
        })
    }

    /// As a customer saves a card on the test gateway's page; it is the one that is charged.
    async fn save_card(&self, customer: CustomerId, card: Card, at_ms: i64) -> anyhow::Result<()> {
        let gateway = self.gateways.get(GatewayName::Test)?;
        let started = method::start_setup(
            self.database,
            gateway,
            customer,
            "/payment-methods/return",
            "/payment-methods",
        );
        let started = started.await?;
        trial::choose(self.database.pool(), &started.reference, card).await?;
        let saved = method::finish_setup(self.database, gateway, customer, &started.reference, at_ms).await?;
        let email = inventory::customer(self.database.pool(), customer).await?.email;
        let mut act = self.act_of_customer(&email, at_ms).await?;
        method::set_default(act.connection(), customer, saved.id).await?;
        act.commit(Note::new("payment_method.default", saved.id)).await?;
        Ok(())
    }

    /// The invoices that are due on a day: those of orders, a month on, and so on.
    async fn invoices_of(&self, at_ms: i64) -> anyhow::Result<()> {
        for (index, known) in &self.known {
            let character = &CHARACTERS[*index];
            let zone = TimeZone::get(character.time_zone)?;
            let day = |ms: i64| anyhow::Ok(Timestamp::from_millisecond(ms)?.to_zoned(zone.clone()).date());
            // Where clocks were set, the same hour of the next day may be a day later or the same one.
            let (yesterday, today) = (day(at_ms - DAY_MS)?, day(at_ms)?);
            let ordered = day(self.ago(character.ordered))?;
            let is_due = (0..4).any(|months| {
                let due = ordered.checked_add(months.months());
                due.is_ok_and(|due| yesterday < due && due <= today)
            });
            // What was ordered beside, such as a set-up, is charged the day after.
            if is_due || (*index == FORGETFUL && self.ago(SETUP_FEE_DAYS - 1) == at_ms) {
                invoice::close(self.database, &self.usage, known.customer, at_ms).await?;
            }
        }
        Ok(())
    }

    async fn collect(&self, at_ms: i64) -> anyhow::Result<()> {
        let charger = GatewayCharger {
            database: self.database,
            gateways: &self.gateways,
        };
        let collected = dunning::run(self.database, &charger, at_ms).await?;
        if let Some((invoice, error)) = collected.failed.into_iter().next() {
            return Err(anyhow::Error::from(error).context(format!("collect {invoice}")));
        }
        Ok(())
    }

    /// Cards of the fleet's customers: of eleven three pay by one that is accepted, one by one that is declined. Saved before
    /// their month is charged.
    pub(crate) async fn cards(&self, fleet: &[CustomerId], showcase: CustomerId) -> anyhow::Result<()> {
        for (position, customer) in fleet.iter().enumerate().filter(|(_, customer)| **customer != showcase) {
            let card = match position % 11 {
                0 | 4 | 7 => Card::Accepted,
                9 => Card::Declined,
                _ => continue,
            };
            self.save_card(*customer, card, self.now_ms).await?;
        }
        Ok(())
    }

    /// What became of the month that ended: charged, transferred, open; and what ops and customers did today.
    pub(crate) async fn present(&self, showcase: (CustomerId, ServiceId)) -> anyhow::Result<()> {
        let at_ms = self.now_ms;
        self.collect(at_ms).await?;
        let open = invoice::list_all(self.database.pool(), InvoiceFilter::default()).await?;
        let is_transferred = |found: &&Invoice| {
            found.customer != showcase.0
                && found.outstanding().minor > 0
                && found.finalised_at_ms == at_ms
                && found.id.0 % 7 == 0
        };
        for found in open.iter().filter(is_transferred) {
            let reference = format!("SEPA-{}", found.id.0);
            self.transfer(found, found.outstanding(), &reference, at_ms).await?;
        }

        let (customer, service) = showcase;
        let mut act = self.act(OPS, at_ms).await?;
        let to_ms = at_ms.div_euclid(WINDOW_MS) * WINDOW_MS - 2 * HOUR_MS;
        let (from_ms, reason) = (to_ms - 4 * WINDOW_MS, "SYN flood, filtered upstream");
        let made = exclusion::exclude(act.connection(), service, (from_ms, to_ms), reason, OPS, at_ms).await?;
        let change = json!({"after": {"exclusion": made.id, "reason": reason}});
        act.commit(Note::new("usage.exclude", service).change(change)).await?;

        let currency = inventory::customer(self.database.pool(), customer).await?.currency;
        let mut act = self.act_of_customer(super::people::CUSTOMERS[0].email, at_ms).await?;
        let new = budget::NewBudget {
            amount: Money::new(100_000, currency),
            thresholds: budget::Thresholds::default(),
            suspends: false,
            reset_day: None,
        };
        let note = budget::set(act.connection(), customer, &new, at_ms).await?;
        act.commit(note).await?;
        Ok(())
    }
}

/// Days ago on which a set-up was charged that nobody had ordered.
const SETUP_FEE_DAYS: i64 = 17;

/// Addresses of the fleet's customers, so that their documents are complete.
pub(crate) async fn address(
    connection: &mut sqlx::AnyConnection,
    customer: CustomerId,
    number: usize,
) -> anyhow::Result<()> {
    let profile = BillingProfile {
        street: format!("{} Harbour Street", 10 + number),
        postal_code: format!("{:05}", 10_000 + 7 * number),
        city: "Demo City".to_owned(),
        ..BillingProfile::default()
    };
    inventory::change_billing_profile(connection, customer, &profile).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_has_a_price_and_a_zone() {
        for character in &CHARACTERS {
            assert!(
                PRICES.iter().any(|(known, _)| *known == character.currency),
                "{}",
                character.name
            );
            assert!(TimeZone::get(character.time_zone).is_ok(), "{}", character.name);
            assert!(character.ordered <= STORY_DAYS);
        }
        let is_taxed = |country: &str| TAXES.iter().any(|(known, ..)| *known == country);
        let held = CHARACTERS
            .iter()
            .filter(|one| one.country == "IT" && !is_taxed(one.country));
        assert_eq!(held.count(), 1, "one invoice waits for a tax rate");
    }
}
