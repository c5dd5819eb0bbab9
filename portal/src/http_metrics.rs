//! Requests answered, by method, route and status: counted here, read by [`crate::metrics`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

/// Method, route and status of a request: all from small closed sets, so that the map is bounded.
type Key = (&'static str, String, u16);

#[derive(Clone, Copy, Debug, Default)]
struct RequestTotals {
    count: u64,
    time: Duration,
}

/// Requests answered since the start.
#[derive(Debug, Default)]
pub(crate) struct HttpMetrics {
    answered: Mutex<BTreeMap<Key, RequestTotals>>,
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

    /// In the Prometheus text format.
    pub(crate) fn text(&self) -> String {
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
pub(crate) async fn measure(State(metrics): State<Arc<HttpMetrics>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method_name(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let response = next.run(request).await;
    let key = (method, route, response.status().as_u16());
    metrics.record(key, started.elapsed());
    response
}
