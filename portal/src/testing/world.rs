//! A small host with real stored flows: two customers, three services on the three billing models, 45 days of traffic with
//! one hour missing, and the invoices of last month.

use std::path::Path;

use analytics::{Analytics, UsageMode};
use billing::catalog::{BaseTiming, NewPlan, NewPrice, QuotaUnit, Terms, add_price, create_plan};
use billing::subscription::{NewSubscription, subscribe};
use rust_decimal::Decimal;
use schemas::address::Address;
use schemas::ids::{CustomerId, InvoiceId, InvoiceLineId, ServiceId};
use schemas::inventory::{NewService, create_service};
use schemas::money::{Currency, Money};
use schemas::window::{DAY_MS, HOUR_MS, WINDOW_MS};
use tables::collection::{CollectionRow, collection_to_batch};
use tables::definitions::COLLECTION_5M;
use tables::flow::{FLOWS, Flow, Metered, flows_to_batch};
use tables::table::{Commit, FileEncoding, FileEntry, Table, write_parquet};

use super::{NOW_MS, TestPortal};

/// When traffic and subscriptions start: 2025-05-01T00:00:00Z.
pub(crate) const START_MS: i64 = 1_746_057_600_000;
/// The hour in which nothing was heard: 2025-06-10T03:00:00Z.
pub(crate) const GAP_MS: i64 = 1_749_524_400_000;

/// Services of the world and the bytes that each receives in an hour; it sends twice that.
const HOURLY_BYTES: [u64; 3] = [600_000_000, 1_200_000_000, 90_000_000];
/// Share of the traffic by remote address, in percent, and its network.
const PEERS: [(&str, u32, u64); 4] = [
    ("198.51.100.7", 64_500, 46),
    ("203.0.113.80", 64_501, 31),
    ("2001:db8:40::9", 64_502, 17),
    ("198.51.100.201", 0, 6),
];

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) portal: TestPortal,
    /// Signs in as `ada@example.net`; owns `transfer` and `percentile`.
    pub(crate) ada: CustomerId,
    pub(crate) transfer: ServiceId,
    pub(crate) percentile: ServiceId,
    /// Signs in as `bob@example.net`; owns `flat`.
    pub(crate) flat: ServiceId,
    /// Last month's invoices, and a usage line of ada's.
    pub(crate) invoice_of_ada: InvoiceId,
    pub(crate) invoice_of_bob: InvoiceId,
    pub(crate) usage_line: InvoiceLineId,
}

impl World {
    pub(crate) async fn new() -> World {
        let portal = TestPortal::with(write_tables).await;
        let analytics = Analytics::open(portal.state.data_dir()).unwrap();
        analytics.refresh_rollups(|_| {}).await.unwrap();
        let ada = portal.customer("ada").await;
        let bob = portal.customer("bob").await;
        let transfer = Terms::Transfer {
            included_units: 1000,
            unit: QuotaUnit::Gb,
            mode: UsageMode::Sum,
        };
        let percentile = Terms::Percentile {
            commit_mbps: Decimal::from(5),
            mode: UsageMode::Max,
        };
        let transfer = service(&portal, ada, "db-primary", "vps", transfer, "0.05").await;
        let percentile = service(&portal, ada, "edge-cache", "dedicated", percentile, "1.20").await;
        let flat = service(&portal, bob, "bobs-blog", "web", Terms::Flat, "0").await;
        assert_eq!(
            (transfer.0, percentile.0, flat.0),
            (1, 2, 3),
            "the services that the flows name"
        );

        // What an electronic invoice must say of its seller and buyer.
        for sql in [
            "UPDATE entities SET street = '1 Main Street', postal_code = '10001', city = 'New York', \
             email = 'billing@example.net', registration = 'NY 1'",
            "UPDATE customers SET street = '2 Side Street', postal_code = '10002', city = 'New York'",
        ] {
            sqlx::query(sql).execute(portal.state.db().pool()).await.unwrap();
        }

        let usage = crate::customer::metered_usage(&portal.state);
        let mut invoices = Vec::new();
        for customer in [ada, bob] {
            billing::invoice::close(portal.state.db(), &usage, customer, NOW_MS)
                .await
                .unwrap();
            let of_customer = billing::invoice::list_of(portal.state.db().pool(), customer)
                .await
                .unwrap();
            invoices.push(of_customer.first().unwrap().id);
        }
        let invoice = billing::invoice::get(portal.state.db(), invoices[0]).await.unwrap();
        let usage_line = invoice.lines.iter().find(|line| line.kind.is_usage()).unwrap().id;
        World {
            portal,
            ada,
            transfer,
            percentile,
            flat,
            invoice_of_ada: invoices[0],
            invoice_of_bob: invoices[1],
            usage_line,
        }
    }
}

async fn service(
    portal: &TestPortal,
    customer: CustomerId,
    name: &str,
    service_type: &str,
    terms: Terms,
    usage_rate: &str,
) -> ServiceId {
    let mut transaction = portal.state.db().begin_write().await.unwrap();
    let plan_name = format!("{service_type} {}", terms.name());
    let plan = NewPlan {
        base_timing: BaseTiming::Arrears,
        ..NewPlan::new(&plan_name, service_type, terms)
    };
    let plan = create_plan(&mut transaction, plan, START_MS).await.unwrap();
    let price = NewPrice {
        plan: plan.id,
        cycle_months: 1,
        base: Money::new(4900, Currency::USD),
        usage: usage_rate.parse().unwrap(),
        valid_from_ms: START_MS,
    };
    let price = add_price(&mut transaction, price).await.unwrap();
    let new = NewService {
        customer,
        name,
        service_type,
        site: None,
    };
    let service = create_service(&mut transaction, new, START_MS).await.unwrap();
    let subscription = NewSubscription {
        anchor_day: Some(1),
        ..NewSubscription::new(service.id, price.id, START_MS)
    };
    subscribe(&mut transaction, subscription, "test", START_MS)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    service.id
}

fn exporter() -> Address {
    "192.0.2.1".parse().unwrap()
}

/// More by day than by night, in percent of the mean.
fn shape(hour: i64) -> u64 {
    const BY_HOUR: [u64; 24] = [
        60, 50, 45, 40, 40, 50, 65, 80, 100, 120, 130, 135, 140, 140, 135, 130, 130, 135, 140, 145, 140, 120, 100, 70,
    ];
    BY_HOUR[usize::try_from(hour.rem_euclid(24)).unwrap()]
}

fn flows() -> Vec<Flow> {
    let mut flows = Vec::new();
    for start_ms in (START_MS..NOW_MS).step_by(usize::try_from(HOUR_MS).unwrap()) {
        if start_ms == GAP_MS {
            continue;
        }
        for (number, hourly) in (1u32..).zip(HOURLY_BYTES) {
            let inside: Address = format!("10.0.0.{number}").parse().unwrap();
            for (address, autonomous_system, percent) in PEERS {
                let outside: Address = address.parse().unwrap();
                let bytes = hourly * shape(start_ms / HOUR_MS) / 100 * percent / 100 / 1000;
                let received = Flow {
                    received_at_ms: start_ms + HOUR_MS,
                    start_at_ms: start_ms,
                    end_at_ms: start_ms + HOUR_MS - 1,
                    exporter: exporter(),
                    protocol_version: 10,
                    sampling_rate: 1000,
                    metered: Metered::In,
                    src_addr: outside,
                    dst_addr: inside,
                    src_as: autonomous_system,
                    dst_service: number,
                    bytes,
                    packets: bytes / 900,
                    ..Flow::default()
                };
                flows.push(received);
                flows.push(Flow {
                    metered: Metered::Out,
                    src_addr: inside,
                    dst_addr: outside,
                    src_as: 0,
                    dst_as: autonomous_system,
                    src_service: number,
                    dst_service: 0,
                    bytes: 2 * bytes,
                    ..received
                });
            }
        }
    }
    flows
}

/// Where the one file of each table lies.
const FILE: &str = "2025-05-01/all.parquet";

/// Names the file in the table's manifest.
fn commit(table: &Table, rows: usize, size_bytes: u64, min_ms: i64, max_ms: i64) {
    let entry = FileEntry {
        path: FILE.to_owned(),
        rows: rows as u64,
        size_bytes,
        min_time_ms: min_ms,
        max_time_ms: max_ms,
        sequence: 0,
        encoding: FileEncoding::Open,
    };
    let commit = Commit {
        add: vec![entry],
        ..Commit::default()
    };
    assert!(table.commit(commit).unwrap());
}

/// One datagram in every window but those of the gap.
fn collection() -> Vec<CollectionRow<'static>> {
    let windows = (START_MS..NOW_MS)
        .step_by(usize::try_from(WINDOW_MS).unwrap())
        .filter(|start_ms| !(GAP_MS..GAP_MS + HOUR_MS).contains(start_ms));
    let rows = windows.map(|window_start_ms| CollectionRow {
        window_start_ms,
        exporter: exporter(),
        observation_domain: 0,
        protocol_version: 10,
        counter: "datagrams",
        value: 1,
    });
    rows.collect()
}

fn write_tables(dir: &Path) {
    let flows = flows();
    let table = Table::open(dir, &FLOWS).unwrap();
    let size_bytes = write_parquet(&table, FILE, [&flows_to_batch(&flows)]).unwrap();
    commit(&table, flows.len(), size_bytes, START_MS, NOW_MS + DAY_MS);
    let collection = collection();
    let table = Table::open(dir, &COLLECTION_5M).unwrap();
    let size_bytes = write_parquet(&table, FILE, [&collection_to_batch(&collection)]).unwrap();
    commit(&table, collection.len(), size_bytes, START_MS, NOW_MS);
}
