//! The HTTP server: routes, limits, security headers, health and metrics.

use std::future::{Future, IntoFuture as _};
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

use billing::guard;

use crate::auth::{SignedIn, refuse_foreign_origin};
use crate::error::{ApiError, Failure, PageError, PortalError};
use crate::state::AppState;
use crate::{api, assets, metrics, pages, shell};

/// Largest request body.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// A request that takes longer is given up with 503.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long open requests may take to finish once the server is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

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
///
/// # Errors
/// When the listener fails.
pub async fn serve<F>(listener: tokio::net::TcpListener, state: AppState, shutdown: F) -> Result<(), PortalError>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let app = router(state).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        shutdown.await;
        // The receiver lives as long as the server below.
        let _ = stopping.send(());
    });
    let give_up = async {
        match stopped.await {
            Ok(()) => tokio::time::sleep(DRAIN_TIMEOUT).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = server.into_future() => served.map_err(PortalError::Serve),
        () = give_up => {
            tracing::warn!("requests were still open when the server stopped");
            Ok(())
        }
    }
}

/// All routes, with their limits and headers.
pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/", get(home))
        .merge(pages::routes())
        .nest("/api/v1", api::routes())
        .route("/assets/{name}", get(assets::serve))
        .fallback(not_found)
        .layer(middleware::from_fn(refuse_foreign_origin))
        .layer(middleware::from_fn_with_state(state.clone(), limit_requests))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            REQUEST_TIMEOUT,
        ))
        .merge(crate::hooks::routes())
        // Health must answer when everything else is at its limit.
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics::show))
        .layer(middleware::from_fn_with_state(state.clone(), metrics::measure))
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn_with_state(state.clone(), security_headers))
        .layer(CatchPanicLayer::new())
        .layer(TraceLayer::new_for_http())
        .with_state(state)
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

/// Healthy while the collector of this process does its work and billing is not stopped; otherwise 503 and what keeps it from that, a line each. It
/// is for a monitor that calls people: a collector that cannot write goes on by itself, and a restart helps nothing.
async fn healthy(State(state): State<AppState>) -> Response {
    let mut problems: Vec<String> = state.collector_problems().into_iter().map(str::to_owned).collect();
    // A database that does not answer is a matter of `/readyz`.
    if let Ok(Some(stopped)) = guard::stopped(state.db().pool()).await {
        problems.push(stopped.to_string());
    }
    if problems.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n").into_response()
}

/// Ready when the database and the stored tables answer. It says where billing is stopped, and is ready all the same: an admin
/// confirms the clock on a page.
async fn ready(State(state): State<AppState>) -> Response {
    let database = sqlx::query("SELECT 1").fetch_one(state.db().pool()).await;
    if let Err(error) = database {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "not ready: the database does not answer"
        );
        return (StatusCode::SERVICE_UNAVAILABLE, "database\n").into_response();
    }
    let now_ms = state.now_ms();
    let tables = state.analytics().usage_windows(0, now_ms, now_ms).await;
    if let Err(error) = tables {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "not ready: the tables cannot be read"
        );
        return (StatusCode::SERVICE_UNAVAILABLE, "tables\n").into_response();
    }
    match guard::stopped(state.db().pool()).await {
        Ok(Some(stopped)) => format!("ready\n{stopped}\n").into_response(),
        _ => "ready\n".into_response(),
    }
}

async fn limit_requests(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let Ok(_permit) = state.requests().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], "busy\n").into_response();
    };
    next.run(request).await
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
