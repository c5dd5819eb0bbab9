//! The truth check: flows against interface counters, for every hour that closes.

use activity::job::{Context, Job, OnStop, RunError, RunReport, Schedule, Scope};
use analytics::counter_reconciliation;
use anyhow::Context as _;
use async_trait::async_trait;
use jiff::tz::TimeZone;
use tracing::warn;

use super::site::Metered;
use crate::output::count;

/// When an hour is judged: [`counter_reconciliation::CHECK_DELAY_MS`] after its end.
const PATTERN: &str = "15 * * * *";
const _: () = assert!(
    counter_reconciliation::CHECK_DELAY_MS == 15 * 60_000,
    "an hour is judged when it may be"
);

pub(super) struct CounterReconciliation {
    metered: Metered,
    schedule: Schedule,
}

impl CounterReconciliation {
    pub(super) fn new(metered: &Metered) -> anyhow::Result<CounterReconciliation> {
        Ok(CounterReconciliation {
            metered: metered.clone(),
            // What was not judged stays due in the tables: one look finds all hours that were missed.
            schedule: Schedule::calendar(PATTERN, TimeZone::UTC)?.and_at_start(),
        })
    }
}

#[async_trait]
impl Job for CounterReconciliation {
    fn name(&self) -> &'static str {
        "truth"
    }

    fn description(&self) -> &'static str {
        "Compares the flows of each hour with the counters of the interfaces they crossed"
    }

    fn schedule(&self) -> Schedule {
        self.schedule.clone()
    }

    fn scope(&self) -> Scope {
        Scope::Local
    }

    /// Nothing is committed before the end: the next start judges it.
    fn on_stop(&self) -> OnStop {
        OnStop::GiveUp
    }

    async fn run(&self, run: &Context) -> Result<RunReport, RunError> {
        let settings = self.metered.config().counter_reconciliation();
        let pass = self
            .metered
            .analytics
            .refresh_counter_reconciliation(&settings, run.now_ms)
            .await
            .context("flows could not be compared with interface counters")?;
        if pass.interfaces_skipped > 0 {
            warn!(
                skipped = pass.interfaces_skipped,
                limit = counter_reconciliation::INTERFACES_MAX,
                "not all interfaces were compared with their counters"
            );
        } else if pass.findings > 0 {
            warn!(
                findings = pass.findings,
                hours = pass.hours,
                "flows disagree with interface counters: see `ezscale check truth`"
            );
        }
        if pass.hours == 0 {
            return Ok(RunReport::Nothing);
        }
        Ok(RunReport::Summary(format!(
            "{} compared, {}",
            count(pass.hours, "hour"),
            count(pass.findings, "finding")
        )))
    }
}
