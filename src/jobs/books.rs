//! What the jobs of the books share: database, usage, gateways, the clock, and what a changed configuration says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use activity::job::{Hold, Schedule};
use analytics::{Analytics, MeteredUsage};
use billing::guard::{self, ClockLimits};
use billing::payment::{GatewayCharger, Gateways};
use billing::prune;
use billing::vat::VatRegister;
use schemas::clock::Clock;
use schemas::db::Database;
use schemas::metering::MeteringConfig;
use schemas::retention::RecordRetention;
use schemas::usage::MeasureGuards;
use tokio::sync::watch;

use crate::outbox::Outbox;

/// The lease of the jobs that charge, collect and end: their order matters, so one process runs them all.
pub(super) const LEASE: &str = "billing";
const START_DELAY: Duration = Duration::from_secs(5);
const OUTBOX_PERIOD: Duration = Duration::from_secs(5);

/// Everything these jobs work on.
pub(crate) struct Books {
    pub(crate) database: Database,
    pub(crate) analytics: Analytics,
    pub(crate) metering: watch::Receiver<Arc<MeteringConfig>>,
    pub(crate) clock: Clock,
    pub(crate) gateways: Gateways,
    /// Charges what is due by itself; otherwise the job `close` is switched off.
    pub(crate) closes: bool,
    pub(crate) clock_limits: ClockLimits,
    pub(crate) guards: MeasureGuards,
    /// The file whose terms of collection hold from when it is seen to have changed.
    pub(crate) config_path: Option<PathBuf>,
    /// How long records are kept, and how many were removed since the start.
    pub(crate) keep: Mutex<RecordRetention>,
    pub(crate) pruned: PrunedTotals,
    pub(crate) outbox: Outbox,
    /// Where VAT numbers are asked for, where that is switched on.
    pub(crate) register: Option<Arc<dyn VatRegister>>,
}

impl Books {
    pub(super) fn usage(&self) -> MeteredUsage {
        MeteredUsage::new(self.analytics.clone(), &self.metering.borrow()).guarded(self.guards)
    }

    /// After the start, before the first run: what the collector journalled before is stored by then. By a test clock everything is
    /// done at once.
    pub(super) fn first_delay(&self) -> Duration {
        match self.clock.is_test() {
            true => Duration::ZERO,
            false => START_DELAY,
        }
    }

    /// How often what stands ready to be sent is looked for; with a test clock, which may be set at any time, every second.
    pub(super) fn outbox_schedule(&self) -> Schedule {
        let period = match self.clock.is_test() {
            true => super::TEST_PERIOD,
            false => OUTBOX_PERIOD,
        };
        Schedule::every(period).first_after(period)
    }

    pub(super) fn charger(&self) -> GatewayCharger<'_> {
        GatewayCharger {
            database: &self.database,
            gateways: &self.gateways,
        }
    }

    /// Whether billing is stopped. A clock that cannot be looked at is not believed either.
    pub(super) async fn hold(&self, now_ms: i64) -> Hold {
        match guard::look(&self.database, self.clock_limits, now_ms).await {
            Ok(None) => Hold::No,
            Ok(Some(stopped)) => Hold::ByOrder(stopped.to_string()),
            Err(error) => Hold::Unknown(format!(
                "the clock could not be checked: {:#}",
                anyhow::Error::from(error)
            )),
        }
    }

    pub(super) fn keep(&self) -> RecordRetention {
        *self.keep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_keep(&self, keep: RecordRetention) {
        *self.keep.lock().unwrap_or_else(PoisonError::into_inner) = keep;
    }
}

/// Logs what could not be done for one of many; the answer is how many those are.
pub(super) fn log_failed<I, E>(failed: impl IntoIterator<Item = (I, E)>, what: &'static str) -> u64
where
    I: std::fmt::Display,
    E: Into<anyhow::Error>,
{
    let mut count = 0;
    for (of, error) in failed {
        count += 1;
        tracing::error!(%of, error = format!("{:#}", error.into()), "{what}");
    }
    count
}

/// Records that were removed since the process started, by kind. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct PrunedTotals(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl PrunedTotals {
    pub(super) fn add(&self, rows: &[(&'static str, u64)]) {
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, count) in rows {
            *totals.entry(kind).or_default() += count;
        }
    }

    /// In the Prometheus text format.
    pub(crate) fn metrics(&self) -> String {
        let totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = "ezscale_records_pruned_total";
        let mut text = format!("# HELP {name} old records removed from the database\n# TYPE {name} counter\n");
        for kind in prune::KINDS.into_iter().chain([super::JOB_RUNS]) {
            let count = totals.get(kind).copied().unwrap_or_default();
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}{{records=\"{kind}\"}} {count}");
        }
        text
    }
}
