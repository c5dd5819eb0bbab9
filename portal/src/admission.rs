//! How many at one time: requests of a client and altogether, expensive reads of a user and altogether.
//!
//! Each kind of work has a [`Gate`]. A request that finds no place waits for one, in a short queue and not for long; whose
//! queue is full, or whose wait is over, is told to come again ([`Busy`], 503 with `Retry-After`). Who has many requests
//! waits for their own first and holds few places of the common queue, so one busy user does not hold up the others.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use schemas::ids::UserId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::client::{Client, grouped};
use crate::error::Failure;

/// What a request is told that found no place: to come again after so many seconds.
pub(crate) const RETRY_AFTER_S: u64 = 2;
/// Longest wait for a place to be answered at all.
const REQUEST_WAIT: Duration = Duration::from_secs(5);
/// Longest wait for a place to read what is expensive; a request is given up some seconds after.
const READ_WAIT: Duration = Duration::from_secs(20);

/// Limits of a gate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Let through at one time.
    pub(crate) at_once: usize,
    /// Of one key at one time.
    pub(crate) at_once_each: usize,
    /// Waiting at one time.
    pub(crate) waiting: usize,
    /// Of one key.
    pub(crate) waiting_each: usize,
    /// Longest wait.
    pub(crate) wait: Duration,
}

/// There is no place, and none is to be had soon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Busy;

impl IntoResponse for Busy {
    fn into_response(self) -> Response {
        let retry = [(header::RETRY_AFTER, RETRY_AFTER_S.to_string())];
        (StatusCode::SERVICE_UNAVAILABLE, retry, "busy: try again in a moment\n").into_response()
    }
}

impl From<Busy> for Failure {
    fn from(Busy: Busy) -> Failure {
        Failure::Busy {
            retry_after_s: RETRY_AFTER_S,
        }
    }
}

/// What one key has.
#[derive(Debug)]
struct KeyState {
    places: Arc<Semaphore>,
    /// Requests that have a place or wait for one.
    requests: usize,
}

/// Lets so many through at one time.
#[derive(Debug)]
pub(crate) struct Gate<K: Eq + Hash + Clone> {
    limits: Limits,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    each: Mutex<HashMap<K, KeyState>>,
    refused: AtomicU64,
}

impl<K: Eq + Hash + Clone> Gate<K> {
    pub(crate) fn new(limits: Limits) -> Gate<K> {
        Gate {
            limits,
            places: Arc::new(Semaphore::new(limits.at_once)),
            waiting: AtomicUsize::new(0),
            each: Mutex::default(),
            refused: AtomicU64::new(0),
        }
    }

    fn each(&self) -> std::sync::MutexGuard<'_, HashMap<K, KeyState>> {
        self.each.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Requests that found no place, since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Waits for a place. It is held until what is answered is dropped.
    pub(crate) async fn enter(self: &Arc<Self>, key: K) -> Result<Place<K>, Busy> {
        let entered = self.try_enter(key).await;
        if entered.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        entered
    }

    async fn try_enter(self: &Arc<Self>, key: K) -> Result<Place<K>, Busy> {
        let (own, turn) = self.queue(key)?;
        let wait = async {
            let own = own.acquire_owned().await;
            let common = self.wait_in_common().await?;
            // Neither is ever closed.
            Ok(Place {
                _own: own.map_err(|_| Busy)?,
                _common: common,
                _turn: turn,
            })
        };
        match tokio::time::timeout(self.limits.wait, wait).await {
            Ok(entered) => entered,
            Err(_) => Err(Busy),
        }
    }

    async fn wait_in_common(&self) -> Result<OwnedSemaphorePermit, Busy> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::new(&self.waiting, self.limits.waiting)?;
        Arc::clone(&self.places).acquire_owned().await.map_err(|_| Busy)
    }

    /// A turn among the requests of a key, and where its places are.
    fn queue(self: &Arc<Self>, key: K) -> Result<(Arc<Semaphore>, CountedRequest<K>), Busy> {
        let mut each = self.each();
        let own = each.entry(key.clone()).or_insert_with(|| KeyState {
            places: Arc::new(Semaphore::new(self.limits.at_once_each)),
            requests: 0,
        });
        if own.requests >= self.limits.at_once_each + self.limits.waiting_each {
            return Err(Busy);
        }
        own.requests += 1;
        let turn = CountedRequest {
            gate: Arc::clone(self),
            key,
        };
        Ok((Arc::clone(&own.places), turn))
    }
}

/// Counted among those who wait, until dropped: also when the client went away.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize, max: usize) -> Result<Waiting<'a>, Busy> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let counted = Waiting(waiting);
        if before >= max { Err(Busy) } else { Ok(counted) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request counted among those of its key, until dropped.
#[derive(Debug)]
struct CountedRequest<K: Eq + Hash + Clone> {
    gate: Arc<Gate<K>>,
    key: K,
}

impl<K: Eq + Hash + Clone> Drop for CountedRequest<K> {
    fn drop(&mut self) {
        let mut each = self.gate.each();
        if let Some(own) = each.get_mut(&self.key) {
            own.requests -= 1;
            if own.requests == 0 {
                each.remove(&self.key);
            }
        }
    }
}

/// A place, until dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Eq + Hash + Clone> {
    _own: OwnedSemaphorePermit,
    _common: OwnedSemaphorePermit,
    _turn: CountedRequest<K>,
}

/// What a request costs to answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Cost {
    /// A few rows of the database.
    Light,
    /// Questions to the stored tables, or sums over many rows.
    Read,
    /// Usage down to its flows, an order carried out on trial, a month of documents.
    Heavy,
}

/// All gates of a portal.
#[derive(Debug)]
pub(crate) struct Gates {
    requests: Arc<Gate<IpAddr>>,
    reads: Arc<Gate<UserId>>,
    heavy: Arc<Gate<UserId>>,
    hooks: Arc<Gate<IpAddr>>,
}

impl Default for Gates {
    fn default() -> Gates {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Gates {
            requests: Arc::new(Gate::new(Limits {
                at_once: 512,
                at_once_each: 64,
                waiting: 512,
                waiting_each: 64,
                wait: REQUEST_WAIT,
            })),
            reads: Arc::new(Gate::new(Limits {
                at_once: (2 * cores).max(4),
                // Nobody has all of them.
                at_once_each: cores.max(2),
                waiting: 512,
                waiting_each: 16,
                wait: READ_WAIT,
            })),
            heavy: Arc::new(Gate::new(Limits {
                at_once: cores.max(2),
                at_once_each: 1,
                waiting: 64,
                waiting_each: 4,
                wait: READ_WAIT,
            })),
            // A gateway sends again what found no place.
            hooks: Arc::new(Gate::new(Limits {
                at_once: 32,
                at_once_each: 8,
                waiting: 256,
                waiting_each: 64,
                wait: REQUEST_WAIT,
            })),
        }
    }
}

impl Gates {
    /// That of all requests of people and programs.
    pub(crate) fn requests(&self) -> Arc<Gate<IpAddr>> {
        Arc::clone(&self.requests)
    }

    /// That of what gateways post.
    pub(crate) fn hooks(&self) -> Arc<Gate<IpAddr>> {
        Arc::clone(&self.hooks)
    }

    /// A place for what a user asks; what is light needs none.
    pub(crate) async fn read(&self, cost: Cost, user: UserId) -> Result<Option<Place<UserId>>, Busy> {
        match cost {
            Cost::Light => Ok(None),
            Cost::Read => self.reads.enter(user).await.map(Some),
            Cost::Heavy => self.heavy.enter(user).await.map(Some),
        }
    }

    /// Requests that found no place, by gate.
    pub(crate) fn refused(&self) -> [(&'static str, u64); 4] {
        [
            ("requests", self.requests.refused()),
            ("reads", self.reads.refused()),
            ("heavy_reads", self.heavy.refused()),
            ("hooks", self.hooks.refused()),
        ]
    }
}

/// Answers so many requests of a client, and of all, at one time, as the gate lets through.
pub(crate) async fn limit(State(gate): State<Arc<Gate<IpAddr>>>, request: Request, next: Next) -> Response {
    let client = Client::of(request.extensions()).ip;
    match gate.enter(grouped(client)).await {
        Ok(_place) => next.run(request).await,
        Err(busy) => busy.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(wait: Duration) -> Arc<Gate<u8>> {
        Arc::new(Gate::new(Limits {
            at_once: 3,
            at_once_each: 2,
            waiting: 2,
            waiting_each: 1,
            wait,
        }))
    }

    #[tokio::test]
    async fn one_key_has_its_share_and_others_theirs() {
        let gate = gate(Duration::from_secs(60));
        let first = gate.enter(1).await.unwrap();
        let _second = gate.enter(1).await.unwrap();
        // The third waits for one of its own, the fourth is told so at once.
        let waits = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.enter(1).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(gate.enter(1).await.unwrap_err(), Busy);
        let _other = gate.enter(2).await.expect("another key is not held up");
        drop(first);
        waits.await.unwrap().expect("it has the place that became free");
        assert_eq!(gate.refused(), 1);
    }

    #[tokio::test]
    async fn the_common_queue_is_short_and_nobody_waits_for_long() {
        let gate = gate(Duration::from_millis(200));
        let _held = [gate.enter(1).await, gate.enter(2).await, gate.enter(3).await].map(Result::unwrap);
        let waiting: Vec<_> = (4..6)
            .map(|key| {
                let gate = Arc::clone(&gate);
                tokio::spawn(async move { gate.enter(key).await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(gate.enter(6).await.unwrap_err(), Busy, "the queue is full");
        for waits in waiting {
            assert_eq!(waits.await.unwrap().unwrap_err(), Busy, "its wait is over");
        }
        assert_eq!(gate.refused(), 3);
    }

    #[tokio::test]
    async fn who_goes_away_leaves_nothing_behind() {
        let gate = gate(Duration::from_secs(60));
        let held = [gate.enter(1).await, gate.enter(2).await, gate.enter(3).await].map(Result::unwrap);
        for key in 0..100 {
            let gone = tokio::time::timeout(Duration::from_millis(1), gate.enter(key)).await;
            assert!(gone.is_err(), "it waited: {key}");
        }
        drop(held);
        assert!(gate.each().is_empty());
        assert_eq!(
            (gate.waiting.load(Ordering::Relaxed), gate.places.available_permits()),
            (0, 3)
        );
    }
}
