use std::path::Path;

use crate::auth::Role;
use crate::testing::{NOW_MS, TestPortal};

/// As the collector writes it.
fn write_status(dir: &Path) {
    let status = serde_json::json!({
        "written_at_ms": NOW_MS - 4_000,
        "sockets": [{
            "kind": "netflow", "address": "198.51.100.10:2055", "datagrams": 12_345, "bytes": 17_000_000,
            "kernel_dropped": 3, "queue_dropped": 0, "receive_buffer_bytes": 212_992,
        }],
        "exporters": [{
            "address": "192.0.2.1", "first_heard_ms": NOW_MS - 86_400_000, "last_heard_ms": NOW_MS - 30_000,
            "datagrams": 1_000, "datagram_bytes": 1_400_000, "flows": 24_000, "bytes_scaled": 5_000_000_000_u64,
            "protocol_versions": [10], "sampling_rate": 1000, "sequence_lost": 240,
            "domains": [
                {"observation_domain": 16, "protocol_version": 10, "sequence_lost": 1_240, "sampling_rate": 1000,
                 "port": 40_001, "clock_offset_ms": -2_700_000},
            ],
            "counters": {"datagrams_rejected.short": 7, "datagrams": 1_007},
            "interfaces": [
                {"if_index": 513, "in_flows": 20, "out_flows": 5, "last_seen_ms": NOW_MS - 30_000, "boundary": "external"},
                {"if_index": 7, "in_flows": 2_000, "out_flows": 0, "last_seen_ms": NOW_MS - 30_000, "boundary": "internal"},
            ],
        }],
    });
    let folder = dir.join("collector");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("status.json"), status.to_string()).unwrap();
}

#[tokio::test]
async fn an_exporter_is_shown_with_what_it_sends_and_what_is_missing() {
    let portal = TestPortal::with(write_status).await;
    portal.user("net", Role::Network, None).await;
    let mut browser = portal.signed_in("net").await;
    let page = browser.get("/exporters").await;
    assert_eq!(page.status, 200, "{}", page.body);
    for text in [
        "heard 30 s ago",
        "IPFIX",
        "1 in 1,000",
        "240 (0.99 %)",
        "datagrams rejected: short",
        "<td class=\"num ez-warn\">1,240</td>",
        "port 40001",
        "clock is off",
        "45 min behind",
        "[[exporter]]",
        "address = &#34;192.0.2.1&#34;",
        "198.51.100.10:2055",
        "flow-server 198.51.100.10 port 2055",
    ] {
        assert!(page.body.contains(text), "{text}");
    }
    assert!(!page.body.contains("No exporter was heard yet"));

    let list = browser.get("/exporters/list").await;
    assert!(list.body.trim_start().starts_with("<div id=\"exporters\""));
    assert!(list.body.contains("heard 30 s ago") && !list.body.contains("<html"));

    let json = browser.get("/api/v1/exporters").await.json();
    assert_eq!(json["presence"]["heard"], 1);
    assert_eq!(json["exporters"][0]["interfaces"][1]["if_index"], 7);
    assert_eq!(json["exporters"][0]["problems"][0]["what"], "not configured");
}

#[tokio::test]
async fn a_new_installation_is_told_how_to_begin() {
    let portal = TestPortal::new().await;
    portal.user("net", Role::Network, None).await;
    let page = portal.signed_in("net").await.get("/exporters").await;
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(page.body.contains("No exporter was heard yet"));
    assert!(page.body.contains("flow-server COLLECTOR-ADDRESS port 2055"));
    assert!(page.body.contains("collector COLLECTOR-ADDRESS udp-port 6343"));
}

#[tokio::test]
async fn a_status_that_cannot_be_read_is_an_error_and_not_an_empty_page() {
    let portal = TestPortal::with(|dir| {
        write_status(dir);
        std::fs::write(dir.join("collector").join("status.json"), "{").unwrap();
    })
    .await;
    portal.user("net", Role::Network, None).await;
    assert_eq!(portal.signed_in("net").await.get("/exporters").await.status, 500);
}
