//! The HTTP server: routes, limits, security headers, health and metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

use crate::auth::SignedIn;
use crate::error::{ApiError, Failure, PageError};
use crate::hooks::MAX_BODY_BYTES as MAX_HOOK_BYTES;
use crate::state::AppState;
use crate::{admission, api, assets, body, client, endpoints, health, listen, metrics, pages, shell};

/// Largest request body.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// A request that takes longer, from its header on, is given up with 503.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Nothing inline, nothing from elsewhere. Images may be `data:` because the stylesheet draws its form controls so.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     font-src 'self'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'";

/// The policy of a page with a form whose answer leads to another site: browsers hold redirects to it as well. The page sets
/// it itself, as any header that it wants otherwise than all.
pub(crate) fn policy_with_form_targets(origins: &[String]) -> Option<HeaderValue> {
    let mut policy = CONTENT_SECURITY_POLICY.to_owned();
    for origin in origins {
        policy.push(' ');
        policy.push_str(origin);
    }
    HeaderValue::from_str(&policy).ok()
}

/// Answers requests on `listener` until `shutdown` completes; open requests are finished first, within a limit.
pub async fn serve(listener: tokio::net::TcpListener, state: AppState, shutdown: impl Future<Output = ()>) {
    let connections = Arc::clone(state.connections());
    let router = router(state.clone());
    listen::run(listener, router, connections, &state.http().proxies, shutdown).await;
}

/// Every route, without what stands before them.
#[cfg(test)]
pub(crate) fn routes() -> Router<AppState> {
    pages_and_api().merge(crate::hooks::routes()).merge(health_routes())
}

fn pages_and_api() -> Router<AppState> {
    Router::new()
        .route("/", get(home))
        .merge(pages::routes())
        .nest("/api/v1", api::routes())
        .route("/assets/{name}", get(assets::serve))
}

fn health_routes() -> Router<AppState> {
    Router::new()
        .route("/healthz", get(health::healthy))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::show))
}

/// All routes, with their limits and headers. What is added last stands first before the handler's.
pub fn router(state: AppState) -> Router {
    let guard = || middleware::from_fn_with_state(state.clone(), endpoints::guard);
    let timeout = || TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, REQUEST_TIMEOUT);
    let pages = pages_and_api()
        .layer(guard())
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(state.clone(), admission::limit_requests))
        .layer(middleware::from_fn(body::read_whole::<MAX_BODY_BYTES>))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(timeout());
    let hooks = crate::hooks::routes()
        .layer(guard())
        .layer(middleware::from_fn_with_state(state.clone(), admission::limit_hooks))
        .layer(middleware::from_fn(body::read_whole::<MAX_HOOK_BYTES>))
        .layer(timeout());
    // Health must answer when everything else is at its limit.
    pages
        .merge(hooks)
        .merge(health_routes().layer(guard()).layer(timeout()))
        .layer(middleware::from_fn_with_state(state.clone(), client::identify))
        .layer(middleware::from_fn_with_state(state.clone(), metrics::measure))
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn_with_state(state.clone(), security_headers))
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

async fn home(who: SignedIn) -> Redirect {
    Redirect::to(shell::home(who.user.role))
}

async fn not_found(request: Request) -> Response {
    if request.uri().path().starts_with("/api/") {
        ApiError(Failure::NotFound).into_response()
    } else {
        PageError(Failure::NotFound).into_response()
    }
}

async fn security_headers(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (
            header::HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            header::HeaderName::from_static("permissions-policy"),
            "camera=(), geolocation=(), microphone=()",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if state.secure_cookies() {
        headers.insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000; includeSubDomains"),
        );
    }
    // What a customer sees is nobody else's: only the embedded files may be kept.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
