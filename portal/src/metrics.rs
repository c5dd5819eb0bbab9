//! `/metrics` in the Prometheus text format (version 0.0.4): requests answered, and the collector's counters.
//!
//! It names exporters, so it is for those who run the network: a scraper whose address or token the configuration lets in
//! ([`MetricsAccess`]), or a signed-in operator, network engineer or administrator.

use std::collections::HashSet;
use std::fmt::Write as _;

use activity::event::Lag;
use activity::job::JobState;
use analytics::counter_reconciliation::CounterReconciliationRow;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemas::metering::MeteringConfig;
use schemas::names::Names;

use crate::auth::{Network, Principal, same};
use crate::client::{Client, is_in};
use crate::state::{AppState, MetricsAccess};

/// Whether a scraper may read without signing in.
fn lets_in(access: &MetricsAccess, client: Client, headers: &HeaderMap) -> bool {
    // A proxy on this machine is this machine, and may speak for anybody.
    let is_local = client.ip.is_loopback();
    let may_be_somebody_else = is_local && client.came_through_proxy;
    let is_listed = is_in(&access.allow, client.ip) || (access.allow_local && is_local);
    if is_listed && !may_be_somebody_else {
        return true;
    }
    let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = sent.and_then(|sent| sent.strip_prefix("Bearer ")).unwrap_or_default();
    !access.token.is_empty() && same(token.trim(), &access.token)
}

/// Answers `/metrics`.
pub(crate) async fn show(State(state): State<AppState>, headers: HeaderMap, request: Request) -> Response {
    let client = Client::of(request.extensions());
    if !lets_in(&state.http().metrics, client, &headers) {
        let (mut parts, _) = request.into_parts();
        if Network::<Principal>::from_request_parts(&mut parts, &state)
            .await
            .is_err()
        {
            let text =
                "not for this address: see [portal] metrics_allow and metrics_token, or sign in as network staff\n";
            return (StatusCode::FORBIDDEN, text).into_response();
        }
    }
    let mut text = state.http_metrics().text();
    text.push_str(&limits_text(&state));
    text.push_str(&state.sign_in_counts().text());
    // A missing series is seen.
    if let Ok(stopped) = billing::guard::stopped(state.db().pool()).await {
        let _ = writeln!(
            text,
            "# HELP ezscale_billing_stopped 1 while billing is stopped, because the clock moved further than it can have\n\
             # TYPE ezscale_billing_stopped gauge\nezscale_billing_stopped {}",
            u8::from(stopped.is_some())
        );
    }
    text.push_str(&jobs_text(&state.jobs().jobs()));
    match activity::event::lags(state.db().pool(), &state.consumers()).await {
        Ok(lags) => text.push_str(&events_text(&lags, state.now_ms())),
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "how far events are handled cannot be read"
        ),
    }
    let _ = writeln!(
        text,
        "# HELP ezscale_database_connections_discarded_total connections closed because a transaction on them could not be ended\n\
         # TYPE ezscale_database_connections_discarded_total counter\nezscale_database_connections_discarded_total {}",
        state.db().discarded_connections()
    );
    let now_ms = state.now_ms();
    match state.flow_store().latest_counter_reconciliation(now_ms).await {
        Ok(rows) => text.push_str(&counter_reconciliation_text(&rows, &state.metering())),
        // The other metrics are worth more than an error: a missing series is seen.
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the counter reconciliation cannot be read"
        ),
    }
    match state.collector_metrics() {
        Some(collector) => text.push_str(&collector),
        None => text.push_str(&stored_totals(&state)),
    }
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response()
}

/// What the limits on connections and requests did.
fn limits_text(state: &AppState) -> String {
    let connections = state.connections();
    let mut text = format!(
        "# HELP ezscale_http_connections connections that are open\n\
         # TYPE ezscale_http_connections gauge\nezscale_http_connections {}\n\
         # HELP ezscale_http_connections_max connections that may be open\n\
         # TYPE ezscale_http_connections_max gauge\nezscale_http_connections_max {}\n\
         # HELP ezscale_http_connections_closed_total connections closed by us before their client was done, by cause\n\
         # TYPE ezscale_http_connections_closed_total counter\n\
         ezscale_http_connections_closed_total{{cause=\"refused\"}} {}\n",
        connections.open(),
        connections.max(),
        connections.refused()
    );
    // Writing to a String cannot fail.
    for (cause, count) in connections.given_up() {
        let _ = writeln!(
            text,
            "ezscale_http_connections_closed_total{{cause=\"{cause}\"}} {count}"
        );
    }
    text.push_str(
        "# HELP ezscale_http_refused_total requests answered with Retry-After, by the limit that was reached\n\
         # TYPE ezscale_http_refused_total counter\n",
    );
    let _ = writeln!(
        text,
        "ezscale_http_refused_total{{limit=\"password_links\"}} {}",
        state.links().dropped()
    );
    for (gate, count) in state
        .gates()
        .refused()
        .into_iter()
        .chain(state.password_lanes().refused())
    {
        let _ = writeln!(text, "ezscale_http_refused_total{{limit=\"{gate}\"}} {count}");
    }
    text
}

/// What runs by itself.
fn jobs_text(jobs: &[JobState]) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, value: fn(&JobState) -> Option<String>| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (job, value) in jobs.iter().filter_map(|job| Some((job, value(job)?))) {
            // Names of jobs are our own literals: no character needs escaping. Writing to a String cannot fail.
            let _ = writeln!(text, "{name}{{job=\"{}\"}} {value}", job.name);
        }
    };
    family("ezscale_job_runs_total", "counter", "runs of a background job", |job| {
        Some(job.runs.to_string())
    });
    family(
        "ezscale_job_failures_total",
        "counter",
        "runs of a background job that failed",
        |job| Some(job.failures.to_string()),
    );
    family(
        "ezscale_job_failures_in_a_row",
        "gauge",
        "runs of a background job that failed since its last success",
        |job| Some(job.failures_in_a_row.to_string()),
    );
    family(
        "ezscale_job_last_success_timestamp_seconds",
        "gauge",
        "when a background job last succeeded in this process",
        |job| Some((job.last_success_at_ms? / 1_000).to_string()),
    );
    family(
        "ezscale_job_last_duration_seconds",
        "gauge",
        "how long the last run of a background job took",
        |job| Some(job.last_duration?.as_secs_f64().to_string()),
    );
    family(
        "ezscale_job_running_seconds",
        "gauge",
        "for how long a background job has been running; 0 while it does not",
        |job| Some(job.running.unwrap_or_default().as_secs_f64().to_string()),
    );
    family(
        "ezscale_job_since_success_seconds",
        "gauge",
        "time since a background job last succeeded, had nothing to do by order, or since the start",
        |job| Some(job.since_success.as_secs().to_string()),
    );
    family(
        "ezscale_job_late",
        "gauge",
        "1 while a background job has not succeeded for longer than it may",
        |job| Some(u8::from(job.is_late).to_string()),
    );
    text
}

/// How far those who react to events are behind.
fn events_text(lags: &[Lag], now_ms: i64) -> String {
    let mut text = String::new();
    let mut family = |name: &str, help: &str, value: &dyn Fn(&Lag) -> i64| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for lag in lags {
            // Names of consumers are our own literals: no character needs escaping. Writing to a String cannot fail.
            let _ = writeln!(text, "{name}{{consumer=\"{}\"}} {}", lag.consumer, value(lag));
        }
    };
    family(
        "ezscale_event_consumer_waiting",
        "events that a consumer has not handled, those set aside among them",
        &|lag| lag.waiting,
    );
    family(
        "ezscale_event_consumer_set_aside",
        "events that a consumer could not handle and tries again",
        &|lag| lag.set_aside,
    );
    family(
        "ezscale_event_consumer_lag_seconds",
        "how long the oldest event has waited for a consumer",
        &|lag| {
            let oldest = lag
                .oldest
                .map(|(_, created_at_ms)| now_ms.saturating_sub(created_at_ms));
            oldest.unwrap_or(0).max(0) / 1_000
        },
    );
    text
}

/// The truth check of the last whole hour. Names that two interfaces share would make one series twice: the second one is
/// told by its numbers.
fn counter_reconciliation_text(rows: &[CounterReconciliationRow], metering: &MeteringConfig) -> String {
    let names = Names::new(metering);
    let findings = rows.iter().filter(|row| row.is_finding()).count();
    let mut text = format!(
        "# HELP ezscale_truth_findings interfaces whose counter disagrees with its flows in the last whole hour\n\
         # TYPE ezscale_truth_findings gauge\nezscale_truth_findings {findings}\n"
    );
    let Some(first) = rows.first() else { return text };
    let _ = writeln!(
        text,
        "# HELP ezscale_truth_hour_timestamp_seconds start of the hour that was checked\n\
         # TYPE ezscale_truth_hour_timestamp_seconds gauge\nezscale_truth_hour_timestamp_seconds {}\n\
         # HELP ezscale_truth_ratio bytes of flows, scaled and with layer-2 overhead, per byte of the interface's counter\n\
         # TYPE ezscale_truth_ratio gauge",
        first.hour_start_ms / 1000
    );
    let mut told = HashSet::new();
    for row in rows.iter().filter(|row| row.has_ratio()) {
        let mut labels = (
            names.exporter(row.exporter),
            names.interface(row.exporter, row.if_index),
            row.direction,
        );
        if !told.insert(labels.clone()) {
            labels = (
                row.exporter.to_string(),
                format!("interface {}", row.if_index),
                row.direction,
            );
            told.insert(labels.clone());
        }
        let (exporter, interface, direction) = labels;
        let _ = writeln!(
            text,
            "ezscale_truth_ratio{{exporter=\"{}\",interface=\"{}\",direction=\"{}\"}} {}",
            label_value(&exporter),
            label_value(&interface),
            direction.name(),
            f64::from(row.ratio_ppm) / 1e6
        );
    }
    text
}

/// As it may stand between quotes.
fn label_value(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The totals that a collector in another process left in its status file.
fn stored_totals(state: &AppState) -> String {
    let status = match collector::status::read(state.data_dir()) {
        Ok(Some(status)) => status,
        Ok(None) => return String::new(),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the collector's status cannot be read"
            );
            return String::new();
        }
    };
    let mut text = String::from(
        "# HELP ezscale_collector_events_total everything counted, by counter name\n\
         # TYPE ezscale_collector_events_total counter\n",
    );
    for (counter, value) in &status.totals {
        let _ = writeln!(text, "ezscale_collector_events_total{{counter=\"{counter}\"}} {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use analytics::counter_reconciliation::{Direction, Verdict};
    use schemas::metering::ExporterConfig;

    use super::*;

    #[test]
    fn a_job_is_a_series_of_each_metric_and_what_is_not_known_of_it_is_left_out() {
        let board = activity::job::JobBoard::default();
        board.add("close", Duration::from_secs(600));
        board.add("usage", Duration::from_secs(5));
        board.start("close");
        board.finish("close", true, 1_750_000_000_000);
        board.start("usage");
        let text = jobs_text(&board.jobs());
        for line in [
            "ezscale_job_runs_total{job=\"close\"} 1",
            "ezscale_job_failures_total{job=\"close\"} 0",
            "ezscale_job_failures_in_a_row{job=\"usage\"} 0",
            "ezscale_job_last_success_timestamp_seconds{job=\"close\"} 1750000000",
            "ezscale_job_running_seconds{job=\"close\"} 0",
            "ezscale_job_late{job=\"usage\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        assert!(
            text.contains("ezscale_job_last_duration_seconds{job=\"close\"}"),
            "{text}"
        );
        assert!(
            !text.contains("ezscale_job_last_success_timestamp_seconds{job=\"usage\"}"),
            "{text}"
        );
    }

    #[test]
    fn each_consumer_of_events_tells_how_far_it_is_behind() {
        let lag = |consumer, waiting, oldest| Lag {
            consumer,
            waiting,
            set_aside: 0,
            oldest,
        };
        let lags = [
            lag("dispatch_mail", 0, None),
            lag("dispatch_discord", 3, Some((schemas::ids::EventId(7), 1_000))),
        ];
        let text = events_text(&lags, 63_500);
        for line in [
            "ezscale_event_consumer_waiting{consumer=\"dispatch_mail\"} 0",
            "ezscale_event_consumer_waiting{consumer=\"dispatch_discord\"} 3",
            "ezscale_event_consumer_lag_seconds{consumer=\"dispatch_mail\"} 0",
            "ezscale_event_consumer_lag_seconds{consumer=\"dispatch_discord\"} 62",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in {text}");
        }
    }

    #[test]
    fn each_interface_is_one_series_whatever_it_is_called() {
        let exporter = "192.0.2.1".parse().unwrap();
        let row = |if_index, direction, verdict| CounterReconciliationRow {
            hour_start_ms: 7_200_000,
            exporter,
            if_index,
            direction,
            covered_ms: 3_600_000,
            counter_bytes: 100,
            metered_bytes: 61,
            bytes_scaled: 60,
            samples: 1,
            sampling_rate: 1,
            ratio_ppm: 610_000,
            bound_ppm: 0,
            verdict,
            guess: None,
        };
        let rows = [
            row(1, Direction::In, Verdict::Mismatch),
            row(1, Direction::Out, Verdict::NotSampled),
            row(2, Direction::In, Verdict::Agrees),
        ];
        let config = ExporterConfig {
            name: Some("mx \"1\"".to_owned()),
            interface_names: [(1, "ae0".to_owned()), (2, "ae0".to_owned())].into(),
            ..ExporterConfig::unlisted(exporter)
        };
        let metering = MeteringConfig {
            exporters: vec![config],
            ..MeteringConfig::default()
        };
        let text = counter_reconciliation_text(&rows, &metering);
        let series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            series,
            [
                "ezscale_truth_findings 1",
                "ezscale_truth_hour_timestamp_seconds 7200",
                r#"ezscale_truth_ratio{exporter="mx \"1\"",interface="ae0",direction="in"} 0.61"#,
                r#"ezscale_truth_ratio{exporter="192.0.2.1",interface="interface 2",direction="in"} 0.61"#,
            ]
        );
        assert!(counter_reconciliation_text(&[], &metering).ends_with("ezscale_truth_findings 0\n"));
    }
}
