//! Flows by number, in four protocols at once, and the model of what must become of them.
//!
//! A datagram carries [`FLOWS`] flows. Its lane (an exporter that speaks one protocol) is their observation domain, its
//! number in the lane is in their ports, and each flow has bytes of its own: what is missing, doubled or made up has a
//! name.
//!
//! What must hold after every kill (F1):
//!
//! * a datagram is stored whole and once, or not at all, and nothing is stored that nobody sent;
//! * what was acknowledged (in a sound block of the journal, or in the tables) stays, for ever;
//! * in each lane the journal has datagrams in order, so what is missing is missing up to a kill: a gap reaches as far as
//!   those that were lost while nobody listened. A gap that does not is a loss.
//!
//! And when the collector has drained (F2): received = decoded + rejected, records = rows, and what the sequence numbers
//! miss is what the model knows to be missing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use collector::journal::{Journal, Record, read_segment};
use collector::simulate::encode::{SimExporter, SimExporterConfig, SimProtocol};
use jiff::Timestamp;
use schemas::address::Address;
use tables::flow::Flow;

use super::ezscale::{DataDir, Ezscale};
use super::net::UdpSocketState;
use super::pcap::PcapWriter;
use super::wait::wait_until;

/// Flows of each datagram: as many as an sFlow datagram has room for.
pub(crate) const FLOWS: u32 = 5;
/// The lanes that are sent; one more is replayed.
pub(crate) const LANES: usize = SimProtocol::ALL.len();
const REPLAYED: usize = LANES;
const TEMPLATE_DATAGRAMS: u32 = 20;
/// Asked of the kernel's table of sockets after so many datagrams …
const LOOK_EVERY: u32 = 16;
/// … and waited while more than this waits to be read: the kernel must not drop what this model takes for received.
const QUEUED_BYTES_MAX: u64 = 64 << 10;
const JUNK_BYTES: usize = 60_000;
const ROOM_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// To a socket that was open, as far as the sender could know.
    Sent,
    /// While nobody listened.
    LostOnTheWay,
}

#[derive(Debug)]
struct Lane {
    protocol: SimProtocol,
    exporter: SimExporter,
    fates: Vec<Fate>,
}

/// A datagram: lane and number.
type Id = (usize, u32);

/// Where the collector listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Targets {
    pub(crate) netflow: SocketAddr,
    pub(crate) sflow: SocketAddr,
}

impl Targets {
    pub(crate) fn of(process: &Ezscale) -> Self {
        Self {
            netflow: process.netflow[0],
            sflow: process.sflow[0],
        }
    }

    fn of_lane(self, protocol: SimProtocol) -> SocketAddr {
        match protocol {
            SimProtocol::Sflow => self.sflow,
            SimProtocol::V5 | SimProtocol::V9 | SimProtocol::Ipfix => self.netflow,
        }
    }
}

/// What the disk held of the journal after a kill.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Left {
    pub(crate) segments: u64,
    pub(crate) torn_bytes: u64,
}

/// The senders, and what became of what they sent.
#[derive(Debug)]
pub(crate) struct Model {
    lanes: Vec<Lane>,
    turn: usize,
    socket: UdpSocket,
    /// When replayed captures were captured, UTC ms: one hour's, some hours ago, which compaction finds quiet.
    captured_at_ms: i64,
    by_payload: HashMap<u64, Id>,
    acknowledged: HashSet<Id>,
    /// Datagrams of no protocol, sent to fill disks.
    junk: u64,
}

impl Model {
    pub(crate) fn new() -> Self {
        const HOUR_MS: i64 = 3_600_000;
        let now_ms = super::clock::began_ms();
        let boot_at_ms = now_ms - 8 * HOUR_MS;
        let protocols = SimProtocol::ALL.into_iter().chain([SimProtocol::V5]);
        let lanes = protocols.zip(1..).map(|(protocol, domain)| Lane {
            protocol,
            exporter: SimExporter::new(SimExporterConfig {
                refresh_datagrams: TEMPLATE_DATAGRAMS,
                counter_interval_ms: i64::MAX,
                ..SimExporterConfig::new(Address::from_v4([192, 0, 2, 9]), domain, protocol, 0, boot_at_ms)
            }),
            fates: Vec::new(),
        });
        Self {
            lanes: lanes.collect(),
            turn: 0,
            socket: UdpSocket::bind("127.0.0.1:0").expect("a free port on the loopback"),
            captured_at_ms: (now_ms / HOUR_MS - 4) * HOUR_MS + 600_000,
            by_payload: HashMap::new(),
            acknowledged: HashSet::new(),
            junk: 0,
        }
    }

    /// Datagrams sent to a socket so far, in all lanes.
    pub(crate) fn sent(&self) -> u64 {
        let sent = |lane: &Lane| lane.fates.iter().filter(|fate| **fate == Fate::Sent).count() as u64;
        self.lanes.iter().map(sent).sum()
    }

    /// Of those, not acknowledged: on their way when the process was killed.
    pub(crate) fn lost_in_flight(&self) -> u64 {
        self.sent() - self.acknowledged.len() as u64
    }

    fn next_datagram(&mut self, lane: usize, fate: Fate, at_ms: i64) -> Vec<u8> {
        let Lane { exporter, fates, .. } = &mut self.lanes[lane];
        let number = u32::try_from(fates.len()).expect("few datagrams");
        fates.push(fate);
        let flows: Vec<Flow> = (0..FLOWS).map(|flow| flow_of(number, flow, at_ms)).collect();
        let mut payloads = Vec::new();
        exporter
            .encode(at_ms, &flows, &mut payloads)
            .expect("every protocol can express these flows");
        let payload = payloads.pop().expect("flows make a datagram");
        assert!(payloads.is_empty(), "{FLOWS} flows fit into one datagram");
        self.by_payload.insert(hash_of(&payload), (lane, number));
        payload
    }

    /// Sends so many datagrams, lane by lane in turn, one every `interval`.
    pub(crate) fn send(&mut self, to: Targets, datagrams: u32, interval: Duration) {
        let started = Instant::now();
        for index in 0..datagrams {
            if index % LOOK_EVERY == 0 {
                wait_for_room(to);
            }
            let due = started + interval * index;
            while let Some(wait) = due
                .checked_duration_since(Instant::now())
                .filter(|wait| !wait.is_zero())
            {
                std::thread::park_timeout(wait);
            }
            let lane = self.turn;
            self.turn = (lane + 1) % LANES;
            let payload = self.next_datagram(lane, Fate::Sent, super::clock::running().as_millisecond());
            self.socket
                .send_to(&payload, to.of_lane(self.lanes[lane].protocol))
                .expect("the loopback takes a datagram");
        }
    }

    /// Sends large datagrams of no protocol: received, journalled, rejected.
    pub(crate) fn send_junk(&mut self, to: Targets, datagrams: u32) {
        let payload = [0xee; JUNK_BYTES];
        for _ in 0..datagrams {
            wait_for_room(to);
            self.socket
                .send_to(&payload, to.netflow)
                .expect("the loopback takes a datagram");
            self.junk += 1;
        }
    }

    /// Everything sent to a socket so far, junk included.
    pub(crate) fn sent_with_junk(&self) -> u64 {
        self.sent() + self.junk
    }

    /// A datagram that somebody destroyed after it was acknowledged.
    pub(crate) fn destroyed(&mut self, payload: &[u8]) {
        let id = self.by_payload.get(&hash_of(payload));
        let (lane, number) = *id.expect("only what was sent can be destroyed");
        self.lanes[lane].fates[number as usize] = Fate::LostOnTheWay;
        self.acknowledged.remove(&(lane, number));
    }

    /// Exports that reach nobody: so many in each lane.
    pub(crate) fn lose(&mut self, datagrams: u32) {
        for lane in 0..LANES {
            for _ in 0..datagrams {
                self.next_datagram(lane, Fate::LostOnTheWay, super::clock::running().as_millisecond());
            }
        }
    }

    /// Stores a capture of some hours ago: a file for compaction to merge.
    pub(crate) fn replay(&mut self, data: &DataDir) {
        let number = self.lanes[REPLAYED].fates.len();
        let capture = data.scratch().join(format!("capture-{number}.pcap"));
        let mut writer = PcapWriter::create(&capture);
        let at_ms = self.captured_at_ms;
        let at = Timestamp::from_millisecond(at_ms).expect("a time of this century");
        for _ in 0..3 {
            let number = self.lanes[REPLAYED].fates.len() as u32;
            let payload = self.next_datagram(REPLAYED, Fate::Sent, at_ms);
            let from = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 40_000);
            writer.udp(at, from, SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 2055), &payload);
            self.acknowledged.insert((REPLAYED, number));
        }
        writer.finish();
        data.run(&["replay", &capture.display().to_string()]);
    }

    /// What must hold whenever no process runs. Takes what the journal and the tables hold as acknowledged.
    pub(crate) fn check_killed(&mut self, data: &DataDir) -> Left {
        let (mut present, left) = self.journalled(data);
        present.extend(self.stored(data));
        self.check_acknowledged(&present);
        self.check_gaps(&present);
        self.acknowledged = present;
        left
    }

    /// What must hold when a collector has stopped by itself: everything is in the tables, and every count agrees.
    pub(crate) fn check_drained(&mut self, data: &DataDir) {
        let stored = self.stored(data);
        self.check_acknowledged(&stored);
        self.check_gaps(&stored);
        self.check_counts(data, &stored, 0);
        self.acknowledged = stored;
    }

    /// Everything acknowledged is in the tables, once, whatever the counts say.
    pub(crate) fn check_stored(&mut self, data: &DataDir) {
        let stored = self.stored(data);
        self.check_acknowledged(&stored);
        self.check_gaps(&stored);
        self.acknowledged = stored;
    }

    /// As [`Model::check_drained`], where the collector had to drop some of what it received: nothing that was
    /// acknowledged, and all of it is counted.
    pub(crate) fn check_drained_after_drops(&mut self, data: &DataDir) {
        let stored = self.stored(data);
        self.check_acknowledged(&stored);
        let missing = self.sent() - stored.len() as u64;
        self.check_counts(data, &stored, missing);
        self.acknowledged = stored;
    }

    /// Everything sent so far is acknowledged, however the caller knows.
    pub(crate) fn acknowledge_all(&mut self) {
        for (lane, state) in self.lanes.iter().enumerate() {
            let sent = (0u32..).zip(&state.fates).filter(|(_, fate)| **fate == Fate::Sent);
            self.acknowledged.extend(sent.map(|(number, _)| (lane, number)));
        }
    }

    fn check_acknowledged(&self, present: &HashSet<Id>) {
        let mut gone: Vec<&Id> = self.acknowledged.difference(present).collect();
        gone.sort_unstable();
        assert!(
            gone.is_empty(),
            "F1: {} acknowledged datagrams (lane, number) are gone: {:?} …",
            gone.len(),
            &gone[..gone.len().min(20)]
        );
    }

    fn check_gaps(&self, present: &HashSet<Id>) {
        for (lane, state) in self.lanes.iter().enumerate() {
            let mut gap: Option<(u32, bool)> = None;
            for (number, fate) in (0u32..).zip(&state.fates) {
                if present.contains(&(lane, number)) {
                    self.check_gap(lane, gap.take(), number);
                } else {
                    let (_, reaches_a_kill) = gap.get_or_insert((number, false));
                    *reaches_a_kill |= *fate == Fate::LostOnTheWay;
                }
            }
            self.check_gap(lane, gap, state.fates.len() as u32);
        }
    }

    fn check_gap(&self, lane: usize, gap: Option<(u32, bool)>, end: u32) {
        if let Some((start, reaches_a_kill)) = gap {
            assert!(
                reaches_a_kill,
                "F1: {} datagrams {start}..{end} are missing, though a collector was there before and after",
                self.lanes[lane].protocol
            );
        }
    }

    /// Every datagram in a sound block of the segments on disk.
    fn journalled(&self, data: &DataDir) -> (HashSet<Id>, Left) {
        let journal = Journal::open(&data.path()).expect("no process holds the journal");
        let mut found = HashSet::new();
        let mut left = Left::default();
        for segment in journal.segments().expect("the journal can be listed") {
            let content = read_segment(&segment.path, journal.id(), segment.number).expect("a segment can be read");
            assert_eq!(content.blocks_damaged, 0, "a kill damages no block: {segment:?}");
            left.segments += 1;
            left.torn_bytes += content.torn_bytes;
            for record in content.records() {
                if let Record::Datagram { datagram, .. } = record {
                    let id = self.by_payload.get(&hash_of(datagram.payload));
                    let id = *id.expect("the journal holds only what was sent");
                    assert!(found.insert(id), "F1: {id:?} is in the journal twice");
                }
            }
        }
        (found, left)
    }

    /// Every datagram in the tables, through the built binary: each whole and once.
    fn stored(&self, data: &DataDir) -> HashSet<Id> {
        let mut stored = HashSet::new();
        let sql = "SELECT observation_domain, src_port, dst_port, count(*) AS flows, sum(bytes) AS bytes, \
                   min(bytes) AS least, max(bytes) AS most FROM flows GROUP BY observation_domain, src_port, dst_port";
        for row in data.query_json(sql) {
            let column = |name: &str| {
                row[name]
                    .as_u64()
                    .unwrap_or_else(|| panic!("{name} is a number in {row}"))
            };
            let lane = usize::try_from(column("observation_domain")).expect("small") - 1;
            let number = u32::try_from(column("src_port") << 16 | column("dst_port")).expect("two ports");
            let is_known = self.lanes.get(lane).and_then(|lane| lane.fates.get(number as usize)) == Some(&Fate::Sent);
            assert!(
                is_known,
                "F1: lane {lane} never sent datagram {number} to anybody: {row}"
            );
            let expected = [
                u64::from(FLOWS),
                (0..FLOWS).map(|flow| bytes_of(number, flow)).sum(),
                bytes_of(number, 0),
                bytes_of(number, FLOWS - 1),
            ];
            let found = ["flows", "bytes", "least", "most"].map(column);
            assert_eq!(
                found, expected,
                "F1: datagram {number} of lane {lane} is stored whole and once"
            );
            stored.insert((lane, number));
        }
        stored
    }

    fn check_counts(&self, data: &DataDir, stored: &HashSet<Id>, dropped: u64) {
        let mut counts: BTreeMap<(u64, String), u64> = BTreeMap::new();
        let sql = "SELECT observation_domain, counter, sum(value) AS value FROM collection_5m \
                   GROUP BY observation_domain, counter";
        for row in data.query_json(sql) {
            let domain = row["observation_domain"].as_u64().expect("a number");
            let counter = row["counter"].as_str().expect("a name").to_owned();
            counts.insert((domain, counter), row["value"].as_u64().expect("a number"));
        }
        let total = |prefix: &str| -> u64 {
            let matching = counts.iter().filter(|((_, name), _)| name.starts_with(prefix));
            matching.map(|(_, value)| value).sum()
        };
        let exactly = |name: &str| -> u64 {
            let matching = counts.iter().filter(|((_, counter), _)| counter == name);
            matching.map(|(_, value)| value).sum()
        };
        let datagrams = stored.len() as u64;
        let rejected = exactly("datagrams_rejected.version");
        assert!(rejected <= self.junk, "only junk is rejected; {counts:?}");
        let received = datagrams + rejected;
        assert_eq!(
            exactly("datagrams"),
            received,
            "F2: received = stored + rejected; {counts:?}"
        );
        assert_eq!(total("datagrams_rejected"), rejected, "F2: rejected; {counts:?}");
        assert_eq!(
            exactly("datagrams_decoded"),
            datagrams,
            "F2: received = decoded; {counts:?}"
        );
        assert_eq!(
            exactly("flow_records"),
            datagrams * u64::from(FLOWS),
            "F2: records = rows"
        );
        for refused in ["records_rejected", "samples_rejected", "sets_"] {
            assert_eq!(
                total(refused),
                0,
                "F2: {refused}: nothing that is sent is wrong; {counts:?}"
            );
        }
        let dropped = dropped + self.junk - rejected;
        assert_eq!(total("dropped."), dropped, "F2: dropped = sent - received; {counts:?}");
        for (lane, state) in self.lanes.iter().enumerate() {
            let missing = (0..state.fates.len() as u32)
                .filter(|number| !stored.contains(&(lane, *number)))
                .count() as u64;
            let units = match state.protocol {
                SimProtocol::V5 | SimProtocol::Ipfix => u64::from(FLOWS),
                SimProtocol::V9 | SimProtocol::Sflow => 1,
            };
            let lost = counts.get(&(lane as u64 + 1, "sequence_lost".to_owned()));
            assert_eq!(
                lost.copied().unwrap_or(0),
                missing * units,
                "F2: what the sequence numbers of {} miss is what is missing; {counts:?}",
                state.protocol
            );
        }
    }
}

/// Waits until little waits in the sockets, so that the kernel drops nothing.
pub(crate) fn wait_for_room(to: Targets) {
    for port in [to.netflow.port(), to.sflow.port()] {
        wait_until("the collector to read what was sent", ROOM_LIMIT, || {
            UdpSocketState::here(port).queued_bytes <= QUEUED_BYTES_MAX
        });
    }
}

fn hash_of(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    hasher.finish()
}

/// Bytes of one flow: rising in its datagram.
fn bytes_of(number: u32, flow: u32) -> u64 {
    u64::from(600 + 50 * flow + number % 40)
}

fn flow_of(number: u32, flow: u32, at_ms: i64) -> Flow {
    Flow {
        start_at_ms: at_ms - 20,
        end_at_ms: at_ms - 10,
        src_addr: Address::from_v4([198, 51, 100, 1]),
        dst_addr: Address::from_v4([203, 0, 113, 1]),
        src_port: (number >> 16) as u16,
        dst_port: (number & 0xffff) as u16,
        ip_protocol: 17,
        bytes: bytes_of(number, flow),
        packets: 1,
        ..Flow::default()
    }
}
