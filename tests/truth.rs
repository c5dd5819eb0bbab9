//! The truth check as its user sees it: a switch whose counters are known, replayed into a data directory whose
//! configuration has the wrong sampling rate, then the right one. The finding is told by the command, on the exporters
//! page and in `/metrics`; with the right rate there is none.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use collector::simulate::encode::{SimExporter, SimExporterConfig, SimProtocol};
use jiff::Timestamp;
use schemas::address::Address;
use serde_json::Value;
use tables::flow::Flow;

use crate::support::clock;
use crate::support::ezscale::{DataDir, Start};
use crate::support::pcap::PcapWriter;
use crate::support::wait::wait_for;

const SWITCH: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const COLLECTOR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SFLOW_PORT: u16 = 6343;
const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;
/// As the switch samples, and says.
const SAMPLING_RATE: u32 = 1_000;
/// A configured rate that is wrong.
const WRONG_RATE: u32 = 610;
const UPLINK: u32 = 17;
const SERVERS: u32 = 18;
const FINDING: &str = "metered 61 % of the counter on qfx3 ae0.0: sampling rate?";
const PASSWORD: &str = "correct horse battery";
/// For the job to judge the hour, with everything else the machine does.
const JUDGED_WITHIN: Duration = Duration::from_secs(60);

/// The start of the last hour that is due: over for a quarter of an hour.
fn last_hour_ms() -> i64 {
    let due_ms = clock::began_ms() - 15 * MINUTE_MS;
    due_ms.div_euclid(HOUR_MS) * HOUR_MS - HOUR_MS
}

/// An hour of one switch: a packet of 1,500 bytes sampled each second at the uplink, its counters every 30 seconds.
fn capture(path: &Path, hour_ms: i64) {
    let mut exporter = SimExporter::new(SimExporterConfig::new(
        Address::from_v4(SWITCH.octets()),
        0,
        SimProtocol::Sflow,
        SAMPLING_RATE,
        hour_ms - HOUR_MS,
    ));
    let mut writer = PcapWriter::create(path);
    let mut datagrams = Vec::new();
    for second in 0..3_600 {
        let at_ms = hour_ms + second * 1_000;
        let flow = Flow {
            in_if: UPLINK,
            out_if: SERVERS,
            direction: 0,
            src_addr: "203.0.113.9".parse().expect("an address"),
            dst_addr: "198.51.100.5".parse().expect("an address"),
            src_port: 443,
            dst_port: 40_000,
            ip_protocol: 6,
            bytes: 1_500,
            packets: 1,
            ..Flow::default()
        };
        exporter
            .encode(at_ms, &[flow], &mut datagrams)
            .expect("a packet that sFlow can express");
        let at = Timestamp::from_millisecond(at_ms).expect("a time of this century");
        for datagram in datagrams.drain(..) {
            let from = SocketAddrV4::new(SWITCH, 40_000);
            writer.udp(at, from, SocketAddrV4::new(COLLECTOR, SFLOW_PORT), &datagram);
        }
    }
    writer.finish();
}

/// The hour replayed under a configuration.
fn replayed(hour_ms: i64, rate: &str) -> (DataDir, PathBuf) {
    let mut data = DataDir::new();
    data.set_config(&format!(
        "own_networks = ['198.51.100.0/24']\n\
         [[exporter]]\naddress = '{SWITCH}'\nname = 'qfx3'\nmeter = 'boundary'\nexternal_interfaces = [{UPLINK}]\n\
         interface_names = {{ {UPLINK} = 'ae0.0' }}\n{rate}\n"
    ));
    let config = data.scratch().join("config.toml");
    let path = data.scratch().join("hour.pcap");
    capture(&path, hour_ms);
    data.run(&["init"]);
    data.run(&["replay", &text(&path), "--config", &text(&config)]);
    (data, config)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn check(data: &DataDir, config: &Path, hour_ms: i64, format: &str) -> String {
    let instant = |ms| Timestamp::from_millisecond(ms).expect("a time").to_string();
    let (from, to) = (instant(hour_ms), instant(hour_ms + HOUR_MS));
    let config = text(config);
    let arguments = ["check", "truth", "--from", &from, "--to", &to, "--format", format];
    data.run(&[&arguments[..], &["--config", &config]].concat())
}

#[test]
fn a_wrong_sampling_rate_is_found_by_command_page_and_metrics() {
    let hour_ms = last_hour_ms();
    let (data, config) = replayed(hour_ms, &format!("sampling_rate = {WRONG_RATE}"));

    // The job judges the hour by itself.
    let server = Start::new("serve").netflow("127.0.0.1:0").http("127.0.0.1:0").on(&data);
    let base = server.http.clone().expect("serve has a portal");
    let metrics = wait_for("the hour to be judged", JUDGED_WITHIN, || {
        let text = get(&format!("{base}/metrics"), "").1;
        text.contains("ezscale_truth_ratio").then_some(text)
    });
    let series: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("ezscale_truth"))
        .collect();
    let hour_line = format!("ezscale_truth_hour_timestamp_seconds {}", hour_ms / 1_000);
    assert_eq!(
        series,
        [
            "ezscale_truth_findings 1",
            &hour_line,
            "ezscale_truth_ratio{exporter=\"qfx3\",interface=\"ae0.0\",direction=\"in\"} 0.61",
        ]
    );

    let session = sign_in(&data, &base);
    for (path, expected) in [
        ("/exporters", FINDING),
        ("/exporters", "1 of 1 disagree"),
        ("/ops", "1 disagree"),
        ("/api/v1/exporters", FINDING),
    ] {
        let (status, body) = get(&format!("{base}{path}"), &session);
        assert_eq!(status, 200, "{path}: {body}");
        assert!(body.contains(expected), "{expected} on {path}:\n{body}");
    }
    server.terminate();

    let table = check(&data, &config, hour_ms, "table");
    assert!(table.contains(FINDING), "{table}");
    let rows: Vec<Value> = serde_json::from_str(&check(&data, &config, hour_ms, "json")).expect("rows");
    let of = |if_index: u32, direction: &str| {
        let found = rows
            .iter()
            .find(|row| row["if_index"] == if_index && row["direction"] == direction);
        found.unwrap_or_else(|| panic!("{if_index} {direction} in {rows:?}"))
    };
    let uplink = of(UPLINK, "in");
    assert_eq!(uplink["finding"], FINDING);
    // From the first counters to the last ones, 30 seconds before the hour's end.
    let frames = 3_570 * u64::from(SAMPLING_RATE);
    assert_eq!(uplink["counter_bytes"], frames * 1_518);
    assert_eq!(uplink["metered_bytes"], 3_570 * u64::from(WRONG_RATE) * 1_518);
    assert_eq!(
        (&uplink["ratio_ppm"], &uplink["samples"]),
        (&610_000.into(), &3_570.into())
    );
    assert_eq!(
        of(SERVERS, "out")["verdict"],
        "not_sampled",
        "nothing is observed where it leaves"
    );
    assert_eq!(rows.len(), 4, "every interface has a row for each direction");

    let usage = data.query_json("SELECT DISTINCT error_bound_ppm FROM usage_5m");
    assert_eq!(
        usage,
        [serde_json::json!({"error_bound_ppm": 113_161})],
        "196 % / √300 samples a window"
    );
}

#[test]
fn the_right_sampling_rate_is_no_finding() {
    let hour_ms = last_hour_ms();
    for rate in ["", &format!("sampling_rate = {SAMPLING_RATE}")] {
        let (data, config) = replayed(hour_ms, rate);
        let rows: Vec<Value> = serde_json::from_str(&check(&data, &config, hour_ms, "json")).expect("rows");
        let verdicts: Vec<&str> = rows.iter().filter_map(|row| row["verdict"].as_str()).collect();
        assert_eq!(
            verdicts,
            ["agrees", "no_counter", "no_counter", "not_sampled"],
            "{rows:?}"
        );
        assert_eq!(rows[0]["ratio_ppm"], 1_000_000);
        let table = check(&data, &config, hour_ms, "table");
        assert!(table.contains("no findings") && !table.contains('?'), "{table}");
    }
}

/// Status and body of a page.
fn get(url: &str, cookies: &str) -> (u16, String) {
    let mut answer = agent()
        .get(url)
        .header("cookie", cookies)
        .call()
        .unwrap_or_else(|error| panic!("{url} answers: {error}"));
    let body = answer.body_mut().read_to_string().expect("a text");
    (answer.status().as_u16(), body)
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .max_redirects(0)
        .http_status_as_error(false)
        .build();
    config.into()
}

fn cookies_of(answer: &ureq::http::Response<ureq::Body>) -> String {
    let cookies = answer.headers().get_all("set-cookie").iter();
    let pairs = cookies.filter_map(|cookie| cookie.to_str().ok()?.split(';').next());
    pairs.collect::<Vec<_>>().join("; ")
}

/// Adds a network engineer and answers the cookies of their session.
fn sign_in(data: &DataDir, base: &str) -> String {
    let email = "net@example.net";
    let mut add: Command = data.command(&["user", "add", "--email", email, "--name", "net", "--role", "network"]);
    let mut child = add
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("ezscale runs");
    let mut stdin = child.stdin.take().expect("standard input is piped");
    writeln!(stdin, "{PASSWORD}").expect("the password is read");
    drop(stdin);
    assert!(child.wait().expect("it ends").success(), "a user can be added");

    let url = format!("{base}/signin");
    let mut form = agent().get(&url).call().expect("the sign-in page");
    let cookies = cookies_of(&form);
    let page = form.body_mut().read_to_string().expect("a page");
    let token = page
        .split("name=\"csrf_token\" value=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap_or_else(|| panic!("a token in {page}"));
    let answer = agent()
        .post(&url)
        .header("cookie", &cookies)
        .send_form([("csrf_token", token), ("email", email), ("password", PASSWORD)])
        .expect("an answer");
    assert_eq!(answer.status(), 303, "signed in");
    cookies_of(&answer)
}
