//! The machine's clock, looked at: billing stops where it moved further than it can have ([`billing::guard`]).

use std::sync::Arc;
use std::time::Duration;

use activity::job::{Context, Job, RunError, RunReport, Schedule, Scope, Timing};
use anyhow::Context as _;
use async_trait::async_trait;
use billing::guard;

use super::books::Books;

const PERIOD: Duration = Duration::from_secs(1);

/// Each process looks: the clock of each machine may jump by itself.
pub(super) struct BillingClock {
    books: Arc<Books>,
}

impl BillingClock {
    pub(super) fn new(books: &Arc<Books>) -> BillingClock {
        BillingClock {
            books: Arc::clone(books),
        }
    }
}

#[async_trait]
impl Job for BillingClock {
    fn name(&self) -> &'static str {
        "billing_clock"
    }

    fn description(&self) -> &'static str {
        "Stops billing when the clock moved further than it can have, and resumes it when the clock is back"
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(PERIOD)
    }

    fn scope(&self) -> Scope {
        Scope::Local
    }

    /// It looks at the clock itself: one that stands still is looked at as often.
    fn timing(&self) -> Timing {
        Timing::Machine
    }

    async fn run(&self, _run: &Context) -> Result<RunReport, RunError> {
        let (database, limits) = (&self.books.database, self.books.clock_limits);
        guard::look(database, limits, self.books.clock.now_ms())
            .await
            .context("the clock could not be checked: nothing is billed")?;
        // That billing stopped is an event, and on every page of staff.
        Ok(RunReport::Nothing)
    }
}
