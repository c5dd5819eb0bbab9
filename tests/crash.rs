//! F1 across kill -9: nothing that reached the journal is missing or doubled.
//!
//! A collector is killed again and again while numbered flows arrive, with segments short enough that the kills meet
//! every stage of their way from journal to Parquet. Each flow carries its number as its source address, so that what is
//! missing or doubled has a name.
//!
//! ```text
//! round 0        kill   round 1        kill   …   last round    SIGTERM
//! 0 1 2 … 11 12 |✗      13 14 … 25 26 |✗          … 51 52 53 ─┘
//!          ╰────╯ in flight: may be missing, must not be doubled
//! ```

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::clock;
use crate::support::ezscale::{DataDir, Start};
use crate::support::net::UdpSocketState;
use crate::support::wait::{wait_for, wait_until};

const ROUNDS: u32 = 4;
const DATAGRAMS_PER_ROUND: u32 = 500;
/// 500 datagrams take 2.5 s: segments of one second open and close within a round.
const DATAGRAM_INTERVAL: Duration = Duration::from_millis(5);
/// Of both protocols: the most that v5 has room for.
const FLOWS_PER_DATAGRAM: u32 = 30;
/// The journal is synced every 200 ms; what came this long before a kill has reached it, on a slow machine too.
const IN_FLIGHT: Duration = Duration::from_millis(1_000);
const RECEIVE_LIMIT: Duration = Duration::from_secs(30);

#[test]
fn netflow_v5_survives_kill_9() {
    check(netflow_v5);
}

/// Its template is sent once a round, in the first datagram: later segments decode by what was kept of it.
#[test]
fn netflow_v9_survives_kill_9() {
    check(netflow_v9);
}

/// Makes the datagram with the flows `first..first + FLOWS_PER_DATAGRAM`; `index` counts datagrams within the round.
type Encode = fn(first: u32, index: u32) -> Vec<u8>;

/// A flow that was sent, and what is required of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    MustBeStored,
    InFlightAtTheKill,
}

fn check(encode: Encode) {
    let mut data = DataDir::new();
    data.set_config("[collector]\nsegment_seconds = 1\n");
    let mut fates = Vec::new();
    for round in 0..ROUNDS {
        let collector = Start::new("collect").netflow("127.0.0.1:0").on(&data);
        let address = collector.netflow[0];
        let sent_at = send_round(address, encode, u32::try_from(fates.len()).expect("few flows"));
        let last_round = round + 1 == ROUNDS;
        if last_round {
            wait_until("the collector to have taken every datagram", RECEIVE_LIMIT, || {
                UdpSocketState::here(address.port()).queued_bytes == 0
            });
            collector.terminate();
        } else {
            collector.kill9();
        }
        let killed_at = Instant::now();
        for sent in sent_at {
            let journaled = last_round || killed_at.duration_since(sent) > IN_FLIGHT;
            let fate = if journaled {
                Fate::MustBeStored
            } else {
                Fate::InFlightAtTheKill
            };
            fates.extend(std::iter::repeat_n(fate, FLOWS_PER_DATAGRAM as usize));
        }
    }
    compare(&data, &fates);
}

/// Sends a round at an even pace; returns when each datagram went out.
fn send_round(to: SocketAddr, encode: Encode, first_flow: u32) -> Vec<Instant> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port on the loopback");
    let started = Instant::now();
    let mut sent_at = Vec::new();
    for index in 0..DATAGRAMS_PER_ROUND {
        let due = started + DATAGRAM_INTERVAL * index;
        while let Some(wait) = due
            .checked_duration_since(Instant::now())
            .filter(|wait| !wait.is_zero())
        {
            std::thread::park_timeout(wait);
        }
        let datagram = encode(first_flow + index * FLOWS_PER_DATAGRAM, index);
        socket.send_to(&datagram, to).expect("the loopback takes a datagram");
        sent_at.push(Instant::now());
    }
    sent_at
}

/// Every flow is stored at most once, and those that must be are.
fn compare(data: &DataDir, fates: &[Fate]) {
    let mut copies: BTreeMap<u32, u64> = BTreeMap::new();
    for row in data.query_json("SELECT src_addr, bytes, count(*) AS copies FROM flows GROUP BY src_addr, bytes") {
        let address: Ipv4Addr = row["src_addr"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .expect("an IPv4 address");
        let flow = number_of(address);
        assert_eq!(
            row["bytes"].as_u64(),
            Some(u64::from(octets(flow))),
            "flow {flow} is stored as sent"
        );
        copies.insert(flow, row["copies"].as_u64().expect("a count is a whole number"));
    }
    let unknown: Vec<u32> = copies
        .keys()
        .copied()
        .filter(|flow| *flow as usize >= fates.len())
        .collect();
    assert!(unknown.is_empty(), "flows that nobody sent: {unknown:?}");
    let doubled: Vec<_> = copies.iter().filter(|(_, copies)| **copies > 1).take(20).collect();
    assert!(
        doubled.is_empty(),
        "flows stored more than once, with their copies: {doubled:?} …"
    );
    let required = (0u32..)
        .zip(fates)
        .filter(|(_, fate)| **fate == Fate::MustBeStored)
        .map(|(flow, _)| flow);
    let missing: Vec<u32> = required.filter(|flow| !copies.contains_key(flow)).collect();
    assert!(
        missing.is_empty(),
        "{} flows that had reached the journal are missing, first {:?}, last {:?}",
        missing.len(),
        missing.first(),
        missing.last()
    );
}

/// The source address that carries a flow's number: 10.0.0.0 and up.
fn address_of(flow: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + flow)
}

fn number_of(address: Ipv4Addr) -> u32 {
    address.to_bits() - Ipv4Addr::new(10, 0, 0, 0).to_bits()
}

/// A size of its own for each flow, nearly.
fn octets(flow: u32) -> u32 {
    1_000 + flow % 9_973
}

fn unix_seconds() -> u32 {
    u32::try_from(clock::running().as_second()).expect("a time of this century")
}

/// Uptime of the pretended exporter in milliseconds; its flows ended just now.
const UPTIME_MS: u32 = 3_600_000;

/// Header of 24 bytes, records of 48 (Cisco's NetFlow export datagram format, version 5).
fn netflow_v5(first: u32, _index: u32) -> Vec<u8> {
    let mut datagram = Vec::new();
    put16(&mut datagram, &[5, u16::try_from(FLOWS_PER_DATAGRAM).expect("30")]);
    put32(&mut datagram, &[UPTIME_MS, unix_seconds(), 0, first]);
    put16(&mut datagram, &[0, 1]); // engine; sampling mode none, one in one
    for flow in first..first + FLOWS_PER_DATAGRAM {
        put32(
            &mut datagram,
            &[address_of(flow).to_bits(), Ipv4Addr::new(192, 0, 2, 7).to_bits(), 0],
        );
        put16(&mut datagram, &[1, 2]); // interfaces
        put32(&mut datagram, &[1, octets(flow), UPTIME_MS - 1, UPTIME_MS]);
        put16(&mut datagram, &[443, 50_000]);
        datagram.extend([0, 0, 6, 0]); // padding, TCP flags, TCP, type of service
        put16(&mut datagram, &[0, 0, 0, 0]); // autonomous systems, masks, padding
    }
    datagram
}

/// Template 256 in the round's first datagram: source and destination address, octets, packets (RFC 3954 §5).
fn netflow_v9(first: u32, index: u32) -> Vec<u8> {
    let with_template = index == 0;
    let records = u16::try_from(FLOWS_PER_DATAGRAM).expect("30");
    let mut datagram = Vec::new();
    put16(&mut datagram, &[9, records + u16::from(with_template)]);
    put32(&mut datagram, &[UPTIME_MS, unix_seconds(), index, 0]);
    if with_template {
        put16(&mut datagram, &[0, 24, 256, 4, 8, 4, 12, 4, 1, 4, 2, 4]);
    }
    put16(&mut datagram, &[256, 4 + 16 * records]);
    for flow in first..first + FLOWS_PER_DATAGRAM {
        let destination = Ipv4Addr::new(192, 0, 2, 7).to_bits();
        put32(
            &mut datagram,
            &[address_of(flow).to_bits(), destination, octets(flow), 1],
        );
    }
    datagram
}

fn put16(datagram: &mut Vec<u8>, values: &[u16]) {
    datagram.extend(values.iter().flat_map(|value| value.to_be_bytes()));
}

fn put32(datagram: &mut Vec<u8>, values: &[u32]) {
    datagram.extend(values.iter().flat_map(|value| value.to_be_bytes()));
}

/// Killed while an exporter keeps sending at speed: what was lost between the kills is what its sequence numbers miss, so
/// stored + lost is what was sent.
#[test]
fn kills_in_the_middle_of_a_simulate_run_are_accounted_for() {
    const FLOWS: u64 = 500_000;
    let data = DataDir::new();
    let mut collector = Start::new("collect").netflow("127.0.0.1:0").on(&data);
    let address = collector.netflow[0];
    let mut simulator = Command::new(env!("CARGO_BIN_EXE_ezscale"))
        .args(["simulate", "--to", &address.to_string(), "--protocol", "ipfix"])
        .args(["--flows", &FLOWS.to_string(), "--rate", "40000", "--exporters", "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    for _ in 0..3 {
        let grown = data.journal_bytes() + 2_000_000;
        wait_until("the journal to grow", RECEIVE_LIMIT, || data.journal_bytes() > grown);
        collector.kill9();
        collector = Start::new("collect").netflow(&address.to_string()).on(&data);
    }
    let ended = wait_for("the simulator to end", Duration::from_secs(60), || {
        simulator.try_wait().expect("it can be waited for")
    });
    assert!(ended.success());
    wait_until("the collector to have taken every datagram", RECEIVE_LIMIT, || {
        UdpSocketState::here(address.port()).queued_bytes == 0
    });
    collector.terminate();

    let counter = |name: &str| {
        let sql = format!("SELECT sum(value) AS n FROM collection_5m WHERE counter = '{name}'");
        data.query_numbers(&sql, ["n"])[0]
    };
    let [stored] = data.query_numbers("SELECT count(*) AS n FROM flows", ["n"]);
    let lost = counter("sequence_lost");
    println!("{FLOWS} sent, {stored} stored, {lost} lost between the kills by sequence number");
    assert_eq!(counter("flow_records"), stored, "rows = records counted");
    // Options records are in the sequence too: a few of the lost may have been such.
    let accounted = stored + lost;
    assert!(
        (FLOWS..FLOWS + 100).contains(&accounted),
        "stored {stored} + lost {lost} = sent {FLOWS}"
    );
    assert!(lost < FLOWS / 2, "the collector was mostly up");
}
