//! Interfaces by SNMP, asked from a real agent (snmpd) on the router of the [`crate::support::lab`]: names, counters that equal the
//! kernel's, versions 2c and 3, and what becomes of a device that does not answer.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::support::ezscale::{DataDir, Ezscale, Start};
use crate::support::lab::{COLLECTOR, Lab, ROUTER_TO_COLLECTOR, SNIFFED};
use crate::support::snmpd::{AUTH_PASSWORD, COMMUNITY, PRIVACY_PASSWORD, Snmpd, USER};
use crate::support::wait::wait_for;

const SNMP_PORT: u16 = 161;
/// `observation_domain` of counters that were read by SNMP.
const SNMP_DOMAIN: u32 = u32::MAX;
const ANSWER_LIMIT: Duration = Duration::from_secs(90);

/// Exporters of which no flows come: only their agent is asked.
const BY_V3: &str = "192.0.2.3";
const WRONG_COMMUNITY: &str = "192.0.2.4";

fn config() -> String {
    let elsewhere = format!("address = '{ROUTER_TO_COLLECTOR}', interval_seconds = 10");
    format!(
        "[[exporter]]\naddress = '{ROUTER_TO_COLLECTOR}'\nname = 'router'\n\
         snmp = {{ community = '{COMMUNITY}', interval_seconds = 10 }}\n\
         [[exporter]]\naddress = '{BY_V3}'\n\
         snmp = {{ user = '{USER}', auth = 'sha256', auth_password = '{AUTH_PASSWORD}', privacy = 'aes128', \
         privacy_password = '{PRIVACY_PASSWORD}', {elsewhere} }}\n\
         [[exporter]]\naddress = '{WRONG_COMMUNITY}'\n\
         snmp = {{ community = 'not-the-secret', timeout_ms = 300, {elsewhere} }}\n"
    )
}

fn collector(lab: &Lab, data: &DataDir) -> Ezscale {
    let any_port = SocketAddr::new(COLLECTOR, 0).to_string();
    Start::new("collect").netflow(&any_port).inside(&lab.collector).on(data)
}

/// A file that the collector keeps for people, once it is there.
fn kept(data: &DataDir, name: &str) -> Option<Value> {
    let text = std::fs::read_to_string(data.path().join("collector").join(name)).ok()?;
    serde_json::from_str(&text).ok()
}

fn status_of(data: &DataDir, exporter: &str) -> Option<Value> {
    let statuses = kept(data, "snmp.json")?;
    let found = statuses
        .as_array()?
        .iter()
        .find(|status| status["exporter"] == exporter)?;
    Some(found.clone())
}

/// Names of an exporter's interfaces by index.
fn names_of(data: &DataDir, exporter: &str) -> Option<Vec<(u64, String)>> {
    let known = kept(data, "interfaces.json")?;
    let exporters = known["exporters"].as_array()?;
    let found = exporters.iter().find(|known| known["address"] == exporter)?;
    let interfaces = found["interfaces"].as_array()?.iter();
    Some(
        interfaces
            .map(|interface| {
                (
                    interface[0].as_u64().expect("an index"),
                    interface[1].as_str().expect("a name").to_owned(),
                )
            })
            .collect(),
    )
}

#[test]
fn names_and_counters_come_from_a_real_agent_and_a_silent_one_is_named() {
    let lab = Lab::new();
    let mut data = DataDir::new();
    data.set_config(&config());
    let _agent = Snmpd::start(
        &lab.router,
        SocketAddr::new(ROUTER_TO_COLLECTOR, SNMP_PORT),
        data.scratch(),
    );
    let before = lab.sniffed_counters();
    let collector = collector(&lab, &data);
    let router = ROUTER_TO_COLLECTOR.to_string();

    let names = wait_for("the router's interfaces to have names", ANSWER_LIMIT, || {
        names_of(&data, &router)
    });
    let by_v3 = wait_for("version 3 to answer the same", ANSWER_LIMIT, || names_of(&data, BY_V3));
    assert_eq!(names, by_v3);
    let sniffed = names.iter().find(|(_, name)| name == SNIFFED);
    let sniffed_index = sniffed.expect("the router's interface to the server is among them").0;

    lab.client
        .run(&["ping", "-q", "-c", "50", "-i", "0.01", "-s", "1000", "10.72.0.1"]);
    let after = lab.sniffed_counters();
    assert!(after.tx_bytes - before.tx_bytes > 50_000, "there was traffic");

    // The agent reads the kernel's counters at most some seconds later: then a row has exactly them.
    let sql = format!(
        "SELECT in_bytes, out_bytes, in_unicast_packets, speed_bps, status FROM counters \
         WHERE observation_domain = {SNMP_DOMAIN} AND if_index = {sniffed_index} AND out_bytes = {}",
        after.tx_bytes
    );
    let rows = wait_for("a row with the kernel's counters", ANSWER_LIMIT, || {
        let rows = data.query_json(&sql);
        (rows.len() >= 2).then_some(rows)
    });
    for row in &rows {
        assert_eq!(row["in_bytes"].as_u64(), Some(after.rx_bytes), "{row}");
        assert_eq!(row["in_unicast_packets"].as_u64(), Some(after.rx_packets), "{row}");
        assert_eq!(
            row["status"].as_u64(),
            Some(3),
            "{row}: administratively and operationally up"
        );
        assert!(row["speed_bps"].as_u64() > Some(0), "{row}");
    }

    let refused = wait_for("the wrong community to be told", ANSWER_LIMIT, || {
        status_of(&data, WRONG_COMMUNITY).filter(|status| status["failures"].as_u64() > Some(1))
    });
    let error = refused["error"].as_str().unwrap();
    assert!(error.contains("check address, community"), "{error}");
    assert!(!error.contains("not-the-secret") && !collector.stderr().contains("not-the-secret"));
    let good = status_of(&data, &router).unwrap();
    assert_eq!((good["failures"].as_u64(), good["error"].as_str()), (Some(0), Some("")));
    assert_eq!(good["interfaces"].as_u64(), Some(names.len() as u64));
    collector.terminate();

    let shown = data.run(&["config", "show"]);
    for secret in [COMMUNITY, AUTH_PASSWORD, PRIVACY_PASSWORD] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
