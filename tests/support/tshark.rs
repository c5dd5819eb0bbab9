//! The second opinion: what tshark reads in the same datagrams, and captures to let it read.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::command::{Background, output_of};
use super::net::Namespace;
use super::pcap::frame_count;
use super::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(20);

/// How tshark shall read the datagrams of a UDP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dissector {
    /// NetFlow and IPFIX.
    Cflow,
    Sflow,
}

impl Dissector {
    fn decode_as(self, port: u16) -> String {
        let name = match self {
            Self::Cflow => "cflow",
            Self::Sflow => "sflow",
        };
        format!("udp.port=={port},{name}")
    }
}

/// One flow record or sample, as exported: not scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ExportedFlow {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Layer 3.
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
}

/// Rows of fields, one row per frame of the capture. A field that occurs more than once in a frame has its values in
/// order; one that does not occur has none.
pub(crate) fn fields(pcap: &Path, dissector: Dissector, port: u16, names: &[&str]) -> Vec<Vec<Vec<String>>> {
    let mut command = tshark(pcap, dissector, port);
    command.args([
        "-T",
        "fields",
        "-E",
        "separator=/t",
        "-E",
        "occurrence=a",
        "-E",
        "aggregator=,",
    ]);
    for name in names {
        command.args(["-e", name]);
    }
    let values = |cell: &str| {
        cell.split(',')
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .collect()
    };
    output_of(&mut command)
        .lines()
        .map(|line| line.split('\t').map(values).collect())
        .collect()
}

/// The NetFlow or IPFIX layer of each frame, as tshark's JSON tree.
pub(crate) fn cflow_json(pcap: &Path, port: u16) -> Vec<Value> {
    let mut command = tshark(pcap, Dissector::Cflow, port);
    command.args(["-T", "json", "-J", "cflow", "--no-duplicate-keys"]);
    let frames: Vec<Value> = serde_json::from_str(&output_of(&mut command)).expect("tshark writes JSON");
    frames
        .into_iter()
        .filter_map(|mut frame| frame.pointer_mut("/_source/layers/cflow").map(Value::take))
        .collect()
}

/// Every flow record or sampled packet in a capture of exports to `port`.
pub(crate) fn exported_flows(pcap: &Path, dissector: Dissector, port: u16) -> Vec<ExportedFlow> {
    match dissector {
        Dissector::Cflow => {
            let mut flows = Vec::new();
            for frame in cflow_json(pcap, port) {
                collect_records(&frame, &mut flows);
            }
            flows
        }
        Dissector::Sflow => sampled_packets(pcap, port),
    }
}

/// Data records are the objects that have octets, at whatever depth a version of tshark puts them.
fn collect_records(tree: &Value, flows: &mut Vec<ExportedFlow>) {
    match tree {
        Value::Array(items) => items.iter().for_each(|item| collect_records(item, flows)),
        Value::Object(entries) => {
            let text = |name: &str| entries.get(name).and_then(Value::as_str);
            let number = |name| text(name).map(|digits| digits.parse::<u64>().expect("tshark writes decimal counts"));
            // Cisco's records of labelled packets have room for both families and fill the unused one with zeros.
            let address = |names: [&str; 2]| {
                let addresses = names
                    .into_iter()
                    .filter_map(text)
                    .map(|address| address.parse::<IpAddr>());
                let addresses: Vec<IpAddr> = addresses
                    .map(|parsed| parsed.expect("tshark writes addresses"))
                    .collect();
                let used = addresses
                    .iter()
                    .find(|address| !address.is_unspecified())
                    .or(addresses.first());
                *used.expect("a record has addresses")
            };
            if let Some(bytes) = number("cflow.octets") {
                flows.push(ExportedFlow {
                    source: address(["cflow.srcaddr", "cflow.srcaddrv6"]),
                    destination: address(["cflow.dstaddr", "cflow.dstaddrv6"]),
                    bytes,
                    packets: number("cflow.packets").expect("a record counts packets"),
                });
            }
            entries.values().for_each(|value| collect_records(value, flows));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Sampled headers of one IP layer each. A frame's first IPv4 layer is the datagram's own.
fn sampled_packets(pcap: &Path, port: u16) -> Vec<ExportedFlow> {
    /// The fixed header, which an IPv6 payload length leaves out (RFC 8200 §3).
    const IPV6_HEADER_BYTES: u64 = 40;
    let names = ["ip.src", "ip.dst", "ip.len", "ipv6.src", "ipv6.dst", "ipv6.plen"];
    let mut packets = Vec::new();
    for frame in fields(pcap, Dissector::Sflow, port, &names) {
        let [
            source_v4,
            destination_v4,
            length_v4,
            source_v6,
            destination_v6,
            length_v6,
        ] = frame.as_slice()
        else {
            panic!("tshark gives as many columns as it is asked for, not {}", frame.len());
        };
        let versions = [
            (source_v4, destination_v4, length_v4, 1, 0),
            (source_v6, destination_v6, length_v6, 0, IPV6_HEADER_BYTES),
        ];
        for (sources, destinations, lengths, outer_layers, more_bytes) in versions {
            let of_samples = sources.iter().zip(destinations).zip(lengths).skip(outer_layers);
            for ((source, destination), length) in of_samples {
                packets.push(ExportedFlow {
                    source: source.parse().expect("tshark writes addresses"),
                    destination: destination.parse().expect("tshark writes addresses"),
                    bytes: length.parse::<u64>().expect("tshark writes lengths") + more_bytes,
                    packets: 1,
                });
            }
        }
    }
    packets
}

fn tshark(pcap: &Path, dissector: Dissector, port: u16) -> Command {
    let mut command = Command::new("tshark");
    command
        .arg("-n")
        .arg("-r")
        .arg(pcap)
        .args(["-d", &dissector.decode_as(port)]);
    command
}

/// A running capture of everything on one interface.
#[derive(Debug)]
pub(crate) struct Capture<'a> {
    namespace: &'a Namespace,
    interface: &'a str,
    frames_before: u64,
    file: PathBuf,
    dumpcap: Background,
}

impl<'a> Capture<'a> {
    /// Starts it, before anything is sent there that matters.
    pub(crate) fn start(namespace: &'a Namespace, interface: &'a str, dir: &Path) -> Self {
        let file = dir.join("datagrams.pcap");
        let mut command = namespace.command("dumpcap");
        command.args(["-q", "-P", "-i", interface, "-B", "32", "-w"]).arg(&file);
        let mut dumpcap = Background::start("dumpcap", &mut command, dir);
        // It writes the file's header when it captures.
        dumpcap.wait_until("the capture to begin", LIMIT, |_| {
            std::fs::metadata(&file).is_ok_and(|data| data.len() > 0) && namespace.packet_socket_count() > 0
        });
        let frames_before = namespace.counters(interface).rx_packets;
        Self {
            namespace,
            interface,
            frames_before,
            file,
            dumpcap,
        }
    }

    /// Waits until every frame that the interface received is in the file, and ends the capture.
    pub(crate) fn finish(mut self) -> PathBuf {
        let received = self.namespace.counters(self.interface).rx_packets - self.frames_before;
        wait_until(&format!("{received} frames in {}", self.file.display()), LIMIT, || {
            frame_count(&self.file) >= received
        });
        self.dumpcap.stop_with("TERM", LIMIT);
        self.file
    }
}
