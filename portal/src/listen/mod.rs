//! Connections: accepted within limits, given up when the client keeps them waiting.
//!
//! HTTP must not take from the collector what it needs. So connections are few (`HttpSettings::max_connections`, which
//! leaves descriptors to the collector), a client has a share of them, and each waits for its client within limits:
//!
//! ```text
//! accepted ──▶ header, 10 s ──▶ body, 15 s ──▶ answered ──▶ the next request, 75 s
//!                                                 └─ 30 s without taking a byte of the answer
//! ```
//!
//! Where all are taken, a new connection is let in and the one that has waited longest for its client is closed
//! ([`connections`]): who sends a request at once is answered, however many others hold half of one.
//!
//! HTTP/1.1 only. There is no TLS here, without which browsers speak no HTTP/2, and proxies speak HTTP/1.1 to what is behind
//! them; so the multiplexing, of which two connections once took the portal down, has no user.

mod connections;
mod stream;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode, Version, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

pub(crate) use connections::Connections;
use connections::NoCapacity;
use stream::ClientStream;
pub(crate) use stream::Pace;

use crate::client::Proxies;

/// How long a client is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientTimeouts {
    /// From connecting, or from the first byte of a further request, until the request's header is there.
    pub(crate) header: Duration,
    /// Until the body of a request is there, where nobody reads it.
    pub(crate) body: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
    /// Without taking a byte of an answer that waits to be sent.
    pub(crate) stall: Duration,
    /// A connection is looked at so often, at least: a deadline may come nearer meanwhile.
    pub(crate) look: Duration,
}

/// Until the body of a request is there.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(15);

impl ClientTimeouts {
    pub(crate) const DEFAULT: ClientTimeouts = ClientTimeouts {
        header: Duration::from_secs(10),
        // Who reads it gives up before, with an answer.
        body: Duration::from_secs(45),
        // Proxies keep connections for 60 seconds, and should be the ones that close them.
        idle: Duration::from_secs(75),
        stall: Duration::from_secs(30),
        look: Duration::from_secs(2),
    };
}

/// How long open requests may take to finish once the server is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest header of a request.
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// Before connections are accepted again when that failed: the error would come again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Connections at one time, where nothing else is configured.
pub const MAX_CONNECTIONS: usize = 4096;
/// Of one client, where nothing else is configured: some ten browsers.
pub const MAX_CONNECTIONS_PER_CLIENT: usize = 64;

/// Answers what comes over `listener` with `router` until `shutdown` completes; open requests are finished first, within a
/// limit.
pub(crate) async fn run(
    listener: TcpListener,
    router: Router,
    connections: Arc<Connections>,
    proxies: &Proxies,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let client = (!proxies.trusts(peer.ip())).then_some(peer.ip());
                match connections.admit(client) {
                    Ok(admitted) => {
                        let task = serve(stream, peer, router.clone(), admitted, stopping.clone());
                        tasks.spawn(task);
                    }
                    // Closed without a word: words would wait for somebody to take them.
                    Err(NoCapacity) => drop(stream),
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // Nobody listening is nobody to tell.
    let _ = stop.send(true);
    let drained = tokio::time::timeout(DRAIN_TIMEOUT, async { while tasks.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(
            requests = tasks.len(),
            "requests were still open when the server stopped"
        );
    }
}

/// RFC 9112 §3.2: a request of HTTP/1.1 names exactly one host; one of HTTP/1.0 may name none. Of two, a proxy and we might take
/// different ones.
fn names_one_host(request: &Request<Body>) -> bool {
    match request.headers().get_all(header::HOST).iter().count() {
        0 => request.version() < Version::HTTP_11,
        hosts => hosts == 1,
    }
}

fn without_host() -> Response {
    let text = "a request names its host once\n";
    (StatusCode::BAD_REQUEST, [(header::CONNECTION, "close")], text).into_response()
}

/// What is wrong with the connection that would have been accepted, and with no other.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
    )
}

/// One connection, until either side ends it.
async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    admitted: connections::Admitted,
    mut stopping: watch::Receiver<bool>,
) {
    // Without it an answer in two parts waits for the client's acknowledgement. It is no reason not to answer.
    let _ = stream.set_nodelay(true);
    let pace = admitted.pace();
    let stream = ClientStream::new(stream, Arc::clone(&pace));
    let service = service_fn({
        let pace = Arc::clone(&pace);
        move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(Arc::clone(&pace));
            let (router, pace) = (router.clone(), Arc::clone(&pace));
            pace.request_began();
            async move {
                let answer = match names_one_host(&request) {
                    true => router.oneshot(request).await,
                    false => Ok(without_host()),
                };
                pace.answered();
                answer
            }
        }
    });
    let mut builder = http1::Builder::new();
    // The header is timed with everything else, by the pace.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None::<Duration>)
        .max_buf_size(MAX_HEADER_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut given_up = pin!(admitted.given_up());
    let mut is_stopping = *stopping.borrow();
    if is_stopping {
        connection.as_mut().graceful_shutdown();
    }
    loop {
        tokio::select! {
            // What a client does wrong is its own matter; it is counted by its status, if it got so far.
            _ = connection.as_mut() => break,
            () = given_up.as_mut() => break,
            changed = stopping.changed(), if !is_stopping => {
                is_stopping = true;
                // The sender is gone only when the server is.
                let _ = changed;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

#[cfg(test)]
mod tests;
