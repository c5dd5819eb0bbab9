//! What payment gateways post to us: `/hooks/stripe`, `/hooks/paypal`.
//!
//! Nobody signs in here: a message is believed by its signature alone, which is checked before anything is read from it.
//! Signatures age by real time, whatever clock billing goes by. A gateway that is told 500 sends it again.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use billing::payment::{self, GatewayName, PaymentError, WebhookOutcome};

use crate::path::Path;
use crate::state::AppState;

/// Largest message; what gateways send is a few kilobytes.
pub(crate) const MAX_BODY_BYTES: usize = 256 * 1024;

pub(crate) async fn receive(
    State(state): State<AppState>,
    Path(gateway): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, &'static str) {
    let known = gateway.parse::<GatewayName>().ok();
    let Some(gateway) = known.and_then(|name| state.gateways().get(name).ok()) else {
        return (StatusCode::NOT_FOUND, "this gateway is not configured here\n");
    };
    let real_now_ms = schemas::clock::machine_now_ms();
    match payment::receive_webhook(state.db(), gateway, &headers, &body, real_now_ms, state.now_ms()).await {
        Ok(WebhookOutcome::Applied) => (StatusCode::OK, "counted\n"),
        Ok(WebhookOutcome::Repeated) => (StatusCode::OK, "known\n"),
        Ok(WebhookOutcome::Stored) => (StatusCode::OK, "kept\n"),
        Err(error @ PaymentError::Webhook { .. }) => {
            tracing::warn!(error = causes(&error), "webhook verification failed");
            (StatusCode::BAD_REQUEST, "verification failed\n")
        }
        Err(error) => {
            tracing::error!(error = causes(&error), "webhook could not be processed");
            (StatusCode::INTERNAL_SERVER_ERROR, "send it again\n")
        }
    }
}

/// An error with its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
