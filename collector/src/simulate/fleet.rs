//! The demonstration's fleet: who is there and what their exporters report.
//!
//! Promises:
//! * Everything is a function of the seed: the same fleet, and for any span of time the same flows, however the time is
//!   cut into slices (a flow belongs to the slice in which it ends).
//! * NYC1 and FRA1 are metered at the boundary of their routers (IPFIX, v9), SIN1 at its switch (sFlow). FRA1's switch
//!   sees what its router sees and must not be counted: `meter = off`.
//! * A flow's bytes and packets are sampled ones, and each flow fits its exporter's protocol.
//! * No allocation per flow.
//!
//! sFlow carries no times: its samples count when they are received, so whoever replays history hands them over in slices
//! and lets each be received just before its slice ends.
//!
//! Volumes: mean rate of the service × hour and day of the week at its site × a slow drift × noise × spikes. The sums of
//! a window's flows come out at that volume, less what sampling in whole packets cannot show.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemas::address::Address;
use schemas::metering::{ExporterConfig, MeterDirection, MeterMode};
use schemas::window::windows;
use std::net::{Ipv4Addr, Ipv6Addr};
use tables::flow::Flow;

use super::encode::SimProtocol;
use super::names::{COMPANIES, COUNTRIES, PLANS};
pub use super::parts::{FleetBilling, FleetExporter, FleetPlan, ROUTER_EXTERNAL_IFS, SWITCH_UPLINK_IFS, ServiceKind};
use super::profile::{Profile, window_flows};
use super::rng::Rng;

/// Customers of the fleet.
pub const CUSTOMERS: usize = COMPANIES.len();
/// Services of the fleet.
pub const SERVICES: usize = 150;

/// A customer; its number is its index + 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FleetCustomer {
    pub name: &'static str,
    pub email: String,
    /// ISO 4217.
    pub currency: &'static str,
    /// IANA name.
    pub time_zone: &'static str,
    /// ISO 3166 alpha-2.
    pub country: &'static str,
}

/// A service; its number is its index + 1.
#[derive(Clone, PartialEq, Debug)]
pub struct FleetService {
    pub name: String,
    pub kind: ServiceKind,
    /// Index into [`Fleet::customers`].
    pub customer: usize,
    pub site: &'static str,
    /// Index into [`Fleet::plans`].
    pub plan: usize,
    /// Its networks, to be assigned.
    pub prefixes: Vec<IpNet>,
    profile: Profile,
}

/// The whole fleet.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub exporters: Vec<FleetExporter>,
    pub plans: Vec<FleetPlan>,
    pub customers: Vec<FleetCustomer>,
    pub services: Vec<FleetService>,
    seed: u64,
}

/// The datacenters: name, third-level IPv4 network, last word of the IPv6 network, UTC offset of the busiest clock.
struct Site {
    name: &'static str,
    v4: [u8; 2],
    v6: u16,
    utc_offset_hours: i64,
    services: usize,
}

/// Benchmarking (RFC 2544) and documentation (RFC 3849) networks, so nobody's real ones. Summer time is left out.
const SITES: [Site; 3] = [
    Site {
        name: "NYC1",
        v4: [198, 18],
        v6: 0x0a01,
        utc_offset_hours: -5,
        services: 62,
    },
    Site {
        name: "FRA1",
        v4: [198, 19],
        v6: 0x0b01,
        utc_offset_hours: 1,
        services: 58,
    },
    Site {
        name: "SIN1",
        v4: [203, 0],
        v6: 0x0c01,
        utc_offset_hours: 8,
        services: 30,
    },
];

const NYC1_ROUTER: usize = 0;
const FRA1_ROUTER: usize = 1;
const FRA1_SWITCH: usize = 2;
const SIN1_SWITCH: usize = 3;

impl Fleet {
    pub fn new(seed: u64) -> Fleet {
        let customers = customers();
        let services = services(seed, customers.len());
        Fleet {
            exporters: exporters(),
            plans: PLANS.to_vec(),
            customers,
            services,
            seed,
        }
    }

    /// Names of the datacenters.
    pub fn sites() -> [&'static str; 3] {
        SITES.map(|site| site.name)
    }

    pub fn plan_of(&self, service: &FleetService) -> &FleetPlan {
        &self.plans[service.plan]
    }

    /// Appends what all exporters report of the flows that end in `[from_ms, to_ms)`, exporter by exporter, with the
    /// exporter's address, rate and domain set. Routers report about `density` flows per service and five minutes; the
    /// switches' samples follow from their rate.
    pub fn flows(&self, from_ms: i64, to_ms: i64, density: u32, out: &mut Vec<Flow>) {
        for exporter in 0..self.exporters.len() {
            self.flows_of(exporter, from_ms, to_ms, density, out);
        }
    }

    /// As [`Fleet::flows`], of one exporter by its index.
    pub fn flows_of(&self, exporter: usize, from_ms: i64, to_ms: i64, density: u32, out: &mut Vec<Flow>) {
        let reporter = &self.exporters[exporter];
        for window in windows(from_ms, to_ms) {
            for (index, service) in self.services.iter().enumerate() {
                if service.site == reporter.site() {
                    window_flows(
                        reporter,
                        &service.profile,
                        self.seed ^ index as u64,
                        window.start_ms(),
                        density,
                        |flow| {
                            if (from_ms..to_ms).contains(&flow.end_at_ms) {
                                out.push(flow);
                            }
                        },
                    );
                }
            }
        }
    }
}

fn exporters() -> Vec<FleetExporter> {
    let exporter = |index: usize, name: &str, site: usize, protocol, meter, external: &[u32], sampling_rate| {
        let address = Address::from_v4([127, 0, 0, 11 + index as u8]);
        let config = ExporterConfig {
            name: Some(name.to_owned()),
            site: Some(SITES[site].name.to_owned()),
            meter,
            direction: Some(MeterDirection::Ingress),
            external_interfaces: external.to_vec(),
            ..ExporterConfig::unlisted(address)
        };
        FleetExporter {
            config,
            protocol,
            sampling_rate,
            observation_domain: match protocol {
                SimProtocol::Sflow => 0,
                _ => 1 + index as u32,
            },
        }
    };
    let boundary = MeterMode::Boundary;
    let (router_ifs, uplinks) = (&ROUTER_EXTERNAL_IFS[..], &SWITCH_UPLINK_IFS[..]);
    vec![
        exporter(
            NYC1_ROUTER,
            "mx1.nyc1",
            0,
            SimProtocol::Ipfix,
            boundary,
            router_ifs,
            1_000,
        ),
        exporter(FRA1_ROUTER, "mx1.fra1", 1, SimProtocol::V9, boundary, router_ifs, 512),
        exporter(
            FRA1_SWITCH,
            "qfx1.fra1",
            1,
            SimProtocol::Sflow,
            MeterMode::Off,
            uplinks,
            1_048_576,
        ),
        exporter(
            SIN1_SWITCH,
            "ex1.sin1",
            2,
            SimProtocol::Sflow,
            boundary,
            uplinks,
            65_536,
        ),
    ]
}

fn customers() -> Vec<FleetCustomer> {
    let customers = COMPANIES.iter().map(|(name, country)| {
        let country = &COUNTRIES[*country];
        let slug: String = name.to_lowercase().split_whitespace().collect::<Vec<_>>().join("-");
        FleetCustomer {
            name,
            email: format!("ops@{slug}.{}.example", country.domain),
            currency: country.currency,
            time_zone: country.time_zone,
            country: country.code,
        }
    });
    customers.collect()
}

/// Share of each kind in percent.
const KIND_SHARES: [(ServiceKind, u64); 6] = [
    (ServiceKind::Vps, 34),
    (ServiceKind::Web, 22),
    (ServiceKind::Dedicated, 16),
    (ServiceKind::Game, 13),
    (ServiceKind::Mysql, 8),
    (ServiceKind::Workspace, 7),
];

fn services(seed: u64, customer_count: usize) -> Vec<FleetService> {
    let mut services = Vec::with_capacity(SERVICES);
    let mut numbers = [0u32; ServiceKind::ALL.len()];
    let site_of_index = interleaved_sites();
    let mut blocks = [0u16; SITES.len()];
    for (index, &site_index) in site_of_index.iter().enumerate() {
        let site = &SITES[site_index];
        let mut rng = Rng::keyed(seed, [1, index as u64, 0]);
        let kind = pick_kind(&mut rng);
        // Everybody has a service; the rest falls to a few more than to others.
        let customer = match index {
            index if index < customer_count => index,
            _ => (rng.unit().powi(2) * customer_count as f64) as usize,
        };
        let number = &mut numbers[kind as usize];
        *number += 1;
        let block = blocks[site_index];
        blocks[site_index] += 1;
        let v4_length = if kind == ServiceKind::Dedicated { 29 } else { 32 };
        let mut prefixes = vec![IpNet::V4(v4_prefix(site, block, v4_length))];
        if rng.below(3) == 0 {
            prefixes.push(IpNet::V6(v6_prefix(site, block)));
        }
        let plan = pick_plan(&mut rng, kind);
        let profile = Profile::new(
            &mut rng,
            kind,
            &PLANS[plan].billing,
            site.utc_offset_hours,
            &prefixes,
            block,
            site_index,
        );
        services.push(FleetService {
            name: format!("{}-{:02}.{}", kind.name(), number, site.name.to_lowercase()),
            kind,
            customer,
            site: site.name,
            plan,
            prefixes,
            profile,
        });
    }
    services
}

/// Sites in turn until each has its number of services.
fn interleaved_sites() -> Vec<usize> {
    let mut left = SITES.map(|site| site.services);
    let mut order = Vec::with_capacity(SERVICES);
    while order.len() < SERVICES && left.iter().any(|count| *count > 0) {
        for (site, count) in left.iter_mut().enumerate() {
            if *count > 0 {
                *count -= 1;
                order.push(site);
            }
        }
    }
    order
}

fn pick_kind(rng: &mut Rng) -> ServiceKind {
    let mut roll = rng.below(100);
    for (kind, share) in KIND_SHARES {
        if roll < share {
            return kind;
        }
        roll -= share;
    }
    ServiceKind::Vps
}

fn pick_plan(rng: &mut Rng, kind: ServiceKind) -> usize {
    let of_kind = PLANS.iter().filter(|plan| plan.kind == kind).count() as u64;
    let nth = rng.below(of_kind) as usize;
    let found = PLANS.iter().enumerate().filter(|(_, plan)| plan.kind == kind).nth(nth);
    found.map_or(0, |(index, _)| index)
}

/// Each service has a block of eight addresses.
fn v4_prefix(site: &Site, block: u16, length: u8) -> Ipv4Net {
    let offset = (u32::from(block) + 1) * 8;
    let [a, b] = site.v4;
    // SIN1 lies in 203.0.113.0/24, which has room for its blocks.
    let third = if a == 203 { 113 } else { 16 };
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(a, b, third, 0)) + offset);
    Ipv4Net::new_assert(address, length)
}

fn v6_prefix(site: &Site, block: u16) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, site.v6, block + 1, 0, 0, 0, 0), 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::encode::SimExporter;
    use schemas::assignment::{Assignment, Assignments, Target};
    use schemas::metering::MeteringConfig;
    use schemas::window::{DAY_MS, WINDOW_MS};
    use std::collections::HashSet;
    use std::sync::Arc;
    use tables::flow::Metered;
    use tables::metering::Enricher;

    const DENSITY: u32 = 3;
    /// Monday 2026-11-02 00:00 UTC.
    const MONDAY_MS: i64 = 1_793_577_600_000;

    fn flows(fleet: &Fleet, from_ms: i64, to_ms: i64, density: u32) -> Vec<Flow> {
        let mut flows = Vec::new();
        fleet.flows(from_ms, to_ms, density, &mut flows);
        flows
    }

    fn enricher(fleet: &Fleet) -> Enricher {
        let assignments = fleet.services.iter().enumerate().flat_map(|(index, service)| {
            service.prefixes.iter().map(move |prefix| Assignment {
                service: index as u32 + 1,
                target: Target::Prefix(*prefix),
                valid_from_ms: 0,
                valid_to_ms: None,
            })
        });
        let config = MeteringConfig {
            own_networks: Vec::new(),
            exporters: fleet.exporters.iter().map(|exporter| exporter.config.clone()).collect(),
            ..MeteringConfig::default()
        };
        Enricher::new(&config, Arc::new(Assignments::new(assignments).unwrap()))
    }

    #[test]
    fn the_fleet_is_what_was_asked_for() {
        let fleet = Fleet::new(1);
        assert_eq!(
            (fleet.customers.len(), fleet.services.len(), fleet.exporters.len()),
            (60, 150, 4)
        );
        let names: HashSet<&str> = fleet.services.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names.len(), SERVICES);
        let emails: HashSet<&str> = fleet.customers.iter().map(|customer| customer.email.as_str()).collect();
        assert_eq!(emails.len(), CUSTOMERS);
        let currencies: HashSet<&str> = fleet.customers.iter().map(|customer| customer.currency).collect();
        assert_eq!(currencies, HashSet::from(["USD", "EUR", "GBP"]));
        for customer in &fleet.customers {
            jiff::tz::TimeZone::get(customer.time_zone).unwrap();
        }
        for site in Fleet::sites() {
            assert!(fleet.services.iter().any(|service| service.site == site));
        }
        let on = |wanted: fn(&FleetBilling) -> bool| {
            let services = fleet
                .services
                .iter()
                .filter(|service| wanted(&fleet.plan_of(service).billing));
            services.count()
        };
        assert!(on(|billing| matches!(billing, FleetBilling::Flat)) > 10);
        assert!(on(|billing| matches!(billing, FleetBilling::Transfer { .. })) > 10);
        assert!(on(|billing| matches!(billing, FleetBilling::Percentile95 { .. })) > 5);
        let prefixes: Vec<IpNet> = fleet
            .services
            .iter()
            .flat_map(|service| service.prefixes.clone())
            .collect();
        for (index, prefix) in prefixes.iter().enumerate() {
            assert_eq!(*prefix, prefix.trunc());
            assert!(
                prefixes[..index]
                    .iter()
                    .all(|other| !other.contains(prefix) && !prefix.contains(other))
            );
        }
        assert!(prefixes.iter().any(|prefix| prefix.addr().is_ipv6()));
    }

    #[test]
    fn slices_of_time_give_what_the_whole_gives() {
        let fleet = Fleet::new(5);
        let (from_ms, to_ms) = (MONDAY_MS, MONDAY_MS + 3 * WINDOW_MS);
        let key = |flow: &Flow| {
            (
                flow.exporter,
                flow.end_at_ms,
                flow.src_addr,
                flow.dst_addr,
                flow.bytes,
                flow.src_port,
            )
        };
        let mut whole = flows(&fleet, from_ms, to_ms, 8);
        let mut sliced = Vec::new();
        let mut at_ms = from_ms;
        for step_ms in [1_000, 17_001, 299_999, 90_000].into_iter().cycle() {
            let next_ms = (at_ms + step_ms).min(to_ms);
            sliced.extend(flows(&fleet, at_ms, next_ms, 8));
            at_ms = next_ms;
            if at_ms == to_ms {
                break;
            }
        }
        whole.sort_by_key(key);
        sliced.sort_by_key(key);
        assert_eq!(whole, sliced);
        assert_eq!(whole, {
            let mut again = flows(&Fleet::new(5), from_ms, to_ms, 8);
            again.sort_by_key(key);
            again
        });
        assert_ne!(whole.len(), flows(&Fleet::new(6), from_ms, to_ms, 8).len());
    }

    #[test]
    fn each_packet_is_metered_once_and_belongs_to_its_service() {
        let fleet = Fleet::new(2);
        let enricher = enricher(&fleet);
        let mut metered = [0u64; 2];
        for mut flow in flows(&fleet, MONDAY_MS, MONDAY_MS + 12 * WINDOW_MS, DENSITY) {
            assert!(flow.end_at_ms - flow.start_at_ms <= 60_000 && flow.start_at_ms <= flow.end_at_ms);
            enricher.enrich(&mut flow);
            let service = flow.src_service.max(flow.dst_service);
            assert!(flow.src_service.min(flow.dst_service) == 0 && service > 0);
            let exporter = fleet
                .exporters
                .iter()
                .find(|e| e.config.address == flow.exporter)
                .unwrap();
            assert_eq!(fleet.services[service as usize - 1].site, exporter.site());
            match flow.metered {
                Metered::No => assert_eq!(exporter.name(), "qfx1.fra1"),
                Metered::In => metered[0] += 1,
                Metered::Out => metered[1] += 1,
            }
        }
        assert!(metered[0] > 1_000 && metered[1] > 1_000, "{metered:?}");
    }

    #[test]
    fn a_day_fits_the_protocols_and_the_promised_number_of_flows() {
        let fleet = Fleet::new(3);
        let mut count = 0;
        for (index, exporter) in fleet.exporters.iter().enumerate() {
            let mut flows = Vec::new();
            fleet.flows_of(index, MONDAY_MS, MONDAY_MS + DAY_MS, DENSITY, &mut flows);
            let mut datagrams = Vec::new();
            let mut sim = SimExporter::new(exporter.sim_config(MONDAY_MS - DAY_MS));
            let sums = sim.encode(MONDAY_MS + DAY_MS, &flows, &mut datagrams).unwrap();
            count += sums.flows;
        }
        let in_35_days = count * 35;
        assert!((4_000_000..6_500_000).contains(&in_35_days), "{in_35_days}");
    }

    #[test]
    fn some_exceed_their_plan_and_some_do_not() {
        let fleet = Fleet::new(4);
        let enricher = enricher(&fleet);
        let mut window_bytes = vec![vec![0u64; 7 * 288]; SERVICES];
        for mut flow in flows(&fleet, MONDAY_MS, MONDAY_MS + 7 * DAY_MS, DENSITY) {
            enricher.enrich(&mut flow);
            if flow.metered != Metered::No {
                let window = (flow.end_at_ms - MONDAY_MS) / WINDOW_MS;
                let service = flow.src_service.max(flow.dst_service) as usize - 1;
                window_bytes[service][window as usize] += flow.bytes_scaled();
            }
        }
        let mut exceeded = [[0; 2]; 2];
        let mut idle = 0;
        for (service, windows) in fleet.services.iter().zip(&mut window_bytes) {
            let month_gib = (windows.iter().sum::<u64>() * 30 / 7) >> 30;
            idle += usize::from(month_gib < 3);
            windows.sort_unstable();
            let p95_mbps = windows[windows.len() * 95 / 100] * 8 / 300 / 1_000_000;
            match fleet.plan_of(service).billing {
                FleetBilling::Flat => {}
                FleetBilling::Transfer { included_gib } => exceeded[0][usize::from(month_gib > included_gib)] += 1,
                FleetBilling::Percentile95 { commit_mbps } => exceeded[1][usize::from(p95_mbps > commit_mbps)] += 1,
            }
        }
        println!(
            "within and over: transfer {:?}, 95th percentile {:?}; {idle} idle",
            exceeded[0], exceeded[1]
        );
        assert!(exceeded[0][0] > 20 && exceeded[0][1] > 5, "transfer: {exceeded:?}");
        assert!(
            exceeded[1][0] > 1 && exceeded[1][1] > 1,
            "95th percentile: {exceeded:?}"
        );
        assert!((2..20).contains(&idle), "{idle} idle");
    }

    #[test]
    fn density_changes_the_flows_not_the_volume() {
        let fleet = Fleet::new(9);
        let volume = |density| -> f64 {
            let mut flows = Vec::new();
            for router in [NYC1_ROUTER, FRA1_ROUTER] {
                fleet.flows_of(router, MONDAY_MS, MONDAY_MS + DAY_MS / 4, density, &mut flows);
            }
            flows.iter().map(|flow| flow.bytes_scaled() as f64).sum()
        };
        let ratio = volume(24) / volume(DENSITY);
        assert!((0.99..1.01).contains(&ratio), "{ratio}");
    }
}
