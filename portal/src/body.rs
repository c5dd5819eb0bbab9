//! Bodies of requests, read whole before anything is done about them: who sends slowly holds a connection, and nothing that
//! others wait for.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::listen::{BODY_TIMEOUT, Pace};

/// Reads the body of a request, of `MAX_BYTES` at most, in [`BODY_TIMEOUT`] at most.
pub(crate) async fn read_whole<const MAX_BYTES: usize>(request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    if announced(&parts.headers).is_some_and(|bytes| bytes > MAX_BYTES) {
        return too_large();
    }
    let bytes = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BYTES)).await {
        Ok(Ok(bytes)) => bytes,
        // Too large, as far as it is known; else it is the client that broke off, and reads no answer.
        Ok(Err(_)) => return too_large(),
        Err(_) => {
            let text = "the request took too long to arrive\n";
            return (StatusCode::REQUEST_TIMEOUT, [(header::CONNECTION, "close")], text).into_response();
        }
    };
    if let Some(pace) = parts.extensions.remove::<Arc<Pace>>() {
        pace.request_is_whole();
    }
    next.run(Request::from_parts(parts, Body::from(bytes))).await
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large() -> Response {
    let text = "the request is too large\n";
    (StatusCode::PAYLOAD_TOO_LARGE, [(header::CONNECTION, "close")], text).into_response()
}
