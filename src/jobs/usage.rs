//! Usage, made current with the flows that were stored.

use std::time::Duration;

use activity::job::{Context, Job, JobDependency, RunError, RunReport, Schedule, Scope};
use anyhow::Context as _;
use async_trait::async_trait;
use tracing::warn;

use super::site::Metered;
use crate::output::count;

const PERIOD: Duration = Duration::from_secs(5);
/// Flows are judged by every assignment that is known before their usage is computed: otherwise it would be computed twice, and
/// shown wrong in between.
const AFTER: [JobDependency; 1] = [JobDependency::always("assignments")];

pub(super) struct Usage {
    metered: Metered,
}

impl Usage {
    pub(super) fn new(metered: &Metered) -> Usage {
        Usage {
            metered: metered.clone(),
        }
    }
}

#[async_trait]
impl Job for Usage {
    fn name(&self) -> &'static str {
        "usage"
    }

    fn description(&self) -> &'static str {
        "Computes the usage of windows that new or changed flows touch"
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(PERIOD)
    }

    fn scope(&self) -> Scope {
        Scope::Local
    }

    fn after(&self) -> &'static [JobDependency] {
        &AFTER
    }

    async fn run(&self, run: &Context) -> Result<RunReport, RunError> {
        let refreshed = self.metered.analytics.refresh_usage(|progress| {
            run.progress(progress.days_done as u64, progress.days_total as u64, "days of usage");
        });
        let refresh = refreshed.await.context("usage could not be refreshed")?;
        if refresh.windows_frozen > 0 {
            warn!(
                windows = refresh.windows_frozen,
                "flows arrived for windows whose other flows retention has removed: stored, but not counted as usage"
            );
        }
        Ok(RunReport::counted(refresh.windows_recomputed, || {
            format!("{} computed", count(refresh.windows_recomputed, "window"))
        }))
    }
}
