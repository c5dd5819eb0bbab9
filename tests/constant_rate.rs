//! One long flow at a constant rate, by real exporters with an active timeout: every 5-minute window within 2 % of what the
//! interface counted, read by SNMP from a real snmpd, and the 95th percentile too.
//!
//! By default the flow lasts [`SECONDS_DEFAULT`] seconds and the active timeout 10; for the whole case, 20 minutes with 60 s:
//!
//! ```text
//! EZSCALE_RATE_SECONDS=1200 cargo nextest run -p ezscale -E 'test(/^constant_rate::/)' --no-capture
//! ```
//!
//! What the interface counted up to an instant is read off the line between the two counter samples around it: the rate is
//! constant, so that is exact but for the granularity of packets.

#![allow(clippy::print_stdout, reason = "the measured differences are for people to read")]

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::exporters::{Exporter, Program, Protocol, Setup, Timeouts};
use crate::support::ezscale::{DataDir, Start};
use crate::support::lab::{COLLECTOR, Lab, NEIGHBOUR_V4, ROUTER_TO_COLLECTOR, SERVER_V4, SNIFFED};
use crate::support::snmpd::{COMMUNITY, Snmpd};
use crate::support::traffic::{self, Servers};
use crate::support::wait::wait_until;

const SECONDS_DEFAULT: u64 = 100;
/// From here on the active timeout is that of the case.
const SECONDS_WHOLE: u64 = 600;
const WINDOW_MS: i64 = 300_000;
/// Between two samples of the interface counters.
const COUNTER_SECONDS: u64 = 10;
const TOLERANCE: f64 = 0.02;
const BITRATE_MBIT: u64 = 8;
const ETHERNET_HEADER_BYTES: f64 = 14.0;
const MARKER_LIMIT: Duration = Duration::from_secs(120);
const RECEIVE_LIMIT: Duration = Duration::from_secs(30);

#[test]
fn softflowd_netflow_v9_keeps_each_window_within_two_percent_of_the_counter() {
    check(Program::Softflowd, Protocol::NetflowV9);
}

#[test]
fn pmacctd_ipfix_keeps_each_window_within_two_percent_of_the_counter() {
    check(Program::Pmacctd, Protocol::Ipfix);
}

/// What the interface had sent at an instant: layer 2 bytes and packets.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at_ms: i64,
    bytes: f64,
    packets: f64,
}

fn seconds() -> u64 {
    match std::env::var("EZSCALE_RATE_SECONDS") {
        Ok(text) => text.parse().expect("EZSCALE_RATE_SECONDS is a number"),
        Err(_) => SECONDS_DEFAULT,
    }
}

fn check(program: Program, protocol: Protocol) {
    let seconds = seconds();
    let active_timeout = if seconds >= SECONDS_WHOLE { 60 } else { 10 };
    let lab = Lab::new();
    let mut data = DataDir::new();
    data.set_config(&format!(
        "[[exporter]]\naddress = '{ROUTER_TO_COLLECTOR}'\ndefault_sampling_rate = 1\n\
         snmp = {{ community = '{COMMUNITY}', interval_seconds = {COUNTER_SECONDS} }}\n"
    ));
    let customer = data.add(
        &["customer", "add", "--name", "Example", "--email", "b@example.net"],
        "cus_",
    );
    let service = data.add(&["service", "add", "--name", "server", "--customer", &customer], "svc_");
    let prefix = format!("{SERVER_V4}/32");
    data.run(&[
        "service",
        "assign",
        &service,
        "--prefix",
        &prefix,
        "--from",
        "2020-01-01T00:00:00Z",
    ]);

    let _agent = Snmpd::start(&lab.router, SocketAddr::new(ROUTER_TO_COLLECTOR, 161), data.scratch());
    let any_port = SocketAddr::new(COLLECTOR, 0).to_string();
    let collector = Start::new("collect")
        .netflow(&any_port)
        .inside(&lab.collector)
        .on(&data);
    let address = collector.netflow[0];
    let servers = Servers::start(&lab, data.scratch());
    let exporter = Exporter::start(&Setup {
        program,
        protocol,
        namespace: &lab.router,
        interface: SNIFFED,
        agent: ROUTER_TO_COLLECTOR,
        collector: address,
        sampling_rate: 1,
        timeouts: Timeouts::Active(active_timeout),
        dir: data.scratch(),
    });
    let samples = || samples_of(&data, &lab);
    wait_until("counters before the traffic", MARKER_LIMIT, || samples().len() >= 2);

    let server = SERVER_V4.to_string();
    let (bitrate, duration) = (format!("{BITRATE_MBIT}M"), seconds.to_string());
    let flow = [
        "iperf3",
        "--client",
        server.as_str(),
        "--udp",
        "--length",
        "1200",
        "--bitrate",
        bitrate.as_str(),
        "--time",
        duration.as_str(),
    ];
    lab.client.run(&flow);

    let ended_with = samples().len();
    wait_until("counters after the traffic", MARKER_LIMIT, || {
        samples().len() >= ended_with + 2
    });
    wait_until("the exporter to have seen all of the traffic", MARKER_LIMIT, || {
        traffic::send_marker(&lab);
        exporter.has_seen(NEIGHBOUR_V4)
    });
    let samples = samples();
    exporter.stop();
    drop(servers);
    wait_until("the collector to have taken every datagram", RECEIVE_LIMIT, || {
        lab.collector.udp_socket(address.port()).queued_bytes == 0
    });
    collector.terminate();
    compare(
        &format!("{program:?} {protocol:?}"),
        &windows_of(&data),
        &samples,
        seconds,
    );
}

/// The counters of the sniffed interface as they were read by SNMP, in order of time.
fn samples_of(data: &DataDir, lab: &Lab) -> Vec<Sample> {
    let index = lab.router.run(&["cat", &format!("/sys/class/net/{SNIFFED}/ifindex")]);
    let rows = data.query_json(&format!(
        "SELECT CAST(received_at AS BIGINT) AS at_ms, out_bytes, out_unicast_packets AS packets FROM counters \
         WHERE if_index = {} ORDER BY received_at",
        index.trim()
    ));
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    rows.iter()
        .map(|row| Sample {
            at_ms: row["at_ms"].as_i64().expect("an instant"),
            bytes: number(&row["out_bytes"]),
            packets: number(&row["packets"]),
        })
        .collect()
}

/// Start of each window with what the service received in it.
fn windows_of(data: &DataDir) -> Vec<(i64, f64)> {
    let rows = data.query_json(
        "SELECT CAST(window_start AS BIGINT) AS start_ms, sum(bytes_in) AS bytes FROM usage_5m \
         WHERE service = 1 GROUP BY window_start ORDER BY window_start",
    );
    rows.iter()
        .map(|row| {
            (
                row["start_ms"].as_i64().expect("an instant"),
                row["bytes"].as_f64().expect("a number"),
            )
        })
        .collect()
}

/// Layer 3 bytes that the interface had sent up to an instant.
fn counted_until(samples: &[Sample], at_ms: i64) -> f64 {
    let layer3 = |sample: &Sample| sample.bytes - ETHERNET_HEADER_BYTES * sample.packets;
    let after = samples.partition_point(|sample| sample.at_ms < at_ms);
    match (after.checked_sub(1).map(|before| &samples[before]), samples.get(after)) {
        (Some(before), Some(after)) => {
            let share = (at_ms - before.at_ms) as f64 / (after.at_ms - before.at_ms) as f64;
            layer3(before) + share * (layer3(after) - layer3(before))
        }
        (Some(last), None) => layer3(last),
        (None, Some(first)) => layer3(first),
        (None, None) => 0.0,
    }
}

fn compare(who: &str, windows: &[(i64, f64)], samples: &[Sample], seconds: u64) {
    assert!(!windows.is_empty(), "{who}: there is usage");
    // Where the traffic begins or ends between two counter samples, what lies before and behind the border of a window is only
    // interpolated: at worst, in the middle of both, a quarter of their distance is on the wrong side. Half a second more is that of
    // the first and the last packet.
    let granularity = (COUNTER_SECONDS as f64 / 4.0 + 0.5) * (BITRATE_MBIT * 1_000_000 / 8) as f64;
    let mut pairs = Vec::new();
    for (start_ms, metered) in windows {
        let counted = counted_until(samples, start_ms + WINDOW_MS) - counted_until(samples, *start_ms);
        let difference = (metered - counted) / counted;
        println!(
            "{who}: window {start_ms}: metered {metered}, counter {counted:.0}, difference {:+.3} %",
            100.0 * difference
        );
        let is_whole = counted > 0.9 * (BITRATE_MBIT * 1_000_000 / 8 * 300) as f64;
        let allowed = TOLERANCE * counted + if is_whole { 0.0 } else { granularity };
        assert!(
            (metered - counted).abs() <= allowed,
            "{who}: window {start_ms}: {metered} against {counted:.0}"
        );
        pairs.push((*metered, counted));
    }
    let total: f64 = pairs.iter().map(|pair| pair.0).sum();
    let sent = (BITRATE_MBIT * 1_000_000 / 8 * seconds) as f64;
    assert!(total > 0.95 * sent, "{who}: {total} of {sent} bytes were metered");
    let percentile = |value: fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = pairs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[(0.95 * values.len() as f64).ceil() as usize - 1]
    };
    let (metered, counted) = (percentile(|pair| pair.0), percentile(|pair| pair.1));
    let difference = (metered - counted) / counted;
    println!(
        "{who}: 95th percentile {:+.3} % from the counter's, {} windows",
        100.0 * difference,
        pairs.len()
    );
    assert!(
        difference.abs() <= TOLERANCE + granularity / counted,
        "{who}: 95th percentile {difference}"
    );
}
