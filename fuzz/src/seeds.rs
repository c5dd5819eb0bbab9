//! First inputs for the targets: what real exporters sent, and what the simulated ones send.
//!
//! `seeds FOLDER` writes them to FOLDER/TARGET; `fuzz/run seeds` keeps the fewest that cover as much.

#[path = "../../collector/tests/support/beside.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "tests use the rest")]
mod beside;
#[path = "../../collector/tests/support/golden.rs"]
#[expect(dead_code, reason = "the collector's tests use more of it")]
mod golden;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use collector::decode::dispatch::Kind;
use collector::simulate::encode::{SimExporter, SimExporterConfig, SimProtocol};
use collector::simulate::fleet::Fleet;
use collector::simulate::traffic::{Traffic, TrafficConfig};
use fuzz::input::{Input, Packet, Settings, sources};
// The crates are instrumented, and only libFuzzer has what instrumentation calls.
use libfuzzer_sys as _;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};

const INPUT_BYTES_MAX: usize = 4096;
const NOW_MS: i64 = 1_700_000_000_000;

struct Seeds {
    folder: PathBuf,
    written: usize,
}

impl Seeds {
    fn write(&mut self, target: &str, bytes: &[u8]) {
        let folder = self.folder.join(target);
        std::fs::create_dir_all(&folder).expect("a folder for seeds");
        let path = folder.join(format!("seed-{:04}", self.written));
        std::fs::write(&path, bytes).expect("a seed is written");
        self.written += 1;
    }

    /// One input of datagrams that belong together, under each of a few settings.
    fn datagrams(&mut self, payloads: &[Vec<u8>]) {
        let Some(target) = payloads.first().and_then(|payload| target_of(payload)) else {
            return;
        };
        let packets: Vec<Packet> = payloads
            .iter()
            .map(|payload| Packet {
                who: 0,
                payload: payload.clone(),
            })
            .collect();
        for settings in [0, 1, 2 | 4 | 1 << 3] {
            let input = Input {
                settings: Settings(settings),
                packets: packets.clone(),
            };
            self.write(target, &input.to_bytes(INPUT_BYTES_MAX));
        }
    }
}

fn target_of(payload: &[u8]) -> Option<&'static str> {
    match Kind::of(payload) {
        Kind::Netflow(5 | 7) => Some("v5"),
        Kind::Netflow(9) => Some("v9"),
        Kind::Netflow(_) => Some("ipfix"),
        Kind::Sflow => Some("sflow"),
        Kind::Short | Kind::Unknown => None,
    }
}

/// Files of single datagrams, those of one exporter together, templates first.
fn loose_datagrams(seeds: &mut Seeds, folder: &str, extension: &str) {
    let mut groups: BTreeMap<String, Vec<(bool, PathBuf)>> = BTreeMap::new();
    let entries = std::fs::read_dir(golden::golden_dir().join(folder)).expect("a folder of captures");
    for entry in entries {
        let path = entry.expect("a capture").path();
        if path.extension().is_none_or(|found| found != extension) {
            continue;
        }
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        let exporter = ["_data", "_tpl", "_opttpl"]
            .iter()
            .filter_map(|part| name.find(part))
            .min()
            .map_or(name.as_str(), |at| &name[..at]);
        let is_data = !name.contains("tpl");
        groups.entry(exporter.to_owned()).or_default().push((is_data, path));
    }
    assert!(!groups.is_empty(), "no captures in {folder}");
    for mut group in groups.into_values() {
        group.sort();
        let payloads: Vec<Vec<u8>> = group
            .iter()
            .map(|(_, path)| std::fs::read(path).expect("a capture is read"))
            .collect();
        seeds.datagrams(&payloads);
        for payload in payloads {
            seeds.datagrams(&[payload]);
        }
    }
}

fn captures(seeds: &mut Seeds) {
    for pcap in [
        "netgauze/100-IPFIXv10-CISCO/traffic-00.pcap",
        "netgauze/104-IPFIXv10-IPv6-CISCO-sampling_option/traffic-00.pcap",
        "netgauze/110-IPFIXv10-NFv9-multiple-sources/traffic-00.pcap",
        "netgauze/110-IPFIXv10-NFv9-multiple-sources/traffic-01.pcap",
        "netgauze/110-IPFIXv10-NFv9-multiple-sources/traffic-02.pcap",
        "tcpdump/sflow_expanded.pcap",
    ] {
        let payloads: Vec<Vec<u8>> = golden::read_pcap(pcap)
            .into_iter()
            .map(|captured| captured.payload)
            .collect();
        for kind in ["v5", "v9", "ipfix", "sflow"] {
            let own: Vec<Vec<u8>> = payloads
                .iter()
                .filter(|payload| target_of(payload) == Some(kind))
                .cloned()
                .collect();
            seeds.datagrams(&own);
        }
    }
}

fn simulated(seeds: &mut Seeds) {
    for protocol in [SimProtocol::V5, SimProtocol::V9, SimProtocol::Ipfix, SimProtocol::Sflow] {
        for (seed, ipv6_percent) in [(1, 0), (2, 50)] {
            let traffic = TrafficConfig {
                seed,
                protocol,
                ipv6_percent: if protocol == SimProtocol::V5 { 0 } else { ipv6_percent },
            };
            let mut flows = Vec::new();
            Traffic::new(traffic).fill(NOW_MS, 8, &mut flows);
            let config = SimExporterConfig::new(sources()[0], 7, protocol, 1_024, NOW_MS - 7_200_000);
            let mut datagrams = Vec::new();
            SimExporter::new(config)
                .encode(NOW_MS, &flows, &mut datagrams)
                .expect("such flows can be encoded");
            seeds.datagrams(&datagrams);
        }
    }
    let fleet = Fleet::new(11);
    for (index, exporter) in fleet.exporters.iter().enumerate() {
        let mut flows = Vec::new();
        fleet.flows_of(index, NOW_MS - 300_000, NOW_MS, 3, &mut flows);
        flows.truncate(6);
        let mut datagrams = Vec::new();
        SimExporter::new(exporter.sim_config(NOW_MS - 86_400_000))
            .encode(NOW_MS, &flows, &mut datagrams)
            .expect("the fleet's flows can be encoded");
        seeds.datagrams(&datagrams);
    }
}

/// Whole captures, as `fuzz::pcap` reads them.
fn whole_captures(seeds: &mut Seeds) {
    for pcap in [
        "netgauze/100-IPFIXv10-CISCO/traffic-00.pcap",
        "netgauze/104-IPFIXv10-IPv6-CISCO-sampling_option/traffic-00.pcap",
        "tcpdump/sflow_expanded.pcap",
    ] {
        let capture = golden::read(pcap);
        for choice in [0, 2] {
            seeds.write("pcap", &[&[choice], capture.as_slice()].concat());
        }
        // The same packets as pcapng: link type, then each packet.
        let mut reader = pcap_file::pcap::PcapReader::new(capture.as_slice()).expect("a pcap header");
        let mut writer = pcap_file::pcapng::PcapNgWriter::new(vec![2]).expect("a section is written");
        let interface = InterfaceDescriptionBlock {
            linktype: reader.header().datalink,
            snaplen: 0,
            options: vec![InterfaceDescriptionOption::IfTsResol(9)],
        };
        writer.write_pcapng_block(interface).expect("an interface is written");
        while let Some(packet) = reader.next_packet() {
            let packet = packet.expect("a whole packet");
            let block = EnhancedPacketBlock {
                interface_id: 0,
                timestamp: packet.timestamp,
                original_len: packet.orig_len,
                data: packet.data,
                options: Vec::new(),
            };
            writer.write_pcapng_block(block).expect("a packet is written");
        }
        seeds.write("pcap", &writer.into_inner());
    }
}

/// Lists of what is written and what is damaged, as [`fuzz::journal`] reads them.
fn segments(seeds: &mut Seeds) {
    const BLOCK: &[u8] = &[0, 1, 5, 3, b'a', b'b', b'c', 0, 9];
    const END_MARK: &[u8] = &[3];
    let whole = [BLOCK, BLOCK, BLOCK, END_MARK].concat();
    seeds.write("journal", &whole);
    for damage in [
        &[4, 0, 40, 1][..],
        &[5, 0, 32, 0, 16, 0],
        &[6, 0, 1, 255, 255, 255, 255],
        &[6, 1, 0, 0, 0, 0, 0],
        &[7, 0, 1, 0],
        &[8, 0, 100],
        &[9, 0, 50, 0, 4],
        &[1, 0, 3, 9, 9, 9, 1],
        &[2, 4, b'E', b'Z', b'B', b'K'],
    ] {
        seeds.write("journal", &[whole.as_slice(), damage].concat());
        seeds.write("journal", &[BLOCK, BLOCK, damage, BLOCK, END_MARK].concat());
    }
}

/// Columns of each kind, as `fuzz::table` reads them.
fn columns(seeds: &mut Seeds) {
    const NUMBER: [u8; 8] = [0, 0, 1, 0x9b, 0xd1, 0x23, 0x45, 0x67];
    for rows in [[0, 1, 0], [0, 200, 9], [4, 0, 255]] {
        for kind in 0..7_u8 {
            let column: Vec<u8> = match kind {
                1 => [&[kind][..], &NUMBER].concat(),
                2 => vec![kind, 1, 1, 5],
                3 => [&[kind][..], &NUMBER, &[7, 3]].concat(),
                4 => [&[kind, 2][..], &NUMBER, &[0xff; 8], &[0; 8]].concat(),
                5 => vec![kind, 64, 1],
                6 => [&[kind, 0, 100][..], &NUMBER, &[0xff; 8]].concat(),
                _ => vec![kind],
            };
            let all = std::iter::repeat_n(column, 64).flatten();
            let bytes: Vec<u8> = rows.into_iter().chain(all).collect();
            seeds.write("table", &bytes);
        }
    }
}

fn main() {
    let folder = std::env::args_os().nth(1).expect("usage: seeds FOLDER");
    let mut seeds = Seeds {
        folder: Path::new(&folder).to_owned(),
        written: 0,
    };
    loose_datagrams(&mut seeds, "logstash", "dat");
    loose_datagrams(&mut seeds, "goflow2", "bin");
    loose_datagrams(&mut seeds, "vflow", "bin");
    captures(&mut seeds);
    simulated(&mut seeds);
    segments(&mut seeds);
    whole_captures(&mut seeds);
    columns(&mut seeds);
    println!("{} seeds in {}", seeds.written, seeds.folder.display());
}
