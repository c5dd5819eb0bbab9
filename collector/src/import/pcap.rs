//! Captured exports as if they were received: UDP payloads of a pcap or pcapng file, at the time of their capture.
//!
//! Ethernet, Linux cooked (v1) and raw IP captures; VLAN tags are skipped. A fragment has no whole payload: it is counted
//! and left out.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError, TsResolution};
use schemas::address::Address;
use sha2::{Digest, Sha256};

use super::{ImportError, Importer};
use crate::decode::dispatch::Kind;

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
    let mut file = File::open(path).map_err(open_error)?;
    let bytes_total = file.metadata().map_err(open_error)?.len();
    let mut magic = [0; 4];
    file.read_exact(&mut magic).map_err(open_error)?;
    file.seek(SeekFrom::Start(0)).map_err(open_error)?;
    let mut replay = Replay {
        importer,
        filter,
        summary: ReplaySummary::default(),
        bytes_read: 0,
    };
    let mut each = |replay: &mut Replay<'_>, packet: Packet<'_>| {
        replay.packet(&packet)?;
        if replay.summary.packets.is_multiple_of(1_000) {
            progress(replay.progress(bytes_total));
        }
        Ok(())
    };
    let reader = BufReader::new(file);
    let result = if magic == [0x0a, 0x0d, 0x0d, 0x0a] {
        read_pcapng(reader, &mut replay, &mut each)
    } else {
        read_pcap(reader, &mut replay, &mut each)
    };
    let summary = replay.summary;
    progress(replay.progress(bytes_total));
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
    at_ms: i64,
    link: DataLink,
    data: Cow<'a, [u8]>,
}

type Each<'e> = dyn FnMut(&mut Replay<'_>, Packet<'_>) -> Result<(), ImportError> + 'e;

fn read_pcap(reader: BufReader<File>, replay: &mut Replay<'_>, each: &mut Each<'_>) -> Result<(), ReadError> {
    let mut reader = PcapReader::new(reader)?;
    let header = reader.header();
    let fractions_per_ms = match header.ts_resolution {
        TsResolution::MicroSecond => 1_000,
        TsResolution::NanoSecond => 1_000_000,
    };
    while let Some(packet) = reader.next_raw_packet() {
        let packet = packet?;
        let at_ms = i64::from(packet.ts_sec) * 1_000 + i64::from(packet.ts_frac / fractions_per_ms);
        each(
            replay,
            Packet {
                at_ms,
                link: header.datalink,
                data: packet.data,
            },
        )?;
    }
    Ok(())
}

fn read_pcapng(reader: BufReader<File>, replay: &mut Replay<'_>, each: &mut Each<'_>) -> Result<(), ReadError> {
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
                let at_ms = (units * 1_000 / u128::from(*units_per_second)) as i64;
                each(
                    replay,
                    Packet {
                        at_ms,
                        link: *link,
                        data: packet.data,
                    },
                )?;
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

struct Replay<'a> {
    importer: &'a mut Importer,
    filter: &'a PortFilter,
    summary: ReplaySummary,
    bytes_read: u64,
}

impl Replay<'_> {
    fn progress(&self, bytes_total: u64) -> ReplayProgress {
        ReplayProgress {
            packets: self.summary.packets,
            datagrams: self.summary.datagrams,
            bytes_read: self.bytes_read.min(bytes_total),
            bytes_total,
        }
    }

    fn packet(&mut self, packet: &Packet<'_>) -> Result<(), ImportError> {
        self.summary.packets += 1;
        self.bytes_read += packet.data.len() as u64 + 16;
        let sliced = match packet.link {
            DataLink::ETHERNET => SlicedPacket::from_ethernet(&packet.data),
            DataLink::LINUX_SLL => SlicedPacket::from_linux_sll(&packet.data),
            DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => SlicedPacket::from_ip(&packet.data),
            _ => {
                self.summary.link_unknown += 1;
                return Ok(());
            }
        };
        let Ok(sliced) = sliced else {
            self.summary.truncated += 1;
            return Ok(());
        };
        if sliced.is_ip_payload_fragmented() {
            self.summary.fragments += 1;
            return Ok(());
        }
        let source = match &sliced.net {
            Some(NetSlice::Ipv4(ip)) => Address::from_v4(ip.header().source()),
            Some(NetSlice::Ipv6(ip)) => Address(ip.header().source()),
            _ => Address::UNSPECIFIED,
        };
        let Some(TransportSlice::Udp(udp)) = &sliced.transport else {
            self.summary.others += 1;
            return Ok(());
        };
        let payload = udp.payload();
        let is_wanted = match self.filter {
            PortFilter::FlowLike => looks_like_flows(payload),
            PortFilter::Ports(ports) => ports.contains(&udp.destination_port()),
        };
        if !is_wanted {
            self.summary.others += 1;
            return Ok(());
        }
        self.summary.datagrams += 1;
        self.importer.push(packet.at_ms, source, payload)
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
        };
        assert_eq!((summary, rows), (expected, 4));
        let other = tempfile::tempdir().unwrap();
        let (summary, rows) = replay(other.path(), &capture, &PortFilter::Ports(vec![9995]));
        assert_eq!((summary.datagrams, rows), (1, 2));
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
