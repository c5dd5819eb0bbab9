//! The calendar of subscriptions: trials that end, changes that are made, cancellations that take effect.

use std::sync::Arc;
use std::time::Duration;

use activity::job::{Context, Hold, Job, RunError, RunReport, Schedule, Scope, Timing};
use anyhow::Context as _;
use async_trait::async_trait;
use billing::lifecycle;
use tracing::info;

use super::books::{Books, LEASE, log_failed};
use crate::output::count;

const PERIOD: Duration = Duration::from_secs(60);

pub(super) struct Lifecycle {
    books: Arc<Books>,
}

impl Lifecycle {
    pub(super) fn new(books: &Arc<Books>) -> Lifecycle {
        Lifecycle {
            books: Arc::clone(books),
        }
    }
}

#[async_trait]
impl Job for Lifecycle {
    fn name(&self) -> &'static str {
        "lifecycle"
    }

    fn description(&self) -> &'static str {
        "Ends trials, makes scheduled changes and ends cancelled subscriptions, each as of its own time"
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

    async fn hold(&self, now_ms: i64) -> Hold {
        self.books.hold(now_ms).await
    }

    async fn run(&self, run: &Context) -> Result<RunReport, RunError> {
        let done = lifecycle::advance(&self.books.database, run.now_ms)
            .await
            .context("subscriptions could not be brought up to date")?;
        let failed = log_failed(done.failed, "a subscription could not be brought up to date");
        let advanced = done.changes_executed + done.changes_failed + done.subscriptions_ended + done.trials_ended;
        if advanced > 0 {
            info!(
                trials_ended = done.trials_ended,
                changes_executed = done.changes_executed,
                changes_failed = done.changes_failed,
                subscriptions_ended = done.subscriptions_ended,
                "subscriptions brought up to date"
            );
        }
        Ok(RunReport::counted(
            advanced as u64 + done.reminders as u64 + failed,
            || {
                format!(
                    "{} ended, {} made, {} failed, {}, {} ended, {}",
                    count(done.trials_ended, "trial"),
                    count(done.changes_executed, "change"),
                    done.changes_failed,
                    count(done.reminders, "reminder"),
                    count(done.subscriptions_ended, "subscription"),
                    count(failed, "error")
                )
            },
        ))
    }
}
