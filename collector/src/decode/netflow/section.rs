//! Records that carry the head of a packet instead of counters: Juniper's inline monitoring, PSAMP, Cisco's NetFlow-Lite.
//!
//! Such a record is one sampled packet (IE 315 dataLinkFrameSection, IE 104, or IE 313 ipHeaderPacketSection) with what the exporter
//! knows about it beside: interfaces, direction, sometimes the frame's size (IE 312). It becomes a flow of one packet. Its
//! bytes are layer 3, from the packet's own IP header, as everywhere; the frame's size, which has the link layer in it, only
//! stands in where that header gives no length.
//!
//! Juniper's private common properties (enterprise 2636, IE 137, several in one record) repeat interfaces and forwarding
//! details in an encoding of its own; they are passed over by their length.

use schemas::metering::TunnelMode;
use tables::flow::{Flow, marks};

use super::spec::{TemplateKind, TemplateSpec, VARIABLE_LENGTH};
use super::wire::unsigned;
use crate::decode::packet_header::{self, HeaderError, PROTOCOL_ETHERNET, PROTOCOL_IPV4};

/// layer2packetSectionData, of Cisco's NetFlow-Lite; its size beside it (IE 103) is that of the section.
const LAYER2_PACKET_SECTION: u16 = 104;
const DATA_LINK_FRAME_SIZE: u16 = 312;
const IP_HEADER_PACKET_SECTION: u16 = 313;
const DATA_LINK_FRAME_SECTION: u16 = 315;

/// Where a field lies: by its place in the template, and by its offset where no length is variable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct FieldAt {
    index: usize,
    offset: usize,
    length: usize,
}

/// The fields of a template that describe a sampled packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PacketSection {
    section: FieldAt,
    /// What the section begins with, as `header_protocol` of sFlow numbers it.
    protocol: u32,
    frame_size: Option<FieldAt>,
    is_variable: bool,
}

impl PacketSection {
    /// The packet section that a data template describes; `None` where it has none. Of several the first one counts.
    pub(super) fn find(spec: &TemplateSpec) -> Option<PacketSection> {
        if spec.kind != TemplateKind::Data {
            return None;
        }
        let is_variable = spec.fields.iter().any(|field| field.length == VARIABLE_LENGTH);
        let (mut section, mut frame_size, mut offset) = (None, None, 0_usize);
        for (index, field) in spec.fields.iter().enumerate() {
            let length = usize::from(field.length);
            let at = FieldAt { index, offset, length };
            match (field.enterprise, field.element) {
                (0, DATA_LINK_FRAME_SIZE) => frame_size = Some(at),
                (0, DATA_LINK_FRAME_SECTION | LAYER2_PACKET_SECTION) => {
                    section = section.or(Some((at, PROTOCOL_ETHERNET)));
                }
                (0, IP_HEADER_PACKET_SECTION) => section = section.or(Some((at, PROTOCOL_IPV4))),
                _ => {}
            }
            offset += length;
        }
        let (section, protocol) = section?;
        Some(PacketSection {
            section,
            protocol,
            frame_size,
            is_variable,
        })
    }

    /// Fills the columns that the sampled packet tells. `spans` are those of this record where lengths are variable.
    /// Answers whether it is a tunnel's packet that was cut before the packet inside, which `tunnels` asks for.
    pub(super) fn read(
        self,
        record: &[u8],
        spans: &[(u32, u32)],
        tunnels: TunnelMode,
        flow: &mut Flow,
    ) -> Result<bool, HeaderError> {
        let bytes = self.field(self.section, record, spans);
        let frame_bytes = self.frame_size.map_or(0, |at| unsigned(self.field(at, record, spans)));
        let frame_bytes = u32::try_from(frame_bytes).unwrap_or(0);
        let packet = packet_header::parse(self.protocol, bytes, frame_bytes, tunnels)?;
        flow.src_addr = packet.src_addr;
        flow.dst_addr = packet.dst_addr;
        flow.src_port = packet.src_port;
        flow.dst_port = packet.dst_port;
        flow.ip_protocol = packet.ip_protocol;
        flow.tcp_flags = packet.tcp_flags;
        flow.tos = packet.tos;
        flow.icmp_type_code = packet.icmp_type_code;
        if (flow.in_vlan, flow.out_vlan) == (0, 0) {
            (flow.in_vlan, flow.out_vlan) = (packet.vlan, packet.vlan);
        }
        flow.bytes = packet.bytes;
        flow.packets = 1;
        if packet.is_inner {
            flow.marks |= marks::INNER_PACKET;
        }
        Ok(packet.tunnel_is_cut)
    }

    fn field<'a>(self, at: FieldAt, record: &'a [u8], spans: &[(u32, u32)]) -> &'a [u8] {
        let (start, end) = if self.is_variable {
            spans
                .get(at.index)
                .map_or((0, 0), |(start, end)| (*start as usize, *end as usize))
        } else {
            (at.offset, at.offset + at.length)
        };
        record.get(start..end).unwrap_or_default()
    }
}
