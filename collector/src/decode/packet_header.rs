//! The head of a sampled packet, from layer 2 down to ports, as far as the exporter kept it: of sFlow's raw packet headers
//! and of IPFIX's packet sections (IE 313, 315).
//!
//! What is read is the outermost IP header: a packet inside GRE, VXLAN, IP-in-IP or MPLS-over-UDP counts for the tunnel's ends,
//! which are the addresses it crossed the interface with. Where the exporter is configured for it ([`TunnelMode::Inner`]) the
//! packet inside is the flow ([`tunnel`]); the VLAN stays that of the outer frame, because it is the interface's.
//!
//! Exporters cut the sampled header at 64 or 128 bytes: everything up to a complete IP header is needed, everything after
//! it is a bonus (a TCP header may end after its ports). That rules out etherparse here: its slices want whole headers, so
//! a TCP header with its options cut off has no ports, and it knows neither MPLS nor PPP; in the tests it is the oracle.
//!
//! ```text
//! Ethernet II or LLC/SNAP ─┬─ 802.1Q/802.1ad tags ─┬─ PPPoE ─ PPP ─┬─ MPLS labels ─┬─ IPv4 ─────────┬─ TCP, UDP, SCTP, ICMP
//! PPP, PPP in HDLC ────────┘                       └───────────────┘               └─ IPv6 + ext. ──┘
//! ```

mod tunnel;

use schemas::address::Address;
use schemas::metering::TunnelMode;

use self::tunnel::TunnelPayload;

/// More tags or labels than this are taken for damage.
const VLAN_TAGS_MAX: usize = 4;
const MPLS_LABELS_MAX: usize = 16;
const IPV6_EXTENSIONS_MAX: usize = 8;
/// Tunnels in tunnels that are opened.
const TUNNELS_MAX: u8 = 3;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_PPPOE_SESSION: u16 = 0x8864;
/// Values up to this are the length of an IEEE 802.3 frame.
const ETHERTYPE_LENGTH_MAX: u16 = 1500;

/// `header_protocol` of an sFlow raw packet header (sFlow version 5, `enum header_protocol`).
pub(in crate::decode) const PROTOCOL_ETHERNET: u32 = 1;
const PROTOCOL_PPP: u32 = 7;
pub(in crate::decode) const PROTOCOL_IPV4: u32 = 11;
const PROTOCOL_IPV6: u32 = 12;
const PROTOCOL_MPLS: u32 = 13;
const PROTOCOL_POS: u32 = 14;

/// What a flow needs of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::decode) struct Packet {
    /// Outer VLAN id, 0 = untagged.
    pub(in crate::decode) vlan: u16,
    /// Layer 3: the IP header and all behind it, as sent.
    pub(in crate::decode) bytes: u64,
    pub(in crate::decode) src_addr: Address,
    pub(in crate::decode) dst_addr: Address,
    pub(in crate::decode) ip_protocol: u8,
    pub(in crate::decode) tos: u8,
    pub(in crate::decode) src_port: u16,
    pub(in crate::decode) dst_port: u16,
    pub(in crate::decode) tcp_flags: u8,
    pub(in crate::decode) icmp_type_code: u16,
    /// It travelled inside another one.
    pub(in crate::decode) is_inner: bool,
    /// It is a tunnel's, and the header was cut before the packet inside: asked for that, this is all there is.
    pub(in crate::decode) tunnel_is_cut: bool,
}

/// Why a header gives no flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::decode) enum HeaderError {
    /// Understood, and not an IP packet (ARP, LLDP, a pseudowire, …), or a link layer we do not read.
    NotIp,
    /// The IP header is incomplete or contradicts itself.
    Malformed,
}

/// What no packet has more of, by far: reassembled ones and those that a host offloads (Big TCP) stay below a megabyte.
pub(in crate::decode) const PACKET_BYTES_MAX: u64 = 16 << 20;

/// Reads a sampled header. `frame_bytes` is the frame's length less what the exporter stripped; it stands in for the IP
/// length where that is zero (segmentation offload on hosts, IPv6 jumbograms).
pub(in crate::decode) fn parse(
    protocol: u32,
    header: &[u8],
    frame_bytes: u32,
    tunnels: TunnelMode,
) -> Result<Packet, HeaderError> {
    let frame = Frame {
        start: header.len(),
        frame_bytes,
        tunnels_left: match tunnels {
            TunnelMode::Outer => 0,
            TunnelMode::Inner => TUNNELS_MAX,
        },
    };
    match protocol {
        PROTOCOL_ETHERNET => ethernet(frame, header),
        PROTOCOL_PPP | PROTOCOL_POS => ppp(frame, header, 0),
        PROTOCOL_IPV4 | PROTOCOL_IPV6 => ip(frame, header, 0),
        PROTOCOL_MPLS => mpls(frame, header, 0),
        _ => Err(HeaderError::NotIp),
    }
}

#[derive(Clone, Copy)]
struct Frame {
    /// Length of the sampled header before anything was taken off.
    start: usize,
    frame_bytes: u32,
    /// So many tunnels may still be opened.
    tunnels_left: u8,
}

impl Frame {
    /// The packet that travels inside `outer`; `outer` itself where it is of no use.
    fn open(self, outer: Packet, inside: Result<TunnelPayload<'_>, HeaderError>) -> Packet {
        match inside.and_then(|inside| self.read(inside)) {
            Ok(inner) => Packet {
                vlan: outer.vlan,
                ..inner
            },
            Err(HeaderError::NotIp) => outer,
            Err(HeaderError::Malformed) => Packet {
                tunnel_is_cut: true,
                ..outer
            },
        }
    }

    fn read(self, inside: TunnelPayload<'_>) -> Result<Packet, HeaderError> {
        let frame = Frame {
            tunnels_left: self.tunnels_left - 1,
            ..self
        };
        let inner = match inside {
            TunnelPayload::Ip(bytes) => ip(frame, bytes, 0),
            TunnelPayload::Ethernet(bytes) => ethernet(frame, bytes),
            TunnelPayload::Mpls(bytes) => mpls(frame, bytes, 0),
            TunnelPayload::Ppp(bytes) => ppp(frame, bytes, 0),
        }?;
        Ok(Packet {
            is_inner: true,
            ..inner
        })
    }

    /// Length of the packet from where `rest` begins to the end of the frame.
    fn bytes_from(self, rest: &[u8]) -> u64 {
        let taken = self.start - rest.len();
        u64::from(self.frame_bytes).saturating_sub(taken as u64)
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let pair = bytes.get(offset..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*pair))
}

fn ethernet(frame: Frame, header: &[u8]) -> Result<Packet, HeaderError> {
    let mut ether_type = u16_at(header, 12).ok_or(HeaderError::Malformed)?;
    let mut rest = &header[14..];
    let mut vlan = 0;
    for _ in 0..VLAN_TAGS_MAX {
        if !matches!(ether_type, 0x8100 | 0x88a8 | 0x9100 | 0x9200) {
            break;
        }
        let tag = u16_at(rest, 0).ok_or(HeaderError::Malformed)?;
        ether_type = u16_at(rest, 2).ok_or(HeaderError::Malformed)?;
        rest = &rest[4..];
        if vlan == 0 {
            // A priority tag (id 0) names no VLAN: the next tag does.
            vlan = tag & 0x0fff;
        }
    }
    if ether_type <= ETHERTYPE_LENGTH_MAX {
        // LLC with SNAP and no organisation carries an EtherType (RFC 1042); any other LLC is not IP.
        let snap = rest
            .strip_prefix(&[0xaa, 0xaa, 0x03, 0, 0, 0])
            .ok_or(HeaderError::NotIp)?;
        ether_type = u16_at(snap, 0).ok_or(HeaderError::Malformed)?;
        rest = &snap[2..];
    }
    match ether_type {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => ip(frame, rest, vlan),
        0x8847 | 0x8848 => mpls(frame, rest, vlan),
        ETHERTYPE_PPPOE_SESSION => ppp(frame, rest.get(6..).ok_or(HeaderError::Malformed)?, vlan),
        _ => Err(HeaderError::NotIp),
    }
}

/// PPP (RFC 1661) with or without HDLC address and control, or Cisco HDLC, which carries an EtherType.
fn ppp(frame: Frame, bytes: &[u8], vlan: u16) -> Result<Packet, HeaderError> {
    let bytes = match bytes {
        [0xff, 0x03, rest @ ..] => rest,
        [0x0f | 0x8f, 0x00, rest @ ..] => {
            return match u16_at(rest, 0).ok_or(HeaderError::Malformed)? {
                ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => ip(frame, &rest[2..], vlan),
                _ => Err(HeaderError::NotIp),
            };
        }
        _ => bytes,
    };
    match u16_at(bytes, 0).ok_or(HeaderError::Malformed)? {
        0x0021 | 0x0057 => ip(frame, &bytes[2..], vlan),
        0x0281 | 0x0283 => mpls(frame, &bytes[2..], vlan),
        _ => Err(HeaderError::NotIp),
    }
}

/// Labels up to the bottom of the stack; what follows is IP when its first four bits say so (RFC 4928 §3).
fn mpls(frame: Frame, mut bytes: &[u8], vlan: u16) -> Result<Packet, HeaderError> {
    for _ in 0..MPLS_LABELS_MAX {
        let (label, rest) = bytes.split_first_chunk::<4>().ok_or(HeaderError::Malformed)?;
        bytes = rest;
        if label[2] & 1 == 1 {
            return match bytes.first().map(|first| first >> 4) {
                Some(4 | 6) => ip(frame, bytes, vlan),
                Some(_) if frame.tunnels_left > 0 => {
                    let inner = frame.read(TunnelPayload::Ethernet(tunnel::pseudowire(bytes)?))?;
                    Ok(Packet { vlan, ..inner })
                }
                Some(_) => Err(HeaderError::NotIp),
                None => Err(HeaderError::Malformed),
            };
        }
    }
    Err(HeaderError::Malformed)
}

fn ip(frame: Frame, bytes: &[u8], vlan: u16) -> Result<Packet, HeaderError> {
    let (packet, payload) = match bytes.first().map(|first| first >> 4) {
        Some(4) => ipv4(frame, bytes, vlan)?,
        Some(6) => ipv6(frame, bytes, vlan)?,
        _ => return Err(HeaderError::Malformed),
    };
    if frame.tunnels_left == 0 {
        return Ok(packet);
    }
    Ok(match payload.and_then(|payload| tunnel::inside(&packet, payload)) {
        Some(inside) => frame.open(packet, inside),
        None => packet,
    })
}

/// A packet, and what its header carries unless it is a later fragment.
type PacketAndPayload<'a> = (Packet, Option<&'a [u8]>);

fn ipv4(frame: Frame, bytes: &[u8], vlan: u16) -> Result<PacketAndPayload<'_>, HeaderError> {
    let header = bytes.first_chunk::<20>().ok_or(HeaderError::Malformed)?;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    let total_bytes = match u16::from_be_bytes([header[2], header[3]]) {
        0 => frame.bytes_from(bytes),
        total => u64::from(total),
    };
    if header_bytes < 20 || total_bytes < header_bytes as u64 || total_bytes > PACKET_BYTES_MAX {
        return Err(HeaderError::Malformed);
    }
    let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    let mut packet = Packet {
        vlan,
        bytes: total_bytes,
        src_addr: Address::from_v4([header[12], header[13], header[14], header[15]]),
        dst_addr: Address::from_v4([header[16], header[17], header[18], header[19]]),
        ip_protocol: header[9],
        tos: header[1],
        ..Packet::default()
    };
    if fragment_offset != 0 {
        return Ok((packet, None));
    }
    let payload = bytes.get(header_bytes..).unwrap_or_default();
    transport(&mut packet, payload);
    Ok((packet, Some(payload)))
}

fn ipv6(frame: Frame, bytes: &[u8], vlan: u16) -> Result<PacketAndPayload<'_>, HeaderError> {
    let header = bytes.first_chunk::<40>().ok_or(HeaderError::Malformed)?;
    let total_bytes = match u16::from_be_bytes([header[4], header[5]]) {
        0 => frame.bytes_from(bytes).max(40),
        payload => 40 + u64::from(payload),
    };
    if total_bytes > PACKET_BYTES_MAX {
        return Err(HeaderError::Malformed);
    }
    let mut packet = Packet {
        vlan,
        bytes: total_bytes,
        src_addr: Address::from_slice(&header[8..24]).unwrap_or_default(),
        dst_addr: Address::from_slice(&header[24..40]).unwrap_or_default(),
        ip_protocol: header[6],
        tos: (header[0] << 4) | (header[1] >> 4),
        ..Packet::default()
    };
    let mut rest = &bytes[40..];
    for _ in 0..IPV6_EXTENSIONS_MAX {
        let (Some(&next), Some(&length)) = (rest.first(), rest.get(1)) else {
            return Ok((packet, Some(rest)));
        };
        let extension_bytes = match packet.ip_protocol {
            0 | 43 | 60 | 135 | 139 | 140 => 8 + usize::from(length) * 8,
            44 => 8,
            51 => (usize::from(length) + 2) * 4,
            _ => {
                transport(&mut packet, rest);
                return Ok((packet, Some(rest)));
            }
        };
        let is_later_fragment = packet.ip_protocol == 44 && u16_at(rest, 2).is_none_or(|word| word & 0xfff8 != 0);
        packet.ip_protocol = next;
        if is_later_fragment {
            return Ok((packet, None));
        }
        rest = rest.get(extension_bytes..).unwrap_or_default();
    }
    Ok((packet, None))
}

/// Ports, flags or ICMP type and code, as far as the bytes go.
fn transport(packet: &mut Packet, bytes: &[u8]) {
    match packet.ip_protocol {
        6 | 17 | 33 | 132 | 136 => {
            packet.src_port = u16_at(bytes, 0).unwrap_or(0);
            packet.dst_port = u16_at(bytes, 2).unwrap_or(0);
            if packet.ip_protocol == 6 {
                packet.tcp_flags = bytes.get(13).copied().unwrap_or(0);
            }
        }
        1 | 58 => packet.icmp_type_code = u16_at(bytes, 0).unwrap_or(0),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{parse as parse_by, *};
    use etherparse::{LaxSlicedPacket, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

    fn parse(protocol: u32, header: &[u8], frame_bytes: u32) -> Result<Packet, HeaderError> {
        parse_by(protocol, header, frame_bytes, TunnelMode::Outer)
    }

    fn tcp_over_vlan() -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .single_vlan(809.try_into().unwrap())
            .ipv4([192, 0, 2, 1], [198, 51, 100, 7], 61)
            .tcp(443, 52237, 1, 1024)
            .ack(9)
            .psh();
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &[7; 300]).unwrap();
        bytes
    }

    #[test]
    fn a_packet_of_more_than_a_mebibyte_is_none() {
        let mut bytes = tcp_over_vlan();
        bytes[18 + 2..18 + 4].fill(0);
        let link_bytes = 18;
        let whole = parse(PROTOCOL_ETHERNET, &bytes, link_bytes + (16 << 20)).unwrap();
        assert_eq!(whole.bytes, 16 << 20);
        for frame_bytes in [link_bytes + (16 << 20) + 1, u32::MAX] {
            let parsed = parse(PROTOCOL_ETHERNET, &bytes, frame_bytes);
            assert!(matches!(parsed, Err(HeaderError::Malformed)), "{frame_bytes}");
        }
    }

    #[test]
    fn etherparse_reads_the_same_of_whole_packets() {
        let packets = [
            tcp_over_vlan(),
            {
                let mut bytes = Vec::new();
                let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
                    .ipv6([0x20; 16], [0x21; 16], 64)
                    .udp(53, 5353);
                builder.write(&mut bytes, &[7; 90]).unwrap();
                bytes
            },
            {
                let mut bytes = Vec::new();
                let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
                    .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
                    .icmpv4_echo_request(3, 4);
                builder.write(&mut bytes, &[7; 56]).unwrap();
                bytes
            },
        ];
        for bytes in packets {
            let packet = parse(PROTOCOL_ETHERNET, &bytes, bytes.len() as u32).unwrap();
            let oracle = SlicedPacket::from_ethernet(&bytes).unwrap();
            let vlan = oracle.vlan_ids().first().map_or(0, |id| id.value());
            assert_eq!(packet.vlan, vlan);
            match oracle.net.unwrap() {
                NetSlice::Ipv4(v4) => {
                    assert_eq!(packet.bytes, u64::from(v4.header().total_len()));
                    assert_eq!(packet.src_addr, Address::from_v4(v4.header().source()));
                    assert_eq!(packet.dst_addr, Address::from_v4(v4.header().destination()));
                }
                NetSlice::Ipv6(v6) => {
                    assert_eq!(packet.bytes, 40 + u64::from(v6.header().payload_length()));
                    assert_eq!(packet.src_addr, Address(v6.header().source()));
                    assert_eq!(packet.dst_addr, Address(v6.header().destination()));
                }
                NetSlice::Arp(_) => unreachable!("no ARP was built"),
            }
            match oracle.transport.unwrap() {
                TransportSlice::Tcp(tcp) => {
                    assert_eq!(
                        (packet.src_port, packet.dst_port),
                        (tcp.source_port(), tcp.destination_port())
                    );
                    assert_eq!(packet.tcp_flags, 0x18);
                }
                TransportSlice::Udp(udp) => {
                    assert_eq!(
                        (packet.src_port, packet.dst_port),
                        (udp.source_port(), udp.destination_port())
                    );
                }
                TransportSlice::Icmpv4(icmp) => {
                    let expected = u16::from(icmp.type_u8()) * 256 + u16::from(icmp.code_u8());
                    assert_eq!(packet.icmp_type_code, expected);
                }
                other => unreachable!("not built: {other:?}"),
            }
        }
    }

    #[test]
    fn a_cut_header_gives_what_it_holds() {
        let bytes = tcp_over_vlan();
        let ports_only = &bytes[..14 + 4 + 20 + 4];
        let packet = parse(PROTOCOL_ETHERNET, ports_only, bytes.len() as u32).unwrap();
        assert_eq!((packet.src_port, packet.dst_port, packet.tcp_flags), (443, 52237, 0));
        assert_eq!(packet.bytes, 20 + 20 + 300);
        let oracle = LaxSlicedPacket::from_ethernet(ports_only).unwrap();
        assert!(oracle.transport.is_none(), "why etherparse does not do here");

        for length in 0..bytes.len() {
            let result = parse(PROTOCOL_ETHERNET, &bytes[..length], bytes.len() as u32);
            if length < 14 + 4 + 20 {
                assert_eq!(result, Err(HeaderError::Malformed), "cut at {length}");
            } else {
                assert_eq!(result.unwrap().bytes, 340, "cut at {length}");
            }
        }
    }

    #[test]
    fn labels_tags_and_ppp_are_passed_over() {
        let ip = &tcp_over_vlan()[18..];
        let expected = Packet {
            vlan: 0,
            ..parse(PROTOCOL_ETHERNET, &tcp_over_vlan(), 0).unwrap()
        };
        let with = |prefix: &[u8]| [prefix, ip].concat();
        let mac = [0u8; 12];
        let mpls_stack = [0x00, 0x01, 0x00, 0x40, 0x00, 0x02, 0x01, 0x40];
        let cases: [(u32, Vec<u8>, u16); 9] = [
            (PROTOCOL_IPV4, with(&[]), 0),
            (PROTOCOL_PPP, with(&[0x00, 0x21]), 0),
            (PROTOCOL_POS, with(&[0xff, 0x03, 0x00, 0x21]), 0),
            (PROTOCOL_POS, with(&[0x0f, 0x00, 0x08, 0x00]), 0),
            (PROTOCOL_MPLS, with(&mpls_stack), 0),
            (
                PROTOCOL_ETHERNET,
                with(&[&mac[..], &[0x88, 0x47], &mpls_stack].concat()),
                0,
            ),
            (
                PROTOCOL_ETHERNET,
                with(&[&mac[..], &[0x88, 0xa8, 0x00, 0x64, 0x81, 0x00, 0x00, 0xc8, 0x08, 0x00]].concat()),
                100,
            ),
            (
                PROTOCOL_ETHERNET,
                with(&[&mac[..], &[0x88, 0x64, 0x11, 0, 0, 1, 1, 0x56, 0x00, 0x21]].concat()),
                0,
            ),
            (
                PROTOCOL_ETHERNET,
                with(&[&mac[..], &[0x01, 0x5c, 0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x00]].concat()),
                0,
            ),
        ];
        for (protocol, bytes, vlan) in cases {
            assert_eq!(
                parse(protocol, &bytes, bytes.len() as u32),
                Ok(Packet { vlan, ..expected }),
                "{bytes:02x?}"
            );
        }
    }

    #[test]
    fn later_fragments_have_no_ports() {
        let mut v4 = tcp_over_vlan()[18..].to_vec();
        v4[6..8].copy_from_slice(&[0x00, 0x10]);
        let packet = parse(PROTOCOL_IPV4, &v4, 0).unwrap();
        assert_eq!((packet.ip_protocol, packet.src_port, packet.tcp_flags), (6, 0, 0));

        let mut v6 = vec![0x60, 0, 0, 0, 0, 16, 44, 64];
        v6.extend([0x20; 32]);
        v6.extend([17, 0, 0x00, 0x08, 0, 0, 0, 1]);
        v6.extend([0, 53, 0, 54, 0, 8, 0, 0]);
        let packet = parse(PROTOCOL_IPV6, &v6, 0).unwrap();
        assert_eq!((packet.ip_protocol, packet.src_port, packet.bytes), (17, 0, 56));
        v6[43] = 0x01;
        let first = parse(PROTOCOL_IPV6, &v6, 0).unwrap();
        assert_eq!((first.ip_protocol, first.src_port, first.dst_port), (17, 53, 54));
    }

    #[test]
    fn a_zero_ip_length_takes_the_frames() {
        let mut bytes = tcp_over_vlan();
        bytes[20..22].copy_from_slice(&[0, 0]);
        let packet = parse(PROTOCOL_ETHERNET, &bytes[..64], 20_018).unwrap();
        assert_eq!(packet.bytes, 20_000);
    }

    #[test]
    fn what_is_not_ip_is_told_from_damage() {
        let arp = [&[0u8; 12][..], &[0x08, 0x06], &[0; 28]].concat();
        assert_eq!(parse(PROTOCOL_ETHERNET, &arp, 60), Err(HeaderError::NotIp));
        assert_eq!(parse(5, &arp, 60), Err(HeaderError::NotIp), "frame relay");
        let pseudowire = [0, 1, 1, 64, 0, 0, 0, 0];
        assert_eq!(parse(PROTOCOL_MPLS, &pseudowire, 60), Err(HeaderError::NotIp));
        assert_eq!(parse(PROTOCOL_IPV4, &[0x45; 10], 60), Err(HeaderError::Malformed));
    }
}
