//! The captures of NetGauze: pcaps of Cisco routers, and what NetGauze read from each datagram.

use collector::counts::Counter;
use schemas::address::Address;
use serde_json::Value;
use tables::flow::Flow;

use super::{decode, decoder};
use crate::beside::{GOLDEN, needs};
use crate::golden;

/// The data records that NetGauze read with a byte count, as (domain, fields), in order.
fn expected_records(path: &str) -> Vec<(u32, Vec<(String, Value)>)> {
    let text = String::from_utf8(golden::read(path)).unwrap();
    let mut records = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let message: Value = serde_json::from_str(line).unwrap();
        let (_, message) = message.as_object().unwrap().iter().next().unwrap();
        let domain = message
            .get("observation_domain_id")
            .or(message.get("source_id"))
            .unwrap()
            .as_u64()
            .unwrap();
        for set in message["sets"].as_array().unwrap() {
            for record in set["Data"]["records"].as_array().into_iter().flatten() {
                let mut fields = Vec::new();
                for field in record["fields"].as_array().unwrap() {
                    fields.extend(
                        field
                            .as_object()
                            .unwrap()
                            .iter()
                            .map(|(name, value)| (name.clone(), value.clone())),
                    );
                }
                if fields.iter().any(|(name, _)| name == "octetDeltaCount") {
                    records.push((u32::try_from(domain).unwrap(), fields));
                }
            }
        }
    }
    records
}

/// A field's number.
fn number(fields: &[(String, Value)], name: &str) -> Option<u64> {
    fields
        .iter()
        .find(|(field, _)| field == name)
        .map(|(_, value)| value.as_u64().unwrap())
}

/// The address that is not zero, as we read dual-stack templates.
fn address(fields: &[(String, Value)], v4: &str, v6: &str) -> Address {
    let addresses = fields.iter().filter(|(field, _)| field == v4 || field == v6);
    let mut addresses = addresses
        .map(|(_, value)| value.as_str().unwrap())
        .filter(|text| *text != "::" && *text != "0.0.0.0");
    addresses
        .next()
        .map_or(Address::UNSPECIFIED, |text| text.parse().unwrap())
}

fn check(flow: &Flow, domain: u32, fields: &[(String, Value)]) {
    assert_eq!(flow.observation_domain, domain);
    assert_eq!(flow.src_addr, address(fields, "sourceIPv4Address", "sourceIPv6Address"));
    assert_eq!(
        flow.dst_addr,
        address(fields, "destinationIPv4Address", "destinationIPv6Address")
    );
    let kept = [
        ("octetDeltaCount", flow.bytes),
        ("packetDeltaCount", flow.packets),
        ("ingressInterface", u64::from(flow.in_if)),
        ("egressInterface", u64::from(flow.out_if)),
        ("sourceTransportPort", u64::from(flow.src_port)),
        ("destinationTransportPort", u64::from(flow.dst_port)),
        ("bgpSourceAsNumber", u64::from(flow.src_as)),
        ("bgpDestinationAsNumber", u64::from(flow.dst_as)),
        ("ipClassOfService", u64::from(flow.tos)),
        ("sourceIPv4PrefixLength", u64::from(flow.src_mask)),
        ("destinationIPv6PrefixLength", u64::from(flow.dst_mask)),
    ];
    let mut compared = 0;
    for (name, ours) in kept {
        if let Some(theirs) = number(fields, name) {
            assert_eq!(ours, theirs, "{name} of {fields:?}");
            compared += 1;
        }
    }
    assert!(compared >= 7, "{fields:?}");
    assert!(flow.start_at_ms <= flow.end_at_ms);
}

fn run(pcap: &str, flows: usize) -> (Vec<Flow>, Vec<collector::decode::netflow::DomainStatus>) {
    let captured = golden::read_pcap(&format!("netgauze/{pcap}.pcap"));
    let expected = expected_records(&format!("netgauze/{pcap}-flow.json"));
    let mut decoder = decoder();
    let out = decode(&mut decoder, &captured);
    assert_eq!(out.counts.total(Counter::DatagramsDecoded), captured.len() as u64);
    assert_eq!(
        (out.flows.len(), expected.len()),
        (flows, flows),
        "{pcap}: {:?}",
        out.counts
    );
    for (flow, (domain, fields)) in out.flows.rows().iter().zip(&expected) {
        check(flow, *domain, fields);
    }
    (out.flows.rows(), decoder.domains())
}

#[test]
fn ios_xr_sampling_options_give_the_rate() {
    needs!(GOLDEN);
    let (flows, domains) = run("104-IPFIXv10-IPv6-CISCO-sampling_option/traffic-00", 3);
    for flow in flows {
        assert_eq!(
            flow.sampling_rate, 256,
            "samplingSize 1 of samplingPopulation 256, selector 1"
        );
        assert_eq!(flow.exporter.to_string(), "2a02:a90:4007:700::54");
        assert_eq!(flow.direction, 0);
    }
    assert_eq!((domains.len(), domains[0].templates.len()), (1, 5));
}

#[test]
fn several_sources_and_domains_are_told_apart() {
    needs!(GOLDEN);
    let (flows, domains) = run("100-IPFIXv10-CISCO/traffic-00", 12);
    assert_eq!(
        domains
            .iter()
            .map(|domain| domain.observation_domain)
            .collect::<Vec<_>>(),
        [851_968, 917_504]
    );
    assert!(flows.iter().all(|flow| flow.sampling_rate == 0), "nobody said a rate");
    run("110-IPFIXv10-NFv9-multiple-sources/traffic-00", 12);
    run("110-IPFIXv10-NFv9-multiple-sources/traffic-01", 51);
    let (_, domains) = run("110-IPFIXv10-NFv9-multiple-sources/traffic-02", 35);
    assert_eq!(
        domains
            .iter()
            .map(|domain| domain.observation_domain)
            .collect::<Vec<_>>(),
        [2081, 2193]
    );
}
