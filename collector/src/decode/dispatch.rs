//! Which decoder a datagram goes to: decided by its first bytes, never by the socket it came to.
//!
//! | first bytes | protocol |
//! |---|---|
//! | 00 05, 00 07, 00 09, 00 0a | NetFlow v5, v7, v9, IPFIX |
//! | 00 00 00 05 | sFlow version 5 |
//! | anything else | rejected, counted under the address it came from |
//!
//! A source that [`AllowList`] does not allow is refused before its bytes are looked at.
//!
//! Each datagram is counted once as received, and once as decoded or rejected (F2): by its decoder, or here when it has
//! none.

use std::collections::HashSet;

use schemas::address::Address;
use schemas::metering::MeteringConfig;
use serde::{Deserialize, Serialize};
use tables::flow::PROTOCOL_SFLOW5;

use super::{Datagram, Decoded, DomainView};
use crate::allow::AllowList;
use crate::counts::{CountKey, Counter};

use super::netflow::{DecodeLimits, DomainStatus, NetflowCheckpoint, NetflowDecoder};
use super::sflow::{AgentStatus, SflowCheckpoint, SflowDecoder, SflowLimits};
use crate::sampling::{SamplingConfig, SamplingSource};

/// Distinct sources of rejected datagrams counted by name between two calls of [`Dispatcher::start_segment`]; a flood of
/// forged addresses is counted under `::` beyond it.
pub const COUNTED_SOURCES_MAX: usize = 1_024;
/// The same for sources that are not allowed to send.
pub const REFUSED_SOURCES_MAX: usize = 1_024;
/// Domains without records, of exporters that are not listed, that the status tells of.
pub const DOMAINS_WITHOUT_RECORDS_MAX: usize = 1_024;

/// What a datagram says it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The version: 5, 7, 9 or 10 = IPFIX.
    Netflow(u8),
    Sflow,
    /// Too short to tell.
    Short,
    Unknown,
}

impl Kind {
    /// Looks at the first bytes only.
    pub fn of(payload: &[u8]) -> Kind {
        match payload {
            [0, version @ (5 | 7 | 9 | 10), ..] => Kind::Netflow(*version),
            [0, 0, 0, 5, ..] => Kind::Sflow,
            [] | [_] | [0, 0] | [0, 0, _] => Kind::Short,
            _ => Kind::Unknown,
        }
    }
}

/// State of both decoders, as the journal's checkpoint keeps it. `N` is that of NetFlow, or what is written as that.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct DecoderCheckpoint<N = NetflowCheckpoint> {
    netflow: N,
    sflow: SflowCheckpoint,
}

/// Both decoders behind one door.
#[derive(Debug)]
pub struct Dispatcher {
    netflow: NetflowDecoder,
    sflow: SflowDecoder,
    allowed: AllowList,
    counted: HashSet<Address>,
    refused: HashSet<Address>,
}

impl Dispatcher {
    /// Decoders that have heard nothing yet.
    pub fn new(metering: &MeteringConfig) -> Dispatcher {
        Dispatcher {
            netflow: NetflowDecoder::new(DecodeLimits::default(), SamplingConfig::from(metering)),
            sflow: SflowDecoder::new(SflowLimits::default(), metering),
            allowed: AllowList::new(&metering.decoding.allowed_exporters),
            counted: HashSet::new(),
            refused: HashSet::new(),
        }
    }

    /// Decoders that go on where [`Dispatcher::checkpoint`] was taken, under the configuration of now.
    pub fn restore(metering: &MeteringConfig, checkpoint: DecoderCheckpoint) -> Dispatcher {
        Dispatcher {
            netflow: NetflowDecoder::restore(
                DecodeLimits::default(),
                SamplingConfig::from(metering),
                checkpoint.netflow,
            ),
            sflow: SflowDecoder::restore(SflowLimits::default(), metering, checkpoint.sflow),
            allowed: AllowList::new(&metering.decoding.allowed_exporters),
            counted: HashSet::new(),
            refused: HashSet::new(),
        }
    }

    /// The state as of the last datagram, to be written: it is read as what [`Dispatcher::restore`] takes. With thousands of flows
    /// remembered for each exporter a copy would be large.
    pub fn checkpoint(&self) -> impl Serialize + '_ {
        DecoderCheckpoint {
            netflow: self.netflow.written(),
            sflow: self.sflow.checkpoint(),
        }
    }

    /// Takes over changed sampling rates, and who may send.
    pub fn set_metering(&mut self, metering: &MeteringConfig) {
        self.allowed = AllowList::new(&metering.decoding.allowed_exporters);
        self.netflow.set_sampling(SamplingConfig::from(metering));
        self.sflow.set_sampling(metering);
    }

    /// Forgets which sources were counted by name, so that what is counted depends on the segment alone. Where the tables
    /// of exporters are full, those that have been silent for long make room: it is looked for here because that is a
    /// moment that a replay of the journal has too (F1). What is given up with them is counted in `decoded`, which the
    /// segment before takes.
    pub fn start_segment(&mut self, decoded: &mut Decoded) {
        self.counted.clear();
        self.refused.clear();
        self.netflow.forget_silent(decoded);
        self.sflow.forget_silent(decoded);
    }

    /// Counts every sequence number that was still waited for as lost: nothing follows, a capture has ended.
    pub fn give_up_gaps(&mut self, decoded: &mut Decoded) {
        self.netflow.give_up_gaps(decoded);
        self.sflow.give_up_gaps(decoded);
    }

    /// Decodes one datagram into `decoded` and answers which exporter spoke, and in which protocol; `::` for one of more
    /// refused sources than are counted by name.
    pub fn decode(&mut self, datagram: &Datagram<'_>, decoded: &mut Decoded) -> CountKey {
        if !self.allowed.allows(datagram.source) {
            return self.refuse(datagram, decoded);
        }
        let kind = Kind::of(datagram.payload);
        let (exporter, protocol_version) = match kind {
            Kind::Netflow(version) => {
                self.netflow.decode(datagram, decoded);
                (datagram.source, version)
            }
            Kind::Sflow => (self.sflow.decode(datagram, decoded), PROTOCOL_SFLOW5),
            Kind::Short => return self.reject(datagram, Counter::DatagramsRejectedShort, decoded),
            Kind::Unknown => return self.reject(datagram, Counter::DatagramsRejectedVersion, decoded),
        };
        CountKey {
            exporter,
            observation_domain: 0,
            protocol_version,
        }
    }

    fn refuse(&mut self, datagram: &Datagram<'_>, decoded: &mut Decoded) -> CountKey {
        let has_room = self.refused.len() < REFUSED_SOURCES_MAX;
        let is_named = self.refused.contains(&datagram.source) || (has_room && self.refused.insert(datagram.source));
        let key = CountKey {
            exporter: if is_named {
                datagram.source
            } else {
                Address::UNSPECIFIED
            },
            observation_domain: 0,
            protocol_version: 0,
        };
        count(datagram, key, Counter::DatagramsRejectedSource, decoded);
        key
    }

    fn reject(&mut self, datagram: &Datagram<'_>, cause: Counter, decoded: &mut Decoded) -> CountKey {
        let key = CountKey {
            exporter: self.counted_name(datagram.source),
            observation_domain: 0,
            protocol_version: 0,
        };
        count(datagram, key, cause, decoded);
        key
    }

    fn counted_name(&mut self, exporter: Address) -> Address {
        if self.counted.contains(&exporter) {
            return exporter;
        }
        if self.counted.len() >= COUNTED_SOURCES_MAX {
            return Address::UNSPECIFIED;
        }
        self.counted.insert(exporter);
        exporter
    }

    /// What the decoders know of each observation domain or agent, for the status. Of domains without records of exporters that are
    /// not listed, which forged sources may make many of, the first [`DOMAINS_WITHOUT_RECORDS_MAX`] are told.
    pub fn domains(&self) -> Vec<(Address, DomainView)> {
        let mut without_records = 0;
        let mut is_told = |status: &DomainStatus| {
            let is_empty = !status.is_listed && !status.had_records;
            without_records += usize::from(is_empty);
            !is_empty || without_records <= DOMAINS_WITHOUT_RECORDS_MAX
        };
        let domains = self.netflow.domains().into_iter();
        domains
            .filter(|status| is_told(status))
            .map(netflow_view)
            .chain(self.sflow.agents().into_iter().map(|status| sflow_view(&status)))
            .collect()
    }
}

fn count(datagram: &Datagram<'_>, key: CountKey, cause: Counter, decoded: &mut Decoded) {
    decoded.counts.add(key, Counter::Datagrams, 1);
    decoded
        .counts
        .add(key, Counter::DatagramBytes, datagram.payload.len() as u64);
    decoded.counts.add(key, cause, 1);
}

fn netflow_view(status: DomainStatus) -> (Address, DomainView) {
    let view = DomainView {
        observation_domain: status.observation_domain,
        protocol_version: status.protocol_version,
        templates: status.templates_known as u64,
        template_list: status.templates,
        pending_sets: status.pending_sets as u64,
        sampling_rate: Some(status.sampling.rate).filter(|rate| *rate > 0),
        sampling_divisor: status.sampling.divisor,
        sampling_implausible: status.sampling.implausible,
        sampling_source: status.sampling.source.words().to_owned(),
        rates_ended: status.rates_ended,
        sequence_lost: status.sequence_lost,
        sequence_waiting: status.sequence_waiting,
        port: status.port,
        clock_offset_ms: status.clock_offset_ms,
        agent: None,
        active_timeout_s: status.active_timeout.map(|timeout| timeout.seconds()),
        active_timeout_source: status.active_timeout.map_or("", |timeout| timeout.words()).to_owned(),
        observes_twice: status.observes_twice,
        has_out_counters: status.has_out_counters,
    };
    (status.exporter, view)
}

fn sflow_view(status: &AgentStatus) -> (Address, DomainView) {
    let rate = status
        .sources
        .iter()
        .map(|source| source.sampling_rate)
        .find(|rate| *rate > 0);
    let source = if rate.is_some() {
        SamplingSource::PerRecord
    } else {
        SamplingSource::Unknown
    };
    let view = DomainView {
        observation_domain: status.sub_agent,
        protocol_version: PROTOCOL_SFLOW5,
        templates: 0,
        template_list: Vec::new(),
        pending_sets: 0,
        sampling_rate: rate,
        sampling_divisor: 1,
        sampling_implausible: false,
        sampling_source: source.words().to_owned(),
        sequence_lost: status.lost,
        sequence_waiting: status.numbers.waiting(),
        port: 0,
        clock_offset_ms: None,
        agent: Some(status.agent).filter(|agent| *agent != Address::UNSPECIFIED),
        ..DomainView::default()
    };
    (status.exporter, view)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_decide() {
        assert_eq!(Kind::of(&[0, 5, 0, 1]), Kind::Netflow(5));
        assert_eq!(Kind::of(&[0, 10]), Kind::Netflow(10));
        assert_eq!(Kind::of(&[0, 0, 0, 5, 0]), Kind::Sflow);
        assert_eq!(Kind::of(&[0, 0, 0]), Kind::Short);
        assert_eq!(Kind::of(&[]), Kind::Short);
        assert_eq!(Kind::of(&[0, 8]), Kind::Unknown);
        assert_eq!(Kind::of(&[0, 0, 0, 4]), Kind::Unknown);
        assert_eq!(Kind::of(b"GET / HTTP/1.1"), Kind::Unknown);
    }

    #[test]
    fn f2_what_is_nothing_is_rejected_and_counted() {
        let mut dispatcher = Dispatcher::new(&MeteringConfig::default());
        let mut decoded = Decoded::default();
        for payload in [&b"GET /"[..], &[0], &[]] {
            let datagram = Datagram {
                received_at_ms: 0,
                source: "192.0.2.1".parse().unwrap(),
                source_port: 0,
                payload,
            };
            let key = dispatcher.decode(&datagram, &mut decoded);
            assert_eq!(key.exporter, datagram.source);
        }
        assert_eq!(decoded.counts.total(Counter::Datagrams), 3);
        assert_eq!(decoded.counts.total(Counter::DatagramBytes), 6);
        assert_eq!(decoded.counts.total(Counter::DatagramsRejectedShort), 2);
        assert_eq!(decoded.counts.total(Counter::DatagramsRejectedVersion), 1);
        assert!(decoded.flows.is_empty());
    }

    #[test]
    fn the_status_tells_of_few_domains_without_records() {
        let listed: Address = "192.0.2.1".parse().unwrap();
        let mut metering = MeteringConfig::default();
        let section = serde_json::json!({ "address": listed.to_string() });
        metering.exporters.push(serde_json::from_value(section).unwrap());
        let mut dispatcher = Dispatcher::new(&metering);
        let mut decoded = Decoded::default();
        let mut hear = |source: Address, domain: u32| {
            let mut payload = vec![0, 10, 0, 16];
            payload.extend([1_767_225_600, 0, domain].map(u32::to_be_bytes).concat());
            let datagram = Datagram {
                received_at_ms: 1_767_225_600_000,
                source,
                source_port: 9,
                payload: &payload,
            };
            dispatcher.decode(&datagram, &mut decoded);
        };
        for last in 0..5 {
            (0..256).for_each(|domain| hear(Address::from_v4([198, 51, 100, last]), domain));
        }
        (0..7).for_each(|domain| hear(listed, domain));
        assert_eq!(decoded.counts.total(Counter::DatagramsDecoded), 5 * 256 + 7);
        let told = dispatcher.domains();
        assert_eq!(told.len(), DOMAINS_WITHOUT_RECORDS_MAX + 7);
        assert_eq!(told.iter().filter(|(source, _)| *source == listed).count(), 7);
    }

    fn restricted(networks: &[&str]) -> MeteringConfig {
        let mut metering = MeteringConfig::default();
        metering.decoding.allowed_exporters = networks.iter().map(|net| net.parse().unwrap()).collect();
        metering
    }

    fn v5_of(source: Address) -> (Address, Vec<u8>) {
        (source, crate::test_support::v5_datagram(0, &[(100, 1)]))
    }

    #[test]
    fn f2_a_source_that_is_not_allowed_is_counted_and_not_read() {
        let mut dispatcher = Dispatcher::new(&restricted(&["192.0.2.0/24"]));
        let mut decoded = Decoded::default();
        let stranger: Address = "198.51.100.9".parse().unwrap();
        for (source, payload) in [
            v5_of("192.0.2.1".parse().unwrap()),
            v5_of(stranger),
            (stranger, vec![1]),
        ] {
            let datagram = Datagram {
                received_at_ms: 1,
                source,
                source_port: 0,
                payload: &payload,
            };
            assert_eq!(dispatcher.decode(&datagram, &mut decoded).exporter, source);
        }
        let refused = CountKey {
            exporter: stranger,
            observation_domain: 0,
            protocol_version: 0,
        };
        assert_eq!(decoded.flows.len(), 1);
        assert_eq!(decoded.counts.get(refused, Counter::DatagramsRejectedSource), 2);
        assert_eq!(decoded.counts.get(refused, Counter::Datagrams), 2);
        let total = |counter| decoded.counts.total(counter);
        assert_eq!(
            total(Counter::DatagramsDecoded) + total(Counter::DatagramsRejectedSource),
            3
        );
        assert_eq!(dispatcher.domains().len(), 1, "nothing is remembered of a stranger");
    }

    #[test]
    fn the_list_changes_while_datagrams_come() {
        let mut dispatcher = Dispatcher::new(&restricted(&["192.0.2.0/24"]));
        let mut sequence = 0;
        let mut read = |metering: &MeteringConfig| {
            let mut decoded = Decoded::default();
            sequence += 1;
            let datagram = Datagram {
                received_at_ms: 1,
                source: "198.51.100.9".parse().unwrap(),
                source_port: 0,
                payload: &crate::test_support::v5_datagram(sequence, &[(100, 1)]),
            };
            dispatcher.set_metering(metering);
            dispatcher.decode(&datagram, &mut decoded);
            decoded.flows.len()
        };
        assert_eq!(read(&restricted(&["192.0.2.0/24"])), 0);
        assert_eq!(read(&restricted(&["192.0.2.0/24", "198.51.100.9/32"])), 1);
        assert_eq!(read(&restricted(&[])), 1, "an empty list allows everybody");
    }

    #[test]
    fn an_agent_address_does_not_open_the_door() {
        let mut dispatcher = Dispatcher::new(&restricted(&["192.0.2.0/24"]));
        let mut decoded = Decoded::default();
        // An sFlow datagram of agent 192.0.2.9 that came from elsewhere.
        let payload = [5_u32, 1, 0xc000_0209, 0, 1, 1, 0].map(u32::to_be_bytes).concat();
        let datagram = Datagram {
            received_at_ms: 1,
            source: "198.51.100.9".parse().unwrap(),
            source_port: 0,
            payload: &payload,
        };
        dispatcher.decode(&datagram, &mut decoded);
        assert_eq!(decoded.counts.total(Counter::DatagramsRejectedSource), 1);
        assert_eq!(decoded.counts.total(Counter::DatagramsDecoded), 0);
    }

    #[test]
    fn refused_sources_do_not_grow_the_counts_without_bound() {
        let mut dispatcher = Dispatcher::new(&restricted(&["192.0.2.0/24"]));
        let mut decoded = Decoded::default();
        for i in 0..REFUSED_SOURCES_MAX as u32 + 10 {
            let (source, payload) = v5_of(Address::from_v4((0x0a00_0000 + i).to_be_bytes()));
            let datagram = Datagram {
                received_at_ms: 1,
                source,
                source_port: 0,
                payload: &payload,
            };
            dispatcher.decode(&datagram, &mut decoded);
        }
        let nobody = CountKey {
            exporter: Address::UNSPECIFIED,
            observation_domain: 0,
            protocol_version: 0,
        };
        assert_eq!(decoded.counts.get(nobody, Counter::DatagramsRejectedSource), 10);
        assert_eq!(
            decoded.counts.total(Counter::DatagramsRejectedSource),
            REFUSED_SOURCES_MAX as u64 + 10
        );
    }

    #[test]
    fn forged_sources_do_not_grow_the_counts_without_bound() {
        let mut dispatcher = Dispatcher::new(&MeteringConfig::default());
        let mut decoded = Decoded::default();
        for i in 0..COUNTED_SOURCES_MAX as u32 + 10 {
            let datagram = Datagram {
                received_at_ms: 0,
                source: Address::from_v4(i.to_be_bytes()),
                source_port: 0,
                payload: &[9, 9, 9, 9],
            };
            dispatcher.decode(&datagram, &mut decoded);
        }
        let nobody = CountKey {
            exporter: Address::UNSPECIFIED,
            observation_domain: 0,
            protocol_version: 0,
        };
        assert_eq!(decoded.counts.get(nobody, Counter::DatagramsRejectedVersion), 10);
    }

    #[test]
    fn an_sflow_datagram_counts_under_its_agent() {
        let mut dispatcher = Dispatcher::new(&MeteringConfig::default());
        let mut heard = |payload: &[u8]| {
            let datagram = Datagram {
                received_at_ms: 0,
                source: "192.0.2.1".parse().unwrap(),
                source_port: 0,
                payload,
            };
            dispatcher
                .decode(&datagram, &mut Decoded::default())
                .exporter
                .to_string()
        };
        let payload = [5_u32, 1, 0xc000_0209, 0, 1, 1, 0].map(u32::to_be_bytes).concat();
        assert_eq!(heard(&payload), "192.0.2.9");
        assert_eq!(heard(&payload[..10]), "192.0.2.1", "cut off: its source");
    }
}
