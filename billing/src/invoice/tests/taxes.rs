//! Which taxes lines bear: those of their time, those that were charged, and none before its rate is known.

use activity::event::EventType;
use rust_decimal::Decimal;
use schemas::ids::SubscriptionId;
use schemas::inventory::{BillingProfile, EntityProfile, FIRST_ENTITY};

use super::*;
use crate::catalog::BaseTiming;
use crate::document::ubl;
use crate::subscription::change::{self, CancellationTime, Change};
use crate::tax::{HoldReason, NewTaxRate};

/// A year at EUR 1 a day.
const YEARLY: Deal = Deal {
    terms: Terms::Flat,
    base_minor: 36_500,
    usage_price: "0",
    base_timing: BaseTiming::Advance,
    cycle_months: 12,
    ..DEAL
};
const RAISED: &str = "2026-07-01T00:00:00Z";

/// A German seller whose rates are 16 % up to June 2026 and 19 % from July on, and one customer.
struct Shop {
    world: World,
    customer: CustomerId,
}

impl Shop {
    async fn new(country: &str) -> Shop {
        let world = World::new().await;
        let customer = world.customer("EUR", "UTC", "0").await;
        let shop = Shop { world, customer };
        shop.execute(&format!("UPDATE customers SET country = '{country}'"))
            .await;
        let mut transaction = shop.world.database.begin_write().await.unwrap();
        let seller = EntityProfile {
            name: "Beispiel Hosting GmbH".to_owned(),
            country: "DE".to_owned(),
            vat_id: "DE136695976".to_owned(),
            registration: "HRB 1".to_owned(),
            ..EntityProfile::default()
        };
        inventory::change_entity(&mut transaction, FIRST_ENTITY, seller)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        shop.rate("DE", "16", "2020-01-01T00:00:00Z", Some(RAISED)).await;
        shop.rate("DE", "19", RAISED, None).await;
        shop
    }

    async fn rate(&self, country: &str, rate: &str, from: &str, to: Option<&str>) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let new = NewTaxRate {
            country,
            region: "",
            name: "VAT",
            rate_percent: rate.parse::<Decimal>().unwrap(),
            valid_from_ms: ms(from),
            valid_to_ms: to.map(ms),
        };
        crate::tax::add_rate(&mut transaction, new, 0).await.unwrap();
        transaction.commit().await.unwrap();
    }

    async fn execute(&self, sql: &str) {
        sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()))
            .execute(self.world.database.pool())
            .await
            .unwrap();
    }

    async fn profile(&self, profile: BillingProfile) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        inventory::change_billing_profile(&mut transaction, self.customer, &profile)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }

    async fn subscribe(&self, deal: Deal) -> SubscriptionId {
        self.world.subscribe(self.customer, deal).await.subscription.id
    }

    async fn cancel(&self, id: SubscriptionId, at: &str) {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        change::cancel(
            &mut transaction,
            id,
            CancellationTime::Now,
            "moved away",
            "test",
            ms(at),
        )
        .await
        .unwrap();
        transaction.commit().await.unwrap();
    }

    async fn close(&self, at: &str) -> Vec<InvoiceWithLines> {
        let made = closed(&self.world, self.customer, at).await.invoices;
        assert_books_are_right(&self.world).await;
        for made in &made {
            // What no document could say would be found out by who receives it.
            let document = document(&self.world.database, made.invoice.id).await.unwrap();
            ubl::xml(&document).unwrap();
        }
        made
    }

    async fn credit(&self, invoice: InvoiceId, minor: i64) -> Result<InvoiceWithLines, BillingError> {
        let mut transaction = self.world.database.begin_write().await.unwrap();
        let what = Credited::Amount(Money::new(minor, Currency::EUR));
        let note = credit(&mut transaction, invoice, what, "a mistake", ms("2026-08-01T00:00:00Z")).await?;
        transaction.commit().await.unwrap();
        get(&self.world.database, note).await
    }
}

/// Net, tax and total.
fn sums(made: &InvoiceWithLines) -> (i64, i64, i64) {
    let invoice = &made.invoice;
    (invoice.subtotal.minor, invoice.tax.minor, invoice.total.minor)
}

/// The taxes of a document: name, net and tax.
fn taxes_of(made: &InvoiceWithLines) -> Vec<(&str, i64, i64)> {
    let taxes = made.taxes.iter();
    taxes
        .map(|tax| (tax.rule.name.as_str(), tax.net.minor, tax.tax.minor))
        .collect()
}

#[tokio::test]
async fn unused_days_are_given_back_at_the_rate_they_were_charged_with() {
    let shop = Shop::new("DE").await;
    let id = shop.subscribe(YEARLY).await;
    assert_eq!(
        sums(&shop.close("2026-01-01T00:00:00Z").await[0]),
        (36_500, 5840, 42_340)
    );
    shop.cancel(id, "2026-08-01T00:00:00Z").await;
    let made = shop.close("2026-08-01T00:00:00Z").await;
    assert_eq!(made.len(), 1);
    assert_eq!(sums(&made[0]), (-15_300, -2448, -17_748));
    assert_eq!(taxes_of(&made[0]), [("VAT 16 %", -15_300, -2448)]);
    // What is left of the invoice can be taken back, net and tax, and not a cent remains.
    let rest = shop.credit(InvoiceId(1), 21_200).await.unwrap();
    assert_eq!(sums(&rest), (-21_200, -3392, -24_592));
}

#[tokio::test]
async fn a_change_of_plan_gives_back_at_the_old_rate_and_charges_at_the_new_on_one_document() {
    let shop = Shop::new("DE").await;
    let id = shop.subscribe(YEARLY).await;
    shop.close("2026-01-01T00:00:00Z").await;
    let (_, dearer) = shop
        .world
        .plan_and_price(
            "EUR",
            Deal {
                base_minor: 73_000,
                ..YEARLY
            },
        )
        .await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    let to = Change {
        price: dearer.id,
        quantity: 1,
    };
    let at = ms("2026-08-01T00:00:00Z");
    change::change(&mut transaction, id, to, at, "test", at).await.unwrap();
    transaction.commit().await.unwrap();
    let made = shop.close("2026-08-01T00:00:00Z").await;
    assert_eq!(made.len(), 1);
    assert_eq!(
        taxes_of(&made[0]),
        [("VAT 16 %", -15_300, -2448), ("VAT 19 %", 30_600, 5814)]
    );
    assert_eq!(sums(&made[0]), (15_300, 3366, 18_666));
    let groups: Vec<(LineKind, i64)> = made[0].lines.iter().map(|line| (line.kind, line.tax_group)).collect();
    assert_eq!(groups, [(LineKind::Unused, 0), (LineKind::Base, 1)]);
    // A line in the wrong group would be found.
    let in_group = |group: i64| {
        format!(
            "UPDATE invoice_lines SET tax_group = {group} WHERE id = {}",
            made[0].lines[0].id.0
        )
    };
    shop.execute(&in_group(1)).await;
    let report = ledger::check(&shop.world.database).await.unwrap();
    assert_eq!(report.violations.len(), 2, "{report:?}");
    assert!(
        report.violations[0]
            .what
            .starts_with("net of VAT 16 % on INV-2026-000002"),
        "{report:?}"
    );
    shop.execute(&in_group(0)).await;
    // A part of it is a part of each, and the parts are the whole.
    for _ in 0..3 {
        shop.credit(made[0].invoice.id, 5100).await.unwrap();
    }
    let notes = list_of(shop.world.database.pool(), shop.customer).await.unwrap();
    let notes = notes.iter().filter(|note| note.corrects == Some(made[0].invoice.id));
    let taken: (i64, i64) = notes.fold((0, 0), |sums, note| {
        (sums.0 + note.subtotal.minor, sums.1 + note.tax.minor)
    });
    assert_eq!(taken, (-15_300, -3366));
}

#[tokio::test]
async fn a_correction_that_is_taken_back_leaves_the_whole_to_be_taken_back() {
    let shop = Shop::new("DE").await;
    let odd = Deal {
        base_minor: 36_533,
        ..YEARLY
    };
    let id = shop.subscribe(odd).await;
    shop.close("2026-01-01T00:00:00Z").await;
    let (_, dearer) = shop
        .world
        .plan_and_price(
            "EUR",
            Deal {
                base_minor: 73_001,
                ..YEARLY
            },
        )
        .await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    let to = Change {
        price: dearer.id,
        quantity: 1,
    };
    let at = ms("2026-08-01T00:00:00Z");
    change::change(&mut transaction, id, to, at, "test", at).await.unwrap();
    transaction.commit().await.unwrap();
    let corrected = shop.close("2026-08-01T00:00:00Z").await.remove(0).invoice.id;
    for invoice in [corrected, InvoiceId(1)] {
        let mut transaction = shop.world.database.begin_write().await.unwrap();
        credit(&mut transaction, invoice, Credited::Whole, "a mistake", at)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }
    let all = list_of(shop.world.database.pool(), shop.customer).await.unwrap();
    assert_eq!(all.len(), 4);
    assert_eq!(all.iter().map(|one| one.subtotal.minor).sum::<i64>(), 0);
    assert_eq!(all.iter().map(|one| one.tax.minor).sum::<i64>(), 0);
    assert_books_are_right(&shop.world).await;
}

#[tokio::test]
async fn what_was_charged_with_vat_is_given_back_with_it_when_a_vat_number_came_since() {
    let shop = Shop::new("FR").await;
    shop.rate("FR", "20", "2020-01-01T00:00:00Z", None).await;
    let id = shop.subscribe(YEARLY).await;
    assert_eq!(
        sums(&shop.close("2026-01-01T00:00:00Z").await[0]),
        (36_500, 7300, 43_800)
    );
    shop.profile(BillingProfile {
        vat_id: "FR40303265045".to_owned(),
        ..BillingProfile::default()
    })
    .await;
    shop.cancel(id, "2026-08-01T00:00:00Z").await;
    let made = shop.close("2026-08-01T00:00:00Z").await;
    assert_eq!(sums(&made[0]), (-15_300, -3060, -18_360));
    // It was charged to somebody without a number.
    assert_eq!(made[0].invoice.buyer.vat_id, "");
}

#[tokio::test]
async fn what_was_reverse_charged_is_given_back_to_the_number_it_was_charged_to() {
    let shop = Shop::new("FR").await;
    shop.rate("FR", "20", "2020-01-01T00:00:00Z", None).await;
    let with_number = BillingProfile {
        vat_id: "FR40303265045".to_owned(),
        ..BillingProfile::default()
    };
    shop.profile(with_number).await;
    let id = shop.subscribe(YEARLY).await;
    assert_eq!(sums(&shop.close("2026-01-01T00:00:00Z").await[0]), (36_500, 0, 36_500));
    shop.profile(BillingProfile::default()).await;
    let (_, dearer) = shop
        .world
        .plan_and_price(
            "EUR",
            Deal {
                base_minor: 73_000,
                ..YEARLY
            },
        )
        .await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    let to = Change {
        price: dearer.id,
        quantity: 1,
    };
    let at = ms("2026-08-01T00:00:00Z");
    change::change(&mut transaction, id, to, at, "test", at).await.unwrap();
    transaction.commit().await.unwrap();
    // Both numbers stand on what is reverse charged, so it is a document of its own; its credit pays the other.
    let made = shop.close("2026-08-01T00:00:00Z").await;
    assert_eq!(made.len(), 2);
    assert_eq!(sums(&made[0]), (-15_300, 0, -15_300));
    assert_eq!(made[0].invoice.kind, InvoiceKind::CreditNote);
    assert_eq!(made[0].invoice.buyer.vat_id, "FR40303265045");
    assert_eq!(sums(&made[1]), (30_600, 6120, 36_720));
    assert_eq!(made[1].invoice.buyer.vat_id, "");
    let outstanding = get(&shop.world.database, made[1].invoice.id)
        .await
        .unwrap()
        .invoice
        .outstanding();
    let first = get(&shop.world.database, InvoiceId(1))
        .await
        .unwrap()
        .invoice
        .outstanding();
    assert_eq!(outstanding.minor + first.minor, 36_500 - 15_300 + 36_720);
}

#[tokio::test]
async fn an_exemption_or_a_flag_that_came_since_changes_nothing_of_what_is_given_back() {
    for (then, since, expected) in [
        // Exempt since.
        (
            BillingProfile::default(),
            BillingProfile {
                tax_exempt_reason: "Article 151".to_owned(),
                ..BillingProfile::default()
            },
            (-15_300, -2448, -17_748),
        ),
        // Prices include the tax since: what was given back is priced as it was charged.
        (
            BillingProfile::default(),
            BillingProfile {
                prices_include_tax: true,
                ..BillingProfile::default()
            },
            (-15_300, -2448, -17_748),
        ),
        // And the other way round: 153.00 with 16 % in them.
        (
            BillingProfile {
                prices_include_tax: true,
                ..BillingProfile::default()
            },
            BillingProfile::default(),
            (-13_190, -2110, -15_300),
        ),
        (
            BillingProfile {
                tax_exempt_reason: "Article 151".to_owned(),
                ..BillingProfile::default()
            },
            BillingProfile::default(),
            (-15_300, 0, -15_300),
        ),
    ] {
        let shop = Shop::new("DE").await;
        shop.profile(then.clone()).await;
        let id = shop.subscribe(YEARLY).await;
        shop.close("2026-01-01T00:00:00Z").await;
        shop.profile(since).await;
        shop.cancel(id, "2026-08-01T00:00:00Z").await;
        let made = shop.close("2026-08-01T00:00:00Z").await;
        assert_eq!(sums(&made[0]), expected, "{then:?}");
        assert_eq!(made[0].invoice.prices_include_tax, then.prices_include_tax);
    }
}

#[tokio::test]
async fn who_moved_out_of_the_union_is_given_back_what_was_charged_there() {
    let shop = Shop::new("DE").await;
    let id = shop.subscribe(YEARLY).await;
    shop.close("2026-01-01T00:00:00Z").await;
    shop.execute("UPDATE customers SET country = 'US'").await;
    shop.cancel(id, "2026-08-01T00:00:00Z").await;
    let made = shop.close("2026-08-01T00:00:00Z").await;
    assert_eq!(sums(&made[0]), (-15_300, -2448, -17_748));
    assert_eq!(made[0].invoice.buyer.country, "DE");
}

#[tokio::test]
async fn arrears_and_usage_bear_the_rate_of_their_last_moment_and_the_advance_that_of_its_first() {
    let shop = Shop::new("DE").await;
    let started_at = "2026-06-01T00:00:00Z";
    let contract = shop.world.subscribe(shop.customer, Deal { started_at, ..DEAL }).await;
    let advance = Deal {
        base_minor: 10_000,
        base_timing: BaseTiming::Advance,
        cycle_months: 1,
        started_at,
        ..YEARLY
    };
    shop.subscribe(advance).await;
    assert_eq!(taxes_of(&shop.close(started_at).await[0]), [("VAT 16 %", 10_000, 1600)]);
    shop.world
        .usage
        .add(contract.service.id, "2026-06-10T12:00:00Z", 1100 * GIB, 0);
    let made = shop.close("2026-07-01T00:10:00Z").await;
    assert_eq!(made.len(), 1);
    // 20.00 and 5.00 of June, 100.00 of July.
    assert_eq!(
        taxes_of(&made[0]),
        [("VAT 16 %", 2500, 400), ("VAT 19 %", 10_000, 1900)]
    );

    // Late flows of June are June's, whenever they are charged.
    shop.world
        .usage
        .add(contract.service.id, "2026-06-20T12:00:00Z", 40 * GIB, 0);
    let made = shop.close("2026-08-01T00:10:00Z").await;
    let mut taxes = taxes_of(&made[0]);
    taxes.sort_unstable();
    assert_eq!(taxes, [("VAT 16 %", 200, 32), ("VAT 19 %", 12_000, 2280)]);
}

#[tokio::test]
async fn two_corrections_of_one_invoice_that_are_drafted_together_leave_no_cent() {
    let shop = Shop::new("DE").await;
    shop.execute("UPDATE customers SET tax_rate_percent = '19'").await;
    // 3 cents a day.
    let deal = Deal {
        base_minor: 93,
        cycle_months: 1,
        ..YEARLY
    };
    let (first, second) = (shop.subscribe(deal).await, shop.subscribe(deal).await);
    let made = shop.close("2026-01-01T00:00:00Z").await.remove(0);
    assert_eq!(sums(&made), (186, 35, 221));
    shop.cancel(first, "2026-01-02T00:00:00Z").await;
    shop.cancel(second, "2026-01-03T00:00:00Z").await;
    let made = shop.close("2026-01-04T00:00:00Z").await;
    assert_eq!(made.len(), 2);
    shop.credit(InvoiceId(1), 186 - 90 - 87).await.unwrap();
    let all = list_of(shop.world.database.pool(), shop.customer).await.unwrap();
    assert_eq!(all.iter().map(|one| one.subtotal.minor).sum::<i64>(), 0);
    assert_eq!(all.iter().map(|one| one.tax.minor).sum::<i64>(), 0);
}

#[tokio::test]
async fn what_is_charged_by_hand_bears_the_rate_of_that_day() {
    let shop = Shop::new("DE").await;
    shop.subscribe(Deal {
        started_at: "2026-06-01T00:00:00Z",
        ..DEAL
    })
    .await;
    for (at, minor) in [("2026-06-10T00:00:00Z", 1000), ("2026-07-01T00:05:00Z", 2000)] {
        let mut transaction = shop.world.database.begin_write().await.unwrap();
        let amount = Money::new(minor, Currency::EUR);
        add_item(&mut transaction, shop.customer, None, "set-up", amount, "test", ms(at))
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }
    let made = shop.close("2026-07-01T00:10:00Z").await;
    assert_eq!(taxes_of(&made[0]), [("VAT 16 %", 3000, 480), ("VAT 19 %", 2000, 380)]);
}

#[tokio::test]
async fn ten_tenths_of_an_invoice_are_the_invoice() {
    for inclusive in [false, true] {
        let shop = Shop::new("DE").await;
        shop.execute("UPDATE customers SET tax_rate_percent = '19'").await;
        shop.profile(BillingProfile {
            prices_include_tax: inclusive,
            ..BillingProfile::default()
        })
        .await;
        shop.subscribe(Deal {
            base_minor: 10_030,
            cycle_months: 1,
            ..YEARLY
        })
        .await;
        let made = shop.close("2026-01-01T00:00:00Z").await.remove(0);
        for _ in 0..10 {
            shop.credit(made.invoice.id, 1003).await.unwrap();
        }
        let further = shop.credit(made.invoice.id, 1).await.unwrap_err();
        assert!(
            further.to_string().contains("cannot be credited or voided"),
            "{further}"
        );
        let all = list_of(shop.world.database.pool(), shop.customer).await.unwrap();
        assert_eq!(all.len(), 11);
        assert_eq!(all.iter().map(|one| one.subtotal.minor).sum::<i64>(), 0);
        assert_eq!(all.iter().map(|one| one.tax.minor).sum::<i64>(), 0);
        assert_books_are_right(&shop.world).await;
    }
}

#[tokio::test]
async fn an_invoice_waits_until_somebody_says_who_issues_it() {
    let shop = Shop::new("FR").await;
    let pool = shop.world.database.pool();
    // As a new installation is.
    shop.execute("UPDATE entities SET created_at_ms = 0, name = 'Hosting company', country = 'US', vat_id = ''")
        .await;
    shop.subscribe(Deal {
        cycle_months: 1,
        ..YEARLY
    })
    .await;
    // A name alone is no issuer.
    for name in ["Hosting company", "Exemple Hosting"] {
        shop.execute(&format!("UPDATE entities SET name = '{name}'")).await;
        let held_up = closed(&shop.world, shop.customer, "2026-01-01T00:00:00Z").await;
        assert_eq!(held_up.invoices.len(), 0);
        assert_eq!(held_up.refused[0].reason, OpenReason::IssuerIncomplete);
        let waiting = held(pool, None).await.unwrap();
        assert_eq!((waiting[0].id, &waiting[0].reason), (InvoiceId(1), &HoldReason::Issuer));
    }
    // What holds it next takes its place, under the same id and since the same time.
    shop.execute("UPDATE entities SET street = 'Rue 1', city = 'Paris', country = 'FR'")
        .await;
    let held_up = closed(&shop.world, shop.customer, "2026-01-02T00:00:00Z").await;
    assert_eq!(held_up.refused[0].reason, OpenReason::TaxRateMissing);
    let waiting = held(pool, None).await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert!(matches!(waiting[0].reason, HoldReason::Rate(_)), "{waiting:?}");
    assert_eq!(waiting[0].held_at_ms, ms("2026-01-01T00:00:00Z"));
    let told = sqlx::query("SELECT payload FROM events WHERE event_type = $1 ORDER BY id")
        .bind(EventType::InvoiceHeld.name())
        .fetch_all(pool)
        .await
        .unwrap();
    let told: Vec<String> = told.iter().map(|row| sqlx::Row::get(row, 0)).collect();
    assert!(
        told.len() == 2 && told[0].contains("no name and address") && told[1].contains("no tax rate"),
        "{told:?}"
    );
    shop.rate("FR", "20", "2020-01-01T00:00:00Z", None).await;
    let made = closed(&shop.world, shop.customer, "2026-01-02T00:00:00Z")
        .await
        .invoices;
    assert_eq!(made[0].invoice.id, InvoiceId(1));
    assert!(held(pool, None).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_missing_rate_holds_the_invoice_until_somebody_enters_it() {
    let shop = Shop::new("FR").await;
    let pool = shop.world.database.pool();
    let id = shop
        .subscribe(Deal {
            cycle_months: 1,
            ..YEARLY
        })
        .await;
    let held_up = closed(&shop.world, shop.customer, "2026-01-01T00:00:00Z").await;
    assert_eq!(held_up.invoices.len(), 0);
    assert_eq!(held_up.refused[0].reason, OpenReason::TaxRateMissing);
    let missing = held_up.refused[0].unsettled.clone().unwrap();
    assert_eq!(
        missing.to_string(),
        "no tax rate is known for FR at 2026-01-01T00:00:00Z"
    );

    // Again and a month later: what waits is listed once each, and told of once each.
    closed(&shop.world, shop.customer, "2026-01-02T00:00:00Z").await;
    closed(&shop.world, shop.customer, "2026-02-01T00:00:00Z").await;
    let waiting = held(pool, None).await.unwrap();
    let ids: Vec<InvoiceId> = waiting.iter().map(|held| held.id).collect();
    assert_eq!(ids, [InvoiceId(2), InvoiceId(1)]);
    assert_eq!(held(pool, Some(shop.customer)).await.unwrap(), waiting);
    assert_eq!(
        held_invoice(pool, InvoiceId(1)).await.unwrap().as_ref(),
        Some(&waiting[1])
    );
    assert_eq!(
        (waiting[1].held_at_ms, &waiting[1].reason),
        (ms("2026-01-01T00:00:00Z"), &missing)
    );
    let count = || async {
        let row = sqlx::query("SELECT count(*) FROM events WHERE event_type = $1")
            .bind(EventType::InvoiceHeld.name())
            .fetch_one(pool)
            .await
            .unwrap();
        sqlx::Row::get::<i64, _>(&row, 0)
    };
    assert_eq!(count().await, 2);
    // The draft says so too, and claims no 0 %.
    let drafts = preview(
        &shop.world.database,
        &shop.world.usage,
        shop.customer,
        ms("2026-02-01T00:00:00Z"),
    )
    .await
    .unwrap();
    assert!(
        drafts
            .iter()
            .all(|draft| draft.unsettled.is_some() && !draft.is_complete())
    );
    assert!(drafts.iter().all(|draft| !draft.taxes[0].rule.name.contains("0 %")));

    shop.rate("FR", "20", "2020-01-01T00:00:00Z", None).await;
    let made = shop.close("2026-02-01T00:10:00Z").await;
    let made: Vec<_> = made
        .iter()
        .map(|made| (made.invoice.id, made.invoice.number.clone(), sums(made)))
        .collect();
    assert_eq!(
        made,
        [
            (InvoiceId(1), "INV-2026-000001".to_owned(), (36_500, 7300, 43_800)),
            (InvoiceId(2), "INV-2026-000002".to_owned(), (36_500, 7300, 43_800)),
        ]
    );
    assert_eq!(held(pool, None).await.unwrap(), []);
    assert_eq!(count().await, 2);
    shop.cancel(id, "2026-02-10T00:00:00Z").await;
    // An id that was not held is a new one.
    assert_eq!(shop.close("2026-02-10T00:00:00Z").await[0].invoice.id, InvoiceId(3));
}

/// Two documents of one instant: what was reverse charged is given back at once, and the new plan waits for its rate. Before, the
/// credit note got the id that the held invoice was listed under.
#[tokio::test]
async fn what_is_given_back_beside_a_held_invoice_does_not_take_its_id() {
    let shop = Shop::new("FR").await;
    let pool = shop.world.database.pool();
    shop.rate("FR", "20", "2020-01-01T00:00:00Z", Some(RAISED)).await;
    shop.profile(BillingProfile {
        vat_id: "FR40303265045".to_owned(),
        ..BillingProfile::default()
    })
    .await;
    let id = shop.subscribe(YEARLY).await;
    assert_eq!(sums(&shop.close("2026-01-01T00:00:00Z").await[0]), (36_500, 0, 36_500));
    shop.profile(BillingProfile::default()).await;
    let deal = Deal {
        base_minor: 73_000,
        ..YEARLY
    };
    let (_, dearer) = shop.world.plan_and_price("EUR", deal).await;
    let mut transaction = shop.world.database.begin_write().await.unwrap();
    let to = Change {
        price: dearer.id,
        quantity: 1,
    };
    let at = ms("2026-08-01T00:00:00Z");
    change::change(&mut transaction, id, to, at, "test", at).await.unwrap();
    transaction.commit().await.unwrap();

    let made = shop.close("2026-08-01T00:00:00Z").await;
    assert_eq!(made.len(), 1);
    assert_eq!(
        (made[0].invoice.kind, sums(&made[0])),
        (InvoiceKind::CreditNote, (-15_300, 0, -15_300))
    );
    let waiting = held(pool, None).await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert_ne!(waiting[0].id, made[0].invoice.id);

    shop.rate("FR", "20", RAISED, None).await;
    let made = shop.close("2026-08-01T00:10:00Z").await;
    assert_eq!(made.len(), 1);
    assert_eq!(
        (made[0].invoice.id, sums(&made[0])),
        (waiting[0].id, (30_600, 6120, 36_720))
    );
    assert_eq!(held(pool, None).await.unwrap(), []);
}

#[tokio::test]
async fn what_is_held_and_then_not_due_any_more_waits_no_longer_and_zero_is_a_rate() {
    let shop = Shop::new("FR").await;
    let pool = shop.world.database.pool();
    let id = shop
        .subscribe(Deal {
            cycle_months: 1,
            ..YEARLY
        })
        .await;
    closed(&shop.world, shop.customer, "2026-01-01T00:00:00Z").await;
    assert_eq!(held(pool, None).await.unwrap().len(), 1);
    // An exemption settles it as well as a rate.
    shop.profile(BillingProfile {
        tax_exempt_reason: "Article 151".to_owned(),
        ..BillingProfile::default()
    })
    .await;
    assert_eq!(shop.close("2026-01-02T00:00:00Z").await.len(), 1);
    assert_eq!(held(pool, None).await.unwrap(), []);
    shop.profile(BillingProfile::default()).await;
    closed(&shop.world, shop.customer, "2026-02-01T00:00:00Z").await;
    assert_eq!(held(pool, None).await.unwrap().len(), 1);
    shop.rate("FR", "0", "2020-01-01T00:00:00Z", None).await;
    let made = shop.close("2026-02-01T00:10:00Z").await;
    assert_eq!(taxes_of(&made[0]), [("VAT 0 %", 36_500, 0)]);
    // What was charged exempt is given back exempt: nothing of it is asked for again.
    shop.cancel(id, "2026-02-01T00:20:00Z").await;
    assert_eq!(
        taxes_of(&shop.close("2026-02-01T00:20:00Z").await[0]),
        [("VAT 0 %", -36_500, 0)]
    );
}
