//! The NetFlow decoder against real captures, against another decoder, and against hostile input.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod differential;
mod hostile;
mod logstash;
mod netgauze;
mod vflow;

use collector::decode::netflow::{DecodeLimits, NetflowDecoder};
use collector::decode::{Datagram, Decoded};
use collector::sampling::SamplingConfig;

use crate::golden::Captured;

fn decoder() -> NetflowDecoder {
    NetflowDecoder::new(DecodeLimits::default(), SamplingConfig::default())
}

fn decode(decoder: &mut NetflowDecoder, captured: &[Captured]) -> Decoded {
    let mut out = Decoded::default();
    for datagram in captured {
        let datagram = Datagram {
            received_at_ms: datagram.received_at_ms,
            source: datagram.source,
            source_port: 0,
            payload: &datagram.payload,
        };
        decoder.decode(&datagram, &mut out);
    }
    out
}

/// When a datagram was exported, by its own header, UTC ms.
fn export_ms(payload: &[u8]) -> i64 {
    let word = |at: usize| i64::from(u32::from_be_bytes(payload[at..at + 4].try_into().unwrap()));
    match payload[1] {
        5 | 7 => word(8) * 1000 + word(12) / 1_000_000,
        9 => word(8) * 1000,
        10 => word(4) * 1000,
        version => panic!("version {version}"),
    }
}

/// A payload without a capture: as if it was received when it was exported.
fn as_exported(payload: Vec<u8>) -> Captured {
    Captured {
        received_at_ms: export_ms(&payload),
        source: "192.0.2.1".parse().unwrap(),
        payload,
    }
}
