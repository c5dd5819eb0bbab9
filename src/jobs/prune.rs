//! Records that are over, removed from the database.

use std::sync::Arc;
use std::time::Duration;

use activity::approval;
use activity::job::{Context, Hold, Job, JobDependency, RunError, RunReport, Schedule, Scope, Timing, history};
use anyhow::Context as _;
use async_trait::async_trait;
use billing::prune;

use super::books::{Books, LEASE};
use crate::output::count;

const PERIOD: Duration = Duration::from_secs(3600);
/// As metrics name the runs of jobs.
pub(crate) const JOB_RUNS: &str = "job_runs";
/// It may wait; a test clock goes through all of them in one order.
const AFTER: [JobDependency; 1] = [JobDependency::at_most("reconcile", Duration::from_secs(60))];

pub(super) struct Prune {
    books: Arc<Books>,
}

impl Prune {
    pub(super) fn new(books: &Arc<Books>) -> Prune {
        Prune {
            books: Arc::clone(books),
        }
    }
}

#[async_trait]
impl Job for Prune {
    fn name(&self) -> &'static str {
        "prune"
    }

    fn description(&self) -> &'static str {
        "Removes records that no money depends on, once they are old"
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(PERIOD).first_after(self.books.first_delay())
    }

    fn scope(&self) -> Scope {
        Scope::Group(LEASE)
    }

    fn timing(&self) -> Timing {
        Timing::Books
    }

    fn after(&self) -> &'static [JobDependency] {
        &AFTER
    }

    async fn hold(&self, now_ms: i64) -> Hold {
        self.books.hold(now_ms).await
    }

    async fn run(&self, run: &Context) -> Result<RunReport, RunError> {
        let (database, keep) = (&self.books.database, self.books.keep());
        let pruned = prune::prune(database, &keep, run.now_ms)
            .await
            .context("old records could not be removed")?;
        self.books.pruned.add(&pruned.rows);
        // Runs have the machine's time, whatever clock the books go by.
        let runs = history::prune(database, keep.job_runs_days, schemas::clock::machine_now_ms())
            .await
            .context("old runs of jobs could not be removed")?;
        self.books.pruned.add(&[(JOB_RUNS, runs)]);
        let expired = approval::expire_now(database, run.now_ms)
            .await
            .context("expired approval requests could not be closed")?;
        if expired > 0 {
            tracing::info!(expired, "requests for a second admin expired");
        }
        let rows = runs + pruned.rows.iter().map(|(_, rows)| rows).sum::<u64>();
        Ok(RunReport::counted(rows, || {
            format!("{} removed", count(rows, "record"))
        }))
    }
}
