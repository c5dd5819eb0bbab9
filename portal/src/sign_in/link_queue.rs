//! Links to set a new password that were asked for and are looked after, one after the other.
//!
//! Whether somebody signs in with an address takes different work, so nothing of it may show: who asks is answered before,
//! and neither waits nor is refused when there is too much of it. What finds no place is dropped, and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, Semaphore};

/// Requests that wait at one time.
const MAX_WAITING: usize = 256;

/// The queue.
#[derive(Debug)]
pub(crate) struct LinkQueue {
    places: Arc<Semaphore>,
    /// Held by the one that is looked after; the others wait in order.
    turn: Arc<Mutex<()>>,
    dropped: AtomicU64,
}

impl Default for LinkQueue {
    fn default() -> LinkQueue {
        LinkQueue {
            places: Arc::new(Semaphore::new(MAX_WAITING)),
            turn: Arc::default(),
            dropped: AtomicU64::new(0),
        }
    }
}

impl LinkQueue {
    /// Has it done when it is its turn, or not at all.
    pub(crate) fn add(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("password reset request dropped: too many are queued");
            return;
        };
        let turn = Arc::clone(&self.turn);
        tokio::spawn(async move {
            let _turn = turn.lock().await;
            work.await;
            drop(place);
        });
    }

    /// Dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all that was asked for was looked after.
    #[cfg(test)]
    pub(crate) async fn drained(&self) {
        let all = u32::try_from(MAX_WAITING).unwrap_or(u32::MAX);
        let _all = self.places.acquire_many(all).await;
    }

    /// Nothing is looked after while what is answered is held.
    #[cfg(test)]
    pub(crate) async fn pause(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }
}
