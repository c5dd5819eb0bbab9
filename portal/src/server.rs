//! The HTTP server: the routes of the table of endpoints behind their limits.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

use crate::auth::prepare_passwords;
use crate::client::Front;
use crate::endpoints::Queue;
use crate::error::{ApiError, Failure, PageError};
use crate::hooks::MAX_BODY_BYTES as MAX_HOOK_BYTES;
use crate::state::AppState;
use crate::{admission, body, client, endpoints, http_metrics, links, listen, security};

/// Largest request body.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// A request that takes longer, from its header on, is given up with 503.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers requests on `listener` until `shutdown` completes; open requests are finished first, within a limit.
pub async fn serve(listener: tokio::net::TcpListener, state: AppState, shutdown: impl Future<Output = ()>) {
    let connections = Arc::clone(state.connections());
    let router = router(state.clone());
    listen::run(listener, router, connections, &state.http().proxies, shutdown).await;
}

/// All routes, with their limits and headers. What is added last stands first before the handler's.
pub fn router(state: AppState) -> Router {
    prepare_passwords();
    let front = Arc::new(Front {
        proxies: state.http().proxies.clone(),
        portal_url: state.portal_url().to_owned(),
    });
    let (gates, counted) = (state.gates(), Arc::clone(state.http_metrics()));
    let timeout = || TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, REQUEST_TIMEOUT);
    let pages = endpoints::routes(Queue::Requests, &state)
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(gates.requests(), admission::limit))
        .layer(middleware::from_fn(body::read_whole::<MAX_BODY_BYTES>))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(timeout());
    let hooks = endpoints::routes(Queue::Hooks, &state)
        .layer(middleware::from_fn_with_state(gates.hooks(), admission::limit))
        .layer(middleware::from_fn(body::read_whole::<MAX_HOOK_BYTES>))
        .layer(DefaultBodyLimit::max(MAX_HOOK_BYTES))
        .layer(timeout());
    // Health must answer when everything else is at its limit.
    pages
        .merge(hooks)
        .merge(endpoints::routes(Queue::None, &state).layer(timeout()))
        .layer(middleware::from_fn_with_state(front, client::identify))
        .layer(middleware::from_fn_with_state(counted, http_metrics::measure))
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn_with_state(state.clone(), security::headers))
        .layer(CatchPanicLayer::new())
        // What fails is logged where it fails, and counted; a refusal is no failure.
        .layer(TraceLayer::new_for_http().make_span_with(request_span).on_failure(()))
        .with_state(state)
}

/// A request in the log: by its route, because an address may hold a token.
fn request_span(request: &Request) -> tracing::Span {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("no route", MatchedPath::as_str);
    tracing::debug_span!("request", method = %request.method(), route)
}

async fn not_found(request: Request) -> Response {
    if links::is_api(request.uri().path()) {
        ApiError(Failure::NotFound).into_response()
    } else {
        PageError(Failure::NotFound).into_response()
    }
}
