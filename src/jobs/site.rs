//! What the jobs of a data folder share: the configuration in force, the tables, the collector.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use analytics::Analytics;
use collector::Collector;
use collector::decode::netflow::AnnouncedInterface;
use schemas::db::Database;
use schemas::interfaces::KnownInterfaces;
use schemas::metering::MeteringConfig;
use tokio::sync::{Notify, mpsc, watch};

use crate::config::Config;
use crate::storage::Removed;

/// The stored tables and what they are kept and judged by. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Metered {
    config: Arc<Mutex<Config>>,
    pub(crate) analytics: Analytics,
    /// Shared with the metrics.
    pub(crate) removed: Removed,
}

impl Metered {
    pub(crate) fn new(config: &Config, analytics: Analytics, removed: Removed) -> Metered {
        Metered {
            config: Arc::new(Mutex::new(config.clone())),
            analytics,
            removed,
        }
    }

    pub(super) fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was there when the process started.
pub(crate) struct StartState {
    pub(crate) config_path: Option<PathBuf>,
    /// The file as it was, without what the command line says.
    pub(crate) config: Option<Config>,
    /// The revision of the assignments that the collector started with.
    pub(crate) assignments_revision: i64,
    /// What the exporters say of their interfaces.
    pub(crate) interfaces: watch::Receiver<Arc<KnownInterfaces>>,
    /// To whoever keeps that: what comes in options data.
    pub(crate) told: mpsc::Sender<Vec<AnnouncedInterface>>,
    /// Shared with the portal, which shows the configuration in force.
    pub(crate) metering: watch::Sender<Arc<MeteringConfig>>,
}

/// What the jobs of a collector's process share.
pub(crate) struct Site {
    pub(crate) metered: Metered,
    pub(super) database: Database,
    pub(super) collector: Arc<Collector>,
    pub(super) started: StartState,
    /// How often the configuration was reloaded.
    reloads: AtomicU64,
    /// The configuration was reloaded.
    pub(super) reloaded: Notify,
}

impl Site {
    pub(crate) fn new(metered: Metered, database: Database, collector: Arc<Collector>, started: StartState) -> Site {
        Site {
            metered,
            database,
            collector,
            started,
            reloads: AtomicU64::new(0),
            reloaded: Notify::new(),
        }
    }

    /// How often the configuration was reloaded: what was done by an earlier one is done again.
    pub(super) fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::SeqCst)
    }

    /// The collector does not go by the configuration in force any more.
    pub(super) fn note_reload(&self) {
        self.reloads.fetch_add(1, Ordering::SeqCst);
        self.reloaded.notify_one();
    }
}
