//! The network's traffic, summed by what pages and reports ask for.

use std::time::Duration;

use activity::job::{Context, Job, JobDependency, RunError, RunReport, Schedule, Scope};
use anyhow::Context as _;
use async_trait::async_trait;

use super::site::Metered;
use crate::output::count;

const PERIOD: Duration = Duration::from_secs(10);
/// Invoices need usage; pages can wait for it.
const AFTER: [JobDependency; 2] = [JobDependency::always("assignments"), JobDependency::always("usage")];

pub(super) struct Traffic {
    metered: Metered,
}

impl Traffic {
    pub(super) fn new(metered: &Metered) -> Traffic {
        Traffic {
            metered: metered.clone(),
        }
    }
}

#[async_trait]
impl Job for Traffic {
    fn name(&self) -> &'static str {
        "traffic"
    }

    fn description(&self) -> &'static str {
        "Sums traffic by interface, port and AS number, and all hours that are over"
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
        let refreshed = self.metered.analytics.refresh_traffic(|progress| {
            run.progress(progress.days_done as u64, progress.days_total as u64, "days of traffic");
        });
        let refresh = refreshed.await.context("traffic could not be summed")?;
        Ok(RunReport::counted(refresh.windows_recomputed, || {
            format!("{} summed", count(refresh.windows_recomputed, "window"))
        }))
    }
}
