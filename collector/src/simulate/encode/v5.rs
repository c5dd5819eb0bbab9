//! NetFlow version 5: a 24-byte header and up to 28 records of 48 bytes (30 would pass the datagram limit).

use tables::flow::Flow;

use super::{DATAGRAM_BYTES_MAX, EncodeError, SimExporterConfig, SimProtocol, patch_u16, put_u16, put_u32, v4_octets};

const HEADER_BYTES: usize = 24;
const RECORD_BYTES: usize = 48;
const RECORDS_MAX: usize = (DATAGRAM_BYTES_MAX - HEADER_BYTES) / RECORD_BYTES;
/// Two bits of the sampling word are the mode, the rest is the interval.
const SAMPLING_INTERVAL_MAX: u32 = 0x3fff;
const SAMPLING_MODE_RANDOM: u16 = 2 << 14;
/// Stands for an AS number that needs four bytes (RFC 6793).
const AS_TRANS: u16 = 23_456;

/// Sequence state of a v5 exporter.
#[derive(Debug, Default)]
pub(super) struct V5Encoder {
    /// Flows sent before.
    flow_sequence: u32,
}

impl V5Encoder {
    pub(super) fn encode(
        &mut self,
        config: &SimExporterConfig,
        now_ms: i64,
        flows: &[Flow],
        out: &mut Vec<Vec<u8>>,
    ) -> Result<(), EncodeError> {
        let out_of_range = |field, value| EncodeError::OutOfRange {
            protocol: SimProtocol::V5,
            field,
            value,
        };
        if config.sampling_rate > SAMPLING_INTERVAL_MAX {
            return Err(out_of_range("sampling rate", u64::from(config.sampling_rate)));
        }
        for flow in flows {
            check(flow)?;
        }
        let sampling_word = match config.sampling_rate {
            0 => 0,
            rate => SAMPLING_MODE_RANDOM | rate as u16,
        };
        for chunk in flows.chunks(RECORDS_MAX) {
            let mut datagram = Vec::with_capacity(HEADER_BYTES + chunk.len() * RECORD_BYTES);
            put_u16(&mut datagram, 5);
            put_u16(&mut datagram, chunk.len() as u16);
            put_u32(&mut datagram, uptime_ms(config, now_ms));
            put_u32(&mut datagram, now_ms.div_euclid(1_000) as u32);
            put_u32(&mut datagram, now_ms.rem_euclid(1_000) as u32 * 1_000_000);
            put_u32(&mut datagram, self.flow_sequence);
            put_u16(&mut datagram, config.observation_domain as u16);
            put_u16(&mut datagram, sampling_word);
            for flow in chunk {
                put_record(config, flow, &mut datagram);
            }
            self.flow_sequence = self.flow_sequence.wrapping_add(chunk.len() as u32);
            out.push(datagram);
        }
        Ok(())
    }
}

/// Milliseconds since the exporter started, in 32 bits, as its clock would show.
pub(super) fn uptime_ms(config: &SimExporterConfig, at_ms: i64) -> u32 {
    (at_ms - config.boot_at_ms) as u32
}

fn check(flow: &Flow) -> Result<(), EncodeError> {
    let protocol = SimProtocol::V5;
    for address in [flow.src_addr, flow.dst_addr] {
        if !address.is_v4() {
            return Err(EncodeError::AddressFamily { protocol, address });
        }
    }
    let limits = [
        ("bytes", flow.bytes, u64::from(u32::MAX)),
        ("packets", flow.packets, u64::from(u32::MAX)),
        ("input interface", u64::from(flow.in_if), u64::from(u16::MAX)),
        ("output interface", u64::from(flow.out_if), u64::from(u16::MAX)),
    ];
    for (field, value, max) in limits {
        if value > max {
            return Err(EncodeError::OutOfRange { protocol, field, value });
        }
    }
    Ok(())
}

fn put_record(config: &SimExporterConfig, flow: &Flow, datagram: &mut Vec<u8>) {
    let start = datagram.len();
    datagram.extend_from_slice(&v4_octets(flow.src_addr));
    datagram.extend_from_slice(&v4_octets(flow.dst_addr));
    datagram.extend_from_slice(&v4_octets(flow.next_hop));
    put_u16(datagram, flow.in_if as u16);
    put_u16(datagram, flow.out_if as u16);
    put_u32(datagram, flow.packets as u32);
    put_u32(datagram, flow.bytes as u32);
    put_u32(datagram, uptime_ms(config, flow.start_at_ms));
    put_u32(datagram, uptime_ms(config, flow.end_at_ms));
    put_u16(datagram, flow.src_port);
    put_u16(datagram, flow.dst_port);
    datagram.extend_from_slice(&[0, flow.tcp_flags, flow.ip_protocol, flow.tos]);
    put_u16(datagram, u16::try_from(flow.src_as).unwrap_or(AS_TRANS));
    put_u16(datagram, u16::try_from(flow.dst_as).unwrap_or(AS_TRANS));
    datagram.extend_from_slice(&[flow.src_mask, flow.dst_mask, 0, 0]);
    if matches!(flow.ip_protocol, 1 | 58) {
        // Version 5 has no field for it: by custom the type and code are the destination port.
        patch_u16(datagram, start + 34, flow.icmp_type_code);
    }
}
