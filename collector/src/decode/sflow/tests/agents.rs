//! Which exporter an agent is: agents that share an address, forged ones, places that are kept for those that are listed.

use super::*;

fn listing(agent: Address) -> MeteringConfig {
    MeteringConfig {
        exporters: vec![ExporterConfig::unlisted(agent)],
        ..MeteringConfig::default()
    }
}

/// Whether a datagram was decoded; otherwise it was refused by a limit, and counted so.
fn is_decoded(decoder: &mut SflowDecoder, source: Address, agent: Address, sub_agent: u32, at_ms: i64) -> bool {
    /// No datagram is the copy of another.
    static SEQUENCE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let sequence = SEQUENCE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let out = decode_at(decoder, source, at_ms, &datagram_of(agent, sub_agent, sequence, &[]));
    let counts = [Counter::DatagramsDecoded, Counter::DatagramsRejectedLimit].map(|counter| out.counts.total(counter));
    assert_eq!(counts[0] + counts[1], 1, "F2");
    counts[0] == 1
}

#[test]
fn a_listed_agent_has_a_place_after_thousands_of_forged_ones() {
    let limits = SflowLimits::default();
    let mut decoder = SflowDecoder::new(limits, &listing(switch()));
    for number in 0..limits.agents_max as u32 {
        assert!(is_decoded(&mut decoder, forged(number), forged(number), 0, NOW_MS));
    }
    assert!(
        !is_decoded(&mut decoder, forged(99_999), forged(99_999), 0, NOW_MS),
        "the table is full"
    );
    assert!(is_decoded(&mut decoder, switch(), switch(), 0, NOW_MS));
    assert!(
        is_decoded(&mut decoder, forged(0), forged(0), 0, NOW_MS),
        "nobody was pushed out"
    );
    let restored = SflowDecoder::restore(limits, &listing(switch()), decoder.checkpoint());
    assert_eq!(restored.checkpoint(), decoder.checkpoint(), "a restart forgets nobody");
}

#[test]
fn one_source_cannot_use_up_the_places_of_others_by_claiming_agents() {
    let limits = SflowLimits {
        agents_max: 100,
        agents_per_source_max: 10,
        ..SflowLimits::default()
    };
    let mut decoder = SflowDecoder::new(limits, &MeteringConfig::default());
    let taken = |decoder: &mut SflowDecoder, source, from: u32| {
        (from..from + 50)
            .filter(|number| is_decoded(decoder, source, forged(*number), 0, NOW_MS))
            .count()
    };
    let hostile = forged(900_000);
    assert_eq!(taken(&mut decoder, hostile, 0), 10);
    assert!(is_decoded(&mut decoder, switch(), switch(), 0, NOW_MS));
    let mut restored = SflowDecoder::restore(limits, &MeteringConfig::default(), decoder.checkpoint());
    assert_eq!(taken(&mut restored, hostile, 100), 0, "nor after a restart");
}

#[test]
fn sub_agents_of_a_listed_agent_are_bounded_too() {
    let limits = SflowLimits {
        agents_max: 3,
        sub_agents_max: 5,
        ..SflowLimits::default()
    };
    let mut decoder = SflowDecoder::new(limits, &listing(switch()));
    let taken = (0..20).filter(|sub_agent| is_decoded(&mut decoder, switch(), switch(), *sub_agent, NOW_MS));
    assert_eq!(taken.count(), 5);
}

#[test]
fn a_flood_of_agents_is_over_a_day_after_it() {
    let limits = SflowLimits {
        agents_max: 3,
        ..SflowLimits::default()
    };
    let mut decoder = SflowDecoder::new(limits, &listing(switch()));
    for agent in [switch(), forged(1), forged(2)] {
        assert!(is_decoded(&mut decoder, agent, agent, 0, NOW_MS));
    }
    decoder.forget_silent(&mut Decoded::default());
    assert!(!is_decoded(&mut decoder, forged(3), forged(3), 0, NOW_MS));
    assert!(is_decoded(&mut decoder, forged(2), forged(2), 0, NOW_MS + DAY_MS + 1));
    decoder.forget_silent(&mut Decoded::default());
    assert!(is_decoded(&mut decoder, forged(3), forged(3), 0, NOW_MS + DAY_MS + 2));
    let known: Vec<Address> = decoder.agents().iter().map(|agent| agent.exporter).collect();
    assert_eq!(known, [forged(2), forged(3), switch()]);
}

/// A datagram of an agent that started `uptime_ms` ago, with one sample.
fn sampled(agent: Address, sequence: u32, uptime_ms: u32) -> Vec<u8> {
    let mut payload = datagram_of(agent, 0, sequence, &[sample(7, 512, 7, 8, &[raw_header(&udp_frame())])]);
    payload[20..24].copy_from_slice(&uptime_ms.to_be_bytes());
    payload
}

fn private_agent() -> Address {
    "192.168.1.1".parse().unwrap()
}

#[test]
fn case_06d_two_sources_of_one_agent_address_are_two_exporters() {
    let mut decoder = decoder();
    let hosts: [Address; 2] = ["192.0.2.11".parse().unwrap(), "192.0.2.12".parse().unwrap()];
    let mut counts = Counts::default();
    let mut exporters = BTreeSet::new();
    for i in 0..100_u32 {
        for (host, sequence, uptime_ms) in [(hosts[0], 50_000 + i, 9_000_000), (hosts[1], i, 1_000)] {
            let out = decode_at(
                &mut decoder,
                host,
                NOW_MS,
                &sampled(private_agent(), sequence, uptime_ms),
            );
            assert_eq!(out.flows.len(), 1);
            exporters.insert(out.flows.rows()[0].exporter);
            counts.merge(&out.counts);
        }
    }
    // The first keeps the agent's name, the other has its source's: neither changes once it has one.
    assert_eq!(exporters, BTreeSet::from([private_agent(), hosts[1]]));
    for counter in [
        Counter::SequenceLost,
        Counter::SequenceReset,
        Counter::SequenceReordered,
    ] {
        assert_eq!(counts.total(counter), 0, "{}", counter.name());
    }
    let shown: Vec<(Address, Address)> = decoder
        .agents()
        .iter()
        .map(|agent| (agent.exporter, agent.agent))
        .collect();
    assert_eq!(
        shown,
        [(hosts[1], private_agent()), (private_agent(), Address::UNSPECIFIED)],
        "the page says whose name it claims"
    );
    let restored = SflowDecoder::restore(SflowLimits::default(), &MeteringConfig::default(), decoder.checkpoint());
    assert_eq!(restored.checkpoint(), decoder.checkpoint(), "F1");

    // Both are listed by their sources: each has its own from then on.
    let mut metering = listing(hosts[0]);
    metering.exporters.push(ExporterConfig::unlisted(hosts[1]));
    decoder.set_sampling(&metering);
    for (host, sequence) in [(hosts[0], 50_100), (hosts[1], 100)] {
        let out = decode_at(&mut decoder, host, NOW_MS, &sampled(private_agent(), sequence, 1_000));
        assert_eq!(out.flows.rows()[0].exporter, host);
    }
}

#[test]
fn a_configured_agent_address_keeps_its_name_whatever_others_claim() {
    let mut decoder = SflowDecoder::new(SflowLimits::default(), &listing(private_agent()));
    let exporter = |decoder: &mut SflowDecoder, source, sequence, uptime_ms| {
        let out = decode_at(decoder, source, NOW_MS, &sampled(private_agent(), sequence, uptime_ms));
        out.flows.rows()[0].exporter
    };
    assert_eq!(
        exporter(&mut decoder, switch(), 1, 5_000),
        private_agent(),
        "as version 0.1 had it"
    );
    for number in 0..50 {
        assert_eq!(
            exporter(&mut decoder, forged(number), 99 * number, 77_000_000),
            forged(number)
        );
    }
    assert_eq!(exporter(&mut decoder, switch(), 2, 5_000), private_agent());
}

#[test]
fn an_agent_whose_source_changes_is_the_same_agent() {
    let mut decoder = decoder();
    let out = decode_at(&mut decoder, switch(), NOW_MS, &sampled(private_agent(), 7, 5_000));
    assert_eq!(out.flows.rows()[0].exporter, private_agent());
    // Another path, a second later: number and uptime go on.
    let out = decode_at(
        &mut decoder,
        forged(1),
        NOW_MS + 1_000,
        &sampled(private_agent(), 9, 6_000),
    );
    assert_eq!(out.flows.rows()[0].exporter, private_agent());
    assert_eq!(decoder.agents().len(), 1);
    assert_eq!(decoder.agents()[0].numbers.waiting(), 1, "number 8 may still come");
    // A new device under the old address, after a while.
    let later_ms = NOW_MS + SflowLimits::default().name_silence_max_ms + 2_000;
    let out = decode_at(&mut decoder, forged(2), later_ms, &sampled(private_agent(), 1, 100));
    assert_eq!(out.flows.rows()[0].exporter, private_agent());
    assert_eq!(decoder.agents().len(), 1);
}

#[test]
fn an_agent_of_version_1_0_goes_on_from_whatever_source() {
    // It kept the source that an agent was first heard from, and one entry for all of them.
    let stored = serde_json::json!({ "strangers": [], "agents": [{
        "exporter": "192.168.1.1", "sub_agent": 0, "last_heard_ms": NOW_MS, "sequence": 41, "uptime_ms": 5_000,
        "source": "192.0.2.7", "numbers": { "next": 42, "gaps": [], "behind": null, "uptime_ms": 5_000 },
        "sources": [], "interfaces": [],
    }] });
    let checkpoint = serde_json::from_value(stored).unwrap();
    let mut decoder = SflowDecoder::restore(SflowLimits::default(), &MeteringConfig::default(), checkpoint);
    let out = decode_at(
        &mut decoder,
        forged(1),
        NOW_MS + 2_000,
        &sampled(private_agent(), 42, 7_000),
    );
    assert_eq!(out.flows.rows()[0].exporter, private_agent());
    assert_eq!(out.counts.total(Counter::SequenceLost), 0);
}
