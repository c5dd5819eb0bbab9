//! Payments and refunds whose answer is missing: the gateway is asked what became of them.

use std::sync::Arc;
use std::time::Duration;

use activity::job::{Context, Hold, Job, JobDependency, RunError, RunReport, Schedule, Scope, Timing};
use anyhow::Context as _;
use async_trait::async_trait;
use billing::payment;

use super::books::{Books, LEASE};
use crate::output::count;

const PERIOD: Duration = Duration::from_secs(15);
/// A payment is seldom without an answer so soon; a test clock goes through all of them in one order.
const AFTER: [JobDependency; 1] = [JobDependency::at_most("budgets", Duration::from_secs(15))];

pub(super) struct Reconcile {
    books: Arc<Books>,
}

impl Reconcile {
    pub(super) fn new(books: &Arc<Books>) -> Reconcile {
        Reconcile {
            books: Arc::clone(books),
        }
    }
}

#[async_trait]
impl Job for Reconcile {
    fn name(&self) -> &'static str {
        "reconcile"
    }

    fn description(&self) -> &'static str {
        "Asks gateways what became of payments and refunds without an answer"
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
        let done = payment::reconcile(&self.books.database, &self.books.gateways, run.now_ms)
            .await
            .context("payments could not be reconciled")?;
        Ok(RunReport::counted(done.looked_for + done.events, || {
            format!(
                "{} looked up, {} settled, {} requested again, {}, {} counted",
                done.looked_for,
                done.settled,
                done.asked_again,
                count(done.errors, "error"),
                count(done.events, "webhook")
            )
        }))
    }
}
