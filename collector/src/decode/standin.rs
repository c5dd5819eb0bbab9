//! Just enough NetFlow v5 to build the pipeline on, until the decoders take its place.

use schemas::address::Address;
use schemas::flow::Flow;
use schemas::metering::MeteringConfig;
use serde::{Deserialize, Serialize};

use super::{Datagram, Decoded};
use crate::counts::{CountKey, Counter};
use crate::status::DomainView;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NetflowCheckpoint {
    flows: u64,
}

#[derive(Debug)]
pub(super) struct NetflowDecoder {
    flows: u64,
}

impl NetflowDecoder {
    pub(super) fn new(_: &MeteringConfig) -> NetflowDecoder {
        NetflowDecoder { flows: 0 }
    }

    pub(super) fn restore(_: &MeteringConfig, checkpoint: NetflowCheckpoint) -> NetflowDecoder {
        NetflowDecoder {
            flows: checkpoint.flows,
        }
    }

    pub(super) fn checkpoint(&self) -> NetflowCheckpoint {
        NetflowCheckpoint { flows: self.flows }
    }

    pub(super) fn set_sampling(&mut self, _: &MeteringConfig) {}

    pub(super) fn domains(&self) -> Vec<(Address, DomainView)> {
        Vec::new()
    }

    pub(super) fn decode(&mut self, datagram: &Datagram<'_>, decoded: &mut Decoded) {
        let key = CountKey {
            exporter: datagram.source,
            observation_domain: 0,
            protocol_version: 5,
        };
        let p = datagram.payload;
        decoded.counts.add(key, Counter::Datagrams, 1);
        decoded.counts.add(key, Counter::DatagramBytes, p.len() as u64);
        let count = usize::from(p.get(3).copied().unwrap_or(0));
        if p.len() != 24 + 48 * count {
            decoded.counts.add(key, Counter::DatagramsRejectedLength, 1);
            return;
        }
        decoded.counts.add(key, Counter::DatagramsDecoded, 1);
        for record in p[24..].chunks_exact(48) {
            let u32_at = |at: usize| record[at..].first_chunk().map_or(0, |b| u32::from_be_bytes(*b));
            let address = |at: usize| {
                record[at..]
                    .first_chunk()
                    .map_or(Address::UNSPECIFIED, |b| Address::from_v4(*b))
            };
            self.flows += 1;
            decoded.counts.add(key, Counter::FlowRecords, 1);
            decoded.flows.push(Flow {
                received_at_ms: datagram.received_at_ms,
                start_at_ms: datagram.received_at_ms,
                end_at_ms: datagram.received_at_ms,
                exporter: datagram.source,
                protocol_version: 5,
                sampling_rate: 1,
                src_addr: address(0),
                dst_addr: address(4),
                packets: u64::from(u32_at(16)),
                bytes: u64::from(u32_at(20)),
                ..Flow::default()
            });
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SflowCheckpoint;

#[derive(Debug)]
pub(super) struct SflowDecoder;

impl SflowDecoder {
    pub(super) fn new(_: &MeteringConfig) -> SflowDecoder {
        SflowDecoder
    }

    pub(super) fn restore(_: &MeteringConfig, _: SflowCheckpoint) -> SflowDecoder {
        SflowDecoder
    }

    pub(super) fn checkpoint(&self) -> SflowCheckpoint {
        SflowCheckpoint
    }

    pub(super) fn set_sampling(&mut self, _: &MeteringConfig) {}

    pub(super) fn domains(&self) -> Vec<(Address, DomainView)> {
        Vec::new()
    }

    pub(super) fn decode(&mut self, datagram: &Datagram<'_>, decoded: &mut Decoded) {
        let key = CountKey {
            exporter: datagram.source,
            observation_domain: 0,
            protocol_version: schemas::flow::PROTOCOL_SFLOW5,
        };
        decoded.counts.add(key, Counter::Datagrams, 1);
        decoded.counts.add(key, Counter::DatagramsRejectedLength, 1);
    }
}
