//! Free plans that nobody uses, ended (F-26).

use std::sync::Arc;
use std::time::Duration;

use activity::job::{Context, Hold, Job, JobDependency, RunError, RunReport, Schedule, Scope, Timing};
use anyhow::Context as _;
use async_trait::async_trait;
use billing::lifecycle;
use jiff::tz::TimeZone;

use super::books::{Books, LEASE};
use crate::output::count;

/// At night: it reads the flows of ninety days for each plan that nobody signed in for.
const PATTERN: &str = "15 3 * * *";
/// A subscription that has just ended is not looked at; the next day it is not there either.
const AFTER: [JobDependency; 1] = [JobDependency::at_most("lifecycle", Duration::from_secs(60))];

pub(super) struct IdlePlans {
    books: Arc<Books>,
    schedule: Schedule,
}

impl IdlePlans {
    pub(super) fn new(books: &Arc<Books>) -> anyhow::Result<IdlePlans> {
        let nightly = Schedule::calendar(PATTERN, TimeZone::UTC)?;
        Ok(IdlePlans {
            schedule: match books.clock.is_test() {
                true => nightly.and_at_start(),
                false => nightly,
            },
            books: Arc::clone(books),
        })
    }
}

#[async_trait]
impl Job for IdlePlans {
    fn name(&self) -> &'static str {
        "idle_plans"
    }

    fn description(&self) -> &'static str {
        "Warns of free plans that nobody uses, and ends them"
    }

    fn schedule(&self) -> Schedule {
        self.schedule.clone()
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
        let done = lifecycle::end_idle_free_plans(&self.books.database, &self.books.usage(), run.now_ms)
            .await
            .context("idle free plans could not be ended")?;
        let (warned, ended) = (done.warned as u64, done.ended as u64);
        Ok(RunReport::counted(warned + ended, || {
            format!("{} warned, {} ended", count(warned, "customer"), count(ended, "plan"))
        }))
    }
}
