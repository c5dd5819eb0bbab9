//! The truth check: flows against interface counters, for every hour that closes.

use activity::job::{Context, Done, Job, OnStop, RunError, Schedule, Scope};
use analytics::truth;
use anyhow::Context as _;
use async_trait::async_trait;
use jiff::tz::TimeZone;
use tracing::warn;

use super::site::Metered;
use crate::output::count;

/// When an hour is judged: [`truth::CHECK_DELAY_MS`] after its end.
const PATTERN: &str = "15 * * * *";
const _: () = assert!(truth::CHECK_DELAY_MS == 15 * 60_000, "an hour is judged when it may be");

pub(super) struct Truth {
    metered: Metered,
    schedule: Schedule,
}

impl Truth {
    pub(super) fn new(metered: &Metered) -> anyhow::Result<Truth> {
        Ok(Truth {
            metered: metered.clone(),
            // What was not judged stays due in the tables: one look finds all hours that were missed.
            schedule: Schedule::calendar(PATTERN, TimeZone::UTC)?.and_at_start(),
        })
    }
}

#[async_trait]
impl Job for Truth {
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

    async fn run(&self, run: &Context) -> Result<Done, RunError> {
        let settings = self.metered.config().truth();
        let pass = self
            .metered
            .analytics
            .refresh_truth(&settings, run.now_ms)
            .await
            .context("flows could not be compared with interface counters")?;
        if pass.interfaces_skipped > 0 {
            warn!(
                skipped = pass.interfaces_skipped,
                limit = truth::INTERFACES_MAX,
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
            return Ok(Done::Nothing);
        }
        Ok(Done::Did(format!(
            "{} compared, {}",
            count(pass.hours, "hour"),
            count(pass.findings, "finding")
        )))
    }
}
