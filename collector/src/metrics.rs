//! The collector in the Prometheus text format (version 0.0.4).

use std::fmt::Write as _;

use crate::pipeline::LiveCounts;
use crate::status::CollectorStatus;

/// Exporters that get series of their own, those with most flows first; the totals hold everything.
pub const EXPORTER_SERIES_MAX: usize = 500;

/// All metrics as text. Counters go on across restarts, except those of sockets.
pub fn prometheus(status: &CollectorStatus, live: &LiveCounts) -> String {
    let mut text = String::with_capacity(16 << 10);
    head(
        &mut text,
        "ezscale_collector_events_total",
        "counter",
        "everything counted, by counter name",
    );
    for (counter, value) in &status.totals {
        line(
            &mut text,
            "ezscale_collector_events_total",
            &[("counter", counter)],
            value,
        );
    }
    socket_metrics(&mut text, live);
    let gauges: [(&str, &str, u64); 9] = [
        (
            "ezscale_collector_queue_bytes",
            "received bytes that wait for the journal",
            live.queue_bytes as u64,
        ),
        (
            "ezscale_collector_queue_max_bytes",
            "limit of the queue",
            live.queue_max_bytes as u64,
        ),
        (
            "ezscale_collector_segments_waiting",
            "closed journal segments not stored yet",
            live.segments_waiting,
        ),
        (
            "ezscale_collector_journal_bytes",
            "size of those segments",
            live.journal_bytes,
        ),
        (
            "ezscale_collector_journal_stalled",
            "1 while the journal cannot be written",
            live.journal_stalled.into(),
        ),
        (
            "ezscale_collector_store_stalled",
            "1 while the tables cannot be written",
            live.store_stalled.into(),
        ),
        (
            "ezscale_collector_running",
            "1 while every thread is alive",
            live.running.into(),
        ),
        (
            "ezscale_collector_since_sync_seconds",
            "time since everything due was written and synced",
            live.since_synced.as_secs(),
        ),
        (
            "ezscale_collector_since_store_seconds",
            "time since the worker last stored a segment or found none waiting",
            live.since_stored.as_secs(),
        ),
    ];
    for (name, help, value) in gauges {
        head(&mut text, name, "gauge", help);
        line(&mut text, name, &[], value);
    }
    exporter_metrics(&mut text, status);
    text
}

fn socket_metrics(text: &mut String, live: &LiveCounts) {
    type Value = fn(&crate::status::SocketStatus) -> u64;
    let families: [(&str, &str, &str, Value); 5] = [
        ("ezscale_socket_datagrams_total", "counter", "datagrams received", |s| {
            s.datagrams
        }),
        ("ezscale_socket_bytes_total", "counter", "payload bytes received", |s| {
            s.bytes
        }),
        (
            "ezscale_socket_kernel_dropped_total",
            "counter",
            "datagrams the kernel dropped",
            |s| s.kernel_dropped,
        ),
        (
            "ezscale_socket_queue_dropped_total",
            "counter",
            "datagrams dropped at the full queue",
            |s| s.queue_dropped,
        ),
        (
            "ezscale_socket_receive_buffer_bytes",
            "gauge",
            "receive buffer granted",
            |s| s.receive_buffer_bytes as u64,
        ),
    ];
    for (name, kind, help, value) in families {
        head(text, name, kind, help);
        for socket in &live.sockets {
            let labels = [
                ("kind", socket.kind.to_string()),
                ("address", socket.address.to_string()),
            ];
            let labels = [(labels[0].0, labels[0].1.as_str()), (labels[1].0, labels[1].1.as_str())];
            line(text, name, &labels, value(socket));
        }
    }
}

fn exporter_metrics(text: &mut String, status: &CollectorStatus) {
    type Value = fn(&crate::status::ExporterStatus) -> u64;
    let families: [(&str, &str, &str, Value); 7] = [
        ("ezscale_exporter_datagrams_total", "counter", "datagrams", |e| {
            e.datagrams
        }),
        ("ezscale_exporter_flows_total", "counter", "flow records", |e| e.flows),
        (
            "ezscale_exporter_bytes_scaled_total",
            "counter",
            "layer-3 bytes after sampling",
            |e| e.bytes_scaled,
        ),
        (
            "ezscale_exporter_flows_without_rate_total",
            "counter",
            "flows of unknown sampling rate",
            |e| e.flows_without_rate,
        ),
        (
            "ezscale_exporter_sequence_lost_total",
            "counter",
            "records (v5, v7, IPFIX) or datagrams (v9, sFlow) lost between exporter and collector",
            |e| e.sequence_lost,
        ),
        (
            "ezscale_exporter_rejected_total",
            "counter",
            "datagrams, sets and records rejected",
            |e| e.rejected().map(|(_, value)| value).sum(),
        ),
        (
            "ezscale_exporter_last_heard_timestamp_seconds",
            "gauge",
            "last datagram",
            |e| (e.last_heard_ms / 1_000).max(0) as u64,
        ),
    ];
    let mut exporters: Vec<_> = status.exporters.iter().collect();
    exporters.sort_by_key(|exporter| std::cmp::Reverse(exporter.flows));
    exporters.truncate(EXPORTER_SERIES_MAX);
    for (name, kind, help, value) in families {
        head(text, name, kind, help);
        for exporter in &exporters {
            let address = exporter.address.to_string();
            let label = exporter.name.as_deref().unwrap_or(&address);
            line(text, name, &[("exporter", &address), ("name", label)], value(exporter));
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    text.push_str(name);
    for (i, (label, label_value)) in labels.iter().enumerate() {
        let open = if i == 0 { '{' } else { ',' };
        let escaped = label_value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let _ = write!(text, "{open}{label}=\"{escaped}\"");
    }
    if !labels.is_empty() {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::status::ExporterStatus;

    #[test]
    fn labels_are_escaped_and_every_family_has_a_head() {
        let mut status = CollectorStatus::default();
        status.exporters.push(ExporterStatus {
            name: Some("a \"b\"\\".to_owned()),
            flows: 7,
            ..ExporterStatus::new("192.0.2.1".parse().unwrap())
        });
        status.totals.insert("datagrams".to_owned(), 3);
        let live = LiveCounts {
            sockets: Vec::new(),
            queue_bytes: 1,
            queue_max_bytes: 512,
            segments_waiting: 2,
            journal_bytes: 9,
            journal_stalled: true,
            store_stalled: false,
            running: true,
            ended_threads: Vec::new(),
            since_synced: Duration::from_secs(1),
            since_stored: Duration::from_secs(2),
        };
        let text = prometheus(&status, &live);
        assert!(text.contains("ezscale_exporter_flows_total{exporter=\"192.0.2.1\",name=\"a \\\"b\\\"\\\\\"} 7\n"));
        assert!(text.contains("ezscale_collector_events_total{counter=\"datagrams\"} 3\n"));
        assert!(text.contains("ezscale_collector_journal_stalled 1\n"));
        for name in text
            .lines()
            .filter(|l| !l.starts_with('#'))
            .map(|l| l.split(['{', ' ']).next().unwrap())
        {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
    }
}
