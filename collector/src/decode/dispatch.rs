//! Which decoder a datagram goes to: decided by its first bytes, never by the socket it came to.
//!
//! | first bytes | protocol |
//! |---|---|
//! | 00 05, 00 07, 00 09, 00 0a | NetFlow v5, v7, v9, IPFIX |
//! | 00 00 00 05 | sFlow version 5 |
//! | anything else | rejected, counted under the address it came from |
//!
//! Each datagram is counted once as received, and once as decoded or rejected (F2): by its decoder, or here when it has
//! none.

use std::collections::HashSet;

use schemas::address::Address;
use schemas::flow::PROTOCOL_SFLOW5;
use schemas::metering::MeteringConfig;
use serde::{Deserialize, Serialize};

use super::{Datagram, Decoded};
use crate::counts::{CountKey, Counter};
use crate::status::DomainView;

use super::netflow::{DecodeLimits, DomainStatus, NetflowCheckpoint, NetflowDecoder};
use super::sflow::{AgentStatus, SflowCheckpoint, SflowDecoder, SflowLimits};
use crate::sampling::{SamplingConfig, SamplingSource};

/// Distinct sources of rejected datagrams counted by name between two calls of [`Dispatcher::start_segment`]; a flood of
/// forged addresses is counted under `::` beyond it.
pub const COUNTED_SOURCES_MAX: usize = 20_000;

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

/// State of both decoders, as the journal's checkpoint keeps it.
#[derive(Debug, Serialize, Deserialize)]
pub struct DecoderCheckpoint {
    netflow: NetflowCheckpoint,
    sflow: SflowCheckpoint,
}

/// Both decoders behind one door.
#[derive(Debug)]
pub struct Dispatcher {
    netflow: NetflowDecoder,
    sflow: SflowDecoder,
    counted: HashSet<Address>,
}

impl Dispatcher {
    /// Decoders that have heard nothing yet.
    pub fn new(metering: &MeteringConfig) -> Dispatcher {
        Dispatcher {
            netflow: NetflowDecoder::new(DecodeLimits::default(), SamplingConfig::from(metering)),
            sflow: SflowDecoder::new(SflowLimits::default(), metering),
            counted: HashSet::new(),
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
            counted: HashSet::new(),
        }
    }

    pub fn checkpoint(&self) -> DecoderCheckpoint {
        DecoderCheckpoint {
            netflow: self.netflow.checkpoint(),
            sflow: self.sflow.checkpoint(),
        }
    }

    /// Takes over changed sampling rates.
    pub fn set_metering(&mut self, metering: &MeteringConfig) {
        self.netflow.set_sampling(SamplingConfig::from(metering));
        self.sflow.set_sampling(metering);
    }

    /// Forgets which sources were counted by name, so that what is counted depends on the segment alone.
    pub fn start_segment(&mut self) {
        self.counted.clear();
    }

    /// Decodes one datagram into `decoded` and answers which exporter spoke, and in which protocol.
    pub fn decode(&mut self, datagram: &Datagram<'_>, decoded: &mut Decoded) -> CountKey {
        let kind = Kind::of(datagram.payload);
        let (exporter, protocol_version) = match kind {
            Kind::Netflow(version) => (datagram.source, version),
            Kind::Sflow => (
                sflow_agent(datagram.payload).unwrap_or(datagram.source),
                PROTOCOL_SFLOW5,
            ),
            Kind::Short | Kind::Unknown => (datagram.source, 0),
        };
        let heard = CountKey {
            exporter,
            observation_domain: 0,
            protocol_version,
        };
        match kind {
            Kind::Netflow(_) => self.netflow.decode(datagram, decoded),
            Kind::Sflow => self.sflow.decode(datagram, decoded),
            Kind::Short => self.reject(datagram, Counter::DatagramsRejectedShort, decoded),
            Kind::Unknown => self.reject(datagram, Counter::DatagramsRejectedVersion, decoded),
        }
        heard
    }

    fn reject(&mut self, datagram: &Datagram<'_>, cause: Counter, decoded: &mut Decoded) {
        let key = CountKey {
            exporter: self.counted_name(datagram.source),
            observation_domain: 0,
            protocol_version: 0,
        };
        let length = datagram.payload.len() as u64;
        decoded.counts.add(key, Counter::Datagrams, 1);
        decoded.counts.add(key, Counter::DatagramBytes, length);
        decoded.counts.add(key, cause, 1);
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

    /// What the decoders know of each observation domain or agent, for the status.
    pub fn domains(&self) -> Vec<(Address, DomainView)> {
        let domains = self.netflow.domains().into_iter().map(netflow_view);
        domains
            .chain(self.sflow.agents().into_iter().map(|status| sflow_view(&status)))
            .collect()
    }
}

fn netflow_view(status: DomainStatus) -> (Address, DomainView) {
    let view = DomainView {
        observation_domain: status.observation_domain,
        protocol_version: status.protocol_version,
        templates: status.templates.len() as u64,
        template_list: status.templates,
        pending_sets: status.pending_sets as u64,
        sampling_rate: Some(status.sampling.rate).filter(|rate| *rate > 0),
        sampling_source: status.sampling.source.words().to_owned(),
        sequence_lost: 0,
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
        sampling_source: source.words().to_owned(),
        sequence_lost: 0,
    };
    (status.exporter, view)
}

/// The agent address in an sFlow header: version, address type (1 = IPv4, 2 = IPv6), address.
fn sflow_agent(payload: &[u8]) -> Option<Address> {
    let (address_type, rest) = payload.get(4..)?.split_first_chunk::<4>()?;
    match address_type {
        [0, 0, 0, 1] => rest.first_chunk::<4>().map(|octets| Address::from_v4(*octets)),
        [0, 0, 0, 2] => rest.first_chunk::<16>().map(|octets| Address(*octets)),
        _ => None,
    }
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
    fn forged_sources_do_not_grow_the_counts_without_bound() {
        let mut dispatcher = Dispatcher::new(&MeteringConfig::default());
        let mut decoded = Decoded::default();
        for i in 0..COUNTED_SOURCES_MAX as u32 + 10 {
            let datagram = Datagram {
                received_at_ms: 0,
                source: Address::from_v4(i.to_be_bytes()),
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
        let payload = [0, 0, 0, 5, 0, 0, 0, 1, 192, 0, 2, 9];
        assert_eq!(sflow_agent(&payload), Some("192.0.2.9".parse().unwrap()));
        assert_eq!(sflow_agent(&payload[..10]), None);
    }
}
