//! How many flows a second one thread decodes, for each protocol, from datagrams in memory.
//!
//! `cargo run --release -p collector --example decode_speed`

use std::time::Instant;

use collector::counts::Counter;
use collector::decode::netflow::{DecodeLimits, NetflowDecoder};
use collector::decode::{Datagram, Decoded};
use collector::sampling::SamplingConfig;
use schemas::address::Address;
use tables::flow::FlowColumns;

const FLOWS: usize = 4_000_000;
const RECEIVED_AT_MS: i64 = 1_767_225_600_000;

/// The 28 fields of Juniper's inline IPFIX template for IPv4.
const MX_FIELDS: &[(u16, u16)] = &[
    (8, 4),
    (12, 4),
    (5, 1),
    (4, 1),
    (7, 2),
    (11, 2),
    (32, 2),
    (10, 4),
    (58, 2),
    (9, 1),
    (13, 1),
    (16, 4),
    (17, 4),
    (15, 4),
    (6, 1),
    (14, 4),
    (52, 1),
    (53, 1),
    (136, 1),
    (60, 1),
    (18, 4),
    (61, 1),
    (243, 2),
    (245, 2),
    (1, 8),
    (2, 8),
    (152, 8),
    (153, 8),
];
const RECORDS: u16 = 16;

fn set(id: u16, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len() + 4).unwrap_or(u16::MAX);
    [&id.to_be_bytes()[..], &length.to_be_bytes(), body].concat()
}

fn template() -> Vec<u8> {
    let mut body = [256_u16.to_be_bytes(), 28_u16.to_be_bytes()].concat();
    for (element, length) in MX_FIELDS {
        body.extend(element.to_be_bytes());
        body.extend(length.to_be_bytes());
    }
    body
}

fn records() -> Vec<u8> {
    let mut body = Vec::new();
    for record in 0..RECORDS {
        for (element, length) in MX_FIELDS {
            let value = match element {
                152 => (RECEIVED_AT_MS - 3000) as u64,
                153 => (RECEIVED_AT_MS - 1000) as u64,
                _ => u64::from(*element) * 31 + u64::from(record),
            };
            body.extend(&value.to_be_bytes()[8 - usize::from(*length)..]);
        }
    }
    body
}

fn ipfix(sets: &[u8]) -> Vec<u8> {
    let length = u16::try_from(16 + sets.len()).unwrap_or(u16::MAX);
    let export_s = (RECEIVED_AT_MS / 1000) as u32;
    [
        &10_u16.to_be_bytes()[..],
        &length.to_be_bytes(),
        &export_s.to_be_bytes(),
        &[0; 4],
        &[0, 0, 0, 1],
        sets,
    ]
    .concat()
}

fn v9(sets: &[u8]) -> Vec<u8> {
    let export_s = (RECEIVED_AT_MS / 1000) as u32;
    [
        &9_u16.to_be_bytes()[..],
        &[0, 1, 0, 0, 255, 255],
        &export_s.to_be_bytes(),
        &[0; 4],
        &[0, 0, 0, 1],
        sets,
    ]
    .concat()
}

fn v5() -> Vec<u8> {
    let export_s = (RECEIVED_AT_MS / 1000) as u32;
    let mut payload = [&[0, 5, 0, 30, 0, 1, 0, 0][..], &export_s.to_be_bytes(), &[0; 12]].concat();
    payload.extend((0..30 * 48).map(|at| if (24..32).contains(&(at % 48)) { 0 } else { 7 }));
    payload
}

/// `numbered` is where the header has its sequence number, and by how much that grows: a datagram with the number of another one is
/// a copy.
fn measure(name: &str, template: &[u8], data: &[u8], numbered: (usize, u32)) {
    let (sequence_at, units) = numbered;
    let mut decoder = NetflowDecoder::new(DecodeLimits::default(), SamplingConfig::default());
    let mut out = Decoded::default();
    let mut decode = |payload: &[u8], out: &mut Decoded| {
        let datagram = Datagram {
            received_at_ms: RECEIVED_AT_MS,
            source: Address::from_v4([192, 0, 2, 1]),
            source_port: 0,
            payload,
        };
        decoder.decode(&datagram, out);
    };
    decode(template, &mut out);
    out = Decoded::default();
    let mut data = data.to_vec();
    let mut sequence = 0_u32;
    let started = Instant::now();
    let mut flows = 0;
    while flows < FLOWS {
        for _ in 0..1000 {
            sequence = sequence.wrapping_add(units);
            data[sequence_at..sequence_at + 4].copy_from_slice(&sequence.to_be_bytes());
            decode(&data, &mut out);
        }
        flows += out.flows.len();
        // A batch would be encoded here; the rows are only dropped, their room is used again.
        let capacity = out.flows.len();
        assert_eq!(out.counts.total(Counter::FlowRecords), capacity as u64);
        out = Decoded {
            flows: FlowColumns::with_capacity(capacity),
            ..Decoded::default()
        };
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{name:6} {:.2} M flows/s", flows as f64 / seconds / 1e6);
}

fn main() {
    measure(
        "ipfix",
        &ipfix(&set(2, &template())),
        &ipfix(&set(256, &records())),
        (8, RECORDS.into()),
    );
    measure("v9", &v9(&set(0, &template())), &v9(&set(256, &records())), (12, 1));
    measure("v5", &v5(), &v5(), (16, 30));
}
