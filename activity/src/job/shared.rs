//! What the tasks of a driver share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemas::clock::Clock;
use schemas::db::Database;

use super::alert::Alerts;
use super::lease::Owner;
use super::slot::Slot;
use super::{Job, JobBoard};

/// How often what keeps watch looks, and how long a job's task sleeps at most.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// What a driver works with.
#[derive(Clone, Debug)]
pub struct Settings {
    pub database: Database,
    /// The clock that the books go by: a test clock is followed as it is set in the database.
    pub clock: Clock,
    pub board: JobBoard,
    pub alerts: Arc<dyn Alerts>,
    /// The folder that local jobs work on.
    pub folder: String,
}

/// A driver with its jobs.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) owner: Owner,
    pub(super) slots: Vec<Arc<Slot>>,
    /// Jobs that the configuration switches off.
    pub(super) off: Vec<DisabledJob>,
    /// How often the test clock was set.
    pub(super) epoch: AtomicU64,
    /// Leases that this process has, and until when it may go by that.
    pub(super) held: Mutex<BTreeMap<String, Instant>>,
    /// Leases that other processes have.
    pub(super) elsewhere: Mutex<BTreeSet<String>>,
}

/// A job that is not run.
pub(super) struct DisabledJob {
    pub(super) job: Arc<dyn Job>,
    pub(super) lease: String,
    pub(super) why: &'static str,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.slots.iter().map(|slot| slot.name).collect();
        f.debug_struct("Shared")
            .field("owner", &self.owner)
            .field("jobs", &names)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn held(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn elsewhere(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
