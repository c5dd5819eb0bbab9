//! A small world for tests: a database in a temporary folder, and usage that tests write down window by window.

#[path = "../../activity/src/testing/postgres.rs"]
#[allow(dead_code, reason = "the tests of activity use the rest")]
mod postgres;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use fixtures::postgres::TestDatabase;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemas::address::Address;
use schemas::db::Database;
use schemas::ids::{CustomerId, ServiceId};
use schemas::inventory::{self, NewCustomer, NewService, Service};
use schemas::money::Money;
use schemas::usage::{Gap, Peer, PeriodUsage, SeriesPoint, UsageError, UsageMode, WindowUsage};
use schemas::usage::{Percentile95, percentile_95_bps, rank_95};
use schemas::window::{WINDOW_MS, WindowStart, windows};

use crate::catalog::{self, BaseTiming, NewPlan, NewPrice, Plan, Price, QuotaUnit, Terms};
use crate::subscription::{self, Contract, NewSubscription};
pub(crate) use postgres::Postgres;
use schemas::usage::MeasureGuards;
use schemas::usage::UsageQuery;
use schemas::usage::UsageSource;

/// Windows are closed so long after their end.
pub(crate) const LATENESS_MS: i64 = 600_000;

pub(crate) fn ms(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

/// Bytes in and out by service and window.
type Written = BTreeMap<(u32, i64), (u64, u64)>;

#[derive(Debug, Default)]
pub(crate) struct FakeUsage {
    written: Mutex<Written>,
    unheard: Mutex<BTreeSet<i64>>,
    guards: Mutex<MeasureGuards>,
    heard_until_ms: Mutex<Option<i64>>,
    /// The number of the change that touched a window last, by window.
    changes: Mutex<BTreeMap<i64, u64>>,
    change_count: AtomicU64,
    /// What was asked for, counted.
    pub(crate) questions: AtomicUsize,
    /// Nothing before this can be measured any more.
    pub(crate) retained_from_ms: AtomicI64,
}

/// How far back a test's charged usage is corrected.
pub(crate) const CORRECTION_REACH_MS: i64 = 400 * 86_400_000;

impl FakeUsage {
    pub(crate) fn add(&self, service: ServiceId, at: &str, bytes_in: u64, bytes_out: u64) {
        self.add_at(service, ms(at), bytes_in, bytes_out);
    }

    pub(crate) fn add_at(&self, service: ServiceId, at_ms: i64, bytes_in: u64, bytes_out: u64) {
        let window = WindowStart::containing(at_ms).start_ms();
        let mut written = self.written.lock().unwrap();
        let sums = written.entry((service.number(), window)).or_default();
        sums.0 += bytes_in;
        sums.1 += bytes_out;
        self.change([window]);
    }

    fn change(&self, windows: impl IntoIterator<Item = i64>) {
        let mut changes = self.changes.lock().unwrap();
        let number = self.change_count.fetch_add(1, Ordering::Relaxed) + 1;
        changes.extend(windows.into_iter().map(|window| (window, number)));
    }

    pub(crate) fn silence(&self, from: &str, to: &str) {
        self.silence_between(ms(from), ms(to));
    }

    pub(crate) fn silence_between(&self, from_ms: i64, to_ms: i64) {
        let silent: Vec<i64> = windows(from_ms, to_ms).map(WindowStart::start_ms).collect();
        self.unheard.lock().unwrap().extend(silent.iter().copied());
        self.change(silent);
    }

    /// Holds what was not measured, with data up to an instant.
    pub(crate) fn guard(&self, guards: MeasureGuards, heard_until: &str) {
        *self.guards.lock().unwrap() = guards;
        *self.heard_until_ms.lock().unwrap() = Some(ms(heard_until));
    }

    fn measure(&self, query: &UsageQuery, now_ms: i64) -> PeriodUsage {
        let closed_ms = WindowStart::containing(now_ms - LATENESS_MS).start_ms();
        let measured_to_ms = query.to_ms.min(closed_ms).max(query.from_ms);
        let (written, unheard) = (self.written.lock().unwrap(), self.unheard.lock().unwrap());
        let (mut bytes_in, mut bytes_out, mut windows_expected) = (0, 0, 0);
        let (mut windows_excluded, mut excluded_bytes_in, mut excluded_bytes_out) = (0, 0, 0);
        let first_ms = WindowStart::containing(query.from_ms).start_ms();
        if query.excluded.is_empty()
            && first_ms < measured_to_ms
            && unheard.range(first_ms..measured_to_ms).next().is_none()
        {
            // All were measured: those that nothing was written of need no look.
            windows_expected = window_count(first_ms, measured_to_ms);
            let service = query.service.id.number();
            let mut percentile = Percentile95::new(windows_expected, query.mode);
            for (_, (window_in, window_out)) in written.range((service, first_ms)..(service, measured_to_ms)) {
                bytes_in += window_in;
                bytes_out += window_out;
                percentile.add(*window_in, *window_out);
            }
            return PeriodUsage {
                service,
                from_ms: query.from_ms,
                to_ms: query.to_ms,
                measured_to_ms,
                bytes_in,
                bytes_out,
                billed_bytes: billed(query.mode, bytes_in, bytes_out),
                percentile_95_bps: percentile.bps(),
                percentile_rank: rank_95(windows_expected),
                windows_measured: windows_expected,
                windows_expected,
                windows_excluded,
                excluded_bytes_in,
                excluded_bytes_out,
                error_bound_ppm: 0,
                gaps: Vec::new(),
            };
        }
        let mut ranked = Vec::new();
        let mut gaps: Vec<Gap> = Vec::new();
        for window in windows(query.from_ms, measured_to_ms) {
            let sums = written.get(&(query.service.id.number(), window.start_ms()));
            let (window_in, window_out) = sums.copied().unwrap_or_default();
            windows_expected += 1;
            let start_ms = window.start_ms();
            if query
                .excluded
                .iter()
                .any(|(from_ms, to_ms)| (*from_ms..*to_ms).contains(&start_ms))
            {
                windows_excluded += 1;
                excluded_bytes_in += window_in;
                excluded_bytes_out += window_out;
                continue;
            }
            bytes_in += window_in;
            bytes_out += window_out;
            if !unheard.contains(&window.start_ms()) {
                ranked.push((window_in, window_out));
                continue;
            }
            match gaps.last_mut() {
                Some(gap) if gap.to_ms == window.start_ms() => gap.to_ms = window.end_ms(),
                _ => gaps.push(Gap {
                    from_ms: window.start_ms(),
                    to_ms: window.end_ms(),
                    exporter: Address::from_v4([192, 0, 2, 1]),
                }),
            }
        }
        PeriodUsage {
            service: query.service.id.number(),
            from_ms: query.from_ms,
            to_ms: query.to_ms,
            measured_to_ms,
            bytes_in,
            bytes_out,
            billed_bytes: billed(query.mode, bytes_in, bytes_out),
            percentile_95_bps: percentile_95_bps(&ranked, query.mode),
            percentile_rank: rank_95(ranked.len() as u64),
            windows_measured: ranked.len() as u64,
            windows_expected,
            windows_excluded,
            excluded_bytes_in,
            excluded_bytes_out,
            error_bound_ppm: 0,
            gaps,
        }
    }
}

fn billed(mode: UsageMode, bytes_in: u64, bytes_out: u64) -> u64 {
    match mode {
        UsageMode::Sum => bytes_in + bytes_out,
        UsageMode::In => bytes_in,
        UsageMode::Out => bytes_out,
        UsageMode::Max => bytes_in.max(bytes_out),
    }
}

#[async_trait]
impl UsageSource for FakeUsage {
    fn guards(&self) -> MeasureGuards {
        *self.guards.lock().unwrap()
    }

    async fn heard_until(&self) -> Result<Option<i64>, UsageError> {
        Ok(*self.heard_until_ms.lock().unwrap())
    }

    async fn settle(&self) -> Result<(), UsageError> {
        Ok(())
    }

    fn corrected_from_ms(&self, now_ms: i64) -> i64 {
        now_ms - CORRECTION_REACH_MS
    }

    async fn marks(&self, periods: &[(i64, i64)]) -> Result<Vec<Option<String>>, UsageError> {
        let changes = self.changes.lock().unwrap();
        let retained_from_ms = self.retained_from_ms.load(Ordering::Relaxed);
        let mark = |(from_ms, to_ms): &(i64, i64)| {
            let newest = changes.range(*from_ms..*to_ms).map(|(_, number)| *number).max();
            (*from_ms >= retained_from_ms).then(|| newest.unwrap_or(0).to_string())
        };
        Ok(periods.iter().map(mark).collect())
    }

    async fn period_usage(&self, queries: &[UsageQuery], now_ms: i64) -> Result<Vec<PeriodUsage>, UsageError> {
        self.questions.fetch_add(queries.len(), Ordering::Relaxed);
        Ok(queries.iter().map(|query| self.measure(query, now_ms)).collect())
    }

    async fn windows_from_flows(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<WindowUsage>, UsageError> {
        let number = service.id.number();
        let written = self.written.lock().unwrap();
        let rows = written.range((number, from_ms)..(number, to_ms));
        Ok(rows
            .map(|((_, window_start_ms), (bytes_in, bytes_out))| WindowUsage {
                window_start_ms: *window_start_ms,
                bytes_in: *bytes_in,
                bytes_out: *bytes_out,
                ..WindowUsage::default()
            })
            .collect())
    }

    async fn days(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
        zone: &TimeZone,
    ) -> Result<Vec<SeriesPoint>, UsageError> {
        let date = |at_ms| {
            Timestamp::from_millisecond(at_ms)
                .unwrap()
                .to_zoned(zone.clone())
                .date()
        };
        let mut days: BTreeMap<jiff::civil::Date, SeriesPoint> = BTreeMap::new();
        let rows = self.windows_from_flows(service, from_ms, to_ms).await?;
        for window in windows(from_ms, to_ms) {
            let point = days.entry(date(window.start_ms())).or_insert(SeriesPoint {
                start_ms: window.start_ms(),
                end_ms: window.end_ms(),
                bytes_in: 0,
                bytes_out: 0,
                windows_measured: 0,
                windows: 0,
                error_bound_ppm: 0,
            });
            point.end_ms = window.end_ms();
            point.windows += 1;
            point.windows_measured += 1;
            if let Some(row) = rows.iter().find(|row| row.window_start_ms == window.start_ms()) {
                point.bytes_in += row.bytes_in;
                point.bytes_out += row.bytes_out;
            }
        }
        Ok(days.into_values().collect())
    }

    async fn top_peers(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
        limit: usize,
    ) -> Result<Vec<Peer>, UsageError> {
        let rows = self.windows_from_flows(service, from_ms, to_ms).await?;
        let peer = Peer {
            address: Address::from_v4([198, 51, 100, 7]),
            autonomous_system: 64500,
            bytes_in: rows.iter().map(|row| row.bytes_in).sum(),
            bytes_out: rows.iter().map(|row| row.bytes_out).sum(),
        };
        Ok([peer].into_iter().take(limit).collect())
    }
}

pub(crate) struct World {
    pub(crate) database: Database,
    pub(crate) usage: FakeUsage,
    _home: Home,
}

/// What a world's database lives in.
#[derive(Debug)]
enum Home {
    Folder {
        _folder: tempfile::TempDir,
    },
    Server {
        _database: TestDatabase,
    },
    /// Whoever made the world keeps it.
    Elsewhere,
}

/// Makes the entity that is there from the start one that somebody added, whatever it is called: it issues invoices.
pub(crate) async fn with_issuer(database: &Database) {
    sqlx::query("UPDATE entities SET created_at_ms = 1")
        .execute(database.pool())
        .await
        .unwrap();
}

/// Puts a migrated database into a folder: a copy, because migrating takes longer than most tests.
pub(crate) async fn migrated(folder: &Path) {
    let migrate = async |folder: PathBuf| {
        let database = Database::open(&Database::default_url(&folder)).await.unwrap();
        with_issuer(&database).await;
        database.pool().close().await;
    };
    fixtures::sqlite(folder, env!("CARGO_PKG_NAME"), migrate).await;
}

/// What a subscription of a test is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deal {
    pub(crate) terms: Terms,
    pub(crate) base_minor: i64,
    pub(crate) usage_price: &'static str,
    pub(crate) base_timing: BaseTiming,
    pub(crate) cycle_months: i64,
    pub(crate) anchor_day: Option<i64>,
    pub(crate) started_at: &'static str,
}

pub(crate) const TRANSFER: Terms = Terms::Transfer {
    included_units: 1000,
    unit: QuotaUnit::Gib,
    mode: UsageMode::Sum,
};

pub(crate) const DEAL: Deal = Deal {
    terms: TRANSFER,
    base_minor: 2000,
    usage_price: "0.05",
    base_timing: BaseTiming::Arrears,
    cycle_months: 1,
    anchor_day: None,
    started_at: "2026-01-01T00:00:00Z",
};

impl World {
    pub(crate) async fn new() -> World {
        let folder = fixtures::in_memory_folder();
        migrated(folder.path()).await;
        World::in_folder(folder).await
    }

    pub(crate) async fn on_postgres() -> World {
        World::on_copy_of(&Postgres::filled("with_issuer", with_issuer).await).await
    }

    /// On a copy of a PostgreSQL database.
    pub(crate) async fn on_copy_of(postgres: &Postgres) -> World {
        let copy = postgres.copy();
        let database = Database::open(&copy.url()).await.unwrap();
        World {
            _home: Home::Server { _database: copy },
            ..World::on(database)
        }
    }

    /// On a copy of a SQLite database that nobody has open.
    pub(crate) async fn on_copy(file: &Path) -> World {
        let folder = fixtures::in_memory_folder();
        std::fs::copy(file, folder.path().join("ezscale.db")).unwrap();
        World::in_folder(folder).await
    }

    async fn in_folder(folder: tempfile::TempDir) -> World {
        let database = Database::open(&Database::default_url(folder.path())).await.unwrap();
        World {
            _home: Home::Folder { _folder: folder },
            ..World::on(database)
        }
    }

    /// On a database that is kept elsewhere.
    pub(crate) fn on(database: Database) -> World {
        World {
            database,
            usage: FakeUsage::default(),
            _home: Home::Elsewhere,
        }
    }

    pub(crate) async fn customer(&self, currency: &str, time_zone: &str, tax_rate_percent: &str) -> CustomerId {
        let mut transaction = self.database.begin_write().await.unwrap();
        let count = inventory::customers(&mut *transaction).await.unwrap().len();
        let new = NewCustomer {
            name: "Ada Hosting",
            email: &format!("customer-{count}@example.net"),
            currency,
            time_zone,
            country: "DE",
            tax_rate_percent,
        };
        let customer = inventory::create_customer(&mut transaction, new, 0).await.unwrap();
        transaction.commit().await.unwrap();
        customer.id
    }

    pub(crate) async fn plan_and_price(&self, currency: &str, deal: Deal) -> (Plan, Price) {
        let mut transaction = self.database.begin_write().await.unwrap();
        let new = NewPlan {
            base_timing: deal.base_timing,
            ..NewPlan::new("VPS Pro", "vps", deal.terms)
        };
        let plan = catalog::create_plan(&mut transaction, new, 0).await.unwrap();
        let new = NewPrice {
            plan: plan.id,
            cycle_months: deal.cycle_months,
            base: Money::new(deal.base_minor, currency.parse().unwrap()),
            usage: deal.usage_price.parse().unwrap(),
            valid_from_ms: 0,
        };
        let price = catalog::add_price(&mut transaction, new).await.unwrap();
        transaction.commit().await.unwrap();
        (plan, price)
    }

    pub(crate) async fn service(&self, customer: CustomerId, name: &str) -> Service {
        let mut transaction = self.database.begin_write().await.unwrap();
        let new = NewService {
            customer,
            name,
            service_type: "vps",
            site: None,
        };
        let service = inventory::create_service(&mut transaction, new, 0).await.unwrap();
        transaction.commit().await.unwrap();
        service
    }

    pub(crate) async fn subscribe(&self, customer: CustomerId, deal: Deal) -> Contract {
        let mut connection = self.database.pool().acquire().await.unwrap();
        let owner = inventory::customer(&mut *connection, customer).await.unwrap();
        drop(connection);
        let (_, price) = self.plan_and_price(owner.currency.code(), deal).await;
        let service = self.service(customer, "web-1").await;
        let mut transaction = self.database.begin_write().await.unwrap();
        let new = NewSubscription {
            anchor_day: deal.anchor_day,
            ..NewSubscription::new(service.id, price.id, ms(deal.started_at))
        };
        let subscription = subscription::subscribe(&mut transaction, new, "test", ms(deal.started_at))
            .await
            .unwrap();
        let contract = subscription::contract(&mut transaction, subscription.id).await.unwrap();
        transaction.commit().await.unwrap();
        contract
    }
}

/// Whole windows of a range, for expectations.
pub(crate) fn window_count(from_ms: i64, to_ms: i64) -> u64 {
    ((to_ms - from_ms) / WINDOW_MS) as u64
}
