//! What the collector knows about itself and its exporters, for people: `<data_dir>/collector/status.json`.
//!
//! Written whole and atomically after each segment, read by whoever shows it ([`read`]). Cumulative numbers go on across
//! restarts, because they are kept in the journal's checkpoint. Imports keep theirs in `imports.json`; [`read`] adds both.

mod layer2;
mod summary;
mod track;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

use schemas::address::Address;
use schemas::metering::MeterMode;
use serde::{Deserialize, Serialize};
use tables::flow::Boundary;

pub use layer2::{HeaderSizes, LAYER2_OCTETS};

use crate::decode::DomainView;
use crate::receive::ListenKind;

pub(crate) use summary::FlowSummary;
pub(crate) use track::Tracker;

/// Exporters that are kept; more are only counted (in `collection_5m` and in the totals). Listed ones always have a place.
pub const EXPORTERS_MAX: usize = 10_000;
/// Sources among them of which no datagram was ever understood: refused, or not speaking any protocol of ours. Those not
/// heard for longest make room for new ones.
pub const STRANGERS_MAX: usize = 1_024;
/// Interfaces that are kept per exporter.
pub const INTERFACES_MAX: usize = 4_096;
/// Observation domains (or agents' sub-agents) that are listed per exporter.
pub const DOMAINS_MAX: usize = 256;
/// An exporter that meters and of whose flows none has counted for so long needs somebody.
pub const UNMETERED_AFTER_MS: i64 = 60 * 60_000;
/// Minutes of which rates are kept per exporter.
pub const MINUTES_MAX: usize = 15;

const STATUS_FILE: &str = "status.json";
const IMPORTS_FILE: &str = "imports.json";

/// Everything, as of the last segment.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CollectorStatus {
    /// UTC milliseconds; 0 when only imports were made.
    pub written_at_ms: i64,
    /// When this process started to collect, UTC milliseconds.
    pub started_at_ms: i64,
    pub journal_id: String,
    /// Segments before this one are stored.
    pub next_segment: u64,
    /// Closed segments that waited when this was written.
    pub segments_waiting: u64,
    /// The journal or the tables could not be written: the log says why.
    pub journal_stalled: bool,
    pub store_stalled: bool,
    pub sockets: Vec<SocketStatus>,
    /// In order of address.
    pub exporters: Vec<ExporterStatus>,
    /// Sums over everything, by the names of [`crate::counts::Counter`].
    pub totals: BTreeMap<String, u64>,
}

/// One socket, since the process started.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SocketStatus {
    pub kind: ListenKind,
    pub address: SocketAddr,
    pub datagrams: u64,
    pub bytes: u64,
    pub kernel_dropped: u64,
    pub queue_dropped: u64,
    /// What the kernel granted.
    pub receive_buffer_bytes: usize,
}

/// One exporter, since it was first heard.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ExporterStatus {
    pub address: Address,
    /// As configured.
    pub name: Option<String>,
    pub site: Option<String>,
    /// Listed in the configuration.
    pub configured: bool,
    pub meter: MeterMode,
    pub first_heard_ms: i64,
    pub last_heard_ms: i64,
    pub datagrams: u64,
    pub datagram_bytes: u64,
    pub flows: u64,
    pub packets: u64,
    /// Layer 3, as exported.
    pub bytes: u64,
    /// After sampling.
    pub bytes_scaled: u64,
    /// Flows with sampling rate 0: kept, never billed.
    pub flows_without_rate: u64,
    /// When the first flow arrived since the last one that counted for somebody's usage, UTC milliseconds; 0 = its newest flows
    /// count, or there are none.
    pub unmetered_since_ms: i64,
    /// As in the `flows` table: 5, 7, 9, 10 = IPFIX, 105 = sFlow.
    pub protocol_versions: BTreeSet<u8>,
    /// Rate of the newest flow that had one.
    pub sampling_rate: u32,
    /// Lost between exporter and collector, in what its protocol numbers: records of v5, v7 and IPFIX, datagrams of v9 and
    /// sFlow.
    pub sequence_lost: u64,
    /// When a datagram of it was last refused because `collector.allowed_exporters` does not hold its address; 0 = never.
    pub refused_at_ms: i64,
    /// Every counter of this exporter by name, rejections among them (`datagrams_rejected.short`, …).
    pub counters: BTreeMap<String, u64>,
    /// What packets without payload say of the bytes it counts.
    #[serde(default)]
    pub header_sizes: HeaderSizes,
    pub domains: Vec<DomainView>,
    /// In order of index.
    #[serde(with = "interfaces")]
    pub interfaces: Vec<InterfaceStatus>,
    /// Newest last.
    pub minutes: Vec<MinuteStatus>,
}

/// One interface that flows crossed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InterfaceStatus {
    pub if_index: u32,
    /// Flows that came in here.
    pub in_flows: u64,
    /// Flows that went out here.
    pub out_flows: u64,
    /// Layer 3, after sampling.
    #[serde(default)]
    pub in_bytes_scaled: u64,
    #[serde(default)]
    pub out_bytes_scaled: u64,
    pub last_seen_ms: i64,
    #[serde(with = "boundary")]
    pub boundary: Boundary,
}

/// What arrived in one minute.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MinuteStatus {
    pub minute_ms: i64,
    pub datagrams: u64,
    pub flows: u64,
    pub bytes_scaled: u64,
}

/// Means per second over the last whole minutes.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Rates {
    pub datagrams_per_second: f64,
    pub flows_per_second: f64,
    pub bits_per_second: f64,
}

impl Default for ExporterStatus {
    fn default() -> ExporterStatus {
        ExporterStatus::new(Address::UNSPECIFIED)
    }
}

impl ExporterStatus {
    pub fn new(address: Address) -> ExporterStatus {
        ExporterStatus {
            address,
            name: None,
            site: None,
            configured: false,
            meter: MeterMode::default(),
            first_heard_ms: 0,
            last_heard_ms: 0,
            datagrams: 0,
            datagram_bytes: 0,
            flows: 0,
            packets: 0,
            bytes: 0,
            bytes_scaled: 0,
            flows_without_rate: 0,
            unmetered_since_ms: 0,
            protocol_versions: BTreeSet::new(),
            header_sizes: HeaderSizes::default(),
            sampling_rate: 0,
            sequence_lost: 0,
            refused_at_ms: 0,
            counters: BTreeMap::new(),
            domains: Vec::new(),
            interfaces: Vec::new(),
            minutes: Vec::new(),
        }
    }

    /// Its last datagram was refused: it is not among `collector.allowed_exporters`.
    pub fn is_refused(&self) -> bool {
        self.refused_at_ms > 0 && self.refused_at_ms >= self.last_heard_ms
    }

    /// Since when its flows arrive and none of them counts, UTC milliseconds; `None` where it is not to meter, or where that is
    /// shorter than [`UNMETERED_AFTER_MS`].
    pub fn nothing_metered_since_ms(&self, meter: MeterMode) -> Option<i64> {
        let is_long = self.last_heard_ms - self.unmetered_since_ms >= UNMETERED_AFTER_MS;
        let is_a_fault = self.unmetered_since_ms > 0 && is_long && meter != MeterMode::Off;
        is_a_fault.then_some(self.unmetered_since_ms)
    }

    /// Rejected datagrams, sets and records by cause, without the zeros.
    pub fn rejected(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counters
            .iter()
            .filter(|(name, _)| name.contains("rejected"))
            .map(|(name, value)| (name.as_str(), *value))
    }

    /// Means over the (at most) 5 whole minutes before `now_ms`.
    pub fn rates(&self, now_ms: i64) -> Rates {
        const MINUTE_MS: i64 = 60_000;
        let this_minute_ms = now_ms.div_euclid(MINUTE_MS) * MINUTE_MS;
        let from_ms = this_minute_ms - 5 * MINUTE_MS;
        let mut sum = MinuteStatus::default();
        let mut first_ms = this_minute_ms;
        for minute in &self.minutes {
            if minute.minute_ms >= from_ms && minute.minute_ms < this_minute_ms {
                first_ms = first_ms.min(minute.minute_ms);
                sum.datagrams += minute.datagrams;
                sum.flows += minute.flows;
                sum.bytes_scaled = sum.bytes_scaled.saturating_add(minute.bytes_scaled);
            }
        }
        let seconds = ((this_minute_ms - first_ms) / 1000) as f64;
        if seconds == 0.0 {
            return Rates::default();
        }
        Rates {
            datagrams_per_second: sum.datagrams as f64 / seconds,
            flows_per_second: sum.flows as f64 / seconds,
            bits_per_second: sum.bytes_scaled as f64 * 8.0 / seconds,
        }
    }

    /// Adds what another source (an import) knows of the same exporter; of states the newer one stays.
    fn add(&mut self, other: &ExporterStatus) {
        let other_is_newer = other.last_heard_ms > self.last_heard_ms;
        self.first_heard_ms = match self.first_heard_ms {
            0 => other.first_heard_ms,
            first => first.min(other.first_heard_ms),
        };
        self.last_heard_ms = self.last_heard_ms.max(other.last_heard_ms);
        self.datagrams += other.datagrams;
        self.datagram_bytes += other.datagram_bytes;
        self.flows += other.flows;
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.bytes_scaled = self.bytes_scaled.saturating_add(other.bytes_scaled);
        self.flows_without_rate += other.flows_without_rate;
        self.protocol_versions.extend(&other.protocol_versions);
        self.sequence_lost += other.sequence_lost;
        self.refused_at_ms = self.refused_at_ms.max(other.refused_at_ms);
        for (name, value) in &other.counters {
            *self.counters.entry(name.clone()).or_default() += value;
        }
        self.header_sizes.add(other.header_sizes);
        if other_is_newer || self.sampling_rate == 0 {
            self.sampling_rate = other.sampling_rate;
        }
        if other_is_newer || self.domains.is_empty() {
            self.domains.clone_from(&other.domains);
        }
        if other_is_newer {
            self.unmetered_since_ms = other.unmetered_since_ms;
            self.minutes.clone_from(&other.minutes);
        }
        let mut interfaces: BTreeMap<u32, InterfaceStatus> = std::mem::take(&mut self.interfaces)
            .into_iter()
            .map(|i| (i.if_index, i))
            .collect();
        for interface in &other.interfaces {
            if interfaces.len() >= INTERFACES_MAX && !interfaces.contains_key(&interface.if_index) {
                continue;
            }
            let mine = interfaces.entry(interface.if_index).or_insert(InterfaceStatus {
                in_flows: 0,
                out_flows: 0,
                in_bytes_scaled: 0,
                out_bytes_scaled: 0,
                ..*interface
            });
            mine.in_flows += interface.in_flows;
            mine.out_flows += interface.out_flows;
            mine.in_bytes_scaled = mine.in_bytes_scaled.saturating_add(interface.in_bytes_scaled);
            mine.out_bytes_scaled = mine.out_bytes_scaled.saturating_add(interface.out_bytes_scaled);
            if interface.last_seen_ms > mine.last_seen_ms {
                mine.last_seen_ms = interface.last_seen_ms;
                mine.boundary = interface.boundary;
            }
        }
        self.interfaces = interfaces.into_values().collect();
    }
}

impl CollectorStatus {
    /// Adds exporters and totals of another status.
    fn add(&mut self, other: &CollectorStatus) {
        let mut exporters: BTreeMap<Address, ExporterStatus> = std::mem::take(&mut self.exporters)
            .into_iter()
            .map(|e| (e.address, e))
            .collect();
        for exporter in &other.exporters {
            match exporters.get_mut(&exporter.address) {
                Some(mine) => mine.add(exporter),
                None => {
                    exporters.insert(exporter.address, exporter.clone());
                }
            }
        }
        self.exporters = exporters.into_values().collect();
        for (name, value) in &other.totals {
            *self.totals.entry(name.clone()).or_default() += value;
        }
    }
}

/// The status of a data directory: of its collector and of everything that was imported. `None` before either ran.
///
/// # Errors
/// When a file exists and cannot be read or understood.
pub fn read(data_dir: &Path) -> std::io::Result<Option<CollectorStatus>> {
    let live = read_file(data_dir, STATUS_FILE)?;
    let imports = read_file(data_dir, IMPORTS_FILE)?;
    Ok(match (live, imports) {
        (Some(mut live), Some(imports)) => {
            live.add(&imports);
            Some(live)
        }
        (live, imports) => live.or(imports),
    })
}

fn read_file(data_dir: &Path, name: &str) -> std::io::Result<Option<CollectorStatus>> {
    let path = data_dir.join("collector").join(name);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| std::io::Error::new(ErrorKind::InvalidData, error))
}

fn write_file(data_dir: &Path, name: &str, status: &CollectorStatus) -> std::io::Result<()> {
    let folder = data_dir.join("collector");
    std::fs::create_dir_all(&folder)?;
    let json = serde_json::to_vec(status)?;
    crate::durable::write(&folder.join(name), &json)
}

/// Writes the collector's own status.
pub(crate) fn write(data_dir: &Path, status: &CollectorStatus) -> std::io::Result<()> {
    write_file(data_dir, STATUS_FILE, status)
}

/// Adds one finished import to the imports' status.
pub(crate) fn add_import(data_dir: &Path, import: &CollectorStatus) -> std::io::Result<()> {
    let mut status = read_file(data_dir, IMPORTS_FILE)?.unwrap_or_default();
    status.add(import);
    write_file(data_dir, IMPORTS_FILE, &status)
}

mod interfaces {
    //! Interfaces as lists of numbers in the order of their fields, a third of what their names would make it: ten thousand exporters
    //! have half a million. Names are understood, too.

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{InterfaceStatus, boundary};

    type Numbers<Word> = (u32, u64, u64, u64, u64, i64, Word);

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Numbers(Numbers<String>),
        Named(InterfaceStatus),
    }

    pub(super) fn serialize<S: Serializer>(interfaces: &[InterfaceStatus], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(interfaces.iter().map(|interface| -> Numbers<&str> {
            (
                interface.if_index,
                interface.in_flows,
                interface.out_flows,
                interface.in_bytes_scaled,
                interface.out_bytes_scaled,
                interface.last_seen_ms,
                boundary::word(interface.boundary),
            )
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<InterfaceStatus>, D::Error> {
        let stored = Vec::<Stored>::deserialize(deserializer)?;
        let interfaces = stored.into_iter().map(|stored| match stored {
            Stored::Named(interface) => interface,
            Stored::Numbers((if_index, in_flows, out_flows, in_bytes_scaled, out_bytes_scaled, last_seen_ms, word)) => {
                InterfaceStatus {
                    if_index,
                    in_flows,
                    out_flows,
                    in_bytes_scaled,
                    out_bytes_scaled,
                    last_seen_ms,
                    boundary: boundary::of_word(&word),
                }
            }
        });
        Ok(interfaces.collect())
    }
}

mod boundary {
    //! A boundary as a word.

    use serde::{Deserialize, Deserializer, Serializer};
    use tables::flow::Boundary;

    pub(super) fn word(boundary: Boundary) -> &'static str {
        match boundary {
            Boundary::Unknown => "unknown",
            Boundary::External => "external",
            Boundary::Internal => "internal",
        }
    }

    pub(super) fn of_word(word: &str) -> Boundary {
        match word {
            "external" => Boundary::External,
            "internal" => Boundary::Internal,
            _ => Boundary::Unknown,
        }
    }

    pub(super) fn serialize<S: Serializer>(boundary: &Boundary, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(word(*boundary))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Boundary, D::Error> {
        Ok(of_word(&String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exporter(address: &str, flows: u64, last_heard_ms: i64) -> ExporterStatus {
        ExporterStatus {
            flows,
            last_heard_ms,
            first_heard_ms: last_heard_ms,
            interfaces: vec![InterfaceStatus {
                if_index: 513,
                in_flows: flows,
                out_flows: 0,
                in_bytes_scaled: 10 * flows,
                out_bytes_scaled: 0,
                last_seen_ms: last_heard_ms,
                boundary: Boundary::External,
            }],
            ..ExporterStatus::new(address.parse().unwrap())
        }
    }

    #[test]
    fn interfaces_are_lists_and_names_are_understood() {
        let one = exporter("192.0.2.1", 5, 10);
        let mut json = serde_json::to_value(&one).unwrap();
        assert_eq!(
            json["interfaces"],
            serde_json::json!([[513, 5, 0, 50, 0, 10, "external"]])
        );
        assert_eq!(serde_json::from_value::<ExporterStatus>(json.clone()).unwrap(), one);
        json["interfaces"] = serde_json::to_value(vec![one.interfaces[0]]).unwrap();
        assert_eq!(json["interfaces"][0]["if_index"], 513);
        assert_eq!(serde_json::from_value::<ExporterStatus>(json).unwrap(), one);
    }

    #[test]
    fn live_and_imported_numbers_add_up() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        let import = CollectorStatus {
            exporters: vec![exporter("192.0.2.1", 5, 10)],
            totals: BTreeMap::from([("datagrams".to_owned(), 3)]),
            ..CollectorStatus::default()
        };
        add_import(dir.path(), &import).unwrap();
        add_import(dir.path(), &import).unwrap();
        let live = CollectorStatus {
            journal_id: "j".to_owned(),
            exporters: vec![exporter("192.0.2.2", 1, 20), exporter("192.0.2.1", 7, 20)],
            ..CollectorStatus::default()
        };
        write(dir.path(), &live).unwrap();
        let both = read(dir.path()).unwrap().unwrap();
        assert_eq!(both.journal_id, "j");
        assert_eq!(both.totals["datagrams"], 6);
        assert_eq!(both.exporters.len(), 2);
        let first = &both.exporters[0];
        assert_eq!((first.flows, first.first_heard_ms, first.last_heard_ms), (17, 10, 20));
        assert_eq!(first.interfaces.len(), 1);
        assert_eq!(first.interfaces[0].in_flows, 17);
        assert_eq!(first.interfaces[0].in_bytes_scaled, 170);
    }

    #[test]
    fn rates_are_means_over_whole_minutes() {
        let mut status = ExporterStatus::new(Address::UNSPECIFIED);
        for minute in 0..3 {
            status.minutes.push(MinuteStatus {
                minute_ms: minute * 60_000,
                datagrams: 60,
                flows: 600,
                bytes_scaled: 6_000,
            });
        }
        let rates = status.rates(2 * 60_000 + 30_000);
        assert!((rates.datagrams_per_second - 1.0).abs() < 1e-9);
        assert!((rates.flows_per_second - 10.0).abs() < 1e-9);
        assert!((rates.bits_per_second - 800.0).abs() < 1e-9);
        assert_eq!(status.rates(60 * 60_000), Rates::default(), "long silent");
    }
}
