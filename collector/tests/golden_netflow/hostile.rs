//! Truncated, mutated and hostile datagrams: no panic, bounded state, each counted once (F2).

use collector::counts::Counter;
use collector::decode::netflow::{DecodeLimits, NetflowDecoder};
use collector::decode::{Datagram, Decoded};
use collector::sampling::SamplingConfig;
use schemas::address::Address;

use crate::beside::{GOLDEN, needs};
use crate::golden::{golden_dir, read, read_pcap};

const DATAGRAMS: u64 = 10_000;

/// SplitMix64: the same datagrams in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// Every captured payload of one version.
fn seeds(version: u8) -> Vec<Vec<u8>> {
    let mut names: Vec<_> = std::fs::read_dir(golden_dir().join("logstash"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".dat"))
        .collect();
    names.sort();
    let mut seeds: Vec<Vec<u8>> = names.iter().map(|name| read(&format!("logstash/{name}"))).collect();
    for part in 0..3 {
        let pcap = format!("netgauze/110-IPFIXv10-NFv9-multiple-sources/traffic-0{part}.pcap");
        seeds.extend(read_pcap(&pcap).into_iter().map(|captured| captured.payload));
    }
    seeds.retain(|seed| seed[..2] == [0, version]);
    assert!(!seeds.is_empty());
    seeds
}

/// A datagram made from a captured one.
fn mutate(random: &mut Random, seed: &[u8]) -> Vec<u8> {
    let mut payload = seed.to_vec();
    match random.below(8) {
        0 => payload.truncate(random.below(seed.len())),
        1 => {
            let at = random.below(seed.len());
            payload[at] ^= 1 << random.below(8);
        }
        2 => {
            for _ in 0..random.below(30) {
                let at = random.below(seed.len());
                payload[at] = u8::try_from(random.below(256)).unwrap();
            }
        }
        // Lengths, counts and ids are 16-bit words: give them extreme values.
        3 => {
            for _ in 0..=random.below(4) {
                let at = random.below(seed.len() / 2) * 2;
                let value = [0, 1, 2, 3, 255, 256, 0x7fff, 0x8000, 0xfffe, 0xffff][random.below(10)] as u16;
                payload[at..at + 2].copy_from_slice(&value.to_be_bytes());
            }
        }
        4 => {
            let (from, to) = (random.below(seed.len()), random.below(seed.len()));
            let length = random.below(seed.len() - from.max(to));
            payload.copy_within(from..from + length, to);
        }
        5 => payload.extend((0..random.below(64)).map(|_| 0xff)),
        6 => {
            let zeros = 20 + random.below(2000);
            payload.truncate(24.min(seed.len()));
            payload.extend(std::iter::repeat_n(0, zeros));
        }
        _ => {
            for byte in &mut payload[4..] {
                *byte = u8::try_from(random.next() & 0xff).unwrap();
            }
        }
    }
    // An IPFIX length that fits lets the sets be reached.
    if payload.len() >= 16 && payload[1] == 10 && random.below(2) == 0 {
        let length = u16::try_from(payload.len()).unwrap();
        payload[2..4].copy_from_slice(&length.to_be_bytes());
    }
    payload
}

fn attack(version: u8) {
    let limits = DecodeLimits {
        max_exporters: 8,
        max_domains_per_exporter: 16,
        max_templates_per_domain: 32,
        max_pending_bytes_per_domain: 16 << 10,
        max_pending_bytes_per_exporter: 64 << 10,
        max_pending_bytes: 256 << 10,
        max_samplers_per_domain: 16,
        ..DecodeLimits::default()
    };
    let mut decoder = NetflowDecoder::new(limits, SamplingConfig::default());
    let mut out = Decoded::default();
    let mut random = Random(u64::from(version));
    let seeds = seeds(version);
    let mut bytes = 0;
    for number in 0..DATAGRAMS {
        let seed = &seeds[random.below(seeds.len())];
        // Untouched ones in between: they define templates, so that hostile data reaches the records.
        let payload = if random.below(10) == 0 {
            seed.clone()
        } else {
            mutate(&mut random, seed)
        };
        let received_at_ms = 1_480_000_000_000 + i64::try_from(number * 100).unwrap();
        let source = Address::from_v4([192, 0, 2, u8::try_from(random.below(12)).unwrap()]);
        bytes += payload.len() as u64;
        decoder.decode(
            &Datagram {
                received_at_ms,
                source,
                source_port: 0,
                payload: &payload,
            },
            &mut out,
        );
    }

    let count = |counter| out.counts.total(counter);
    let refused = [
        Counter::DatagramsRejectedShort,
        Counter::DatagramsRejectedVersion,
        Counter::DatagramsRejectedLength,
        Counter::DatagramsRejectedLimit,
        Counter::DatagramsRejectedDuplicate,
    ];
    assert_eq!(count(Counter::Datagrams), DATAGRAMS);
    assert_eq!(count(Counter::DatagramBytes), bytes);
    assert_eq!(
        count(Counter::DatagramsDecoded) + refused.map(count).iter().sum::<u64>(),
        DATAGRAMS
    );
    assert_eq!(count(Counter::FlowRecords), out.flows.len() as u64);
    assert!(count(Counter::DatagramsRejectedShort) > 0 && count(Counter::DatagramsRejectedLimit) > 0);
    // A v9 header has no length.
    assert_eq!(count(Counter::DatagramsRejectedLength) > 0, version != 9);
    assert!(!out.flows.is_empty(), "some got through");
    for flow in out.flows.rows() {
        assert!(flow.start_at_ms <= flow.end_at_ms);
        assert!(flow.end_at_ms <= flow.received_at_ms + limits.max_clock_skew_ms);
        assert!(flow.end_at_ms >= flow.received_at_ms - limits.max_flow_age_ms);
        assert!(flow.end_at_ms - flow.start_at_ms <= limits.max_flow_duration_ms);
    }

    let domains = decoder.domains();
    let mut exporters: Vec<Address> = domains.iter().map(|domain| domain.exporter).collect();
    exporters.dedup();
    assert!(exporters.len() <= 8);
    for exporter in exporters {
        assert!(domains.iter().filter(|domain| domain.exporter == exporter).count() <= 16);
    }
    assert!(
        domains
            .iter()
            .all(|domain| domain.templates.len() <= 32 && domain.pending_bytes <= 16 << 10)
    );
    assert!(domains.iter().map(|domain| domain.pending_bytes).sum::<usize>() <= 256 << 10);
    // A set that waits is freed, dropped, or still there.
    let waiting: usize = domains.iter().map(|domain| domain.pending_sets).sum();
    assert!(
        count(Counter::SetsPending)
            <= count(Counter::SetsReplayed) + count(Counter::SetsDroppedPending) + waiting as u64
    );
    let text = serde_json::to_string(&decoder.checkpoint()).unwrap();
    assert_eq!(
        serde_json::from_str::<collector::decode::netflow::NetflowCheckpoint>(&text).unwrap(),
        decoder.checkpoint()
    );
}

#[test]
fn hostile_v5_is_counted_and_bounded() {
    needs!(GOLDEN);
    attack(5);
}

#[test]
fn hostile_v7_is_counted_and_bounded() {
    needs!(GOLDEN);
    // There is no capture of version 7: the ones of version 5 with another number are hostile enough.
    let limits = DecodeLimits::default();
    let mut decoder = NetflowDecoder::new(limits, SamplingConfig::default());
    let mut out = Decoded::default();
    let mut random = Random(7);
    let seeds = seeds(5);
    for _ in 0..DATAGRAMS {
        let seed = &seeds[random.below(seeds.len())];
        let mut payload = mutate(&mut random, seed);
        if let Some(version) = payload.get_mut(1) {
            *version = 7;
        }
        let source = Address::from_v4([192, 0, 2, 1]);
        decoder.decode(
            &Datagram {
                received_at_ms: 1_480_000_000_000,
                source,
                source_port: 0,
                payload: &payload,
            },
            &mut out,
        );
    }
    let count = |counter| out.counts.total(counter);
    let ended = [
        Counter::DatagramsDecoded,
        Counter::DatagramsRejectedShort,
        Counter::DatagramsRejectedVersion,
        Counter::DatagramsRejectedLength,
        Counter::DatagramsRejectedLimit,
        Counter::DatagramsRejectedDuplicate,
    ];
    assert_eq!(ended.map(count).iter().sum::<u64>(), DATAGRAMS);
    assert!(count(Counter::DatagramsDecoded) > 0 && count(Counter::DatagramsRejectedLength) > 0);
}

#[test]
fn hostile_v9_is_counted_and_bounded() {
    needs!(GOLDEN);
    attack(9);
}

#[test]
fn hostile_ipfix_is_counted_and_bounded() {
    needs!(GOLDEN);
    attack(10);
}
