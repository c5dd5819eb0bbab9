//! Which connections there are, and which one gives way when there are too many.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::ClientTimeouts;
use super::stream::{CloseReason, Pace};
use crate::client::grouped;

type Id = u64;

#[derive(Debug)]
struct Entry {
    client: Option<IpAddr>,
    /// Place in [`Register::waiting`] while the client is waited for.
    order: Option<u64>,
    displaced: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Register {
    next: u64,
    open: HashMap<Id, Entry>,
    /// Those that wait for their client, longest first.
    waiting: BTreeSet<(u64, Id)>,
    /// Connections of each client, where it has any. Trusted proxies are nobody's.
    of_client: HashMap<IpAddr, Vec<Id>>,
}

impl Register {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn set_waiting(&mut self, id: Id, waits: bool) {
        let order = waits.then(|| self.number());
        let Some(entry) = self.open.get_mut(&id) else { return };
        let before = std::mem::replace(&mut entry.order, order);
        if let Some(before) = before {
            self.waiting.remove(&(before, id));
        }
        if let Some(order) = order {
            self.waiting.insert((order, id));
        }
    }

    fn remove(&mut self, id: Id) -> Option<Entry> {
        let entry = self.open.remove(&id)?;
        if let Some(order) = entry.order {
            self.waiting.remove(&(order, id));
        }
        if let Some(client) = entry.client
            && let Some(ids) = self.of_client.get_mut(&client)
        {
            ids.retain(|one| *one != id);
            if ids.is_empty() {
                self.of_client.remove(&client);
            }
        }
        Some(entry)
    }

    /// The client's connection that waits longest.
    fn longest_waiting_of(&self, client: IpAddr) -> Option<Id> {
        let ids = self.of_client.get(&client)?;
        let waiting = ids.iter().filter_map(|id| Some((self.open.get(id)?.order?, *id)));
        waiting.min().map(|(_, id)| id)
    }
}

/// No place, and nobody who would give way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NoCapacity;

/// All connections of a server.
#[derive(Debug)]
pub(crate) struct Connections {
    max: usize,
    max_per_client: usize,
    patience: ClientTimeouts,
    register: Mutex<Register>,
    refused: AtomicU64,
    given_up: [AtomicU64; CloseReason::ALL.len()],
}

impl Connections {
    pub(crate) fn new(max: usize, max_per_client: usize, patience: ClientTimeouts) -> Arc<Connections> {
        Arc::new(Connections {
            max: max.max(1),
            max_per_client: max_per_client.max(1),
            patience,
            register: Mutex::default(),
            refused: AtomicU64::new(0),
            given_up: Default::default(),
        })
    }

    fn register(&self) -> std::sync::MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.register().open.len()
    }

    /// As many as may be open.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Connections that were closed at once, since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections that were given up since the start, by cause.
    pub(crate) fn given_up(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = CloseReason::ALL.into_iter().zip(&self.given_up);
        counts.map(|(why, count)| (why.name(), count.load(Ordering::Relaxed)))
    }

    fn count(&self, why: CloseReason) {
        let index = CloseReason::ALL.iter().position(|one| *one == why).unwrap_or_default();
        self.given_up[index].fetch_add(1, Ordering::Relaxed);
    }

    /// Lets a connection in. Where its client, or all together, have too many, the one that has waited longest for its client
    /// gives way; where all are being answered, there is no place.
    pub(super) fn admit(self: &Arc<Self>, client: Option<IpAddr>) -> Result<Admitted, NoCapacity> {
        let client = client.map(grouped);
        let mut register = self.register();
        if let Some(client) = client
            && register.of_client.get(&client).map_or(0, Vec::len) >= self.max_per_client
        {
            let longest = register.longest_waiting_of(client);
            self.displace(&mut register, longest)?;
        }
        if register.open.len() >= self.max {
            let longest = register.waiting.first().map(|(_, id)| *id);
            self.displace(&mut register, longest)?;
        }
        let id = register.number();
        let displaced = Arc::new(Notify::new());
        let entry = Entry {
            client,
            order: None,
            displaced: Arc::clone(&displaced),
        };
        register.open.insert(id, entry);
        if let Some(client) = client {
            register.of_client.entry(client).or_default().push(id);
        }
        register.set_waiting(id, true);
        let connections = Arc::clone(self);
        let pace = Pace::new(self.patience, move |waits| {
            connections.register().set_waiting(id, waits);
        });
        Ok(Admitted {
            connections: Arc::clone(self),
            id,
            displaced,
            pace: Arc::new(pace),
        })
    }

    fn displace(&self, register: &mut Register, longest: Option<Id>) -> Result<(), NoCapacity> {
        let Some(entry) = longest.and_then(|id| register.remove(id)) else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(NoCapacity);
        };
        self.count(CloseReason::Displaced);
        entry.displaced.notify_one();
        Ok(())
    }
}

/// A connection that was let in, until it is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    connections: Arc<Connections>,
    id: Id,
    displaced: Arc<Notify>,
    pace: Arc<Pace>,
}

impl Admitted {
    pub(super) fn pace(&self) -> Arc<Pace> {
        Arc::clone(&self.pace)
    }

    /// Completes when the connection is to be closed, for the client's pace or for another's need.
    pub(super) async fn given_up(&self) {
        loop {
            let now = Instant::now();
            let deadline = self.pace.deadline();
            if let Some((_, why)) = deadline.filter(|(deadline, _)| *deadline <= now) {
                self.connections.count(why);
                return;
            }
            let look = now + self.connections.patience.look;
            let until = deadline.map_or(look, |(deadline, _)| deadline.min(look));
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = self.displaced.notified() => return,
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.register().remove(self.id);
    }
}
