//! What was sent is what is stored, to the byte: flows, bytes and packets of each protocol (F2), and the volume of the
//! usage windows (U2). Hostile datagrams are counted and harm nothing.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::Value;

use crate::support::ezscale::{DataDir, Ezscale, Start};
use crate::support::net::UdpSocketState;
use crate::support::wait::wait_until;

/// Flows of one run; in CI's debug build a million takes seconds.
const FLOWS: u64 = 1_000_000;
/// Slow enough that the kernel's socket buffer never overflows on a busy two-core machine.
const RATE: u64 = 50_000;

fn number(value: &Value, key: &str) -> u64 {
    value[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key} is a whole number in {value}"))
}

/// Sums of one counter over everything that arrived.
fn counted(data: &DataDir, pattern: &str) -> u64 {
    let sql = format!("SELECT sum(value) AS n FROM collection_5m WHERE counter LIKE '{pattern}'");
    data.query_numbers(&sql, ["n"])[0]
}

/// Waits until the collector has read every datagram.
fn wait_until_taken(address: SocketAddr) {
    wait_until(
        "the collector to have taken every datagram",
        Duration::from_secs(60),
        || UdpSocketState::here(address.port()).queued_bytes == 0,
    );
}

fn start(data: &DataDir, protocol: &str) -> (Ezscale, SocketAddr) {
    let start = Start::new("collect");
    let listen = "127.0.0.1:0";
    let start = if protocol == "sflow" {
        start.sflow(listen)
    } else {
        start.netflow(listen)
    };
    let collector = start.on(data);
    let address = *collector
        .netflow
        .first()
        .or(collector.sflow.first())
        .expect("one listener");
    (collector, address)
}

fn conserves(protocol: &str, flows: u64) {
    let mut data = DataDir::new();
    // The simulator's services live in these networks, so that its traffic is metered by address.
    data.set_config("own_networks = ['198.51.100.0/24', '2001:db8::/32']\n");
    let (collector, address) = start(&data, protocol);
    let sums = data.run_simulate(&[
        "--to",
        &address.to_string(),
        "--protocol",
        protocol,
        "--flows",
        &flows.to_string(),
        "--rate",
        &RATE.to_string(),
    ]);
    wait_until_taken(address);
    let dropped = UdpSocketState::here(address.port()).dropped;
    assert_eq!(
        dropped, 0,
        "{protocol}: datagrams lost in the kernel at {RATE} flows a second"
    );
    collector.terminate();

    let stored = data.query_numbers(
        "SELECT count(*) AS flows, sum(bytes) AS bytes, \
         sum(packets) AS packets, \
         sum(scaled(bytes, sampling_rate, sampling_divisor)) AS scaled FROM flows",
        ["flows", "bytes", "packets", "scaled"],
    );
    let sent = [
        number(&sums, "flows"),
        number(&sums, "bytes"),
        number(&sums, "packets"),
        number(&sums, "sampled_bytes"),
    ];
    assert_eq!(
        stored, sent,
        "flows, bytes, packets and scaled bytes stored = sent by {protocol}"
    );

    // F2: every datagram was decoded, none rejected or dropped.
    let datagrams = counted(&data, "datagrams");
    assert_eq!(datagrams, number(&sums, "datagrams"), "datagrams received = sent");
    assert_eq!(counted(&data, "datagrams_decoded"), datagrams);
    assert_eq!(counted(&data, "datagrams_rejected.%") + counted(&data, "dropped.%"), 0);
    assert_eq!(counted(&data, "flow_records"), sent[0]);

    // U2: usage of all services and of service 0 is the volume of the metered flows.
    let [metered] = data.query_numbers(
        "SELECT sum(scaled(bytes, sampling_rate, sampling_divisor)) AS n FROM flows WHERE metered > 0",
        ["n"],
    );
    let [usage] = data.query_numbers("SELECT sum(bytes_in + bytes_out) AS n FROM usage_5m", ["n"]);
    assert!(metered > 0, "the simulated traffic crosses the boundary");
    assert_eq!(usage, metered, "U2 for {protocol}");
    println!(
        "{protocol}: {} flows, {} datagrams, {} bytes stored = sent; usage {usage} = metered",
        sent[0], datagrams, sent[1]
    );
}

#[test]
fn netflow_v5_is_conserved() {
    conserves("v5", FLOWS);
}

#[test]
fn netflow_v9_is_conserved() {
    conserves("v9", FLOWS);
}

#[test]
fn ipfix_is_conserved() {
    conserves("ipfix", FLOWS);
}

#[test]
fn sflow_is_conserved() {
    conserves("sflow", FLOWS);
}

/// A small deterministic generator (SplitMix64): the same hostile datagrams in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// 10,000 truncated, mutated and hostile datagrams for each protocol, to the running collector: it lives, its memory stays
/// bounded, and each datagram is counted once.
#[test]
fn hostile_datagrams_are_counted_and_harmless() {
    const PER_PROTOCOL: usize = 10_000;
    let data = DataDir::new();
    let collector = Start::new("collect").netflow("127.0.0.1:0").on(&data);
    let target = collector.netflow[0];
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a loopback socket");
    let mut random = Random(7);
    let mut sent = 0u64;
    for header in [&[0u8, 5][..], &[0, 7], &[0, 9], &[0, 10], &[0, 0, 0, 5, 0, 0, 0, 1]] {
        for _ in 0..PER_PROTOCOL {
            let mut payload = header.to_vec();
            let length = random.below(1400);
            // Mostly small numbers: they look like lengths, counts and ids.
            payload.extend((0..length).map(|_| {
                if random.below(3) == 0 {
                    random.next() as u8
                } else {
                    random.below(4) as u8
                }
            }));
            if header == [0, 10] && random.below(2) == 0 && payload.len() >= 4 {
                let total = payload.len() as u16;
                payload[2..4].copy_from_slice(&total.to_be_bytes());
            }
            socket.send_to(&payload, target).expect("loopback accepts datagrams");
            sent += 1;
            if sent.is_multiple_of(500) {
                // The kernel's queue must not overflow.
                wait_until_taken(target);
            }
        }
    }
    let memory_kib = collector.peak_memory_kib();
    assert!(memory_kib < 1024 * 1024, "peak memory is bounded: {memory_kib} KiB");
    collector.terminate();
    let arrived = counted(&data, "datagrams");
    assert_eq!(arrived + counted(&data, "dropped.%"), sent, "every datagram is counted");
    assert_eq!(
        counted(&data, "datagrams_decoded") + counted(&data, "datagrams_rejected.%"),
        arrived,
        "F2"
    );
    println!("{sent} hostile datagrams, {arrived} read, peak memory {memory_kib} KiB");
}
