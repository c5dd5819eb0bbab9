//! NetFlow version 9 (RFC 3954) and IPFIX (RFC 7011), with templates in the field order of Juniper MX inline J-Flow.
//!
//! One table of fields makes both the template and the records, so they cannot disagree.
//!
//! ```text
//! IPFIX  16-byte header | template set | options template set | options data | data sets (IPv4, IPv6)
//! v9     20-byte header | likewise; sets padded to four bytes; the record names its sampler
//! ```

use tables::flow::Flow;

use super::v5::uptime_ms;
use super::{
    DATAGRAM_BYTES_MAX, SimExporterConfig, SimProtocol, patch_u16, patch_u32, put_u16, put_u32, put_u64, v4_octets,
};

const TEMPLATE_IPV4: u16 = 256;
const TEMPLATE_IPV6: u16 = 257;
const TEMPLATE_OPTIONS: u16 = 512;
const SAMPLER_ID: u8 = 1;
const SAMPLER_MODE_RANDOM: u8 = 2;
const TTL: u8 = 60;
/// IE 136: idle timeout.
const END_REASON_IDLE: u8 = 1;

/// Where the value of a field comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Value {
    Source,
    Destination,
    NextHop,
    Tos,
    Protocol,
    SourcePort,
    DestinationPort,
    IcmpTypeCode,
    Input,
    Output,
    Vlan,
    SourceMask,
    DestinationMask,
    SourceAs,
    DestinationAs,
    TcpFlags,
    Bytes,
    Packets,
    Ttl,
    StartMs,
    EndMs,
    FirstSwitched,
    LastSwitched,
    EndReason,
    Direction,
    ForwardingStatus,
    Sampler,
    Zero16,
}

/// (information element, value); the length follows from the value.
type Field = (u16, Value);

impl Value {
    const fn bytes(self, ipv6: bool) -> u16 {
        match self {
            Value::Source | Value::Destination | Value::NextHop => {
                if ipv6 {
                    16
                } else {
                    4
                }
            }
            Value::Tos
            | Value::Protocol
            | Value::SourceMask
            | Value::DestinationMask
            | Value::TcpFlags
            | Value::Ttl
            | Value::EndReason
            | Value::Direction
            | Value::ForwardingStatus
            | Value::Sampler => 1,
            Value::SourcePort | Value::DestinationPort | Value::IcmpTypeCode | Value::Vlan | Value::Zero16 => 2,
            Value::Input
            | Value::Output
            | Value::SourceAs
            | Value::DestinationAs
            | Value::FirstSwitched
            | Value::LastSwitched => 4,
            Value::Bytes | Value::Packets | Value::StartMs | Value::EndMs => 8,
        }
    }
}

const IPFIX_IPV4: &[Field] = &[
    (8, Value::Source),
    (12, Value::Destination),
    (5, Value::Tos),
    (4, Value::Protocol),
    (7, Value::SourcePort),
    (11, Value::DestinationPort),
    (32, Value::IcmpTypeCode),
    (10, Value::Input),
    (58, Value::Vlan),
    (9, Value::SourceMask),
    (13, Value::DestinationMask),
    (16, Value::SourceAs),
    (17, Value::DestinationAs),
    (15, Value::NextHop),
    (6, Value::TcpFlags),
    (14, Value::Output),
    (1, Value::Bytes),
    (2, Value::Packets),
    (52, Value::Ttl),
    (53, Value::Ttl),
    (152, Value::StartMs),
    (153, Value::EndMs),
    (136, Value::EndReason),
    (243, Value::Vlan),
    (245, Value::Zero16),
    (18, Value::NextHop),
    (61, Value::Direction),
    (89, Value::ForwardingStatus),
];

const IPFIX_IPV6: &[Field] = &[
    (27, Value::Source),
    (28, Value::Destination),
    (5, Value::Tos),
    (4, Value::Protocol),
    (7, Value::SourcePort),
    (11, Value::DestinationPort),
    (139, Value::IcmpTypeCode),
    (10, Value::Input),
    (58, Value::Vlan),
    (29, Value::SourceMask),
    (30, Value::DestinationMask),
    (16, Value::SourceAs),
    (17, Value::DestinationAs),
    (62, Value::NextHop),
    (6, Value::TcpFlags),
    (14, Value::Output),
    (1, Value::Bytes),
    (2, Value::Packets),
    (52, Value::Ttl),
    (53, Value::Ttl),
    (152, Value::StartMs),
    (153, Value::EndMs),
    (136, Value::EndReason),
    (243, Value::Vlan),
    (245, Value::Zero16),
    (61, Value::Direction),
    (89, Value::ForwardingStatus),
];

const V9_IPV4: &[Field] = &[
    (8, Value::Source),
    (12, Value::Destination),
    (5, Value::Tos),
    (4, Value::Protocol),
    (7, Value::SourcePort),
    (11, Value::DestinationPort),
    (32, Value::IcmpTypeCode),
    (10, Value::Input),
    (58, Value::Vlan),
    (9, Value::SourceMask),
    (13, Value::DestinationMask),
    (16, Value::SourceAs),
    (17, Value::DestinationAs),
    (15, Value::NextHop),
    (6, Value::TcpFlags),
    (14, Value::Output),
    (1, Value::Bytes),
    (2, Value::Packets),
    (22, Value::FirstSwitched),
    (21, Value::LastSwitched),
    (48, Value::Sampler),
    (61, Value::Direction),
    (89, Value::ForwardingStatus),
];

const V9_IPV6: &[Field] = &[
    (27, Value::Source),
    (28, Value::Destination),
    (5, Value::Tos),
    (4, Value::Protocol),
    (7, Value::SourcePort),
    (11, Value::DestinationPort),
    (139, Value::IcmpTypeCode),
    (10, Value::Input),
    (58, Value::Vlan),
    (29, Value::SourceMask),
    (30, Value::DestinationMask),
    (16, Value::SourceAs),
    (17, Value::DestinationAs),
    (62, Value::NextHop),
    (6, Value::TcpFlags),
    (14, Value::Output),
    (1, Value::Bytes),
    (2, Value::Packets),
    (22, Value::FirstSwitched),
    (21, Value::LastSwitched),
    (48, Value::Sampler),
    (61, Value::Direction),
    (89, Value::ForwardingStatus),
];

fn record_bytes(fields: &[Field], ipv6: bool) -> usize {
    fields.iter().map(|(_, value)| usize::from(value.bytes(ipv6))).sum()
}

/// Sequence and refresh state of a v9 or IPFIX exporter.
#[derive(Debug, Default)]
pub(super) struct TemplateEncoder {
    /// v9: datagrams sent before; IPFIX: data records sent before (RFC 7011 §3.1), options data included.
    sequence: u32,
    datagrams_since_refresh: u32,
    refreshed_at_ms: Option<i64>,
}

/// A datagram in the making.
struct Open {
    buffer: Vec<u8>,
    /// Offset of the set header that records are being added to.
    set_start: usize,
    set_id: Option<u16>,
    /// Template, options and data records: the count of a v9 header.
    records: u16,
    data_records: u32,
}

impl TemplateEncoder {
    pub(super) fn encode(&mut self, config: &SimExporterConfig, now_ms: i64, flows: &[Flow], out: &mut Vec<Vec<u8>>) {
        let ipfix = config.protocol == SimProtocol::Ipfix;
        let (ipv4, ipv6) = if ipfix {
            (IPFIX_IPV4, IPFIX_IPV6)
        } else {
            (V9_IPV4, V9_IPV6)
        };
        let record_bytes_ipv4 = record_bytes(ipv4, false);
        let record_bytes_ipv6 = record_bytes(ipv6, true);
        let mut open: Option<Open> = None;
        for flow in flows {
            let is_ipv6 = !flow.src_addr.is_v4();
            let (template, fields, record_bytes) = if is_ipv6 {
                (TEMPLATE_IPV6, ipv6, record_bytes_ipv6)
            } else {
                (TEMPLATE_IPV4, ipv4, record_bytes_ipv4)
            };
            // A new set costs its header, closing a v9 set up to three bytes of padding.
            let needed = record_bytes + 4 + 3;
            if open
                .as_ref()
                .is_some_and(|o| o.buffer.len() + needed > DATAGRAM_BYTES_MAX)
                && let Some(full) = open.take()
            {
                out.push(self.finish(config, now_ms, full));
            }
            let datagram = match &mut open {
                Some(datagram) => datagram,
                None => open.insert(self.begin(config, now_ms)),
            };
            datagram.enter_set(template, ipfix);
            for (_, value) in fields {
                put_value(config, flow, *value, is_ipv6, &mut datagram.buffer);
            }
            datagram.records += 1;
            datagram.data_records += 1;
        }
        if let Some(last) = open {
            out.push(self.finish(config, now_ms, last));
        }
    }

    fn begin(&mut self, config: &SimExporterConfig, now_ms: i64) -> Open {
        let ipfix = config.protocol == SimProtocol::Ipfix;
        let mut open = Open {
            buffer: Vec::with_capacity(DATAGRAM_BYTES_MAX),
            set_start: 0,
            set_id: None,
            records: 0,
            data_records: 0,
        };
        open.buffer.resize(if ipfix { 16 } else { 20 }, 0);
        let due = self.datagrams_since_refresh >= config.refresh_datagrams
            || self
                .refreshed_at_ms
                .is_none_or(|at_ms| now_ms - at_ms >= config.refresh_ms);
        if due {
            self.refreshed_at_ms = Some(now_ms);
            self.datagrams_since_refresh = 0;
            if ipfix {
                open.put_ipfix_templates(config, self.sequence);
            } else {
                open.put_v9_templates(config);
            }
        }
        open
    }

    fn finish(&mut self, config: &SimExporterConfig, now_ms: i64, mut open: Open) -> Vec<u8> {
        let ipfix = config.protocol == SimProtocol::Ipfix;
        open.close_set(ipfix);
        let mut buffer = open.buffer;
        let length = buffer.len() as u16;
        if ipfix {
            patch_u16(&mut buffer, 0, 10);
            patch_u16(&mut buffer, 2, length);
            patch_u32(&mut buffer, 4, now_ms.div_euclid(1_000) as u32);
            patch_u32(&mut buffer, 8, self.sequence);
            patch_u32(&mut buffer, 12, config.observation_domain);
            self.sequence = self.sequence.wrapping_add(open.data_records);
        } else {
            // The header's clock has whole seconds: told at the next full one, uptime and clock agree and the flows'
            // times keep their milliseconds.
            let told_at_ms = now_ms + (-now_ms).rem_euclid(1_000);
            patch_u16(&mut buffer, 0, 9);
            patch_u16(&mut buffer, 2, open.records);
            patch_u32(&mut buffer, 4, uptime_ms(config, told_at_ms));
            patch_u32(&mut buffer, 8, told_at_ms.div_euclid(1_000) as u32);
            patch_u32(&mut buffer, 12, self.sequence);
            patch_u32(&mut buffer, 16, config.observation_domain);
            self.sequence = self.sequence.wrapping_add(1);
        }
        self.datagrams_since_refresh += 1;
        buffer
    }
}

impl Open {
    fn enter_set(&mut self, set_id: u16, ipfix: bool) {
        if self.set_id == Some(set_id) {
            return;
        }
        self.close_set(ipfix);
        self.set_id = Some(set_id);
        self.set_start = self.buffer.len();
        put_u16(&mut self.buffer, set_id);
        put_u16(&mut self.buffer, 0);
    }

    fn close_set(&mut self, ipfix: bool) {
        if self.set_id.is_none() {
            return;
        }
        if !ipfix {
            let length = self.buffer.len() - self.set_start;
            self.buffer.resize(self.buffer.len() + length.wrapping_neg() % 4, 0);
        }
        let length = (self.buffer.len() - self.set_start) as u16;
        patch_u16(&mut self.buffer, self.set_start + 2, length);
        self.set_id = None;
    }

    fn put_template(&mut self, template: u16, fields: &[Field], ipv6: bool) {
        put_u16(&mut self.buffer, template);
        put_u16(&mut self.buffer, fields.len() as u16);
        for (element, value) in fields {
            put_u16(&mut self.buffer, *element);
            put_u16(&mut self.buffer, value.bytes(ipv6));
        }
        self.records += 1;
    }

    fn put_pairs(&mut self, pairs: &[(u16, u16)]) {
        for (element, length) in pairs {
            put_u16(&mut self.buffer, *element);
            put_u16(&mut self.buffer, *length);
        }
    }

    /// Options as the MX sends them: scope exporting process, and IE 34 holds the sampling interval.
    fn put_ipfix_templates(&mut self, config: &SimExporterConfig, records_before: u32) {
        const SCOPE: &[(u16, u16)] = &[(144, 4)];
        const OPTIONS: &[(u16, u16)] = &[(160, 8), (42, 8), (34, 4), (36, 2), (37, 2), (214, 1), (215, 1)];
        self.enter_set(2, true);
        self.put_template(TEMPLATE_IPV4, IPFIX_IPV4, false);
        self.put_template(TEMPLATE_IPV6, IPFIX_IPV6, true);
        if config.sampling_rate == 0 {
            return;
        }
        self.enter_set(3, true);
        put_u16(&mut self.buffer, TEMPLATE_OPTIONS);
        put_u16(&mut self.buffer, (SCOPE.len() + OPTIONS.len()) as u16);
        put_u16(&mut self.buffer, SCOPE.len() as u16);
        self.put_pairs(SCOPE);
        self.put_pairs(OPTIONS);
        self.enter_set(TEMPLATE_OPTIONS, true);
        put_u32(&mut self.buffer, config.observation_domain);
        put_u64(&mut self.buffer, config.boot_at_ms as u64);
        put_u64(&mut self.buffer, u64::from(records_before));
        put_u32(&mut self.buffer, config.sampling_rate);
        put_u16(&mut self.buffer, 60);
        put_u16(&mut self.buffer, 60);
        self.buffer.extend_from_slice(&[10, 17]);
        self.records += 2;
        self.data_records += 1;
    }

    /// Options with the sampler that the records name: IE 48 to 50 in the scope of the system.
    fn put_v9_templates(&mut self, config: &SimExporterConfig) {
        const SCOPE: &[(u16, u16)] = &[(1, 4)];
        const OPTIONS: &[(u16, u16)] = &[(48, 1), (49, 1), (50, 4)];
        self.enter_set(0, false);
        self.put_template(TEMPLATE_IPV4, V9_IPV4, false);
        self.put_template(TEMPLATE_IPV6, V9_IPV6, true);
        if config.sampling_rate == 0 {
            return;
        }
        self.enter_set(1, false);
        put_u16(&mut self.buffer, TEMPLATE_OPTIONS);
        put_u16(&mut self.buffer, (SCOPE.len() * 4) as u16);
        put_u16(&mut self.buffer, (OPTIONS.len() * 4) as u16);
        self.put_pairs(SCOPE);
        self.put_pairs(OPTIONS);
        self.enter_set(TEMPLATE_OPTIONS, false);
        put_u32(&mut self.buffer, 0);
        self.buffer.extend_from_slice(&[SAMPLER_ID, SAMPLER_MODE_RANDOM]);
        put_u32(&mut self.buffer, config.sampling_rate);
        self.records += 2;
        self.data_records += 1;
    }
}

#[inline]
fn put_value(config: &SimExporterConfig, flow: &Flow, value: Value, ipv6: bool, buffer: &mut Vec<u8>) {
    let address = match value {
        Value::Source => flow.src_addr,
        Value::Destination => flow.dst_addr,
        Value::NextHop => flow.next_hop,
        Value::Tos => return buffer.push(flow.tos),
        Value::Protocol => return buffer.push(flow.ip_protocol),
        Value::SourcePort => return put_u16(buffer, flow.src_port),
        Value::DestinationPort => return put_u16(buffer, flow.dst_port),
        Value::IcmpTypeCode => return put_u16(buffer, flow.icmp_type_code),
        Value::Input => return put_u32(buffer, flow.in_if),
        Value::Output => return put_u32(buffer, flow.out_if),
        Value::Vlan => return put_u16(buffer, flow.in_vlan),
        Value::SourceMask => return buffer.push(flow.src_mask),
        Value::DestinationMask => return buffer.push(flow.dst_mask),
        Value::SourceAs => return put_u32(buffer, flow.src_as),
        Value::DestinationAs => return put_u32(buffer, flow.dst_as),
        Value::TcpFlags => return buffer.push(flow.tcp_flags),
        Value::Bytes => return put_u64(buffer, flow.bytes),
        Value::Packets => return put_u64(buffer, flow.packets),
        Value::Ttl => return buffer.push(TTL),
        Value::StartMs => return put_u64(buffer, flow.start_at_ms as u64),
        Value::EndMs => return put_u64(buffer, flow.end_at_ms as u64),
        Value::FirstSwitched => return put_u32(buffer, uptime_ms(config, flow.start_at_ms)),
        Value::LastSwitched => return put_u32(buffer, uptime_ms(config, flow.end_at_ms)),
        Value::EndReason => return buffer.push(END_REASON_IDLE),
        Value::Direction => return buffer.push(flow.direction),
        Value::ForwardingStatus => return buffer.push(flow.forwarding_status),
        Value::Sampler => return buffer.push(if config.sampling_rate == 0 { 0 } else { SAMPLER_ID }),
        Value::Zero16 => return put_u16(buffer, 0),
    };
    if ipv6 {
        buffer.extend_from_slice(&address.0);
    } else {
        buffer.extend_from_slice(&v4_octets(address));
    }
}
