//! At which pace a client sends and takes: noted by the stream it does it through, judged by who watches the connection.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::ClientTimeouts;

/// Why a connection is given up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum CloseReason {
    /// No whole header in time.
    Header,
    /// No whole body in time.
    Body,
    /// No further request.
    Idle,
    /// The answer was not taken.
    Stalled,
    /// Another connection needed the place.
    Displaced,
}

impl CloseReason {
    pub(crate) const ALL: [CloseReason; 5] = [
        CloseReason::Header,
        CloseReason::Body,
        CloseReason::Idle,
        CloseReason::Stalled,
        CloseReason::Displaced,
    ];

    /// Its name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            CloseReason::Header => "header_timeout",
            CloseReason::Body => "body_timeout",
            CloseReason::Idle => "idle_timeout",
            CloseReason::Stalled => "stalled",
            CloseReason::Displaced => "displaced",
        }
    }
}

/// Whom the connection waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The client: a header.
    Header,
    /// The client: the body of a request.
    Body,
    /// Us: the answer.
    Answer,
    /// The client: to take the answer, and to send the next request.
    Between,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Since when; in [`Phase::Between`] since the client last took something.
    since: Instant,
    /// Since when bytes wait to be taken.
    stalled_since: Option<Instant>,
}

/// What a client was last seen to do.
pub(crate) struct Pace {
    patience: ClientTimeouts,
    state: Mutex<State>,
    /// Told whenever the client is waited for, and whenever it is not any more.
    waits_for_client: Box<dyn Fn(bool) + Send + Sync>,
}

impl std::fmt::Debug for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pace")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Pace {
    /// Of a connection that was just accepted.
    pub(super) fn new(patience: ClientTimeouts, waits_for_client: impl Fn(bool) + Send + Sync + 'static) -> Pace {
        Pace {
            patience,
            state: Mutex::new(State {
                phase: Phase::Header,
                since: Instant::now(),
                stalled_since: None,
            }),
            waits_for_client: Box::new(waits_for_client),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase) {
        let mut state = self.state();
        state.phase = phase;
        state.since = Instant::now();
    }

    /// The header is there.
    pub(super) fn request_began(&self) {
        self.enter(Phase::Body);
    }

    /// The whole request is there: the client has done its part.
    pub(crate) fn request_is_whole(&self) {
        self.enter(Phase::Answer);
        (self.waits_for_client)(false);
    }

    /// There is an answer to be taken.
    pub(super) fn answered(&self) {
        self.enter(Phase::Between);
        (self.waits_for_client)(true);
    }

    fn sent(&self) {
        let mut state = self.state();
        if state.phase == Phase::Between {
            state.phase = Phase::Header;
            state.since = Instant::now();
        }
    }

    fn took(&self) {
        let mut state = self.state();
        state.stalled_since = None;
        if state.phase == Phase::Between {
            state.since = Instant::now();
        }
    }

    fn stalls(&self) {
        self.state().stalled_since.get_or_insert_with(Instant::now);
    }

    /// When the client's time is over, as things stand, and what it is then given up for.
    pub(super) fn deadline(&self) -> Option<(Instant, CloseReason)> {
        let state = self.state();
        let patience = &self.patience;
        let limit: Option<(Duration, CloseReason)> = match state.phase {
            Phase::Header => Some((patience.header, CloseReason::Header)),
            Phase::Body => Some((patience.body, CloseReason::Body)),
            Phase::Answer => None,
            Phase::Between => Some((patience.idle, CloseReason::Idle)),
        };
        let waits = limit.map(|(limit, why)| (state.since + limit, why));
        let stalls = state
            .stalled_since
            .map(|since| (since + patience.stall, CloseReason::Stalled));
        [waits, stalls].into_iter().flatten().min()
    }
}

/// A stream that notes the client's pace.
#[derive(Debug)]
pub(super) struct ClientStream<S> {
    stream: S,
    pace: Arc<Pace>,
}

impl<S> ClientStream<S> {
    pub(super) fn new(stream: S, pace: Arc<Pace>) -> ClientStream<S> {
        ClientStream { stream, pace }
    }

    fn note<T>(&self, written: &Poll<std::io::Result<T>>) {
        match written {
            Poll::Pending => self.pace.stalls(),
            Poll::Ready(_) => self.pace.took(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.pace.sent();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.note(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, parts);
        this.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
