//! Limits of the stored tables, applied; files that nobody names any more, removed.

use std::time::Duration;

use activity::job::{Context, Job, RunError, RunReport, Schedule, Scope};
use anyhow::Context as _;
use async_trait::async_trait;

use super::site::Metered;
use crate::output::count;
use crate::storage;

const PERIOD: Duration = Duration::from_secs(600);

pub(super) struct Retention {
    metered: Metered,
}

impl Retention {
    pub(super) fn new(metered: &Metered) -> Retention {
        Retention {
            metered: metered.clone(),
        }
    }
}

#[async_trait]
impl Job for Retention {
    fn name(&self) -> &'static str {
        "retention"
    }

    fn description(&self) -> &'static str {
        "Removes what the stored tables hold beyond their limits, and files that no table names; writes older files anew"
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(PERIOD).first_after(PERIOD)
    }

    fn scope(&self) -> Scope {
        Scope::Local
    }

    async fn run(&self, _run: &Context) -> Result<RunReport, RunError> {
        let (analytics, removed) = (self.metered.analytics.clone(), self.metered.removed.clone());
        let limits = self.metered.config().retention.clone();
        let files = tokio::task::spawn_blocking(move || {
            if let Err(error) = storage::rewrite_older(&analytics) {
                tracing::warn!(error = format!("{error:#}"), "an older file could not be written anew");
            }
            storage::apply_limits(&analytics, &limits, &removed)
        });
        let files = files.await?.context("limits of the tables could not be applied")?;
        Ok(RunReport::counted(files, || {
            format!("{} removed", count(files, "file"))
        }))
    }
}
