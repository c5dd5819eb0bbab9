//! sFlow version 5: one flow sample per packet, with a sampled header as a switch would cut it, and the counters of the
//! interfaces seen.
//!
//! A sample is one packet, so a flow given here must have `packets` = 1 and `bytes` of a packet that can exist.

use schemas::address::Address;
use tables::flow::Flow;

use super::v5::uptime_ms;
use super::{
    DATAGRAM_BYTES_MAX, EncodeError, SimExporterConfig, SimProtocol, patch_u32, put_u16, put_u32, put_u64, v4_octets,
};

/// Switches cut the sampled header here.
const SAMPLED_HEADER_BYTES_MAX: usize = 128;
/// A sample's head, the raw header's record and the extended switch record.
const FLOW_SAMPLE_BYTES_MAX: usize = 8 + 44 + 24 + SAMPLED_HEADER_BYTES_MAX + 24;
/// What the extended router and gateway records add, with an IPv6 next hop.
const ROUTER_BYTES_MAX: usize = 36;
const GATEWAY_BYTES_MAX: usize = 68;
const COUNTER_SAMPLE_BYTES_MAX: usize = 8 + 16 + 8 + 88;
/// Frame check sequence: part of the frame's length, stripped before sampling.
const FCS_BYTES: usize = 4;
const ETHERNET_BYTES: usize = 14;
const VLAN_TAG_BYTES: usize = 4;
/// A shorter frame is filled up.
const FRAME_BYTES_MIN: u64 = 64;
/// Interfaces whose counters are kept; a switch has no more ports.
const INTERFACES_MAX: usize = 1_024;
/// `ifType` ethernetCsmacd.
const IF_TYPE_ETHERNET: u32 = 6;
const IF_SPEED_BPS: u64 = 10_000_000_000;
const FORWARDING_DROPPED: u8 = 128;
const INTERFACE_INDEX_MAX: u32 = 0x3fff_fffe;
const SOURCE_INDEX_MAX: u32 = 0x00ff_ffff;

/// Sequence numbers and interface counters of an sFlow agent.
#[derive(Debug, Default)]
pub(super) struct SflowEncoder {
    datagram_sequence: u32,
    sample_sequence: u32,
    sample_pool: u32,
    counter_sequence: u32,
    counters_sent_at_ms: Option<i64>,
    interfaces: Vec<InterfaceTotals>,
}

/// Estimated totals of an interface: what was sampled, scaled, as it is on the wire (RFC 2863: with framing).
#[derive(Clone, Copy, Debug, Default)]
struct InterfaceTotals {
    if_index: u32,
    in_bytes: u64,
    in_packets: u64,
    out_bytes: u64,
    out_packets: u64,
}

struct Open {
    buffer: Vec<u8>,
    samples: u32,
    sample_count_offset: usize,
}

impl SflowEncoder {
    pub(super) fn encode(
        &mut self,
        config: &SimExporterConfig,
        now_ms: i64,
        flows: &[Flow],
        out: &mut Vec<Vec<u8>>,
    ) -> Result<(), EncodeError> {
        for flow in flows {
            check(flow)?;
        }
        let mut open: Option<Open> = None;
        for flow in flows {
            let datagram = self.datagram_with_space(flow_sample_bytes_max(flow), &mut open, config, now_ms, out);
            self.sample_sequence = self.sample_sequence.wrapping_add(1);
            self.sample_pool = self.sample_pool.wrapping_add(config.sampling_rate);
            put_flow_sample(
                flow,
                config.sampling_rate,
                self.sample_sequence,
                self.sample_pool,
                &mut datagram.buffer,
            );
            datagram.samples += 1;
            self.count(flow, config.sampling_rate);
        }
        let counters_due = self
            .counters_sent_at_ms
            .is_none_or(|at_ms| now_ms - at_ms >= config.counter_interval_ms);
        if counters_due && !self.interfaces.is_empty() {
            self.counters_sent_at_ms = Some(now_ms);
            for position in 0..self.interfaces.len() {
                let datagram = self.datagram_with_space(COUNTER_SAMPLE_BYTES_MAX, &mut open, config, now_ms, out);
                self.counter_sequence = self.counter_sequence.wrapping_add(1);
                put_counter_sample(&self.interfaces[position], self.counter_sequence, &mut datagram.buffer);
                datagram.samples += 1;
            }
        }
        out.extend(open.map(finish));
        Ok(())
    }

    /// The open datagram, or the next one when `bytes` more do not fit.
    fn datagram_with_space<'a>(
        &mut self,
        bytes: usize,
        open: &'a mut Option<Open>,
        config: &SimExporterConfig,
        now_ms: i64,
        out: &mut Vec<Vec<u8>>,
    ) -> &'a mut Open {
        if open
            .as_ref()
            .is_some_and(|o| o.buffer.len() + bytes > DATAGRAM_BYTES_MAX)
        {
            out.extend(open.take().map(finish));
        }
        open.get_or_insert_with(|| {
            self.datagram_sequence = self.datagram_sequence.wrapping_add(1);
            begin(config, now_ms, self.datagram_sequence)
        })
    }

    fn count(&mut self, flow: &Flow, sampling_rate: u32) {
        let packets = u64::from(sampling_rate.max(1));
        let tag_bytes = if flow.in_vlan == 0 { 0 } else { VLAN_TAG_BYTES };
        let frame_bytes = flow.bytes + (ETHERNET_BYTES + tag_bytes + FCS_BYTES) as u64;
        let bytes = frame_bytes.max(FRAME_BYTES_MIN) * packets;
        if let Some(input) = self.interface(flow.in_if) {
            input.in_bytes += bytes;
            input.in_packets += packets;
        }
        if let Some(output) = self.interface(flow.out_if) {
            output.out_bytes += bytes;
            output.out_packets += packets;
        }
    }

    fn interface(&mut self, if_index: u32) -> Option<&mut InterfaceTotals> {
        if if_index == 0 {
            return None;
        }
        let position = self.interfaces.iter().position(|totals| totals.if_index == if_index);
        match position {
            Some(position) => self.interfaces.get_mut(position),
            None if self.interfaces.len() < INTERFACES_MAX => {
                self.interfaces.push(InterfaceTotals {
                    if_index,
                    ..InterfaceTotals::default()
                });
                self.interfaces.last_mut()
            }
            None => None,
        }
    }
}

fn begin(config: &SimExporterConfig, now_ms: i64, sequence: u32) -> Open {
    let mut buffer = Vec::with_capacity(DATAGRAM_BYTES_MAX);
    put_u32(&mut buffer, 5);
    if config.address.is_v4() {
        put_u32(&mut buffer, 1);
        buffer.extend_from_slice(&v4_octets(config.address));
    } else {
        put_u32(&mut buffer, 2);
        buffer.extend_from_slice(&config.address.0);
    }
    put_u32(&mut buffer, config.observation_domain);
    put_u32(&mut buffer, sequence);
    put_u32(&mut buffer, uptime_ms(config, now_ms));
    let sample_count_offset = buffer.len();
    put_u32(&mut buffer, 0);
    Open {
        buffer,
        samples: 0,
        sample_count_offset,
    }
}

fn finish(open: Open) -> Vec<u8> {
    let mut buffer = open.buffer;
    patch_u32(&mut buffer, open.sample_count_offset, open.samples);
    buffer
}

fn has_router(flow: &Flow) -> bool {
    flow.next_hop != Address::UNSPECIFIED || flow.src_mask != 0 || flow.dst_mask != 0
}

fn has_gateway(flow: &Flow) -> bool {
    flow.src_as != 0 || flow.dst_as != 0
}

fn flow_sample_bytes_max(flow: &Flow) -> usize {
    let router_bytes = if has_router(flow) { ROUTER_BYTES_MAX } else { 0 };
    let gateway_bytes = if has_gateway(flow) { GATEWAY_BYTES_MAX } else { 0 };
    FLOW_SAMPLE_BYTES_MAX + router_bytes + gateway_bytes
}

/// Smallest packet of the protocol without payload.
fn headers_bytes(flow: &Flow) -> usize {
    let ip = if flow.src_addr.is_v4() { 20 } else { 40 };
    let transport = match flow.ip_protocol {
        6 => 20,
        1 | 17 | 58 | 136 => 8,
        _ => 0,
    };
    ip + transport
}

fn check(flow: &Flow) -> Result<(), EncodeError> {
    let protocol = SimProtocol::Sflow;
    let out_of_range = |field, value| Err(EncodeError::OutOfRange { protocol, field, value });
    if flow.packets != 1 {
        return out_of_range("packets", flow.packets);
    }
    if flow.bytes < headers_bytes(flow) as u64 || flow.bytes > u64::from(u16::MAX) {
        return out_of_range("bytes of a packet", flow.bytes);
    }
    if flow.src_addr.is_v4() != flow.dst_addr.is_v4() {
        let address = flow.dst_addr;
        return Err(EncodeError::AddressFamily { protocol, address });
    }
    for (field, if_index) in [("input interface", flow.in_if), ("output interface", flow.out_if)] {
        if if_index > INTERFACE_INDEX_MAX {
            return out_of_range(field, u64::from(if_index));
        }
    }
    Ok(())
}

/// Starts a sample or record and returns the offset of its length.
fn start_framed(buffer: &mut Vec<u8>, format: u32) -> usize {
    put_u32(buffer, format);
    put_u32(buffer, 0);
    buffer.len() - 4
}

fn end_framed(buffer: &mut [u8], length_offset: usize) {
    let length = (buffer.len() - length_offset - 4) as u32;
    patch_u32(buffer, length_offset, length);
}

/// sFlow version 5, `interface`: a packet that was discarded, the reason not told.
const DISCARD_REASON_UNKNOWN: u32 = 256;

fn put_flow_sample(flow: &Flow, sampling_rate: u32, sequence: u32, pool: u32, buffer: &mut Vec<u8>) {
    let source_index = match flow.direction {
        0 => flow.in_if,
        1 => flow.out_if,
        _ => 0,
    };
    let dropped = flow.forwarding_status == FORWARDING_DROPPED && flow.out_if == 0;
    let expanded = source_index > SOURCE_INDEX_MAX;
    let sample = start_framed(buffer, if expanded { 3 } else { 1 });
    put_u32(buffer, sequence);
    if expanded {
        put_u32(buffer, 0);
    }
    put_u32(buffer, source_index);
    put_u32(buffer, sampling_rate);
    put_u32(buffer, pool);
    put_u32(buffer, 0);
    if expanded {
        put_u32(buffer, 0);
        put_u32(buffer, flow.in_if);
        put_u32(buffer, u32::from(dropped));
        put_u32(buffer, if dropped { DISCARD_REASON_UNKNOWN } else { flow.out_if });
    } else {
        put_u32(buffer, flow.in_if);
        put_u32(
            buffer,
            if dropped {
                (1 << 30) | DISCARD_REASON_UNKNOWN
            } else {
                flow.out_if
            },
        );
    }
    let (has_router, has_gateway) = (has_router(flow), has_gateway(flow));
    put_u32(buffer, 2 + u32::from(has_router) + u32::from(has_gateway));
    put_raw_header(flow, buffer);

    let switch = start_framed(buffer, 1001);
    put_u32(buffer, u32::from(flow.in_vlan));
    put_u32(buffer, 0);
    put_u32(buffer, u32::from(flow.out_vlan));
    put_u32(buffer, 0);
    end_framed(buffer, switch);
    if has_router {
        let router = start_framed(buffer, 1002);
        put_next_hop(flow, buffer);
        put_u32(buffer, u32::from(flow.src_mask));
        put_u32(buffer, u32::from(flow.dst_mask));
        end_framed(buffer, router);
    }
    if has_gateway {
        let gateway = start_framed(buffer, 1003);
        put_next_hop(flow, buffer);
        put_u32(buffer, 0);
        put_u32(buffer, flow.src_as);
        put_u32(buffer, flow.src_as);
        if flow.dst_as == 0 {
            put_u32(buffer, 0);
        } else {
            // One segment, an AS sequence of one.
            for word in [1, 2, 1, flow.dst_as] {
                put_u32(buffer, word);
            }
        }
        // No communities; the default local preference.
        put_u32(buffer, 0);
        put_u32(buffer, 100);
        end_framed(buffer, gateway);
    }
    end_framed(buffer, sample);
}

fn put_next_hop(flow: &Flow, buffer: &mut Vec<u8>) {
    if flow.next_hop.is_v4() {
        put_u32(buffer, 1);
        buffer.extend_from_slice(&v4_octets(flow.next_hop));
    } else if flow.next_hop == Address::UNSPECIFIED {
        put_u32(buffer, 0);
    } else {
        put_u32(buffer, 2);
        buffer.extend_from_slice(&flow.next_hop.0);
    }
}

fn put_raw_header(flow: &Flow, buffer: &mut Vec<u8>) {
    let tag_bytes = if flow.in_vlan == 0 { 0 } else { VLAN_TAG_BYTES };
    let packet_bytes = flow.bytes as usize;
    let stripped_frame_bytes = ETHERNET_BYTES + tag_bytes + packet_bytes;
    let sampled_bytes = stripped_frame_bytes.min(SAMPLED_HEADER_BYTES_MAX);
    let record = start_framed(buffer, 1);
    put_u32(buffer, 1);
    put_u32(buffer, (stripped_frame_bytes + FCS_BYTES) as u32);
    put_u32(buffer, FCS_BYTES as u32);
    put_u32(buffer, sampled_bytes as u32);
    let start = buffer.len();
    let ipv4 = flow.src_addr.is_v4();
    buffer.extend_from_slice(&[0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2]);
    if flow.in_vlan != 0 {
        put_u16(buffer, 0x8100);
        put_u16(buffer, flow.in_vlan & 0x0fff);
    }
    put_u16(buffer, if ipv4 { 0x0800 } else { 0x86dd });
    if ipv4 {
        put_ipv4(flow, buffer);
    } else {
        put_ipv6(flow, buffer);
    }
    let ip_header_bytes = if ipv4 { 20 } else { 40 };
    put_transport(flow, packet_bytes - ip_header_bytes, buffer);
    // The payload is zeros; a header without room for all of the transport header does not occur: 14 + 4 + 40 + 20 < 128.
    buffer.resize(start + sampled_bytes, 0);
    let padding = sampled_bytes.wrapping_neg() % 4;
    buffer.resize(buffer.len() + padding, 0);
    end_framed(buffer, record);
}

fn put_ipv4(flow: &Flow, buffer: &mut Vec<u8>) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0x45, flow.tos]);
    put_u16(buffer, flow.bytes as u16);
    // No identification, don't fragment.
    buffer.extend_from_slice(&[0, 0, 0x40, 0, 60, flow.ip_protocol, 0, 0]);
    buffer.extend_from_slice(&v4_octets(flow.src_addr));
    buffer.extend_from_slice(&v4_octets(flow.dst_addr));
    let checksum = ipv4_checksum(&buffer[start..]);
    buffer[start + 10..start + 12].copy_from_slice(&checksum.to_be_bytes());
}

/// RFC 1071, over a header of even length.
fn ipv4_checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in header.chunks_exact(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn put_ipv6(flow: &Flow, buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(&[0x60 | (flow.tos >> 4), flow.tos << 4, 0, 0]);
    put_u16(buffer, (flow.bytes - 40) as u16);
    buffer.extend_from_slice(&[flow.ip_protocol, 60]);
    buffer.extend_from_slice(&flow.src_addr.0);
    buffer.extend_from_slice(&flow.dst_addr.0);
}

fn put_transport(flow: &Flow, bytes: usize, buffer: &mut Vec<u8>) {
    match flow.ip_protocol {
        6 => {
            put_u16(buffer, flow.src_port);
            put_u16(buffer, flow.dst_port);
            put_u64(buffer, 0);
            buffer.extend_from_slice(&[0x50, flow.tcp_flags, 0xff, 0xff, 0, 0, 0, 0]);
        }
        17 | 136 => {
            put_u16(buffer, flow.src_port);
            put_u16(buffer, flow.dst_port);
            put_u16(buffer, bytes as u16);
            put_u16(buffer, 0);
        }
        1 | 58 => {
            put_u16(buffer, flow.icmp_type_code);
            buffer.extend_from_slice(&[0; 6]);
        }
        _ => {}
    }
}

fn put_counter_sample(totals: &InterfaceTotals, sequence: u32, buffer: &mut Vec<u8>) {
    let sample = start_framed(buffer, if totals.if_index > SOURCE_INDEX_MAX { 4 } else { 2 });
    put_u32(buffer, sequence);
    if totals.if_index > SOURCE_INDEX_MAX {
        put_u32(buffer, 0);
    }
    put_u32(buffer, totals.if_index);
    put_u32(buffer, 1);
    let record = start_framed(buffer, 1);
    put_u32(buffer, totals.if_index);
    put_u32(buffer, IF_TYPE_ETHERNET);
    put_u64(buffer, IF_SPEED_BPS);
    // Full duplex; administratively and operationally up.
    put_u32(buffer, 1);
    put_u32(buffer, 3);
    put_u64(buffer, totals.in_bytes);
    // 32-bit counters wrap, as a switch's do.
    for value in [totals.in_packets as u32, 0, 0, 0, 0, 0] {
        put_u32(buffer, value);
    }
    put_u64(buffer, totals.out_bytes);
    for value in [totals.out_packets as u32, 0, 0, 0, 0] {
        put_u32(buffer, value);
    }
    // Not promiscuous.
    put_u32(buffer, 2);
    end_framed(buffer, record);
    end_framed(buffer, sample);
}
