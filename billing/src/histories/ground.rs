//! Where histories begin: customers, plans, prices, coupons and rates of tax, once for the product and once for the model.
//!
//! Migrating and filling a database takes longer than a history, so it is done once for all tests and copied for each history.

use fixtures::{Found, Made};
use jiff::tz::TimeZone;
use schemas::db::Database;
use schemas::money::{Currency, Money};

use crate::catalog::{self, BaseTiming, Discount, NewCoupon, NewPlan, NewPrice, PlanKind, QuotaUnit, Terms};
use crate::model::{
    CountedDirection, Coupon, CouponDiscount, Customer, Model, Offer, PlaceRate, Taxed, UnitPrice, UsageTerms,
};
use crate::tax::{self, NewTaxRate};
use crate::testing::{Postgres, World, with_issuer};

/// Prices, by id: the offer, and its usage price as it is typed.
pub(super) const OFFERS: [(Offer, &str); 12] = [
    offer(0, true, 1, 1000, UsageTerms::Not, (UnitPrice::Free, "0")),
    offer(0, true, 12, 9999, UsageTerms::Not, (UnitPrice::Free, "0")),
    offer(
        1,
        true,
        1,
        2999,
        transfer(100, CountedDirection::Sum),
        (UnitPrice::Each(1300), "0.013"),
    ),
    offer(
        1,
        true,
        3,
        8547,
        transfer(100, CountedDirection::Sum),
        (GRADUATED, "graduated:100=0.02,*=0.01"),
    ),
    offer(
        2,
        false,
        1,
        777,
        transfer(50, CountedDirection::Out),
        (PACKAGES, "package:100=1.23"),
    ),
    offer(3, false, 1, 333, UsageTerms::Not, (UnitPrice::Free, "0")),
    offer(
        4,
        true,
        1,
        4900,
        percentile(1, CountedDirection::Sum),
        (UnitPrice::Each(90_333), "0.90333"),
    ),
    offer(
        5,
        false,
        3,
        12_345,
        percentile(2, CountedDirection::Max),
        (VOLUME, "volume:10=1.5,*=0.8"),
    ),
    Offer::trial(
        offer(
            6,
            true,
            1,
            1500,
            transfer(10, CountedDirection::Max),
            (UnitPrice::Each(1999), "0.01999"),
        ),
        14,
    ),
    // A plan that has no price for a month.
    offer(7, true, 3, 2500, UsageTerms::Not, (UnitPrice::Free, "0")),
    Offer::addon(offer(8, true, 1, 250, UsageTerms::Not, (UnitPrice::Free, "0"))),
    Offer::addon(offer(
        9,
        false,
        1,
        119,
        transfer(10, CountedDirection::Sum),
        (UnitPrice::Each(700), "0.007"),
    )),
];
/// The first of those that are beside a plan.
pub(super) const FIRST_ADDON: usize = 10;

const GRADUATED: UnitPrice = UnitPrice::Graduated(&[(100, 2000), (i64::MAX, 1000)]);
const VOLUME: UnitPrice = UnitPrice::Volume(&[(10, 150_000), (i64::MAX, 80_000)]);
const PACKAGES: UnitPrice = UnitPrice::Package {
    units: 100,
    rate: 123_000,
};

pub(super) const COUPONS: [Coupon; 5] = [
    coupon(CouponDiscount::Percent(50_000), Some(3), None),
    coupon(CouponDiscount::Cents(3000), None, None),
    coupon(CouponDiscount::Percent(33_333), None, Some(0)),
    coupon(CouponDiscount::Cents(500), Some(2), None),
    coupon(CouponDiscount::Percent(10_000), Some(7), None),
];

/// Taxes of places: country, region, name, and the first rate.
pub(super) const PLACES: [(&str, &str, &str, i64); 3] = [
    ("DE", "", "VAT", 19_000),
    ("US", "", "State", 4000),
    ("US", "NYC", "City", 4875),
];
/// Rates that they change to, in thousandths of a percent.
pub(super) const RATES: [i64; 6] = [0, 7000, 16_000, 19_000, 8875, 20_000];

/// Zone, country, rate that was agreed, and whether prices include tax.
const CUSTOMERS: [(&str, &str, i64, bool); 4] = [
    ("Europe/Berlin", "DE", 19_000, true),
    ("America/New_York", "US", 0, false),
    ("Asia/Tokyo", "JP", 8875, false),
    ("Europe/Berlin", "DE", 0, true),
];

const fn offer(
    plan: usize,
    in_advance: bool,
    months: i64,
    cents: i64,
    metered: UsageTerms,
    (unit_price, typed): (UnitPrice, &'static str),
) -> (Offer, &'static str) {
    let offer = Offer {
        plan,
        is_addon: false,
        in_advance,
        months,
        cents,
        metered,
        unit_price,
        trial_days: 0,
    };
    (offer, typed)
}

impl Offer {
    const fn trial((offer, typed): (Offer, &'static str), trial_days: i64) -> (Offer, &'static str) {
        (Offer { trial_days, ..offer }, typed)
    }

    const fn addon((offer, typed): (Offer, &'static str)) -> (Offer, &'static str) {
        let is_addon = true;
        (Offer { is_addon, ..offer }, typed)
    }
}

const fn transfer(included_gib: i64, way: CountedDirection) -> UsageTerms {
    UsageTerms::Transfer { included_gib, way }
}

const fn percentile(commit_mbps: i64, way: CountedDirection) -> UsageTerms {
    UsageTerms::Percentile { commit_mbps, way }
}

const fn coupon(off: CouponDiscount, months: Option<i64>, plan: Option<usize>) -> Coupon {
    Coupon { off, months, plan }
}

/// A rate as people type it: 8875 is `8.875`.
pub(super) fn percent_text(thousandths: i64) -> String {
    rust_decimal::Decimal::new(thousandths, 3).normalize().to_string()
}

pub(super) fn taxed(customer: usize) -> Taxed {
    let (_, _, agreed, prices_include_tax) = CUSTOMERS[customer];
    Taxed {
        is_exempt: false,
        agreed,
        prices_include_tax,
    }
}

/// Whether a customer's usage is pooled at first.
pub(super) fn pools_usage(customer: usize) -> bool {
    customer.is_multiple_of(2)
}

/// The model of it.
pub(super) fn model() -> Model {
    let customers = CUSTOMERS.iter().enumerate().map(|(at, (zone, country, ..))| Customer {
        zone: TimeZone::get(zone).unwrap(),
        country,
        taxed: taxed(at),
        pools_usage: pools_usage(at),
    });
    let place_rates = PLACES.iter().map(|&(country, _, name, rate)| PlaceRate {
        country,
        name,
        rate,
        from_ms: 0,
        to_ms: None,
    });
    let offers = OFFERS.iter().map(|(offer, _)| *offer);
    Model::new(
        customers.collect(),
        offers.collect(),
        COUPONS.to_vec(),
        place_rates.collect(),
    )
}

/// Databases with the ground on them.
#[derive(Debug)]
pub(super) enum Ground {
    Sqlite(Made),
    Postgres(Postgres),
}

impl Ground {
    pub(super) async fn sqlite() -> Ground {
        let made = match fixtures::find("billing-ground", &fixtures::own_identity()) {
            Found::Ready(made) => made,
            Found::Empty(making) => {
                let database = Database::open(&Database::default_url(making.path())).await.unwrap();
                fill(&database).await;
                // What is in the log goes to the file.
                database.pool().close().await;
                making.finish()
            }
        };
        Ground::Sqlite(made)
    }

    pub(super) async fn postgres() -> Ground {
        Ground::Postgres(Postgres::filled("ground", fill).await)
    }

    /// A world of its own, on a copy.
    pub(super) async fn world(&self) -> World {
        match self {
            Ground::Sqlite(made) => World::on_copy(&made.path().join("ezscale.db")).await,
            Ground::Postgres(postgres) => World::on_copy_of(postgres).await,
        }
    }
}

async fn fill(database: &Database) {
    let world = World::on(database.clone());
    with_issuer(database).await;
    for (at, (zone, country, agreed, includes_tax)) in CUSTOMERS.into_iter().enumerate() {
        world.customer("EUR", zone, &percent_text(agreed)).await;
        let region = if country == "US" { "NYC" } else { "" };
        sqlx::query(
            "UPDATE customers SET country = $1, region = $2, prices_include_tax = $3, pools_usage = $4 WHERE id = $5",
        )
        .bind(country)
        .bind(region)
        .bind(i64::from(includes_tax))
        .bind(i64::from(pools_usage(at)))
        .bind(i64::try_from(at).unwrap() + 1)
        .execute(database.pool())
        .await
        .unwrap();
    }
    let mut transaction = database.begin_write().await.unwrap();
    let mut plans = Vec::new();
    for (offer, typed) in &OFFERS {
        if plans.len() == offer.plan {
            let new = NewPlan {
                kind: if offer.is_addon {
                    PlanKind::Addon
                } else {
                    PlanKind::Plan
                },
                base_timing: if offer.in_advance {
                    BaseTiming::Advance
                } else {
                    BaseTiming::Arrears
                },
                trial_days: offer.trial_days,
                ..NewPlan::new("plan", "vps", terms(offer.metered))
            };
            plans.push(catalog::create_plan(&mut transaction, new, 0).await.unwrap().id);
        }
        let new = NewPrice {
            plan: plans[offer.plan],
            cycle_months: offer.months,
            base: Money::new(offer.cents, Currency::EUR),
            usage: typed.parse().unwrap(),
            valid_from_ms: 0,
        };
        catalog::add_price(&mut transaction, new).await.unwrap();
    }
    for (at, coupon) in COUPONS.iter().enumerate() {
        let code = coupon_code(at);
        let discount = match coupon.off {
            CouponDiscount::Percent(percent) => {
                Discount::Percent(schemas::percent::Percent::new(rust_decimal::Decimal::new(percent, 3)).unwrap())
            }
            CouponDiscount::Cents(cents) => Discount::Amount(Money::new(cents, Currency::EUR)),
        };
        let new = NewCoupon {
            months: coupon.months,
            plan: coupon.plan.map(|plan| plans[plan]),
            per_customer: None,
            ..NewCoupon::new(&code, discount)
        };
        catalog::create_coupon(&mut transaction, new, 0).await.unwrap();
    }
    for (country, region, name, rate) in PLACES {
        let new = NewTaxRate {
            country,
            region,
            name,
            rate_percent: rust_decimal::Decimal::new(rate, 3),
            valid_from_ms: 0,
            valid_to_ms: None,
        };
        tax::add_rate(&mut transaction, new, 0).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

pub(super) fn coupon_code(coupon: usize) -> String {
    format!("OFF-{coupon}")
}

fn terms(metered: UsageTerms) -> Terms {
    let mode = |way| match way {
        CountedDirection::Sum => schemas::usage::UsageMode::Sum,
        CountedDirection::Out => schemas::usage::UsageMode::Out,
        CountedDirection::Max => schemas::usage::UsageMode::Max,
    };
    match metered {
        UsageTerms::Not => Terms::Flat,
        UsageTerms::Transfer { included_gib, way } => Terms::Transfer {
            included_units: included_gib,
            unit: QuotaUnit::Gib,
            mode: mode(way),
        },
        UsageTerms::Percentile { commit_mbps, way } => Terms::Percentile {
            commit_mbps: commit_mbps.into(),
            mode: mode(way),
        },
    }
}
