//! A month that was billed under a wrong sampling rate, and flows of no known rate: `exporter correct` reads them anew, and
//! the next invoices carry exactly the difference.

use std::net::{Ipv4Addr, SocketAddrV4};

use jiff::{Timestamp, ToSpan as _};
use serde_json::Value;

use crate::support::ezscale::{DataDir, Start, cents};
use crate::support::pcap::PcapWriter;

const COLLECTOR: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 200), 2055);
/// Says one packet in 100, and sampled one in 1,000.
const WRONG: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Says no sampling rate.
const SILENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const REMOTE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const FROM: &str = "2026-01-01T00:00:00Z";
const TO: &str = "2026-02-01T00:00:00Z";

/// One flow of a minute that ended a second before `at` (Cisco's NetFlow export datagram format, version 5).
pub(crate) fn netflow_v5(at: Timestamp, sequence: u32, interval: u16, to: Ipv4Addr, bytes: u32) -> Vec<u8> {
    const UPTIME_MS: u32 = 3_600_000;
    let mut datagram = Vec::new();
    datagram.extend(5u16.to_be_bytes());
    datagram.extend(1u16.to_be_bytes());
    datagram.extend(UPTIME_MS.to_be_bytes());
    datagram.extend(
        u32::try_from(at.as_second())
            .expect("a time of this century")
            .to_be_bytes(),
    );
    datagram.extend(0u32.to_be_bytes());
    datagram.extend(sequence.to_be_bytes());
    datagram.extend(0u16.to_be_bytes());
    datagram.extend(interval.to_be_bytes());
    datagram.extend(REMOTE.octets());
    datagram.extend(to.octets());
    datagram.extend(Ipv4Addr::new(192, 0, 2, 254).octets());
    datagram.extend(1u16.to_be_bytes());
    datagram.extend(2u16.to_be_bytes());
    datagram.extend((bytes / 1_000).max(1).to_be_bytes());
    datagram.extend(bytes.to_be_bytes());
    datagram.extend((UPTIME_MS - 61_000).to_be_bytes());
    datagram.extend((UPTIME_MS - 1_000).to_be_bytes());
    datagram.extend(443u16.to_be_bytes());
    datagram.extend(50_000u16.to_be_bytes());
    datagram.extend([0, 0, 6, 0]);
    datagram.extend([0; 8]);
    datagram
}

/// What one exporter sends.
struct Sender {
    from: Ipv4Addr,
    interval: u16,
    sequence: u32,
}

impl Sender {
    fn new(from: Ipv4Addr, interval: u16) -> Sender {
        Sender {
            from,
            interval,
            sequence: 0,
        }
    }

    fn send(&mut self, writer: &mut PcapWriter, at: Timestamp, to: Ipv4Addr, bytes: u32) {
        let payload = netflow_v5(at, self.sequence, self.interval, to, bytes);
        writer.udp(at, SocketAddrV4::new(self.from, 40_000), COLLECTOR, &payload);
        self.sequence += 1;
    }
}

struct Subscriber {
    customer: String,
    address: Ipv4Addr,
}

/// A customer with one service that holds one address, on a plan whose base price is nothing.
fn subscriber(data: &DataDir, number: u8, plan: &[&str]) -> Subscriber {
    let (name, email) = (format!("customer {number}"), format!("c{number}@example.net"));
    let address = Ipv4Addr::new(198, 51, 100, number);
    let customer = data.add(
        &[
            "customer",
            "add",
            "--name",
            &name,
            "--email",
            &email,
            "--currency",
            "USD",
        ],
        "cus_",
    );
    let service = data.add(&["service", "add", "--name", "web", "--customer", &customer], "svc_");
    let prefix = format!("{address}/32");
    data.run(&[
        "service",
        "assign",
        &service,
        "--prefix",
        &prefix,
        "--from",
        "2025-12-01T00:00:00Z",
    ]);
    let add = [&["plan", "add", "--name", &name, "--price", "0"], plan].concat();
    let price = data.add(&add, "prc_");
    data.add(&["subscription", "add", &service, "--price", &price], "sub_");
    Subscriber { customer, address }
}

/// Totals of a customer's documents in minor units, oldest first.
fn totals(data: &DataDir, customer: &str) -> Vec<i64> {
    let printed = data.run(&["invoice", "list", "--customer", customer, "--format", "json"]);
    let listed: Value = serde_json::from_str(&printed).expect("an array of invoices");
    let invoices = listed.as_array().expect("an array").iter().rev();
    invoices.map(|invoice| cents(&invoice["total"])).collect()
}

/// Four customers and their January, charged on 1 February.
fn billed_january() -> (DataDir, [Subscriber; 4]) {
    let data = DataDir::new();
    let clock = ["--clock", FROM];
    let start = Start::new("serve").netflow("127.0.0.1:0").http("127.0.0.1:0");
    start.arguments(&clock).on(&data).terminate();
    data.set_issuer();
    let transfer = |included: &'static str, rate: &'static str| {
        let words = [
            "--model",
            "transfer",
            "--unit",
            "GB",
            "--included",
            included,
            "--usage-rate",
            rate,
        ];
        words.to_vec()
    };
    let within = subscriber(&data, 1, &transfer("100", "0.10"));
    let tiered = subscriber(&data, 2, &transfer("20", "graduated:100=0.20,*=0.10"));
    let peak = subscriber(
        &data,
        3,
        &["--model", "percentile", "--commit-mbps", "5", "--usage-rate", "2"],
    );
    let silent = subscriber(&data, 4, &transfer("10", "0.10"));

    let path = data.scratch().join("january.pcap");
    let mut writer = PcapWriter::create(&path);
    let (mut wrong, mut unknown) = (Sender::new(WRONG, 100), Sender::new(SILENT, 0));
    let first: Timestamp = FROM.parse().expect("an instant");
    for window in 0..31 * 288 {
        let at = first + (i64::from(window) * 300 + 200).seconds();
        // Two days of January, 576 of its 8,928 windows: more than 5 %.
        if window < 576 {
            wrong.send(&mut writer, at, peak.address, 3_750_000);
        }
        if window % 288 == 100 {
            wrong.send(&mut writer, at, within.address, 30_000_000);
            wrong.send(&mut writer, at, tiered.address, 10_000_000);
            unknown.send(&mut writer, at, silent.address, 2_000_000_000);
        }
    }
    writer.finish();
    data.run(&["replay", path.to_str().expect("a path in UTF-8")]);
    data.run(&["clock", "set", "2026-02-01T12:00:00Z"]);
    data.run(&["invoice", "close"]);
    (data, [within, tiered, peak, silent])
}

const AS_BILLED: [i64; 4] = [
    0,     // 31 × 3 GB of 100 that are included
    220,   // 31 GB − 20: 11 × 0.20
    1_000, // 10 Mbit/s − 5: 5 × 2.00
    0,     // no rate, no volume
];
const DIFFERENCE: [i64; 4] = [
    8_300,  // 930 GB − 100: 830 × 0.10
    3_680,  // 310 GB − 20: 100 × 0.20 + 190 × 0.10 = 39.00
    18_000, // 100 Mbit/s − 5: 95 × 2.00 = 190.00
    520,    // 62 GB − 10: 52 × 0.10
];

fn charged(data: &DataDir, subscribers: &[Subscriber; 4]) -> [i64; 4] {
    [0, 1, 2, 3].map(|index| totals(data, &subscribers[index].customer).iter().sum())
}

/// Flows that each correction changed, as `exporter corrections` lists them.
fn corrected_flows(data: &DataDir) -> Vec<u64> {
    let printed = data.run(&["exporter", "corrections", "--format", "json"]);
    let listed: Vec<Value> = serde_json::from_str(&printed).expect("an array of corrections");
    let flows = listed.iter().map(|row| row["flows_changed"].as_u64());
    flows.map(|flows| flows.expect("a number")).collect()
}

#[test]
fn a_month_billed_under_a_wrong_sampling_rate_is_corrected_to_the_cent() {
    let (data, subscribers) = billed_january();
    assert_eq!(charged(&data, &subscribers), AS_BILLED);

    let (wrong, silent) = (WRONG.to_string(), SILENT.to_string());
    let correct = |exporter: &str, rate: &str, more: &[&str]| {
        let words = [
            "exporter",
            "correct",
            exporter,
            "--from",
            FROM,
            "--to",
            TO,
            "--sampling-rate",
            rate,
        ];
        data.run(&[&words, more].concat())
    };
    let stored = "SELECT sum(bytes * sampling_rate) AS bytes, count(*) AS flows FROM flows";
    let before = data.query_json(stored);
    let rehearsed = correct(&wrong, "1000", &[]);
    assert!(rehearsed.contains("Nothing was written"), "{rehearsed}");
    assert!(rehearsed.contains("flows that change: 638 of 638"), "{rehearsed}");
    assert_eq!(data.query_json(stored), before, "a rehearsal writes nothing");

    let applied = correct(&wrong, "1000", &["--apply", "--reason", "the router was set to 1000"]);
    assert!(applied.contains("638 flows corrected"), "{applied}");
    let again = correct(&wrong, "1000", &["--apply", "--reason", "twice"]);
    assert!(again.contains("Nothing changes"), "{again}");
    let unknown = correct(&silent, "1", &["--apply", "--reason", "does not sample"]);
    assert!(
        unknown.contains("without a known sampling rate: 31 before, 0 now"),
        "{unknown}"
    );

    data.run(&["clock", "set", "2026-03-01T12:00:00Z"]);
    data.run(&["invoice", "close"]);
    let corrected = [0, 1, 2, 3].map(|index| AS_BILLED[index] + DIFFERENCE[index]);
    assert_eq!(charged(&data, &subscribers), corrected, "exactly the difference");
    data.run(&["clock", "set", "2026-04-01T12:00:00Z"]);
    data.run(&["invoice", "close"]);
    assert_eq!(charged(&data, &subscribers), corrected, "once");
    assert!(data.run(&["ledger", "check"]).contains("no violations"));

    let audited = data.run(&["audit", "list", "--action", "exporter.correct"]);
    assert!(
        audited.contains("cor_1") && audited.contains("cor_2") && !audited.contains("cor_3"),
        "{audited}"
    );
    let listed = data.run(&["exporter", "corrections"]);
    assert!(
        listed.contains("sampling rate 1000") && !listed.contains("pending"),
        "{listed}"
    );
    assert_eq!(corrected_flows(&data), [31, 638], "latest first");
}

/// F1: wherever the machine goes away, the correction is finished by whoever comes next, and is made once.
#[test]
fn a_correction_that_was_killed_is_finished_before_the_next_invoice() {
    for point in ["rewrite.written", "rewrite.committed:3"] {
        let (data, subscribers) = billed_january();
        let mut killed = data.command(&[
            "exporter",
            "correct",
            &WRONG.to_string(),
            "--from",
            FROM,
            "--to",
            TO,
            "--sampling-rate",
            "1000",
            "--apply",
            "--reason",
            "the router was set to 1000",
        ]);
        let output = killed.env("EZSCALE_FAULT", point).output().expect("the binary runs");
        assert!(!output.status.success(), "aborted at {point}");
        assert!(data.run(&["exporter", "corrections"]).contains("pending"));

        data.run(&["clock", "set", "2026-03-01T12:00:00Z"]);
        data.run(&["invoice", "close"]);
        let all: i64 = charged(&data, &subscribers).iter().take(3).sum();
        let right: i64 = AS_BILLED.iter().chain(&DIFFERENCE[..3]).sum();
        assert_eq!(all, right, "{point}");
        assert!(!data.run(&["exporter", "corrections"]).contains("pending"));
        assert_eq!(corrected_flows(&data), [638], "{point}: of both processes");
        let rows = data.query_json("SELECT count(*) AS flows FROM flows");
        assert_eq!(rows[0]["flows"], 638 + 31, "no flow is lost or doubled");
    }
}

#[test]
fn what_cannot_be_corrected_says_why() {
    let (data, _) = billed_january();
    let wrong = WRONG.to_string();
    let refused = |words: &[&str]| {
        let output = data
            .command(&[&["exporter", "correct"], words].concat())
            .output()
            .expect("the binary runs");
        assert!(!output.status.success(), "{words:?} is refused");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let range = ["--from", FROM, "--to", TO];
    for (words, said) in [
        ([&[wrong.as_str()][..], &range].concat(), "name at least one setting"),
        (
            [&["mx9"][..], &range, &["--sampling-rate", "10"]].concat(),
            "neither an address nor the name",
        ),
        (
            [&["192.0.2.77"][..], &range, &["--sampling-rate", "10"]].concat(),
            "no stored flow of 192.0.2.77",
        ),
        (
            [&[wrong.as_str(), "--from", TO, "--to", FROM, "--sampling-rate", "10"][..]].concat(),
            "must lie before",
        ),
        (
            [&[wrong.as_str()][..], &range, &["--active-timeout", "90000"]].concat(),
            "at most 86400 seconds",
        ),
        (
            [&[wrong.as_str()][..], &range, &["--sampling-rate", "0"]].concat(),
            "sampling",
        ),
        (
            [&[wrong.as_str()][..], &range, &["--sampling-rate", "10", "--apply"]].concat(),
            "--reason",
        ),
    ] {
        let error = refused(&words);
        assert!(error.contains(said), "{words:?}: {error}");
    }
    assert!(data.run(&["exporter", "corrections"]).is_empty(), "nothing was kept");
}
