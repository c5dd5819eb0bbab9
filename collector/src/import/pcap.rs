//! Captured exports as if they were received: UDP payloads of a pcap or pcapng file, at the time of their capture.
//!
//! Ethernet, Linux cooked (v1, and v2 as `tcpdump -i any` writes today) and raw IP captures; VLAN tags are skipped. A fragment has no whole payload: it is counted
//! and left out.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use etherparse::{EtherType, NetSlice, SlicedPacket, TransportSlice};
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError, TsResolution};
use schemas::address::Address;
use sha2::{Digest, Sha256};

use super::{ImportError, Importer};
use crate::decode::Datagram;
use crate::decode::dispatch::Kind;

/// A pcapng file starts with a section header block.
const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Linux cooked capture v2: protocol (2), reserved (2), interface (4), ARPHRD type (2), packet type (1), address length (1), address (8).
const SLL2_HEADER_BYTES: usize = 20;
/// The last instant of the year 9999, UTC ms: folders and people have four digits for a year.
const LAST_MS: i64 = 253_402_300_799_999;

/// Which UDP payloads are taken.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum PortFilter {
    /// Every payload that looks like a flow datagram.
    #[default]
    FlowLike,
    /// Every payload to one of these ports.
    Ports(Vec<u16>),
}

/// How far a replay is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReplayProgress {
    pub packets: u64,
    pub datagrams: u64,
    pub bytes_read: u64,
    pub bytes_total: u64,
}

/// What became of the packets of a capture.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReplaySummary {
    pub packets: u64,
    /// Handed to the importer.
    pub datagrams: u64,
    /// Left out: fragments of IP packets.
    pub fragments: u64,
    /// Left out: cut short by the capture's snap length.
    pub truncated: u64,
    /// Left out: not UDP, or not taken by the filter.
    pub others: u64,
    /// Left out: a link type that is not understood.
    pub link_unknown: u64,
    /// Left out: a time after the year 9999, which no capture of packets has.
    pub time_unknown: u64,
}

/// A name for importing this file: its content's SHA-256, so that the same capture is the same import wherever it lies.
///
/// # Errors
/// When the file cannot be read.
pub fn import_name(path: &Path) -> Result<String, ImportError> {
    let open_error = |source| ImportError::Open {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(open_error)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(open_error)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let digest = hasher.finalize();
    let hex: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("pcap-{hex}"))
}

/// Feeds every flow datagram of a capture to `importer`, which is left open.
///
/// # Errors
/// When the file is no capture or is damaged, or the importer fails.
pub fn replay_pcap(
    path: &Path,
    importer: &mut Importer,
    filter: &PortFilter,
    mut progress: impl FnMut(ReplayProgress),
) -> Result<ReplaySummary, ImportError> {
    let open_error = |source| ImportError::Open {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(open_error)?;
    let bytes_total = file.metadata().map_err(open_error)?.len();
    let mut summary = ReplaySummary::default();
    let mut bytes_read = 0;
    let mut tell = |summary: &ReplaySummary, bytes_read: u64| {
        progress(ReplayProgress {
            packets: summary.packets,
            datagrams: summary.datagrams,
            bytes_read: bytes_read.min(bytes_total),
            bytes_total,
        });
    };
    let result = read_capture(BufReader::new(file), |packet| {
        bytes_read += packet.data.len() as u64 + 16;
        if let Some(datagram) = summary.take(&packet, filter) {
            importer.push(&datagram)?;
        }
        if summary.packets.is_multiple_of(1_000) {
            tell(&summary, bytes_read);
        }
        Ok(())
    });
    tell(&summary, bytes_read);
    match result {
        Ok(()) => Ok(summary),
        Err(ReadError::Import(error)) => Err(error),
        Err(ReadError::Capture(source)) => Err(ImportError::Capture {
            path: path.to_owned(),
            packets: summary.packets,
            source,
        }),
    }
}

/// Hands every datagram of a capture that is in memory to `each`. Answers what became of its packets, and why it could not be
/// read further where it could not.
pub fn read_pcap_bytes(
    bytes: &[u8],
    filter: &PortFilter,
    mut each: impl FnMut(&Datagram<'_>),
) -> (ReplaySummary, Option<PcapError>) {
    let mut summary = ReplaySummary::default();
    let result = read_capture(Cursor::new(bytes), |packet| {
        if let Some(datagram) = summary.take(&packet, filter) {
            each(&datagram);
        }
        Ok(())
    });
    match result {
        Err(ReadError::Capture(error)) => (summary, Some(error)),
        Ok(()) | Err(ReadError::Import(_)) => (summary, None),
    }
}

/// Hands every packet of a pcap or pcapng file to `each`.
fn read_capture<R: BufRead>(
    mut reader: R,
    mut each: impl FnMut(Packet<'_>) -> Result<(), ImportError>,
) -> Result<(), ReadError> {
    let start = reader.fill_buf().map_err(PcapError::IoError)?;
    if start.starts_with(&PCAPNG_MAGIC) {
        read_pcapng(reader, &mut each)
    } else {
        read_pcap(reader, &mut each)
    }
}

enum ReadError {
    Capture(PcapError),
    Import(ImportError),
}

impl From<PcapError> for ReadError {
    fn from(error: PcapError) -> ReadError {
        ReadError::Capture(error)
    }
}

impl From<ImportError> for ReadError {
    fn from(error: ImportError) -> ReadError {
        ReadError::Import(error)
    }
}

struct Packet<'a> {
    /// `None` for a time after [`LAST_MS`].
    at_ms: Option<i64>,
    link: DataLink,
    data: Cow<'a, [u8]>,
}

type Each<'e> = dyn FnMut(Packet<'_>) -> Result<(), ImportError> + 'e;

fn read_pcap(reader: impl Read, each: &mut Each<'_>) -> Result<(), ReadError> {
    let mut reader = PcapReader::new(reader)?;
    let header = reader.header();
    let fractions_per_ms = match header.ts_resolution {
        TsResolution::MicroSecond => 1_000,
        TsResolution::NanoSecond => 1_000_000,
    };
    while let Some(packet) = reader.next_raw_packet() {
        let packet = packet?;
        let at_ms = i64::from(packet.ts_sec) * 1_000 + i64::from(packet.ts_frac / fractions_per_ms);
        each(Packet {
            at_ms: Some(at_ms),
            link: header.datalink,
            data: packet.data,
        })?;
    }
    Ok(())
}

fn read_pcapng(reader: impl Read, each: &mut Each<'_>) -> Result<(), ReadError> {
    let mut reader = PcapNgReader::new(reader)?;
    // Per interface of the section: link type and time units per second.
    let mut interfaces: Vec<(DataLink, u64)> = Vec::new();
    while let Some(block) = reader.next_block() {
        match block? {
            Block::SectionHeader(_) => interfaces.clear(),
            Block::InterfaceDescription(interface) => {
                let resolution = interface.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
                    _ => None,
                });
                interfaces.push((interface.linktype, units_per_second(resolution.unwrap_or(6))));
            }
            Block::EnhancedPacket(packet) => {
                let Some((link, units_per_second)) = interfaces.get(packet.interface_id as usize) else {
                    return Err(PcapError::InvalidInterfaceId(packet.interface_id).into());
                };
                // The reader hands the count of units over as if they were nanoseconds.
                let units = packet.timestamp.as_nanos();
                let at_ms = i64::try_from(units * 1_000 / u128::from(*units_per_second));
                each(Packet {
                    at_ms: at_ms.ok().filter(|at_ms| *at_ms <= LAST_MS),
                    link: *link,
                    data: packet.data,
                })?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// `if_tsresol`: a negative power of 10, or of 2 when the highest bit is set (pcapng §4.2).
fn units_per_second(resolution: u8) -> u64 {
    let exponent = u32::from(resolution & 0x7f);
    let base: u64 = if resolution & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(exponent).unwrap_or(u64::MAX)
}

impl ReplaySummary {
    /// Counts a packet; answers its datagram when it has one that is wanted.
    fn take<'p>(&mut self, packet: &'p Packet<'_>, filter: &PortFilter) -> Option<Datagram<'p>> {
        self.packets += 1;
        let Some(received_at_ms) = packet.at_ms else {
            self.time_unknown += 1;
            return None;
        };
        let sliced = match packet.link {
            DataLink::ETHERNET => SlicedPacket::from_ethernet(&packet.data),
            DataLink::LINUX_SLL => SlicedPacket::from_linux_sll(&packet.data),
            DataLink::LINUX_SLL2 => match packet.data.split_first_chunk::<SLL2_HEADER_BYTES>() {
                Some((header, rest)) => {
                    let protocol = u16::from_be_bytes([header[0], header[1]]);
                    SlicedPacket::from_ether_type(EtherType(protocol), rest)
                }
                None => {
                    self.truncated += 1;
                    return None;
                }
            },
            DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => SlicedPacket::from_ip(&packet.data),
            _ => {
                self.link_unknown += 1;
                return None;
            }
        };
        let Ok(sliced) = sliced else {
            self.truncated += 1;
            return None;
        };
        if sliced.is_ip_payload_fragmented() {
            self.fragments += 1;
            return None;
        }
        let source = match &sliced.net {
            Some(NetSlice::Ipv4(ip)) => Address::from_v4(ip.header().source()),
            Some(NetSlice::Ipv6(ip)) => Address(ip.header().source()),
            _ => Address::UNSPECIFIED,
        };
        let Some(TransportSlice::Udp(udp)) = &sliced.transport else {
            self.others += 1;
            return None;
        };
        let payload = udp.payload();
        let is_wanted = match filter {
            PortFilter::FlowLike => looks_like_flows(payload),
            PortFilter::Ports(ports) => ports.contains(&udp.destination_port()),
        };
        if !is_wanted {
            self.others += 1;
            return None;
        }
        self.datagrams += 1;
        Some(Datagram {
            received_at_ms,
            source,
            source_port: udp.source_port(),
            payload,
        })
    }
}

/// Whether version and lengths in the header fit the payload.
fn looks_like_flows(payload: &[u8]) -> bool {
    let u16_at = |at: usize| {
        payload
            .get(at..at + 2)
            .map_or(0, |bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
    };
    match Kind::of(payload) {
        Kind::Netflow(5) => u16_at(2) > 0 && payload.len() >= 24 + 48 * u16_at(2),
        Kind::Netflow(7) => u16_at(2) > 0 && payload.len() >= 24 + 52 * u16_at(2),
        Kind::Netflow(9) => u16_at(2) > 0 && payload.len() >= 24,
        Kind::Netflow(_) => u16_at(2) >= 16 && u16_at(2) <= payload.len(),
        Kind::Sflow => payload.len() >= 28 && matches!(payload[4..8], [0, 0, 0, 1 | 2]),
        Kind::Short | Kind::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::v5_datagram;
    use etherparse::PacketBuilder;
    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
    use std::sync::Arc;
    use std::time::Duration;

    fn frame(vlan: bool, port: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let ethernet = PacketBuilder::ethernet2([1; 6], [2; 6]);
        if vlan {
            let vlan_id = 7.try_into().unwrap();
            let builder = ethernet.single_vlan(vlan_id).ipv6([1; 16], [2; 16], 64).udp(1, port);
            builder.write(&mut bytes, payload).unwrap();
        } else {
            let builder = ethernet.ipv4([198, 51, 100, 7], [10, 0, 0, 1], 64).udp(1, port);
            builder.write(&mut bytes, payload).unwrap();
        }
        bytes
    }

    fn write_pcap(path: &Path, frames: &[Vec<u8>]) {
        let mut writer = PcapWriter::with_header(File::create(path).unwrap(), PcapHeader::default()).unwrap();
        for (i, frame) in frames.iter().enumerate() {
            let at = Duration::from_millis(1_700_000_000_000 + i as u64);
            writer
                .write_packet(&PcapPacket::new(at, frame.len() as u32, frame))
                .unwrap();
        }
    }

    fn replay(data_dir: &Path, capture: &Path, filter: &PortFilter) -> (ReplaySummary, u64) {
        let name = import_name(capture).unwrap();
        let mut importer = Importer::open(data_dir, Default::default(), Arc::default(), &name).unwrap();
        let mut last = ReplayProgress::default();
        let summary = replay_pcap(capture, &mut importer, filter, |progress| last = progress).unwrap();
        assert_eq!(last.packets, summary.packets);
        (summary, importer.finish().unwrap().flows)
    }

    #[test]
    fn datagrams_are_found_in_a_capture_and_everything_else_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let capture = dir.path().join("a.pcap");
        let flows = v5_datagram(0, &[(100, 1), (200, 2)]);
        let mut fragment = frame(false, 2055, &flows);
        // More fragments follow.
        fragment[14 + 6] |= 0x20;
        let cut = frame(false, 2055, &flows)[..20].to_vec();
        write_pcap(
            &capture,
            &[
                frame(false, 2055, &flows),
                frame(true, 9995, &flows),
                frame(false, 53, b"no flows"),
                fragment,
                cut,
            ],
        );
        let (summary, rows) = replay(dir.path(), &capture, &PortFilter::FlowLike);
        let expected = ReplaySummary {
            packets: 5,
            datagrams: 2,
            fragments: 1,
            truncated: 1,
            others: 1,
            link_unknown: 0,
            time_unknown: 0,
        };
        assert_eq!((summary, rows), (expected, 4));
        let other = tempfile::tempdir().unwrap();
        let (summary, rows) = replay(other.path(), &capture, &PortFilter::Ports(vec![9995]));
        assert_eq!((summary.datagrams, rows), (1, 2));
    }

    #[test]
    fn case_18_a_linux_cooked_v2_capture_is_read() {
        let datagram = v5_datagram(0, &[(100, 1)]);
        let cooked = |ether_type: u16, rest: &[u8]| {
            let mut packet = ether_type.to_be_bytes().to_vec();
            packet.extend([0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 2, 0, 0]);
            packet.extend(rest);
            packet
        };
        let plain = frame(false, 2055, &datagram);
        let tagged = frame(true, 2055, &datagram);
        let packets = [
            cooked(0x0800, &plain[14..]),
            cooked(0x8100, &tagged[14..]),
            cooked(0x0806, &[0; 28]),
            cooked(0x0800, &plain[14..])[..19].to_vec(),
        ];
        let header = PcapHeader {
            datalink: DataLink::LINUX_SLL2,
            ..PcapHeader::default()
        };
        let mut capture = Vec::new();
        let mut writer = PcapWriter::with_header(&mut capture, header).unwrap();
        for packet in &packets {
            let at = Duration::from_millis(1_700_000_000_000);
            writer
                .write_packet(&PcapPacket::new(at, packet.len() as u32, packet))
                .unwrap();
        }
        let mut seen = Vec::new();
        let (summary, error) = read_pcap_bytes(&capture, &PortFilter::FlowLike, |datagram| {
            seen.push((datagram.source, datagram.source_port));
        });
        assert!(error.is_none(), "{error:?}");
        let left_out = (summary.link_unknown, summary.truncated, summary.others);
        assert_eq!((summary.packets, summary.datagrams, left_out), (4, 2, (0, 1, 1)));
        assert_eq!(
            seen,
            [(Address::from_v4([198, 51, 100, 7]), 1), (Address([1; 16]), 1)],
            "the source's port comes with it"
        );
    }

    /// A pcapng file of one packet, captured at so many units of a time resolution.
    fn pcapng(resolution: u8, units: u64, frame: &[u8]) -> Vec<u8> {
        fn block(kind: u32, content: &[u8]) -> Vec<u8> {
            let padded = content.len().next_multiple_of(4);
            let length = (padded as u32 + 12).to_le_bytes();
            let mut bytes = [kind.to_le_bytes(), length].concat();
            bytes.extend_from_slice(content);
            bytes.resize(8 + padded, 0);
            bytes.extend_from_slice(&length);
            bytes
        }
        let section = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
        // Ethernet, no snap length; options: if_tsresol, end.
        let interface = [1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, resolution, 0, 0, 0, 0, 0, 0, 0];
        let length = (frame.len() as u32).to_le_bytes();
        let (high, low) = ((units >> 32) as u32, units as u32);
        let packet = [
            &[0; 4][..],
            &high.to_le_bytes(),
            &low.to_le_bytes(),
            &length,
            &length,
            frame,
        ]
        .concat();
        [block(0x0a0d_0d0a, &section), block(1, &interface), block(6, &packet)].concat()
    }

    #[test]
    fn a_packet_of_no_time_of_ours_is_left_out() {
        let frame = frame(false, 2055, &v5_datagram(0, &[(100, 1)]));
        let mut at_ms = Vec::new();
        let mut read = |capture: Vec<u8>| {
            let (summary, error) = read_pcap_bytes(&capture, &PortFilter::FlowLike, |datagram| {
                at_ms.push(datagram.received_at_ms);
            });
            assert!(error.is_none(), "{error:?}");
            (summary.packets, summary.datagrams, summary.time_unknown)
        };
        assert_eq!(read(pcapng(6, 1_700_000_000_123_456, &frame)), (1, 1, 0));
        assert_eq!(read(pcapng(0, u64::MAX, &frame)), (1, 0, 1));
        assert_eq!(read(pcapng(0, u64::MAX / 1_000, &frame)), (1, 0, 1));
        assert_eq!(read(pcapng(0, 253_402_300_799, &frame)), (1, 1, 0));
        assert_eq!(read(pcapng(0, 253_402_300_800, &frame)), (1, 0, 1));
        assert_eq!(at_ms, [1_700_000_000_123, 253_402_300_799_000]);
    }

    #[test]
    fn a_file_that_is_no_capture_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        std::fs::write(&path, "this is a text of more than twenty-four bytes").unwrap();
        let mut importer = Importer::open(dir.path(), Default::default(), Arc::default(), "x").unwrap();
        let error = replay_pcap(&path, &mut importer, &PortFilter::FlowLike, |_| {}).unwrap_err();
        assert!(matches!(error, ImportError::Capture { packets: 0, .. }), "{error}");
    }

    #[test]
    fn time_resolutions_of_pcapng() {
        assert_eq!(units_per_second(6), 1_000_000);
        assert_eq!(units_per_second(9), 1_000_000_000);
        assert_eq!(units_per_second(0x80 | 10), 1_024);
        assert_eq!(units_per_second(0x7f), u64::MAX);
    }
}
