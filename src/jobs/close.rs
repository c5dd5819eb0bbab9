//! What is due, invoiced.

use std::sync::Arc;
use std::time::Duration;

use activity::job::{Context, Hold, Job, JobDependency, RunError, RunReport, Schedule, Scope, Timing};
use anyhow::Context as _;
use async_trait::async_trait;
use billing::invoice;
use tracing::info;

use super::books::{Books, LEASE, log_failed};
use crate::output::count;

const PERIOD: Duration = Duration::from_secs(600);
/// A change that takes effect before what is due must be made before that is charged: otherwise it is charged by what was agreed
/// before. A free plan that ends is only sooner off the next invoice.
const AFTER: [JobDependency; 2] = [
    JobDependency::always("lifecycle"),
    JobDependency::at_most("idle_plans", Duration::from_secs(60)),
];

pub(super) struct Close {
    books: Arc<Books>,
}

impl Close {
    pub(super) fn new(books: &Arc<Books>) -> Close {
        Close {
            books: Arc::clone(books),
        }
    }
}

#[async_trait]
impl Job for Close {
    fn name(&self) -> &'static str {
        "close"
    }

    fn description(&self) -> &'static str {
        "Invoices due charges"
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

    fn switched_off(&self) -> Option<&'static str> {
        let why = "[billing] close_automatically = false; `ezscale invoice close` invoices due charges";
        (!self.books.closes).then_some(why)
    }

    async fn hold(&self, now_ms: i64) -> Hold {
        self.books.hold(now_ms).await
    }

    async fn run(&self, run: &Context) -> Result<RunReport, RunError> {
        let usage = self.books.usage();
        let progress = |done, total| run.progress(done as u64, total as u64, "customers");
        let closing = invoice::close_all_with_progress(&self.books.database, &usage, run.now_ms, &progress);
        let closing = closing.await.context("due charges could not be invoiced")?;
        let invoices = closing.invoices.len();
        if invoices > 0 {
            info!(invoices, "due charges invoiced");
        }
        let failed = log_failed(closing.failed, "due charges could not be invoiced");
        Ok(RunReport::counted(invoices as u64 + failed, || {
            let (invoices, failed) = (count(invoices, "invoice"), count(failed, "customer"));
            format!("{invoices} finalised, {failed} with errors")
        }))
    }
}
