//! Customers' budgets: alerts, hard stops, resets.

use std::sync::Arc;
use std::time::Duration;

use activity::job::{Context, Hold, Job, JobDependency, RunError, RunReport, Schedule, Scope, Timing};
use anyhow::Context as _;
use async_trait::async_trait;
use billing::budget;

use super::books::{Books, LEASE, log_failed};
use crate::output::count;

const PERIOD: Duration = Duration::from_secs(600);
/// What was invoiced and topped up is spent and paid; the next look sees what comes later.
const AFTER: [JobDependency; 1] = [JobDependency::at_most("collect", Duration::from_secs(60))];

pub(super) struct Budgets {
    books: Arc<Books>,
}

impl Budgets {
    pub(super) fn new(books: &Arc<Books>) -> Budgets {
        Budgets {
            books: Arc::clone(books),
        }
    }
}

#[async_trait]
impl Job for Budgets {
    fn name(&self) -> &'static str {
        "budgets"
    }

    fn description(&self) -> &'static str {
        "Compares spending with budgets: alerts, stops at the limit, resets"
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
        let looked = budget::check_all(&self.books.database, &self.books.usage(), run.now_ms)
            .await
            .context("budgets could not be checked")?;
        let failed = log_failed(looked.failed, "a budget could not be checked");
        let (held, released) = (looked.held.len() as u64, looked.released.len() as u64);
        Ok(RunReport::counted(looked.said + held + released + failed, || {
            format!(
                "{}, {} stopped, {released} released, {}",
                count(looked.said, "alert"),
                count(held, "subscription"),
                count(failed, "error")
            )
        }))
    }
}
