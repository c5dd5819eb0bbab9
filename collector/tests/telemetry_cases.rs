//! Captures of what devices send that an earlier version read wrong, each with its right value. The captures lie beside the
//! project (`../shared/cases/telemetry`, or `EZSCALE_TELEMETRY_CASES`): a stranger has none, and the tests are left out there, by name; where
//! `CI=true` they must be there. The same facts, made by our own encoders, are tests beside the code they are about
//! (`case_…` there).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "right values are written down where they are compared"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use collector::counts::Counter;
use collector::decode::dispatch::Dispatcher;
use collector::decode::{Decoded, DomainView};
use collector::import::{PortFilter, read_pcap_bytes};
use schemas::address::Address;
use schemas::assignment::{Assignment, Assignments, Target};
use schemas::metering::{ExporterConfig, MeterMode, MeteringConfig, TunnelMode};
use schemas::window::{WindowStart, spread};
use tables::flow::{Flow, Metered};
use tables::metering::Enricher;

use crate::beside::TELEMETRY_CASES;

/// The service that the captures' prefixes are assigned to.
const SERVICE: u32 = 1;
/// 2010-01-01T00:00:00Z.
const VALID_FROM_MS: i64 = 1_262_304_000_000;
/// 2026-11-29T12:00:00Z, when most of them were made.
const NOON_MS: i64 = 1_795_953_600_000;

fn capture(name: &str) -> Option<Vec<u8>> {
    if TELEMETRY_CASES.leaves_out(&format!("telemetry_cases::{name}")) {
        return None;
    }
    let folder = TELEMETRY_CASES.folder();
    let entries = std::fs::read_dir(&folder).expect("the folder of captures can be listed");
    let mut found = entries
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.starts_with(&format!("{name}_")) && file.ends_with(".pcap")
        });
    let path = found
        .next()
        .unwrap_or_else(|| panic!("no capture {name} in {}", folder.display()));
    Some(std::fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display())))
}

fn exporter() -> Address {
    "192.0.2.1".parse().unwrap()
}

/// How a capture is read.
struct Setup {
    metering: MeteringConfig,
    assignments: Arc<Assignments>,
}

fn plain() -> Setup {
    Setup {
        metering: MeteringConfig::default(),
        assignments: Arc::default(),
    }
}

impl Setup {
    /// `[collector] default_sampling_rate = 1`.
    fn unsampled(mut self) -> Setup {
        self.metering.decoding.default_sampling_rate = Some(1);
        self
    }

    fn service(mut self, target: Target) -> Setup {
        let assignment = [Assignment {
            service: SERVICE,
            target,
            valid_from_ms: VALID_FROM_MS,
            valid_to_ms: None,
        }];
        self.assignments = Arc::new(Assignments::new(assignment).expect("one assignment overlaps none"));
        self
    }

    fn prefix(self, prefix: &str) -> Setup {
        self.service(Target::Prefix(prefix.parse().unwrap()))
    }

    fn exporter(mut self, config: ExporterConfig) -> Setup {
        self.metering.exporters.push(config);
        self
    }

    fn read(&self, name: &str) -> Option<Read> {
        let bytes = capture(name)?;
        let mut dispatcher = Dispatcher::new(&self.metering);
        let mut decoded = Decoded::default();
        let (_, error) = read_pcap_bytes(&bytes, &PortFilter::FlowLike, |datagram| {
            dispatcher.decode(datagram, &mut decoded);
        });
        assert!(error.is_none(), "{name}: {error:?}");
        dispatcher.give_up_gaps(&mut decoded);
        let enricher = Enricher::new(&self.metering, self.assignments.clone());
        enricher.enrich_columns(&mut decoded.flows);
        Some(Read {
            flows: decoded.flows.rows(),
            domains: dispatcher.domains(),
            decoded,
        })
    }
}

/// What came of a capture.
struct Read {
    flows: Vec<Flow>,
    decoded: Decoded,
    domains: Vec<(Address, DomainView)>,
}

impl Read {
    fn count(&self, counter: Counter) -> u64 {
        self.decoded.counts.total(counter)
    }

    /// Bytes of the service, received and sent.
    fn volume(&self) -> (u64, u64) {
        let sum = |metered| {
            let counted = self.flows.iter().filter(|flow| flow.metered == metered);
            counted
                .filter(|flow| [flow.src_service, flow.dst_service].contains(&SERVICE))
                .map(Flow::bytes_scaled)
                .sum()
        };
        (sum(Metered::In), sum(Metered::Out))
    }

    /// Bytes of the service by window, whatever their direction.
    fn windows(&self) -> BTreeMap<i64, u64> {
        let mut windows = BTreeMap::new();
        for flow in self.flows.iter().filter(|flow| flow.metered != Metered::No) {
            spread(
                flow.bytes_scaled(),
                flow.start_at_ms,
                flow.end_at_ms,
                |window: WindowStart, bytes| {
                    *windows.entry(window.start_ms()).or_default() += bytes;
                },
            );
        }
        windows.retain(|_, bytes| *bytes > 0);
        windows
    }

    fn rates(&self) -> Vec<u32> {
        self.flows.iter().map(|flow| flow.sampling_rate).collect()
    }

    fn bytes(&self) -> u64 {
        self.flows.iter().map(|flow| flow.bytes).sum()
    }
}

/// Reads a capture and compares.
fn case(name: &str, setup: &Setup, is_right: impl FnOnce(&Read) -> Result<(), String>) {
    let Some(read) = setup.read(name) else { return };
    if let Err(difference) = is_right(&read) {
        panic!("{name}: {difference}");
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, right: T) -> Result<(), String> {
    if got == right {
        return Ok(());
    }
    Err(format!("{what}: got {got:?}, right {right:?}"))
}

#[test]
fn case_01a_deltas_of_long_sessions_stay_in_their_minutes() {
    let right = BTreeMap::from([(NOON_MS, 37_500_000_000), (NOON_MS + 300_000, 37_500_000_000)]);
    case("01a", &plain().prefix("198.51.100.0/24"), |read| {
        same("windows", read.windows(), right)
    });
}

#[test]
fn case_01c_a_delta_at_the_border_of_a_month() {
    const DECEMBER_MS: i64 = 1_796_083_200_000;
    case("01c", &plain().prefix("198.51.100.0/24"), |read| {
        same(
            "windows",
            read.windows(),
            BTreeMap::from([(DECEMBER_MS, 7_500_000_000)]),
        )
    });
}

#[test]
fn case_02d_multipath_without_next_hop_is_forwarded() {
    case("02d", &plain().prefix("2001:db8:1::/48"), |read| {
        same("bytes", read.volume().0 + read.volume().1, 29_000_000)
    });
}

#[test]
fn case_02f_to_the_router_itself_is_not_dropped() {
    case("02f", &plain(), |read| {
        same(
            "statuses",
            read.flows.iter().filter(|flow| flow.was_discarded()).count(),
            0,
        )?;
        same("flows", read.flows.is_empty(), false)
    });
}

#[test]
fn case_02g_multicast_is_not_dropped() {
    case("02g", &plain(), |read| {
        let statuses: BTreeSet<u8> = read.flows.iter().map(|flow| flow.forwarding_status).collect();
        same("statuses", statuses, BTreeSet::from([0]))
    });
}

#[test]
fn case_03_asa_events_have_both_directions_and_one_total() {
    case("03", &plain(), |read| {
        // Responders are those who answer from a well-known port.
        let answers = |flow: &&Flow| flow.src_port < flow.dst_port;
        let sum = |wanted: bool| -> u64 {
            let flows = read.flows.iter().filter(|flow| answers(flow) == wanted);
            flows.map(|flow| flow.bytes).sum()
        };
        same("initiators, responders", (sum(false), sum(true)), (606, 64_997))
    });
}

#[test]
fn case_04a_a_biflow_has_two_directions() {
    case("04a", &plain().unsampled().prefix("198.51.100.0/24"), |read| {
        same("in, out", read.volume(), (900_000, 10_000))
    });
}

#[test]
fn case_05_totals_are_no_deltas() {
    case("05", &plain().unsampled(), |read| {
        same("bytes", read.bytes(), 5_000_000)
    });
}

#[test]
fn case_06a_two_exporters_behind_one_address() {
    case("06a", &plain().unsampled().prefix("198.51.100.0/24"), |read| {
        same("in, out", read.volume(), (18_000, 0))?;
        let ports: BTreeSet<u16> = read.domains.iter().map(|(_, domain)| domain.port).collect();
        same("sessions", ports, BTreeSet::from([40_001, 40_002]))?;
        same("lost", read.count(Counter::SequenceLost), 0)
    });
}

#[test]
fn case_06d_two_sources_of_one_sflow_agent() {
    case("06d", &plain(), |read| {
        let exporters: BTreeSet<Address> = read.flows.iter().map(|flow| flow.exporter).collect();
        same("exporters", exporters.len(), 2)?;
        same("lost", read.count(Counter::SequenceLost), 0)
    });
}

#[test]
fn case_09_a_v9_template_of_variable_length() {
    case("09", &plain(), |read| {
        let seen: Vec<_> = read
            .flows
            .iter()
            .map(|flow| {
                (
                    flow.src_addr.to_string(),
                    flow.dst_addr.to_string(),
                    flow.dst_port,
                    flow.bytes,
                    flow.packets,
                )
            })
            .collect();
        same(
            "flows",
            seen,
            vec![("20.20.20.20".to_owned(), "20.20.255.255".to_owned(), 137, 702, 9)],
        )?;
        same("rejected", read.count(Counter::TemplatesRejected), 0)
    });
}

#[test]
fn case_13_a_reboot_makes_templates_void() {
    case("13", &plain().unsampled(), |read| {
        same("bytes", read.bytes(), 450_000)?;
        same(
            "packets",
            read.flows.iter().map(|flow| flow.packets).collect::<Vec<_>>(),
            vec![100; 3],
        )
    });
}

#[test]
fn case_18_a_linux_cooked_v2_capture() {
    case("18", &plain(), |read| same("flows", read.flows.len(), 1));
}

#[test]
fn case_20_a_header_length_that_is_short() {
    case("20", &plain(), |read| {
        same("records", read.flows.len(), 2)?;
        same("rejected", read.count(Counter::SetsRejectedLength), 0)
    });
}

#[test]
fn case_21_a_zero_filled_tail() {
    case("21", &plain(), |read| {
        same("rejected", read.count(Counter::SetsRejectedLength), 0)?;
        same("flows", read.flows.is_empty(), false)
    });
}

#[test]
fn case_24_two_messages_in_one_datagram() {
    case("24", &plain(), |read| {
        same("flows", read.flows.len(), 1)?;
        same("trailing", read.count(Counter::DatagramBytesTrailing), 0)
    });
}

#[test]
fn case_25_a_clock_that_is_off() {
    case("25", &plain(), |read| {
        let off: Vec<Option<i64>> = read.domains.iter().map(|(_, domain)| domain.clock_off_ms()).collect();
        same("offset", off, vec![Some(-45 * 60_000)])
    });
}

#[test]
fn case_04c_both_directions_by_setting() {
    let configured = ExporterConfig {
        out_bytes_are_answer: Some(true),
        ..ExporterConfig::unlisted(exporter())
    };
    case(
        "04c",
        &plain().unsampled().prefix("198.51.100.0/24").exporter(configured),
        |read| same("in, out", read.volume(), (900_000, 10_000)),
    );
}

#[test]
fn case_08a_rates_by_template() {
    case("08a", &plain(), |read| same("rates", read.rates(), vec![1_000, 10_000]));
}

#[test]
fn case_08b_rates_by_an_interface_that_is_no_scope() {
    case("08b", &plain(), |read| same("rates", read.rates(), vec![100, 10_000]));
}

#[test]
fn case_08e_a_sampler_that_was_not_announced() {
    case("08e", &plain(), |read| {
        same("rates", read.rates(), vec![1_000, 0])?;
        same("flagged", read.count(Counter::FlowsSamplerNotAnnounced), 1)
    });
}

#[test]
fn case_10a_a_routed_vlan() {
    let switch: Address = "192.0.2.7".parse().unwrap();
    let config = ExporterConfig {
        meter: MeterMode::Boundary,
        external_interfaces: vec![1],
        ..ExporterConfig::unlisted(switch)
    };
    let target = Target::Vlan {
        exporter: switch,
        vlan: 100,
    };
    case("10a", &plain().exporter(config).service(target), |read| {
        same("in, out", read.volume(), (1_500_000, 0))
    });
}

#[test]
fn case_14_layer_2_octets_only() {
    case("14", &plain(), |read| {
        same("flows", read.flows.len(), 1)?;
        same("bytes", read.bytes(), 15_180 - 10 * 14)
    });
}

#[test]
fn case_15_the_time_of_an_asa_event() {
    case("15", &plain(), |read| {
        let ends: BTreeSet<i64> = read.flows.iter().map(|flow| flow.end_at_ms).collect();
        same("ends", ends, BTreeSet::from([NOON_MS]))
    });
}

#[test]
fn case_16_the_packet_inside_vxlan() {
    let config = ExporterConfig {
        tunnels: TunnelMode::Inner,
        ..ExporterConfig::unlisted("192.0.2.1".parse().unwrap())
    };
    let inner: [Address; 2] = ["198.51.100.10", "203.0.113.7"].map(|text| text.parse().unwrap());
    case("16", &plain().exporter(config), |read| {
        let seen: Vec<[Address; 2]> = read.flows.iter().map(|flow| [flow.src_addr, flow.dst_addr]).collect();
        same("addresses", seen, vec![inner])
    });
}

#[test]
fn case_17_a_rate_of_one_in_one_and_a_half() {
    case("17", &plain(), |read| {
        let scaled: Vec<u64> = read.flows.iter().map(Flow::bytes_scaled).collect();
        same("volume", scaled, vec![2_250])
    });
}

#[test]
fn case_19_a_wireless_client() {
    case("19", &plain(), |read| {
        let client: Address = "192.168.20.121".parse().unwrap();
        let named = read
            .flows
            .iter()
            .filter(|flow| [flow.src_addr, flow.dst_addr].contains(&client));
        same("flows of clients", named.count() > 0 && !read.flows.is_empty(), true)?;
        let without = |flow: &&Flow| (flow.src_addr, flow.dst_addr) == (Address::UNSPECIFIED, Address::UNSPECIFIED);
        same("flows of nobody", read.flows.iter().filter(without).count(), 0)
    });
}

#[test]
fn case_22_vendor_counters() {
    case("22", &plain(), |read| {
        same("flows", read.flows.len(), 8)?;
        same("ignored", read.count(Counter::RecordsWithoutCounters), 0)
    });
}

#[test]
fn case_23_netflow_lite() {
    case("23", &plain(), |read| {
        same("flows", read.flows.len(), 1)?;
        same("bytes", read.bytes(), 60)
    });
}

#[test]
fn case_26_a_rate_in_the_wrong_order_of_bytes() {
    case("26", &plain(), |read| {
        same("flagged", read.count(Counter::FlowsRateImplausible), 1)?;
        same(
            "shown",
            read.domains.iter().all(|(_, domain)| domain.sampling_implausible),
            true,
        )
    });
    let repaired = ExporterConfig {
        sampling_rate: Some(1_001),
        ..ExporterConfig::unlisted(exporter())
    };
    case("26", &plain().exporter(repaired), |read| {
        same("rates", read.rates(), vec![1_001])?;
        same("flagged", read.count(Counter::FlowsRateImplausible), 0)
    });
}

#[test]
fn case_27_the_exporters_own_as() {
    case("27", &plain(), |read| {
        // The path of the second sample is empty; those of the others end at an AS, and in a set.
        let ases: Vec<u32> = read.flows.iter().map(|flow| flow.dst_as).collect();
        same("destination AS", ases, vec![4_200_000_001, 65_000, 64_601])
    });
}

#[test]
fn case_28_each_packet_observed_twice_counts_once() {
    case("28", &plain().unsampled().prefix("10.99.0.2/32"), |read| {
        same("in, out", read.volume(), (1_087_980, 24_303))
    });
}

#[test]
fn case_29_octets_of_layer_2_by_setting() {
    let configured = ExporterConfig {
        layer2_octets: 14,
        ..ExporterConfig::unlisted(exporter())
    };
    let setup = plain().unsampled().prefix("10.99.0.2/32").exporter(configured);
    case("29", &setup, |read| same("in", read.volume().0, 1_087_980));
}
