//! The captures of logstash-codec-netflow: each `.json` names its payloads and some events that they hold.
//!
//! An event is any data record. Ours are flows, options records (read, not stored) and records without a byte count (no
//! flows); together they must be as many.

use collector::counts::Counter;
use jiff::Timestamp;
use schemas::address::Address;
use serde_json::Value;
use tables::flow::{Flow, marks};

use super::{as_exported, decode, decoder};
use crate::beside::{GOLDEN, needs};
use crate::golden;

/// A capture, and what its records are to us.
struct Case {
    name: &'static str,
    flows: usize,
    options: u64,
    no_counters: u64,
    /// Options records in front of the first flow: event index − this = flow index.
    before_flows: usize,
    /// Datagrams that are in it twice: the second is a copy.
    copies: u64,
    /// Flows of further messages in the datagram: others stop behind the first one.
    further: u64,
    checked: usize,
}

const fn case(name: &'static str, flows: usize, options: u64, no_counters: u64) -> Case {
    Case {
        name,
        flows,
        options,
        no_counters,
        before_flows: 0,
        copies: 0,
        further: 0,
        checked: 0,
    }
}

const CASES: &[Case] = &[
    Case {
        checked: 2,
        ..case("IPFIX-Mikrotik-RouterOS-6-39-2", 46, 0, 0)
    },
    // Its data comes before its template, and both come twice: others drop the first data and read the second; here the first
    // waits, and the second is a copy.
    Case {
        copies: 2,
        ..case("IPFIX-Netscaler-with-variable-length-fields", 3, 0, 0)
    },
    case("IPFIX-Nokia-BRAS", 0, 0, 1),
    Case {
        checked: 1,
        ..case("IPFIX-OpenBSD-pflow", 26, 0, 0)
    },
    Case {
        checked: 1,
        ..case("IPFIX-VMware-virtual-distributed-switch", 5, 0, 0)
    },
    Case {
        checked: 2,
        ..case("IPFIX-YAF-basic-with-applabel", 2, 1, 0)
    },
    Case {
        before_flows: 1,
        further: 6,
        checked: 6,
        ..case("IPFIX", 12, 1, 0)
    },
    Case {
        further: 28,
        checked: 2,
        ..case("Netflow-5-valid-01", 30, 0, 0)
    },
    case("Netflow-9-Cisco-ASR-9000-series-options-template-256", 0, 19, 0),
    Case {
        checked: 1,
        ..case("Netflow-9-Cisco-ASR-9000-series-template-260", 21, 0, 0)
    },
    case("Netflow-9-Cisco-NBAR-options-template-260", 0, 15, 0),
    Case {
        before_flows: 1,
        checked: 1,
        ..case("Netflow-9-Fortigate-FortiOS-5-2-1", 1, 1, 0)
    },
    Case {
        checked: 1,
        ..case("Netflow-9-Huawei-Netstream", 1, 0, 0)
    },
    case("Netflow-9-macaddress", 0, 1, 29),
    Case {
        checked: 1,
        ..case("Netflow-9-valid-01", 7, 0, 0)
    },
    Case {
        checked: 1,
        ..case("Netflow5-Juniper-MX80", 29, 0, 0)
    },
];

fn address(value: &Value) -> Address {
    value.as_str().unwrap().parse().unwrap()
}

/// Milliseconds of a golden time; NetFlow 5's carry a literal `#{micros}` behind them.
fn instant_ms(value: &Value) -> i64 {
    let text = value.as_str().unwrap().replace("#{micros}", "");
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

/// Compares one golden field with the flow; false when the flow does not keep it.
fn compare(name: &str, value: &Value, flow: &Flow) -> bool {
    let number = || value.as_u64().unwrap_or_else(|| panic!("{name} is no number: {value}"));
    let (ours, theirs) = match name {
        "sourceIPv4Address" | "sourceIPv6Address" | "ipv4_src_addr" => {
            assert_eq!(flow.src_addr, address(value), "{name}");
            return true;
        }
        "destinationIPv4Address" | "destinationIPv6Address" | "ipv4_dst_addr" => {
            assert_eq!(flow.dst_addr, address(value), "{name}");
            return true;
        }
        "ipNextHopIPv4Address" | "ipNextHopIPv6Address" | "ipv4_next_hop" => {
            let theirs = if value == "0.0.0.0" {
                Address::UNSPECIFIED
            } else {
                address(value)
            };
            assert_eq!(flow.next_hop, theirs, "{name}");
            return true;
        }
        "octetDeltaCount" | "octetTotalCount" | "in_bytes" => (flow.bytes, number()),
        "packetDeltaCount" | "packetTotalCount" | "in_pkts" => (flow.packets, number()),
        "sourceTransportPort" | "l4_src_port" => (u64::from(flow.src_port), number()),
        "destinationTransportPort" | "l4_dst_port" => (u64::from(flow.dst_port), number()),
        "protocolIdentifier" | "protocol" => (u64::from(flow.ip_protocol), number()),
        "tcpControlBits" | "tcp_flags" => (u64::from(flow.tcp_flags), number()),
        "ipClassOfService" | "src_tos" => (u64::from(flow.tos), number()),
        "ingressInterface" | "input_snmp" => (u64::from(flow.in_if), number()),
        "egressInterface" | "output_snmp" => (u64::from(flow.out_if), number()),
        "src_as" => (u64::from(flow.src_as), number()),
        "dst_as" => (u64::from(flow.dst_as), number()),
        "src_mask" => (u64::from(flow.src_mask), number()),
        "dst_mask" => (u64::from(flow.dst_mask), number()),
        "vlanId" | "src_vlan" => (u64::from(flow.in_vlan), number()),
        "flowDirection" | "direction" => (u64::from(flow.direction), number()),
        "version" => (u64::from(flow.protocol_version), number()),
        "forwarding_status" => {
            let field = |name: &str| value[name].as_u64().unwrap();
            (
                u64::from(flow.forwarding_status),
                (field("status") << 6) | field("reason"),
            )
        }
        "icmpTypeCodeIPv4" => (u64::from(flow.icmp_type_code), number()),
        _ => return false,
    };
    assert_eq!(ours, theirs, "{name}");
    true
}

/// A golden uptime-based time as it should be. logstash takes the whole seconds from the header's and then adds one second
/// less the fraction, without borrowing it: a second late. RFC 3954 §5.1 leaves no room: it is the header's time less (its
/// uptime − the record's); the MX80's is 13:52:52.000 − (190649.064 s − 190631.000 s) = 13:52:33.936.
fn uptime_instant_ms(value: &Value) -> i64 {
    instant_ms(value) - 1000
}

fn compare_times(case: &str, netflow: &Value, flow: &Flow) {
    if !netflow["flowEndMilliseconds"].is_null() {
        let times = ["flowStartMilliseconds", "flowEndMilliseconds"].map(|name| instant_ms(&netflow[name]));
        assert_eq!([flow.reported_start(), flow.end_at_ms], times);
    }
    if netflow["last_switched"].is_null() {
        return;
    }
    let (first, last) = (&netflow["first_switched"], &netflow["last_switched"]);
    let (start_ms, end_ms) = match case {
        // The flow began before the exporter's uptime counter wrapped. The golden puts its start 49.7 days into the
        // future, and its end a second late. RFC 3954 counts uptime modulo 2³²; tshark reads a duration of 2.578 s.
        "Netflow-5-valid-01" => {
            assert_eq!(flow.end_at_ms - flow.start_at_ms, 2578);
            (instant_ms(first) - (1 << 32), uptime_instant_ms(last))
        }
        // The flow ended a week after the datagram was exported, by the exporter's own clocks: it is moved to when it
        // was received and keeps its duration.
        "Netflow-9-Fortigate-FortiOS-5-2-1" => {
            assert!(uptime_instant_ms(last) > flow.received_at_ms + 60_000);
            let duration_ms = uptime_instant_ms(last) - uptime_instant_ms(first);
            (flow.received_at_ms - duration_ms, flow.received_at_ms)
        }
        _ => (uptime_instant_ms(first), uptime_instant_ms(last)),
    };
    assert_eq!((flow.start_at_ms, flow.end_at_ms), (start_ms, end_ms), "{case}");
}

#[test]
fn every_capture_decodes_to_its_expected_events() {
    needs!(GOLDEN);
    for case in CASES {
        let expected: Value = serde_json::from_slice(&golden::read(&format!("logstash/{}.json", case.name))).unwrap();
        let payloads = expected["packets"].as_array().unwrap().iter();
        let captured: Vec<_> = payloads
            .map(|file| as_exported(golden::read(&format!("logstash/{}", file.as_str().unwrap()))))
            .collect();
        let mut decoder = decoder();
        let out = decode(&mut decoder, &captured);
        let count = |counter| out.counts.total(counter);
        let answers = count(Counter::FlowsOfAnswers) as usize;
        let ours = (
            out.flows.len() - answers,
            count(Counter::OptionsRecords),
            count(Counter::RecordsWithoutCounters),
        );
        println!("{}: {ours:?} of {}", case.name, expected["expected_event_count"]);
        assert_eq!(
            ours,
            (case.flows, case.options, case.no_counters),
            "{}: {:?}",
            case.name,
            out.counts
        );
        if let Some(events) = expected["expected_event_count"].as_u64() {
            assert_eq!(ours.0 as u64 + ours.1 + ours.2 - case.further, events, "{}", case.name);
        }
        assert_eq!(count(Counter::Datagrams), captured.len() as u64);
        let read = captured.len() as u64 - case.copies;
        assert_eq!(count(Counter::DatagramsDecoded), read, "{}", case.name);
        for refused in [
            Counter::SetsRejectedLength,
            Counter::RecordsRejectedLength,
            Counter::TemplatesRejected,
        ] {
            assert_eq!(count(refused), 0, "{}: {}", case.name, refused.name());
        }

        // The answering half of a record's conversation is a row of its own behind it, and the golden event is the first half.
        let first_halves: Vec<Flow> = out
            .flows
            .rows()
            .into_iter()
            .filter(|flow| !flow.is_marked(marks::ANSWER))
            .collect();
        let mut checked = 0;
        for check in expected["checked"].as_array().unwrap() {
            let index = usize::try_from(check["event_index"].as_u64().unwrap()).unwrap();
            let golden = &expected["goldens"][usize::try_from(check["golden_index"].as_u64().unwrap()).unwrap()];
            let netflow = &golden["netflow"];
            let Some(flow) = index
                .checked_sub(case.before_flows)
                .and_then(|index| first_halves.get(index).copied())
            else {
                continue;
            };
            let compared = netflow
                .as_object()
                .unwrap()
                .iter()
                .filter(|(name, value)| compare(name, value, &flow))
                .count();
            assert!(
                compared >= 7,
                "{}: only {compared} fields of {netflow} are kept",
                case.name
            );
            compare_times(case.name, netflow, &flow);
            checked += 1;
        }
        assert_eq!(checked, case.checked, "{}", case.name);
    }
}

#[test]
fn announced_sampling_is_used() {
    needs!(GOLDEN);
    let rates = |files: &[&str]| {
        let captured: Vec<_> = files
            .iter()
            .map(|file| as_exported(golden::read(&format!("logstash/{file}"))))
            .collect();
        let out = decode(&mut decoder(), &captured);
        let mut rates: Vec<u32> = out.flows.rows().iter().map(|flow| flow.sampling_rate).collect();
        rates.dedup();
        rates
    };
    assert_eq!(rates(&["ipfix.dat"]), [1], "softflowd: packetInterval 1, packetSpace 0");
    assert_eq!(rates(&["netflow5_test_juniper_mx80.dat"]), [1000]);
    let fortigate = ["tpl", "data256", "data257"].map(|part| format!("netflow9_test_fortigate_fortios_521_{part}.dat"));
    assert_eq!(
        rates(&fortigate.each_ref().map(String::as_str)),
        [1],
        "samplingInterval 1 in options data"
    );
}
