//! Samples: a flow sample becomes at most one [`Flow`], a counter sample one row per generic interface record.
//!
//! A sample stands alone. Its records are framed by their own lengths, so an unknown record is passed over; a record that
//! reaches beyond its sample rejects the sample and nothing else.
//!
//! ```text
//! flow sample      sequence, source, rate, pool, drops, input, output, n × (format, length, record)
//! counter sample   sequence, source, n × (format, length, record)
//! expanded         source, input and output are two words (type or format, value) instead of one
//! ```

use schemas::address::Address;
use schemas::metering::TunnelMode;
use tables::flow::{DIRECTION_UNKNOWN, FORWARDING_DROPPED, Flow, PROTOCOL_SFLOW5, marks};

use super::xdr::{Xdr, XdrError};
use crate::decode::InterfaceCounters;
use crate::decode::packet_header::{self, HeaderError, PACKET_BYTES_MAX, Packet};

/// An interface of this value is the device itself (sFlow version 5, `interface`).
const INTERFACE_INTERNAL: u32 = 0x3fff_ffff;
/// AS path segments beyond this are taken for damage; a datagram has no room for more.
const AS_PATH_SEGMENTS_MAX: u32 = 1024;

const RECORD_RAW_HEADER: u32 = 1;
const RECORD_SAMPLED_IPV4: u32 = 3;
const RECORD_SAMPLED_IPV6: u32 = 4;
const RECORD_EXTENDED_SWITCH: u32 = 1001;
const RECORD_EXTENDED_ROUTER: u32 = 1002;
const RECORD_EXTENDED_GATEWAY: u32 = 1003;

/// A counter whose bits are all set is one that the device does not support (sFlow version 5, §5.3).
const UNSUPPORTED_U32: u32 = u32::MAX;
const UNSUPPORTED_U64: u64 = u64::MAX;

/// A data source: `(source_id_type, source_id_index)`; type 0 is an interface by its ifIndex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct DataSource {
    pub(super) kind: u32,
    pub(super) index: u32,
}

/// What an sFlow interface field says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Interface {
    /// 0 = not known, several, or the device itself.
    if_index: u32,
    /// Why the packet was discarded, as `forwarding_status` says it; 0 = it was not.
    dropped_status: u8,
}

impl Interface {
    fn new(format: u32, value: u32) -> Interface {
        match (format, value) {
            (0, INTERFACE_INTERNAL | u32::MAX) => Interface::default(),
            (0, if_index) => Interface {
                if_index,
                dropped_status: 0,
            },
            (1, reason) => Interface {
                if_index: 0,
                dropped_status: dropped_status(reason),
            },
            _ => Interface::default(),
        }
    }

    fn read(xdr: &mut Xdr<'_>, expanded: bool) -> Result<Interface, XdrError> {
        if expanded {
            return Ok(Interface::new(xdr.u32()?, xdr.u32()?));
        }
        let word = xdr.u32()?;
        Ok(Interface::new(word >> 30, word & 0x3fff_ffff))
    }
}

/// An sFlow reason for a discard (sFlow version 5, `interface` of format 1) as the forwarding status that comes closest
/// (RFC 7270 §4.12). Reasons up to 255 are codes of an ICMP destination unreachable message.
fn dropped_status(reason: u32) -> u8 {
    const ACL_DENY: u8 = 129;
    const UNROUTABLE: u8 = 131;
    const FRAGMENTATION_NEEDED: u8 = 133;
    const BAD_TTL: u8 = 137;
    const POLICER: u8 = 138;
    const WRED: u8 = 139;
    match reason {
        4 | 262 => FRAGMENTATION_NEEDED,
        9 | 10 | 13 | 258 => ACL_DENY,
        0..=255 => UNROUTABLE,
        257 => BAD_TTL,
        260 => WRED,
        261 => POLICER,
        _ => FORWARDING_DROPPED,
    }
}

fn read_source(xdr: &mut Xdr<'_>, expanded: bool) -> Result<DataSource, XdrError> {
    if expanded {
        return Ok(DataSource {
            kind: xdr.u32()?,
            index: xdr.u32()?,
        });
    }
    let word = xdr.u32()?;
    Ok(DataSource {
        kind: word >> 24,
        index: word & 0x00ff_ffff,
    })
}

/// A flow sample as read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FlowSample {
    pub(super) source: DataSource,
    /// As the sample says; 0 = it does not.
    pub(super) sampling_rate: u32,
    /// Without exporter, domain, times and the chosen rate; `None` when no IP packet was sampled.
    pub(super) flow: Option<Flow>,
    /// It is a tunnel's packet, cut before the packet inside that was asked for.
    pub(super) tunnel_is_cut: bool,
}

/// Reads the body of a flow sample, plain (format 1) or expanded (format 3).
pub(super) fn flow_sample(body: &[u8], expanded: bool, tunnels: TunnelMode) -> Result<FlowSample, XdrError> {
    let mut xdr = Xdr::new(body);
    let _sequence = xdr.u32()?;
    let source = read_source(&mut xdr, expanded)?;
    let sampling_rate = xdr.u32()?;
    let _pool = xdr.u32()?;
    let _drops = xdr.u32()?;
    let input = Interface::read(&mut xdr, expanded)?;
    let output = Interface::read(&mut xdr, expanded)?;
    let record_count = xdr.u32()?;

    let mut records = FlowRecords::default();
    for _ in 0..record_count {
        let format = xdr.u32()?;
        let body = xdr.opaque()?;
        records.read(format, body, tunnels);
    }
    let packet = match (records.header, records.sampled_ip) {
        (Some(Ok(packet)), _) | (_, Some(packet)) => packet,
        (Some(Err(HeaderError::Malformed)), None) => return Err(XdrError::Truncated),
        (Some(Err(HeaderError::NotIp)) | None, None) => {
            return Ok(FlowSample {
                source,
                sampling_rate,
                flow: None,
                tunnel_is_cut: false,
            });
        }
    };
    let source_is = |interface: Interface| source.kind == 0 && source.index != 0 && interface.if_index == source.index;
    let direction = match (source_is(input), source_is(output)) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => DIRECTION_UNKNOWN,
    };
    let (in_vlan, out_vlan) = records.vlans(packet.vlan, direction);
    let flow = Flow {
        protocol_version: PROTOCOL_SFLOW5,
        in_if: input.if_index,
        out_if: output.if_index,
        direction,
        src_addr: packet.src_addr,
        dst_addr: packet.dst_addr,
        src_port: packet.src_port,
        dst_port: packet.dst_port,
        ip_protocol: packet.ip_protocol,
        tcp_flags: packet.tcp_flags,
        tos: packet.tos,
        icmp_type_code: packet.icmp_type_code,
        in_vlan,
        out_vlan,
        next_hop: records.next_hop,
        src_as: records.src_as,
        dst_as: records.dst_as,
        src_mask: records.src_mask,
        dst_mask: records.dst_mask,
        forwarding_status: output.dropped_status,
        bytes: packet.bytes,
        packets: 1,
        marks: if packet.is_inner { marks::INNER_PACKET } else { 0 },
        ..Flow::default()
    };
    Ok(FlowSample {
        source,
        sampling_rate,
        flow: Some(flow),
        tunnel_is_cut: packet.tunnel_is_cut,
    })
}

/// What the records of one flow sample say together.
#[derive(Debug, Default)]
struct FlowRecords {
    header: Option<Result<Packet, HeaderError>>,
    sampled_ip: Option<Packet>,
    switch_vlans: (u16, u16),
    next_hop: Address,
    src_mask: u8,
    dst_mask: u8,
    src_as: u32,
    dst_as: u32,
}

impl FlowRecords {
    /// The VLAN on the input and on the output side. The tag of the sampled packet is that of the side where it was sampled, and
    /// of the other one unless the switch says better: a routed or translated packet leaves under another VLAN.
    fn vlans(&self, tag: u16, direction: u8) -> (u16, u16) {
        let first = |vlans: [u16; 2]| vlans.into_iter().find(|vlan| *vlan != 0).unwrap_or(0);
        let (src, dst) = self.switch_vlans;
        match direction {
            1 => (first([src, tag]), first([tag, dst])),
            _ => (first([tag, src]), first([dst, tag])),
        }
    }

    /// Takes what a record says. One that ends early says nothing: the sample's other records still hold.
    fn read(&mut self, format: u32, body: &[u8], tunnels: TunnelMode) {
        let xdr = Xdr::new(body);
        let read = match format {
            RECORD_RAW_HEADER => self.raw_header(xdr, tunnels),
            RECORD_SAMPLED_IPV4 => self.sampled_ip(xdr, false),
            RECORD_SAMPLED_IPV6 => self.sampled_ip(xdr, true),
            RECORD_EXTENDED_SWITCH => self.extended_switch(xdr),
            RECORD_EXTENDED_ROUTER => self.extended_router(xdr),
            RECORD_EXTENDED_GATEWAY => self.extended_gateway(xdr),
            _ => Ok(()),
        };
        if read.is_err() && format == RECORD_RAW_HEADER {
            self.header = Some(Err(HeaderError::Malformed));
        }
    }

    fn raw_header(&mut self, mut xdr: Xdr<'_>, tunnels: TunnelMode) -> Result<(), XdrError> {
        let protocol = xdr.u32()?;
        let frame_bytes = xdr.u32()?;
        let stripped_bytes = xdr.u32()?;
        let sampled = xdr.opaque()?;
        self.header = Some(packet_header::parse(
            protocol,
            sampled,
            frame_bytes.saturating_sub(stripped_bytes),
            tunnels,
        ));
        Ok(())
    }

    fn sampled_ip(&mut self, mut xdr: Xdr<'_>, ipv6: bool) -> Result<(), XdrError> {
        let bytes = u64::from(xdr.u32()?);
        if bytes > PACKET_BYTES_MAX {
            self.header.get_or_insert(Err(HeaderError::Malformed));
            return Ok(());
        }
        let ip_protocol = low_u8(xdr.u32()?);
        let mut address = || {
            if ipv6 {
                xdr.ipv6()
            } else {
                xdr.u32().map(|word| Address::from_v4(word.to_be_bytes()))
            }
        };
        let (src_addr, dst_addr) = (address()?, address()?);
        let (src_port, dst_port) = (xdr.u32()?, xdr.u32()?);
        let tcp_flags = low_u8(xdr.u32()?);
        let tos = low_u8(xdr.u32()?);
        self.sampled_ip = Some(Packet {
            vlan: 0,
            bytes,
            src_addr,
            dst_addr,
            ip_protocol,
            tos,
            src_port: low_u16(src_port),
            dst_port: low_u16(dst_port),
            tcp_flags,
            ..Packet::default()
        });
        Ok(())
    }

    fn extended_switch(&mut self, mut xdr: Xdr<'_>) -> Result<(), XdrError> {
        let src_vlan = xdr.u32()?;
        let _src_priority = xdr.u32()?;
        let dst_vlan = xdr.u32()?;
        // 0xffffffff and everything above 4094 is "not known" (IEEE 802.1Q reserves 4095).
        let known = |vlan: u32| if vlan < 4095 { vlan as u16 } else { 0 };
        self.switch_vlans = (known(src_vlan), known(dst_vlan));
        Ok(())
    }

    fn extended_router(&mut self, mut xdr: Xdr<'_>) -> Result<(), XdrError> {
        let next_hop = xdr.address()?.or_unspecified();
        let (src_mask, dst_mask) = (xdr.u32()?, xdr.u32()?);
        self.next_hop = next_hop;
        self.src_mask = prefix_length(src_mask);
        self.dst_mask = prefix_length(dst_mask);
        Ok(())
    }

    /// The destination's AS is the last of the path; an empty path stays inside the exporter's own AS. A source without an AS
    /// is one of its own, too.
    fn extended_gateway(&mut self, mut xdr: Xdr<'_>) -> Result<(), XdrError> {
        let next_hop = xdr.address()?.or_unspecified();
        let own_as = xdr.u32()?;
        let src_as = xdr.u32()?;
        let _src_peer_as = xdr.u32()?;
        let mut dst_as = own_as;
        for _ in 0..xdr.u32()?.min(AS_PATH_SEGMENTS_MAX) {
            let _segment_type = xdr.u32()?;
            let length = xdr.u32()?;
            if let Some(before_last) = length.checked_sub(1) {
                xdr.skip_words(before_last)?;
                dst_as = xdr.u32()?;
            }
        }
        self.src_as = if src_as == 0 { own_as } else { src_as };
        self.dst_as = dst_as;
        if self.next_hop == Address::UNSPECIFIED {
            self.next_hop = next_hop;
        }
        Ok(())
    }
}

fn low_u8(word: u32) -> u8 {
    (word & 0xff) as u8
}

fn low_u16(word: u32) -> u16 {
    (word & 0xffff) as u16
}

/// Longer than an address is not known.
fn prefix_length(bits: u32) -> u8 {
    if bits <= 128 { bits as u8 } else { 0 }
}

/// What a counter sample holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct CounterSample {
    /// Records of other kinds, and generic records that end early.
    pub(super) records_ignored: u64,
}

/// Reads the body of a counter sample, plain (format 2) or expanded (format 4), and appends its interfaces to `out`.
/// Counters that the device does not support read 0, like those that never counted.
///
/// On an error nothing of the sample is left in `out`.
pub(super) fn counter_sample(
    body: &[u8],
    expanded: bool,
    template: InterfaceCounters,
    out: &mut Vec<InterfaceCounters>,
) -> Result<CounterSample, XdrError> {
    let before = out.len();
    let result = counter_records(body, expanded, template, out);
    if result.is_err() {
        out.truncate(before);
    }
    result
}

fn counter_records(
    body: &[u8],
    expanded: bool,
    template: InterfaceCounters,
    out: &mut Vec<InterfaceCounters>,
) -> Result<CounterSample, XdrError> {
    let mut xdr = Xdr::new(body);
    let _sequence = xdr.u32()?;
    let _source = read_source(&mut xdr, expanded)?;
    let record_count = xdr.u32()?;
    let mut sample = CounterSample::default();
    for _ in 0..record_count {
        let format = xdr.u32()?;
        let record = xdr.opaque()?;
        match format {
            1 => match interface_counters(Xdr::new(record), template) {
                Ok(counters) => out.push(counters),
                Err(_) => sample.records_ignored += 1,
            },
            _ => sample.records_ignored += 1,
        }
    }
    Ok(sample)
}

/// `if_counters` (sFlow version 5, counter data format 1).
fn interface_counters(mut xdr: Xdr<'_>, template: InterfaceCounters) -> Result<InterfaceCounters, XdrError> {
    let mut counters = InterfaceCounters {
        if_index: xdr.u32()?,
        if_type: xdr.u32()?,
        speed_bps: xdr.u64()?,
        duplex: xdr.u32()?,
        status: xdr.u32()?,
        ..template
    };
    counters.in_bytes = supported_u64(xdr.u64()?);
    counters.in_unicast_packets = supported_u32(xdr.u32()?);
    counters.in_multicast_packets = supported_u32(xdr.u32()?);
    counters.in_broadcast_packets = supported_u32(xdr.u32()?);
    counters.in_discards = supported_u32(xdr.u32()?);
    counters.in_errors = supported_u32(xdr.u32()?);
    let _in_unknown_protocols = xdr.u32()?;
    counters.out_bytes = supported_u64(xdr.u64()?);
    counters.out_unicast_packets = supported_u32(xdr.u32()?);
    counters.out_multicast_packets = supported_u32(xdr.u32()?);
    counters.out_broadcast_packets = supported_u32(xdr.u32()?);
    counters.out_discards = supported_u32(xdr.u32()?);
    counters.out_errors = supported_u32(xdr.u32()?);
    Ok(counters)
}

fn supported_u32(value: u32) -> u64 {
    if value == UNSUPPORTED_U32 { 0 } else { u64::from(value) }
}

fn supported_u64(value: u64) -> u64 {
    if value == UNSUPPORTED_U64 { 0 } else { value }
}
