//! `/metrics` in the Prometheus text format (version 0.0.4): requests answered, and the collector's counters.
//!
//! It names exporters, so it is for those who run the network: a scraper on this machine that did not come through a proxy,
//! or a signed-in operator, network engineer or administrator.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts as _, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::auth::{ClientIp, Network};
use crate::state::AppState;

/// What proxies add: a request with one of these did not start on this machine.
const FORWARDED: [HeaderName; 2] = [header::FORWARDED, HeaderName::from_static("x-forwarded-for")];

/// Method, route and status of a request: all from small closed sets, so that the map is bounded.
type Key = (&'static str, String, u16);

#[derive(Clone, Copy, Debug, Default)]
struct Answered {
    count: u64,
    time: Duration,
}

/// Requests answered since the start.
#[derive(Debug, Default)]
pub(crate) struct HttpMetrics {
    answered: Mutex<BTreeMap<Key, Answered>>,
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "other",
    }
}

impl HttpMetrics {
    fn record(&self, key: Key, time: Duration) {
        let mut answered = self.answered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let entry = answered.entry(key).or_default();
        entry.count += 1;
        entry.time += time;
    }

    fn text(&self) -> String {
        let answered = self.answered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut text = String::from(
            "# HELP ezscale_http_requests_total requests answered\n# TYPE ezscale_http_requests_total counter\n",
        );
        let mut seconds = String::from(
            "# HELP ezscale_http_request_seconds_total time spent on them\n\
             # TYPE ezscale_http_request_seconds_total counter\n",
        );
        for ((method, route, status), answered) in answered.iter() {
            // Routes are our own literals: no character needs escaping. Writing to a String cannot fail.
            let labels = format!("{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}");
            let _ = writeln!(text, "ezscale_http_requests_total{labels} {}", answered.count);
            let _ = writeln!(
                seconds,
                "ezscale_http_request_seconds_total{labels} {}",
                answered.time.as_secs_f64()
            );
        }
        text + &seconds
    }
}

/// Counts a request once it is answered.
pub(crate) async fn measure(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method_name(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let response = next.run(request).await;
    let key = (method, route, response.status().as_u16());
    state.http_metrics().record(key, started.elapsed());
    response
}

/// Answers `/metrics`.
pub(crate) async fn show(
    State(state): State<AppState>,
    ClientIp(ip): ClientIp,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let is_local = ip.to_canonical().is_loopback() && !FORWARDED.iter().any(|name| headers.contains_key(name));
    if !is_local {
        let (mut parts, _) = request.into_parts();
        if Network::from_request_parts(&mut parts, &state).await.is_err() {
            return (StatusCode::FORBIDDEN, "only from this machine, or signed in as staff\n").into_response();
        }
    }
    let mut text = state.http_metrics().text();
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
