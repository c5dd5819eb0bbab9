//! What the decoder promises, on datagrams that are written here byte by byte.

mod encode;
mod inline_monitoring;
mod juniper;
mod limits;
mod meaning;
mod messages;
mod sampling;
mod sessions;
mod state;
mod totals;
mod values;
mod vendors;

use schemas::address::Address;
use tables::flow::Flow;

use super::*;
use encode::{Ipfix, V9, fields};

/// 2026-01-01T00:00:00Z.
const NOW_S: u32 = 1_767_225_600;
const NOW_MS: i64 = NOW_S as i64 * 1000;

/// A small flow template: addresses, bytes, packets, start, end.
const FLOW_FIELDS: &[(u16, u16)] = &[(8, 4), (12, 4), (1, 4), (2, 4), (152, 8), (153, 8)];

fn exporter() -> Address {
    "192.0.2.1".parse().unwrap()
}

fn decoder() -> NetflowDecoder {
    NetflowDecoder::new(DecodeLimits::default(), SamplingConfig::default())
}

fn decode_at(decoder: &mut NetflowDecoder, payload: &[u8], received_at_ms: i64, out: &mut Decoded) {
    let datagram = Datagram {
        received_at_ms,
        source: exporter(),
        source_port: 0,
        payload,
    };
    decoder.decode(&datagram, out);
}

/// Decodes datagrams in order, all received at [`NOW_MS`].
fn decode_all(decoder: &mut NetflowDecoder, payloads: &[Vec<u8>]) -> Decoded {
    let mut out = Decoded::default();
    for payload in payloads {
        decode_at(decoder, payload, NOW_MS, &mut out);
    }
    out
}

/// A record of [`FLOW_FIELDS`] from 10.0.0.1 to 10.0.0.2 that lasted one second.
fn flow_record(bytes: u32, packets: u32) -> Vec<u8> {
    let mut record = vec![10, 0, 0, 1, 10, 0, 0, 2];
    record.extend(bytes.to_be_bytes());
    record.extend(packets.to_be_bytes());
    record.extend((NOW_MS - 2000).to_be_bytes());
    record.extend((NOW_MS - 1000).to_be_bytes());
    record
}

fn one_flow(out: &Decoded) -> Flow {
    assert_eq!(out.flows.len(), 1, "{:?}", out.counts);
    out.flows.rows()[0]
}
