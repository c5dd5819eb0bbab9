//! Nothing appears and nothing vanishes: what `ezscale simulate` says it sent is what `ezscale query` finds.
//!
//! A million flows per protocol over UDP on the loopback, at a rate that two cores take without loss, then SIGTERM: all of
//! it must be in Parquet, exactly.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use support::ezscale::{self, DataDir, Ezscale, Start};
use support::net::UdpSocketState;
use support::wait::wait_until;

const FLOWS: u64 = 1_000_000;
const FLOWS_PER_SECOND: u64 = 50_000;
const EXPORTERS: u64 = 4;
const RECEIVE_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_million_netflow_v5_flows_are_stored_as_sent() {
    check("v5", |collector| collector.netflow[0]);
}

#[test]
fn a_million_netflow_v9_flows_are_stored_as_sent() {
    check("v9", |collector| collector.netflow[0]);
}

#[test]
fn a_million_ipfix_flows_are_stored_as_sent() {
    check("ipfix", |collector| collector.netflow[0]);
}

#[test]
fn a_million_sflow_samples_are_stored_as_sent() {
    check("sflow", |collector| collector.sflow[0]);
}

fn check(protocol: &str, address: impl Fn(&Ezscale) -> SocketAddr) {
    let data = DataDir::new();
    let collector = Start::new("collect")
        .netflow("127.0.0.1:0")
        .sflow("127.0.0.1:0")
        .on(&data);
    let address = address(&collector);

    let report = ezscale::run(&[
        "simulate",
        "--to",
        &address.to_string(),
        "--protocol",
        protocol,
        "--flows",
        &FLOWS.to_string(),
        "--rate",
        &FLOWS_PER_SECOND.to_string(),
        "--exporters",
        &EXPORTERS.to_string(),
        "--seed",
        "1",
        "--format",
        "json",
    ]);
    let sent: Value = serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error} in the report {report:?}"));
    let sent = ["flows", "bytes", "packets"].map(|sum| {
        sent[sum]
            .as_u64()
            .unwrap_or_else(|| panic!("{sum} is a whole number in {sent}"))
    });

    wait_until("the collector to have taken every datagram", RECEIVE_LIMIT, || {
        UdpSocketState::here(address.port()).queued_bytes == 0
    });
    let dropped = UdpSocketState::here(address.port()).dropped;
    assert_eq!(
        dropped, 0,
        "{protocol}: datagrams lost in the kernel at {FLOWS_PER_SECOND} flows a second"
    );
    collector.terminate();

    assert!(sent[0] >= FLOWS, "{protocol}: simulate sent {} flows", sent[0]);
    let stored = data.query_numbers(
        "SELECT count(*) AS flows, sum(bytes) AS bytes, sum(packets) AS packets FROM flows",
        ["flows", "bytes", "packets"],
    );
    assert_eq!(stored, sent, "{protocol}: flows, bytes and packets, stored and sent");
}
