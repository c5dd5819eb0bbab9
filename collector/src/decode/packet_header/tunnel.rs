//! The packet inside a tunnel: where it begins, by what carries it.
//!
//! | carried by | inside |
//! |---|---|
//! | IP protocol 4, 41 (also behind an SRv6 routing header) | an IP packet |
//! | IP protocol 143 (SRv6, RFC 8986), 97 (EtherIP) | an Ethernet frame |
//! | GRE (RFC 2784, 2890), version 1 (PPTP, RFC 2637) | IP, an Ethernet frame, MPLS; PPP |
//! | UDP to 4789 or 8472 (VXLAN), 4790 (VXLAN-GPE), 6081 (Geneve) | an Ethernet frame, IP |
//! | UDP to 6635 (RFC 7510) | MPLS |
//! | MPLS whose payload is no IP (RFC 4448, with or without control word) | an Ethernet frame |
//!
//! Mirrored traffic (ERSPAN) is not opened: its packets were counted where they were taken.

use super::{HeaderError, Packet, u16_at};

/// What a tunnel carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TunnelPayload<'a> {
    Ip(&'a [u8]),
    Ethernet(&'a [u8]),
    Mpls(&'a [u8]),
    Ppp(&'a [u8]),
}

const UDP: u8 = 17;
const UDP_HEADER_BYTES: usize = 8;
const ETHERTYPE_TEB: u16 = 0x6558;

/// What a packet carries inside; `None` where it is no tunnel's, an error where its header was cut too early.
pub(super) fn inside<'a>(packet: &Packet, payload: &'a [u8]) -> Option<Result<TunnelPayload<'a>, HeaderError>> {
    match packet.ip_protocol {
        4 | 41 => Some(Ok(TunnelPayload::Ip(payload))),
        143 => Some(Ok(TunnelPayload::Ethernet(payload))),
        97 => Some(after(payload, 2).map(TunnelPayload::Ethernet)),
        47 => gre(payload),
        UDP => {
            let rest = || after(payload, UDP_HEADER_BYTES);
            match packet.dst_port {
                4789 | 8472 => Some(rest().and_then(vxlan)),
                4790 => Some(rest().and_then(vxlan_gpe)),
                6081 => Some(rest().and_then(geneve)),
                6635 => Some(rest().map(TunnelPayload::Mpls)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The frame that a pseudowire carries, behind its control word where there is one (RFC 4385 §3). Without one, its first bits
/// are those of a MAC address.
pub(super) fn pseudowire(bytes: &[u8]) -> Result<&[u8], HeaderError> {
    match bytes.first().map(|first| first >> 4) {
        Some(0) => after(bytes, 4),
        // An associated channel: no data.
        Some(1) => Err(HeaderError::NotIp),
        Some(_) => Ok(bytes),
        None => Err(HeaderError::Malformed),
    }
}

fn after(bytes: &[u8], header_bytes: usize) -> Result<&[u8], HeaderError> {
    bytes.get(header_bytes..).ok_or(HeaderError::Malformed)
}

fn by_ether_type(ether_type: u16, bytes: &[u8]) -> Result<TunnelPayload<'_>, HeaderError> {
    match ether_type {
        0x0800 | 0x86dd => Ok(TunnelPayload::Ip(bytes)),
        ETHERTYPE_TEB => Ok(TunnelPayload::Ethernet(bytes)),
        0x8847 | 0x8848 => Ok(TunnelPayload::Mpls(bytes)),
        _ => Err(HeaderError::NotIp),
    }
}

fn gre(payload: &[u8]) -> Option<Result<TunnelPayload<'_>, HeaderError>> {
    const CHECKSUM: u16 = 0x8000;
    const ROUTING: u16 = 0x4000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    const ACKNOWLEDGEMENT: u16 = 0x0080;
    let (Some(flags), Some(ether_type)) = (u16_at(payload, 0), u16_at(payload, 2)) else {
        return Some(Err(HeaderError::Malformed));
    };
    let word_bytes = |flag: u16| if flags & flag == 0 { 0 } else { 4 };
    match flags & 0x0007 {
        0 if flags & ROUTING == 0 => {
            let header_bytes = 4 + word_bytes(CHECKSUM) + word_bytes(KEY) + word_bytes(SEQUENCE);
            Some(after(payload, header_bytes).and_then(|bytes| by_ether_type(ether_type, bytes)))
        }
        1 if ether_type == 0x880b => {
            let header_bytes = 8 + word_bytes(SEQUENCE) + word_bytes(ACKNOWLEDGEMENT);
            // A packet without data only acknowledges.
            if flags & SEQUENCE == 0 {
                return None;
            }
            Some(after(payload, header_bytes).map(TunnelPayload::Ppp))
        }
        _ => None,
    }
}

/// RFC 7348 §5.
fn vxlan(bytes: &[u8]) -> Result<TunnelPayload<'_>, HeaderError> {
    const HAS_VNI: u8 = 0x08;
    let frame = after(bytes, 8)?;
    if bytes[0] & HAS_VNI == 0 {
        return Err(HeaderError::NotIp);
    }
    Ok(TunnelPayload::Ethernet(frame))
}

/// draft-ietf-nvo3-vxlan-gpe: the next protocol is the header's fourth byte.
fn vxlan_gpe(bytes: &[u8]) -> Result<TunnelPayload<'_>, HeaderError> {
    let rest = after(bytes, 8)?;
    match bytes[3] {
        1 | 2 => Ok(TunnelPayload::Ip(rest)),
        3 => Ok(TunnelPayload::Ethernet(rest)),
        _ => Err(HeaderError::NotIp),
    }
}

/// RFC 8926 §3.4.
fn geneve(bytes: &[u8]) -> Result<TunnelPayload<'_>, HeaderError> {
    let options_bytes = bytes.first().map_or(0, |first| usize::from(first & 0x3f) * 4);
    let ether_type = u16_at(bytes, 2).ok_or(HeaderError::Malformed)?;
    by_ether_type(ether_type, after(bytes, 8 + options_bytes)?)
}

#[cfg(test)]
mod tests {
    use schemas::address::Address;
    use schemas::metering::TunnelMode;

    use super::super::{HeaderError, PROTOCOL_ETHERNET, PROTOCOL_IPV4, PROTOCOL_IPV6, PROTOCOL_MPLS, Packet, parse};

    /// A TCP segment of 1,500 bytes from 198.51.100.10 to 203.0.113.7, as far as its ports.
    fn customer_packet() -> Vec<u8> {
        let mut bytes = vec![
            0x45, 0, 0x05, 0xdc, 0, 1, 0, 0, 64, 6, 0, 0, 198, 51, 100, 10, 203, 0, 113, 7,
        ];
        bytes.extend([0x01, 0xbb, 0xc3, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x18]);
        bytes
    }

    fn frame(ether_type: u16, payload: &[u8]) -> Vec<u8> {
        [
            &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..],
            &ether_type.to_be_bytes(),
            payload,
        ]
        .concat()
    }

    fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![
            0x45, 0, 0x06, 0x40, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 255, 0, 1, 10, 255, 0, 2,
        ];
        bytes.extend(payload);
        bytes
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0x06, 0x40, next, 64];
        bytes.extend([0xfc; 16]);
        bytes.extend([0xfd; 16]);
        bytes.extend(payload);
        bytes
    }

    fn udp(dst_port: u16, payload: &[u8]) -> Vec<u8> {
        [&[0xd9, 0x03][..], &dst_port.to_be_bytes(), &[0, 0, 0, 0], payload].concat()
    }

    /// A segment routing header of two segments.
    fn srh(next: u8, payload: &[u8]) -> Vec<u8> {
        [&[next, 4, 4, 1, 1, 0, 0, 0][..], &[0xfc; 32], payload].concat()
    }

    fn read(protocol: u32, header: &[u8], tunnels: TunnelMode) -> Result<Packet, HeaderError> {
        parse(protocol, header, 1_700, tunnels)
    }

    fn tunnels() -> Vec<(&'static str, u32, Vec<u8>)> {
        let customer = customer_packet();
        let inner = frame(0x0800, &customer);
        let tagged = frame(0x8100, &[&[0, 77, 8, 0][..], &customer].concat());
        let vni = [8, 0, 0, 0, 0, 0x27, 0x10, 0];
        let gpe = [0x0c, 0, 0, 1, 0, 0x27, 0x10, 0];
        let with = |head: &[u8], rest: &[u8]| [head, rest].concat();
        let label = [0x00, 0x01, 0x01, 0x40];
        let ip_in_ip = v4(4, &customer);
        vec![
            ("VXLAN", PROTOCOL_IPV4, v4(17, &udp(4789, &with(&vni, &inner)))),
            (
                "VXLAN on Linux's old port",
                PROTOCOL_IPV4,
                v4(17, &udp(8472, &with(&vni, &inner))),
            ),
            (
                "VXLAN over IPv6, tagged inside",
                PROTOCOL_IPV6,
                v6(17, &udp(4789, &with(&vni, &tagged))),
            ),
            ("VXLAN-GPE", PROTOCOL_IPV4, v4(17, &udp(4790, &with(&gpe, &customer)))),
            (
                "Geneve with an option",
                PROTOCOL_IPV4,
                v4(
                    17,
                    &udp(6081, &with(&[1, 0, 0x65, 0x58, 0, 0, 1, 0, 0, 0, 0, 0], &inner)),
                ),
            ),
            ("GRE", PROTOCOL_IPV4, v4(47, &with(&[0, 0, 8, 0], &customer))),
            (
                "GRE with key",
                PROTOCOL_IPV4,
                v4(47, &with(&[0x20, 0, 8, 0, 0, 0, 0, 7], &customer)),
            ),
            (
                "GRE of frames",
                PROTOCOL_IPV4,
                v4(47, &with(&[0, 0, 0x65, 0x58], &inner)),
            ),
            (
                "PPTP",
                PROTOCOL_IPV4,
                v4(
                    47,
                    &with(&[0x30, 1, 0x88, 0x0b, 0, 40, 0, 1, 0, 0, 0, 2, 0x00, 0x21], &customer),
                ),
            ),
            ("IP in IP", PROTOCOL_IPV4, ip_in_ip.clone()),
            (
                "IP in IP in GRE",
                PROTOCOL_IPV4,
                v4(47, &with(&[0, 0, 8, 0], &ip_in_ip)),
            ),
            ("IPv4 in IPv6", PROTOCOL_IPV6, v6(4, &customer)),
            ("SRv6 of IPv4", PROTOCOL_IPV6, v6(43, &srh(4, &customer))),
            ("SRv6 of frames", PROTOCOL_IPV6, v6(43, &srh(143, &inner))),
            ("EtherIP", PROTOCOL_IPV4, v4(97, &with(&[0x30, 0], &inner))),
            (
                "MPLS over UDP",
                PROTOCOL_IPV4,
                v4(17, &udp(6635, &with(&label, &customer))),
            ),
            (
                "EoMPLS with control word",
                PROTOCOL_MPLS,
                with(&with(&label, &[0, 0, 0, 0]), &inner),
            ),
            (
                "EoMPLS without control word",
                PROTOCOL_MPLS,
                with(&label, &{
                    let mut inner = inner.clone();
                    inner[0] = 0x24;
                    inner
                }),
            ),
        ]
    }

    #[test]
    fn each_tunnel_counts_for_its_ends_or_for_the_packet_inside() {
        let client = Address::from_v4([198, 51, 100, 10]);
        for (name, protocol, header) in tunnels() {
            let inner = read(protocol, &header, TunnelMode::Inner).unwrap();
            assert_eq!((inner.src_addr, inner.bytes), (client, 1_500), "{name}");
            assert_eq!(
                (inner.src_port, inner.dst_port, inner.tcp_flags),
                (443, 50_000, 0x18),
                "{name}"
            );
            assert!(inner.is_inner && !inner.tunnel_is_cut, "{name}");
            let outer = read(protocol, &header, TunnelMode::Outer);
            if protocol == PROTOCOL_MPLS {
                assert_eq!(outer, Err(HeaderError::NotIp), "{name}: a label is no address");
                continue;
            }
            let outer = outer.unwrap();
            assert!(outer.src_addr != client && !outer.is_inner, "{name}");
            assert!(outer.bytes >= 1_600, "{name}: with the tunnel's own header");
        }
    }

    #[test]
    fn the_vlan_is_the_interfaces_and_not_the_tunnels() {
        let vni = [8, 0, 0, 0, 0, 0x27, 0x10, 0];
        let tagged_inside = frame(0x8100, &[&[0, 77, 8, 0][..], &customer_packet()].concat());
        let outer = v4(17, &udp(4789, &[&vni[..], &tagged_inside].concat()));
        let tagged = frame(0x8100, &[&[0, 12, 8, 0][..], &outer].concat());
        for (header, vlan) in [(tagged, 12), (frame(0x0800, &outer), 0)] {
            assert_eq!(read(PROTOCOL_ETHERNET, &header, TunnelMode::Inner).unwrap().vlan, vlan);
        }
    }

    #[test]
    fn a_tunnel_whose_inside_is_cut_off_counts_for_its_ends_and_says_so() {
        for (name, protocol, header) in tunnels() {
            let outer_bytes = header.len() - customer_packet().len();
            for length in 0..header.len() {
                let Ok(packet) = read(protocol, &header[..length], TunnelMode::Inner) else {
                    continue;
                };
                let has_inner_header = length >= outer_bytes + 20;
                // Headers that end before the tunnel's own is recognised are those of an ordinary packet.
                assert_eq!(
                    packet.src_addr == Address::from_v4([198, 51, 100, 10]),
                    has_inner_header,
                    "{name} {length}"
                );
                assert!(
                    !(packet.tunnel_is_cut && has_inner_header && name != "IP in IP in GRE"),
                    "{name} {length}"
                );
            }
        }
    }

    #[test]
    fn what_only_looks_like_a_tunnel_is_not_opened() {
        let customer = customer_packet();
        let arp = frame(0x0806, &[0; 28]);
        let vni = [8, 0, 0, 0, 0, 0x27, 0x10, 0];
        for (name, header) in [
            ("ARP in VXLAN", v4(17, &udp(4789, &[&vni[..], &arp].concat()))),
            (
                "no VNI",
                v4(17, &udp(4789, &[&[0; 8][..], &frame(0x0800, &customer)].concat())),
            ),
            ("another port", v4(17, &udp(443, &customer))),
            (
                "ERSPAN",
                v4(47, &[&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1][..], &customer].concat()),
            ),
            (
                "GRE with source routing",
                v4(47, &[&[0x40, 0, 8, 0][..], &customer].concat()),
            ),
        ] {
            let packet = read(PROTOCOL_IPV4, &header, TunnelMode::Inner).unwrap();
            assert_eq!(packet.src_addr, Address::from_v4([10, 255, 0, 1]), "{name}");
            assert!(!packet.is_inner && !packet.tunnel_is_cut, "{name}");
        }
        let mut later_fragment = v4(4, &customer);
        later_fragment[7] = 9;
        assert!(
            !read(PROTOCOL_IPV4, &later_fragment, TunnelMode::Inner)
                .unwrap()
                .is_inner
        );
        let channel = [&[0x00, 0x01, 0x01, 0x40, 0x10, 0, 0, 7][..], &customer].concat();
        assert_eq!(
            read(PROTOCOL_MPLS, &channel, TunnelMode::Inner),
            Err(HeaderError::NotIp)
        );
    }

    #[test]
    fn tunnels_in_tunnels_end_somewhere() {
        let mut packet = customer_packet();
        for _ in 0..10 {
            packet = v4(4, &packet);
        }
        let read = read(PROTOCOL_IPV4, &packet, TunnelMode::Inner).unwrap();
        assert!(read.is_inner && read.src_addr == Address::from_v4([10, 255, 0, 1]));
    }
}
